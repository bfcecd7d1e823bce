"""The kernels compiled in processes of their own, for this start and the next."""

import subprocess
import sys
from pathlib import Path

import pytest
from llavachat_server.engine.native import apart
from llavachat_server.engine.native.apart import NoKernels, find_file, find_folder, get_kernels
from llavachat_server.engine.native.code import Image, read_image, write_image


def look(folder: Path) -> dict[str, int]:
    """When each part was last written."""
    return {part: find_file(folder, part).stat().st_mtime_ns for part in apart.PARTS}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("harm", ["another machine's", "cut off", "gone"])
def test_what_is_kept_is_not_compiled_again(kernels_folder: Path, harm: str) -> None:
    """But what is broken or another machine's is, and no more than that."""
    own = find_folder(str(kernels_folder))
    before = look(own)
    get_kernels(str(kernels_folder))
    assert before == look(own)

    file = find_file(own, "tower")
    if harm == "gone":
        file.unlink()
    elif harm == "cut off":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        code = read_image(file, apart.describe_machine())
        assert code is not None
        write_image(file, code, "another machine")
    get_kernels(str(kernels_folder))

    after = look(own)
    assert before["step"] == after["step"]
    assert before["tower"] != after["tower"]
    assert read_image(file, apart.describe_machine()) is not None


@pytest.mark.parametrize("folder", [None, "/proc/kept"])
def test_what_can_not_be_kept_is_compiled_for_this_start(
    folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of it is left behind."""
    folders = []

    def compile_nothing(own: Path) -> dict[str, Image]:
        folders.append(own)
        raise NoKernels("it was asked to")

    monkeypatch.setattr(apart, "_compile_missing", compile_nothing)
    with pytest.raises(NoKernels):
        get_kernels(folder)

    (own,) = folders
    assert own.name.startswith("llavachat-kernels-")
    assert not own.exists()


def test_what_does_not_compile_is_said_in_one_line(tmp_path: Path) -> None:
    """By the process that tried."""
    words = [sys.executable, "-m", "llavachat_server.engine.native.apart", str(tmp_path), "none"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (1, "KeyError: 'none'\n") == (done.returncode, done.stderr)


def test_a_process_that_fails_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are."""
    monkeypatch.setattr(apart, "PARTS", ("none",))

    with pytest.raises(NoKernels, match=r"^the kernels could not be compiled: KeyError: 'none'$"):
        get_kernels(str(tmp_path))
