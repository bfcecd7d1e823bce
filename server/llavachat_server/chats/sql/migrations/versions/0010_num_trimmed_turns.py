"""Turns know how many of their branch's first turns were left out of their prompts, and not which.

Of a chat that has outgrown its context each turn named nearly all before it: a chat of 5,000 turns
took 367 MB, and one question in it 1.8 GB of memory.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Count the names. They are emptied first: PostgreSQL keeps what a dropped column held."""
    op.add_column(
        "turns", sa.Column("num_trimmed_turns", sa.Integer(), server_default="0", nullable=False)
    )
    if op.get_bind().dialect.name == "sqlite":
        count, size = "json_array_length(trimmed_turn_ids)", "length(trimmed_turn_ids)"
    else:
        count, size = (
            "json_array_length(CAST(trimmed_turn_ids AS json))",
            "octet_length(trimmed_turn_ids)",
        )
    op.execute(
        f"UPDATE turns SET num_trimmed_turns = {count}, num_bytes = num_bytes - {size}, "  # noqa: S608
        "trimmed_turn_ids = ''"
    )
    op.drop_column("turns", "trimmed_turn_ids")


def downgrade() -> None:
    """Forget the counts: it looks as if no turn had been left out."""
    op.add_column(
        "turns", sa.Column("trimmed_turn_ids", sa.Text(), server_default="[]", nullable=False)
    )
    op.execute("UPDATE turns SET num_bytes = num_bytes + 2")
    op.drop_column("turns", "num_trimmed_turns")
