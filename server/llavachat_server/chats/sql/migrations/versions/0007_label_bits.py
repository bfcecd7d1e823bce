"""Labels know a filter of all labels of their chat, so that a listing by several passes by what
lacks one without a look elsewhere."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

LABEL_BITS = 63
"""See `rows.LABEL_BITS` as it was."""

ORDER = ["tenant", "name", "value", "updated_at", "chat_id"]
INDEX = "ix_labels_tenant_name_value_updated_at_chat_id"


def upgrade() -> None:
    """Add the filters, and compute those of the chats that are there."""
    op.add_column(
        "labels", sa.Column("label_bits", sa.BigInteger(), server_default="0", nullable=False)
    )
    chats = sa.table("chats", sa.column("key"), sa.column("labels"))
    labels = sa.table("labels", sa.column("chat_key"), sa.column("label_bits"))
    marked = sa.select(chats.c.key, chats.c.labels).where(chats.c.labels != "{}")
    connection = op.get_bind()
    filters = [
        {"of_chat": key, "bits": _write_bits(json.loads(text))}
        for key, text in connection.execute(marked)
    ]
    if filters:
        connection.execute(
            sa.update(labels)
            .where(labels.c.chat_key == sa.bindparam("of_chat"))
            .values(label_bits=sa.bindparam("bits")),
            filters,
        )
    op.drop_index(INDEX, "labels")
    op.create_index(f"{INDEX}_label_bits", "labels", [*ORDER, "label_bits"], unique=False)


def downgrade() -> None:
    """Forget the filters."""
    op.drop_index(f"{INDEX}_label_bits", "labels")
    op.drop_column("labels", "label_bits")
    op.create_index(INDEX, "labels", ORDER, unique=False)


def _write_bits(labels: dict[str, str]) -> int:
    bits = 0
    for label in labels.items():
        text = json.dumps(label, ensure_ascii=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).digest()
        for start in (0, 2, 4):
            bits |= 1 << int.from_bytes(digest[start : start + 2], "big") % LABEL_BITS
    return bits
