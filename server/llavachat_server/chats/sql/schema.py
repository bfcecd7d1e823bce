"""The tables. Times are whole microseconds since 1970 in UTC, which every database keeps exactly.

`migrations/` makes these tables; a test compares the two. Small structures that are only ever
read whole (sampling, usage, timings, labels) are JSON texts.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

HEAD = "0010"
"""The newest migration; a database that has it needs none."""


class FreeText(TypeDecorator[str]):
    """Any text. PostgreSQL knows no NUL, and a model can write one: it is kept as SUB and 0."""

    impl: type[String] = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape."""
        if value is None or not ("\0" in value or "\x1a" in value):
            return value
        return value.replace("\x1a", "\x1a1").replace("\0", "\x1a0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Undo it."""
        if value is None or "\x1a" not in value:
            return value
        return value.replace("\x1a0", "\0").replace("\x1a1", "\x1a")


class Id(FreeText):
    """An id. Ours have no NUL, but a caller may look for one that has: there is no such thing."""

    impl = String
    cache_ok = True


# SQLite counts rows by itself only in a column that is called INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

chats = Table(
    "chats",
    metadata,
    Column("key", Key, primary_key=True),
    Column("tenant", FreeText, nullable=False),
    Column("id", Id(128), nullable=False),
    Column("system_prompt", FreeText),
    Column("labels", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("num_turns", Integer, nullable=False),
    UniqueConstraint("tenant", "id"),
    Index("ix_chats_tenant_updated_at_id", "tenant", "updated_at", "id"),
    Index("ix_chats_updated_at", "updated_at"),
)

labels = Table(
    "labels",
    metadata,
    Column("chat_key", ForeignKey("chats.key", ondelete="CASCADE"), primary_key=True),
    Column("name", FreeText, primary_key=True),
    Column("value", FreeText, nullable=False),
    Column("tenant", FreeText, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("chat_id", Id(128), nullable=False),
    # Of all labels of the chat, so that a walk along one label passes by most chats that lack
    # another; see `rows.write_label_bits`.
    Column("label_bits", BigInteger, server_default="0", nullable=False),
    Index(
        "ix_labels_tenant_name_value_updated_at_chat_id_label_bits",
        "tenant",
        "name",
        "value",
        "updated_at",
        "chat_id",
        "label_bits",
    ),
    # Lies in its primary key: whether a chat has a label is one look.
    sqlite_with_rowid=False,
)

builds = Table(
    "builds",
    metadata,
    Column("key", Key, primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("profile", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("quantization", Text, nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    # "" for those of before it was noted.
    Column("tokenizer_sha256", String(64), server_default="", nullable=False),
    Column("device", Text, nullable=False),
    Column("library_versions", Text, nullable=False),
)
"""What answered: a model in its form, on a device, by libraries, and whose token ids. Few rows,
shared by turns."""

turns = Table(
    "turns",
    metadata,
    Column("key", Key, primary_key=True),
    Column("chat_key", ForeignKey("chats.key", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("id", Id(128), nullable=False),
    Column("parent_id", String(128)),
    Column("prompt", FreeText, nullable=False),
    Column("question_ids", LargeBinary, nullable=False),
    Column("num_trimmed_turns", Integer, server_default="0", nullable=False),
    Column("num_untrimmed_tokens", Integer, nullable=False),
    Column("sampling", Text, nullable=False),
    Column("build_key", ForeignKey("builds.key"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("answer", FreeText, nullable=False),
    Column("answer_ids", LargeBinary, nullable=False),
    Column("finish_reason", String(16)),
    Column("matched_stop", FreeText),
    Column("usage", Text),
    Column("timings", Text),
    Column("finished_at", BigInteger),
    Column("imported", Boolean, nullable=False, server_default=false()),
    Column("num_bytes", BigInteger, nullable=False, server_default="0", index=True),
    UniqueConstraint("chat_key", "position"),
    UniqueConstraint("chat_key", "id"),
)
Index(
    "ix_turns_running",
    turns.c.chat_key,
    unique=True,
    sqlite_where=text("state = 'running'"),
    postgresql_where=text("state = 'running'"),
)

pictures = Table(
    "pictures",
    metadata,
    Column("key", Key, primary_key=True),
    Column("tenant", FreeText, nullable=False),
    Column("id", String(64), nullable=False),
    Column("width_pixels", Integer, nullable=False),
    Column("height_pixels", Integer, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("num_frames", Integer, nullable=False, server_default="0"),
    Column("png", LargeBinary, nullable=False),
    Column("num_bytes", BigInteger, nullable=False, server_default="0", index=True),
    UniqueConstraint("tenant", "id"),
)

turn_pictures = Table(
    "turn_pictures",
    metadata,
    Column("turn_key", ForeignKey("turns.key", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("picture_key", ForeignKey("pictures.key"), nullable=False, index=True),
    Column("width_pixels", Integer, nullable=False),
    Column("height_pixels", Integer, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("num_frames", Integer, nullable=False, server_default="0"),
)
"""The pictures of a turn; size, media type and frames are those of the file that this
turn brought."""

originals = Table(
    "originals",
    metadata,
    Column("key", Key, primary_key=True),
    Column("tenant", FreeText, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("file", LargeBinary, nullable=False),
    Column("num_bytes", BigInteger, nullable=False, index=True),
    UniqueConstraint("tenant", "sha256"),
)
"""Files as they came, each once for a tenant; empty unless an operator has them kept."""

turn_originals = Table(
    "turn_originals",
    metadata,
    Column("turn_key", ForeignKey("turns.key", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("original_key", ForeignKey("originals.key"), nullable=False, index=True),
)
"""Which file a picture of `turn_pictures` came in."""

claims = Table(
    "claims",
    metadata,
    Column("tenant", FreeText, primary_key=True),
    Column("request_id", FreeText, primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("chat_key", ForeignKey("chats.key", ondelete="CASCADE"), nullable=False, index=True),
    Column("turn_id", String(128), nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("key", Key, primary_key=True),
    Column("tenant", FreeText, nullable=False),
    Column("chat_id", Id(128), nullable=False),
    Column("erased_at", BigInteger, nullable=False),
    Index("ix_erasures_tenant_chat_id", "tenant", "chat_id"),
)
"""Chats that were erased, until the audit record has it."""
