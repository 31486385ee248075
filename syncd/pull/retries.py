"""Repeats one request of a pass until it is answered. Pages and the first request of a pass use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from syncd.albert import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    AlbertTenantError,
    AlbertTransportError,
    ForbiddenError,
    InvalidIdError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.clock import Clock
from syncd.records.enums import PassReason
from syncd.records.parse import GarbledError
from syncd.records.reasons import Reason
from syncd.rules.retry import Backoff

T = TypeVar("T")

ATTEMPTS = 5
"""Failed attempts of one request before the pass fails. The next pass comes anyway."""
WAITS = 60
"""Times that Albert may ask for a wait (429, or a Retry-After) before the pass fails."""


class ListingError(Exception):
    """The pass cannot continue.

    Attributes
    ----------
    reason : Reason
        Its sentence is also the message of the error.
    """

    def __init__(self, code: PassReason, text: str) -> None:
        super().__init__(text)
        self.reason = Reason(code, text)


class CeilingError(ListingError):
    """The pass would exceed its ceiling of pages or time."""

    def __init__(self, text: str) -> None:
        super().__init__(PassReason.CEILING, text)


class RefusedError(ListingError):
    """Albert refuses the request, and would refuse it again."""


@dataclass(frozen=True, kw_only=True)
class RequestRetries:
    """How a request of a pass is repeated.

    Parameters
    ----------
    jitter : Callable[[], float]
        Draws a number from 0 to 1 that spreads the waits.
    ceiling : Callable[[float], str | None]
        Returns why a pass that waits for this many more seconds would exceed its ceiling; None if it would not.
    on_retry : Callable[[Exception, float], None]
        Receives each error that is retried, and the seconds until then.
    """

    clock: Clock
    backoff: Backoff
    jitter: Callable[[], float]
    ceiling: Callable[[float], str | None]
    on_retry: Callable[[Exception, float], None]

    async def run(self, request: Callable[[], Awaitable[T]], what: str) -> T:
        """Send a request until it is answered, and return what the function returns.

        Parameters
        ----------
        request : Callable[[], Awaitable[T]]
            Sends the request once. An `AlbertException` or a `GarbledError` from it is an attempt that failed.
        what : str
            Names the request in messages, such as "a page".

        Raises
        ------
        CeilingError
            The time of the pass would run out before the next attempt.
        RefusedError
            Albert refuses the request.
        ListingError
            Albert refuses the credentials, or the request failed too often.
        InvalidIdError
            The request names an id that cannot be sent.
        """
        failures = waits = 0
        while True:
            try:
                return await request()
            except InvalidIdError:
                raise
            except AlbertTenantError as error:
                raise ListingError(PassReason.OTHER_TENANT, str(error)) from error
            except (AlbertAuthError, UnauthorizedError) as error:
                text = f"Albert refuses the credentials: {error}"
                raise ListingError(PassReason.CREDENTIALS_REFUSED, text) from error
            except (AlbertException, GarbledError) as error:
                if is_final(error):
                    raise RefusedError(PassReason.LISTING_REFUSED, str(error)) from error
                retry_after = requested_wait(error)
                if asks_for_wait(error):
                    waits += 1
                else:
                    failures += 1
                if failures >= ATTEMPTS or waits >= WAITS:
                    text = f"gave up on {what} after {failures + waits} attempts: {error}"
                    raise ListingError(_reason_of(error), text) from error
                await self._wait(error, failures, retry_after, what)

    async def _wait(self, error: Exception, failures: int, retry_after: float | None, what: str) -> None:
        wait = self.backoff.wait(max(failures, 1), jitter=self.jitter(), retry_after=retry_after)
        if (ceiling := self.ceiling(wait)) is not None:
            raise CeilingError(f"{ceiling}, waiting for {what}: {error}") from error
        self.on_retry(error, wait)
        await self.clock.sleep(wait)


def _reason_of(error: Exception) -> PassReason:
    """Return the kind of the last failure: the status page shows it, without Albert's text."""
    if isinstance(error, AlbertTransportError):
        return PassReason.ALBERT_UNREACHABLE
    return PassReason.ALBERT_FAILING if isinstance(error, AlbertHTTPError) else PassReason.ANSWER_UNREADABLE


def requested_wait(error: Exception) -> float | None:
    """Return the seconds of Retry-After in the answer that an error stands for; None if it has none."""
    return error.retry_after if isinstance(error, AlbertHTTPError) else None


def asks_for_wait(error: Exception) -> bool:
    """Whether Albert asks for a wait before the next request: a 429, or a Retry-After."""
    return isinstance(error, TooManyRequestsError) or requested_wait(error) is not None


def is_final(error: Exception) -> bool:
    """Whether the same request would be refused again. Albert's 403 is sometimes transient."""
    if isinstance(error, ForbiddenError | TooManyRequestsError):
        return False
    return isinstance(error, AlbertHTTPError) and error.rejected
