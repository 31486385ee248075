"""Passes: the row of each, its pages, its checkpoint, and the holds of the guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.keyset import KeySet, pack, unpack
from syncd.mirror.tables import held_sessions, new_id, pages, passes, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection

COUNTERS = ("pages", "seen", "inserted", "updated", "unchanged", "restored", "quarantined", "without_id")


@dataclass(slots=True)
class Progress:
    """A running pass in memory: what its row and its pages say.

    `page_key` is the checkpoint; `keys` are all page keys that were given so far; `seen` are sessions, `met` rows of
    the quarantine (those with an id are sessions too, and count as seen).
    """

    id: int
    started_at: datetime
    resumed: bool
    page_key: str | None = None
    read: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    keys: set[str] = field(default_factory=set)
    seen: KeySet = field(default_factory=KeySet)
    met: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page that was read, for its row."""

    next_key: str | None
    session_keys: list[int]
    quarantine_ids: list[int]
    digest: bytes | None
    versions: int


def running(connection: Connection) -> Progress | None:
    """Take up the running pass at its checkpoint; None when there is none."""
    row = connection.execute(sa.select(passes).where(passes.c.state == "running")).first()
    if row is None:
        return None
    progress = Progress(row.id, row.started_at, resumed=True, page_key=row.page_key, read=row.read_at is not None)
    progress.counts = {name: getattr(row, name) for name in COUNTERS}
    query = sa.select(pages).where(pages.c.pass_id == row.id).order_by(pages.c.number)
    for page in connection.execute(query.execution_options(yield_per=100)):
        progress.seen.update(unpack(page.session_keys))
        progress.met.update(unpack(page.quarantine_ids))
        if page.next_key is not None:
            progress.keys.add(page.next_key)
    return progress


def begin(connection: Connection, now: datetime) -> Progress:
    """Begin a pass."""
    row_id = new_id(connection.execute(sa.insert(passes).values(started_at=now)))
    return Progress(row_id, now, resumed=False)


def checkpoint(
    connection: Connection,
    progress: Progress,
    counts: dict[str, int],
    page: ReadPage,
    *,
    read_at: datetime | None,
) -> None:
    """Write a page's row and move the checkpoint behind it.

    Raises
    ------
    PassLostError
        The pass is not running any more: somebody else ended it.
    """
    connection.execute(
        sa.insert(pages),
        {
            "pass_id": progress.id,
            "number": counts["pages"],
            "next_key": page.next_key,
            "session_keys": pack(page.session_keys),
            "quarantine_ids": pack(page.quarantine_ids),
            "digest": page.digest,
            "versions": page.versions,
        },
    )
    _update(connection, progress.id, page_key=page.next_key, read_at=read_at, **counts)


class PassLostError(Exception):
    """The pass was ended by somebody else."""


def _update(connection: Connection, pass_id: int, **values: object) -> None:
    result = connection.execute(
        sa.update(passes).where(passes.c.id == pass_id, passes.c.state == "running").values(values)
    )
    if result.rowcount != 1:
        raise PassLostError(f"pass {pass_id} is not running any more")


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
    _update(connection, progress.id, state=state, finished_at=now, error=error, missing=missing, deleted=deleted)
    if state == "complete":
        connection.execute(sa.delete(pages).where(pages.c.pass_id != progress.id))
        decided = sa.select(passes.c.id).where(passes.c.decision == "approved")
        connection.execute(sa.delete(held_sessions).where(held_sessions.c.pass_id.not_in(decided)))
    else:
        connection.execute(sa.delete(pages).where(pages.c.pass_id == progress.id))


def live_count(connection: Connection) -> int:
    """Return the number of live sessions."""
    query = sa.select(sa.func.count()).select_from(sessions).where(sessions.c.deleted_at.is_(None))
    return connection.execute(query).scalar_one()


def unseen(connection: Connection, progress: Progress, now: datetime) -> Iterator[int]:
    """Yield the live sessions that a pass did not see and that nothing else saw since it began.

    What was seen later than now was seen before the clock was set back: that keeps no session alive.
    """
    seen = sessions.c.observed_at
    query = sa.select(sessions.c.key).where(
        sessions.c.deleted_at.is_(None), sa.or_(seen.is_(None), seen < progress.started_at, seen > now)
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
    keys = sorted(candidates)
    last = _last_hold(connection)
    same = last is not None and set(keys) == set(
        connection.execute(sa.select(held_sessions.c.session_key).where(held_sessions.c.pass_id == last)).scalars()
    )
    if same:
        _update(connection, progress.id, candidates_of=last)
    elif keys:
        connection.execute(sa.insert(held_sessions), [{"pass_id": progress.id, "session_key": key} for key in keys])
    finish(connection, progress, "held", now=now, error=error, missing=len(keys))
    return len(keys)


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
    for key in keys:
        connection.execute(sa.delete(held_sessions).where(held_sessions.c.session_key == key))


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
