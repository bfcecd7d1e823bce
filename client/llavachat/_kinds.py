"""What a file is, by its first bytes, where Pillow does not read it here. Pure; knows no Pillow."""

WANTED = "send JPEG, PNG, WebP or GIF"

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_ANY_CODEC_BRANDS = frozenset((b"mif1", b"msf1"))
"""Source: ISO/IEC 23008-12, annex B, and AV1 Image File Format, section 8. Where the first brand
does not say the codec, the compatible ones do; without one that does it is HEVC, which phones
write. The server tells them apart in the same way."""
_MAX_BRANDS_BYTES = 256
"""That are looked at. Files name about five, of four bytes each."""

_OTHER_FILES = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"RIFF", "a sound or a video"),
    (b"ID3", "a sound"),
    (b"OggS", "a sound or a video"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"%!PS", "a PostScript document"),
    (b"{", "text"),
)


def find_modern_type(data: bytes) -> str | None:
    """The media type of HEIC or AVIF, which not every Pillow reads. None: it is neither.

    Source: ISO/IEC 14496-12, section 4.3.
    """
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), _MAX_BRANDS_BYTES)
    first, others = data[8:12], {data[start : start + 4] for start in range(16, end, 4)}
    if first in _HEIC_BRANDS:
        return "image/heic"
    if first in _ANY_CODEC_BRANDS:
        is_heic = others & _HEIC_BRANDS or not others & _AVIF_BRANDS
        return "image/heic" if is_heic else "image/avif"
    return "image/avif" if first in _AVIF_BRANDS else None


def describe_refusal(data: bytes) -> str:
    """What a file is that is no picture, and what would be right, as the end of a sentence."""
    # Source: DICOM PS3.10, section 7.1: these letters follow 128 bytes of anything.
    if data[128:132] == b"DICM":
        return "a DICOM file; export its picture as PNG or JPEG, and send that"
    return f"{_name_content(data)}; {WANTED}"


def _name_content(data: bytes) -> str:
    head = data[:512].lstrip()
    lower = head.lower()
    if lower.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if b"<svg" in lower:
        return "an SVG drawing"
    if data[4:8] == b"ftyp":
        return "a video"
    for magic, kind in _OTHER_FILES:
        if head.startswith(magic):
            return kind
    try:
        head.decode()
    except UnicodeDecodeError:
        return "not a picture that can be read"
    return "text" if head else "not a picture"
