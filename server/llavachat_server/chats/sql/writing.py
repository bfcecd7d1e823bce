"""What the store writes: each function is one work for `writer.Writer`, inside its transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from llavachat_server.chats.errors import ChatError, ChatFull, NotFound, TurnRunning
from llavachat_server.chats.record import Chat, RequestClaim, Turn, TurnState
from llavachat_server.chats.sql import rows
from llavachat_server.chats.sql.erasures import note
from llavachat_server.chats.sql.originals import (
    Original,
    erase_unused,
    find_originals,
    keep_originals,
)
from llavachat_server.chats.sql.schema import (
    builds,
    chats,
    claims,
    labels,
    pictures,
    turn_pictures,
    turns,
)
from llavachat_server.chats.store import IdleChat
from llavachat_server.images.intake import ImageInfo
from llavachat_server.values import FinishReason


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """What is written of a request's pictures, by their ids.

    Args:
        pngs: the pixels of those that may not be kept yet.
        originals: the files of those whose files are to be kept.
    """

    pngs: Mapping[str, tuple[ImageInfo, bytes]]
    originals: Mapping[str, Original]


class PictureMissing(ChatError):
    """A picture that was thought to be kept is not; never leaves the store."""


def add_chat(
    connection: Connection,
    chat: Chat,
    turn: Turn,
    files: PictureFiles,
    claim: RequestClaim | None,
) -> None:
    """Keep a new chat with its first turn."""
    chat_key = _insert_chat(connection, chat)
    _add_turn(connection, chat.tenant, chat_key, 0, turn, files, claim)


def add_whole_chat(
    connection: Connection,
    chat: Chat,
    turn_rows: list[dict[str, Any]],
    build_rows: list[dict[str, Any]],
    files: PictureFiles,
) -> None:
    """Keep a chat with turns that have ended; as few statements as it takes, for others wait.

    Its rows are those of `rows.whole_rows`.
    """
    chat_key = _insert_chat(connection, chat)
    build_keys: dict[str, int] = {}
    for build in build_rows:
        if build["sha256"] not in build_keys:
            build_keys[build["sha256"]] = _keep_build(connection, build)
    keys = [
        {"chat_key": chat_key, "build_key": build_keys[build["sha256"]]} for build in build_rows
    ]
    connection.execute(
        turns.insert(), [{**row, **own} for row, own in zip(turn_rows, keys, strict=True)]
    )
    connection.execute(
        chats.update().where(chats.c.key == chat_key).values(num_turns=len(chat.turns))
    )
    query = sa.select(turns.c.key).where(turns.c.chat_key == chat_key).order_by(turns.c.position)
    turn_keys = connection.execute(query).scalars().all()
    by_key = zip(turn_keys, (turn.images for turn in chat.turns), strict=True)
    _keep_pictures(connection, chat.tenant, by_key, files)


def add_turn(
    connection: Connection,
    tenant: str,
    chat_id: str,
    turn: Turn,
    files: PictureFiles,
    claim: RequestClaim | None,
    max_turns: int,
) -> None:
    """Keep a new turn of a chat."""
    chat_key, updated_at, num_turns = _lock_chat(connection, tenant, chat_id)
    if _is_running(connection, chat_key):
        raise TurnRunning
    if num_turns >= max_turns:
        raise ChatFull(num_turns)
    _touch(connection, chat_key, max(updated_at, rows.write_time(turn.created_at)))
    _add_turn(connection, tenant, chat_key, num_turns, turn, files, claim)


def end_turn(connection: Connection, tenant: str, chat_id: str, turn: Turn) -> None:
    """Keep the end of a turn."""
    chat_key, updated_at, _ = _lock_chat(connection, tenant, chat_id)
    ended = connection.execute(
        turns.update()
        .where(turns.c.chat_key == chat_key, turns.c.id == turn.id)
        .values(**rows.end_row(turn))
    )
    if not ended.rowcount:
        raise NotFound("turn", turn.id)
    last = rows.write_time(turn.finished_at or turn.created_at)
    _touch(connection, chat_key, max(updated_at, last))


def erase_chat(connection: Connection, tenant: str, chat_id: str, *, is_noted: bool = True) -> None:
    """Erase a chat, pictures and files that no other chat uses, what it alone told of builds.

    It is noted as erased, unless that is known.
    """
    chat_key, _, _ = _lock_chat(connection, tenant, chat_id)
    _erase(connection, chat_key)
    if is_noted:
        note(connection, (tenant, chat_id))


def retire_chat(connection: Connection, idle: IdleChat) -> bool:
    """Erase a chat that is as it was found; whether it was."""
    chat_key, *used = _lock_chat(connection, idle.tenant, idle.id)
    found = [rows.write_time(idle.updated_at), idle.num_turns]
    if used != found or _is_running(connection, chat_key):
        return False
    _erase(connection, chat_key)
    note(connection, (idle.tenant, idle.id))
    return True


def _erase(connection: Connection, chat_key: int) -> None:
    used = (
        sa.select(turn_pictures.c.picture_key)
        .distinct()
        .join(turns, turns.c.key == turn_pictures.c.turn_key)
        .where(turns.c.chat_key == chat_key)
    )
    picture_keys = connection.execute(used).scalars().all()
    answered = sa.select(turns.c.build_key).distinct().where(turns.c.chat_key == chat_key)
    build_keys = connection.execute(answered).scalars().all()
    original_keys = find_originals(connection, chat_key)
    connection.execute(chats.delete().where(chats.c.key == chat_key))
    erase_unused(connection, original_keys)
    for picture_key in picture_keys:
        still = sa.exists().where(turn_pictures.c.picture_key == picture_key)
        connection.execute(pictures.delete().where(pictures.c.key == picture_key, ~still))
    for build_key in build_keys:
        still = sa.exists().where(turns.c.build_key == build_key)
        connection.execute(builds.delete().where(builds.c.key == build_key, ~still))


def _is_running(connection: Connection, chat_key: int) -> bool:
    running = sa.exists().where(
        turns.c.chat_key == chat_key, turns.c.state == TurnState.RUNNING.value
    )
    return bool(connection.execute(sa.select(running)).scalar_one())


def cancel_running(connection: Connection, now: datetime) -> None:
    """End the turns that ran when a process died; none before it began, whatever the clock."""
    time = rows.write_time(now)
    connection.execute(
        turns.update()
        .where(turns.c.state == TurnState.RUNNING.value)
        .values(
            state=TurnState.CANCELLED.value,
            finish_reason=FinishReason.SHUTDOWN.value,
            finished_at=sa.case((turns.c.created_at > time, turns.c.created_at), else_=time),
        )
    )


def _insert(connection: Connection, table: Table, row: Mapping[str, Any]) -> int:
    """Add a row; its new key."""
    inserted = connection.execute(table.insert().values(row)).inserted_primary_key
    return cast("int", inserted[0]) if inserted else 0


def _insert_chat(connection: Connection, chat: Chat) -> int:
    chat_key = _insert(connection, chats, {**rows.chat_row(chat), "num_turns": 0})
    if chat.labels:
        connection.execute(labels.insert(), rows.label_rows(chat, chat_key))
    return chat_key


def _lock_chat(connection: Connection, tenant: str, chat_id: str) -> tuple[int, int, int]:
    query = (
        sa.select(chats.c.key, chats.c.updated_at, chats.c.num_turns)
        .where(chats.c.tenant == tenant, chats.c.id == chat_id)
        .with_for_update()
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("chat", chat_id)
    return row.key, row.updated_at, row.num_turns


def _touch(connection: Connection, chat_key: int, updated_at: int) -> None:
    connection.execute(chats.update().where(chats.c.key == chat_key).values(updated_at=updated_at))
    connection.execute(
        labels.update().where(labels.c.chat_key == chat_key).values(updated_at=updated_at)
    )


def _add_turn(
    connection: Connection,
    tenant: str,
    chat_key: int,
    position: int,
    turn: Turn,
    files: PictureFiles,
    claim: RequestClaim | None,
) -> None:
    row: dict[str, Any] = {
        **rows.turn_row(turn),
        "chat_key": chat_key,
        "position": position,
        "build_key": _keep_build(connection, rows.build_row(turn)),
    }
    turn_key = _insert(connection, turns, row)
    connection.execute(chats.update().where(chats.c.key == chat_key).values(num_turns=position + 1))
    _keep_pictures(connection, tenant, ((turn_key, turn.images),), files)
    if claim is not None:
        _keep_claim(connection, chat_key, claim)


def _keep_build(connection: Connection, row: Mapping[str, Any]) -> int:
    query = sa.select(builds.c.key).where(builds.c.sha256 == row["sha256"])
    known = connection.execute(query).scalar_one_or_none()
    if known is not None:
        return cast("int", known)
    return _insert(connection, builds, row)


def _keep_pictures(
    connection: Connection,
    tenant: str,
    images_by_turn: Iterable[tuple[int, Iterable[ImageInfo]]],
    files: PictureFiles,
) -> None:
    keys: dict[str, int] = {}
    links: list[dict[str, Any]] = []
    brought: list[tuple[int, int, Original]] = []
    for turn_key, images in images_by_turn:
        for position, image in enumerate(images):
            if image.id not in keys:
                keys[image.id] = _keep_picture(connection, tenant, image.id, files)
            if image.id in files.originals:
                brought.append((turn_key, position, files.originals[image.id]))
            links.append(
                {
                    "turn_key": turn_key,
                    "position": position,
                    "picture_key": keys[image.id],
                    "width_pixels": image.width_pixels,
                    "height_pixels": image.height_pixels,
                    "media_type": image.media_type,
                    "num_frames": image.num_frames,
                }
            )
    if links:
        connection.execute(turn_pictures.insert(), links)
    keep_originals(connection, tenant, brought)


def _keep_picture(
    connection: Connection,
    tenant: str,
    image_id: str,
    files: PictureFiles,
) -> int:
    query = sa.select(pictures.c.key).where(pictures.c.tenant == tenant, pictures.c.id == image_id)
    known = connection.execute(query).scalar_one_or_none()
    if known is not None:
        return cast("int", known)
    if image_id not in files.pngs:
        raise PictureMissing
    info, png = files.pngs[image_id]
    row = {
        "tenant": tenant,
        "id": image_id,
        "width_pixels": info.width_pixels,
        "height_pixels": info.height_pixels,
        "media_type": info.media_type,
        "num_frames": info.num_frames,
        "png": png,
        "num_bytes": len(png),
    }
    return _insert(connection, pictures, row)


def _keep_claim(connection: Connection, chat_key: int, claim: RequestClaim) -> None:
    connection.execute(
        claims.delete().where(
            claims.c.tenant == claim.tenant, claims.c.request_id == claim.request_id
        )
    )
    connection.execute(
        claims.insert().values(
            tenant=claim.tenant,
            request_id=claim.request_id,
            body_sha256=claim.body_sha256,
            chat_key=chat_key,
            turn_id=claim.turn_id,
        )
    )
