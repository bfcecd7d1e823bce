"""Of each picture, how many frames it had when it was sent; 0 for those of before."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = ("pictures", "turn_pictures")


def upgrade() -> None:
    """Add the counts. Neither database writes a row for it."""
    for table in TABLES:
        op.add_column(
            table, sa.Column("num_frames", sa.Integer(), server_default="0", nullable=False)
        )


def downgrade() -> None:
    """Forget the counts."""
    for table in TABLES:
        op.drop_column(table, "num_frames")
