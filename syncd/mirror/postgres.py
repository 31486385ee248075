"""PostgreSQL's side of `Database`: the engine, what an error means, and whether a broken-off commit happened."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.dialects import ConcurrentChangeError, read_time, translate, write_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
POOL = 4
"""Connections of a process besides the two that lead and listen: one writes, the others read."""
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 120.0
"""A statement that takes longer than this has lost its server; the longest are a sweep's, over every session."""

KEEPALIVE = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
"""Not given at the start of the connection: proxies refuse start-up parameters that they do not know."""

CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the transaction runs again at once."""
_WAITED_FOR = ("08", "53", "57", "58", "55P03", "25P03", "25P02", "XX000")
"""Connection, resources, operator intervention, system, lock_not_available, idle in a transaction for too long."""

_MENDS = {
    "25006": "the PostgreSQL server is read-only (a standby, or default_transaction_read_only): "
    "point SYNCD_DATABASE_URL at the primary",
    "28": "PostgreSQL refuses the login: {words}; mend the user or the password in SYNCD_DATABASE_URL, or pg_hba.conf",
    "3D000": "{words}; make it with: CREATE DATABASE ... ENCODING 'UTF8'",
    "3F000": "{words}; make the schema, or mend search_path",
    "42501": "{words}; an administrator mends that with: {grant}",
}
GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
)


class CommitUnknownError(DatabaseBusyError):
    """The connection broke while a transaction was being committed; `xid` tells the server which one."""

    def __init__(self, xid: str, reason: str) -> None:
        super().__init__(reason)
        self.xid = xid


def engine(url: sa.URL) -> AsyncEngine:
    """Make the engine.

    `?prepared_statement_cache_size=0` in the URL is for proxies that give each transaction another connection: then
    nothing is prepared under a name that a second transaction could meet.
    """
    made = create_async_engine(url, pool_size=POOL, max_overflow=0, connect_args=connect_arguments(url))

    @sa.event.listens_for(made.sync_engine, "connect")
    def _(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's face of asyncpg's
        connection.run_async(_set_up)

    @sa.event.listens_for(made.sync_engine, "before_cursor_execute", retval=True)
    def _(
        _connection: object,
        _cursor: object,
        statement: str,
        parameters: Any,  # noqa: ANN401 - the driver's
        context: Any,  # noqa: ANN401 - SQLAlchemy's
        _many: object,
    ) -> tuple[str, Any]:
        if context is not None and context.compiled is None and "?" in statement:
            return translate(statement), parameters
        return statement, parameters

    return made


def connect_arguments(url: sa.URL) -> dict[str, Any]:
    """Return what each connection is made with, besides what stands in the URL."""
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": COMMAND_SECONDS,
        "server_settings": {"TimeZone": "UTC", "DateStyle": "ISO", "application_name": application_name()},
    }
    if url.query.get("prepared_statement_cache_size") == "0":
        arguments["statement_cache_size"] = 0
        arguments["prepared_statement_name_func"] = lambda: f"__syncd_{uuid.uuid4()}__"
    return arguments


async def connect(url: sa.URL) -> Any:  # noqa: ANN401 - asyncpg's connection
    """Open a connection outside of any pool, whose session is this process's for as long as it lives.

    The server looks after it more closely than usual: a process whose machine is gone loses its locks in seconds.
    """
    import asyncpg  # noqa: PLC0415 - most commands on SQLite never need it

    _, arguments = url.get_dialect()().create_connect_args(url)
    arguments.pop("prepared_statement_cache_size", None)
    settings = {"application_name": application_name()}
    connection = await asyncpg.connect(
        **arguments, timeout=CONNECT_SECONDS, server_settings=settings, statement_cache_size=0
    )
    try:
        await connection.execute(KEEPALIVE, timeout=CONNECT_SECONDS)
    except BaseException:
        connection.terminate()
        raise
    return connection


def application_name() -> str:
    """Return how `pg_stat_activity` names this process."""
    return f"syncd {os.uname().nodename}:{os.getpid()}"[:63]


async def _set_up(connection: Any) -> None:  # noqa: ANN401 - asyncpg's connection
    """Let times and JSON pass as the text that SQLite keeps."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", format="text", encoder=write_time, decoder=read_time
    )
    await connection.set_type_codec("jsonb", schema="pg_catalog", format="text", encoder=str, decoder=str)


def translated(error: Exception) -> Exception | None:
    """Say what an error means for the database; None when the error is about the work and not the database."""
    if isinstance(error, CommitUnknownError):
        return error
    if isinstance(error, ConcurrentChangeError):
        return DatabaseBusyError(str(error))
    cause: BaseException = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    state = getattr(cause, "sqlstate", None)
    words = str(cause.__cause__ or cause)
    if state is not None:
        return _by_state(state, words)
    cut = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    closed = "connection" in words and type(cause).__module__.startswith(("asyncpg", "sqlalchemy"))
    if cut or closed or isinstance(cause, OSError | TimeoutError | EOFError | sa.exc.TimeoutError):
        return DatabaseBusyError(f"the database cannot be reached right now: {words or type(cause).__name__}")
    return None


def _by_state(state: str, words: str) -> Exception | None:
    if state in CONFLICTS:
        return DatabaseBusyError(f"two transactions were in each other's way: {words}")
    for code, mend in _MENDS.items():
        if state.startswith(code):
            grant = GRANTS.format(schema="...", role="...")
            return DatabaseUnusableError("the database cannot be used: " + mend.format(words=words, grant=grant))
    if state.startswith(_WAITED_FOR):
        return DatabaseBusyError(f"the database cannot be used right now: {words}")
    return None


def is_conflict(error: Exception) -> bool:
    """Whether a transaction only has to run again: nothing is wrong with the server."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return isinstance(cause, ConcurrentChangeError) or getattr(cause, "sqlstate", None) in CONFLICTS


async def read(made: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """Run a function of a connection in a read-only transaction that sees one snapshot."""
    async with made.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return await connection.run_sync(work)


async def transact(made: AsyncEngine, work: Callable[[Connection], None]) -> None:
    """Run a function of a connection in one transaction and commit it.

    READ COMMITTED: each statement sees what others have committed, and what is read before it is written is locked or
    compared where it is written.

    Raises
    ------
    CommitUnknownError
        The connection broke during the commit; `committed` tells what became of it.
    """
    async with made.connect() as connection:
        transaction = await connection.begin()
        try:
            await connection.run_sync(work)
            xid = (await connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text")).scalar()
        except BaseException:
            if not connection.invalidated:
                await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except Exception as error:
            if xid is None or not isinstance(translated(error), DatabaseBusyError) or is_conflict(error):
                raise
            await connection.invalidate()
            raise CommitUnknownError(str(xid), f"the connection broke during a commit: {error}") from error


async def committed(made: AsyncEngine, xid: str) -> bool:
    """Tell whether a transaction whose commit was broken off has happened.

    Raises
    ------
    DatabaseBusyError
        The server does not know yet.
    """
    async with made.connect() as connection:
        try:
            status = (await connection.exec_driver_sql(f"SELECT pg_xact_status('{int(xid)}'::xid8)")).scalar()
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == "22023":  # a server promoted since, that never heard of it
                return False
            raise
    if status == "in progress":
        raise DatabaseBusyError("the server has not settled the last commit yet")
    return bool(status == "committed")


def require_rights(connection: Connection) -> None:
    """Make sure, before anything is asked of Albert, that this role can write what syncd writes.

    Raises
    ------
    DatabaseUnusableError
        The server is read-only, or rights are missing; the message has the statements that give them.
    """
    if connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on":
        raise DatabaseUnusableError("the database cannot be used: " + _MENDS["25006"])
    role, schema = connection.exec_driver_sql("SELECT quote_ident(current_user), quote_ident(current_schema())").one()
    lacking = connection.exec_driver_sql(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace AND ("
        "c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') "
        "AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) AND c.relname = ANY($1) "
        "OR c.relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'USAGE')) ORDER BY 1",
        (list(_WRITTEN),),
    ).scalars().all()  # fmt: skip
    if lacking:
        raise DatabaseUnusableError(
            f"the database cannot be used: the role {role} may not write {', '.join(lacking)}; "
            f"an administrator mends that with: {GRANTS.format(schema=schema, role=role)}"
        )


_WRITTEN = (
    "sessions", "session_versions", "passes", "pages", "held_sessions", "quarantine", "operations", "source_sessions",
)  # fmt: skip
