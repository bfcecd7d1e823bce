"""Turns and pictures know how many bytes they take, so that the sum is read from indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TURN_BYTES = 500
"""Of a turn beside its texts and ids; see `rows.TURN_BYTES` as it was."""

TEXTS = (
    "id",
    "parent_id",
    "prompt",
    "trimmed_turn_ids",
    "sampling",
    "state",
    "answer",
    "finish_reason",
    "matched_stop",
    "usage",
    "timings",
)
BLOBS = ("question_ids", "answer_ids")


def upgrade() -> None:
    """Add the sizes, and measure what is there."""
    for table in ("turns", "pictures"):
        op.add_column(
            table, sa.Column("num_bytes", sa.BigInteger(), server_default="0", nullable=False)
        )
    texts = " + ".join(f"coalesce({_length('text', name)}, 0)" for name in TEXTS)
    blobs = " + ".join(_length("blob", name) for name in BLOBS)
    op.execute(f"UPDATE turns SET num_bytes = {TURN_BYTES} + {texts} + {blobs}")  # noqa: S608
    op.execute(f"UPDATE pictures SET num_bytes = {_length('blob', 'png')}")  # noqa: S608
    op.create_index("ix_turns_num_bytes", "turns", ["num_bytes"], unique=False)
    op.create_index("ix_pictures_num_bytes", "pictures", ["num_bytes"], unique=False)
    # Of all tenants, the one that was used longest ago goes first.
    op.create_index("ix_chats_updated_at", "chats", ["updated_at"], unique=False)


def downgrade() -> None:
    """Forget the sizes."""
    op.drop_index("ix_chats_updated_at", "chats")
    for table in ("pictures", "turns"):
        op.drop_index(f"ix_{table}_num_bytes", table)
        op.drop_column(table, "num_bytes")


def _length(kind: str, column: str) -> str:
    if op.get_bind().dialect.name == "sqlite":
        return f"length({column})" if kind == "blob" else f"length(CAST({column} AS BLOB))"
    return f"octet_length({column})"
