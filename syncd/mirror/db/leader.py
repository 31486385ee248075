"""The right to take passes: the one daemon on SQLite has it, and one of the replicas on PostgreSQL.

The leader holds an advisory lock of its own connection's session. PostgreSQL releases it when it notices that the
leader is gone, and each replica tries to take it every `TRY_SECONDS`. Behind a proxy that gives each transaction
another connection there is no session: there the lock belongs to a transaction that stays open. An ex-leader that has
not noticed its loss can do no harm: the new leader raises the fence of the pass (`passes.resume`), and a write with an
older fence fails.

A second lock, shared by all replicas, shows `syncd migrate-store` that a daemon works on the database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from syncd.aio import task_group
from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import locks, pg_pool, postgresql
from syncd.mirror.db.dialects import by_dialect
from syncd.mirror.db.retries import Retries

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy import Connection

    from syncd.clock import Clock

TRY_SECONDS = 1.0
KEEP_SECONDS = 1.0
"""Seconds between two checks of the lock of a SQLite file."""
PING_SECONDS = 1.0
PING_TIMEOUT = 5.0
"""Seconds without an answer after which a leader gives up its pass: before PostgreSQL releases its lock."""

# A transaction that stays open for the lock is READ COMMITTED: between its statements it has no snapshot, so that
# VACUUM need not wait for it.
_TRY = "SELECT pg_backend_pid(), pg_try_advisory_{scope}lock{shared}($1, hashtext(current_schema()))"
_HOLDERS = """
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = $1
    AND l.objid::bigint = (hashtext(current_schema())::bigint & 4294967295)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_HOLDER = f"""
SELECT a.application_name || ' (PostgreSQL process ' || a.pid || ', since ' ||
    date_trunc('second', a.backend_start) || ')'
{_HOLDERS.strip()}
ORDER BY a.backend_start LIMIT 1
"""
_REPLICAS = f"SELECT a.application_name {_HOLDERS.strip()} ORDER BY a.application_name"


def _nothing() -> None: ...


class Leadership(Protocol):
    """The right to take passes."""

    alone: bool
    """Whether no other daemon can be at work on the database."""

    @property
    def leads(self) -> bool:
        """Whether this process takes the passes."""
        ...

    async def run(
        self, work: Callable[[], Awaitable[None]], *, on_change: Callable[[str], None], on_standby: Callable[[], None]
    ) -> None:
        """Run `work` whenever this process leads, and cancel it when the leadership is lost.

        Parameters
        ----------
        on_change : Callable[[str], None]
            Called with `leading`, `standby` or the reason of a loss.
        on_standby : Callable[[], None]
            Called at each try while another process leads.
        """
        ...

    async def require(self) -> None:
        """Lead now, for a command that takes one pass.

        Raises
        ------
        DatabaseUnusableError
            Another process leads; the message names it.
        """
        ...


@dataclass(frozen=True)
class SingleLeader:
    """The leadership of the only daemon: it never changes.

    Parameters
    ----------
    keep : Callable[[], None]
        Called every `KEEP_SECONDS`; raises if another daemon has taken the database.
    """

    keep: Callable[[], None] = _nothing
    alone = True
    leads = True

    async def run(
        self,
        work: Callable[[], Awaitable[None]],
        *,
        on_change: Callable[[str], None],  # noqa: ARG002 - nothing changes
        on_standby: Callable[[], None],  # noqa: ARG002
    ) -> None:
        """Run `work` until it ends, or until `keep` raises."""
        async with task_group() as tasks:
            tasks.start_soon(self._keep)
            await work()
            tasks.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            await anyio.sleep(KEEP_SECONDS)
            self.keep()

    async def require(self) -> None:
        """Return: this process leads."""


def _no_replicas(_connection: Connection) -> list[str]:
    """Return nothing: the daemon of a SQLite file is alone."""
    return []


def _running_replicas(connection: Connection) -> list[str]:
    statement = _REPLICAS.replace("$1", str(locks.PRESENCE))
    return list(connection.exec_driver_sql(statement).scalars())


replicas = by_dialect(sqlite=_no_replicas, postgresql=_running_replicas)
"""Returns the names of the daemons that run on a database, as far as the role may see them: `syncd host:pid`."""


@dataclass
class Replica:
    """One of several replicas on one PostgreSQL database."""

    url: sa.URL
    clock: Clock
    alone: bool = False
    _connection: Any = None
    _session: int = 0
    _leading: bool = False

    async def open(self) -> None:
        """Connect, and take the lock that all replicas share.

        Raises
        ------
        DatabaseUnusableError
            `syncd migrate-store` is moving the database, it cannot be used, or a proxy shares sessions between clients.
        """
        self._drop()
        if not postgresql.is_pooled(self.url) and await pg_pool.shares_sessions(self.url):
            raise DatabaseUnusableError(postgresql.POOLING)
        self._connection = await postgresql.connect(self.url)
        if postgresql.is_pooled(self.url):
            await self._connection.begin()
        self._session = await _fetch(self._connection, "SELECT pg_backend_pid()")
        if not await self._take(locks.PRESENCE, shared="_shared"):
            self._drop()
            raise DatabaseUnusableError("syncd migrate-store is moving this database; wait until it is done")

    async def _take(self, lock: int, *, shared: str = "") -> bool:
        """Try to take a lock, for as long as the connection is open.

        Raises
        ------
        DatabaseUnusableError
            The lock may have been taken by a session that does not belong to this connection.
        """
        scope = "xact_" if postgresql.is_pooled(self.url) else ""
        row = await self._connection.fetchrow(_TRY.format(scope=scope, shared=shared), lock, timeout=PING_TIMEOUT)
        self._require_same(row[0])
        return bool(row[1])

    def _require_same(self, session: int) -> None:
        if session != self._session:
            raise DatabaseUnusableError(postgresql.POOLING)

    async def close(self) -> None:
        """Release the locks."""
        if self._connection is not None:
            with anyio.CancelScope(shield=True), suppress(Exception):
                await self._connection.close(timeout=1)
            self._connection, self._leading = None, False

    async def require(self) -> None:
        """Lead now, for a command that takes one pass.

        Raises
        ------
        DatabaseUnusableError
            Another replica leads; the message names it.
        """
        if not await self._try():
            holder = await _fetch(self._connection, _HOLDER, locks.LEADER) or "another syncd"
            raise DatabaseUnusableError(f"the passes of this database are taken by {holder}; stop it first")

    async def run(
        self, work: Callable[[], Awaitable[None]], *, on_change: Callable[[str], None], on_standby: Callable[[], None]
    ) -> None:
        """Run `work` whenever this replica leads, and cancel it when the lock is lost."""
        reported: str | None = None
        while True:
            try:
                if self._connection is None:
                    await self.open()
                await self._stand_by(on_change, on_standby)
                reported = None
                return await self._lead(work)
            except Exception as error:
                reason = postgresql.classify_error(error)
                if not isinstance(reason, DatabaseBusyError):
                    raise
                if str(reason) != reported:  # once while the server is away
                    reported = str(reason)
                    on_change(reported)
                self._drop()
                await self.clock.sleep(TRY_SECONDS)

    async def _stand_by(self, on_change: Callable[[str], None], on_standby: Callable[[], None]) -> None:
        reported = False
        while not await self._try():
            if not reported:
                on_change("standby")
                reported = True
            on_standby()
            await self.clock.sleep(TRY_SECONDS)
        on_change("leading")

    @property
    def leads(self) -> bool:
        """Whether this process takes the passes."""
        return self._leading

    async def _try(self) -> bool:
        self._leading = self._leading or await self._take(locks.LEADER)
        return self._leading

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, and check meanwhile that the session with the lock is alive."""
        lost: list[Exception] = []

        async def watch() -> None:
            try:
                while True:
                    await self.clock.sleep(PING_SECONDS)
                    self._require_same(await _fetch(self._connection, "SELECT pg_backend_pid()"))
            except Exception as error:  # noqa: BLE001 - raised below
                lost.append(error)
                group.cancel_scope.cancel()

        async with task_group() as group:
            group.start_soon(watch)
            await work()
            group.cancel_scope.cancel()
        if lost:
            raise lost[0]

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection, self._leading = None, False


async def _fetch(connection: Any, statement: str, *parameters: object) -> Any:  # noqa: ANN401 - asyncpg's
    return await connection.fetchval(statement, *parameters, timeout=PING_TIMEOUT)


@asynccontextmanager
async def replica(url: sa.URL, clock: Clock, retries: Retries | None = None) -> AsyncIterator[Replica]:
    """Be one of the replicas on a PostgreSQL database while the context lasts.

    Parameters
    ----------
    retries : Retries | None
        How to wait for a database that accepts no connection now; None does not wait.

    Raises
    ------
    DatabaseBusyError
        It accepted no connection for longer than the busy timeout.
    DatabaseUnusableError
        The database cannot be used, or is being moved.
    """
    replica = Replica(url, clock)
    try:
        await (retries or Retries(busy_timeout=0.0)).run(lambda: "replica", replica.open)
        yield replica
    finally:
        await replica.close()


@asynccontextmanager
async def exclusive(url: sa.URL) -> AsyncIterator[None]:
    """Keep every daemon off a PostgreSQL database while its content is moved.

    Raises
    ------
    DatabaseUnusableError
        A daemon works on it; the message names one.
    """
    from syncd.mirror.db.pg_session import UNLIMITED  # noqa: PLC0415 - imports asyncpg

    try:
        connection = await postgresql.connect(url, limits=UNLIMITED)
    except Exception as error:
        raise postgresql.classify_error(error) or error from error
    try:
        await connection.begin()  # behind a proxy too, a transaction is one session to its end
        taken = await connection.fetchrow(_TRY.format(scope="xact_", shared=""), locks.PRESENCE, timeout=PING_TIMEOUT)
        if not taken[1]:
            holder = await _fetch(connection, _HOLDER, locks.PRESENCE) or "another syncd"
            raise DatabaseUnusableError(f"the database is in use by {holder}; stop it first")
        yield
    finally:
        with anyio.CancelScope(shield=True), suppress(Exception):
            await connection.close(timeout=1)
