"""What the installer finds on a machine, and what it says is missing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cdk" / "assets"))

from llavachat_host import machine
from llavachat_host.machine import (
    Gpu,
    Machine,
    describe,
    find_gpu,
    find_instance_disk,
    find_python,
    has_nvidia_device,
    list_faults,
    read_system,
)
from llavachat_host.options import Options

FIT = Machine(
    system="amzn 2023",
    python=Path("/usr/bin/python3.12"),
    gpu=Gpu("NVIDIA A10G", 22.5, "580.95.05"),
    has_nvidia_device=True,
    systemd=252,
    memory_gib=15.4,
    architecture="x86_64",
)
SEVEN = Options(profile="llava-1.5-7b")


@pytest.mark.parametrize(
    ("changes", "options", "fault"),
    [
        ({"architecture": "aarch64"}, SEVEN, "x86_64 is needed"),
        ({"systemd": 247}, SEVEN, "systemd: 247; 248"),
        ({"python": None}, SEVEN, "dnf install -y python3.12"),
        ({"memory_gib": 7.0}, SEVEN, "memory: 7.0 GiB; llava-1.5-7b needs 12 GiB"),
        ({"gpu": None}, SEVEN, "nvidia-smi does not answer"),
        ({"gpu": None, "has_nvidia_device": False}, SEVEN, "GPU: none is plugged in"),
        ({"gpu": Gpu("T4", 15.0, "535.1")}, SEVEN, "GPU driver: 535.1; the libraries need 580"),
        (
            {"gpu": Gpu("T4", 15.0, "580.1")},
            replace(SEVEN, quantization="none"),
            "T4 has 15.0 GiB; llava-1.5-7b as none needs 16.7 GiB",
        ),
    ],
)
def test_each_fault_is_told(
    changes: dict[str, object], options: Options, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly what is wrong is named; the same machine without it is fit."""
    monkeypatch.setattr(machine, "SYSTEMD_RUNS", Path("/"))
    assert [] == list_faults(FIT, SEVEN, needs_libraries=False)
    faults = list_faults(replace(FIT, **changes), options, needs_libraries=False)  # type: ignore[arg-type]
    assert 1 == len(faults)
    assert fault in faults[0]


def test_machine_without_gpu_is_fit_for_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model asks for no GPU."""
    monkeypatch.setattr(machine, "SYSTEMD_RUNS", Path("/"))
    plain = replace(FIT, gpu=None, has_nvidia_device=False, memory_gib=2.0)
    assert [] == list_faults(plain, Options(), needs_libraries=False)


SYSTEMS = {
    # Each distribution's own /etc/os-release, its first lines.
    "amzn 2023": """NAME="Amazon Linux"
VERSION="2023"
ID="amzn"
ID_LIKE="fedora"
VERSION_ID="2023"
PLATFORM_ID="platform:al2023"
PRETTY_NAME="Amazon Linux 2023.6.20241212"
""",
    "ubuntu 22.04": """PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
""",
    "ubuntu 24.04": """PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
""",
    "debian 12": """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
""",
}


@pytest.mark.parametrize(
    ("system", "remedy"),
    [
        ("amzn 2023", "dnf install -y python3.12"),
        ("ubuntu 22.04", "apt-get install -y python3.11 python3.11-venv"),
        ("ubuntu 24.04", "apt-get install -y python3.12 python3.12-venv"),
        ("debian 12", "apt-get install -y python3.11 python3.11-venv"),
    ],
)
def test_each_system_is_known_and_told_how_to_get_python(
    system: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what its /etc/os-release says, in the words of its own package manager."""
    monkeypatch.setattr(machine, "SYSTEMD_RUNS", Path("/"))
    assert system == read_system(SYSTEMS[system])
    bare = replace(FIT, system=system, python=None)
    (fault,) = list_faults(bare, SEVEN, needs_libraries=False)
    assert f"Python: 3.11 or newer with venv is needed; try: {remedy}" == fault
    assert "not one we know" not in describe(bare)


def test_another_system_is_named_and_tried() -> None:
    """It may be fit all the same; an empty os-release has no name."""
    assert "unknown" == read_system("")
    other = replace(FIT, system=read_system("ID=fedora\nVERSION_ID=42\n"))
    assert "fedora 42 (not one we know)" in describe(other)


def make_program(folder: Path, name: str, script: str) -> None:
    """A program of a machine that this one is not."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_newest_python_that_is_whole_is_taken(tmp_path: Path) -> None:
    """Not one that is too old, and not one without ensurepip, which Debian packs apart."""
    assert find_python(str(tmp_path)) is None
    make_program(tmp_path, "python3", 'echo "ModuleNotFoundError: ensurepip" >&2; exit 1')
    assert find_python(str(tmp_path)) is None
    for name in ("python3.11", "python3.12"):
        make_program(tmp_path, name, f'exec {sys.executable} "$@"')
    assert tmp_path / "python3.12" == find_python(str(tmp_path))
    make_program(tmp_path, "python3.12", "exit 1")
    assert tmp_path / "python3.11" == find_python(str(tmp_path))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo "NVIDIA A10G, 23028, 580.95.05"', Gpu("NVIDIA A10G", 23028 / 1024, "580.95.05")),
        # Two cards: the first one is used.
        (
            'printf "Tesla T4, 15360, 570.1\\nTesla T4, 15360, 570.1\\n"',
            Gpu("Tesla T4", 15, "570.1"),
        ),
        # What it says when the driver is not loaded; it says so on stdout, and exits with 9.
        ('echo "NVIDIA-SMI has failed because it couldn\'t communicate"; exit 9', None),
        ('echo "No devices were found"; exit 6', None),
        ('echo "NVIDIA GB10, [N/A], 580.1"', None),
        ("", None),
    ],
)
def test_a_gpu_is_what_nvidia_s_tool_answers(
    script: str, expected: Gpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name, memory and driver; none where there is no answer that can be read."""
    make_program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert expected == find_gpu()
    monkeypatch.setenv("PATH", "")
    assert find_gpu() is None


def test_a_card_is_seen_without_its_driver(tmp_path: Path) -> None:
    """By vendor and class on the PCI bus; neither NVIDIA's audio function nor another's card."""
    for number, (vendor, kind) in enumerate(
        [("0x10de", "0x040300"), ("0x1a03", "0x030000"), ("0x1d0f", "0x020000")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert not has_nvidia_device(tmp_path)
    (tmp_path / "0" / "class").write_text("0x030200\n")
    assert has_nvidia_device(tmp_path)


def lsblk(*devices: dict[str, object]) -> str:
    """What lsblk prints."""
    return json.dumps({"blockdevices": list(devices)})


def test_instance_disk_is_found_by_its_model() -> None:
    """Blank, mounted by the image, in use otherwise, or not there."""
    root = {"name": "/dev/nvme0n1", "model": "Amazon Elastic Block Store", "mountpoint": "/"}
    own: dict[str, object] = {
        "name": "/dev/nvme1n1",
        "model": "Amazon EC2 NVMe Instance Storage",
        "mountpoint": None,
        "fstype": None,
    }
    assert find_instance_disk(lsblk(root)) is None
    assert machine.Disk("/dev/nvme1n1", "", is_blank=True) == find_instance_disk(lsblk(root, own))
    mounted = {**own, "children": [{"name": "/dev/vg-lv", "mountpoint": "/opt/dlami/nvme"}]}
    found = find_instance_disk(lsblk(root, mounted))
    assert machine.Disk("/dev/vg-lv", "/opt/dlami/nvme", is_blank=False) == found
    foreign = find_instance_disk(lsblk(root, {**own, "fstype": "xfs"}))
    assert machine.Disk("/dev/nvme1n1", "", is_blank=False) == foreign
