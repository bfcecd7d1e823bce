"""The kernels compiled in processes of their own, for this start and the next."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from llavachat_server.engine.native import apart
from llavachat_server.engine.native.apart import (
    NoKernels,
    describe_machine,
    find_file,
    find_folder,
    get_kernels,
)
from llavachat_server.engine.native.code import Image, format_image, keep_content, read_image


def look(folder: Path) -> dict[str, int]:
    """When each part was last written."""
    return {part: find_file(folder, part).stat().st_mtime_ns for part in apart.PARTS}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("harm", ["another machine's", "cut off", "gone"])
def test_what_is_kept_is_not_compiled_again(
    kernels_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """But what is broken or another machine's is, and no more than that."""
    kept = {part: read_kept(find_folder(str(kernels_folder)), part) for part in apart.PARTS}
    own = find_folder(str(tmp_path))
    own.mkdir()
    for part, content in kept.items():
        keep_content(find_file(own, part), content)
    compiled: list[str] = []

    def compile_quickly(parts: Sequence[str]) -> list[bytes]:
        compiled.extend(parts)
        return [kept[part] for part in parts]

    monkeypatch.setattr(apart, "compile_apart", compile_quickly)
    before = look(own)
    get_kernels(str(tmp_path))
    assert ([], before) == (compiled, look(own))

    file = find_file(own, "tower")
    if harm == "gone":
        file.unlink()
    elif harm == "cut off":
        file.write_bytes(kept["tower"][:-1])
    else:
        image = read_image(file, describe_machine())
        assert image is not None
        keep_content(file, format_image(image, "another machine"))
    get_kernels(str(tmp_path))

    assert ["tower"] == compiled
    assert kept["tower"] == file.read_bytes()
    assert before["step"] == look(own)["step"]


def read_kept(own: Path, part: str) -> bytes:
    """A part's file."""
    return find_file(own, part).read_bytes()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("folder", [None, "/proc/kept"])
def test_what_can_not_be_kept_is_used_all_the_same(
    kernels_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    folder: str | None,
) -> None:
    """For this start, and said: a folder may be missing, or the disk full."""
    own = find_folder(str(kernels_folder))
    monkeypatch.setattr(
        apart, "compile_apart", lambda parts: [read_kept(own, part) for part in parts]
    )

    assert get_kernels(folder).step is not None
    is_told = [message.startswith("kernels not kept: ") for message in caplog.messages]
    assert is_told == ([] if folder is None else [True] * len(apart.PARTS))


def test_nothing_of_a_file_is_left_that_could_not_be_written(tmp_path: Path) -> None:
    """Neither the file nor what was to become it."""
    (tmp_path / "x.code").mkdir()
    with pytest.raises(OSError, match="directory"):
        keep_content(tmp_path / "x.code", b"content")

    assert [tmp_path / "x.code"] == list(tmp_path.iterdir())


def test_what_does_not_compile_is_said_in_one_line() -> None:
    """By the process that tried."""
    words = [sys.executable, "-m", "llavachat_server.engine.native.apart", "none"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (1, "", "KeyError: 'none'\n") == (done.returncode, done.stdout, done.stderr)


def test_a_process_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are; so is one that can not be started, and one that writes nonsense."""
    monkeypatch.setattr(apart, "PARTS", ("none",))
    with pytest.raises(NoKernels, match=r"^the kernels could not be compiled: KeyError: 'none'$"):
        get_kernels(str(tmp_path))

    monkeypatch.setattr(apart.sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(NoKernels, match=r"^the kernels could not be compiled: .*No such file"):
        get_kernels(None)

    monkeypatch.setattr(apart, "compile_apart", lambda parts: [b"nonsense" for _ in parts])
    with pytest.raises(NoKernels, match="what came of it is broken"):
        get_kernels(None)


def test_code_that_asks_for_what_is_not_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A C library without a function that the kernels call: told, and not run."""
    image = Image(bytes(64), 0, (), {"a_function_of_no_library": [(8, 0)]})
    content = format_image(image, describe_machine())
    monkeypatch.setattr(apart, "compile_apart", lambda parts: [content for _ in parts])

    with pytest.raises(NoKernels, match="a_function_of_no_library"):
        get_kernels(str(tmp_path))
