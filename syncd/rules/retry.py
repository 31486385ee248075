"""Rules for waiting: backoff, look-ups of unknown creates, the pause between passes. The flows call them.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

LAG_STEP = 0.1
"""The part of the settle time after which an operation asks again while look-ups lag: ten requests at most."""
SHORTEST_LAG_WAIT = 0.1
"""Seconds; the shortest wait while look-ups lag, for a settle time near zero."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A longer Retry-After is treated as invalid."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait drawn evenly from zero to `base * 2**(attempt - 1)`, at most `longest` seconds."""

    base: float
    longest: float

    def wait(self, attempt: int, *, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an attempt, counted from 1. A `retry_after` of the server has priority."""
        if retry_after is not None and retry_after > 0:
            return self.bounded(retry_after)
        return min(self.longest, self.base * 2.0 ** min(attempt - 1, 60)) * jitter

    def bounded(self, retry_after: float) -> float:
        """Return a `Retry-After` in seconds, or the longest wait if it is invalid."""
        return retry_after if retry_after <= LONGEST_RETRY_AFTER else self.longest

    def since(self, elapsed: float, *, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after `elapsed` seconds of failures: up to as long again."""
        if retry_after is not None and retry_after > 0:
            return self.bounded(retry_after)
        return min(self.longest, max(self.base, elapsed)) * jitter


UNKNOWN_LOOKUPS = (0.02, 0.2, 0.5, 1.0)
"""When a create with a lost answer is looked up, in parts of the settle time. Only after the last look-up is it sent
again."""


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """The state after a look-up that found nothing.

    `lookups` is the number of look-ups that were made in time. `wait` is the number of seconds until the next one; None
    when all have been made, so that the create may be sent again.
    """

    lookups: int
    wait: float | None


def first_lookup(settle: float) -> float:
    """Return the seconds from a lost answer to the first look-up."""
    return UNKNOWN_LOOKUPS[0] * settle


def after_lookup(lookups: int, *, elapsed: float, settle: float) -> LookupPlan:
    """Return the plan after another look-up that found nothing.

    A look-up before its time does not count: a clock that steps forward, or a restart, makes look-ups due early, and
    they must still cover the whole settle time. After an outage the look-ups are late. Each keeps half its distance
    from the one before, so that they are nevertheless over within the settle time.

    Parameters
    ----------
    lookups : int
        The look-ups made in time before this one.
    elapsed : float
        Seconds for which the process has known that the create is unknown, by its monotonic clock.
    """
    last = len(UNKNOWN_LOOKUPS) - 1
    made = lookups + (elapsed >= settle * UNKNOWN_LOOKUPS[min(lookups, last)])
    if made > last:
        return LookupPlan(made, None)
    part, before = UNKNOWN_LOOKUPS[made], UNKNOWN_LOOKUPS[made - 1] if made else 0.0
    return LookupPlan(made, max(settle * part - elapsed, settle * (part - before) / 2))


PASS_AGAIN = 45.0
"""Seconds from a failed pass to the next one at most: an outage of Albert may be over by then."""


def pass_pause(interval: float, seconds_spent: float, *, failed: bool) -> float:
    """Return the seconds until the next pass starts, after one that took `seconds_spent`."""
    pause = max(interval - seconds_spent, 0.0)
    return min(pause, PASS_AGAIN) if failed else pause


def lag_wait(settle: float) -> float:
    """Return the seconds to wait while look-ups do not show yet what the mirror knows."""
    return max(settle * LAG_STEP, SHORTEST_LAG_WAIT)
