"""Whether Albert is down for everybody. Pure: no I/O, no clock but what is passed in.

When several operations fail in a row and none succeeds in between, none of them is to blame: their attempts do not
count, the queue asks with one operation at a time, and the pauses in between grow. The first answer that shows that
Albert works brings everything back to full speed. One operation that fails alone, however often, is its own fault.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.decide import Backoff

DISTINCT = 3
"""So many operations that fail, with no success in between, are an outage."""
SHORTEST_PAUSE = 1.0
"""Seconds that the queue rests at least while it waits for Albert, or for credentials that Albert takes."""
LONGEST_PAUSE = 20.0
"""Seconds that it rests at most while it waits for Albert: the first good minute is to bring everything up to date."""


@dataclass
class Pauses:
    """Pauses that grow: all failures during one pause, or in flight together before it, are one step."""

    backoff: Backoff
    count: int = 0
    until: float = 0.0

    def grow(self, now: float, *, told: float | None = None) -> None:
        """Rest for longer than the last time, or for as long as the server asked for; `now` is monotonic seconds."""
        if self.count and now < self.until:
            return
        self.count += 1
        wait = self.backoff.wait(self.count, chance=1.0, retry_after=told)
        self.until = now + max(wait, min(SHORTEST_PAUSE, self.backoff.longest))

    def end(self) -> None:
        """Begin anew."""
        self.count, self.until = 0, 0.0

    def left(self, now: float) -> float:
        """Return the seconds that are left to rest."""
        return max(self.until - now, 0.0) if self.count else 0.0


@dataclass
class Outage:
    """What the last failures say of Albert."""

    pauses: Pauses
    failing: set[int] = field(default_factory=set)

    @property
    def down(self) -> bool:
        """Whether Albert is taken to be down for everybody."""
        return len(self.failing) >= DISTINCT

    def failed(self, operation_id: int, now: float, *, told: float | None = None) -> bool:
        """Note a failure; return whether it is Albert's and not the operation's."""
        self.failing.add(operation_id)
        if self.down:
            self.pauses.grow(now, told=told)
        return self.down

    def over(self) -> bool:
        """Note that Albert works; return whether that is news."""
        news = self.down
        self.failing.clear()
        self.pauses.end()
        return news
