"""Decisions, and nothing else: no I/O, no clock, no chance but what is passed in.

Each rule stands in `semantics.md` of the design with its reasons; here is its one implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from syncd.clock import utc_text
from syncd.listing import UPDATED_AT, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

GONE = frozenset({404, 410})
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more than this is taken to be out of its mind, not patient."""


class Change(StrEnum):
    """What a sighting means for the session's row."""

    UNCHANGED = "unchanged"
    UPDATED = "updated"
    RESTORED = "restored"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Known:
    """A session as the mirror holds it; times as text of `clock.utc_text`."""

    key: int
    version: int
    valid_from: str
    pass_id: int | None
    observed_at: str | None
    missing_since: str | None
    deleted_at: str | None
    content: Row


def weigh(known: Known, row: Row, *, asked_at: str, now: str, listed_from: str | None, look_up: bool) -> Change:
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
        What was learned later than now was learned before the clock was set back, and does not count as later.
    listed_from : str | None
        A tombstone of this moment or later is not lifted, since listings lag (the grace), and look-ups do (the
        settle time). None for an answer that is believed.
    look_up : bool
        Whether the answer was about this one session.
    """
    learned_later = known.observed_at is not None and asked_at < known.observed_at <= now
    before, after = known.content[UPDATED_AT], row[UPDATED_AT]
    older = before is not None and after is not None and after < before
    if known.deleted_at is not None:
        # an older version in a look-up is an answer from before the deletion
        lags = (look_up and older) or (listed_from is not None and listed_from < known.deleted_at <= now)
        return Change.STALE if learned_later or lags else Change.RESTORED
    if known.content == row:
        return Change.UNCHANGED
    return Change.STALE if learned_later or older else Change.UPDATED


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

    def wait(self, attempt: int, *, chance: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the so-manieth attempt, or as many as the server asked for."""
        if retry_after is not None and retry_after > 0:
            return retry_after if retry_after <= LONGEST_RETRY_AFTER else self.longest
        return min(self.longest, self.base * 2.0 ** min(attempt - 1, 60)) * chance


UNKNOWN_LOOKUPS = (0.02, 0.2, 0.5, 1.0)
"""When a create with a lost answer is looked up, in parts of the settle time; sent again only after the last."""


def next_lookup(
    unknown_since: datetime, *, lookups: int, settle: float, now: datetime | None = None
) -> datetime | None:
    """Return when to look next; None when all look-ups are done and the create may be sent again.

    Parameters
    ----------
    now : datetime | None
        The time of the last look-up: the next one keeps its distance from it too, so that a clock that was set
        forward does not bring all of them at once.
    """
    if lookups >= len(UNKNOWN_LOOKUPS):
        return None
    due = unknown_since + timedelta(seconds=settle * UNKNOWN_LOOKUPS[lookups])
    if now is None or lookups == 0:
        return due
    gap = settle * (UNKNOWN_LOOKUPS[lookups] - UNKNOWN_LOOKUPS[lookups - 1])
    return max(due, now + timedelta(seconds=gap))


def difference(row: Row, *, name: str, parent_id: str | None) -> str | None:
    """Say in what an adopted session is not as the operation asked; None when it is."""
    wanted = {"name": (row[1], name), "folder": (row[2], parent_id)}
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


def listed_from(now: datetime, grace: float) -> str:
    """Return the moment from which on a tombstone outweighs a listing."""
    return utc_text(now - timedelta(seconds=grace))
