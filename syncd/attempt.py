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
    AlbertServerError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidIdError,
    InvalidRequestError,
    RedirectError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.clock import utc_text
from syncd.decide import GONE, difference
from syncd.listing import ID, SOURCE, GarbledError, Row, read_session
from syncd.mirror import operations, sessions, sources
from syncd.mirror.operations import LeaseLostError, Operation

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.database import Database

REQUEST_TIMEOUT = 408
SERVICE_UNAVAILABLE = 503
LAG_STEP = 0.1
"""The part of the settle time after which an operation looks again when look-ups lag behind the mirror."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The effect is there. `rows` are sessions as Albert has them, asked for at `asked_at`; `gone` are deleted ones."""

    session_id: str | None
    asked_at: str = ""
    rows: tuple[Row, ...] = ()
    gone: tuple[str, ...] = ()
    note: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not applied, and may go better later; `counts` tells whether it was an attempt, `retry_after` is in seconds."""

    error: str
    status: int | None = None
    retry_after: float | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Unknown:
    """A create was sent and nobody knows whether it was applied."""

    error: str
    status: int | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Missed:
    """A look-up for an unknown create found nothing."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """It can never go well as it is."""

    error: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Albert refuses the credentials: the operation has no part in it."""

    error: str
    status: int | None = None


Outcome = Succeeded | Retry | Unknown | Missed | Dead | Refused


@dataclass
class Attempt:
    """A claimed operation in flight.

    `sent` tells whether a POST has left, `lease_until` how long the claim is good, `settle` for how many seconds a
    look-up may lag behind what was done.
    """

    operation: Operation
    albert: ChatSessionCollection
    clock: Clock
    lease_until: datetime
    database: Database
    sent: bool = field(default=False)
    settle: float = 0.0

    def interrupted(self) -> Outcome:
        """Tell what a cancellation in the middle of the attempt means."""
        if self.sent:
            return Unknown("the daemon was stopped while the answer was under way")
        return Retry("the daemon was stopped", counts=False)

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
        return _failed(error)


async def _create(attempt: Attempt) -> Outcome:
    found = await _look_up(attempt)
    if not isinstance(found, int):
        return found
    if (lags := await _lags(attempt, None, found)) is not None:
        return lags
    operation = attempt.operation
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
        return Unknown(str(error), getattr(error, "status_code", None), getattr(error, "retry_after", None))
    return Succeeded(row[ID], asked_at, (row,), status=201)


async def _adopt_after(attempt: Attempt, error: ConflictError | BadRequestError) -> Outcome:
    """Look up once more after a 409, or a 400: some servers answer a duplicate so."""
    found = await _look_up(attempt)
    if not isinstance(found, int):
        return found
    if isinstance(error, ConflictError):
        return Retry(str(error), error.status_code)  # it is there, and look-ups lag
    return Dead(str(error), error.status_code)


async def _look_again(attempt: Attempt) -> Outcome:
    found = await _look_up(attempt)
    return Missed(found) if isinstance(found, int) else found


async def _lags(attempt: Attempt, found: Row | None, status: int) -> Retry | None:
    """Wait where the mirror knows better than the look-up: it has just seen, or buried, what that denies."""
    source_id, now = attempt.operation.source_session_id or "", attempt.clock.now()
    since = now - timedelta(seconds=attempt.settle)
    words = await attempt.database.read(lambda c: sessions.lags(c, source_id, found, since=since, now=now))
    return None if words is None else Retry(words, status, attempt.settle * LAG_STEP, counts=False)


async def _look_up(attempt: Attempt) -> Succeeded | Retry | int:
    """Look the source id up: the session that is there to adopt, or the status that says there is none."""
    operation = attempt.operation
    asked_at = utc_text(attempt.clock.now())
    try:
        row = await _by_source(attempt)
    except AlbertHTTPError as error:
        if error.status_code in GONE:
            return error.status_code
        raise
    if (lags := await _lags(attempt, row, 200)) is not None:
        return lags
    note = difference(row, name=operation.name or "", parent_id=operation.parent_id)
    return Succeeded(row[ID], asked_at, (row,), note=note, status=200)


async def _by_source(attempt: Attempt) -> Row:
    source_id = attempt.operation.source_session_id or ""
    row = read_session(await attempt.albert.get_raw_by_source_session_id(source_session_id=source_id))
    return _of_source(row, attempt.operation)


def _of_source(row: Row, operation: Operation) -> Row:
    """Refuse an answer that is about another session than the one that was asked for."""
    if row[SOURCE] != operation.source_session_id:
        raise GarbledError("the answer is a session with another sourceSessionId")
    return row


async def _delete(attempt: Attempt) -> Outcome:
    operation = attempt.operation
    target = operation.session_id or operation.target_session_id
    if target is None:
        try:
            target = (await _by_source(attempt))[ID]
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            return await _already_gone(attempt, error.status_code)
        # kept before it is sent: a later attempt must not find, and delete, a session that somebody made since
        await attempt.database.write(lambda c: operations.write(c, operation, target_session_id=target))
    attempt.check()
    try:
        await attempt.albert.delete(id=target or "")
    except AlbertHTTPError as error:
        if error.status_code not in GONE:
            raise
        return Succeeded(target, gone=(target or "",), status=error.status_code)
    return Succeeded(target, gone=(target or "",), status=204)


async def _already_gone(attempt: Attempt, status: int) -> Outcome:
    """Bring the mirror in line when Albert knows no session with the source id: ask for those the mirror has."""
    if (lags := await _lags(attempt, None, status)) is not None:
        return lags
    source_id = attempt.operation.source_session_id or ""
    carriers = await attempt.database.read(lambda c: sources.carriers(c, source_id))
    asked_at = utc_text(attempt.clock.now())
    rows, gone = [], []
    for session_id in carriers:
        try:
            rows.append(read_session(await attempt.albert.get_raw(id=session_id)))
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            gone.append(session_id)
    if any(row[SOURCE] == source_id for row in rows):
        return Retry("the source id answers 404 and its session does not: look-ups lag", status)
    return Succeeded(None, asked_at, tuple(rows), tuple(gone), status=status)


def _surely_not_applied(error: AlbertException | GarbledError) -> bool:
    """Whether a POST that failed so was not applied: it never left, or the server refused it."""
    if isinstance(error, AlbertHTTPError) and not isinstance(error, AlbertServerError):
        return error.status_code != REQUEST_TIMEOUT
    return isinstance(error, AlbertException) and error.not_applied


def _failed(error: AlbertException | GarbledError) -> Outcome:
    """Tell what a failed request means that surely was not, or may safely be, applied."""
    text = str(error)
    if isinstance(error, AlbertAuthError | UnauthorizedError):
        return Refused(text, getattr(error, "status_code", None))
    if not isinstance(error, AlbertHTTPError):
        return Retry(text)
    status, told = error.status_code, error.retry_after
    if isinstance(error, TooManyRequestsError) or (status == SERVICE_UNAVAILABLE and told is not None):
        return Retry(text, status, told, counts=False)
    if isinstance(error, ForbiddenError | AlbertServerError) or status == REQUEST_TIMEOUT:
        return Retry(text, status, told)
    if isinstance(error, RedirectError):
        return Dead(f"Albert answered with a redirect, which is never followed: {text}", status)
    return Dead(text, status)
