"""Alembic's entry: runs migrations on the connection that `database` has opened."""

from alembic import context
from llavachat_server.chats.sql.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The caller's transaction holds all of it: a process that dies half-way leaves no trace.
    transactional_ddl=True,
)
context.run_migrations()
