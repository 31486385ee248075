"""Holds: deletions that wait for a person, and the person's decision. `pull` writes them, `syncd deletions` decides.

::

    open ──approve──► approved ──every session deleted, or seen again──► closed
      │  ◄─approve/reject─►                                                ▲
      ├──reject───► rejected ──every session listed again, or deleted──────┤
      └──a complete pass without the hold, or a hold of other sessions─────┘

At most one hold is open. It is named by the first pass that it held; later passes with the same sessions, or fewer,
update it. An approval covers the sessions of its hold and no others: each is deleted after a 404 of its own. A
rejection keeps its sessions until a listing contains them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.errors import SyncdError
from syncd.mirror.db.dialects import ConcurrentChangeError, is_of_another_replica
from syncd.mirror.schema.tables import hold_sessions, holds, passes, sessions
from syncd.mirror.schema.types import new_id
from syncd.mirror.store import operator_actions
from syncd.records.enums import HOLDS_IN_FORCE, HoldState, PassReason, PassState

if TYPE_CHECKING:
    from array import array

    from sqlalchemy import Connection

    from syncd.records.ids import PassId
    from syncd.records.reasons import Reason

CHUNK = 500
"""Keys in one statement."""


class NotHeldError(SyncdError):
    """A pass has no hold that can be shown or decided."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as operators see it; `sessions` is their number, `pass_id` its name."""

    hold_id: int
    pass_id: PassId
    last_pass_id: PassId
    state: HoldState
    reason: PassReason
    detail: str
    opened_at: datetime
    updated_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    sessions: int


@dataclass(frozen=True, slots=True)
class Placed:
    """The hold of a held pass: `pass_id` names it, `sessions` is their number, `is_new` includes a new reason."""

    hold_id: int
    pass_id: PassId
    sessions: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Decisions:
    """The holds in force, by what their sessions mean to a pass.

    Parameters
    ----------
    approved : BitMap64
        Sessions that a sweep may delete, each after a 404 of its own.
    kept : BitMap64
        Sessions that an operator keeps: a sweep neither deletes them nor holds because of them.
    waiting : BitMap64
        Sessions without a decision that lets a pass go on.
    holds : frozenset[tuple[int, HoldState]]
        The holds and their states. A sweep starts again if an operator changed them meanwhile.
    """

    approved: BitMap64
    kept: BitMap64
    waiting: BitMap64
    holds: frozenset[tuple[int, HoldState]]


def place(connection: Connection, pass_id: PassId, keys: array[int], reason: Reason, now: datetime) -> Placed:
    """Hold the deletion of some sessions.

    The hold in force continues when it covers all of them. Otherwise a new one is opened, and the open one is closed.

    Parameters
    ----------
    keys : array[int]
        The sessions that would be deleted, each once.

    Raises
    ------
    ConcurrentChangeError
        Another replica opened a hold at the same time.
    """
    if reason.code is not PassReason.KNOWN_SESSIONS_GONE:
        _close_answered(connection, now)
    changes = {"last_pass_id": pass_id, "reason": reason.code, "detail": reason.text, "updated_at": now}
    hold = _current(connection, reason.code)
    if hold is not None:
        remaining = BitMap64()
        _add_sessions(connection, hold.id, remaining)
        if all(key in remaining for key in keys):
            _keep_only(connection, hold.id, keys)
            connection.execute(sa.update(holds).where(holds.c.id == hold.id).values(changes))
            return Placed(hold.id, hold.pass_id, len(keys), is_new=hold.reason != reason.code)
        if hold.state == HoldState.OPEN:
            _close(connection, hold.id, now)
    values = {"pass_id": pass_id, "state": HoldState.OPEN, "opened_at": now, **changes}
    try:
        hold_id = new_id(connection.execute(sa.insert(holds).values(values)))
    except sa.exc.IntegrityError as error:
        if not is_of_another_replica(error):
            raise
        raise ConcurrentChangeError("another replica opened a hold first") from error
    for first in range(0, len(keys), CHUNK):
        rows = [{"hold_id": hold_id, "session_key": key} for key in keys[first : first + CHUNK]]
        connection.execute(sa.insert(hold_sessions), rows)
    return Placed(hold_id, pass_id, len(keys), is_new=True)


def _current(connection: Connection, code: PassReason) -> sa.Row[Any] | None:
    """Return the hold that a held pass may continue.

    A rejection of a pass whose first requests found nothing does not let the next pass through, so it continues too.
    """
    may_continue = holds.c.state == HoldState.OPEN
    if code is PassReason.KNOWN_SESSIONS_GONE:
        may_continue = sa.or_(may_continue, sa.and_(holds.c.state == HoldState.REJECTED, holds.c.reason == code))
    query = sa.select(holds).where(may_continue).order_by(holds.c.id.desc()).limit(1)
    return connection.execute(query.with_for_update()).first()


def _keep_only(connection: Connection, hold_id: int, keys: array[int]) -> None:
    kept = BitMap64(keys.tolist())
    held = connection.execute(sa.select(hold_sessions.c.session_key).where(hold_sessions.c.hold_id == hold_id))
    gone = [key for key in held.scalars() if key not in kept]
    for first in range(0, len(gone), CHUNK):
        in_chunk = hold_sessions.c.session_key.in_(gone[first : first + CHUNK])
        connection.execute(sa.delete(hold_sessions).where(hold_sessions.c.hold_id == hold_id, in_chunk))


def decisions(connection: Connection, *, lock: bool = False) -> Decisions:
    """Return the holds in force; with `lock`, they stay as they are until the transaction ends."""
    query = (
        sa.select(holds.c.id, holds.c.state, holds.c.reason)
        .where(holds.c.state.in_(HOLDS_IN_FORCE))
        .order_by(holds.c.id)
    )
    in_force = Decisions(BitMap64(), BitMap64(), BitMap64(), frozenset())
    hold_states = set()
    for row in connection.execute(query.with_for_update() if lock else query).all():
        hold_states.add((int(row.id), HoldState(row.state)))
        if row.state == HoldState.APPROVED:
            keys = in_force.approved
        elif row.state == HoldState.REJECTED and row.reason != PassReason.KNOWN_SESSIONS_GONE:
            keys = in_force.kept
        else:
            keys = in_force.waiting
        _add_sessions(connection, row.id, keys)
    return replace(in_force, holds=frozenset(hold_states))


def _add_sessions(connection: Connection, hold_id: int, keys: BitMap64) -> None:
    query = sa.select(hold_sessions.c.session_key).where(hold_sessions.c.hold_id == hold_id)
    streamed = connection.execute(query.execution_options(yield_per=10_000)).scalars()
    for some in streamed.partitions(10_000):
        keys.update(some)


def release(connection: Connection, seen: BitMap64, now: datetime) -> None:
    """Remove sessions that a pass has listed, or that are deleted, from all holds; close holds that have none left.

    A decision is about sessions that are not listed. If they are missing again later, that is a new question.
    """
    in_force = sa.select(holds.c.id).where(holds.c.state.in_(HOLDS_IN_FORCE))
    query = sa.select(hold_sessions.c.session_key, sessions.c.deleted_at.is_not(None).label("is_deleted"))
    query = query.join(sessions, sessions.c.key == hold_sessions.c.session_key)
    held = connection.execute(query.where(hold_sessions.c.hold_id.in_(in_force))).all()
    _remove(connection, [row.session_key for row in held if row.is_deleted or row.session_key in seen])
    _close_empty(connection, now)


def complete(connection: Connection, *, unanswered: frozenset[int], now: datetime) -> None:
    """Apply a complete pass: an open hold needs no decision any more, and approvals are used up.

    Parameters
    ----------
    unanswered : frozenset[int]
        Approved sessions about which Albert gave no usable answer: their approval stays.
    """
    _close_answered(connection, now)
    for hold_id in connection.execute(sa.select(holds.c.id).where(holds.c.state == HoldState.OPEN)).scalars().all():
        _close(connection, hold_id, now)
    approved = sa.select(hold_sessions.c.session_key).join(holds, holds.c.id == hold_sessions.c.hold_id)
    keys = connection.execute(approved.where(holds.c.state == HoldState.APPROVED)).scalars()
    _remove(connection, [key for key in keys if key not in unanswered], (HoldState.APPROVED,))
    _close_empty(connection, now)


def _close_answered(connection: Connection, now: datetime) -> None:
    """Close rejected holds of first requests: a pass that went further has found that Albert knows the sessions."""
    answered = sa.and_(holds.c.state == HoldState.REJECTED, holds.c.reason == PassReason.KNOWN_SESSIONS_GONE)
    for hold_id in connection.execute(sa.select(holds.c.id).where(answered)).scalars().all():
        _close(connection, hold_id, now)


def _remove(connection: Connection, keys: list[int], states: Iterable[HoldState] = HOLDS_IN_FORCE) -> None:
    of_state = sa.select(holds.c.id).where(holds.c.state.in_(states))
    for first in range(0, len(keys), CHUNK):
        in_chunk = hold_sessions.c.session_key.in_(keys[first : first + CHUNK])
        connection.execute(sa.delete(hold_sessions).where(hold_sessions.c.hold_id.in_(of_state), in_chunk))


def _close(connection: Connection, hold_id: int, now: datetime) -> None:
    connection.execute(sa.delete(hold_sessions).where(hold_sessions.c.hold_id == hold_id))
    values = {"state": HoldState.CLOSED, "updated_at": now}
    connection.execute(sa.update(holds).where(holds.c.id == hold_id).values(values))


def _close_empty(connection: Connection, now: datetime) -> None:
    has_sessions = sa.exists().where(hold_sessions.c.hold_id == holds.c.id)
    empty = sa.and_(holds.c.state.in_(HOLDS_IN_FORCE), ~has_sessions)
    connection.execute(sa.update(holds).where(empty).values(state=HoldState.CLOSED, updated_at=now))


def decide(connection: Connection, pass_id: PassId, decision: HoldState, *, by: str, now: datetime) -> Hold:
    """Write an operator's decision on the hold of a pass. It can be changed until the hold is closed.

    Parameters
    ----------
    pass_id : int
        Any pass of the hold.
    decision : HoldState
        `APPROVED` or `REJECTED`.
    by : str
        The person who decides.

    Returns
    -------
    Hold
        The hold after the decision.

    Raises
    ------
    NotHeldError
        The pass has no hold that can be decided; the message says why.
    """
    before = get(connection, pass_id, lock=True)
    if before.state is decision:
        raise NotHeldError(f"pass {pass_id} is {decision} already")
    values = {"state": decision, "decided_at": now, "decided_by": by, "updated_at": now}
    connection.execute(sa.update(holds).where(holds.c.id == before.hold_id).values(values))
    operator_actions.record(
        connection,
        now=now,
        by=by,
        action="approve" if decision is HoldState.APPROVED else "reject",
        subject=f"pass {before.pass_id}",
        detail=f"{before.sessions} sessions; it was {before.state}",
    )
    return get(connection, pass_id)


def get(connection: Connection, pass_id: PassId, *, lock: bool = False) -> Hold:
    """Return the hold in force of a pass.

    Raises
    ------
    NotHeldError
        The pass has no hold in force; the message says why.
    """
    pass_row = connection.execute(sa.select(passes.c.state, passes.c.hold_id).where(passes.c.id == pass_id)).first()
    is_its_hold = holds.c.pass_id == pass_id if pass_row is None else holds.c.id == pass_row.hold_id
    query = sa.select(holds).where(is_its_hold, holds.c.state.in_(HOLDS_IN_FORCE))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        return _hold(connection, row)
    if pass_row is None:
        raise NotHeldError(f"there is no pass {pass_id}")
    if pass_row.state != PassState.HELD:
        raise NotHeldError(f"pass {pass_id} is {pass_row.state}, not held")
    current = connection.execute(sa.select(holds.c.pass_id).where(holds.c.state == HoldState.OPEN)).scalar()
    present = "nothing is held now" if current is None else f"pass {current} holds deletions now"
    text = f"pass {pass_id} does not wait for a decision any more, {present}"
    raise NotHeldError(f"{text}; see: syncd deletions list --all")


def listed(connection: Connection, states: Iterable[HoldState] = (HoldState.OPEN,)) -> list[Hold]:
    """Return the holds in some states, newest first."""
    query = sa.select(holds).where(holds.c.state.in_(states)).order_by(holds.c.id.desc())
    return [_hold(connection, row) for row in connection.execute(query).all()]


def _hold(connection: Connection, row: sa.Row[Any]) -> Hold:
    count = sa.select(sa.func.count()).where(hold_sessions.c.hold_id == row.id)
    return Hold(
        row.id, row.pass_id, row.last_pass_id, HoldState(row.state), PassReason(row.reason), row.detail,
        row.opened_at, row.updated_at, row.decided_at, row.decided_by,
        int(connection.execute(count).scalar_one()),
    )  # fmt: skip


def session_rows(connection: Connection, hold_id: int, *, limit: int) -> list[sa.RowMapping]:
    """Return the live sessions of a hold by name, as far as an operator needs them to decide."""
    query = (
        sa.select(
            sessions.c.id, sessions.c.name, sessions.c.source_session_id, sessions.c.created_by_name,
            sessions.c.last_message_at,
        )
        .join(hold_sessions, hold_sessions.c.session_key == sessions.c.key)
        .where(hold_sessions.c.hold_id == hold_id, sessions.c.deleted_at.is_(None))
        .order_by(sessions.c.name, sessions.c.id)
    )  # fmt: skip
    return list(connection.execute(query.limit(limit)).mappings())
