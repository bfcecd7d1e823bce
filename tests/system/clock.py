"""A clock that a test can move while a server runs: the time of day alone, by libfaketime. What
counts seconds (CLOCK_MONOTONIC) is left as it is, as on a machine whose clock is corrected."""

from dataclasses import dataclass
from pathlib import Path

import pytest

HOUR_SECONDS = 3600


@dataclass(frozen=True)
class Clock:
    """The time of day of the processes that are started with `variables`.

    Args:
        file: says how far it is from the machine's.
    """

    file: Path

    def set(self, ahead_seconds: float) -> None:
        """Let it be so far ahead of the machine's; negative: behind."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{ahead_seconds:+.0f}\n")
        draft.replace(self.file)

    def variables(self) -> dict[str, str]:
        """For the environment; skips the test where libfaketime is missing."""
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            pytest.skip("libfaketime is not installed (apt-get install libfaketime)")
        return {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
