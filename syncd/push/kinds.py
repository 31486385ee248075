"""The kinds of operation: the look-up, the request and the effect on the mirror of each. `runner` calls `KINDS`.

Create makes sure that a session with the source id exists. It looks the source id up, and only after a 404 sends one
POST. A POST whose answer is lost makes the operation `unknown`; it is looked up over the settle time before the POST
may be sent again. Delete and update can be sent again at any time.

The columns, the CHECK constraint and the options of each kind are declared in `records.operation_kinds`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from syncd.albert import AlbertException, AlbertHTTPError, BadRequestError, ConflictError, InvalidIdError
from syncd.albert.paths import segment
from syncd.clock import utc_text
from syncd.lookups import Absent, Found, LookUp
from syncd.mirror.store import sessions
from syncd.push.answers import surely_not_applied
from syncd.push.outcomes import (
    Dead,
    Effect,
    NotFound,
    Outcome,
    Retry,
    RetryReason,
    Succeeded,
    Unknown,
    UnknownReason,
)
from syncd.push.targets import Holder, NoHolder, look_for_holder, resolve
from syncd.records.enums import OperationKind, OperationState
from syncd.records.fields import SESSIONS, SessionRow
from syncd.records.parse import GarbledError, read_session
from syncd.rules.deletion import GONE
from syncd.rules.retry import lag_wait
from syncd.rules.sources import alike, difference
from syncd.witness import AbsenceUnprovenError, has_json_body

if TYPE_CHECKING:
    from syncd.mirror.store.operation import Operation
    from syncd.push.attempt import Attempt
    from syncd.records.ids import SessionId, SourceId

NOT_SHOWN = "Albert accepted the update and shows no change"


async def create(attempt: Attempt) -> Outcome:
    """Adopt the session with the source id, or create it."""
    operation = attempt.operation
    answer = await attempt.lookups.by_source(operation.source_id)
    if isinstance(answer, Found):
        return _adopted(operation, answer)
    if operation.state == OperationState.UNKNOWN:
        return NotFound(answer.status)
    if operation.target_session_id is not None:
        return await _never_sent_again(attempt, operation.target_session_id)
    holder = await look_for_holder(attempt, answer)
    if isinstance(holder, NoHolder):
        return await _post(attempt)
    if holder.found is not None:
        return _adopted(operation, holder.found)
    return _lagging(attempt, holder.session_id)


def _adopted(operation: Operation, answer: Found) -> Outcome:
    """Accept the session that Albert finds under the source id, and note how it differs from the request."""
    row, source_id = answer.row, operation.source_id
    created = operation.target_session_id
    if created is not None and created != row.id:
        return Dead(f"Albert created {created}, but finds {row.id} under the source id {source_id!r}", None, created)
    if created is None and not alike(row.source_session_id, source_id):
        raise GarbledError(f"the answer is a session with another sourceSessionId: {row.source_session_id!r}")
    return Succeeded(row.id, Effect(answer.asked_at, (row,)), _adoption_note(operation, row), status=200)


def _adoption_note(operation: Operation, row: SessionRow) -> str | None:
    differs = difference(row, {"source_session_id": operation.source_session_id, **_content(operation)})
    return f"adopted as it is: {differs}" if differs else None


def _content(operation: Operation) -> dict[str, str | None]:
    """Return the name and the folder that a create asks for; an empty folder means none."""
    return {"name": operation.name or "", "parent_id": operation.parent_id or None}


def _lagging(attempt: Attempt, session_id: SessionId) -> Retry:
    text = f"{session_id} was observed recently and look-ups do not show it yet"
    return Retry(RetryReason.LAGGING, text, retry_after=lag_wait(attempt.recency.settle))


async def _post(attempt: Attempt) -> Outcome:
    operation = attempt.operation
    if (problem := _unstorable(operation)) is not None:
        return problem
    body: dict[str, object] = {"name": operation.name, "sourceSessionId": operation.source_session_id}
    if operation.parent_id:
        body["parentId"] = operation.parent_id
    asked_at = utc_text(attempt.clock.now())
    await attempt.before_change()
    attempt.sent = True
    try:
        row = read_session(await attempt.albert.create_raw(body=body))
    except (ConflictError, BadRequestError) as error:
        attempt.sent = False
        return await _look_after_refusal(attempt, error)
    except (AlbertException, GarbledError) as error:
        if surely_not_applied(error):
            attempt.sent = False
            raise
        status, retry_after = getattr(error, "status_code", None), getattr(error, "retry_after", None)
        return Unknown(UnknownReason.LOST_ANSWER, str(error), status, retry_after)
    effect = Effect(asked_at, (row,), made=True)
    if row.source_session_id != operation.source_session_id:
        return await _created_otherwise(attempt, effect)
    # some servers answer a duplicate with the session that was there first
    return Succeeded(row.id, effect, _adoption_note(operation, row), status=201)


def _unstorable(operation: Operation) -> Dead | None:
    if "\0" in f"{operation.name}{operation.parent_id}":
        return Dead("the name or the folder contains a NUL, and no answer with it could be stored")
    return None


async def _look_after_refusal(attempt: Attempt, error: ConflictError | BadRequestError) -> Outcome:
    """Look up once more after a 409, or a 400: some servers answer a duplicate so."""
    answer = await attempt.lookups.by_source(attempt.operation.source_id)
    if isinstance(answer, Found):
        return _adopted(attempt.operation, answer)
    if isinstance(error, ConflictError):
        # it exists, and look-ups lag: they are made over the settle time before the create is sent again
        return Unknown(UnknownReason.CONFLICT, str(error), error.status_code, error.retry_after)
    return Dead(str(error), error.status_code)


async def _created_otherwise(attempt: Attempt, effect: Effect) -> Outcome:
    """Handle a session that was created with another source id than requested: the create is never sent again.

    The id of the session is stored immediately, and again if this attempt is cancelled. The operation succeeds if
    Albert finds the session under the requested source id too; look-ups over the settle time decide that.
    """
    (row,) = effect.rows
    session_id, requested = row.id, attempt.operation.source_id
    text = _otherwise(session_id, row.source_session_id, requested)
    attempt.created = effect
    await attempt.keep_target(session_id)
    try:
        segment(session_id)
    except InvalidIdError as error:
        return Dead(f"{text}; {error}", 201, session_id)
    try:
        answer = await attempt.lookups.by_source(requested)
    except (AlbertException, GarbledError, AbsenceUnprovenError):
        answer = Absent(404)
    if isinstance(answer, Found) and answer.row.id == session_id:
        return Succeeded(session_id, effect, _adoption_note(attempt.operation, row), status=201)
    return Unknown(UnknownReason.OTHER_SOURCE, text, 201, effect=effect)


def _otherwise(session_id: SessionId, source_id: SourceId | None, requested: str) -> str:
    return f"Albert created {session_id} with the source id {source_id!r} and not {requested!r}"


async def _never_sent_again(attempt: Attempt, session_id: SessionId) -> Outcome:
    """End a create, retried by an operator, whose session exists with another source id."""
    requested = attempt.operation.source_id
    answer = await attempt.lookups.by_id(session_id)
    if isinstance(answer, Absent):
        return Dead(f"Albert created {session_id} with another source id than {requested!r}; it is gone", 404)
    return Dead(_otherwise(session_id, answer.row.source_session_id, requested), 200, session_id)


async def delete(attempt: Attempt) -> Outcome:
    """Delete the session; a session that is gone already is a success."""
    target = await _target(attempt)
    if isinstance(target, NoHolder):
        return Succeeded(None, target.effect, status=target.status)
    await attempt.before_change()
    attempt.delete_sent = True
    try:
        status = await attempt.albert.delete_raw(id=target.session_id)
    except AlbertException as error:
        attempt.delete_sent = not surely_not_applied(error)
        if not isinstance(error, AlbertHTTPError):
            raise
        if (refused := await _method_refused(attempt, target.session_id, error)) is not None:
            return refused
        await _confirm_absence(attempt, target.session_id, error)
        if await _is_recent(attempt, target.session_id):
            return _lagging(attempt, target.session_id)
        return Succeeded(target.session_id, Effect(gone=(target.session_id,)), status=error.status_code)
    return Succeeded(target.session_id, Effect(gone=(target.session_id,)), status=status)


async def _confirm_absence(attempt: Attempt, session_id: SessionId, error: AlbertHTTPError) -> None:
    """Require that a look-up agrees with a 404 to a change: a gateway may answer 404 to changes alone.

    Raises
    ------
    AbsenceUnprovenError
        Albert finds the session, or the look-up's own 404 may come from a gateway.
    """
    answer = await attempt.lookups.by_id(session_id)
    if isinstance(answer, Found):
        text = f"{error} (this may be a gateway's answer and not Albert's: a look-up finds {session_id})"
        raise AbsenceUnprovenError(text, status=error.status_code)


async def _method_refused(attempt: Attempt, session_id: SessionId, error: AlbertHTTPError) -> Dead | None:
    """End an operation whose method Albert does not have: a 405 in JSON, while a look-up finds the session.

    Returns
    -------
    Dead | None
        None for a 404 or 410.

    Raises
    ------
    AlbertHTTPError
        Any other error, and a 405 that a gateway may have answered.
    """
    if error.status_code in GONE:
        return None
    is_of_albert = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and has_json_body(error)
    if not is_of_albert or isinstance(await attempt.lookups.by_id(session_id), Absent):
        raise error
    return Dead(str(error), error.status_code)


async def _target(attempt: Attempt) -> Holder | NoHolder:
    """Return the session that a delete or an update means.

    It is stored before it is changed: a later attempt must not find, and change, a session that was created since.
    """
    operation = attempt.operation
    if (known := operation.session_id or operation.target_session_id) is not None:
        return Holder(known, None)
    target = await resolve(attempt)
    if isinstance(target, Holder):
        segment(target.session_id)
        await attempt.keep_target(target.session_id)
    return target


async def update(attempt: Attempt) -> Outcome:
    """Rename or move the session: look, send the change if needed, and look again until it shows."""
    operation, wanted = attempt.operation, _changes(attempt.operation)
    if (problem := _unstorable(operation)) is not None:
        return problem
    target = await _target(attempt)
    if isinstance(target, NoHolder):
        return Dead(f"Albert has no session with the source id {operation.source_session_id!r}", target.status)
    session_id = target.session_id
    before = target.found or await attempt.lookups.by_id(session_id)
    if (outcome := await _without_change(attempt, session_id, before, wanted)) is not None:
        return outcome
    changes = {SESSIONS.by_column[column].wire.path: value for column, value in wanted.items()}
    await attempt.before_change()
    try:
        await attempt.albert.update_raw(id=session_id, changes=changes)
    except AlbertHTTPError as error:
        return await _update_refused(attempt, session_id, error)
    return await _updated(attempt, session_id, before, wanted)


async def _update_refused(attempt: Attempt, session_id: SessionId, error: AlbertHTTPError) -> Outcome:
    if (refused := await _method_refused(attempt, session_id, error)) is not None:
        return refused
    await _confirm_absence(attempt, session_id, error)
    if await _is_recent(attempt, session_id):
        return _lagging(attempt, session_id)
    return Dead(f"Albert has no session {session_id}: {error}", error.status_code)


async def _without_change(
    attempt: Attempt, session_id: SessionId, before: LookUp, wanted: Mapping[str, str | None]
) -> Outcome | None:
    """Return the outcome of an attempt that sends no change; None if a change is needed."""
    if isinstance(before, Found) and difference(before.row, wanted) is None:
        return Succeeded(session_id, Effect(before.asked_at, (before.row,)), status=200)
    if isinstance(before, Absent) and not await _is_recent(attempt, session_id):
        return Dead(f"Albert has no session {session_id}", before.status)
    if attempt.recency.is_young(_accepted(attempt.operation)):
        return Retry(RetryReason.LAGGING, NOT_SHOWN, retry_after=lag_wait(attempt.recency.settle))
    return None


def _changes(operation: Operation) -> dict[str, str | None]:
    """Return the wanted values; an empty folder moves the session out of its folder."""
    changes = {"name": operation.name, "parent_id": operation.parent_id}
    return {name: value or None for name, value in changes.items() if value is not None}


async def _is_recent(attempt: Attempt, session_id: SessionId) -> bool:
    """Whether the mirror observed a session so recently that look-ups may not show it yet."""
    observed_at = await attempt.database.read(partial(sessions.observed_at, session_id=session_id))
    return attempt.recency.is_recent(session_id, observed_at)


async def _updated(
    attempt: Attempt, session_id: SessionId, before: LookUp, wanted: Mapping[str, str | None]
) -> Outcome:
    """Request the session after an accepted change.

    If it differs from the request although what was to change did change, another program has changed it since: the
    difference is noted. If that is as before, look-ups lag or the change was not applied, and both are found out later.
    """
    after = await attempt.lookups.by_id(session_id)
    differs = difference(after.row, wanted) if isinstance(after, Found) else f"session {session_id} is not found"
    if isinstance(after, Found) and (differs is None or _has_changed(before, after, wanted)):
        note = f"after the update, Albert shows that the {differs}" if differs else None
        return Succeeded(session_id, Effect(after.asked_at, (after.row,)), note, status=200)
    attempt.recency.note(_accepted(attempt.operation))
    return Retry(RetryReason.UNCHANGED, f"{NOT_SHOWN}: {differs}", retry_after=lag_wait(attempt.recency.settle))


def _has_changed(before: LookUp, after: Found, wanted: Mapping[str, str | None]) -> bool:
    """Whether any of the columns that an update names has another value than before."""
    return isinstance(before, Found) and any(getattr(before.row, name) != getattr(after.row, name) for name in wanted)


def _accepted(operation: Operation) -> str:
    """Name the fact that Albert accepted an update: it is not sent again within the settle time."""
    return f"update {operation.id}"


KINDS: Mapping[OperationKind, Callable[[Attempt], Awaitable[Outcome]]] = {
    OperationKind.CREATE: create,
    OperationKind.DELETE: delete,
    OperationKind.UPDATE: update,
}
"""The function that makes one attempt at an operation of each kind."""
