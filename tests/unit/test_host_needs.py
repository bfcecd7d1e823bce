"""The tables by which the stack and the host judge whether a machine has room for a model."""

import runpy
import sys
from pathlib import Path

import pytest

from bench.gpu.sizes import SIZES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cdk" / "assets"))

from llavachat_host import options
from llavachat_host.machine import Gpu, Machine, list_gpu_faults

ROOT = Path(__file__).resolve().parents[2]
# By its path: importing the package would ask for the CDK.
STACK_NEEDS = runpy.run_path(str(ROOT / "cdk" / "llavachat_cdk" / "machines.py"))["NEEDS"]
MODELS = {"llava-1.5-7b": SIZES["7b"], "llava-1.5-13b": SIZES["13b"]}
FORMS = {"none": "bf16", "int8": "int8", "nf4": "nf4"}
CONTEXT_TOKENS = 4096
WORK_GIB = 1.5


def test_stack_and_host_judge_alike() -> None:
    """Each need stands in both tables with the same figures."""
    expected = {
        (profile, form): (need.gpu.get(form, 0), need.memory, need.weights)
        for profile, need in options.NEEDS.items()
        for form in FORMS
    }
    actual = {
        key: (pytest.approx(need.gpu_gib), need.host_gib, need.mirror_gib)
        for key, need in STACK_NEEDS.items()
    }
    assert expected == actual


@pytest.mark.parametrize("profile", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_needs_follow_from_the_models_shapes(profile: str, form: str) -> None:
    """In GiB, as which they are compared, of what the shapes' numbers take."""
    size, need = MODELS[profile], options.NEEDS[profile]
    kept = CONTEXT_TOKENS * size.kept_bytes
    expected = (size.count_loaded_bytes(FORMS[form]) + kept) / 2**30 + WORK_GIB
    assert pytest.approx(expected, rel=0.03) == need.gpu[form]
    assert pytest.approx(size.count_loaded_bytes("bf16") / 2**30, rel=0.03) == need.weights


def test_a_card_of_12_gib_has_room_for_13b_in_nf4() -> None:
    """Its weights take 7.3 GiB, which are 7.8 GB; a context and the work space fit beside them."""
    machine = Machine(
        system="amzn 2023",
        python=Path("/usr/bin/python3.12"),
        gpu=Gpu("a card", 12288 / 1024, "580.95.05"),
        has_nvidia_device=True,
        systemd=252,
        memory_gib=15.4,
        architecture="x86_64",
    )
    thirteen = options.Options(profile="llava-1.5-13b", quantization="nf4")
    assert [] == list_gpu_faults(machine, thirteen)
