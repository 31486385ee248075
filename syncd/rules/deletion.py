"""Rules for deletions: when a missing session is deleted, and how many may be deleted at once.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from datetime import datetime, timedelta

GONE = frozenset({404, 410})


def guard_limit(live: int, *, max_count: int, max_fraction: float) -> int:
    """Return how many tombstones a pass may make among so many live sessions: the larger of both limits."""
    return max(max_count, int(live * max_fraction))


def may_delete(*, absences: int, missing_since: datetime, now: datetime, confirmations: int, grace: float) -> bool:
    """Whether a missing session has been confirmed gone often enough, for long enough."""
    return absences >= confirmations and now - missing_since >= timedelta(seconds=grace)
