"""Measures the first start of a quantised model beside the next one: memory and time.

    python -m bench.starts --rounds 3
    python -m bench.starts --rounds 1 --size 13b --dtype float16 --forms int8,nf4 --folder /data

Makes a LLaVA-shaped checkpoint with random weights once (0.9 GB in float16, in shards of 200 MB, or
one in the shapes of LLaVA-1.5 7B or 13B, of 14 and 26 GB)
and loads it in processes of their own, as the server does: unquantised, and in int8 and nf4 each
without a copy of the quantised weights (the first start writes one) and with it, and
asks one question of 16 tokens. Memory is the process's peak resident set beyond what it held before
loading. Some of it are pages of files that are mapped, which the system takes back when it needs
them, so what the process holds of its own at the end is told beside it.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llavachat_server
import torch
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.checkpoint import read_facts
from llavachat_server.engine.placement import place_model
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.cache import make_cache
from llavachat_server.engine.tensors.loading import read_model
from llavachat_server.engine.tensors.machine import look_at_machine
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.values import Quantization
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from bench.gpu.checkpoint import make_checkpoint as make_full_checkpoint
from bench.gpu.sizes import SIZES

_SHAPES = Path(llavachat_server.__file__).parent / "models" / "shapes"
_MIB = 1024**2
SMALL = "440m"


def make_checkpoint(folder: Path) -> None:
    """A language model of 440 million parameters with the embedded one's tokenizer."""
    text = LlamaConfig(
        hidden_size=1280,
        intermediate_size=3456,
        num_hidden_layers=22,
        num_attention_heads=20,
        num_key_value_heads=20,
        vocab_size=1280,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4,
        image_size=96, patch_size=12,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=1216, image_seq_length=64
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).to(torch.float16)
    shutil.copytree(_SHAPES, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    model.save_pretrained(folder, max_shard_size="200MB")


def measure(folder: str, form: str, shelf: str, dtype: str) -> None:
    """Load in this process, and print what it took."""
    before = _read_status()
    began = time.perf_counter()
    settings = EngineSettings(
        model=folder,
        quantization=Quantization(form),
        quantized_folder=shelf or None,
        dtype=dtype,
        num_threads=1,
    )
    stages: dict[str, float] = {}
    path = Path(folder)
    config, placement = read_facts(path).config, place_model(settings, look_at_machine())

    def note(stage: str, seconds: float | None) -> None:
        if seconds is not None:
            stages[stage] = seconds

    model, _ = read_model(settings, path, config, placement, note, None)
    seconds = time.perf_counter() - began
    # Mapped weights are in memory only once they were used.
    decoder = Decoder(model, 64, pack_weights=False)
    attention, _ = make_cache("pieces", decoder.shape, 1, 16, decoder.dtype, decoder.device)
    Runner(decoder, attention).forward([Input(range(3, 19), 0, [0], True)])
    after = _read_status()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "writing": stages.get("copy", 0.0),
                "peak_mib": (after["VmHWM"] - before["VmRSS"]) / _MIB,
                "own_mib": (after["RssAnon"] - before["RssAnon"]) / _MIB,
                "parameters": sum(p.numel() for p in model.parameters()),
            }
        )
    )


def _read_status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if "kB" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.starts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=(SMALL, *SIZES), default=SMALL)
    parser.add_argument("--dtype", default="auto", help="of what is not quantised")
    parser.add_argument("--forms", default="none,int8,nf4", help="some of none, int8 and nf4")
    parser.add_argument("--folder", type=Path, help="where there is room; the system's otherwise")
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "FORM", "SHELF"))
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.dtype)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place) / "model"
        if options.size == SMALL:
            make_checkpoint(folder)
        else:
            make_full_checkpoint(SIZES[options.size], folder, "cpu")
        rows: dict[str, list[dict[str, float]]] = {}
        for number in range(options.rounds):
            for form in options.forms.split(","):
                if form == "none":
                    found = _start(folder, form, "", options.dtype)
                    rows.setdefault("unquantised", []).append(found)
                    continue
                shelf = Path(place) / f"shelf{number}"
                for name in ("no copy kept", "first start", "next start"):
                    kept = "" if name == "no copy kept" else str(shelf)
                    found = _start(folder, form, kept, options.dtype)
                    rows.setdefault(f"{form}, {name}", []).append(found)
                shutil.rmtree(shelf)
    print("| start | s | of it writing the copy | peak MiB | of its own at the end, MiB |")
    print("| --- | --- | --- | --- | --- |")
    for name, found_rows in rows.items():
        cells = [
            statistics.median(row[key] for row in found_rows)
            for key in ("seconds", "writing", "peak_mib", "own_mib")
        ]
        print(f"| {name} | {cells[0]:.1f} | {cells[1]:.1f} | {cells[2]:,.0f} | {cells[3]:,.0f} |")


def _start(folder: Path, form: str, shelf: str, dtype: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.starts", "--dtype", dtype, "--measure"]
    command += [str(folder), form, shelf]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    print(form, shelf and "with a copy", found, file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
