"""Alembic's entry: runs on the connection that `shared.database.migration.migrate` gives it."""

from alembic import context

from shared.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
