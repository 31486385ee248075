"""What can go wrong between here and Albert, split by what the caller does about it.

The names are the official SDK's, so that code can move over::

    AlbertException                    the base of all; `.not_applied`: Albert surely did not act on it
    ├── InvalidRequestError            raised before the wire: mend the arguments (also a ValueError)
    │   └── InvalidIdError             an id that cannot be sent as one path segment
    ├── AlbertAuthError                no token could be had: mend the credentials
    ├── AlbertTransportError           no answer
    │   ├── AlbertConnectError         the connection was never made, nothing was sent: send it again
    │   ├── AlbertTimeoutError         the deadline of the whole request passed: it may have been applied
    │   └── AlbertLostError            reset, disconnected, or the answer was cut: it may have been applied
    ├── AlbertResponseError            an answer that cannot be read: it may have been applied
    └── AlbertHTTPError                a status that is not a success
        ├── RedirectError              3xx; redirects are never followed: mend the base URL
        ├── AlbertClientError          4xx: sending the same again brings the same, but for 401, 403 and 429
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

No text of any of them, nor of a cause, holds a token, a secret or a header. All of them can be pickled.
"""

from __future__ import annotations

from typing import Any, ClassVar

_REQUEST_TIMEOUT = 408


class AlbertException(Exception):  # noqa: N818 - the official SDK's name
    """The base of everything that this library raises on its own account.

    Attributes
    ----------
    message : str
        What went wrong; for an :class:`AlbertHTTPError`, the server's words.
    method, path : str | None
        The request, as far as there was one. The path is the one on the wire, without the query.
    not_applied : bool
        Albert surely did not act on the request that the caller made: it never left (no connection, no token,
        bad arguments), or was turned away at the door with a 401 or 429. False means that it is not known.
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
    """Undo ``__reduce__`` without ``__init__``, whose keywords a pickle does not carry."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _shortened(path: str, limit: int = 200) -> str:
    return path if len(path) <= limit else f"{path[:limit]}…"


class InvalidRequestError(AlbertException, ValueError):
    """The arguments cannot be sent; nothing was."""

    _NOT_APPLIED = True


class InvalidIdError(InvalidRequestError):
    """An id that cannot be sent as one path segment; nothing was sent."""


class AlbertAuthError(AlbertException):
    """No token could be had: the credentials were refused, or the token endpoint's answer holds none."""

    _NOT_APPLIED = True


class AlbertTransportError(AlbertException):
    """There is no answer."""


class AlbertConnectError(AlbertTransportError):
    """The connection was never made (name, route, refusal, TLS, or a time-out of these): nothing was sent."""

    _NOT_APPLIED = True


class AlbertTimeoutError(AlbertTransportError):
    """The deadline of the whole request passed; it may have been applied, unless ``not_applied``."""


class AlbertLostError(AlbertTransportError):
    """The connection broke before the whole answer was there; the request may have been applied."""


class AlbertResponseError(AlbertException):
    """An answer that cannot be read: no JSON, wrong shape, too large. It may have been applied."""


class AlbertHTTPError(AlbertException):
    """An answer with a status that is not a success.

    Attributes
    ----------
    status_code : int
        The status.
    message : str
        The server's words, one line of up to 500 characters with control characters escaped; may be empty.
    body : str
        The body as text, up to 4,096 characters; secrets are replaced as in ``message``.
    judged : bool
        The server turned the request down, and surely did not act on it.
    retry_after : float | None
        Seconds that the server asked to wait for, as it said them (not capped), or None.
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
        """Whether the server judged the request and turned it down: a 3xx, or a 4xx but 408, which had not all of it.

        It was not applied then; whether to send it again is another question (403 and 429).
        """
        return self.status_code // 100 in {3, 4} and self.status_code != _REQUEST_TIMEOUT

    def __str__(self) -> str:
        request = f"{self.method} {_shortened(self.path or '')} " if self.method else ""
        words = f": {self.message}" if self.message else ""
        return f"{request}answered {self.status_code}{words}"


class RedirectError(AlbertHTTPError):
    """3xx. Redirects are never followed: the token goes to the configured origin only."""


class AlbertClientError(AlbertHTTPError):
    """4xx."""


class BadRequestError(AlbertClientError):
    """400."""


class UnauthorizedError(AlbertClientError):
    """401, also with a token that was renewed for this request."""

    _NOT_APPLIED = True


class ForbiddenError(AlbertClientError):
    """403; Albert's is sometimes transient."""


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
    """5xx; the request may have been applied."""


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
    """Return the class for a status: its own, or its family's, or the base for a status of no family."""
    return _BY_STATUS.get(status) or _BY_FAMILY.get(status // 100, AlbertHTTPError)
