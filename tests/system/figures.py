"""The times and figures that the system tests measure."""


class Figures:
    """What was measured, for the table at the end."""

    def __init__(self, rows: list[tuple[str, str, str]]) -> None:
        self._rows = rows

    def add(self, what: str, seconds: float, limit: str = "") -> None:
        """A time, in seconds, and the bound that was asserted."""
        self._rows.append((what, f"{seconds:.1f} s", limit))

    def note(self, what: str, value: str, limit: str = "") -> None:
        """Any other figure."""
        self._rows.append((what, value, limit))
