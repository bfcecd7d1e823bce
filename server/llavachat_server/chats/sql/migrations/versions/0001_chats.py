"""Chats, their turns, pictures and claims."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "builds",
        sa.Column("key", KEY, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("quantization", sa.Text(), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("library_versions", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_builds"),
        sa.UniqueConstraint("sha256", name="uq_builds_sha256"),
    )
    op.create_table(
        "chats",
        sa.Column("key", KEY, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("system_prompt", sa.Text(), nullable=True),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("num_turns", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_chats"),
        sa.UniqueConstraint("tenant", "id", name="uq_chats_tenant_id"),
    )
    op.create_index(
        "ix_chats_tenant_updated_at_id", "chats", ["tenant", "updated_at", "id"], unique=False
    )
    op.create_table(
        "pictures",
        sa.Column("key", KEY, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("width_pixels", sa.Integer(), nullable=False),
        sa.Column("height_pixels", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("png", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_pictures"),
        sa.UniqueConstraint("tenant", "id", name="uq_pictures_tenant_id"),
    )
    op.create_table(
        "claims",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("chat_key", KEY, nullable=False),
        sa.Column("turn_id", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_key"], ["chats.key"], name="fk_claims_chat_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant", "request_id", name="pk_claims"),
    )
    op.create_index("ix_claims_chat_key", "claims", ["chat_key"], unique=False)
    op.create_table(
        "labels",
        sa.Column("chat_key", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_key"], ["chats.key"], name="fk_labels_chat_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("chat_key", "name", name="pk_labels"),
    )
    op.create_index(
        "ix_labels_name_value_chat_key", "labels", ["name", "value", "chat_key"], unique=False
    )
    op.create_table(
        "turns",
        sa.Column("key", KEY, nullable=False),
        sa.Column("chat_key", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("parent_id", sa.String(length=128), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("question_ids", sa.LargeBinary(), nullable=False),
        sa.Column("trimmed_turn_ids", sa.Text(), nullable=False),
        sa.Column("num_untrimmed_tokens", sa.Integer(), nullable=False),
        sa.Column("sampling", sa.Text(), nullable=False),
        sa.Column("build_key", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("answer_ids", sa.LargeBinary(), nullable=False),
        sa.Column("finish_reason", sa.String(length=16), nullable=True),
        sa.Column("matched_stop", sa.Text(), nullable=True),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.Column("timings", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["build_key"], ["builds.key"], name="fk_turns_build_key"),
        sa.ForeignKeyConstraint(
            ["chat_key"], ["chats.key"], name="fk_turns_chat_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name="pk_turns"),
        sa.UniqueConstraint("chat_key", "id", name="uq_turns_chat_key_id"),
        sa.UniqueConstraint("chat_key", "position", name="uq_turns_chat_key_position"),
    )
    op.create_index(
        "ix_turns_running",
        "turns",
        ["chat_key"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "turn_pictures",
        sa.Column("turn_key", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("picture_key", KEY, nullable=False),
        sa.Column("width_pixels", sa.Integer(), nullable=False),
        sa.Column("height_pixels", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["picture_key"], ["pictures.key"], name="fk_turn_pictures_picture_key"
        ),
        sa.ForeignKeyConstraint(
            ["turn_key"], ["turns.key"], name="fk_turn_pictures_turn_key", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("turn_key", "position", name="pk_turn_pictures"),
    )
    op.create_index("ix_turn_pictures_picture_key", "turn_pictures", ["picture_key"], unique=False)


def downgrade() -> None:
    """Drop them, and all chats with them."""
    for name in ("turn_pictures", "turns", "labels", "claims", "pictures", "chats", "builds"):
        op.drop_table(name)
