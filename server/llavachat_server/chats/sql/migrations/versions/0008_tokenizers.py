"""Builds know whose token ids their turns have; "" for those of before."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the hash. Neither database writes a row for it."""
    op.add_column(
        "builds",
        sa.Column("tokenizer_sha256", sa.String(64), server_default="", nullable=False),
    )


def downgrade() -> None:
    """Forget the hashes."""
    op.drop_column("builds", "tokenizer_sha256")
