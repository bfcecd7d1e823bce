"""Object files laid out as images, kept in files, and run."""

import ctypes
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llavachat_server.engine.native.code import (
    KernelFailed,
    format_image,
    keep_content,
    load,
    parse_image,
    read_image,
)
from llavachat_server.engine.native.kernels.flattening import NotFlat, flatten
from llvmlite import binding

# As numba's own functions: a code, and behind the third address what it is told.
SUM = """
@table = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]
declare i64 @labs(i64)
define i32 @other(i64* %words, i64 %index) noinline {
  %from = getelementptr [4 x i64], [4 x i64]* @table, i64 0, i64 %index
  %number = load i64, i64* %from
  store i64 %number, i64* %words
  ret i32 0
}
define i32 @enter(i8* %result, i8* %error, i64* %words) {
  %given = load i64, i64* %words
  %index = call i64 @labs(i64 %given)
  %code = call i32 @other(i64* %words, i64 %index)
  ret i32 %code
}
"""
WRITING = """
@count = internal global i64 7
define i32 @enter(i8* %result, i8* %error, i64* %words) {
  %before = load i64, i64* @count
  %after = add i64 %before, 1
  store i64 %after, i64* @count
  ret i32 0
}
"""
FAILING = """
define i32 @enter(i8* %result, i8* %error, i64* %words) {
  ret i32 1
}
"""


def compile_text(text: str, model: str = "large") -> bytes:
    """An object file, as LLVM makes it for numba."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(codemodel=model, reloc="static")
    code: bytes = machine.emit_object(binding.parse_assembly(text))
    return code


@pytest.mark.parametrize(("given", "expected"), [(0, 3), (-2, 7), (3, 11)])
def test_code_constants_and_the_librarys_functions_are_found(given: int, expected: int) -> None:
    """Wherever the image comes to lie: a call into it, one within, one to libc, one table."""
    kernel = load(flatten(compile_text(SUM), "enter"))
    words = np.array([given], np.int64)

    kernel(words)

    assert expected == words[0]


def test_two_images_do_not_meet() -> None:
    """Each has its own place, and is run there for as long as it is held."""
    kernels = [load(flatten(compile_text(SUM), "enter")) for _ in range(3)]
    words = [np.array([number], np.int64) for number in range(3)]
    for kernel, own in zip(kernels, words, strict=True):
        kernel(own)

    assert [3, 5, 7] == [int(own[0]) for own in words]


def test_an_error_that_is_told_is_raised() -> None:
    """Though none of ours tells one."""
    kernel = load(flatten(compile_text(FAILING), "enter"))
    with pytest.raises(KernelFailed):
        kernel(np.zeros(1, np.int64))


@pytest.mark.parametrize(
    ("text", "model", "reason"),
    [
        (WRITING, "large", r"the section \.l?data is written to"),
        (SUM, "small", r"a relocation is of the type \d+"),
    ],
)
def test_what_can_not_lie_in_an_image_is_refused(text: str, model: str, reason: str) -> None:
    """Data that is written to, and addresses that reach no further than 2 GB."""
    with pytest.raises(NotFlat, match=f"^{reason}$"):
        flatten(compile_text(text, model), "enter")


def test_memory_that_is_run_is_not_written_to() -> None:
    """Its pages are one or the other."""
    kernel = load(flatten(compile_text(SUM), "enter"))
    address = ctypes.cast(kernel._function, ctypes.c_void_p).value
    assert address is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            assert line.split()[1].startswith("r-x")
            return
    pytest.fail("the kernel lies nowhere")


IMAGE = flatten(compile_text(SUM), "enter")


def test_what_is_kept_is_what_is_read(tmp_path: Path) -> None:
    """Of the same machine; and nothing of another one's."""
    keep_content(tmp_path / "x.code", format_image(IMAGE, "here"))
    read: Any = read_image(tmp_path / "x.code", "here")

    assert (IMAGE.data, IMAGE.entry) == (read.data, read.entry)
    words = np.array([1], np.int64)
    load(read)(words)
    assert words[0] == 5
    assert read_image(tmp_path / "x.code", "there") is None
    assert read_image(tmp_path / "y.code", "here") is None


WHOLE = format_image(IMAGE, "here")


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_file_that_was_changed_anywhere_is_no_file(place: int, change: int) -> None:
    """Whatever byte it is, or however much is missing: nothing else is ever run."""
    head, rest = WHOLE[:place], WHOLE[place + 1 :]
    changed = head + bytes([WHOLE[place] ^ change]) + rest if change else head
    read = parse_image(changed, "here")

    assert read is None or (read.data, read.entry) == (IMAGE.data, IMAGE.entry)


def test_an_image_without_a_part_is_no_image() -> None:
    """Its hash may be right, if who wrote it was wrong."""
    body = b'{"entry": 0}\n'
    head = {"machine": "here", "sha256": hashlib.sha256(body).hexdigest()}

    assert parse_image(json.dumps(head).encode() + b"\n" + body, "here") is None
