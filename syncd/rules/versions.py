"""Rules for versions of a session: whether an answer is newer than the stored row.

Pure: no I/O, no clock and no randomness except the arguments.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from syncd.clock import read_utc_text, utc_text
from syncd.records.fields import SessionRow

CLOCK_SLACK = timedelta(seconds=60)
"""So much later than now may be what a replica has written whose clock is ahead; what is later still was written before
the clock was set back."""


class Change(StrEnum):
    """What a sighting means for the session's row."""

    INSERTED = "inserted"
    UNCHANGED = "unchanged"
    UPDATED = "updated"
    RESTORED = "restored"
    STALE = "stale"


class StoredSession(msgspec.Struct, frozen=True, gc=False):
    """A session as the mirror holds it; times as text of `clock.utc_text`."""

    key: int
    version: int
    valid_from: str
    pass_id: int | None
    observed_at: str | None
    missing_since: str | None
    deleted_at: str | None
    content: SessionRow


def classify_change(
    known: StoredSession, row: SessionRow, *, asked_at: str, now: str, listed_from: str | None, paged: bool = False
) -> Change:
    """Weigh what an answer says of a session against what is known of it: a row never goes back.

    Parameters
    ----------
    known : Known
        The session's row.
    row : Row
        What the answer says.
    asked_at : str
        When the answer was asked for; what was learned later than this is newer than the answer.
    now : str
        When the answer is written. What was learned much later than that was learned before the clock was set back.
    listed_from : str | None
        A tombstone of this moment or later is not lifted, since answers lag: listings by the grace, look-ups by the
        settle time. None for an answer that cannot lag.
    paged : bool
        It is a page of a listing. Pages are written in the order in which they were asked for; any other answer may be
        older than what a listing has brought while it was under way.
    """
    learned_later = _after(known.observed_at, asked_at, now)
    written_meanwhile = not paged and _after(known.valid_from, asked_at, now)
    if known.deleted_at is not None:
        # a tombstone is not older than the version before it, so that after a clock was set back it may be of "later"
        buried = (known.deleted_at, known.observed_at)
        lags = listed_from is not None and any(_after(moment, listed_from, now) for moment in buried)
        return Change.STALE if learned_later or written_meanwhile or lags else Change.RESTORED
    if known.content == row:
        return Change.UNCHANGED
    before, after = known.content.updated_at, row.updated_at
    older = written_meanwhile if before is None or after is None or before == after else after < before
    return Change.STALE if learned_later or older else Change.UPDATED


def _after(learned: str | None, moment: str, now: str) -> bool:
    """Whether something was learned after a moment, by a clock that may have been set back since."""
    if learned is None or learned <= moment:
        return False
    # a moment that is later than now is from before the clock was set back, too: then the two can be compared
    return moment > now or read_utc_text(learned) - read_utc_text(now) <= CLOCK_SLACK


def listed_from(asked_at: str | datetime, now: datetime, lag: float) -> str:
    """Return the moment from which on a tombstone outweighs an answer that may lag by so many seconds.

    An answer may wait for its turn to be written: it lags behind the moment when it was asked for, which is later than
    `now` where the clock was set back meanwhile.
    """
    asked = read_utc_text(asked_at) if isinstance(asked_at, str) else asked_at
    return utc_text(min(asked, now) - timedelta(seconds=lag))
