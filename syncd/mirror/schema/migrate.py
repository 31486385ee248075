"""The schema's version: is it ours, is it current, and how it gets there.

Alembic is imported only when there is something to migrate: it costs a third of a second, and most starts find the
schema at head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.dialects import is_postgresql
from syncd.mirror.schema.privileges import require_fit
from syncd.mirror.schema.revisions import HEAD, REVISIONS

if TYPE_CHECKING:
    from sqlalchemy import Connection

HALF_MOVED = f"moving {HEAD}"
"""What stands in the place of the revision while `mirror.move` fills a database."""
MIGRATION_LOCK = 0x53594D49
"""PostgreSQL's advisory lock of whoever migrates; the second half is a hash of the schema's name."""


def scripts() -> Path:
    """Return the directory of the migrations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def revision(connection: Connection) -> str | None:
    """Return the schema's revision; None for a database that is empty.

    Raises
    ------
    DatabaseUnusableError
        The database belongs to another program, or to a newer syncd.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise DatabaseUnusableError(
            "the database holds tables that are not syncd's; point SYNCD_DATABASE_URL at one of its own"
        )
    rows = list(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())
    if not rows and tables == {"alembic_version"}:
        return None
    if rows == [HALF_MOVED]:
        raise DatabaseUnusableError(
            "the database is the target of a syncd migrate-store that was interrupted; run the same command again to "
            "end it, or begin with an empty database"
        )
    if len(rows) != 1 or rows[0] not in REVISIONS:
        found = ", ".join(map(str, rows)) or "none"
        raise DatabaseUnusableError(
            f"the database's schema is {found}, and this syncd knows {HEAD} at the latest; "
            "run the newer syncd that wrote it, or restore a backup"
        )
    return str(rows[0])


def is_half_moved(connection: Connection) -> bool:
    """Whether a move into this database was begun, by this release, and not ended."""
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return False
    return list(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars()) == [HALF_MOVED]


def mark_half_moved(connection: Connection) -> None:
    """Let no daemon, and no other release, open this database until the move is ended."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :words"), {"words": HALF_MOVED})


def unmark_half_moved(connection: Connection) -> None:
    """Let everybody open it again."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :words"), {"words": HEAD})


def require_head(connection: Connection) -> None:
    """Refuse a schema that is empty or old.

    Raises
    ------
    DatabaseUnusableError
        It must be migrated first.
    """
    found = revision(connection)
    if found != HEAD:
        raise DatabaseUnusableError(
            f"the database's schema is {found or 'empty'} and must be {HEAD}; run: syncd migrate"
        )


def _take_turns(connection: Connection) -> None:
    """Let one replica migrate at a time, and give up rather than stand in the way of those that work.

    A migration waits for its locks no longer than `lock_timeout`: whoever came behind it in the queue for a lock would
    wait as long.
    """
    require_fit(connection)
    may = connection.exec_driver_sql("SELECT has_schema_privilege(current_schema(), 'CREATE')").scalar()
    if not may:
        role, schema = connection.exec_driver_sql(
            "SELECT quote_ident(current_user), coalesce(quote_ident(current_schema()), 'public')"
        ).one()
        raise DatabaseUnusableError(
            f"the database's schema must be brought to {HEAD}, and the role {role} may not; as a role that may, run: "
            f"syncd migrate; or an administrator: GRANT CREATE ON SCHEMA {schema} TO {role};"
        )
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK}, hashtext(current_schema()))")
    connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = '100s'")


def _comment_on_views(connection: Connection) -> None:
    """Give the views, as they are at head, this release's words."""
    from syncd.mirror.read.catalog import VIEWS  # noqa: PLC0415 - see the module's docstring

    def comment(on: str, text: str | None) -> None:
        quoted = (text or "").replace("'", "''")
        connection.exec_driver_sql(f"COMMENT ON {on} IS '{quoted}'")

    for view in VIEWS.values():
        comment(f"VIEW {view.name}", view.comment)
        for column in view.columns:
            comment(f"COLUMN {view.name}.{column.name}", column.comment)


def migrate(connection: Connection) -> tuple[str | None, str]:
    """Bring the schema to head inside the caller's transaction, so that it is there whole or not at all.

    Returns
    -------
    tuple[str | None, str]
        The revision before and the one after.
    """
    before = revision(connection)
    if before != HEAD and is_postgresql(connection):
        _take_turns(connection)
        before = revision(connection)
    if before != HEAD:
        from alembic import command  # noqa: PLC0415 - see the module's docstring
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if is_postgresql(connection):
            _comment_on_views(connection)
    return before, HEAD


@contextmanager
def empty_mirror() -> Iterator[Connection]:
    """Give an empty mirror at head that is in memory alone."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            migrate(connection)
            yield connection
    finally:
        engine.dispose()
