"""Who takes the passes: the one daemon on SQLite, one of the replicas on PostgreSQL.

The leader holds an advisory lock of its own connection's session: it is free again the moment that PostgreSQL notices
that the leader is gone, and each replica tries for it every `TRY_SECONDS`. Behind a proxy that gives each transaction
another connection there is no session; there the lock is that of a transaction, which stays open. A leader that was
cut off without knowing it can do no harm: whoever takes up a pass raises its fence (`passes.running`), and no write of
a pass goes through with an older one.

A second lock, shared by all replicas, tells `syncd migrate-store` that somebody works here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from syncd.aio import task_group
from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import postgresql

if TYPE_CHECKING:
    import sqlalchemy as sa

    from syncd.clock import Clock

LEADER_LOCK, PRESENCE_LOCK = 0x53594C44, 0x53595052
"""The first halves of the locks; the second is a hash of the schema's name, so that tenants do not meet."""
TRY_SECONDS = 1.0
PING_SECONDS = 1.0
PING_TIMEOUT = 5.0
"""A leader that cannot reach PostgreSQL for so long gives up its pass before the server gives its lock away."""

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Between its statements such a transaction holds no snapshot, so that VACUUM need not wait for it."""
_TRY = "SELECT pg_backend_pid(), pg_try_advisory_{scope}lock{shared}($1, hashtext(current_schema()))"
_HOLDER = """
SELECT a.application_name || ' (PostgreSQL process ' || a.pid || ', since ' ||
    date_trunc('second', a.backend_start) || ')'
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = $1
    AND l.objid::bigint = (hashtext(current_schema())::bigint & 4294967295)
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.backend_start LIMIT 1
"""


class Leadership(Protocol):
    """The right to take passes."""

    async def run(
        self, work: Callable[[], Awaitable[None]], *, on_change: Callable[[str], None], on_standby: Callable[[], None]
    ) -> None:
        """Run `work` whenever this process leads, and cancel it when it does not any more.

        Parameters
        ----------
        on_change : Callable[[str], None]
            Told `leading`, `standby` or why the leadership was lost.
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


class SingleLeader:
    """The leadership of the one daemon that there is: nothing ever changes, and nobody need be told."""

    async def run(
        self,
        work: Callable[[], Awaitable[None]],
        *,
        on_change: Callable[[str], None],  # noqa: ARG002 - see above
        on_standby: Callable[[], None],  # noqa: ARG002
    ) -> None:
        """Run `work`."""
        await work()

    async def require(self) -> None:
        """Lead, as ever."""


@dataclass
class Replica:
    """One of several replicas on one PostgreSQL."""

    url: sa.URL
    clock: Clock
    _connection: Any = None
    _session: int = 0
    _leading: bool = False

    async def open(self) -> None:
        """Connect, and say that this database is at work.

        Raises
        ------
        DatabaseUnusableError
            `syncd migrate-store` is moving the database, it cannot be used, or a proxy shares its sessions out.
        """
        self._leading = False
        if not postgresql.is_pooled(self.url) and await shares_sessions(self.url):
            raise DatabaseUnusableError(postgresql.POOLING)
        self._connection = await postgresql.connect(self.url)
        if postgresql.is_pooled(self.url):
            await self._connection.execute(_BEGIN, timeout=PING_TIMEOUT)
        self._session = await _ask(self._connection, "SELECT pg_backend_pid()")
        if not await self._take(PRESENCE_LOCK, shared="_shared"):
            self._drop()
            raise DatabaseUnusableError("syncd migrate-store is moving this database; wait until it is done")

    async def _take(self, lock: int, *, shared: str = "") -> bool:
        """Try for a lock, for as long as the connection lives.

        Raises
        ------
        DatabaseUnusableError
            The lock may have been taken by a session that is not this connection's.
        """
        scope = "xact_" if postgresql.is_pooled(self.url) else ""
        row = await self._connection.fetchrow(_TRY.format(scope=scope, shared=shared), lock, timeout=PING_TIMEOUT)
        self._require_same(row[0])
        return bool(row[1])

    def _require_same(self, session: int) -> None:
        if session != self._session:
            raise DatabaseUnusableError(postgresql.POOLING)

    async def close(self) -> None:
        """Give the locks back."""
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
            holder = await _ask(self._connection, _HOLDER, LEADER_LOCK) or "another syncd"
            raise DatabaseUnusableError(f"the passes of this database are taken by {holder}; stop it first")

    async def run(
        self, work: Callable[[], Awaitable[None]], *, on_change: Callable[[str], None], on_standby: Callable[[], None]
    ) -> None:
        """Run `work` whenever this replica leads, and cancel it when the lock is lost."""
        while True:
            try:
                if self._connection is None:
                    await self.open()
                await self._stand_by(on_change, on_standby)
                return await self._lead(work)
            except Exception as error:
                reason = postgresql.classify_error(error)
                if not isinstance(reason, DatabaseBusyError):
                    raise
                on_change(str(reason))
                self._drop()
                await self.clock.sleep(TRY_SECONDS)

    async def _stand_by(self, on_change: Callable[[str], None], on_standby: Callable[[], None]) -> None:
        told = False
        while not await self._try():
            if not told:
                on_change("standby")
                told = True
            on_standby()
            await self.clock.sleep(TRY_SECONDS)
        on_change("leading")

    async def _try(self) -> bool:
        self._leading = self._leading or await self._take(LEADER_LOCK)
        return self._leading

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` and make sure all the while that the session with the lock is alive."""
        lost: list[Exception] = []

        async def watch() -> None:
            try:
                while True:
                    await self.clock.sleep(PING_SECONDS)
                    self._require_same(await _ask(self._connection, "SELECT pg_backend_pid()"))
            except Exception as error:  # noqa: BLE001 - raised below, where it is told apart
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


async def _ask(connection: Any, statement: str, *parameters: object) -> Any:  # noqa: ANN401 - asyncpg's
    return await connection.fetchval(statement, *parameters, timeout=PING_TIMEOUT)


async def shares_sessions(url: sa.URL) -> bool:
    """Whether two connections at the same time are one session: there is a proxy that gives it to who needs it."""
    first, second = await postgresql.connect(url), None
    try:
        session = await _ask(first, "SELECT pg_backend_pid()")
        second = await postgresql.connect(url)
        return bool(await _ask(second, "SELECT pg_backend_pid()") == session)
    finally:
        for connection in (first, second):
            if connection is not None:
                with anyio.CancelScope(shield=True), suppress(Exception):
                    await connection.close(timeout=1)


@asynccontextmanager
async def replica(
    url: sa.URL, clock: Clock, *, busy_timeout: float = 0.0, on_wait: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Replica]:
    """Be a replica of the daemon on a PostgreSQL.

    Parameters
    ----------
    busy_timeout : float
        Seconds that a database is waited for that takes no connection just now; `on_wait` is told why, once.

    Raises
    ------
    DatabaseUnusableError
        The database cannot be used, or is being moved.
    """
    one, began, told = Replica(url, clock), clock.monotonic(), False
    try:
        while True:
            try:
                await one.open()
                break
            except Exception as error:
                reason = postgresql.classify_error(error)
                if not isinstance(reason, DatabaseBusyError) or clock.monotonic() - began >= busy_timeout:
                    raise (reason or error) from error
                if not told:
                    on_wait(str(reason))
                told = True
                await clock.sleep(TRY_SECONDS)
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def nobody_else(url: sa.URL) -> AsyncIterator[None]:
    """Keep every daemon away from a PostgreSQL while its content is moved.

    Raises
    ------
    DatabaseUnusableError
        A daemon works on it; the message names one.
    """
    try:
        connection = await postgresql.connect(url)
    except Exception as error:
        raise postgresql.classify_error(error) or error from error
    try:
        await connection.execute(_BEGIN, timeout=PING_TIMEOUT)  # behind a proxy too, this is one session to its end
        taken = await connection.fetchrow(_TRY.format(scope="xact_", shared=""), PRESENCE_LOCK, timeout=PING_TIMEOUT)
        if not taken[1]:
            holder = await _ask(connection, _HOLDER, PRESENCE_LOCK) or "another syncd"
            raise DatabaseUnusableError(f"the database is at work for {holder}; stop it first")
        yield
    finally:
        with anyio.CancelScope(shield=True), suppress(Exception):
            await connection.close(timeout=1)
