"""Turns that were imported are marked, and builds that no turn has any more can be found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the mark; no turn before it was imported."""
    op.add_column(
        "turns", sa.Column("imported", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_index("ix_turns_build_key", "turns", ["build_key"], unique=False)


def downgrade() -> None:
    """Forget which turns were imported."""
    op.drop_index("ix_turns_build_key", "turns")
    op.drop_column("turns", "imported")
