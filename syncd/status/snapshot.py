"""The views of the status server: of a daemon that works, and of one that still opens its database.

The server, the health monitor and the metrics call it. The database is read at most once a second, however many
requests there are.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from syncd.errors import SyncdError
from syncd.logs import safe_text
from syncd.mirror.read import stats
from syncd.mirror.read.stats import PassTotals
from syncd.mirror.schema import migrate
from syncd.records.enums import PassReason
from syncd.status.health import DaemonView, assess
from syncd.status.metrics import Metrics, exposition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.db.retries import Retries
    from syncd.mirror.read.stats import Snapshot
    from syncd.status.health import Health
    from syncd.status.wal_monitor import WalWatch
    from syncd.status.watchdog import Watchdog

T = TypeVar("T")

FRESH_SECONDS = 1.0
READ_TIMEOUT = 3.0
"""Seconds that an answer waits for the database; probes give up soon after."""
UNKNOWN_REASON = "see the log"
"""Shown for a reason whose code this syncd does not know."""
STARTING = "the daemon is starting and has not opened its database yet"


class NotReadError(SyncdError):
    """The database did not answer."""


class Shared(Generic[T]):
    """A result of reading the database. All callers within a second share it, and one read runs at a time."""

    def __init__(self, database: Database, clock: Clock, work: Callable[[Connection], T]) -> None:
        self._database, self._clock, self._work = database, clock, work
        self._kept: tuple[float, T] | None = None
        self._reading: asyncio.Task[T] | None = None

    async def latest(self, *, max_age: float = FRESH_SECONDS) -> T:
        """Return a result that is at most `max_age` seconds old; with 0 the read begins after the call.

        Raises
        ------
        NotReadError
            The database cannot be read, its schema is not at head, or it takes too long.
        """
        if self._kept is not None and self._clock.monotonic() - self._kept[0] < max_age:
            return self._kept[1]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_TIMEOUT
        if max_age == 0 and (earlier := self._reading) is not None and not earlier.done():
            await asyncio.wait({earlier}, timeout=READ_TIMEOUT)
            if not earlier.done():
                raise NotReadError("the database does not answer in time")
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            # its error is for the callers that still wait; there may be none
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        reading = self._reading
        # not awaited itself: a caller may be cancelled, and the read continues for the others
        await asyncio.wait({reading}, timeout=max(deadline - loop.time(), 0.0))
        if not reading.done():
            raise NotReadError("the database does not answer in time")
        try:
            return reading.result()
        except SyncdError as error:
            raise NotReadError(str(error)) from error
        except Exception as error:  # a bug, or a database in an unforeseen state: not ready
            raise NotReadError(f"the database cannot be read ({type(error).__name__})") from error

    async def _read(self) -> T:
        result = await self._database.read(self._work)
        self._kept = self._clock.monotonic(), result
        return result

    async def aclose(self) -> None:
        """Wait for a read that is under way."""
        if self._reading is not None:
            with suppress(Exception):
                await self._reading


@dataclass(frozen=True, kw_only=True)
class DaemonIdentity:
    """The properties that distinguish one daemon from another.

    Parameters
    ----------
    origin : str
        Scheme, host, port and path of Albert.
    tenant : Callable[[], str | None]
        The tenant of the database, as far as it is known.
    database : str
        The absolute path of a SQLite file, or the URL without user and password.
    started_at : datetime
        By the clock of the host.
    leads : Callable[[], bool]
        Whether this daemon takes the passes.
    """

    version: str
    origin: str
    tenant: Callable[[], str | None]
    host: str
    database: str
    started_at: datetime
    leads: Callable[[], bool]


class View(Protocol):
    """The state of a daemon for the status server."""

    @property
    def identity(self) -> DaemonIdentity:
        """The identity of this daemon."""
        ...

    def stalled(self) -> list[str]:
        """Return the loops that make no progress."""
        ...

    async def readiness(self) -> Health:
        """Return the health as far as `/readyz` needs it, without a reading of the whole mirror."""
        ...

    async def assess(self, *, max_age: float = FRESH_SECONDS) -> tuple[Health, Snapshot | None]:
        """Return the health by the daemon's view, and the snapshot that it was found in; None if there is none."""
        ...

    async def exposition(self, metrics: Metrics) -> bytes:
        """Return all metrics in the text format of Prometheus.

        Raises
        ------
        NotReadError
            The database cannot be read.
        """
        ...


@dataclass(frozen=True)
class StartReadings:
    """The view of a daemon that has not opened its database yet: it may wait for that for a long time.

    Parameters
    ----------
    retries : Retries
        The waits for the database.
    """

    identity: DaemonIdentity
    retries: Retries

    def stalled(self) -> list[str]:
        """See `View`. No loop runs yet, and waiting counts as progress."""
        return []

    async def readiness(self) -> Health:
        """See `View`."""
        view = daemon_view(self.retries, unreadable=STARTING)
        return assess(None, pass_interval=0.0, now=self.identity.started_at, daemon=view)

    async def assess(self, *, max_age: float = FRESH_SECONDS) -> tuple[Health, Snapshot | None]:  # noqa: ARG002
        """See `View`."""
        return await self.readiness(), None

    async def health(self) -> Health:
        """Return the health while the start waits for the database.

        Raises
        ------
        NotReadError
            The start does not wait, so nothing is wrong yet.
        """
        if self.retries.wait_reason is None and not self.retries.failures.repeated():
            raise NotReadError(STARTING)
        return await self.readiness()

    async def exposition(self, metrics: Metrics) -> bytes:  # noqa: ARG002
        """See `View`."""
        raise NotReadError(STARTING)


def daemon_view(retries: Retries, **more: Any) -> DaemonView:  # noqa: ANN401 - fields of the view
    """Return the view with the state of the database, and `more`."""
    return DaemonView(
        failing=tuple(safe_text(str(failure)) for failure in retries.failures.repeated()),
        waiting=None if (wait := retries.wait_reason) is None else safe_text(wait),
        **more,
    )


@dataclass
class Readings:
    """The view of a daemon that works: readings of the mirror, and its own state.

    Parameters
    ----------
    refused : Callable[[], bool]
        Whether Albert refuses the credentials.
    unreachable : Callable[[], str | None]
        Why Albert has not answered for a while; None if it has.
    pass_interval : float
        Seconds between the starts of passes.
    """

    database: Database
    clock: Clock
    watchdog: Watchdog
    wal: WalWatch
    refused: Callable[[], bool]
    unreachable: Callable[[], str | None]
    pass_interval: float
    identity: DaemonIdentity
    totals: PassTotals = field(default_factory=PassTotals)

    def __post_init__(self) -> None:
        self.snapshot = Shared(
            self.database, self.clock, lambda connection: stats.snapshot(connection, self.totals, self.clock.now())
        )
        # a probe comes every few seconds, and a snapshot counts every row of a large mirror
        self.at_head = Shared(self.database, self.clock, migrate.require_head)

    async def aclose(self) -> None:
        """Wait for the reads that are under way."""
        await self.snapshot.aclose()
        await self.at_head.aclose()

    def stalled(self) -> list[str]:
        """See `View`."""
        return self.watchdog.stalled()

    async def readiness(self) -> Health:
        """See `View`."""
        try:
            await self.at_head.latest()
        except NotReadError as error:
            return self.assess_snapshot(None, unreadable=str(error))
        return self.assess_snapshot(None)

    async def exposition(self, metrics: Metrics) -> bytes:
        """See `View`."""
        return await exposition(metrics, self)

    async def assess(self, *, max_age: float = FRESH_SECONDS) -> tuple[Health, Snapshot | None]:
        """See `View`."""
        try:
            snapshot = await self.snapshot.latest(max_age=max_age)
        except NotReadError as error:
            return self.assess_snapshot(None, unreadable=str(error)), None
        return self.assess_snapshot(snapshot), snapshot

    async def health(self) -> Health:
        """Return the health by the daemon's view."""
        return (await self.assess())[0]

    def assess_snapshot(self, snapshot: Snapshot | None, *, unreadable: str | None = None) -> Health:
        """Return the health as a snapshot and the daemon's own state show it."""
        view = daemon_view(
            self.database.retries,
            unreadable=None if unreadable is None else safe_text(unreadable),
            stalled=tuple(self.watchdog.stalled()),
            refused=self.refused(),
            unreachable=None if (reason := self.unreachable()) is None else safe_text(reason),
        )
        overview = None if snapshot is None else without_foreign_text(snapshot.overview)
        return assess(overview, pass_interval=self.pass_interval, now=self.clock.now(), daemon=view)

    def wal_bytes(self) -> int | None:
        """Return the size of the write-ahead log; None where there is none."""
        return self.database.store.wal_bytes()


def without_foreign_text(overview: Mapping[str, Any]) -> dict[str, Any]:
    """Return an overview whose passes give their reasons by code, without any text that came from outside."""
    passes = [{**row, "error": describe_reason(row["error"], row["reason"])} for row in overview["passes"]]
    return {**overview, "passes": passes}


def describe_reason(error: str | None, reason: str | None) -> str | None:
    """Return a phrase for the reason of a pass; None for a pass without one.

    A newer syncd may have written a code that this one does not know.
    """
    if error is None:
        return None
    return PassReason(reason).text if reason in set(PassReason) else UNKNOWN_REASON
