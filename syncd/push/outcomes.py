"""What can become of an attempt at an operation: small frozen types, so that who judges an answer writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.records.fields import SessionRow


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The effect is there. `rows` are sessions as Albert has them, asked for at `asked_at`; `gone` are deleted ones.

    `made` tells that the answer is that of the create itself, which does not lag as look-ups do.
    """

    session_id: str | None
    asked_at: str = ""
    rows: tuple[SessionRow, ...] = ()
    gone: tuple[str, ...] = ()
    note: str | None = None
    status: int | None = None
    made: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Not applied, and may go better later.

    `counts` tells whether it was an attempt, `retry_after` is in seconds, `down` tells that Albert may be down for
    everybody: no answer, one that cannot be read, a 5xx or a 429. `returned` tells that nothing failed: the
    claim is given back because the queue came to rest or the daemon stops.
    """

    error: str
    status: int | None = None
    retry_after: float | None = None
    counts: bool = True
    down: bool = False
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """A create was sent and nobody knows whether it was applied; `down` as for `Retry`."""

    error: str
    status: int | None = None
    retry_after: float | None = None
    down: bool = False


@dataclass(frozen=True, slots=True)
class NotFound:
    """A look-up for an unknown create found nothing."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """It can never go well as it is."""

    error: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class CredentialsRejected:
    """Albert refuses the credentials: the operation has no part in it."""

    error: str
    status: int | None = None


Outcome = Succeeded | Retry | Unknown | NotFound | Dead | CredentialsRejected


def proves_available(outcome: Outcome) -> bool:
    """Whether an outcome shows that Albert works: a request that changes it was judged on its merits.

    A look-up that finds nothing and a 403, which Albert's gateway gives at times, show neither the one nor the other.
    """
    match outcome:
        case Succeeded():
            return True
        case Dead():
            return outcome.status is not None
        case Unknown():
            return not outcome.down
    return False
