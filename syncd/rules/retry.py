"""Rules for waiting: backoff, look-ups of unknown creates, the pause between passes.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LAG_STEP = 0.1
"""The part of the settle time after which an operation asks again where look-ups lag."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more than this is taken to be out of its mind, not patient."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait drawn evenly from nothing to `base * 2**(attempt - 1)`, at most `longest` seconds."""

    base: float
    longest: float

    def wait(self, attempt: int, *, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the so-manieth attempt, or as many as the server asked for."""
        if retry_after is not None and retry_after > 0:
            return self.told(retry_after)
        return min(self.longest, self.base * 2.0 ** min(attempt - 1, 60)) * jitter

    def told(self, retry_after: float) -> float:
        """Return the seconds to wait that a server asked for, or the longest wait when it asked for nonsense."""
        return retry_after if retry_after <= LONGEST_RETRY_AFTER else self.longest

    def since(self, elapsed: float, *, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait for what has been failing for so long: about as long again."""
        if retry_after is not None and retry_after > 0:
            return self.told(retry_after)
        return min(self.longest, max(self.base, elapsed)) * jitter


UNKNOWN_LOOKUPS = (0.02, 0.2, 0.5, 1.0)
"""When a create with a lost answer is looked up, in parts of the settle time; sent again only after the last."""


def next_lookup(unknown_since: datetime, *, lookups: int, settle: float, now: datetime) -> datetime | None:
    """Return when to look next; None when all look-ups are done and the create may be sent again.

    A look-up keeps half its distance from the one before, which is made `now`, too: a clock that was set forward does
    not bring all of them at once, and after an outage they are over in a minute all the same.
    """
    if lookups >= len(UNKNOWN_LOOKUPS):
        return None
    due = unknown_since + timedelta(seconds=settle * UNKNOWN_LOOKUPS[lookups])
    distance = UNKNOWN_LOOKUPS[lookups] - (UNKNOWN_LOOKUPS[lookups - 1] if lookups else 0.0)
    return max(due, now + timedelta(seconds=settle * distance / 2))


PASS_AGAIN = 45.0
"""Seconds after which a pass that failed is tried again at the latest: an outage of Albert may be over by then."""


def pass_pause(interval: float, seconds_spent: float, *, failed: bool) -> float:
    """Return the seconds until the next pass begins, after one that took so long."""
    pause = max(interval - seconds_spent, 0.0)
    return min(pause, PASS_AGAIN) if failed else pause


def lag_wait(settle: float) -> float:
    """Return the seconds to wait where look-ups do not show yet what the mirror knows."""
    return max(settle * LAG_STEP, 0.1)
