"""The possible results of an attempt at an operation. `kinds` and `answers` produce them, `record` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from syncd.records.fields import SessionRow
from syncd.records.ids import SessionId


class RetryReason(StrEnum):
    """Why an operation is tried again later although nothing was applied."""

    NO_ANSWER = "no answer"
    """No answer, an unreadable one, or a 5xx."""
    UNREACHED = "not reached"
    """There is no connection or no token, so nothing was sent: the operation is not the cause."""
    ASKED_TO_WAIT = "asked to wait"
    """A 429, or a 503 with `Retry-After`."""
    FORBIDDEN = "forbidden"
    """A 403, which Albert sometimes answers without a lasting reason."""
    GATEWAY = "gateway"
    """A 404, 405 or 410 that does not prove that Albert itself answered."""
    LAGGING = "lagging"
    """Look-ups do not show yet what the mirror knows."""
    UNCHANGED = "unchanged"
    """Albert accepted a change, and does not show it yet."""
    UNDECIDED = "undecided"
    """A look-up of an unknown create was refused, which does not show whether the create was applied."""
    OTHER_SESSION = "other session"
    """A look-up by source id finds a session that carries another one."""
    RETURNED = "returned"
    """Nothing failed: the claim is given back because the queue rests or the daemon stops."""

    @property
    def uses_attempt(self) -> bool:
        """Whether the try counts against the most attempts."""
        return self in {
            RetryReason.NO_ANSWER,
            RetryReason.FORBIDDEN,
            RetryReason.UNCHANGED,
            RetryReason.OTHER_SESSION,
        }

    @property
    def may_be_outage(self) -> bool:
        """Whether Albert may answer no operation at all at the moment."""
        return self in {
            RetryReason.NO_ANSWER,
            RetryReason.UNREACHED,
            RetryReason.ASKED_TO_WAIT,
            RetryReason.FORBIDDEN,
            RetryReason.GATEWAY,
        }


class UnknownReason(StrEnum):
    """Why it is not known whether a create was applied."""

    LOST_ANSWER = "lost answer"
    """No readable answer, or a 5xx."""
    STOPPED = "stopped"
    """The daemon stopped before the answer arrived."""
    CONFLICT = "conflict"
    """A 409, and no look-up shows the session yet."""
    OTHER_SOURCE = "other source id"
    """The session was created, with another source id than requested."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The results of an attempt for sessions, to be written to the mirror.

    Attributes
    ----------
    asked_at : str
        When the sessions were requested, as text of `clock.utc_text`.
    rows : tuple[SessionRow, ...]
        Sessions as Albert returned them.
    gone : tuple[SessionId, ...]
        Ids of sessions that Albert does not have any more.
    made : bool
        The row is the answer to the create itself, which does not lag as look-ups do.
    """

    asked_at: str = ""
    rows: tuple[SessionRow, ...] = ()
    gone: tuple[SessionId, ...] = ()
    made: bool = False


NO_EFFECT = Effect()


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The operation has its effect in Albert; `note` is the difference between the session and the request."""

    session_id: SessionId | None
    effect: Effect = NO_EFFECT
    note: str | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not applied, or a delete that may be sent again; it may succeed later.

    Attributes
    ----------
    retry_after : float | None
        Seconds to wait; None to wait by the backoff.
    refunds : int
        Earlier attempts that do not count, because an outage and not the operation was their reason.
    outage : bool
        Albert fails for every operation, so that this try does not count either.
    may_be_deleted : bool
        A delete was sent and its answer was lost: the session may be gone.
    """

    reason: RetryReason
    error: str
    status: int | None = None
    retry_after: float | None = None
    refunds: int = 0
    outage: bool = False
    may_be_deleted: bool = False

    @property
    def uses_attempt(self) -> bool:
        """Whether the try counts against the most attempts."""
        return self.reason.uses_attempt and not self.outage


@dataclass(frozen=True, slots=True)
class Unknown:
    """A create was sent, and it is not known whether it was applied; it is looked up before it is sent again."""

    reason: UnknownReason
    error: str
    status: int | None = None
    retry_after: float | None = None
    effect: Effect = NO_EFFECT
    refunds: int = 0


@dataclass(frozen=True, slots=True)
class NotFound:
    """A look-up of an unknown create found nothing."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """The operation cannot succeed as it is. `session_id` is the session that it created nevertheless."""

    error: str
    status: int | None = None
    session_id: SessionId | None = None


@dataclass(frozen=True, slots=True)
class CredentialsRejected:
    """Albert refuses the credentials, which does not depend on the operation."""

    error: str
    status: int | None = None


Outcome = Succeeded | Retry | Unknown | NotFound | Dead | CredentialsRejected


def may_be_outage(outcome: Outcome) -> bool:
    """Whether Albert may answer no operation at all at the moment."""
    match outcome:
        case Retry():
            return outcome.reason.may_be_outage
        case Unknown():
            return outcome.reason is UnknownReason.LOST_ANSWER
    return False


def proves_available(outcome: Outcome) -> bool:
    """Whether an outcome shows that Albert works: it decided about a request that changes it.

    A look-up that finds nothing shows neither, nor does a 403, which Albert's gateway answers at times.
    """
    match outcome:
        case Succeeded():
            return True
        case Dead():
            return outcome.status is not None
        case Unknown():
            return not may_be_outage(outcome)
    return False
