"""Pictures' files as they came: kept, read and erased inside the store's transactions.

A file belongs to the turns that brought it, and not to its picture: another chat may have brought
the same pixels in another file, whose metadata is another's.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, RowMapping

from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.sql import rows
from llavachat_server.chats.sql.schema import (
    originals,
    pictures,
    turn_originals,
    turn_pictures,
    turns,
)
from llavachat_server.images.intake import ImageInfo


@dataclass(frozen=True, slots=True)
class Original:
    """A file and the SHA-256 of its bytes in hexadecimal."""

    sha256: str
    file: bytes

    @classmethod
    def of(cls, file: bytes) -> "Original":
        """Hash a file; of ten megabytes that takes some milliseconds."""
        return cls(hashlib.sha256(file).hexdigest(), file)


def keep_originals(
    connection: Connection, tenant: str, files: Iterable[tuple[int, int, Original]]
) -> None:
    """Keep the files that turns brought: for each its turn's key and the picture's place there."""
    keys: dict[str, int] = {}
    links = []
    for turn_key, position, original in files:
        if original.sha256 not in keys:
            keys[original.sha256] = _keep(connection, tenant, original)
        key = keys[original.sha256]
        links.append({"turn_key": turn_key, "position": position, "original_key": key})
    if links:
        connection.execute(turn_originals.insert(), links)


def read_original(connection: Connection, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
    """The file that brought a picture first, of those that are kept."""
    row = _find_original(connection, tenant, image_id, originals.c.file)
    return rows.read_image(row), row["file"]


def count_original_bytes(connection: Connection, tenant: str, image_id: str) -> int:
    """How large that file is."""
    return int(_find_original(connection, tenant, image_id, originals.c.num_bytes)["num_bytes"])


def _find_original(
    connection: Connection, tenant: str, image_id: str, column: ColumnElement[Any]
) -> RowMapping:
    query = (
        sa.select(
            pictures.c.id,
            turn_pictures.c.width_pixels,
            turn_pictures.c.height_pixels,
            turn_pictures.c.media_type,
            turn_pictures.c.num_frames,
            column,
        )
        .join(turn_pictures, turn_pictures.c.picture_key == pictures.c.key)
        .join(
            turn_originals,
            sa.and_(
                turn_originals.c.turn_key == turn_pictures.c.turn_key,
                turn_originals.c.position == turn_pictures.c.position,
            ),
        )
        .join(originals, originals.c.key == turn_originals.c.original_key)
        .where(pictures.c.tenant == tenant, pictures.c.id == image_id)
        .order_by(turn_pictures.c.turn_key, turn_pictures.c.position)
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound("original", image_id)
    return row


def find_originals(connection: Connection, chat_key: int) -> Sequence[int]:
    """The keys of the files that a chat's turns brought."""
    query = (
        sa.select(turn_originals.c.original_key)
        .distinct()
        .join(turns, turns.c.key == turn_originals.c.turn_key)
        .where(turns.c.chat_key == chat_key)
    )
    return connection.execute(query).scalars().all()


def erase_unused(connection: Connection, keys: Iterable[int]) -> None:
    """Erase those of the files that no turn has brought any more."""
    for key in keys:
        still = sa.exists().where(turn_originals.c.original_key == key)
        connection.execute(originals.delete().where(originals.c.key == key, ~still))


def count_own_bytes(connection: Connection, chat_key: int) -> int:
    """Bytes of the files that this chat alone brought."""
    links = sa.join(turn_originals, turns, turns.c.key == turn_originals.c.turn_key)
    brought = sa.select(turn_originals.c.original_key).select_from(links)
    elsewhere = brought.where(
        turn_originals.c.original_key == originals.c.key, turns.c.chat_key != chat_key
    )
    query = sa.select(sa.func.coalesce(sa.func.sum(originals.c.num_bytes), 0)).where(
        originals.c.key.in_(brought.where(turns.c.chat_key == chat_key)), ~elsewhere.exists()
    )
    return int(connection.execute(query).scalar_one())


def _keep(connection: Connection, tenant: str, original: Original) -> int:
    query = sa.select(originals.c.key).where(
        originals.c.tenant == tenant, originals.c.sha256 == original.sha256
    )
    known = connection.execute(query).scalar_one_or_none()
    if known is not None:
        return int(known)
    row = {
        "tenant": tenant,
        "sha256": original.sha256,
        "file": original.file,
        "num_bytes": len(original.file),
    }
    inserted = connection.execute(originals.insert().values(row)).inserted_primary_key
    return int(inserted[0]) if inserted else 0
