"""From an object file to an image that lies in memory as it will be run.

Only what LLVM writes for a large code model on x86-64 is taken: code and constants, no data that
is written to, and addresses of 64 bits in them. Source: the System V ABI's supplement for AMD64,
4.4, "Relocation", and LLVM's ``-code-model=large``.
"""

import io
from collections.abc import Iterator
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from llavachat_server.engine.native.code import Image

_ALLOCATED, _WRITABLE = 2, 1
"""``SHF_ALLOC`` and ``SHF_WRITE``."""
_ADDRESS_OF_64_BITS = 1
"""``R_X86_64_64``."""
_UNWINDING = ".eh_frame"
"""Nothing is ever thrown through a kernel."""


class NotFlat(Exception):
    """The object file has something in it that an image can not have; the message says what."""


def flatten(code: bytes, symbol: str) -> Image:
    """Lay an object file out.

    Args:
        code: the object file.
        symbol: the name of the function that is called.

    Raises:
        NotFlat: it has something in it that an image can not have.
    """
    file = ELFFile(io.BytesIO(code))
    data, starts = bytearray(), dict[int, int]()
    for number, section in enumerate(file.iter_sections()):
        flags, size = section["sh_flags"], section["sh_size"]
        if not flags & _ALLOCATED or not size or section.name == _UNWINDING:
            continue
        if flags & _WRITABLE:
            raise NotFlat(f"the section {section.name} is written to")
        data += bytes(-len(data) % max(1, section["sh_addralign"]))
        starts[number] = len(data)
        data += section.data()
    addresses, outside = [], dict[str, list[tuple[int, int]]]()
    for place, target, addend in _list_relocations(file, starts):
        if isinstance(target["st_shndx"], int):
            addresses.append((place, starts[target["st_shndx"]] + target["st_value"] + addend))
        else:
            outside.setdefault(target.name, []).append((place, addend))
    symbols: Any = file.get_section_by_name(".symtab")
    (own,) = symbols.get_symbol_by_name(symbol)
    entry = starts[own["st_shndx"]] + own["st_value"]
    return Image(bytes(data), entry, tuple(addresses), outside)


def _list_relocations(file: Any, starts: dict[int, int]) -> Iterator[tuple[int, Any, int]]:
    # Where in the image an address belongs, the symbol that it is of, and how far behind it.
    for section in file.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in starts:
            continue
        symbols = file.get_section(section["sh_link"])
        for entry in section.iter_relocations():
            if entry["r_info_type"] != _ADDRESS_OF_64_BITS:
                raise NotFlat(f"a relocation is of the type {entry['r_info_type']}")
            place = starts[section["sh_info"]] + entry["r_offset"]
            yield place, symbols.get_symbol(entry["r_info_sym"]), entry["r_addend"]
