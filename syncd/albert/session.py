"""A session with Albert: one origin, its credentials, and one deadline for each request. Every call goes through it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import anyio
from pydantic import SecretStr

from syncd.albert.auth import AlbertClientCredentials, Credentials, StaticToken, Token, TokenReader
from syncd.albert.bodies import json_body
from syncd.albert.errors import AlbertAuthError, AlbertTransportError, UnauthorizedError
from syncd.albert.exchange import Exchange
from syncd.albert.headers import api_headers
from syncd.albert.proxy import proxy_of
from syncd.albert.request_state import RequestState, placed
from syncd.albert.session_arguments import check_arguments
from syncd.albert.transport import Transport
from syncd.albert.urls import checked_base_url, checked_path, query
from syncd.albert.wire import Answer, Request
from syncd.tls import client_context

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    import httpx

    from syncd.albert.urls import Params

_CONNECT_LIMIT: Final = 10.0
"""Seconds for a connection at most; a shorter timeout of the request allows half of it."""


class AsyncAlbertSession:
    """An async session for the Albert API. Use it as an async context manager, or call ``aclose``.

    Parameters
    ----------
    base_url : str
        ``https://host``, with a path prefix or without; http on loopback only. Secrets are sent to this origin only.
    token : str | SecretStr | Callable[[], str] | None
        A fixed token, or a function that reads it. The function is called once, and again after each 401.
    auth_manager : AlbertClientCredentials | None
        Obtains and renews tokens; overrides ``token``.
    headers : Mapping[str, str] | None
        Sent with every API request; each replaces a default of the same name. ``Authorization``, ``Host``,
        ``Accept-Encoding``, ``Content-Length``, ``Transfer-Encoding`` and ``Connection`` are ignored.
    timeout : float
        Seconds for a whole request: connecting, the body, and a renewed token with the second request after it. The
        connection gets up to half of it, at most 10.
    max_response_bytes : int
        The limit of a body in bytes, before and after decompression.
    max_connections : int
        Open connections at once.
    before_request : Callable[[], Awaitable[None]] | None
        Awaited before every request, also those for tokens. For a rate limit. It does not count towards the timeout.
    after_request : Callable[[str, int | BaseException, float], None] | None
        Called after every request with its method (``TOKEN`` for one to the token endpoint), the status or the error
        that ended it, and its seconds. For metrics.
    check_token : Callable[[Token], Awaitable[None]] | None
        Awaited before the first request with each new token, outside of the deadline. An exception from it is raised
        to the caller, and no request is sent with that token. Raise :class:`AlbertTenantError` to refuse a tenant.
    verify : ssl.SSLContext | None
        A context that checks certificates and host names, instead of one with the CAs of the system.
    proxy : str | SecretStr | None
        An http(s) proxy for all requests, such as ``http://user:p%40ss@proxy.example.com:3128``. An https URL is
        reached through a CONNECT tunnel. Proxies of the environment (``HTTPS_PROXY``) are ignored.
    ca_file : str | os.PathLike[str] | None
        A PEM file of CA certificates that are trusted in addition to those of the system.

    Attributes
    ----------
    refused : bool
        Whether the last request that decided it failed by its credentials: with a 401, without a token, or because
        `check_token` refused the tenant. An answer of 2xx sets it to False; any other end of a request leaves it.

    Notes
    -----
    Nothing is retried, no redirect is followed, and no cookie is kept. The one exception: a request that was refused
    with a 401 is sent again if there is another token.

    Raises
    ------
    InvalidRequestError
        An argument has the wrong type, or is out of range.
    ValueError
        There are no credentials. Or a secret must not be sent to the base URL, the proxy's URL is not one, the CA file
        cannot be read, the context does not check certificates, or a header cannot be sent.
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
        check_token: Callable[[Token], Awaitable[None]] | None = None,
        verify: ssl.SSLContext | None = None,
        proxy: str | SecretStr | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        check_arguments(
            base_url=base_url, token=token, headers=headers, timeout=timeout, max_response_bytes=max_response_bytes,
            max_connections=max_connections, before_request=before_request, after_request=after_request,
            check_token=check_token, verify=verify, proxy=proxy, ca_file=ca_file,
        )  # fmt: skip
        self.base_url = checked_base_url(base_url)
        self.refused = False
        self._timeout = timeout
        self._in_flight = set[RequestState]()
        checked_proxy = proxy_of(proxy)
        self._exchange = Exchange(
            base_url=self.base_url,
            credentials=_credentials(token, auth_manager),
            transport=Transport(
                connect_timeout=min(timeout / 2, _CONNECT_LIMIT),
                max_response_bytes=max_response_bytes,
                max_connections=max_connections,
                verify=client_context(verify, ca_file),
                proxy=checked_proxy,
            ),
            timeout=timeout,
            headers=api_headers(headers),
            before_request=before_request,
            after_request=after_request,
            check_token=check_token,
            proxy=checked_proxy,
        )

    @property
    def server_date(self) -> str | None:
        """The `Date` of the last answer, as it was received."""
        return self._exchange.server_date

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
        """Send one request and return its answer as a response of httpx.

        Parameters and errors are those of :meth:`ask`.

        Raises
        ------
        AlbertException
            As :meth:`ask` says.
        """
        return (await self.ask(method, path, params=params, json=json)).response()

    async def ask(self, method: str, path: str, *, params: Params | None = None, json: object = None) -> Answer:
        """Send one request and return its answer with the whole body.

        Parameters
        ----------
        method : str
            In capitals.
        path : str
            Percent-encoded, beginning with a slash. Ids in it come from :func:`syncd.albert.paths.segment`.
        params : Mapping[str, str | Sequence[str] | None] | None
            The query, not encoded. A name is repeated for each item of a sequence; None is left out.
        json : object
            The body; None for no body.

        Returns
        -------
        Answer
            With a status of 2xx.

        Raises
        ------
        InvalidRequestError
            The path, the query or the body cannot be sent, the session is closed, or it was used in another event loop
            before. Nothing was sent. Or the program closed the session before the answer was received: only
            ``not_applied`` tells whether nothing was sent.
        AlbertAuthError
            No token was obtained.
        AlbertConnectError
            The connection, also the one for a token, was not established.
        AlbertTimeoutError
            The whole answer was not received within the timeout.
        AlbertLostError
            The connection broke before the whole answer was received.
        AlbertResponseError
            The answer cannot be read.
        AlbertHTTPError
            The status is not 2xx; the subclass depends on it. A 429 or 5xx of the token endpoint is raised as such.
        """
        state = RequestState()
        request = self._request(method, path, params, json)
        with self._within_timeout(state):
            try:
                answer = await self._exchange.send(request, state)
            except (AlbertAuthError, UnauthorizedError):
                self.refused = True
                raise
            self.refused = False
            return answer
        # Reached only when the deadline has passed, or the session was closed.
        raise placed(self._exchange.interruption(state), request)

    async def authenticate(self) -> str | None:
        """Obtain a token, unless one is available, and check it; no other request is sent.

        Returns
        -------
        str | None
            The tenant id that the token names; None if it names none.

        Raises
        ------
        AlbertException
            There is no token, it was not obtained in time, or `check_token` refused it.
        """
        state = RequestState()
        with self._within_timeout(state):
            return (await self._exchange.authenticate(state)).tenant_id
        raise self._exchange.interruption(state)

    @contextmanager
    def _within_timeout(self, state: RequestState) -> Iterator[None]:
        """End the block when the deadline has passed, or when the session is closed."""
        self._in_flight.add(state)
        try:
            with anyio.move_on_after(self._timeout) as state.deadline:
                try:
                    yield
                except (AlbertTransportError, RuntimeError):  # aiohttp can raise a RuntimeError after a close
                    if not state.closed:
                        raise
        finally:
            self._in_flight.discard(state)

    async def get(self, path: str, *, params: Params | None = None) -> httpx.Response:
        """Send a GET.

        Raises
        ------
        AlbertException
            As :meth:`ask` says.
        """
        return await self.request("GET", path, params=params)

    async def post(self, path: str, *, params: Params | None = None, json: object = None) -> httpx.Response:
        """Send a POST.

        Raises
        ------
        AlbertException
            As :meth:`ask` says.
        """
        return await self.request("POST", path, params=params, json=json)

    async def patch(self, path: str, *, params: Params | None = None, json: object = None) -> httpx.Response:
        """Send a PATCH.

        Raises
        ------
        AlbertException
            As :meth:`ask` says.
        """
        return await self.request("PATCH", path, params=params, json=json)

    async def delete(self, path: str, *, params: Params | None = None) -> httpx.Response:
        """Send a DELETE.

        Raises
        ------
        AlbertException
            As :meth:`ask` says.
        """
        return await self.request("DELETE", path, params=params)

    async def aclose(self) -> None:
        """Close all connections. A second call has no effect.

        Requests without an answer raise :class:`InvalidRequestError` in the tasks that wait for them.
        """
        for state in list(self._in_flight):
            state.close()
        await self._exchange.transport.aclose()

    def reload_credentials(self) -> None:
        """Read credentials that are given as functions again before the next request, without waiting for a 401."""
        self._exchange.credentials.reload()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _request(self, method: str, path: str, params: Params | None, json: object) -> Request:
        """Return the request without its token."""
        url = self.base_url + checked_path(path)
        encoded = query(params) if params else ""
        content = None if json is None else json_body(json)
        return Request(method, f"{url}?{encoded}" if encoded else url, content)


def _credentials(
    token: str | SecretStr | Callable[[], str] | None, auth_manager: AlbertClientCredentials | None
) -> Credentials:
    if auth_manager is not None:
        return auth_manager
    if token is None:
        raise ValueError("token or auth_manager must be given; auth_manager overrides token")
    return StaticToken(token) if isinstance(token, str | SecretStr) else TokenReader(token)
