"""Decisions, and nothing else: no I/O, no clock, no chance but what is passed in.

Each rule stands in `semantics.md` of the design with its reasons; here is its one implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from syncd.clock import read_utc_text, utc_text
from syncd.records.parse import NAME, PARENT_ID, UPDATED_AT, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

GONE = frozenset({404, 410})
CLOCK_SLACK = timedelta(seconds=60)
"""So much later than now may be what a replica has written whose clock is ahead; what is later still was written before
the clock was set back."""
LAG_STEP = 0.1
"""The part of the settle time after which an operation asks again where look-ups lag."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more than this is taken to be out of its mind, not patient."""


class Change(StrEnum):
    """What a sighting means for the session's row."""

    UNCHANGED = "unchanged"
    UPDATED = "updated"
    RESTORED = "restored"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the mirror holds it; times as text of `clock.utc_text`."""

    key: int
    version: int
    valid_from: str
    pass_id: int | None
    observed_at: str | None
    missing_since: str | None
    deleted_at: str | None
    content: Row


def classify_change(
    known: StoredSession, row: Row, *, asked_at: str, now: str, listed_from: str | None, paged: bool = False
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
    before, after = known.content[UPDATED_AT], row[UPDATED_AT]
    older = written_meanwhile if before is None or after is None or before == after else after < before
    return Change.STALE if learned_later or older else Change.UPDATED


def _after(learned: str | None, moment: str, now: str) -> bool:
    """Whether something was learned after a moment, by a clock that may have been set back since."""
    if learned is None or learned <= moment:
        return False
    # a moment that is later than now is from before the clock was set back, too: then the two can be compared
    return moment > now or read_utc_text(learned) - read_utc_text(now) <= CLOCK_SLACK


def guard_limit(live: int, *, max_count: int, max_fraction: float) -> int:
    """Return how many tombstones a pass may make among so many live sessions: the larger of both limits."""
    return max(max_count, int(live * max_fraction))


def may_delete(*, absences: int, missing_since: datetime, now: datetime, confirmations: int, grace: float) -> bool:
    """Whether a missing session has been confirmed gone often enough, for long enough."""
    return absences >= confirmations and now - missing_since >= timedelta(seconds=grace)


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


def difference(row: Row, *, name: str, parent_id: str | None) -> str | None:
    """Say in what an adopted session is not as the operation asked; None when it is."""
    wanted = {"name": (row[NAME], name), "folder": (row[PARENT_ID], parent_id)}
    parts = [f"{what} is {has!r} and not {asked!r}" for what, (has, asked) in wanted.items() if has != asked]
    return "adopted as it is: " + ", ".join(parts) if parts else None


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where a source id stands."""

    state: str
    session_id: str | None
    note: str | None


def source_state(carriers: Sequence[tuple[str, bool]], albert: str | None = None) -> SourceState | None:
    """Tell where a source id stands from the live sessions that carry it.

    Parameters
    ----------
    carriers : Sequence[tuple[str, bool]]
        The id of each live session that carries it, and whether that session is missing from listings.
    albert : str | None
        The session that Albert named, when it was asked.

    Returns
    -------
    SourceState | None
        None when nobody carries it: then the mirror cannot tell.
    """
    listed = sorted(session_id for session_id, missing in carriers if not missing)
    ids = listed or sorted(session_id for session_id, _ in carriers)
    if not ids:
        return None
    if len(ids) > 1:
        named = f"; Albert names {albert}" if albert else ""
        return SourceState("conflict", None, f"carried by {', '.join(ids)}{named}"[:4000])
    if albert is not None and albert != ids[0]:
        return SourceState("conflict", None, f"the mirror has {ids[0]}, Albert names {albert}")
    return SourceState("linked", ids[0], None)


def listed_from(asked_at: str | datetime, now: datetime, lag: float) -> str:
    """Return the moment from which on a tombstone outweighs an answer that may lag by so many seconds.

    An answer may wait for its turn to be written: it lags behind the moment when it was asked for, which is later than
    `now` where the clock was set back meanwhile.
    """
    asked = read_utc_text(asked_at) if isinstance(asked_at, str) else asked_at
    return utc_text(min(asked, now) - timedelta(seconds=lag))
