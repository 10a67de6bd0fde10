"""How Alembic is run: on the connection that `storage.database` gives it."""

from alembic import context

from antibody.service.storage.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
