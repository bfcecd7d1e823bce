"""A kept copy is used while it is the one that was hashed, and made anew otherwise."""

import errno
import gc
import logging
import resource
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llavachat_server.engine.fingerprint import Fingerprint, hash_weights
from llavachat_server.engine.kept import CopyUnreadable, Recipe, read_by_copy
from llavachat_server.engine.shelf import Copy, Shelf
from llavachat_server.engine.shortage import is_memory_shortage, is_shortage

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


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is said of copies."""
    caplog.set_level(logging.WARNING, "llavachat.engine")
    return caplog


def test_a_copy_that_was_changed_is_damaged(desk: Desk, log: pytest.LogCaptureFixture) -> None:
    """And is called so."""
    expected = desk.start()
    (desk.find().folder / "text").write_text("other weights")  # type: ignore[union-attr]

    assert expected == desk.start()
    assert ["copy of the weights damaged"] == log.messages


def test_a_whole_copy_that_can_not_be_read_is_not_damaged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """It is made anew, and the log says why."""
    expected = desk.start()

    def refuse(_: Path) -> str:
        raise CopyUnreadable("a weight is missing")

    with monkeypatch.context() as broken:
        broken.setattr(desk, "read", refuse)
        assert expected == desk.start()
    assert expected == desk.start()
    assert 2 == desk.num_made
    assert ["copy of the weights not read"] == log.messages
    assert "a weight is missing" == log.records[0].__dict__["fields"]["error"]


def test_a_copy_stays_where_a_start_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """For want of memory nothing is made either, and the next start reads the copy."""
    expected = desk.start()

    def fail(_: Path) -> str:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(desk, "read", fail)
        with pytest.raises(MemoryError):
            desk.start()
    assert expected == desk.start()
    assert 1 == desk.num_made
    assert [] == log.messages


@contextmanager
def no_handles_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_handles_says_nothing_of_the_copy(desk: Desk) -> None:
    """Whether it is whole can not be found out; it would be thrown away as damaged."""
    desk.start()
    copy = desk.find()
    assert copy is not None
    with no_handles_left(), pytest.raises(OSError, match="Too many open files"):
        copy.is_whole()
    assert copy.is_whole()


def cublas(status: str, call: str) -> RuntimeError:
    """What torch says of a call of cuBLAS."""
    return RuntimeError(f"CUDA error: CUBLAS_STATUS_{status} when calling `{call}`")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "something"),
        (OSError(errno.EMFILE, "Too many open files"), "something"),
        (OSError(errno.ENFILE, "Too many open files in system"), "something"),
        (OSError(errno.EIO, "Input/output error"), ""),
        (RuntimeError("CUDA error: out of memory"), "memory"),
        (cublas("ALLOC_FAILED", "cublasCreate(handle)"), "memory"),
        (cublas("NOT_INITIALIZED", "cublasCreate(handle)"), "memory"),
        (cublas("NOT_INITIALIZED", "cublasLtCreate(&handle)"), "memory"),
        (cublas("NOT_INITIALIZED", "cublasSgemm(handle, opa, opb, m, n, k, ...)"), ""),
        (cublas("EXECUTION_FAILED", "cublasCreate(handle)"), ""),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ""),
        (ValueError("out of memory"), ""),
        (None, ""),
    ],
)
def test_shortages(error: BaseException | None, expected: str) -> None:
    """By type, by number, and where torch has one type for all, by its words."""
    assert (expected != "") is is_shortage(error)
    assert (expected == "memory") is is_memory_shortage(error)


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
