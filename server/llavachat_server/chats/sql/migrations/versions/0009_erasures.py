"""An erasure is kept with itself until the audit record has it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# SQLite counts rows by itself only in a column that is called INTEGER.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table, empty: what was erased before is in the audit record, or nowhere."""
    op.create_table(
        "erasures",
        sa.Column("key", KEY, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("chat_id", sa.String(128), nullable=False),
        sa.Column("erased_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_erasures"),
    )
    op.create_index("ix_erasures_tenant_chat_id", "erasures", ["tenant", "chat_id"], unique=False)


def downgrade() -> None:
    """Forget what was erased."""
    op.drop_table("erasures")
