"""One attempt at one operation: the requests, and what their answers mean.

The database is only asked, not changed, but for the note of what a delete by source id was found to mean.

Create is "make sure that this source session exists": look up, and only after a 404 one POST. A POST whose answer is
lost makes the operation `unknown`; it is looked up over the settle time before it may be sent again. A delete may be
sent again at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from syncd.albert import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidIdError,
    InvalidRequestError,
    RedirectError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.albert.paths import segment
from syncd.clock import utc_text
from syncd.mirror.store import operations, sources
from syncd.mirror.store.operations import LeaseLostError, Operation
from syncd.push.outcomes import CredentialsRejected, Dead, NotFound, Outcome, Retry, Succeeded, Unknown
from syncd.records.fields import SessionRow
from syncd.records.parse import GarbledError, read_session
from syncd.rules.deletion import GONE
from syncd.rules.retry import lag_wait
from syncd.rules.sources import difference

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Database

SERVICE_UNAVAILABLE = 503


@dataclass
class Attempt:
    """A claimed operation in flight.

    `lease_until` is how long the claim is good, `settle` the seconds that look-ups may lag. `sent` tells whether
    a POST has left whose answer is not known. `awaiting_commit` tells that all requests are done and only the outcome
    has to be committed.
    """

    operation: Operation
    albert: ChatSessionCollection
    clock: Clock
    lease_until: datetime
    database: Database
    settle: float
    sent: bool = field(default=False)
    awaiting_commit: bool = field(default=False)

    def interrupted(self) -> Outcome:
        """Tell what a cancellation in the middle of the attempt means."""
        if self.sent:
            return Unknown("the daemon was stopped while the answer was under way")
        return Retry("the daemon was stopped", counts=False, returned=True)

    def check(self) -> None:
        """Make sure, right before a request that changes Albert, that the claim is still good and still there.

        Raises
        ------
        LeaseLostError
            The lease ran out: somebody else may hold the operation.
        DatabaseReplacedError
            The database that the claim was written to is not in its place any more.
        """
        if self.clock.now() >= self.lease_until:
            raise LeaseLostError(f"the lease of operation {self.operation.id} ran out before its request was sent")
        self.database.check_identity()


async def perform(attempt: Attempt) -> Outcome:
    """Make one attempt.

    Raises
    ------
    LeaseLostError
        The claim was lost on the way; nothing that changes Albert was sent after that.
    """
    operation = attempt.operation
    try:
        if operation.kind == "delete":
            return await _delete(attempt)
        if operation.state == "unknown":
            return await _look_again(attempt)
        return await _create(attempt)
    except (InvalidIdError, InvalidRequestError) as error:
        return Dead(str(error))
    except (AlbertException, GarbledError) as error:
        outcome = _failed(error)
    if isinstance(outcome, Dead) and operation.state == "unknown":
        # a look-up that fails decides nothing: the create may have been applied, whatever a GET says now
        return Retry(outcome.error, outcome.status)
    return outcome


async def _create(attempt: Attempt) -> Outcome:
    found = await _look_up(attempt)
    if isinstance(found, Succeeded):
        return found
    if (there := await _there_after_all(attempt)) is not None:
        return there
    operation = attempt.operation
    if "\0" in f"{operation.name}{operation.parent_id}":
        return Dead("the name or the folder holds a NUL, which no answer about it could be stored with")
    body: dict[str, object] = {"name": operation.name, "sourceSessionId": operation.source_session_id}
    if operation.parent_id is not None:
        body["parentId"] = operation.parent_id
    asked_at = utc_text(attempt.clock.now())
    attempt.check()
    attempt.sent = True
    try:
        row = _of_source(read_session(await attempt.albert.create_raw(body=body)), operation)
    except (ConflictError, BadRequestError) as error:
        attempt.sent = False
        return await _adopt_after(attempt, error)
    except (AlbertException, GarbledError) as error:
        if _surely_not_applied(error):
            attempt.sent = False
            raise
        status, retry_after = getattr(error, "status_code", None), getattr(error, "retry_after", None)
        return Unknown(str(error), status, retry_after, down=True)
    # some servers answer a duplicate with the session that was there first
    note = difference(row, name=operation.name or "", parent_id=operation.parent_id)
    return Succeeded(row.id, asked_at, (row,), note=note, status=201, made=True)


async def _there_after_all(attempt: Attempt) -> Outcome | None:
    """Do not trust a 404 over a session that the mirror knows to carry the source id: look-ups lag.

    Returns
    -------
    Outcome | None
        The session, adopted by its id; or a wait, for one that was seen so lately that no look-up may show it yet;
        None when the mirror knows of none that answers.
    """
    operation, now = attempt.operation, attempt.clock.now()
    source_id = operation.source_session_id or ""
    fresh = now - timedelta(seconds=attempt.settle)
    for session_id, observed_at in await sources.look_for_carriers(attempt.database, source_id):
        asked_at = utc_text(attempt.clock.now())
        try:
            row = read_session(await attempt.albert.get_raw(id=session_id))
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            if observed_at is not None and fresh < observed_at <= now:
                words = f"{session_id} was seen lately and is not shown yet: look-ups lag"
                return Retry(words, None, lag_wait(attempt.settle), counts=False)
            continue
        if row.id == session_id and row.source_session_id == source_id:
            note = difference(row, name=operation.name or "", parent_id=operation.parent_id)
            return Succeeded(session_id, asked_at, (row,), note=note, status=200)
    return None


async def _adopt_after(attempt: Attempt, error: ConflictError | BadRequestError) -> Outcome:
    """Look up once more after a 409, or a 400: some servers answer a duplicate so."""
    found = await _look_up(attempt)
    if isinstance(found, Succeeded):
        return found
    if isinstance(error, ConflictError):
        # it is there, and look-ups lag: they are made over the settle time before the create is sent again
        return Unknown(str(error), error.status_code, error.retry_after)
    return Dead(str(error), error.status_code)


async def _look_again(attempt: Attempt) -> Outcome:
    found = await _look_up(attempt)
    return found if isinstance(found, Succeeded) else NotFound(found)


async def _look_up(attempt: Attempt) -> Succeeded | int:
    """Look the source id up: the session that is there to adopt, or the status that says there is none."""
    operation = attempt.operation
    asked_at = utc_text(attempt.clock.now())
    try:
        row = await _by_source(attempt)
    except AlbertHTTPError as error:
        if error.status_code in GONE:
            return error.status_code
        raise
    note = difference(row, name=operation.name or "", parent_id=operation.parent_id)
    return Succeeded(row.id, asked_at, (row,), note=note, status=200)


async def _by_source(attempt: Attempt) -> SessionRow:
    source_id = attempt.operation.source_session_id or ""
    row = read_session(await attempt.albert.get_raw_by_source_session_id(source_session_id=source_id))
    return _of_source(row, attempt.operation)


def _of_source(row: SessionRow, operation: Operation) -> SessionRow:
    """Refuse an answer that is about another session than the one that was asked for."""
    if row.source_session_id != operation.source_session_id:
        raise GarbledError("the answer is a session with another sourceSessionId")
    return row


async def _delete(attempt: Attempt) -> Outcome:
    operation = attempt.operation
    target = operation.session_id or operation.target_session_id or ""
    if not target:
        try:
            target = (await _by_source(attempt)).id
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            found = await _already_gone(attempt, error.status_code)
            if not isinstance(found, str):
                return found
            target = found
        segment(target)  # an id that can never be sent is not worth keeping
        # kept before it is sent: a later attempt must not find, and delete, a session that somebody made since
        await attempt.database.write(lambda c: operations.write(c, operation, target_session_id=target))
    attempt.check()
    try:
        await attempt.albert.delete(id=target)
    except AlbertHTTPError as error:
        if error.status_code not in GONE:
            raise
        return Succeeded(target, gone=(target,), status=error.status_code)
    return Succeeded(target, gone=(target,), status=204)


async def _already_gone(attempt: Attempt, status: int) -> Outcome | str:
    """Albert knows no session with the source id: bring the mirror in line, or find out that look-ups lag.

    Returns
    -------
    Outcome | str
        The id of the session to delete after all: one that the mirror learned of so lately that look-ups may not show
        it yet, or that answers by its id.
    """
    source_id = attempt.operation.source_session_id or ""
    carriers = await sources.look_for_carriers(attempt.database, source_id)
    asked_at = utc_text(attempt.clock.now())
    fresh = attempt.clock.now() - timedelta(seconds=attempt.settle)
    rows, gone = [], []
    for session_id, observed_at in carriers:
        if observed_at is not None and observed_at > fresh:
            return session_id
        try:
            row = read_session(await attempt.albert.get_raw(id=session_id))
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            gone.append(session_id)
            continue
        if row.id == session_id and row.source_session_id == source_id:
            return session_id
        rows.append(row)
    return Succeeded(None, asked_at, tuple(rows), tuple(gone), status=status)


def _surely_not_applied(error: AlbertException | GarbledError) -> bool:
    """Whether a POST that failed so was not applied: it never left, or the server refused it."""
    if isinstance(error, AlbertHTTPError) and error.rejected:
        return True
    return isinstance(error, AlbertException) and error.not_applied


def _failed(error: AlbertException | GarbledError) -> Outcome:
    """Tell what a failed request means that surely was not, or may safely be, applied."""
    text = str(error)
    if isinstance(error, AlbertAuthError | UnauthorizedError):
        return CredentialsRejected(text, getattr(error, "status_code", None))
    if not isinstance(error, AlbertHTTPError):
        return Retry(text, down=True)
    status, retry_after = error.status_code, error.retry_after
    if isinstance(error, TooManyRequestsError) or (status == SERVICE_UNAVAILABLE and retry_after is not None):
        return Retry(text, status, retry_after, counts=False, down=True)
    if isinstance(error, RedirectError):
        return Dead(f"Albert answered with a redirect, which is never followed: {text}", status)
    if error.rejected:
        return Retry(text, status, retry_after) if isinstance(error, ForbiddenError) else Dead(text, status)
    return Retry(text, status, retry_after, down=True)
