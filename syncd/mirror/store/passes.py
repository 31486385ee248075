"""Passes: the row of each, its pages, its checkpoint, and the holds of the guard."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.keyset import KeySet, unpack
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import ConcurrentChangeError, is_postgresql
from syncd.mirror.db.postgresql import forget_writers
from syncd.mirror.schema.tables import held_sessions, pages, passes, sessions
from syncd.mirror.schema.types import new_id
from syncd.mirror.store import initial_load
from syncd.mirror.store import pages as page_rows
from syncd.records.enums import PassState
from syncd.rules.versions import CLOCK_SLACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.store.pages import ReadPage

CHUNK = 500
"""Keys that one statement names."""
COUNTERS = ("pages", "seen", "inserted", "updated", "unchanged", "restored", "quarantined", "without_id")
_CHECKPOINT = f"""
UPDATE passes SET page_key = ?, read_at = ?, {", ".join(f"{name} = ?" for name in COUNTERS)}
WHERE id = ? AND state = 'running' AND fence = ?
"""  # noqa: S608 - constants


@dataclass(slots=True)
class Progress:
    """A running pass in memory: what its row and its pages say.

    `page_key` is the checkpoint; `keys` are the page keys that were given before the pass was taken up; `seen` are
    sessions, `met` rows of the quarantine (those with an id are sessions too, and count as seen; with a minus where the
    session had been counted before, as one that could be read). `loading` tells that this pass fills an empty mirror:
    see `mirror.loading`; `filling` that the last page brought nothing but new sessions, so that the next one may, too.
    `fence` tells this holder of the pass from every later one.
    """

    id: int
    started_at: datetime
    resumed: bool
    loading: bool = False
    filling: bool = False
    page_key: str | None = None
    read: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    keys: set[str] = field(default_factory=set)
    seen: KeySet = field(default_factory=KeySet)
    met: set[int] = field(default_factory=set)
    fence: int = 0

    def copy(self) -> Progress:
        """Return one that can go on while this one stays."""
        return replace(self, counts=dict(self.counts), seen=self.seen.copy(), met=set(self.met))

    def adopt(self, later: Progress) -> None:
        """Go on where a copy has come to."""
        self.page_key, self.counts, self.seen, self.met = later.page_key, later.counts, later.seen, later.met
        self.filling = later.filling


def running(connection: Connection) -> Progress | None:
    """Take up the running pass at its checkpoint; None when there is none.

    Whoever held it until now can write nothing to it any more.
    """
    connection.execute(sa.update(passes).where(passes.c.state == "running").values(fence=passes.c.fence + 1))
    row = connection.execute(sa.select(passes).where(passes.c.state == "running")).first()
    if row is None:
        return None
    progress = Progress(row.id, row.started_at, resumed=True, page_key=row.page_key, read=row.read_at is not None)
    progress.fence = row.fence
    progress.counts = {name: getattr(row, name) for name in COUNTERS}
    query = sa.select(pages).where(pages.c.pass_id == row.id).order_by(pages.c.number)
    for page in connection.execute(query.execution_options(yield_per=100)):
        progress.seen.update(unpack(page.session_keys))
        progress.met.update(unpack(page.quarantine_ids))
        if page.next_key is not None:
            progress.keys.add(page.next_key)
    progress.loading = initial_load.begin(connection)
    return progress


def state(connection: Connection, pass_id: int) -> str | None:
    """Return the state of a pass; None when there is no such pass."""
    return connection.execute(sa.select(passes.c.state).where(passes.c.id == pass_id)).scalar()


def begin(connection: Connection, now: datetime) -> Progress:
    """Begin a pass.

    Raises
    ------
    ConcurrentChangeError
        Another replica has begun one at the same time.
    """
    try:
        row_id = new_id(connection.execute(sa.insert(passes).values(started_at=now)))
    except sa.exc.IntegrityError as error:
        raise ConcurrentChangeError("another replica has begun a pass first") from error
    return Progress(row_id, now, resumed=False, loading=initial_load.begin(connection))


def checkpoint(
    connection: Connection, progress: Progress, read: Sequence[ReadPage], *, read_at: datetime | None
) -> None:
    """Write the rows of the pages that a pass has read last, and move its checkpoint behind them.

    Raises
    ------
    PassLostError
        The pass is not running any more: somebody else ended it.
    """
    counts = progress.counts
    moved = raw.execute(
        connection,
        _CHECKPOINT,
        (
            progress.page_key,
            None if read_at is None else utc_text(read_at),
            *(counts[name] for name in COUNTERS),
            progress.id,
            progress.fence,
        ),
    )
    _require_held(moved.rowcount, progress)  # before the rows: whoever has taken it up has rows of the same numbers
    page_rows.insert(connection, progress.id, counts["pages"] - len(read) + 1, read)


class PassLostError(Exception):
    """The pass was ended, or taken up, by somebody else."""


def _update(connection: Connection, progress: Progress, **values: object) -> None:
    mine = (passes.c.id == progress.id, passes.c.state == "running", passes.c.fence == progress.fence)
    _require_held(connection.execute(sa.update(passes).where(*mine).values(values)).rowcount, progress)


def _require_held(changed: int, progress: Progress) -> None:
    if changed != 1:
        raise PassLostError(f"pass {progress.id} is not running any more, or another replica has taken it up")


def check(connection: Connection, progress: Progress) -> None:
    """Make sure that a pass is still this holder's, until the transaction ends.

    Raises
    ------
    PassLostError
        Somebody else ended it or took it up.
    """
    mine = (passes.c.id == progress.id, passes.c.state == "running", passes.c.fence == progress.fence)
    held = connection.execute(sa.select(passes.c.id).where(*mine).with_for_update()).first()
    _require_held(0 if held is None else 1, progress)


def finish(
    connection: Connection,
    progress: Progress,
    state: str,
    *,
    now: datetime,
    error: str | None = None,
    missing: int = 0,
    deleted: int = 0,
) -> None:
    """End a pass, and drop the pages that nobody needs any more: the newest complete pass keeps its own."""
    _update(connection, progress, state=state, finished_at=now, error=error, missing=missing, deleted=deleted)
    if state == "complete":
        connection.execute(sa.delete(pages).where(pages.c.pass_id != progress.id))
        decided = sa.select(passes.c.id).where(passes.c.decision == "approved")
        connection.execute(sa.delete(held_sessions).where(held_sessions.c.pass_id.not_in(decided)))
        if is_postgresql(connection):
            forget_writers(connection)
    else:
        connection.execute(sa.delete(pages).where(pages.c.pass_id == progress.id))
        # an approval is for those that had gone: who came back meanwhile is not meant when it goes again
        forget_approved(connection, (key for key in approved(connection) if key in progress.seen))


def live_count(connection: Connection) -> int:
    """Return the number of live sessions: all but the tombstones, which two indexes tell without a look at the rows."""
    everyone = sa.select(sa.func.count()).select_from(sessions)
    tombstones = everyone.where(sessions.c.deleted_at.is_not(None))
    return int(connection.execute(everyone).scalar_one()) - int(connection.execute(tombstones).scalar_one())


def _all_seen(connection: Connection, progress: Progress) -> bool:
    """Whether a pass saw every live session, by counting: most passes do, and need not look at each."""
    tombstones = sa.select(sessions.c.key).where(sessions.c.deleted_at.is_not(None))
    seen_tombstones = sum(key in progress.seen for key in connection.execute(tombstones).scalars())
    return live_count(connection) == len(progress.seen) - seen_tombstones


def not_observed(progress: Progress, now: datetime) -> sa.ColumnElement[bool]:
    """Match sessions that nothing but a listing saw since a pass began; see `rules.versions.CLOCK_SLACK`."""
    observed_at = sessions.c.observed_at
    return sa.or_(observed_at.is_(None), observed_at < progress.started_at, observed_at > now + CLOCK_SLACK)


def unseen(connection: Connection, progress: Progress, now: datetime) -> Iterator[int]:
    """Yield the live sessions that a pass did not see and that nothing else saw since it began."""
    if _all_seen(connection, progress):
        return
    query = (
        sa.select(sessions.c.key)
        .where(sessions.c.deleted_at.is_(None), not_observed(progress, now))
        .order_by(sessions.c.key)
    )
    for key in connection.execute(query.execution_options(yield_per=10_000)).scalars():
        if key not in progress.seen:
            yield key


def approved(connection: Connection) -> set[int]:
    """Return the sessions that an operator let go and that are not gone yet."""
    source = sa.func.coalesce(passes.c.candidates_of, passes.c.id)
    query = (
        sa.select(held_sessions.c.session_key)
        .join(passes, source == held_sessions.c.pass_id)
        .where(passes.c.decision == "approved")
    )
    return set(connection.execute(query).scalars())


def hold(connection: Connection, progress: Progress, candidates: Iterable[int], *, now: datetime, error: str) -> int:
    """Hold a sweep: keep its candidates for the operator, delete nothing.

    A hold that repeats the one before keeps no second copy of the same candidates.
    """
    keys = array("q", sorted(candidates))
    last = _last_hold(connection)
    if last is not None and keys == array("q", _held(connection, last)):
        _update(connection, progress, candidates_of=last)
    else:
        for first in range(0, len(keys), CHUNK):
            rows = [{"pass_id": progress.id, "session_key": key} for key in keys[first : first + CHUNK]]
            connection.execute(sa.insert(held_sessions), rows)
    finish(connection, progress, "held", now=now, error=error, missing=len(keys))
    return len(keys)


def _held(connection: Connection, pass_id: int) -> Iterator[int]:
    """Yield the candidates of a held pass in their order."""
    query = (
        sa.select(held_sessions.c.session_key)
        .where(held_sessions.c.pass_id == pass_id)
        .order_by(held_sessions.c.session_key)
    )
    yield from connection.execute(query.execution_options(yield_per=10_000)).scalars()


def _last_hold(connection: Connection) -> int | None:
    """Return the pass whose candidates the newest undecided hold keeps."""
    row = connection.execute(
        sa.select(passes).where(passes.c.state != "running").order_by(passes.c.id.desc()).limit(1)
    ).first()
    if row is None or row.state != "held" or row.decision is not None:
        return None
    return int(row.candidates_of or row.id)


def forget_approved(connection: Connection, keys: Iterable[int]) -> None:
    """Strike sessions off the approved holds: they are gone, or back."""
    gone = sorted(keys)
    source = sa.select(sa.func.coalesce(passes.c.candidates_of, passes.c.id)).where(passes.c.decision == "approved")
    for first in range(0, len(gone), CHUNK):
        connection.execute(
            sa.delete(held_sessions).where(
                held_sessions.c.pass_id.in_(source), held_sessions.c.session_key.in_(gone[first : first + CHUNK])
            )
        )


def open_holds(connection: Connection) -> list[sa.Row[tuple[object, ...]]]:
    """Return the held passes that still wait for an operator, newest first; a complete pass clears those before it."""
    newest = (
        sa.select(sa.func.coalesce(sa.func.max(passes.c.id), 0)).where(passes.c.state == "complete").scalar_subquery()
    )
    query = (
        sa.select(passes)
        .where(passes.c.state == "held", passes.c.decision.is_(None), passes.c.id > newest)
        .order_by(passes.c.id.desc())
    )
    return list(connection.execute(query).all())


def held_rows(connection: Connection, pass_id: int, *, limit: int) -> list[sa.RowMapping] | None:
    """Return the live sessions that an open hold keeps from going, by name; None when the pass is no open hold."""
    hold = next((row for row in open_holds(connection) if row.id == pass_id), None)
    if hold is None:
        return None
    query = (
        sa.select(
            sessions.c.id, sessions.c.name, sessions.c.source_session_id, sessions.c.created_by_name,
            sessions.c.last_message_at,
        )
        .join(held_sessions, held_sessions.c.session_key == sessions.c.key)
        .where(held_sessions.c.pass_id == (hold.candidates_of or hold.id), sessions.c.deleted_at.is_(None))
        .order_by(sessions.c.name, sessions.c.id)
    )  # fmt: skip
    return list(connection.execute(query.limit(limit)).mappings())


def decide(connection: Connection, pass_id: int, decision: str, now: datetime) -> str | None:
    """Write an operator's decision on a held pass; return what is wrong with it, None when nothing is.

    Holds that repeat the same candidates are decided together.
    """
    waiting = {row.id: row for row in open_holds(connection)}
    if pass_id not in waiting:
        state = connection.execute(sa.select(passes.c.state).where(passes.c.id == pass_id)).scalar()
        if state is None:
            return f"there is no pass {pass_id}"
        if state != "held":
            return f"pass {pass_id} is {state}, not held"
        return f"pass {pass_id} does not wait for a decision any more"
    group = waiting[pass_id].candidates_of or pass_id
    alike = [row.id for row in waiting.values() if (row.candidates_of or row.id) == group]
    connection.execute(sa.update(passes).where(passes.c.id.in_(alike)).values(decision=decision, decided_at=now))
    return None


def abandon(connection: Connection, *, now: datetime, error: str) -> None:
    """End the running pass as failed, so that the next one lists from the start; no daemon runs meanwhile."""
    running_pass = sa.select(passes.c.id).where(passes.c.state == PassState.RUNNING.value)
    connection.execute(sa.delete(pages).where(pages.c.pass_id.in_(running_pass)))
    ended = {"state": PassState.FAILED.value, "finished_at": now, "error": error, "fence": passes.c.fence + 1}
    connection.execute(sa.update(passes).where(passes.c.state == PassState.RUNNING.value).values(ended))
