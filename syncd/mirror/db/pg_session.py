"""The settings of a PostgreSQL session, which syncd never takes over from the server, the database or the role.

A default such as `synchronous_commit=off`, an isolation level or a short timeout would break a promise or stop the
work forever. `connect` returns a connection on which syncd's own values are in force:

- Directly on the server they are set once, for the session.
- Behind a proxy that gives each transaction another connection (PgBouncer's `pool_mode=transaction`) they are set with
  `SET LOCAL` at the start of each transaction, in the same round trip, so that no other client inherits them.

Each transaction names its isolation level and access mode. `postgresql`, `leader` and `change_feed` use this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from syncd.errors import DatabaseUnusableError

if TYPE_CHECKING:
    from types import TracebackType

CONNECT_SECONDS = 5.0
_LEVELS = {
    None: "READ COMMITTED",
    "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
"""The isolation levels, as asyncpg names them. The default is stated too: the server's may be another one."""
_WEAK_COMMITS = "('off', 'local', 'remote_write')"
"""Values of `synchronous_commit` with which a crash loses a commit, here or on a synchronous standby."""


@dataclass(frozen=True)
class Limits:
    """The timeouts of a session in seconds; 0 means none.

    Parameters
    ----------
    statement : float
        How long the server works on one statement.
    lock : float
        How long a statement waits for one lock.
    idle : float
        How long a transaction may be idle. Its locks are free again when its client has stopped or disappeared.
    """

    statement: float = 120.0
    lock: float = 30.0
    idle: float = 60.0


UNLIMITED = Limits(statement=0.0, idle=0.0)
"""For moves between databases: one statement sorts a whole table, and one side waits while the other side works."""


def application_name() -> str:
    """Return the name of this process in `pg_stat_activity`."""
    return f"syncd {os.uname().nodename}:{os.getpid()}"[:63]


class Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose transactions state everything that they rely on."""

    local_settings = ""
    """Statements at the start of each transaction; empty if the session itself has the settings."""

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,  # noqa: ARG002 - of asyncpg's signature; syncd does not use it
    ) -> _Transaction:
        """Return a transaction; without an isolation level it is READ COMMITTED."""
        return _Transaction(self, f"{_LEVELS[isolation]} READ {'ONLY' if readonly else 'WRITE'}")

    async def begin(self) -> None:
        """Begin a transaction that lasts until the connection is closed."""
        await self.transaction().start()


class _Transaction:
    """The part of asyncpg's transactions that SQLAlchemy uses; savepoints are its own statements."""

    def __init__(self, session: Session, mode: str) -> None:
        self._session, self._mode = session, mode

    async def start(self) -> None:
        begin = f"BEGIN ISOLATION LEVEL {self._mode};{self._session.local_settings}"
        try:
            await self._session.execute(begin)
        except BaseException:
            if not self._session.is_closed() and self._session.is_in_transaction():
                self._session.terminate()  # the BEGIN succeeded and a setting failed
            raise

    async def commit(self) -> None:
        if await self._session.execute("COMMIT;") != "COMMIT":  # the server answers ROLLBACK, which is not an error
            raise asyncpg.InFailedSQLTransactionError("the transaction had failed and was rolled back")

    async def rollback(self) -> None:
        await self._session.execute("ROLLBACK;")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await (self.commit() if kind is None else self.rollback())


async def connect(*arguments: Any, pooled: bool, limits: Limits, **options: Any) -> Session:  # noqa: ANN401 - asyncpg's
    """Open a connection with syncd's settings; other arguments are asyncpg's.

    Parameters
    ----------
    pooled : bool
        Whether a proxy is known to give each transaction another connection.

    Raises
    ------
    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError
        There is no connection; `postgresql.classify_error` says what that means.
    DatabaseUnusableError
        The session has no schema.
    """
    named = {"timeout": CONNECT_SECONDS, "server_settings": {"application_name": application_name()}}
    session: Session = await asyncpg.connect(*arguments, connection_class=Session, **{**named, **options})
    try:
        if pooled or not await _is_direct(session):
            session.local_settings = _statements(session, limits, "SET LOCAL", local=True)
        else:
            await session.execute(_statements(session, limits, "SET", local=False), timeout=CONNECT_SECONDS)
        await _require_schema(session)
    except BaseException:
        session.terminate()
        raise
    return session


async def _require_schema(session: Session) -> None:
    """Refuse a session in which tables have no place: locks and tables belong to its current schema."""
    ask = "SET LOCAL statement_timeout = 0; SELECT 1 WHERE current_schema() IS NULL"
    if await session.execute(ask, timeout=CONNECT_SECONDS) == "SELECT 1":
        path = await session.fetchval("SHOW search_path", timeout=CONNECT_SECONDS)
        raise DatabaseUnusableError(
            f"the database cannot be used: no schema of its search_path ({path}) exists; create the schema, or change "
            "the search_path of the role or the database"
        )


async def _is_direct(session: Session) -> bool:
    """Return whether this connection is to the server itself: a proxy announces a process id of its own."""
    ask = f"SET LOCAL statement_timeout = 0; SELECT 1 WHERE pg_backend_pid() = {session.get_server_pid():d}"
    return bool(await session.execute(ask, timeout=CONNECT_SECONDS) == "SELECT 1")


def _statements(session: Session, limits: Limits, command: str, *, local: bool) -> str:
    """Return the statements that set everything; the statement timeout first, since the server's may be very short."""
    major = session.get_server_version().major
    settings = {
        "statement_timeout": limits.statement * 1000,
        "lock_timeout": limits.lock * 1000,
        "idle_in_transaction_session_timeout": limits.idle * 1000,
    }
    if major >= 17:  # noqa: PLR2004 - PostgreSQL 17 added it
        settings["transaction_timeout"] = 0
    if not local:
        if major >= 14:  # noqa: PLR2004 - PostgreSQL 14 added it
            settings["idle_session_timeout"] = 0
        # The server notices within seconds that the machine of this process is gone, and releases its locks.
        settings |= {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3}
    statements = [f"{command} {name} = {int(value)}" for name, value in settings.items()]
    if not local:
        statements += [
            "SET default_transaction_isolation = 'read committed'",
            "SET default_transaction_read_only = off",
        ]
    scope = "true" if local else "false"
    statements.append(
        f"SELECT set_config('synchronous_commit', 'on', {scope}) "
        f"WHERE current_setting('synchronous_commit') IN {_WEAK_COMMITS}"
    )
    return ";".join(statements)
