"""Labels know whose chat they mark and when it was used, so that a listing by label has its order
in one index."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table anew with what the chats know."""
    _move_aside()
    op.create_table(
        "labels",
        sa.Column("chat_key", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("chat_id", sa.String(length=128), nullable=False),
        *_constraints(),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO labels (chat_key, name, value, tenant, updated_at, chat_id) "
        "SELECT chat_key, name, value, tenant, updated_at, id "
        "FROM labels_before JOIN chats ON chats.key = labels_before.chat_key"
    )
    op.drop_table("labels_before")
    op.create_index(
        "ix_labels_tenant_name_value_updated_at_chat_id",
        "labels",
        ["tenant", "name", "value", "updated_at", "chat_id"],
        unique=False,
    )


def downgrade() -> None:
    """Make the table as it was."""
    _move_aside()
    op.create_table(
        "labels",
        sa.Column("chat_key", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        *_constraints(),
    )
    op.execute(
        "INSERT INTO labels (chat_key, name, value) SELECT chat_key, name, value FROM labels_before"
    )
    op.drop_table("labels_before")
    op.create_index(
        "ix_labels_name_value_chat_key", "labels", ["name", "value", "chat_key"], unique=False
    )


def _move_aside() -> None:
    # A renamed table would keep the names of its constraints, which the new one needs.
    op.execute("CREATE TABLE labels_before AS SELECT chat_key, name, value FROM labels")
    op.drop_table("labels")


def _constraints() -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(
            ["chat_key"], ["chats.key"], name="fk_labels_chat_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("chat_key", "name", name="pk_labels"),
    )
