"""Slows the queue while Albert fails for every operation, and pauses it while Albert refuses the credentials.

`runner` passes each outcome through `judge` before it is recorded, and to `note_recorded` afterwards. `flow` asks how
many operations may run, and how long the queue rests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from syncd.push.outage import LONGEST_PAUSE, SHORTEST_PAUSE, Outage, Pauses
from syncd.push.outcomes import (
    CredentialsRejected,
    Outcome,
    Retry,
    RetryReason,
    Unknown,
    may_be_outage,
    proves_available,
)
from syncd.push.settling import drop_oldest
from syncd.records.enums import OperationState

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.store.operation import Operation
    from syncd.rules.retry import Backoff


SHORTEST_WAIT = 0.05
"""Seconds between two tries that use no attempt: `syncd once` works while anything is due."""
WITHOUT_ATTEMPT = frozenset({RetryReason.ASKED_TO_WAIT, RetryReason.GATEWAY, RetryReason.UNREACHED})
"""Failures that use no attempt and may last: the wait before the next try grows by itself."""


@dataclass(kw_only=True)
class Brake:
    """The state of Albert, derived from the outcomes of all operations.

    Attributes
    ----------
    refused : str | None
        Why the queue is paused while Albert refuses the credentials; None while it accepts them.
    """

    backoff: Backoff
    clock: Clock
    log: FilteringBoundLogger
    refused: str | None = None
    _repeats: dict[int, int] = field(default_factory=dict)
    """How many times in a row each operation failed without using an attempt."""

    def __post_init__(self) -> None:
        self._short = replace(self.backoff, longest=min(self.backoff.longest, LONGEST_PAUSE))
        self._refusals = Pauses(self.backoff)
        self._outage = Outage(Pauses(self._short))

    @property
    def is_down(self) -> bool:
        """Whether several operations have failed and none has succeeded since."""
        return self._outage.down

    @property
    def is_silent(self) -> bool:
        """Whether Albert has answered nothing but operations lately."""
        return self._outage.is_silent(self.clock.monotonic())

    def note_response(self) -> None:
        """Note that Albert answered something else than an operation, a page of a listing for example.

        If all operations nevertheless fail, they run one at a time, with short pauses, and use up their attempts.
        """
        self._outage.note_response(self.clock.monotonic())

    def slots(self, at_most: int) -> int:
        """Return how many operations may run at the same time."""
        return 1 if self.refused or self._outage.down else at_most

    def rest_seconds(self) -> float:
        """Return the seconds for which no request is sent."""
        now = self.clock.monotonic()
        return max(self._refusals.left(now), self._outage.pauses.left(now))

    def judge(self, operation: Operation, outcome: Outcome, *, jitter: float) -> Outcome:
        """Return the outcome to record: an outage uses no attempt, and repeated waits grow."""
        if isinstance(outcome, CredentialsRejected):
            self._note_refusal(outcome)
        if isinstance(outcome, Retry | Unknown) and may_be_outage(outcome):
            outcome = self._note_failure(operation, outcome)
        if isinstance(outcome, Retry):
            return self._with_growing_wait(operation, outcome, jitter)
        self._repeats.pop(operation.id, None)
        return outcome

    def note_recorded(self, outcome: Outcome) -> None:
        """Note, after an attempt's own outcome was recorded, that Albert accepts the credentials or works again.

        An operation whose attempts are used up is recorded as `Dead`, which is not Albert's answer.
        """
        if isinstance(outcome, CredentialsRejected):
            return
        accepted = outcome.status is not None and not (
            isinstance(outcome, Retry | Unknown) and may_be_outage(outcome) and outcome.status != HTTPStatus.FORBIDDEN
        )
        if accepted and self.refused is not None:
            self.refused = None
            self._refusals.end()
            self.log.info("queue.resumed")
        if proves_available(outcome) and self._outage.end():
            self.log.info("queue.resumed")

    def take_refunds(self) -> dict[int, int]:
        """Return the attempts of earlier failures that an outage used, by operation; see `Outage.take_refunds`."""
        return self._outage.take_refunds()

    def add_refunds(self, refunds: Mapping[int, int]) -> None:
        """Keep attempts to refund later, because their operations are claimed now."""
        self._outage.add_refunds(refunds)

    def _note_refusal(self, outcome: CredentialsRejected) -> None:
        if self.refused is None:
            self.log.error("queue.paused", error=outcome.error, hint="fix the credentials, then run: syncd doctor")
        self.refused = outcome.error
        self._refusals.grow(self.clock.monotonic())

    def _note_failure(self, operation: Operation, outcome: Retry | Unknown) -> Retry | Unknown:
        was_down, now = self._outage.down, self.clock.monotonic()
        running = operation.state == OperationState.RUNNING  # a look-up uses no attempt
        verdict = self._outage.note_failure(
            operation.id, now, uses_attempt=running and (isinstance(outcome, Unknown) or outcome.uses_attempt),
            forbidden=isinstance(outcome, Retry) and outcome.reason is RetryReason.FORBIDDEN,
            retry_after=outcome.retry_after,
        )  # fmt: skip
        if self._outage.down and not was_down:
            self.log.error(
                "queue.slowed",
                error=outcome.error,
                hint="Albert fails for every operation: they run one at a time until one succeeds",
            )
        if not verdict.is_outage:
            return outcome
        if isinstance(outcome, Unknown):
            return replace(outcome, refunds=verdict.refunds + running)
        # a growing wait of its own would outlast the outage
        rest = outcome.retry_after or self._outage.pauses.left(now)
        return replace(outcome, outage=True, refunds=verdict.refunds, retry_after=rest)

    def _with_growing_wait(self, operation: Operation, outcome: Retry, jitter: float) -> Retry:
        """Wait longer each time for an answer that uses no attempt and names no time: the backoff would not grow."""
        if outcome.reason not in WITHOUT_ATTEMPT and not outcome.outage:
            self._repeats.pop(operation.id, None)
            return outcome
        if outcome.retry_after:
            return outcome
        self._repeats[operation.id] = count = self._repeats.get(operation.id, 0) + 1
        drop_oldest(self._repeats)
        if outcome.reason is RetryReason.ASKED_TO_WAIT:
            return replace(outcome, retry_after=max(self.backoff.wait(count, jitter=jitter), SHORTEST_WAIT))
        return replace(outcome, retry_after=max(self._short.wait(count, jitter=jitter), SHORTEST_PAUSE))
