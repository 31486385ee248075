"""The outcome of an operation whose request failed. Pure; `runner` calls it."""

from __future__ import annotations

from http import HTTPStatus

from syncd.albert import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    ForbiddenError,
    InvalidRequestError,
    RedirectError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.push.outcomes import CredentialsRejected, Dead, Outcome, Retry, RetryReason
from syncd.push.targets import OtherSessionError
from syncd.records.parse import GarbledError
from syncd.rules.deletion import GONE
from syncd.witness import AbsenceUnprovenError

NOT_A_JUDGEMENT = GONE | {HTTPStatus.METHOD_NOT_ALLOWED}
"""Statuses that a gateway or a missing route answers to a request that changes Albert."""

FailedRequest = AlbertException | GarbledError | AbsenceUnprovenError


def outcome_of(error: FailedRequest) -> Outcome:
    """Return the outcome of a failed request that was not applied, or that may be sent again."""
    text = str(error)
    if isinstance(error, AbsenceUnprovenError):
        return Retry(RetryReason.GATEWAY, text, error.status)
    if isinstance(error, InvalidRequestError) and error.not_applied:
        return Dead(text)
    if isinstance(error, OtherSessionError):
        return Retry(RetryReason.OTHER_SESSION, text)
    if isinstance(error, AlbertAuthError | UnauthorizedError):
        return CredentialsRejected(text, getattr(error, "status_code", None))
    if isinstance(error, AlbertHTTPError):
        return _of_status(error)
    never_sent = isinstance(error, AlbertException) and error.not_applied
    return Retry(RetryReason.UNREACHED if never_sent else RetryReason.NO_ANSWER, text)


def _of_status(error: AlbertHTTPError) -> Outcome:
    text, status, retry_after = str(error), error.status_code, error.retry_after
    if isinstance(error, TooManyRequestsError) or (
        status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after is not None
    ):
        return Retry(RetryReason.ASKED_TO_WAIT, text, status, retry_after)
    if isinstance(error, RedirectError):
        return Dead(f"Albert answered with a redirect, which is never followed: {text}", status)
    if isinstance(error, ForbiddenError):
        return Retry(RetryReason.FORBIDDEN, text, status, retry_after)
    if error.method != "GET" and status in NOT_A_JUDGEMENT:
        return Retry(RetryReason.GATEWAY, f"{text} (no answer to this request that Albert would give)", status)
    if error.rejected:
        return Dead(text, status)
    return Retry(RetryReason.NO_ANSWER, text, status, retry_after)


def surely_not_applied(error: AlbertException | GarbledError) -> bool:
    """Whether a change that failed like this was not applied: it was never sent, or the server refused it."""
    if isinstance(error, AlbertHTTPError) and error.rejected:
        return True
    return isinstance(error, AlbertException) and error.not_applied
