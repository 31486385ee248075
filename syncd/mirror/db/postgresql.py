"""PostgreSQL's side of `Database`: its connections, what an error means, and whether a broken-off commit happened."""

from __future__ import annotations

import os
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db.dialects import ConcurrentChangeError, read_time, translate, write_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
POOL = 4
"""Connections of a process besides the two that lead and listen: one writes, the others read."""
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 120.0
"""A statement that takes longer than this has lost its server; the longest are a sweep's, over every session."""

KEEPALIVE = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
"""The server notices in seconds that a process's machine is gone, and its locks, of rows too, are free.

Not given at the start of the connection: proxies refuse start-up parameters that they do not know.
"""

CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the transaction runs again at once."""
STALE_PLAN = "InvalidCachedStatementError"
"""The driver's word for a table that was changed under a prepared statement, by the migration of a newer release."""
CLOSED_UNDER_IT = "InternalClientError"
"""The driver's word for a connection that was closed between its making and its first statement."""
_WAITED_FOR = ("08", "53", "57", "58", "55P03", "25P03", "25P02", "XX000")
"""Connection, resources, operator intervention, system, lock_not_available, idle in a transaction for too long."""
MISCONFIGURED = "ClientConfigurationError"
"""The driver's word for a certificate that is not there and the like."""
POOLED = "prepared_statement_cache_size"
POOLING = (
    "a proxy before PostgreSQL gives each transaction another connection (PgBouncer's pool_mode=transaction): put "
    f"?{POOLED}=0 behind SYNCD_DATABASE_URL, or let it lead to the server itself or to a pool by session"
)

MENDS = {
    "25006": "the PostgreSQL server is read-only (a standby, or default_transaction_read_only): "
    "point SYNCD_DATABASE_URL at the primary",
    "28": "PostgreSQL refuses the login: {words}; mend the user or the password in SYNCD_DATABASE_URL, or pg_hba.conf",
    "3D000": "{words}; make it with: CREATE DATABASE ... ENCODING 'UTF8'",
    "3F000": "{words}; make the schema, or mend search_path",
    "42501": "{words}; an administrator mends that with: {grant}",
    "26000": POOLING,
    "42P05": POOLING,
}
"""What ends the program; the last two are of statements that were prepared on somebody else's connection."""
GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
)


_STAMP = """
INSERT INTO writers (id, number, written_at)
SELECT ?::text, ?::bigint, now() WHERE pg_current_xact_id_if_assigned() IS NOT NULL
ON CONFLICT (id) DO UPDATE SET number = excluded.number, written_at = excluded.written_at
"""
_LAST = """
INSERT INTO writers (id, number, written_at) VALUES (?, 0, now())
ON CONFLICT (id) DO UPDATE SET written_at = excluded.written_at RETURNING number
"""
_FORGET = "DELETE FROM writers WHERE written_at < now() - interval '30 days'"


class CommitUnknownError(DatabaseBusyError):
    """The connection broke while a transaction was being committed; `has_happened` tells what became of it."""

    def __init__(self, error: Exception, has_happened: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(f"the connection broke during a commit: {error}")
        self.has_happened = has_happened


def is_pooled(url: sa.URL) -> bool:
    """Whether the URL says that a proxy gives each transaction another connection."""
    return url.query.get(POOLED) == "0"


def engine(url: sa.URL, *, command_seconds: float | None = COMMAND_SECONDS) -> AsyncEngine:
    """Make the engine; `command_seconds` is how long one statement may take."""
    arguments = connect_arguments(url) | {"command_timeout": command_seconds}
    made = create_async_engine(url, pool_size=POOL, max_overflow=0, connect_args=arguments, hide_parameters=True)
    pooled = is_pooled(url)

    @sa.event.listens_for(made.sync_engine, "connect")
    def _(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's face of asyncpg's
        connection.run_async(partial(_set_up, pooled=pooled))

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
    """Return what each connection is made with, besides what stands in the URL.

    Behind a proxy that gives each transaction another connection, statements are prepared without a name: a name would
    be met by others, and would stay behind.
    """
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "server_settings": {"application_name": application_name()},
    }
    if is_pooled(url):
        arguments["statement_cache_size"] = 0
        arguments["prepared_statement_name_func"] = lambda: ""
    return arguments


async def connect(url: sa.URL) -> Any:  # noqa: ANN401 - asyncpg's connection
    """Open a connection outside of any pool, whose session is this process's for as long as it lives."""
    import asyncpg  # noqa: PLC0415 - most commands on SQLite never need it

    _, arguments = url.get_dialect()().create_connect_args(url)
    arguments.pop(POOLED, None)
    own = {"timeout": CONNECT_SECONDS, "server_settings": {"application_name": application_name()}}
    connection = await asyncpg.connect(**{**arguments, **own, "statement_cache_size": 0})
    try:
        if not is_pooled(url):
            await connection.execute(KEEPALIVE, timeout=CONNECT_SECONDS)
    except BaseException:
        connection.terminate()
        raise
    return connection


def application_name() -> str:
    """Return how `pg_stat_activity` names this process."""
    return f"syncd {os.uname().nodename}:{os.getpid()}"[:63]


async def _set_up(connection: Any, *, pooled: bool) -> None:  # noqa: ANN401 - asyncpg's connection
    """Let times and JSON pass as the text that SQLite keeps, whatever the session's time zone is."""
    async with connection.transaction():  # one, so that a proxy leaves it all to one connection
        await connection.set_type_codec(
            "timestamptz", schema="pg_catalog", format="tuple", encoder=write_time, decoder=read_time
        )
        await connection.set_type_codec("jsonb", schema="pg_catalog", format="text", encoder=str, decoder=str)
    if not pooled:
        await connection.execute(KEEPALIVE)


def classify_error(error: Exception) -> Exception | None:
    """Say what an error means for the database; None when the error is about the work and not the database."""
    if isinstance(error, CommitUnknownError):
        return error
    if isinstance(error, ConcurrentChangeError):
        return DatabaseBusyError(str(error))
    cause: BaseException = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    state = getattr(cause, "sqlstate", None)
    words = str(cause.__cause__ or cause)
    kinds = {type(cause).__name__, type(cause.__cause__).__name__}
    if MISCONFIGURED in kinds:
        return DatabaseUnusableError(f"the database cannot be used: {words}; mend SYNCD_DATABASE_URL or what it names")
    if state is not None and STALE_PLAN not in kinds:
        return _by_state(state, words)
    cut = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    closed = "connection" in words and type(cause).__module__.startswith(("asyncpg", "sqlalchemy"))
    if (
        cut
        or closed
        or kinds & {STALE_PLAN, CLOSED_UNDER_IT}
        or isinstance(cause, OSError | TimeoutError | EOFError | sa.exc.TimeoutError)
    ):
        return DatabaseBusyError(f"the database cannot be reached right now: {words or type(cause).__name__}")
    return None


def _by_state(state: str, words: str) -> Exception | None:
    if state in CONFLICTS:
        return DatabaseBusyError(f"two transactions were in each other's way: {words}")
    for code, mend in MENDS.items():
        if state.startswith(code):
            grant = GRANTS.format(schema="...", role="...")
            return DatabaseUnusableError("the database cannot be used: " + mend.format(words=words, grant=grant))
    if state.startswith(_WAITED_FOR):
        return DatabaseBusyError(f"the database cannot be used right now: {words}")
    return None


def is_conflict(error: Exception) -> bool:
    """Whether a transaction only has to run again: nothing is wrong with the server."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, ConcurrentChangeError) or type(cause).__name__ == STALE_PLAN:
        return True
    return getattr(cause, "sqlstate", None) in CONFLICTS


class Store:
    """The connections to a server."""

    def __init__(self, url: sa.URL) -> None:
        self.engine = engine(url)
        self._writer_id = uuid.uuid4().hex
        self._transactions = 0

    async def aclose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection in a read-only transaction that sees one snapshot."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return await connection.run_sync(work)

    async def read_batched(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection that makes one statement, which is a transaction by itself."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            return await connection.run_sync(work)

    async def transact(self, work: Callable[[Connection], None]) -> None:
        """Run a function of a connection in one transaction and commit it.

        READ COMMITTED: each statement sees what others have committed, and what is read before it is written is locked
        or compared where it is written. A transaction that has written anything leaves its number in `writers`, so that
        it can be told whether it happened.

        Raises
        ------
        CommitUnknownError
            The connection broke during the commit.
        """
        self._transactions = number = self._transactions + 1
        async with self.engine.connect() as connection:
            transaction = await connection.begin()
            try:
                await connection.run_sync(work)
                stamp = await connection.exec_driver_sql(_STAMP, (self._writer_id, number))
            except BaseException:
                if not connection.invalidated:
                    await transaction.rollback()
                raise
            try:
                await transaction.commit()
            except Exception as error:
                if not stamp.rowcount or not isinstance(classify_error(error), DatabaseBusyError) or is_conflict(error):
                    raise
                await connection.invalidate()
                raise CommitUnknownError(error, partial(self._committed, number)) from error

    async def _committed(self, number: int) -> bool:
        """Tell whether a transaction whose commit was broken off has happened.

        Its row in `writers` tells, and is waited for while the server has not settled the transaction yet. The number
        of the transaction itself would not do (`pg_xact_status`): a server that crashed before it wrote it down gives
        the same number to another one.
        """
        async with self.engine.begin() as connection:
            return bool((await connection.exec_driver_sql(_LAST, (self._writer_id,))).scalar() == number)

    def read_inline(self, _statement: str, _parameters: Sequence[Any]) -> None:
        """Return None: a look takes a round trip."""

    def check_identity(self) -> None:
        """Return: nobody puts another server in the place of one that is connected to."""


def forget_writers(connection: Connection) -> None:
    """Drop what was kept of processes that have written nothing for long."""
    connection.exec_driver_sql(_FORGET)
