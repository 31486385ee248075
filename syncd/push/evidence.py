"""What this process knows about the age of things by its own monotonic clock. `targets` and `runner` use it.

Look-ups lag by up to the settle time. Two decisions depend on it: whether a session that the mirror knows and Albert
does not show is gone, and whether an unknown create may be sent again. Wall clocks step, and those of replicas differ,
so a wall-clock time alone never ends the settle time. After a restart it begins again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.store.operation import Operation

SKEW = 60.0
"""Seconds by which the clocks of replicas may differ."""
MOST_ENTRIES = 10_000
"""Facts remembered at most; for a forgotten one the settle time begins again."""


@dataclass
class Recency:
    """Tells whether a session was observed so recently that look-ups may not show it yet.

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

    def is_recent(self, session_id: str, observed_at: datetime | None) -> bool:
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
        while len(self._first_seen) > MOST_ENTRIES:
            del self._first_seen[next(iter(self._first_seen))]
        return now - seen

    def _is_old(self, observed_at: datetime) -> bool:
        """Whether a wall-clock time is surely longer ago than the settle time.

        What was observed before this process began is old once the process is as old as the settle time. For a later
        observation, steps of the clock since the begin are left out.
        """
        age = self.clock.monotonic() - self._began
        if age < self.settle:
            return False
        without_steps = self._began_at + timedelta(seconds=age)
        return min(self.clock.now(), without_steps) - observed_at >= timedelta(seconds=self.settle + SKEW)


@dataclass
class Settling:
    """Measures how long this process has known that an operation is unknown."""

    clock: Clock
    _since: dict[int, tuple[datetime | None, float]] = field(default_factory=dict, init=False)

    def begin(self, operation_id: int, unknown_since: datetime) -> None:
        """Note that an operation became unknown now."""
        self._since[operation_id] = unknown_since, self.clock.monotonic()

    def elapsed(self, operation: Operation) -> float:
        """Return the seconds for which this process has known that an operation is unknown."""
        now = self.clock.monotonic()
        unknown_since, seen = self._since.get(operation.id, (None, now))
        if unknown_since != operation.unknown_since:
            seen = now
        self._since[operation.id] = operation.unknown_since, seen
        return now - seen

    def forget(self, operation_id: int) -> None:
        """Forget an operation that is not unknown any more."""
        self._since.pop(operation_id, None)
