"""One origin, its credentials, and one deadline for each request: what every call to Albert goes through."""

from __future__ import annotations

import json as jsonlib
import math
import re
import ssl
import time
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Self

import anyio
import httpx
from pydantic import SecretStr

from syncd.albert.answers import http_error, redactor
from syncd.albert.auth import (
    TOKEN_PATH,
    AlbertClientCredentials,
    Credentials,
    StaticToken,
    Token,
    TokenReader,
)
from syncd.albert.bodies import ENCODINGS
from syncd.albert.errors import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    AlbertResponseError,
    AlbertServerError,
    AlbertTimeoutError,
    InvalidRequestError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.albert.transport import Transport
from syncd.albert.urls import checked_base_url, checked_path, query
from syncd.albert.wire import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from syncd.albert.urls import Params

try:
    _VERSION = version("syncd")
except PackageNotFoundError:  # run from a checkout that was never installed
    _VERSION = "0"

_CONNECT_SHARE: Final = 10.0
_LINE_BREAK: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS: Final = frozenset(
    {"authorization", "host", "accept-encoding", "content-length", "transfer-encoding", "connection"}
)
_JSON: Final = jsonlib.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_TOKEN_HEADERS: Final = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "User-Agent": f"syncd/{_VERSION}",
    "Accept-Encoding": ENCODINGS,
}


class AsyncAlbertSession:
    """An async session for the Albert API; use it as an async context manager, or call ``aclose``.

    Parameters
    ----------
    base_url : str
        ``https://host``, with a path prefix or without; http on loopback only. Secrets go to this origin
        alone.
    token : str | SecretStr | Callable[[], str] | None
        A fixed token, or a function that reads it: that is called once, and again after a 401.
    auth_manager : AlbertClientCredentials | None
        Gets and renews tokens; overrides ``token``.
    headers : Mapping[str, str] | None
        Sent with every API request, replacing a default of the same name. ``Authorization``, ``Host`` and
        ``Accept-Encoding`` are the session's own.
    timeout : float
        Seconds for the whole of a request: connecting, the body, and a renewed token with the request sent
        again. The connection gets up to half of it, at most 10.
    max_response_bytes : int
        The limit of a body before and after decompression.
    max_connections : int
        Connections open at once.
    before_request : Callable[[], Awaitable[None]] | None
        Awaited before every request, those for tokens included (a rate limiter). Not part of the deadline.
    after_request : Callable[[str, int | BaseException, float], None] | None
        Told of every request that was sent: its method (``TOKEN`` for one to the token endpoint), the status or the
        error that ended it, and the seconds it took. For metrics.
    verify : ssl.SSLContext | None
        For a CA of one's own. It must check certificates and host names.

    Notes
    -----
    Nothing is retried, no redirect is followed, no proxy of the environment is used, no cookie is kept. The
    one exception: a request that was refused with a 401 is sent once more when there is another token.

    Raises
    ------
    ValueError
        No credentials, a base URL that a secret must not go to, or a context that does not check
        certificates.
    """

    def __init__(
        self,
        *,
        base_url: str,
        token: str | SecretStr | Callable[[], str] | None = None,
        auth_manager: AlbertClientCredentials | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        max_response_bytes: int = 67_108_864,
        max_connections: int = 100,
        before_request: Callable[[], Awaitable[None]] | None = None,
        after_request: Callable[[str, int | BaseException, float], None] | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        if verify is not None and (verify.verify_mode != ssl.CERT_REQUIRED or not verify.check_hostname):
            raise ValueError("verify must be a context that checks certificates and host names")
        self.base_url = checked_base_url(base_url)
        self._credentials = _credentials(token, auth_manager)
        self._timeout = timeout
        self._before_request = before_request
        self._after_request = after_request
        self.refused = False
        """Whether Albert refuses the credentials: it did when it was last asked."""
        self._headers = _merged(headers)
        self._hidden: tuple[list[str], Callable[[str], str]] = ([], redactor(()))
        self._transport = Transport(
            connect_timeout=min(timeout / 2, _CONNECT_SHARE),
            max_response_bytes=max_response_bytes,
            max_connections=max_connections,
            verify=verify,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
    ) -> httpx.Response:
        """Send one request and return its answer as httpx's; see :meth:`ask`."""
        return (await self.ask(method, path, params=params, json=json)).response()

    async def ask(self, method: str, path: str, *, params: Params | None = None, json: object = None) -> Answer:
        """Send one request and return its answer, the body read.

        Parameters
        ----------
        method : str
            In capitals.
        path : str
            Percent-encoded, beginning with a slash; ids in it by :func:`syncd.albert.paths.segment`.
        params : Mapping[str, str | Sequence[str] | None] | None
            The query, not encoded; a name is repeated for each of a sequence, None is left out.
        json : object
            The body; None for no body.

        Raises
        ------
        AlbertException
            Any but :class:`InvalidIdError`; see :mod:`syncd.albert.errors`.
        """
        course = _RequestState()
        request = self._request(method, path, params, json)
        with anyio.move_on_after(self._timeout) as course.deadline:
            try:
                answer = await self._authorized(request, course)
            except (AlbertAuthError, UnauthorizedError):
                self.refused = True
                raise
            self.refused = False
            return answer
        # Only the deadline comes here.
        late = AlbertTimeoutError(f"no whole answer within {self._timeout:g} seconds")
        late.not_applied = not course.sent
        raise _placed(late, request)

    async def get(self, path: str, *, params: Params | None = None) -> httpx.Response:
        """Send a GET; see :meth:`request`."""
        return await self.request("GET", path, params=params)

    async def post(self, path: str, *, params: Params | None = None, json: object = None) -> httpx.Response:
        """Send a POST; see :meth:`request`."""
        return await self.request("POST", path, params=params, json=json)

    async def patch(self, path: str, *, params: Params | None = None, json: object = None) -> httpx.Response:
        """Send a PATCH; see :meth:`request`."""
        return await self.request("PATCH", path, params=params, json=json)

    async def delete(self, path: str, *, params: Params | None = None) -> httpx.Response:
        """Send a DELETE; see :meth:`request`."""
        return await self.request("DELETE", path, params=params)

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _request(self, method: str, path: str, params: Params | None, json: object) -> Request:
        """Return the request without its token; raises what is wrong with the arguments."""
        url = self.base_url + checked_path(path)
        asked = query(params) if params else ""
        content = None if json is None else _encoded(json)
        return Request(method, f"{url}?{asked}" if asked else url, content)

    async def _authorized(self, request: Request, course: _RequestState) -> Answer:
        """Send ``request`` with a token; once more with another one if that is refused."""
        token = self._credentials.at_hand() or await self._token(None, course)
        answer = await self._send(request, token, course)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            course.sent = False  # it was turned away at the door
            other = await self._token(token, course)
            if other is not None:
                token = other
                answer = await self._send(request, token, course)
        if answer.is_success:
            return answer
        raise http_error(answer, hide=self._hide(token))

    async def _token(self, rejected: Token | None, course: _RequestState) -> Token | None:
        try:
            return await self._credentials.renewed(rejected, partial(self._ask_for_token, course))
        except AlbertException as error:
            error.not_applied = True
            raise

    async def _ask_for_token(self, course: _RequestState, base_url: str | None, form: bytes) -> Answer:
        """Send ``form`` to the token endpoint.

        Its 4xx must not be taken for an answer to the caller's own request (a 404 there is no missing
        session), so all but 429 become an :class:`AlbertAuthError`; so does an answer that cannot be read.
        """
        url = (base_url or self.base_url) + TOKEN_PATH
        request = Request("POST", url, form)
        try:
            answer = await self._exchange(request, _TOKEN_HEADERS, course)
            if answer.is_success:
                return answer
            raise http_error(answer, hide=self._hide(None))
        except (TooManyRequestsError, AlbertServerError):
            raise
        except (AlbertHTTPError, AlbertResponseError) as error:
            refused = AlbertAuthError(f"no token: {error}")
            raise _placed(refused, request) from error

    async def _send(self, request: Request, token: Token | None, course: _RequestState) -> Answer:
        if token is None:
            raise AlbertAuthError("there is no token")
        headers = {**self._headers, "Authorization": token.header}
        return await self._exchange(request, headers, course, is_callers=True)

    async def _exchange(
        self, request: Request, headers: Mapping[str, str], course: _RequestState, *, is_callers: bool = False
    ) -> Answer:
        if self._before_request is not None:
            with course.standing_still():
                await self._before_request()
        course.sent = is_callers
        ended: int | BaseException = 0
        began = time.perf_counter()
        try:
            answer = await self._transport.send(request, headers)
            ended = answer.status
        except AlbertException as error:
            ended = error
            raise _placed(error, request)  # noqa: B904 - the same error
        except BaseException as error:  # a cancellation: by the deadline, or by the caller
            ended = AlbertTimeoutError("late") if course.deadline.cancel_called else error
            raise
        finally:
            if self._after_request is not None:
                self._after_request(request.method if is_callers else "TOKEN", ended, time.perf_counter() - began)
        return answer

    def _hide(self, token: Token | None) -> Callable[[str], str]:
        """Return what replaces the secrets in a text; they seldom change, and it takes long to make."""
        used = [] if token is None else [token.secret.get_secret_value()]
        secrets = [*used, *self._credentials.secrets()]
        if secrets != self._hidden[0]:
            self._hidden = (secrets, redactor(secrets))
        return self._hidden[1]


class _RequestState:
    """How far one request has come: its deadline, and whether it may have reached Albert."""

    __slots__ = ("deadline", "sent")
    deadline: anyio.CancelScope

    def __init__(self) -> None:
        self.sent = False

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the deadline's clock."""
        left = self.deadline.deadline - anyio.current_time()
        self.deadline.deadline = math.inf
        try:
            yield
        finally:
            self.deadline.deadline = anyio.current_time() + left


def _placed(error: AlbertException, request: Request) -> AlbertException:
    """Return ``error`` with the request that it belongs to."""
    error.method = request.method
    error.path = request.path
    return error


def _credentials(
    token: str | SecretStr | Callable[[], str] | None, auth_manager: AlbertClientCredentials | None
) -> Credentials:
    if auth_manager is not None:
        return auth_manager
    if token is None:
        raise ValueError("either token or auth_manager must be given")
    return StaticToken(token) if isinstance(token, str | SecretStr) else TokenReader(token)


def _merged(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of every API request but for the token; the same set as the official SDK's."""
    merged = httpx.Headers(
        {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"syncd/{_VERSION}"}
    )
    merged.update(headers)
    if any(_LINE_BREAK.search(part) for pair in merged.raw for part in pair):
        raise ValueError("a header holds a control character")
    for own in _OWN_HEADERS.intersection(merged):
        del merged[own]
    merged["Accept-Encoding"] = ENCODINGS
    return {name.decode(merged.encoding): value.decode(merged.encoding) for name, value in merged.raw}


def _encoded(json: object) -> bytes:
    """Return the JSON that httpx would send."""
    try:
        return _JSON.encode(json).encode()
    except (ValueError, TypeError, RecursionError) as error:
        reason = type(error).__name__
    raise InvalidRequestError(f"the body cannot be sent as JSON ({reason})")
