"""What Alembic runs: the migrations, on the open transaction that ``schema.upgrade`` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    # SQLite's data definition is transactional once the driver's own transactions are off, which Alembic cannot know.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
