"""Alembic's environment: for syncd itself, and for contributors who run `alembic` in a checkout.

- `syncd.mirror.schema.migrate` hands over a connection, and the migrations run inside its transaction.
- `alembic upgrade head`, `check` and `revision --autogenerate` open the database of `SYNCD_DATABASE_URL`, by default
  `syncd.db` in the current folder, as syncd does.
- `alembic upgrade head --sql` and `syncd migrate --sql` print statements and contact nothing.
"""

from __future__ import annotations

import os
import re
from typing import Any

import anyio
import sqlalchemy as sa
from alembic import context
from alembic.operations import Operations
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext, MigrationInfo

from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.read.catalog import VIEWS
from syncd.mirror.schema import comments, migrate, tables
from syncd.mirror.schema.revisions import HEAD
from syncd.mirror.schema.tables.columns import declare_for_postgresql
from syncd.mirror.schema.types import JsonText

declare_for_postgresql()
OPTIONS: dict[str, Any] = {
    "target_metadata": tables.metadata,
    "transactional_ddl": True,
}


READS = re.compile(r"\s*(SELECT|PRAGMA)\b", re.IGNORECASE)
"""Statements that change nothing."""


def settings_url() -> sa.URL:
    """Return the URL of the database that the environment names."""
    from syncd.settings import load  # noqa: PLC0415 - not needed by syncd's own call

    named = {name: value for name, value in os.environ.items() if name.startswith("SYNCD_DATABASE_URL")}
    return sa.make_url(load(named).settings.syncd_database_url.get_secret_value())


def same_type(_context: object, _column: object, _declared: object, _found: object, declared: object) -> bool | None:
    """Compare types as Alembic does, but for JSON: SQLite stores it as text."""
    return False if declared is JsonText else None


def number_revision(migration: MigrationContext, _revision: object, directives: list[MigrationScript]) -> None:
    """Give a new revision the next number, unless `--rev-id` names another."""
    named = getattr(migration.config.cmd_opts, "rev_id", None) if migration.config else None
    for directive in directives:
        if named is None:
            directive.rev_id = f"{int(HEAD) + 1:04}"


def comment_on_views(ctx: MigrationContext, step: MigrationInfo, heads: object, run_args: object) -> None:  # noqa: ARG001
    """Give the views their comments when a step has reached head; SQLite has none."""
    if step.is_upgrade and step.up_revision_id == HEAD and ctx.dialect.name == "postgresql":
        for statement in comments.comment_statements(VIEWS.values()):
            ctx.impl.execute(sa.text(statement.replace(":", r"\:")))


def run_on(connection: sa.Connection) -> None:
    """Run the command on a connection, inside its transaction."""
    context.configure(
        connection=connection,
        compare_type=same_type,
        process_revision_directives=number_revision,
        on_version_apply=comment_on_views,
        **OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """Print the statements."""
    name = context.config.attributes.get("dialect") or settings_url().get_backend_name()
    if name == "sqlite":
        print_sqlite()
        return
    context.configure(
        dialect_name=name,
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        on_version_apply=comment_on_views,
        **OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()


def print_sqlite() -> None:
    """Print the statements for SQLite: those that the migrations execute on an empty database in memory.

    Migrations for SQLite read the declarations of views and triggers, which no offline mode of Alembic can answer.
    """
    config, statements = context.config, list[str]()
    engine = sync_engine(None)

    def record(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if not READS.match(statement):
            if parameters:
                raise RuntimeError(f"a migration has parameters, and cannot be printed: {statement}")
            statements.append(statement.strip().removesuffix(";"))

    with engine.begin() as connection:
        if (start := context.get_starting_revision_argument()) is not None:
            upgrade_in_memory(connection, start)
        sa.event.listen(engine, "before_cursor_execute", record)
        upgrade_in_memory(connection, context.get_revision_argument())
    engine.dispose()
    output = config.output_buffer or config.stdout
    print("BEGIN IMMEDIATE", *statements, "COMMIT;", sep=";\n\n", file=output)


def upgrade_in_memory(connection: sa.Connection, revision: Any) -> None:  # noqa: ANN401 - as Alembic has it
    """Bring the schema of a connection to a revision, outside of the environment that runs."""

    def steps(heads: Any, _: object) -> Any:  # noqa: ANN401 - as Alembic has it
        return context.script._upgrade_revs(revision, heads)  # noqa: SLF001 - as Alembic's own commands do

    migration = MigrationContext.configure(connection, opts={"fn": steps, **OPTIONS})
    with Operations.context(migration):
        migration.run_migrations()


async def run_online() -> None:
    """Run the command on the database of the settings."""
    from syncd.mirror.db.database import Database  # noqa: PLC0415 - not needed by syncd's own call

    def work(connection: sa.Connection) -> None:
        migrate.lock(connection)
        run_on(connection)

    async with Database.create(settings_url(), busy_timeout=30) as database:
        await database.write(work)


if context.is_offline_mode():
    run_offline()
elif (given := context.config.attributes.get("connection")) is not None:
    run_on(given)
else:
    anyio.run(run_online)
