"""Send requests with credentials: obtain tokens, check them, replace refused ones, and hide them in errors.

The session calls it within the deadline of a request.
"""

from __future__ import annotations

import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from syncd.albert.answers import http_error, redactor
from syncd.albert.auth import TOKEN_PATH, Token
from syncd.albert.errors import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    AlbertResponseError,
    AlbertServerError,
    AlbertTimeoutError,
    InvalidRequestError,
    TooManyRequestsError,
)
from syncd.albert.headers import TOKEN_HEADERS
from syncd.albert.request_state import RequestState, placed
from syncd.albert.wire import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from syncd.albert.auth import Credentials
    from syncd.albert.proxy import Proxy
    from syncd.albert.transport import Transport


class Exchange:
    """Sends the requests of one session with its credentials.

    Parameters
    ----------
    credentials : Credentials
        Where tokens come from. They can be replaced at any time.
    transport : Transport
        Sends single requests.
    timeout : float
        Seconds for a whole request, for the message of a timeout.
    before_request, after_request, check_token : Callable | None
        As :class:`AsyncAlbertSession` describes them.
    proxy : Proxy | None
        The proxy of the transport. No message may contain its credentials.

    Attributes
    ----------
    server_date : str | None
        The `Date` of the last answer, as it was received.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        transport: Transport,
        timeout: float,
        headers: Mapping[str, str],
        before_request: Callable[[], Awaitable[None]] | None,
        after_request: Callable[[str, int | BaseException, float], None] | None,
        check_token: Callable[[Token], Awaitable[None]] | None,
        proxy: Proxy | None,
    ) -> None:
        self.credentials = credentials
        self.transport = transport
        self.server_date: str | None = None
        self._base_url = base_url
        self._timeout = timeout
        self._headers = headers
        self._before_request = before_request
        self._after_request = after_request
        self._check_token = check_token
        self._accepted: Token | None = None
        self._proxy = proxy
        self._redactor: tuple[list[str], Callable[[str], str]] = ([], redactor(()))

    async def send(self, request: Request, state: RequestState) -> Answer:
        """Send a request with a token, and again with another token if the first is refused.

        Raises
        ------
        AlbertException
            There is no token, no answer, or its status is not 2xx.
        """
        token = self.credentials.at_hand() or await self._token(None, state)
        answer = await self._send(request, token, state)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            state.sent = False  # Albert did not act on it
            other = await self._token(token, state)
            if other is not None:
                token = other
                answer = await self._send(request, token, state)
        if answer.status == HTTPStatus.PARTIAL_CONTENT:  # no request asks for a part
            raise placed(AlbertResponseError("the answer is a part of a document (206), and not all of it"), request)
        if answer.is_success:
            return answer
        raise http_error(answer, hide=self._hide(token))

    async def authenticate(self, state: RequestState) -> Token:
        """Return a token that `check_token` has accepted; no other request is sent.

        Raises
        ------
        AlbertException
            There is no token, or `check_token` refused it.
        """
        return await self._accept(self.credentials.at_hand() or await self._token(None, state), state)

    def interruption(self, state: RequestState) -> AlbertException:
        """Return the error of a request that was ended by its deadline, or because the session was closed."""
        error: AlbertException
        if state.closed:
            step = "the answer was received" if state.sent else "the request was sent"
            error = InvalidRequestError(f"this program closed the session before {step}")
        else:
            awaited = "whole answer" if state.sent else "connection or token"
            error = AlbertTimeoutError(f"no {awaited} within {self._timeout:g} seconds")
        error.not_applied = not state.sent
        return error

    async def _token(self, rejected: Token | None, state: RequestState) -> Token | None:
        try:
            return await self.credentials.renewed(rejected, partial(self._request_token, state))
        except AlbertException as error:
            error.not_applied = True
            raise

    async def _request_token(self, state: RequestState, base_url: str | None, form: bytes) -> Answer:
        """Send a form to the token endpoint.

        A 4xx of it must not be confused with an answer to the request of the caller: a 404 here does not mean that a
        session is missing. All except 429 become an :class:`AlbertAuthError`.
        """
        url = (base_url or self._base_url) + TOKEN_PATH
        request = Request("POST", url, form)
        try:
            answer = await self._exchange(request, TOKEN_HEADERS, state)
            if answer.is_success:
                return answer
            raise http_error(answer, hide=self._hide(None))
        except (TooManyRequestsError, AlbertServerError):
            raise
        except AlbertHTTPError as error:
            refused = AlbertAuthError(f"no token: {error}")
            raise placed(refused, request) from error

    async def _send(self, request: Request, token: Token | None, state: RequestState) -> Answer:
        try:
            accepted = await self._accept(token, state)
        except AlbertException as error:
            raise placed(error, request)  # noqa: B904 - the same error
        headers = {**self._headers, "Authorization": accepted.header}
        return await self._exchange(request, headers, state, is_callers=True)

    async def _accept(self, token: Token | None, state: RequestState) -> Token:
        """Return the token once `check_token` has accepted it; each token is checked before its first use.

        Raises
        ------
        AlbertAuthError
            There is no token, or it was refused.
        """
        if token is None:
            raise AlbertAuthError("there is no token")
        if self._check_token is not None and token is not self._accepted:
            with state.paused():
                await self._check_token(token)
            self._accepted = token
        return token

    async def _exchange(
        self, request: Request, headers: Mapping[str, str], state: RequestState, *, is_callers: bool = False
    ) -> Answer:
        if self._before_request is not None:
            with state.paused():
                await self._before_request()
        state.sent = is_callers  # unless the transport says that it waits
        ended: int | BaseException = 0
        began = time.perf_counter()
        try:
            answer = await self.transport.send(request, headers, state.note_wait if is_callers else None)
            ended = answer.status
            self.server_date = answer.headers.get("Date")
        except AlbertException as error:
            ended = error
            raise placed(error, request)  # noqa: B904 - the same error
        except BaseException as error:  # a cancellation: by the deadline, a close of the session, or the caller
            ended = self.interruption(state) if state.deadline.cancel_called else error
            raise
        finally:
            if self._after_request is not None:
                self._after_request(request.method if is_callers else "TOKEN", ended, time.perf_counter() - began)
        return answer

    def _hide(self, token: Token | None) -> Callable[[str], str]:
        """Return a function that replaces the secrets in a text. It is kept, because making one is slow."""
        used = [] if token is None else [token.secret.get_secret_value()]
        secrets = [*used, *self.credentials.secrets(), *(() if self._proxy is None else self._proxy.secrets())]
        if secrets != self._redactor[0]:
            self._redactor = (secrets, redactor(secrets))
        return self._redactor[1]
