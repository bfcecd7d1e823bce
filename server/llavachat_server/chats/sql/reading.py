"""What the store reads: each function is one transaction's worth of queries."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, RowMapping, Select

from llavachat_server.chats.aside import give_way
from llavachat_server.chats.errors import NotFound
from llavachat_server.chats.record import (
    OPENING_CHARS,
    Chat,
    ChatSummary,
    RequestClaim,
    Turn,
    TurnState,
)
from llavachat_server.chats.sql import rows
from llavachat_server.chats.sql.originals import count_own_bytes
from llavachat_server.chats.sql.schema import (
    builds,
    chats,
    claims,
    labels,
    originals,
    pictures,
    turn_pictures,
    turns,
)
from llavachat_server.chats.store import ChatPage, ChatQuery, IdleChat, PageMark, fill_page
from llavachat_server.images.intake import ImageInfo

MANY_CHATS = 1000
"""Of several labels the rarest leads; chats are counted up to this number, more is alike."""

SHORT_TURNS = 64
SHORT_CHATS = 100
SHORT_BYTES = 4 * 1024**2
"""A chat of so many turns, a page of so many chats, or a picture of so many bytes is read in some
milliseconds."""

_BUILD_COLUMNS = tuple(
    builds.c[name]
    for name in (
        "profile",
        "name",
        "revision",
        "quantization",
        "weights_sha256",
        "tokenizer_sha256",
        "device",
        "library_versions",
    )
)


@dataclass(frozen=True, slots=True)
class CutTurn:
    """A turn that ran when its process died."""

    tenant: str
    chat_id: str
    turn_id: str


def read_running(connection: Connection) -> tuple[CutTurn, ...]:
    """The turns that run; before the first one is begun, those that were cut."""
    query = (
        sa.select(turns.c.key, chats.c.tenant, chats.c.id, turns.c.id.label("turn_id"))
        .join_from(turns, chats, chats.c.key == turns.c.chat_key)
        .where(turns.c.state == TurnState.RUNNING.value)
    )
    # Asked for in this order, SQLite would read all turns there are instead of the running ones'
    # index and sort nothing.
    found = sorted(connection.execute(query), key=lambda row: int(row.key))
    return tuple(CutTurn(row.tenant, row.id, row.turn_id) for row in found)


def read_chat(connection: Connection, tenant: str, chat_id: str) -> Chat:
    """A chat with all its turns."""
    chat = _find_chat(connection, tenant, chat_id)
    return rows.read_chat(chat, _read_turns(connection, turns.c.chat_key == chat["key"]))


def read_opening(connection: Connection, tenant: str, chat_id: str) -> Chat:
    """A chat with its first turn alone."""
    chat = _find_chat(connection, tenant, chat_id)
    is_first = sa.and_(turns.c.chat_key == chat["key"], turns.c.position == 0)
    return rows.read_chat(chat, _read_turns(connection, is_first))


def read_branch(connection: Connection, tenant: str, chat_id: str, turn_id: str | None) -> Chat:
    """A chat with the turns down to one alone; None: to the latest finished one, if there is."""
    chat = _find_chat(connection, tenant, chat_id)
    if turn_id is None:
        is_finished = turns.c.state == TurnState.FINISHED.value
        latest = sa.select(turns.c.id).where(turns.c.chat_key == chat["key"], is_finished)
        leaf_id = connection.execute(
            latest.order_by(turns.c.position.desc()).limit(1)
        ).scalar_one_or_none()
        if leaf_id is None:
            return rows.read_chat(chat, ())
    else:
        leaf_id = turn_id
    branch = _find_branch(chat, leaf_id)
    # Joined with it, newer SQLite (3.46, not 3.40) would read the pictures of all chats.
    found = _read_turns(connection, turns.c.key.in_(sa.select(branch.c.key)))
    if not found:
        raise NotFound("turn", leaf_id)
    return rows.read_chat(chat, found)


def read_branch_ids(
    connection: Connection, tenant: str, chat_id: str, turn_id: str
) -> tuple[str, ...]:
    """The ids of the turns down to one."""
    branch = _find_branch(_find_chat(connection, tenant, chat_id), turn_id)
    query = sa.select(turns.c.id).where(turns.c.key.in_(sa.select(branch.c.key)))
    found = tuple(connection.execute(query.order_by(turns.c.position)).scalars())
    if not found:
        raise NotFound("turn", turn_id)
    return found


def read_turn(connection: Connection, tenant: str, chat_id: str, turn_id: str) -> Turn:
    """One turn."""
    chat = _find_chat(connection, tenant, chat_id)
    is_it = sa.and_(turns.c.chat_key == chat["key"], turns.c.id == turn_id)
    found = _read_turns(connection, is_it)
    if not found:
        raise NotFound("turn", turn_id)
    return found[0]


def count_turns(connection: Connection, tenant: str, chat_id: str) -> int:
    """How many turns a chat has; 0 where there is none."""
    query = sa.select(chats.c.num_turns).where(chats.c.tenant == tenant, chats.c.id == chat_id)
    return connection.execute(query).scalar_one_or_none() or 0


def read_page(connection: Connection, tenant: str, query: ChatQuery) -> ChatPage:
    """A page of summaries, and where it ended."""
    return fill_page(_read_summaries(connection, tenant, query), query.limit)


def read_png(connection: Connection, tenant: str, image_id: str) -> tuple[ImageInfo, bytes]:
    """A picture, its pixels still packed."""
    row = _find_picture(connection, tenant, image_id, *pictures.c)
    return rows.read_image(row), row["png"]


def read_image(connection: Connection, tenant: str, image_id: str) -> ImageInfo:
    """What is told about a picture."""
    told = (column for column in pictures.c if column is not pictures.c.png)
    return rows.read_image(_find_picture(connection, tenant, image_id, *told))


def count_png_bytes(connection: Connection, tenant: str, image_id: str) -> int:
    """How large it is, packed."""
    return int(_find_picture(connection, tenant, image_id, pictures.c.num_bytes)["num_bytes"])


def read_known_ids(connection: Connection, tenant: str, image_ids: set[str]) -> set[str]:
    """Which of these pictures are kept."""
    query = sa.select(pictures.c.id).where(
        pictures.c.tenant == tenant, pictures.c.id.in_(sorted(image_ids))
    )
    return set(connection.execute(query).scalars())


def read_claim(connection: Connection, tenant: str, request_id: str) -> RequestClaim | None:
    """What became of a request_id."""
    query = (
        sa.select(claims.c.body_sha256, claims.c.turn_id, chats.c.id)
        .join(chats, chats.c.key == claims.c.chat_key)
        .where(claims.c.tenant == tenant, claims.c.request_id == request_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return RequestClaim(tenant, request_id, row.body_sha256, row.id, row.turn_id)


def read_idle(connection: Connection, before: datetime, limit: int) -> list[IdleChat]:
    """Chats last used before a time and without a running turn, the longest ago first."""
    is_running = sa.exists().where(
        turns.c.chat_key == chats.c.key, turns.c.state == TurnState.RUNNING.value
    )
    query = (
        sa.select(chats.c.tenant, chats.c.id, chats.c.updated_at, chats.c.num_turns)
        .where(chats.c.updated_at < rows.write_time(before), ~is_running)
        .order_by(chats.c.updated_at)
        .limit(limit)
    )
    return [
        IdleChat(row.tenant, row.id, rows.read_time(row.updated_at), row.num_turns)
        for row in connection.execute(query)
    ]


def read_num_bytes(connection: Connection) -> int:
    """About what all chats take; read from three indexes."""
    sums = [
        sa.select(sa.func.coalesce(sa.func.sum(table.c.num_bytes), 0)).scalar_subquery()
        for table in (turns, pictures, originals)
    ]
    return int(connection.execute(sa.select(sums[0] + sums[1] + sums[2])).scalar_one())


def read_own_bytes(connection: Connection, tenant: str, chat_id: str) -> int:
    """About what the erasure of a chat would free: its turns, and what it alone uses."""
    of_chat = sa.select(chats.c.key).where(chats.c.tenant == tenant, chats.c.id == chat_id)
    chat_key = connection.execute(of_chat).scalar_one_or_none()
    if chat_key is None:
        return 0
    own_turns = sa.select(sa.func.coalesce(sa.func.sum(turns.c.num_bytes), 0)).where(
        turns.c.chat_key == chat_key
    )
    links = sa.join(turn_pictures, turns, turns.c.key == turn_pictures.c.turn_key)
    used = sa.select(turn_pictures.c.picture_key).select_from(links)
    elsewhere = used.where(
        turn_pictures.c.picture_key == pictures.c.key, turns.c.chat_key != chat_key
    )
    own_pictures = sa.select(sa.func.coalesce(sa.func.sum(pictures.c.num_bytes), 0)).where(
        pictures.c.key.in_(used.where(turns.c.chat_key == chat_key)), ~elsewhere.exists()
    )
    sums = (connection.execute(query).scalar_one() for query in (own_turns, own_pictures))
    return sum(map(int, sums)) + count_own_bytes(connection, chat_key)


def _find_chat(connection: Connection, tenant: str, chat_id: str) -> RowMapping:
    query = sa.select(chats).where(chats.c.tenant == tenant, chats.c.id == chat_id)
    chat = connection.execute(query).mappings().one_or_none()
    if chat is None:
        raise NotFound("chat", chat_id)
    return chat


def _find_branch(chat: RowMapping, turn_id: str) -> sa.CTE:
    """From a turn to its parent, and so on: each is one look into an index."""
    leaf = sa.select(turns.c.key, turns.c.parent_id).where(turns.c.chat_key == chat["key"])
    branch = leaf.where(turns.c.id == turn_id).cte("branch", recursive=True)
    parents = turns.alias()
    return branch.union_all(
        sa.select(parents.c.key, parents.c.parent_id).where(
            parents.c.chat_key == chat["key"], parents.c.id == branch.c.parent_id
        )
    )


def _find_picture(
    connection: Connection, tenant: str, image_id: str, *columns: ColumnElement[Any]
) -> RowMapping:
    query = sa.select(*columns).where(pictures.c.tenant == tenant, pictures.c.id == image_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound("image", image_id)
    return row


def _read_turns(connection: Connection, which: ColumnElement[bool]) -> tuple[Turn, ...]:
    """Turns in the order in which they were asked."""
    links = (
        sa.select(
            turn_pictures.c.turn_key,
            pictures.c.id,
            turn_pictures.c.width_pixels,
            turn_pictures.c.height_pixels,
            turn_pictures.c.media_type,
            turn_pictures.c.num_frames,
        )
        .join_from(turns, turn_pictures, turn_pictures.c.turn_key == turns.c.key)
        .join(pictures, pictures.c.key == turn_pictures.c.picture_key)
        .where(which)
        .order_by(turn_pictures.c.turn_key, turn_pictures.c.position)
    )
    images: dict[int, list[ImageInfo]] = defaultdict(list)
    for row in connection.execute(links).mappings():
        images[row["turn_key"]].append(rows.read_image(row))
    query = (
        sa.select(turns, *_BUILD_COLUMNS)
        .join_from(turns, builds, builds.c.key == turns.c.build_key)
        .where(which)
        .order_by(turns.c.position)
    )
    found = []
    for row in connection.execute(query).mappings():
        found.append(rows.read_turn(row, tuple(images.get(row["key"], ()))))
        give_way(len(found))
    return tuple(found)


def _read_summaries(connection: Connection, tenant: str, query: ChatQuery) -> Iterator[ChatSummary]:
    """Chats in order, one more than a page may have; read a few at a time, because the page may end
    long before."""
    rarest = _find_rarest(connection, tenant, query.labels)
    num_left = query.limit + 1
    while num_left:
        query = replace(query, limit=min(num_left, SHORT_CHATS + 1))
        num_found = 0
        with connection.execute(_page_query(tenant, query, rarest)) as found:
            for row in found.mappings():
                last = rows.read_summary(row)
                num_found += 1
                yield last
        if num_found < query.limit:
            return
        num_left -= num_found
        query = replace(query, after=PageMark(last.updated_at, last.id))


def _find_rarest(
    connection: Connection, tenant: str, wanted: Mapping[str, str]
) -> tuple[str, str] | None:
    """The label to read chats by: the one that the fewest have. None: none is wanted."""
    ordered = sorted(wanted.items())
    if len(ordered) < 2:
        return ordered[0] if ordered else None

    def count(label: tuple[str, str]) -> int:
        some = sa.select(labels.c.chat_id).where(_has(tenant, *label)).limit(MANY_CHATS)
        return connection.execute(
            sa.select(sa.func.count()).select_from(some.subquery())
        ).scalar_one()

    return min(ordered, key=count)


def _has(tenant: str, name: str, value: str) -> ColumnElement[bool]:
    return sa.and_(labels.c.tenant == tenant, labels.c.name == name, labels.c.value == value)


def _page_query(
    tenant: str, query: ChatQuery, leading: tuple[str, str] | None
) -> Select[tuple[object, ...]]:
    """Chats in the order of one index, which is read from where the page begins to where it ends.

    Args:
        leading: of the labels, the one whose index it is. None: the chats' own.
    """
    opening = (
        sa.select(sa.func.substr(turns.c.prompt, 1, OPENING_CHARS, type_=turns.c.prompt.type))
        .where(turns.c.chat_key == chats.c.key, turns.c.position == 0)
        .scalar_subquery()
    )
    page = sa.select(chats, opening.label("opening"))
    if leading is None:
        page = page.where(chats.c.tenant == tenant)
        time, chat_id = chats.c.updated_at, chats.c.id
    else:
        page = page.join(labels, labels.c.chat_key == chats.c.key).where(_has(tenant, *leading))
        time, chat_id = labels.c.updated_at, labels.c.chat_id
    if query.updated_since is not None:
        page = page.where(time >= rows.write_time(query.updated_since))
    if query.updated_before is not None:
        page = page.where(time < rows.write_time(query.updated_before))
    if query.after is not None:
        mark = sa.tuple_(
            sa.literal(rows.write_time(query.after.updated_at)), sa.literal(query.after.chat_id)
        )
        page = page.where(sa.tuple_(time, chat_id) < mark)
    if len(query.labels) > 1:
        bits = rows.write_label_bits(query.labels)
        # Read from the same index: what passes is looked at closely.
        page = page.where(labels.c.label_bits.bitwise_and(bits) == bits)
    for label in sorted(query.labels.items()):
        if label != leading:
            other = labels.alias()
            is_so = (other.c.name == label[0], other.c.value == label[1])
            # Compared with the leading label, so that a chat is read only once it is one.
            page = page.where(sa.exists().where(other.c.chat_key == labels.c.chat_key, *is_so))
    return page.order_by(time.desc(), chat_id.desc()).limit(query.limit)
