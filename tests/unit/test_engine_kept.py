"""A kept copy is used while it is the one that was hashed, and made anew otherwise."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine.fingerprint import Fingerprint, hash_weights
from llavachat_server.engine.kept import Recipe, read_by_copy
from llavachat_server.engine.shelf import Copy, Shelf

KIND, FORM = "text", {"form": 1}


class Desk:
    """A checkpoint, a shelf, and a recipe that copies the weights' text."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "model.safetensors").write_text("own weights")
        self.shelf = Shelf(folder / "shelf")
        self.num_made = 0

    def read(self, folder: Path) -> str:
        """What a copy says."""
        return (folder / "text").read_text()

    def find(self) -> Copy | None:
        """The copy of the checkpoint."""
        return self.shelf.find(KIND, self.source, FORM)

    def start(self) -> tuple[str, str]:
        """What a start has in the end."""

        def make() -> str:
            self.num_made += 1
            return (self.source / "model.safetensors").read_text()

        recipe = Recipe(
            kind=KIND,
            form=FORM,
            make=make,
            read=self.read,
            write=lambda text, folder: (folder / "text").write_text(text) and None,
            count_bytes=len,
        )
        fingerprint = Fingerprint(self.source, self.find())
        # All is hashed before anything is read.
        fingerprint.result()
        return read_by_copy(recipe, self.source, self.shelf, fingerprint, lambda *_: None)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Nothing is kept yet."""
    return Desk(tmp_path)


def test_a_copy_is_made_once(desk: Desk) -> None:
    """And read from then on, with its source's hash."""
    expected = ("own weights", hash_weights(desk.source))

    assert [expected, expected] == [desk.start(), desk.start()]
    assert 1 == desk.num_made


def test_a_copy_that_another_model_replaced_meanwhile_is_not_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was hashed before is another's now: its weights would be taken for ours."""
    expected = desk.start()
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_text("its weights")

    def read_late(folder: Path) -> str:
        desk.shelf.keep(
            KIND, other, FORM, hash_weights(other), 11, lambda place: write(place, "its weights")
        )
        return (folder / "text").read_text()

    def write(place: Path, text: str) -> None:
        (place / "text").write_text(text)

    monkeypatch.setattr(desk, "read", read_late)

    assert expected == desk.start()
    assert 2 == desk.num_made


class Knot:
    """Refers to itself, as an nf4 layer does by way of its weight."""

    def __init__(self) -> None:
        self.itself = self


def test_a_copy_that_is_not_used_is_let_go_before_another_is_made(desk: Desk) -> None:
    """Garbage is not collected at a start, and two models at once may not fit."""
    desk.start()
    (desk.find().folder / "text").write_text("damaged")  # type: ignore[union-attr]
    read: list[weakref.ref[Knot]] = []
    were_alive: list[bool] = []

    def read_knot(_: Path) -> Any:
        knot = Knot()
        read.append(weakref.ref(knot))
        return knot

    def make() -> str:
        were_alive.extend(knot() is not None for knot in read)
        return "own weights"

    recipe: Recipe[Any] = Recipe(KIND, FORM, make, read_knot, lambda *_: None, len)
    gc.disable()
    try:
        read_by_copy(
            recipe, desk.source, desk.shelf, Fingerprint(desk.source, desk.find()), lambda *_: None
        )
    finally:
        gc.enable()

    assert [False] == were_alive
