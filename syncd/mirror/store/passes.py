"""Passes: the row of each, its checkpoint, and how it ends. The pull flow writes them; commands read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import ConcurrentChangeError, by_dialect, do_nothing, is_of_another_replica
from syncd.mirror.db.postgresql import forget_writers
from syncd.mirror.schema.tables import pages, passes, sessions
from syncd.mirror.schema.types import new_id
from syncd.mirror.store import holds, initial_load
from syncd.mirror.store import pages as page_rows
from syncd.mirror.store.quarantine import MetItems
from syncd.records.enums import PassReason, PassState
from syncd.records.ids import PassId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.store.pages import ReadPage
    from syncd.records.reasons import Reason

_forget_writers = by_dialect(sqlite=do_nothing, postgresql=forget_writers)
COUNTERS = ("pages", "seen", "inserted", "updated", "unchanged", "restored", "quarantined", "without_id")
_CHECKPOINT = f"""
UPDATE passes SET page_key = ?, read_at = ?, listed_at = ?, {", ".join(f"{name} = ?" for name in COUNTERS)}
WHERE id = ? AND state = 'running' AND fence = ?
"""  # noqa: S608 - constants
_NEWEST_ANSWERED = f"""
SELECT id, reason FROM passes WHERE pages > 0 OR reason = '{PassReason.KNOWN_SESSIONS_GONE}' ORDER BY id DESC LIMIT 1
"""  # noqa: S608 - a constant


@dataclass(slots=True)
class Progress:
    """A running pass in memory: the content of its row and its pages.

    Parameters
    ----------
    loading : bool
        The pass fills an empty mirror: see `mirror.store.initial_load`.
    filling : bool
        The last page brought only new sessions, so the next one probably does too.
    page_key : str | None
        The checkpoint: the key of the next page.
    read : bool
        The last page was read; only the sweep is left.
    keys : set[str]
        The page keys that pages have given.
    seen : BitMap64
        The keys of the sessions that the pass has seen.
    met : MetItems
        Rows of the quarantine. Those with an id are sessions too, and count as seen.
    fence : int
        Distinguishes this holder of the pass from every later one.
    """

    id: PassId
    started_at: datetime
    resumed: bool
    loading: bool = False
    filling: bool = False
    page_key: str | None = None
    read: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    keys: set[str] = field(default_factory=set)
    seen: BitMap64 = field(default_factory=BitMap64)
    met: MetItems = field(default_factory=MetItems)
    fence: int = 0

    def copy(self) -> Progress:
        """Return a copy that can continue while this one stays as it is."""
        return replace(self, counts=dict(self.counts), seen=self.seen.copy(), met=self.met.copy())

    def adopt(self, later: Progress) -> None:
        """Take over the state of a copy that has continued."""
        self.page_key, self.counts, self.seen, self.met = later.page_key, later.counts, later.seen, later.met
        self.filling = later.filling


@dataclass(frozen=True, slots=True)
class Ending:
    """How a pass ends: its state, and the reason unless it is complete."""

    state: PassState
    reason: Reason | None = None


COMPLETE = Ending(PassState.COMPLETE)


class PassLostError(Exception):
    """Another process ended the pass, or resumed it."""


def doubtful_pass(connection: Connection) -> PassId | None:
    """Return the newest pass whose first request was answered if Albert knew none of the mirror's sessions then.

    A pass that failed before its first page got no answer.
    """
    newest = raw.execute(connection, _NEWEST_ANSWERED).fetchone()
    return PassId(newest[0]) if newest is not None and newest[1] == PassReason.KNOWN_SESSIONS_GONE else None


def resume(connection: Connection) -> Progress | None:
    """Resume the running pass at its checkpoint; return None if no pass is running.

    Its previous holder cannot write to it from now on.
    """
    connection.execute(sa.update(passes).where(passes.c.state == PassState.RUNNING).values(fence=passes.c.fence + 1))
    row = connection.execute(sa.select(passes).where(passes.c.state == PassState.RUNNING)).first()
    if row is None:
        return None
    progress = Progress(row.id, row.started_at, resumed=True, page_key=row.page_key, read=row.read_at is not None)
    progress.fence = row.fence
    progress.counts = {name: getattr(row, name) for name in COUNTERS}
    for page in page_rows.of_pass(connection, row.id):
        progress.seen |= page.sessions
        progress.met.counted |= page.unreadable
        progress.met.repeat(page.repeated)
        if page.next_key is not None:
            progress.keys.add(page.next_key)
    progress.loading = initial_load.begin(connection)
    return progress


def state(connection: Connection, pass_id: PassId) -> PassState | None:
    """Return the state of a pass; None if there is no such pass."""
    stored_state = connection.execute(sa.select(passes.c.state).where(passes.c.id == pass_id)).scalar()
    return None if stored_state is None else PassState(stored_state)


def begin(connection: Connection, now: datetime) -> Progress:
    """Begin a pass.

    Raises
    ------
    ConcurrentChangeError
        Another replica began one at the same time.
    """
    try:
        pass_id = PassId(new_id(connection.execute(sa.insert(passes).values(started_at=now))))
    except sa.exc.IntegrityError as error:
        if not is_of_another_replica(error):
            raise
        raise ConcurrentChangeError("another replica began a pass first") from error
    return Progress(pass_id, now, resumed=False, loading=initial_load.begin(connection))


def checkpoint(
    connection: Connection,
    progress: Progress,
    read: Sequence[ReadPage],
    *,
    read_at: datetime | None,
    listed_at: datetime | None,
) -> None:
    """Write the rows of the pages that a pass has just read, and move its checkpoint after them.

    Parameters
    ----------
    read_at : datetime | None
        When the last page was read, if the listing was complete: the sweep follows.
    listed_at : datetime | None
        When the last page was read, if every page was read.

    Raises
    ------
    PassLostError
        The pass is not this holder's any more.
    """
    counts = progress.counts
    moved = raw.execute(
        connection,
        _CHECKPOINT,
        (
            progress.page_key,
            _text(read_at),
            _text(listed_at),
            *(counts[name] for name in COUNTERS),
            progress.id,
            progress.fence,
        ),
    )
    _require_holder(moved.rowcount, progress)  # before the rows: a new holder writes rows with the same numbers
    page_rows.insert(connection, progress.id, counts["pages"] - len(read) + 1, read)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def check(connection: Connection, progress: Progress) -> None:
    """Lock the row of a pass until the transaction ends, and make sure that it is still this holder's.

    Raises
    ------
    PassLostError
        Another process ended the pass or resumed it.
    """
    query = sa.select(passes.c.id).where(*_held_by(progress)).with_for_update()
    _require_holder(0 if connection.execute(query).first() is None else 1, progress)


def _held_by(progress: Progress) -> tuple[sa.ColumnElement[bool], ...]:
    return (passes.c.id == progress.id, passes.c.state == PassState.RUNNING, passes.c.fence == progress.fence)


def _require_holder(rows: int, progress: Progress) -> None:
    if rows != 1:
        raise PassLostError(f"pass {progress.id} was ended, or another replica has resumed it")


def finish(
    connection: Connection,
    progress: Progress,
    ending: Ending,
    *,
    now: datetime,
    missing: int = 0,
    deleted: int = 0,
    hold_id: int | None = None,
) -> None:
    """End a pass, and remove rows that are no longer needed: page rows, and sessions that it listed from holds.

    The newest complete pass keeps its page rows.

    Raises
    ------
    PassLostError
        The pass is not this holder's any more.
    """
    values = {
        "state": ending.state, "finished_at": now, "missing": missing, "deleted": deleted, "hold_id": hold_id,
    }  # fmt: skip
    if ending.reason is not None:
        values |= {"reason": ending.reason.code, "error": ending.reason.text}
    ended = connection.execute(sa.update(passes).where(*_held_by(progress)).values(values))
    _require_holder(ended.rowcount, progress)
    holds.release(connection, progress.seen, now)
    if ending.state is not PassState.COMPLETE:
        connection.execute(sa.delete(pages).where(pages.c.pass_id == progress.id))
        return
    connection.execute(sa.delete(pages).where(pages.c.pass_id != progress.id))
    _forget_writers(connection)


def live_count(connection: Connection) -> int:
    """Return the number of live sessions, from two indexes and without reading the rows."""
    everyone = sa.select(sa.func.count()).select_from(sessions)
    tombstones = everyone.where(sessions.c.deleted_at.is_not(None))
    return int(connection.execute(everyone).scalar_one()) - int(connection.execute(tombstones).scalar_one())


def abandon(connection: Connection, *, now: datetime, error: str) -> None:
    """End the running pass as failed, so that the next one lists from the start; no daemon runs meanwhile."""
    is_running = passes.c.state == PassState.RUNNING
    connection.execute(sa.delete(pages).where(pages.c.pass_id.in_(sa.select(passes.c.id).where(is_running))))
    ended = {"state": PassState.FAILED, "finished_at": now, "error": error, "fence": passes.c.fence + 1}
    connection.execute(sa.update(passes).where(is_running).values(ended))
