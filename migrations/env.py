"""Alembic's environment: for syncd itself, and for contributors who run `alembic` in a checkout.

- `syncd.mirror.schema.migrate` hands over a connection, and the migrations run inside its transaction.
- `alembic upgrade head`, `check` and `revision --autogenerate` open the database of `SYNCD_DATABASE_URL`, by default
  `syncd.db` in the current folder, as syncd does.
- `alembic upgrade head --sql` and `syncd migrate --sql` print statements and contact nothing.
"""

from __future__ import annotations

import os
from typing import Any

import anyio
import sqlalchemy as sa
from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext, MigrationInfo

from syncd.mirror.read.catalog import VIEWS
from syncd.mirror.schema import comments, migrate, tables
from syncd.mirror.schema.revisions import HEAD
from syncd.mirror.schema.types import JsonText

OPTIONS: dict[str, Any] = {
    "target_metadata": tables.metadata,
    "transactional_ddl": True,
}


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
    context.configure(
        dialect_name=name,
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        on_version_apply=comment_on_views,
        **OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()


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
