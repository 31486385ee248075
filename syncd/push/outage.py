"""Whether Albert fails for every operation. Pure: no I/O and no clock except the arguments. `brake` uses it.

When several operations fail in a row and none succeeds in between, the operations are not the reason: the queue runs
them one at a time, with growing pauses. If nothing else gets answers from Albert either, or if every answer is a 403,
their attempts do not count. The first answer that shows that Albert works restores full speed. Operations that fail
while Albert answers other requests use up their attempts. `probe` requests a listing while fewer operations fail than
an outage takes, and when no pass has sent a request lately.

The first failures are charged before the outage is recognized. An operation that fails again gets them back. The
attempts that a 403 used are refunded to all when the outage is recognized, because `syncd once` ends before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.records.ids import OperationId
    from syncd.rules.retry import Backoff

DISTINCT = 3
"""The number of different operations that fail without a success in between in an outage."""
SHORTEST_PAUSE = 1.0
"""Seconds that the queue rests at least while it waits for Albert, or for valid credentials."""
LONGEST_PAUSE = 20.0
"""Seconds that it rests at most while it waits for Albert: the queue must recover within the first good minute."""
SILENCE = 30.0
"""Seconds without an answer to anything, passes included, after which a failure is not the operation's."""


@dataclass
class Pauses:
    """Pauses that grow. All failures during one pause, or in flight together before it, are one step."""

    backoff: Backoff
    count: int = 0
    until: float = 0.0

    def grow(self, now: float, *, retry_after: float | None = None) -> None:
        """Begin a longer pause than the last one, or the server's `retry_after`; `now` is in monotonic seconds."""
        if self.count and now < self.until:
            return
        self.count += 1
        wait = self.backoff.wait(self.count, jitter=1.0, retry_after=retry_after)
        self.until = now + max(wait, min(SHORTEST_PAUSE, self.backoff.longest))

    def shorten(self) -> None:
        """Let the next pause be the shortest again; the present pause does not change."""
        self.count = min(self.count, 1)

    def end(self) -> None:
        """End the present pause; the next one is the shortest again."""
        self.count, self.until = 0, 0.0

    def left(self, now: float) -> float:
        """Return the remaining seconds of the present pause."""
        return max(self.until - now, 0.0) if self.count else 0.0


@dataclass(slots=True)
class Charges:
    """The attempts that an operation used since the last success: those that a 403 used, and others."""

    forbidden: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whether a failure is Albert's and not the operation's, and how many earlier attempts were Albert's too."""

    is_outage: bool
    refunds: int = 0


@dataclass
class Outage:
    """The state of Albert, derived from the last failures."""

    pauses: Pauses
    _charged: dict[int, Charges] = field(default_factory=dict)
    """The operations that failed since the last success, with the attempts that they used meanwhile."""
    _refunds: dict[int, int] = field(default_factory=dict)
    """Attempts that a 403 used before the outage was recognized, by operation, until they are refunded."""
    _answered_at: float = -SILENCE

    @property
    def down(self) -> bool:
        """Whether Albert fails for every operation."""
        return len(self._charged) >= DISTINCT

    def is_silent(self, now: float) -> bool:
        """Whether Albert has answered nothing else lately; `now` is in monotonic seconds."""
        return now - self._answered_at >= SILENCE

    def note_failure(
        self, operation_id: OperationId, now: float, *, uses_attempt: bool = True, forbidden: bool = False,
        retry_after: float | None = None,
    ) -> Attribution:  # fmt: skip
        """Note that an operation failed.

        Parameters
        ----------
        uses_attempt : bool
            The failure counts unless it is an outage.
        forbidden : bool
            The answer was a 403. Answers to passes do not show the right to change Albert.
        """
        charges = self._charged.setdefault(operation_id, Charges())
        if self.down:
            self.pauses.grow(now, retry_after=retry_after)
        if self.down and (forbidden or self.is_silent(now)):
            refunds = charges.forbidden + charges.others + self._refunds.pop(operation_id, 0)
            self._charged[operation_id] = Charges()
            if forbidden:
                self._refund_all()
            return Attribution(is_outage=True, refunds=refunds)
        if forbidden:
            charges.forbidden += uses_attempt
        else:
            charges.others += uses_attempt
        return Attribution(is_outage=False)

    def take_refunds(self) -> dict[int, int]:
        """Return the attempts to refund, by operation; they are not returned again unless `add_refunds` adds them."""
        refunds, self._refunds = self._refunds, {}
        return refunds

    def add_refunds(self, refunds: Mapping[int, int]) -> None:
        """Keep attempts to refund later."""
        for operation_id, attempts in refunds.items():
            self._refunds[operation_id] = self._refunds.get(operation_id, 0) + attempts

    def _refund_all(self) -> None:
        """Refund what a 403 used: every operation that failed since the last success was in the outage."""
        self.add_refunds({number: charges.forbidden for number, charges in self._charged.items() if charges.forbidden})
        for charges in self._charged.values():
            charges.forbidden = 0

    def note_response(self, now: float) -> None:
        """Note that Albert answered something else: further failures have other reasons."""
        self._answered_at = now
        self.pauses.shorten()

    def end(self) -> bool:
        """Note that Albert works; return whether it failed for every operation before."""
        was_down = self.down
        self._charged.clear()
        self.pauses.end()
        return was_down
