"""The revision of the schema: whether it is known, whether it is at head, and how it gets there.

`opening` migrates at the start of `syncd run` and `syncd once`; `syncd migrate` does the same, or prints the SQL.
Alembic is imported only if there is something to migrate: it costs a third of a second, and most starts find the schema
at head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import locks
from syncd.mirror.db.dialects import by_dialect, do_nothing
from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.schema.privileges import require_fit
from syncd.mirror.schema.revisions import HEAD, REVISIONS, SELECT_REVISION, scripts

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HALF_MOVED = f"moving {HEAD}"
"""The text in the place of the revision while `migrate_store` fills a database."""
_NOT_OWNER, _DEPENDENT = "42501", "2BP01"
"""SQLSTATEs: the role does not own a table; a view of another program needs what is dropped."""


def revision(connection: Connection) -> str | None:
    """Return the schema's revision; None for an empty database.

    Raises
    ------
    DatabaseUnusableError
        The database belongs to another program, to a newer syncd, or to an interrupted move.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise DatabaseUnusableError(
            "the database contains tables that are not syncd's; point SYNCD_DATABASE_URL at a database of its own"
        )
    rows = list(connection.execute(sa.text(SELECT_REVISION)).scalars())
    if not rows and tables == {"alembic_version"}:
        return None
    if rows == [HALF_MOVED]:
        raise DatabaseUnusableError(
            "the database is the target of a syncd migrate-store that was interrupted; run the same command again to "
            "complete it, or start with an empty database"
        )
    if len(rows) != 1 or rows[0] not in REVISIONS:
        revisions = ", ".join(map(str, rows)) or "none"
        raise DatabaseUnusableError(
            f"the database's schema is {revisions}, and this syncd knows {HEAD} as the latest; "
            "run the newer syncd that wrote it, or restore a backup"
        )
    return str(rows[0])


def is_half_moved(connection: Connection) -> bool:
    """Return whether a move into this database was begun by this release and did not complete."""
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return False
    return list(connection.execute(sa.text(SELECT_REVISION)).scalars()) == [HALF_MOVED]


def mark_half_moved(connection: Connection) -> None:
    """Keep every daemon, and every other release, from opening this database until the move is complete."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :text"), {"text": HALF_MOVED})


def unmark_half_moved(connection: Connection) -> None:
    """Let daemons open the database again."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = :text"), {"text": HEAD})


def require_head(connection: Connection) -> None:
    """Refuse a schema that is empty or old.

    Raises
    ------
    DatabaseUnusableError
        It must be migrated first.
    """
    schema_revision = revision(connection)
    if schema_revision != HEAD:
        raise DatabaseUnusableError(
            f"the database's schema is {schema_revision or 'empty'} and must be {HEAD}; run: syncd migrate"
        )


def _lock_for_migration(connection: Connection) -> None:
    """Let one replica migrate at a time, and limit how long it blocks the replicas that work.

    A migration waits for a table's lock no longer than `lock_timeout`, because statements that queue for the same lock
    after it wait as long.

    Raises
    ------
    DatabaseUnusableError
        The server does not fit, or the role may not change the schema.
    """
    require_fit(connection)
    allowed = connection.exec_driver_sql("SELECT has_schema_privilege(current_schema(), 'CREATE')").scalar()
    if not allowed:
        role, schema = connection.exec_driver_sql(
            "SELECT quote_ident(current_user), coalesce(quote_ident(current_schema()), 'public')"
        ).one()
        raise DatabaseUnusableError(
            f"the database's schema must be brought to {HEAD}, and the role {role} may not do that; run syncd migrate "
            f"as a role that may, or let an administrator run: GRANT CREATE ON SCHEMA {schema} TO {role};"
        )
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({locks.MIGRATION}, hashtext(current_schema()))")
    connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = '100s'")


lock = by_dialect(sqlite=do_nothing, postgresql=_lock_for_migration)


def migrate(connection: Connection) -> tuple[str | None, str]:
    """Bring the schema to head inside the caller's transaction: completely, or not at all.

    The revision is read again once this replica has the lock: another one may have migrated meanwhile. The caller's
    transaction is READ COMMITTED, so it sees that.

    Returns
    -------
    tuple[str | None, str]
        The revision before and the one after.

    Raises
    ------
    DatabaseUnusableError
        See `revision`; or the role may not change the schema, or an object of another program needs a part of it.
    """
    before = revision(connection)
    if before == HEAD:
        return before, HEAD
    lock(connection)
    before = revision(connection)
    if before != HEAD:
        from alembic import command  # noqa: PLC0415 - see the module's docstring

        config = alembic_config()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except sa.exc.DBAPIError as error:
            _raise_refusal(error)
            raise
    return before, HEAD


def _raise_refusal(error: sa.exc.DBAPIError) -> None:
    """Raise what an operator can do about a statement that PostgreSQL refuses; return for any other error."""
    cause = error.orig.__cause__ if error.orig is not None else None
    state, message = getattr(cause, "sqlstate", None), getattr(cause, "message", None)
    reason = f"the schema cannot be brought to {HEAD}: {message}"
    if state == _NOT_OWNER:
        raise DatabaseUnusableError(f"{reason}; run syncd migrate as the role that owns the tables") from error
    if state == _DEPENDENT:
        detail = getattr(cause, "detail", None) or "other objects need it"
        raise DatabaseUnusableError(
            f"{reason} ({' '.join(detail.split())}); nothing was changed. Drop that object, run the command again, and "
            "make the object again"
        ) from error


def print_sql(dialect: str, start: str | None, output: TextIO) -> None:
    """Write the SQL that brings a schema to head; no database is contacted.

    Parameters
    ----------
    dialect : str
        `sqlite` or `postgresql`.
    start : str | None
        The revision to begin with; None for an empty database.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    config = alembic_config(output)
    config.attributes["dialect"] = dialect
    command.upgrade(config, f"{start or 'base'}:head", sql=True)


def alembic_config(output: TextIO | None = None) -> Config:
    """Return Alembic's configuration; `output` receives the SQL of offline mode."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


@contextmanager
def empty_mirror() -> Iterator[Connection]:
    """Give an empty mirror at head, in memory."""
    engine = sync_engine(None)
    try:
        with engine.begin() as connection:
            migrate(connection)
            yield connection
    finally:
        engine.dispose()
