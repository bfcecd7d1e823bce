"""A chat in the formats that it is carried away in. Pure; knows no gRPC."""

from collections.abc import Callable, Mapping
from typing import cast

from llavachat.archive import write_archive
from llavachat.errors import ArchiveError
from llavachat.page import write_page
from llavachat.transcript import write_markdown
from llavachat.types import ChatArchive, ChatRecord, ExportFormat, TurnState

_WRITERS: Mapping[ExportFormat, Callable[[ChatArchive], str]] = {
    "json": write_archive,
    "markdown": lambda archive: write_markdown(archive.chat),
    "html": write_page,
}


def check_format(name: str, *, originals: bool = False) -> ExportFormat:
    """Let a format through.

    Raises:
        ArchiveError: there is no such format, or it has no room for pictures' files.
    """
    if name not in _WRITERS:
        raise ArchiveError(f"There is no format {name!r}; take one of {', '.join(_WRITERS)}.")
    if originals and name != "json":
        raise ArchiveError("Only JSON holds pictures' files as they came; export to JSON.")
    return cast("ExportFormat", name)


def list_pictures(chat: ChatRecord, name: ExportFormat) -> tuple[str, ...]:
    """The ids of the pictures that a format holds, each once."""
    if name == "markdown":
        return ()
    # JSON leaves a turn that runs out, and a picture that no turn names can not be imported.
    turns = [turn for turn in chat.turns if name != "json" or turn.state is not TurnState.RUNNING]
    return tuple(dict.fromkeys(image.id for turn in turns for image in turn.images))


def write_export(archive: ChatArchive, name: ExportFormat) -> str:
    """The chat as a text of this format, ending in a newline."""
    return _WRITERS[name](archive)
