"""Rules for deletions: what the guard allows, and when a missing session is deleted. `pull.sweep` applies them.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

GONE = frozenset({404, 410})
"""The statuses that mean "no such session"."""
ASK_UNLISTED_AGAIN = timedelta(hours=1)
"""The time for which an unlisted session that answered 200 is not requested again: long enough to cost little, short
enough that its changes and its deletion are noticed within the hour."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The limits on deletions, from the settings `SYNCD_DELETE_*`.

    Parameters
    ----------
    grace : float
        Seconds that a session must be missing before it is deleted.
    confirmations : int
        Complete passes that must miss it, each with a 404 or 410 of its own.
    max_count, max_fraction
        The larger of both, the fraction being of the live sessions, is what one pass may delete without approval. With
        fewer than twice `max_count` live sessions, it may delete at most half of them.
    """

    grace: float
    confirmations: int
    max_count: int
    max_fraction: float

    def limit(self, live: int) -> int:
        """Return how many of `live` sessions one pass may delete.

        With fewer than twice `max_count` live sessions it is at most half of them, because the count alone would allow
        the deletion of most or all.
        """
        larger = self.larger_limit(live)
        return min(larger, live // 2) if live < 2 * self.max_count else larger

    def larger_limit(self, live: int) -> int:
        """Return the larger of the two limits. It applies to folders, whose deletions no operator can approve."""
        return max(self.max_count, int(live * self.max_fraction))

    def may_delete(self, *, absences: int, missing_for: float) -> bool:
        """Whether a session was confirmed absent often enough, and missing for enough seconds of measured time."""
        return absences >= self.confirmations and missing_for >= self.grace
