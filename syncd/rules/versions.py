"""Rules for versions of a session: whether an answer is newer than the stored row.

Pure: no I/O, no clock and no randomness except the arguments. `mirror.store.sessions` calls `classify_change` for each
session of an answer that differs from its row.

`Updated.at` is a time of the server's clock, and does not prove which answer is newer. It may be wrong, even by years,
and a tenant restored from a backup has older times than before. It only orders answers that overlap in time: a listing
may lag behind a change by the grace, a look-up by the settle time. An answer requested later than that wins, whatever
its `Updated.at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from syncd.clock import read_utc_text, utc_text
from syncd.records.fields import SessionRow
from syncd.records.ids import PassId

CLOCK_SLACK = timedelta(seconds=60)
"""Clock skew tolerated between replicas. A stored time further in the future is from before a clock was set back."""
SET_BACK = timedelta(days=1)
"""The largest step back after which versions are still ordered by `Updated.at`: more than a wrong time zone. Versions
of a clock that was wrong by years would be ordered so for years."""


class Change(StrEnum):
    """The effect of an observation on the row of a session."""

    INSERTED = "inserted"
    UNCHANGED = "unchanged"
    UPDATED = "updated"
    RESTORED = "restored"
    STALE = "stale"


class StoredSession(msgspec.Struct, frozen=True, gc=False):
    """A session as the mirror stores it; times as text of `clock.utc_text`."""

    key: int
    version: int
    valid_from: str
    pass_id: PassId | None
    observed_at: str | None
    missing_since: str | None
    deleted_at: str | None
    content: SessionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When an answer was requested and written, and what it may show; times as text of `clock.utc_text`.

    Parameters
    ----------
    asked_at : str
        When the answer was requested. Information received later is newer than the answer.
    now : str
        When the answer is written.
    listed_from : str | None
        The answer may lag, and show the state of this moment (`listed_from`). A tombstone of this moment or later is
        not lifted, and a version of this moment or later is ordered by `Updated.at`. So is a version of up to a day in
        the future, and each version if the request is in the future: the clock was set back since. None for an answer
        that cannot lag.
    lifts : bool
        The answer may lift a tombstone.
    paged : bool
        The answer is a page of a listing. Pages are written in the order in which they were requested. Any other
        answer may be older than the version that a page brought meanwhile.
    set_back : float
        Seconds by which the clock was set back while the answer may have lagged: a tombstone that is so far in the
        future may be of that time.
    """

    asked_at: str
    now: str
    listed_from: str | None
    lifts: bool = True
    paged: bool = False
    set_back: float = 0.0


def classify_change(stored: StoredSession, row: SessionRow, timing: Timing, *, listed_twice: bool = False) -> Change:
    """Compare an answer with the stored row, which never returns to an older version.

    Parameters
    ----------
    row : SessionRow
        The session in the answer.
    listed_twice : bool
        An earlier page of the same pass contained the session too. The two pages overlap in time.

    Returns
    -------
    Change
        `UNCHANGED`, `UPDATED`, `RESTORED` or `STALE`.
    """
    asked_at, now, listed_from = timing.asked_at, timing.now, timing.listed_from
    # In the same microsecond nothing tells which was first. The next pass shows the session again.
    learned_later = _after(stored.observed_at, asked_at, now) or (timing.paged and stored.observed_at == asked_at)
    written_meanwhile = not timing.paged and _after(stored.valid_from, asked_at, now)
    if stored.deleted_at is not None:
        # A tombstone is not older than the version before it. If the clock stepped back, its time is in the future.
        tombstone_times = (stored.deleted_at, stored.observed_at)
        slack = CLOCK_SLACK + timedelta(seconds=timing.set_back)
        lags = listed_from is not None and any(_after(time, listed_from, now, slack) for time in tombstone_times)
        return Change.STALE if not timing.lifts or learned_later or written_meanwhile or lags else Change.RESTORED
    if stored.content == row:
        return Change.UNCHANGED
    overlaps = listed_twice or _after(stored.valid_from, asked_at if listed_from is None else listed_from, now)
    if listed_from is not None:
        # the version was written, or the answer requested, before the clock was set back
        overlaps |= CLOCK_SLACK < _ahead(stored.valid_from, now) <= SET_BACK or asked_at > now
    before, after = stored.content.updated_at, row.updated_at
    older = written_meanwhile
    if overlaps and before is not None and after is not None and before != after:
        older = after < before
    return Change.STALE if learned_later or older else Change.UPDATED


def _after(learned: str | None, moment: str, now: str, slack: timedelta = CLOCK_SLACK) -> bool:
    """Return whether something was received after a moment, by a clock that may have been set back since."""
    if learned is None or learned <= moment:
        return False
    # A moment later than now is from before the clock was set back, too. The two can be compared.
    return moment > now or _ahead(learned, now) <= slack


def _ahead(learned: str, now: str) -> timedelta:
    """Return by how much a time is later than now; zero if it is not."""
    return read_utc_text(learned) - read_utc_text(now) if learned > now else timedelta()


def listed_from(asked_at: str | datetime, now: datetime, lag: float) -> str:
    """Return the moment whose state an answer may show.

    An answer may wait before it is written. It lags behind the moment of its request. That moment is later than `now`
    if the clock was set back meanwhile.

    Parameters
    ----------
    lag : float
        Seconds by which the answer may lag.
    """
    asked = read_utc_text(asked_at) if isinstance(asked_at, str) else asked_at
    return utc_text(min(asked, now) - timedelta(seconds=lag))
