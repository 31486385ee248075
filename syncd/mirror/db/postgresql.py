"""PostgreSQL below `Database`: connections, the meaning of errors, and the result of interrupted commits."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from syncd.errors import DatabaseAwayError, DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db.dialects import ConcurrentChangeError, read_time, translate, write_time
from syncd.mirror.db.shared_clock import DatabaseClock, SharedClock, read_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from syncd.clock import Clock
    from syncd.mirror.db.pg_session import Limits, Session

T = TypeVar("T")
POOL = 4
"""Connections of a process besides those of the leader and the change feed: one writes, the others read."""
COMMAND_SECONDS = 130.0
"""Seconds after which a statement has lost its server: longer than the server's own limit, `Limits.statement`."""

CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the transaction runs again immediately."""
STALE_PLAN = "InvalidCachedStatementError"
"""asyncpg's error for a prepared statement whose table was changed, by the migration of a newer release."""
CLOSED_UNDER_IT = "InternalClientError"
"""asyncpg's error for a connection that was closed between its creation and its first statement."""
_WAITED_FOR = ("08", "53", "57", "58", "55P03", "25P03", "25P02", "25P04", "XX000")
"""Connection, resources, operator intervention, system, lock_not_available, and timeouts of idle transactions."""
_AWAY = ("08", "53100", "53300", "57P")
"""Of these: connection, a full disk, too many connections, and a server that shuts down or starts."""
MISCONFIGURED = "ClientConfigurationError"
"""asyncpg's error for a certificate that does not exist and the like."""
POOLED = "prepared_statement_cache_size"
POOLING = (
    "a proxy in front of PostgreSQL gives each transaction another connection (PgBouncer's pool_mode=transaction); add "
    f"?{POOLED}=0 to SYNCD_DATABASE_URL, or point it at the server itself or at a pool by session"
)
READ_ONLY = "25006"
IN_RECOVERY = "cannot set transaction read-write mode during recovery"
"""The message of a standby, whose code (0A000) is that of any feature that is not supported."""

FIXES = {
    READ_ONLY: "the PostgreSQL server is read-only (a standby): point SYNCD_DATABASE_URL at the primary",
    "28": "PostgreSQL refuses the login: {reason}; fix the user or the password in SYNCD_DATABASE_URL, or pg_hba.conf",
    "3D000": "{reason}; create it with: CREATE DATABASE ... ENCODING 'UTF8'",
    "3F000": "{reason}; create the schema, or fix search_path",
    "42501": "{reason}; an administrator can fix that with: {grant}",
    "26000": POOLING,
    "42P05": POOLING,
}
"""Errors that end the program, by the start of their code, each with its fix.

The last two occur when a statement was prepared on a connection that another client has now.
"""
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
    """The connection broke during a commit; `has_happened` finds out whether the commit was applied."""

    def __init__(self, error: Exception, has_happened: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(f"the connection broke during a commit: {error}")
        self.has_happened = has_happened


def is_pooled(url: sa.URL) -> bool:
    """Return whether the URL says that a proxy gives each transaction another connection."""
    return url.query.get(POOLED) == "0"


def engine(url: sa.URL, *, limits: Limits | None = None) -> AsyncEngine:
    """Return an engine whose sessions have syncd's settings and these limits, by default those of the flows."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - also imports SQLAlchemy's ORM

    pooled = is_pooled(url)
    arguments: dict[str, Any] = {
        "async_creator_fn": partial(_open, pooled=pooled, limits=limits),
        # a move between databases may sort a large table, and the server's limit is off too
        "command_timeout": COMMAND_SECONDS if limits is None else None,
    }
    if pooled:  # a statement with a name would stay in the server's session, which other clients use too
        arguments |= {"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    made = create_async_engine(url, pool_size=POOL, max_overflow=0, connect_args=arguments, hide_parameters=True)

    @sa.event.listens_for(made.sync_engine, "connect")
    def _(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's adapter of asyncpg's
        connection.run_async(_set_codecs)

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


async def _open(*arguments: Any, pooled: bool, limits: Limits | None, **options: Any) -> Session:  # noqa: ANN401
    from syncd.mirror.db import pg_session  # noqa: PLC0415 - asyncpg; most commands on SQLite never need it

    return await pg_session.connect(*arguments, pooled=pooled, limits=limits or pg_session.Limits(), **options)


async def connect(url: sa.URL, *, limits: Limits | None = None) -> Session:
    """Open a connection outside of any pool, whose session belongs to this process until it is closed."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    arguments.pop(POOLED, None)
    return await _open(pooled=is_pooled(url), limits=limits, **{**arguments, "statement_cache_size": 0})


async def _set_codecs(connection: Any) -> None:  # noqa: ANN401 - asyncpg's connection
    """Pass times and JSON as the text that SQLite stores, whatever the session's time zone is."""
    async with connection.transaction():  # one, so that a proxy uses one connection for all of it
        await connection.set_type_codec(
            "timestamptz", schema="pg_catalog", format="tuple", encoder=write_time, decoder=read_time
        )
        await connection.set_type_codec("jsonb", schema="pg_catalog", format="text", encoder=str, decoder=str)


def classify_error(error: BaseException) -> Exception | None:
    """Return the meaning of an error for the database; None if the error is the statement's own."""
    if isinstance(error, CommitUnknownError):
        return error
    if isinstance(error, ConcurrentChangeError):
        return DatabaseBusyError(str(error))
    cause: BaseException = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    state = getattr(cause, "sqlstate", None)
    reason = str(cause.__cause__ or cause)
    kinds = {type(cause).__name__, type(cause.__cause__).__name__}
    if MISCONFIGURED in kinds:
        return DatabaseUnusableError(
            f"the database cannot be used: {reason}; fix SYNCD_DATABASE_URL or the files that it names"
        )
    if state is not None and STALE_PLAN not in kinds:
        return _by_state(READ_ONLY if IN_RECOVERY in reason else state, reason)
    cut = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    closed = "connection" in reason and type(cause).__module__.startswith(("asyncpg", "sqlalchemy"))
    if (
        cut
        or closed
        or kinds & {STALE_PLAN, CLOSED_UNDER_IT}
        or isinstance(cause, OSError | TimeoutError | EOFError | sa.exc.TimeoutError)
    ):
        return DatabaseAwayError(f"the database cannot be reached right now: {reason or type(cause).__name__}")
    return None


def _by_state(state: str, reason: str) -> Exception | None:
    if state in CONFLICTS:
        return DatabaseBusyError(f"two transactions conflicted: {reason}")
    for code, fix in FIXES.items():
        if state.startswith(code):
            grant = GRANTS.format(schema="<the schema>", role="<the role>")
            return DatabaseUnusableError("the database cannot be used: " + fix.format(reason=reason, grant=grant))
    if state.startswith(_WAITED_FOR):
        kind = DatabaseAwayError if state.startswith(_AWAY) else DatabaseBusyError
        return kind(f"the database cannot be used right now: {reason}")
    return None


def is_conflict(error: Exception) -> bool:
    """Return whether a transaction only has to run again, because the server itself works."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, ConcurrentChangeError) or type(cause).__name__ == STALE_PLAN:
        return True
    return getattr(cause, "sqlstate", None) in CONFLICTS


class Store:
    """The connections to a server."""

    def __init__(self, url: sa.URL) -> None:
        self.engine = engine(url)
        # Behind a proxy the session has no settings, and a statement without a transaction would run with the server's.
        self._one_statement = "READ COMMITTED" if is_pooled(url) else "AUTOCOMMIT"
        self._writer_id = uuid.uuid4().hex
        self._transactions = 0

    async def aclose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    def shared_clock(self, host: Clock) -> SharedClock:
        """Return the server's clock: those of the replicas differ."""
        return DatabaseClock(host, read_clock)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection in a read-only transaction that sees one snapshot."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return await connection.run_sync(work)

    async def read_batched(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection that executes one statement, which is a transaction by itself."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level=self._one_statement)
            return await connection.run_sync(work)

    async def transact(self, work: Callable[[Connection], None]) -> None:
        """Run a function of a connection in one transaction and commit it.

        READ COMMITTED: each statement sees what others have committed. Rows that are read before they are written are
        locked, or compared where they are written. A transaction that has written stores its number in `writers`, so
        that a later one can find out whether it was committed.

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
        """Return whether a transaction whose commit was interrupted was applied.

        Its row in `writers` shows it. The statement waits for the row while the server has not finished the
        transaction. The transaction's id is not used (`pg_xact_status`): a server that crashed before it wrote the id
        to disk assigns the same id to another transaction.
        """
        async with self.engine.begin() as connection:
            return bool((await connection.exec_driver_sql(_LAST, (self._writer_id,))).scalar() == number)

    def read_inline(self, _statement: str, _parameters: Sequence[Any]) -> None:
        """Return None: every statement takes a round trip."""

    def check_identity(self) -> None:
        """Return: a server that is connected cannot be replaced by another one."""

    def wal_bytes(self) -> None:
        """Return None: PostgreSQL manages its write-ahead log by itself."""


def forget_writers(connection: Connection) -> None:
    """Delete the rows of processes that have written nothing for 30 days."""
    connection.exec_driver_sql(_FORGET)
