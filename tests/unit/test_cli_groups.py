"""Groups of options: what is declared once is an option of every command that takes the group."""

from dataclasses import dataclass
from typing import Annotated

import typer
from llavachat.cli.groups import flatten
from typer.testing import CliRunner


@dataclass(frozen=True)
class Size:
    """Two options."""

    width: Annotated[int, typer.Option("--wide", "-w", min=1)] = 3
    height: int | None = None


def test_a_group_is_its_fields():
    """Names, defaults and bounds are the fields'; the command gets the dataclass."""
    seen = []

    def draw(name: str, *, size: Size, red: bool = False) -> int:
        """Draw."""
        seen.append((name, size, red))
        return 0

    app = typer.Typer()
    app.command()(flatten(draw))
    assert 0 == CliRunner().invoke(app, ["x"]).exit_code
    assert 0 == CliRunner().invoke(app, ["y", "-w", "5", "--height", "2"]).exit_code
    assert [("x", Size(), False), ("y", Size(5, 2), False)] == seen
    assert 2 == CliRunner().invoke(app, ["x", "--wide", "0"]).exit_code
