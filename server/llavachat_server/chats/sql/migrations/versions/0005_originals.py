"""Pictures' files may be kept as they came, and which turn brought which."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# SQLite counts rows by itself only in a column that is called INTEGER.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make both tables, empty: the files of before are gone."""
    op.create_table(
        "originals",
        sa.Column("key", KEY, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file", sa.LargeBinary(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_originals"),
        sa.UniqueConstraint("tenant", "sha256", name="uq_originals_tenant_sha256"),
    )
    op.create_index("ix_originals_num_bytes", "originals", ["num_bytes"], unique=False)
    op.create_table(
        "turn_originals",
        sa.Column("turn_key", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("original_key", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["original_key"], ["originals.key"], name="fk_turn_originals_original_key"
        ),
        sa.ForeignKeyConstraint(
            ["turn_key"], ["turns.key"], name="fk_turn_originals_turn_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("turn_key", "position", name="pk_turn_originals"),
    )
    op.create_index(
        "ix_turn_originals_original_key", "turn_originals", ["original_key"], unique=False
    )


def downgrade() -> None:
    """Forget the files."""
    op.drop_table("turn_originals")
    op.drop_table("originals")
