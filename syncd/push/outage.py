"""Whether Albert is down for everybody. Pure: no I/O, no clock but what is passed in.

When several operations fail in a row and none succeeds in between, and nobody else hears of Albert either, none of them
is to blame: their attempts do not count, the queue asks with one operation at a time, and the pauses in between grow.
The first answer that shows that Albert works brings everything back to full speed. Operations that fail while Albert
answers others, or one that fails alone, come to the end of their attempts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.rules.retry import Backoff

DISTINCT = 3
"""So many operations that fail, with no success in between, are an outage."""
SHORTEST_PAUSE = 1.0
"""Seconds that the queue rests at least while it waits for Albert, or for credentials that Albert takes."""
LONGEST_PAUSE = 20.0
"""Seconds that it rests at most while it waits for Albert: the first good minute is to bring everything up to date."""


SILENCE = 30.0
"""Seconds without an answer to anybody, the passes included, after which a failure is Albert's."""


@dataclass
class Pauses:
    """Pauses that grow: all failures during one pause, or in flight together before it, are one step."""

    backoff: Backoff
    count: int = 0
    until: float = 0.0

    def grow(self, now: float, *, retry_after: float | None = None) -> None:
        """Rest for longer than the last time, or for as long as the server asked for; `now` is monotonic seconds."""
        if self.count and now < self.until:
            return
        self.count += 1
        wait = self.backoff.wait(self.count, jitter=1.0, retry_after=retry_after)
        self.until = now + max(wait, min(SHORTEST_PAUSE, self.backoff.longest))

    def shorten(self) -> None:
        """Let the pauses grow anew from the shortest; the one that is under way is served."""
        self.count = min(self.count, 1)

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
    _heard_at: float = -SILENCE

    @property
    def down(self) -> bool:
        """Whether Albert is taken to be down for everybody."""
        return len(self.failing) >= DISTINCT

    def failed(self, operation_id: int, now: float, *, retry_after: float | None = None) -> bool:
        """Note a failure; return whether it is Albert's and not the operation's."""
        self.failing.add(operation_id)
        if self.down:
            self.pauses.grow(now, retry_after=retry_after)
        return self.down and now - self._heard_at >= SILENCE

    def note_response(self, now: float) -> None:
        """Note that Albert answered somebody else: what goes on failing now does so for other reasons."""
        self._heard_at = now
        self.pauses.shorten()

    def over(self) -> bool:
        """Note that Albert works; return whether that is news."""
        news = self.down
        self.failing.clear()
        self.pauses.end()
        return news
