"""Fuzzes one target by coverage for a given time: ``python -m fuzz TARGET --seconds 60``.

Ends with 0 when nothing was found. A finding is written to ``build/fuzz`` and ends it with 77.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["llavachat_server", "PIL"]):
    from fuzz.targets import TARGETS

from fuzz.seeds import list_seeds

_FINDINGS = Path("build/fuzz")
_MAX_INPUT_BYTES = 4096


def main() -> None:
    """Run libFuzzer on the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    _FINDINGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for index, seed in enumerate(list_seeds(options.target)):
            (Path(corpus) / str(index)).write_bytes(seed)
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={_MAX_INPUT_BYTES}",
            f"-artifact_prefix={_FINDINGS}/{options.target}-",
            "-print_final_stats=1",
            "-verbosity=0",
            corpus,
        ]
        atheris.Setup([sys.argv[0], *flags], TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
