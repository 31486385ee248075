"""The age of facts, measured by the machine's monotonic clock. `targets`, `kinds` and `runner` use it.

Look-ups lag by up to the settle time. Three decisions depend on it: whether a session that the mirror knows and Albert
does not show is gone, and whether an unknown create, or an update that does not show, may be sent again. Wall clocks
step, and those of replicas differ, so a wall-clock time alone never ends the settle time.

For a session that seems gone the settle time begins again with each process. For an unknown create the next process
continues it, if it runs on the same machine and the machine has not been restarted: `syncd once` runs for seconds. The
monotonic clock does not count a suspended machine, which makes the settle time longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.store.operation import Operation
    from syncd.records.ids import OperationId, SessionId

SKEW = 60.0
"""Seconds by which the clocks of replicas may differ."""
MOST_ENTRIES = 10_000
"""Facts remembered at most; for a forgotten one the settle time begins again."""
MICROSECONDS = 1_000_000
"""Microseconds of a second. Clocks are stored in whole ones: sums and differences of them are exact."""


def drop_oldest(entries: dict[Any, Any]) -> None:
    """Drop the oldest entries beyond `MOST_ENTRIES`: other replicas and operators end operations unseen."""
    while len(entries) > MOST_ENTRIES:
        del entries[next(iter(entries))]


@dataclass
class Recency:
    """Decides whether a session was observed so recently that look-ups may not show it yet.

    Parameters
    ----------
    settle : float
        Seconds by which look-ups may lag.
    """

    clock: Clock
    settle: float
    _first_seen: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._began, self._began_at = self.clock.monotonic(), self.clock.now()

    def is_recent(self, session_id: SessionId, observed_at: datetime | None) -> bool:
        """Whether look-ups may not show a session yet.

        Parameters
        ----------
        observed_at : datetime | None
            When something other than a listing last showed the session; a time in the future is recent. None if only
            listings showed it.
        """
        if observed_at is None or self._is_old(observed_at):
            return False
        return self.elapsed(f"{session_id} {observed_at}") < self.settle

    def elapsed(self, fact: str) -> float:
        """Return the seconds since this process was first asked about a fact, given by a text that names it."""
        now = self.clock.monotonic()
        seen = self._first_seen.setdefault(fact, now)
        drop_oldest(self._first_seen)
        return now - seen

    def note(self, fact: str) -> None:
        """Begin to measure the age of a fact, unless it is measured already."""
        self.elapsed(fact)

    def is_young(self, fact: str) -> bool:
        """Whether this process was first asked about a fact less than the settle time ago.

        A fact that it was never asked about is not young.
        """
        return fact in self._first_seen and self.elapsed(fact) < self.settle

    def _is_old(self, observed_at: datetime) -> bool:
        """Whether a wall-clock time is surely longer ago than the settle time.

        An observation from before the start of this process is old once the process is as old as the settle time. For a
        later observation, steps of the clock since the start are left out.
        """
        age = self.clock.monotonic() - self._began
        if age < self.settle:
            return False
        without_steps = self._began_at + timedelta(seconds=age)
        return min(self.clock.now(), without_steps) - observed_at >= timedelta(seconds=self.settle + SKEW)


@dataclass(frozen=True, slots=True)
class SettleTime:
    """The settle time of an unknown operation, in microseconds of the monotonic clock of a machine."""

    machine: str
    began: int
    now: int

    @property
    def elapsed(self) -> float:
        """Return the seconds since it began."""
        return (self.now - self.began) / MICROSECONDS

    def columns(self, unknown_since: datetime | None) -> dict[str, Any]:
        """Return what is stored with the operation, for the next process on the machine."""
        return {"settle_machine": self.machine, "settle_us": self.began, "settle_for": unknown_since}


@dataclass
class Settling:
    """Measures how long operations have been unknown: processes on one machine continue what is stored with them.

    Replicas on different machines replace what the others stored. Therefore each one also remembers when it first
    knew that an operation is unknown.

    Parameters
    ----------
    machine : str
        Names the machine whose monotonic clock `clock` reads: see `clock.machine_boot`.
    """

    clock: Clock
    machine: str
    _since: dict[int, tuple[datetime | None, int]] = field(default_factory=dict, init=False)

    def begin(self) -> SettleTime:
        """Return a settle time that begins now."""
        now = self._now()
        return SettleTime(self.machine, now, now)

    def current(self, operation: Operation) -> SettleTime:
        """Return the settle time of an unknown operation; it begins now if this machine has not measured it."""
        now = self._now()
        began = self._stored(operation)
        if began is None or began > now:
            unknown_since, began = self._since.get(operation.id, (None, now))
            if unknown_since != operation.unknown_since:
                began = now
        self._keep(operation.id, operation.unknown_since, began)
        return SettleTime(self.machine, began, now)

    def remember(self, operation_id: OperationId, unknown_since: datetime, settle_time: SettleTime) -> None:
        """Note that an operation was recorded as unknown."""
        self._keep(operation_id, unknown_since, settle_time.began)

    def _keep(self, operation_id: OperationId, unknown_since: datetime | None, began: int) -> None:
        """Keep when a settle time began; an old one that is dropped begins again, and so ends later."""
        self._since[operation_id] = unknown_since, began
        drop_oldest(self._since)

    def forget(self, operation_id: OperationId) -> None:
        """Forget an operation that is not unknown any more."""
        self._since.pop(operation_id, None)

    def _stored(self, operation: Operation) -> int | None:
        """Return when the settle time began, if this machine stored it for the present `unknown_since`."""
        if operation.settle_machine != self.machine or operation.settle_for is None:
            return None
        return operation.settle_us if operation.settle_for == operation.unknown_since else None

    def _now(self) -> int:
        return round(self.clock.monotonic() * MICROSECONDS)
