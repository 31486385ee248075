"""The errors of the client, divided by what the caller does about them.

The names are those of the official SDK, so that code can be moved::

    AlbertException                    the base; `.not_applied`: Albert has certainly not acted on the request
    ├── InvalidRequestError            nothing was sent: fix the arguments (also a ValueError). The exception: the
    │   │                              program closed the session during the request, which may have been applied
    │   └── InvalidIdError             an id that cannot be sent as one path segment
    ├── AlbertAuthError                no token was obtained: fix the credentials
    │   └── AlbertTenantError          the token belongs to another tenant than expected; nothing was sent
    ├── AlbertTransportError           there is no answer
    │   ├── AlbertConnectError         no connection was established, nothing was sent: send it again
    │   ├── AlbertTimeoutError         the deadline of the whole request passed: it may have been applied, unless
    │   │                          `.not_applied`
    │   └── AlbertLostError            the connection broke, or the answer was cut: it may have been applied
    ├── AlbertResponseError            an answer that cannot be read: it may have been applied
    └── AlbertHTTPError                a status that is not 2xx
        ├── RedirectError              3xx; redirects are never followed: fix the base URL
        ├── AlbertClientError          4xx: a repetition gets the same answer, except for 401, 403, 408 and 429
        │   ├── BadRequestError            400
        │   ├── UnauthorizedError          401, after the token was renewed once
        │   ├── ForbiddenError             403
        │   ├── NotFoundError              404
        │   ├── ConflictError              409
        │   ├── GoneError                  410
        │   ├── PreconditionFailedError    412
        │   ├── UnsupportedMediaTypeError  415
        │   ├── PreconditionRequiredError  428
        │   └── TooManyRequestsError       429: wait for `.retry_after`
        └── AlbertServerError          5xx: it may have been applied
            ├── InternalServerError        500
            ├── BadGateway                 502
            └── ServiceUnavailableError    503

No text of an error or of its cause contains a token, a secret or a header. All errors can be pickled.
"""

from __future__ import annotations

from typing import Any, ClassVar

_REQUEST_TIMEOUT = 408


class AlbertException(Exception):  # noqa: N818 - the official SDK's name
    """The base of the errors that this library raises.

    Attributes
    ----------
    message : str
        The cause; for an :class:`AlbertHTTPError`, the message of the server.
    method, path : str | None
        The request, if there was one. The path is the one on the wire, without the query.
    not_applied : bool
        Whether Albert has certainly not acted on the request of the caller. It was never sent (no connection, no token,
        bad arguments), or it was refused with a 401 or 429. False means that this is not known.
    """

    _NOT_APPLIED: ClassVar[bool] = False

    def __init__(self, message: str, *, method: str | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.method = method
        self.path = path
        self.not_applied = self._NOT_APPLIED

    def __str__(self) -> str:
        if self.method is None:
            return self.message
        return f"{self.method} {_shortened(self.path or '')}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[AlbertException], args: tuple[Any, ...], state: dict[str, Any]) -> AlbertException:
    """Restore an error without ``__init__``, because a pickle does not contain its keywords."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _shortened(path: str, limit: int = 200) -> str:
    return path if len(path) <= limit else f"{path[:limit]}…"


class InvalidRequestError(AlbertException, ValueError):
    """The arguments cannot be sent, or the session is closed. Nothing was sent if ``not_applied``.

    ``not_applied`` is False only if the program closed the session after the request was sent, and before the answer.
    """

    _NOT_APPLIED = True


class InvalidIdError(InvalidRequestError):
    """An id cannot be sent as one path segment. Nothing was sent."""


class AlbertAuthError(AlbertException):
    """No token was obtained: the credentials were refused or cannot be read, or the answer contains no token."""

    _NOT_APPLIED = True


class AlbertTenantError(AlbertAuthError):
    """The token belongs to another tenant than the caller expects. No request was sent with it."""


class AlbertTransportError(AlbertException):
    """There is no answer."""


class AlbertConnectError(AlbertTransportError):
    """No connection was established (name, route, refusal, proxy, TLS, or a timeout of these). Nothing was sent."""

    _NOT_APPLIED = True


class AlbertTimeoutError(AlbertTransportError):
    """The deadline of the whole request passed. It may have been applied, unless ``not_applied``."""


class AlbertLostError(AlbertTransportError):
    """The connection broke before the whole answer was received. The request may have been applied."""


class AlbertResponseError(AlbertException):
    """An answer cannot be read: not HTTP, not JSON, wrong shape, or too large. The request may have been applied."""


class AlbertHTTPError(AlbertException):
    """An answer has a status that is not 2xx.

    Attributes
    ----------
    status_code : int
        The status.
    message : str
        The message of the server: one line of at most 500 characters, with control characters escaped. It can be empty.
    body : str
        The body as text, at most 4,096 characters. Secrets are replaced, as in ``message``.
    retry_after : float | None
        The seconds of ``Retry-After``, without a limit; None if it is absent, malformed or in the past.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int,
        method: str | None = None,
        path: str | None = None,
        retry_after: float | None = None,
        body: str = "",
    ) -> None:
        super().__init__(message, method=method, path=path)
        self.status_code = status_code
        self.retry_after = retry_after
        self.body = body

    @property
    def rejected(self) -> bool:
        """Return whether the server refused the request: a 3xx, or a 4xx other than 408.

        Only `not_applied` shows whether Albert certainly did not act: a gateway can answer instead of Albert. It can
        still be useful to repeat the request (403 and 429).
        """
        return self.status_code // 100 in {3, 4} and self.status_code != _REQUEST_TIMEOUT

    def __str__(self) -> str:
        request = f"{self.method} {_shortened(self.path or '')} " if self.method else ""
        message = f": {self.message}" if self.message else ""
        return f"{request}answered {self.status_code}{message}"


class RedirectError(AlbertHTTPError):
    """3xx. Redirects are never followed, because the token is sent to the configured origin only."""


class AlbertClientError(AlbertHTTPError):
    """4xx."""


class BadRequestError(AlbertClientError):
    """400."""


class UnauthorizedError(AlbertClientError):
    """401, also with a token that was renewed for this request."""

    _NOT_APPLIED = True


class ForbiddenError(AlbertClientError):
    """403. It is sometimes transient with Albert."""


class NotFoundError(AlbertClientError):
    """404."""


class ConflictError(AlbertClientError):
    """409."""


class GoneError(AlbertClientError):
    """410."""


class PreconditionFailedError(AlbertClientError):
    """412."""


class UnsupportedMediaTypeError(AlbertClientError):
    """415."""


class PreconditionRequiredError(AlbertClientError):
    """428."""


class TooManyRequestsError(AlbertClientError):
    """429."""

    _NOT_APPLIED = True


class AlbertServerError(AlbertHTTPError):
    """5xx. The request may have been applied."""


class InternalServerError(AlbertServerError):
    """500."""


class BadGateway(AlbertServerError):  # noqa: N818 - the official SDK's name
    """502."""


class ServiceUnavailableError(AlbertServerError):
    """503."""


_BY_STATUS: dict[int, type[AlbertHTTPError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    412: PreconditionFailedError,
    415: UnsupportedMediaTypeError,
    428: PreconditionRequiredError,
    429: TooManyRequestsError,
    500: InternalServerError,
    502: BadGateway,
    503: ServiceUnavailableError,
}
_BY_FAMILY: dict[int, type[AlbertHTTPError]] = {3: RedirectError, 4: AlbertClientError, 5: AlbertServerError}


def http_error_class(status: int) -> type[AlbertHTTPError]:
    """Return the class for a status: its own, that of its family, or the base."""
    return _BY_STATUS.get(status) or _BY_FAMILY.get(status // 100, AlbertHTTPError)
