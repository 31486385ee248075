"""The connections of a session, over aiohttp: a request is sent at most once, exactly as written.

httpx's own transport is not used: its pool examines all of its connections for every request (at 32 at once a third of
the rate), and a request costs four times as much CPU. The package httpx-aiohttp reports a disconnect as a failure to
connect, which would send a create twice, and it encodes URLs again.

aiohttp repeats idempotent requests when a connection breaks (`ClientSession._request`, also on a new connection). Here
nothing is repeated: a middleware turns a disconnect into an error of the client, which aiohttp does not repeat. One
call is one request, so that a rate limit counts correctly.
"""

from __future__ import annotations

import asyncio
import io
import socket
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from syncd.albert.bodies import UnreadableBodyError, decoded, too_large
from syncd.albert.errors import AlbertConnectError, AlbertException, AlbertResponseError, InvalidRequestError
from syncd.albert.failures import (
    LONGEST_HEADER,
    MOST_HEADERS,
    connect_failure,
    harmless_cause,
    place_of,
    proxy_refusal,
    request_failure,
)
from syncd.albert.wire import Answer, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from aiohttp import ClientHandlerType, ClientRequest, ClientTimeout
    from aiohttp.abc import ResolveResult
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from syncd.albert.proxy import Proxy

KEEPALIVE: Final = 4.0
"""Seconds that an idle connection is kept: less than the 5 after which uvicorn and Node close theirs."""
_TUNNEL_SHARE: Final = 1.5
"""Connect timeouts that a connection through a proxy may take as a whole. aiohttp has no timeout for the answer to
CONNECT, and this one is shorter than the deadline of the request, of which the connect timeout is at most a half."""
_LARGE: Final = 1 << 20
"""Bytes of a body from which aiohttp warns about bytes objects."""

_ON_WAIT: Final[ContextVar[Callable[[bool], None] | None]] = ContextVar("on_wait", default=None)
"""The function to call when the request of the current task waits; aiohttp passes nothing of a request to its pool."""


class Transport:
    """Sends one request and reads its whole body within bounds.

    Parameters
    ----------
    connect_timeout : float
        Seconds for a name look-up, and again for the connection with its TLS handshake.
    max_response_bytes : int
        The limit of a body, before and after decompression.
    max_connections : int
        Open connections at once; further requests wait for one.
    verify : ssl.SSLContext | None
        A context that checks certificates; None for the CAs of the system.
    proxy : Proxy | None
        The proxy for all requests; None for direct connections. Proxies of the environment are ignored.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        max_response_bytes: int,
        max_connections: int,
        verify: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._limit = max_response_bytes
        self._max_connections = max_connections
        self._verify = verify
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def send(
        self, request: Request, headers: Mapping[str, str], on_wait: Callable[[bool], None] | None = None
    ) -> Answer:
        """Send a request; `Host` and the headers of the body are added to its headers.

        `on_wait` is called with True when the request waits for a connection, and with False when it has one. While it
        waits, nothing of it can have been received.
        A body that cannot be read is an error only in the answer to a request that succeeded and is not a DELETE.
        Otherwise the status is sufficient, and `Answer.unreadable` is the reason why there is no body.

        Raises
        ------
        AlbertConnectError
            The connection was not established, or the proxy refused to establish it. Nothing was sent to Albert.
        AlbertLostError
            The connection broke before the whole answer was received.
        AlbertResponseError
            The answer cannot be read: it is not HTTP, too large, or its encoding is wrong.
        InvalidRequestError
            The transport is closed, or was used in another event loop.
        """
        _ON_WAIT.set(on_wait)
        url = URL(request.url, encoded=True)
        failure: AlbertException
        cause: BaseException | None = None
        try:
            return await self._exchange(request, url, headers)
        except UnreadableBodyError as error:
            failure = AlbertResponseError(f"the body of the answer cannot be read: {error}")
        except aiohttp.ClientError as error:
            failure = request_failure(error, url)
            cause = harmless_cause(error)
        # Raised here and not in the handler: the attributes of aiohttp's exceptions hold the headers of the request,
        # with the token, and would stay reachable as the context.
        raise failure from cause

    async def _exchange(self, request: Request, url: URL, headers: Mapping[str, str]) -> Answer:
        content = request.content or None
        answer = await self._open_session().request(
            request.method,
            url,
            headers=self._with_proxy_credentials(url, headers),
            data=content if content is None or len(content) <= _LARGE else io.BytesIO(content),
            allow_redirects=False,
            proxy_headers=self._tunnel_headers(url),
        )
        try:
            self._check_proxy(url, answer.status)
            body = await self._body(answer)
        except (UnreadableBodyError, aiohttp.ClientPayloadError):
            answer.close()
            unread = Answer(request, answer.status, answer.headers, answer.raw_headers, b"", "the body cannot be read")
            if unread.is_success and request.method != "DELETE":
                raise
            return unread
        except BaseException:
            answer.close()
            raise
        return Answer(request, answer.status, answer.headers, answer.raw_headers, body)

    def _tunnel_headers(self, url: URL) -> dict[str, str] | None:
        """Return the headers of the CONNECT request, which aiohttp sends for https."""
        if self._proxy is None or self._proxy.authorization is None or url.scheme != "https":
            return None
        return {"Proxy-Authorization": self._proxy.authorization}

    def _with_proxy_credentials(self, url: URL, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of a request; one for plain http is sent to the proxy itself, so its credentials join."""
        if self._proxy is None or self._proxy.authorization is None or url.scheme != "http":
            return headers
        return {**headers, "Proxy-Authorization": self._proxy.authorization}

    def _check_proxy(self, url: URL, status: int) -> None:
        """Recognize the answer of a proxy that refuses a request for plain http: Albert has not received it."""
        if self._proxy is not None and url.scheme == "http" and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise AlbertConnectError(proxy_refusal(status, place_of(url), self._proxy))

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if (answer.content_length or 0) > self._limit:
            raise too_large(self._limit)
        parts: list[bytes] = []
        size = 0
        while part := await answer.content.readany():
            size += len(part)
            if size > self._limit:
                raise too_large(self._limit)
            parts.append(part)
        raw = parts[0] if len(parts) == 1 else b"".join(parts)
        codings = answer.headers.getall("Content-Encoding", None)
        return decoded(raw, ",".join(codings), self._limit) if codings else raw

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the aiohttp session; it is made on first use, because it belongs to the running event loop.

        Raises
        ------
        InvalidRequestError
            The session is closed, there is no loop of asyncio, or the session belongs to another one.
        """
        if self._closed:
            raise InvalidRequestError("this session is closed")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidRequestError("the client runs on asyncio, and no event loop of asyncio is running") from None
        if self._loop not in {None, loop}:
            raise InvalidRequestError("this session was used in another event loop; make a session for each loop")
        self._loop = loop
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._proxy, self._connect_timeout, self._max_connections, self._verify),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
                trust_env=False,
                proxy=None if self._proxy is None else self._proxy.url,
                auto_decompress=False,
                max_line_size=LONGEST_HEADER,
                max_field_size=LONGEST_HEADER,
                max_headers=MOST_HEADERS,
                middlewares=(_at_most_once,),
            )
        return self._session

    async def aclose(self) -> None:
        """Close all connections. A second call has no effect."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool of connections. Every failure to establish one becomes an `AlbertConnectError`."""

    def __init__(self, proxy: Proxy | None, timeout: float, limit: int, verify: ssl.SSLContext | None) -> None:
        super().__init__(
            limit=limit,
            keepalive_timeout=KEEPALIVE,
            ssl=True if verify is None else verify,
            resolver=_Resolver(timeout),
        )
        self._via = proxy
        self._tunnel_timeout = None if proxy is None else timeout * _TUNNEL_SHARE

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Return a connection of the pool, or a new one."""
        on_wait = _ON_WAIT.get()
        if on_wait is not None:
            on_wait(True)  # noqa: FBT003 - its one argument
        connection = await super().connect(req, traces, timeout)
        if on_wait is not None:
            on_wait(False)  # noqa: FBT003 - its one argument
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        cause: BaseException | None = None
        try:
            async with asyncio.timeout(self._tunnel_timeout):
                return await super()._create_connection(req, traces, timeout)
        except TimeoutError:
            through = "" if self._via is None else f" through the proxy {self._via.place}"
            failure = AlbertConnectError(f"no connection to {place_of(req.url)}{through} in time")
        except (aiohttp.ClientError, OSError) as error:
            failure = connect_failure(error, req.url, self._via)
            cause = harmless_cause(error)
        raise failure from cause


class _Resolver(AbstractResolver):
    """aiohttp's resolver with a timeout: `sock_connect` does not cover the look-up."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._inner = aiohttp.DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily | int = 0) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "the name look-up timed out") from None

    async def close(self) -> None:
        await self._inner.close()


async def _at_most_once(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Prevent aiohttp from repeating a request, which it does after these two errors."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = request_failure(error, request.url)
        cause = harmless_cause(error)
    raise failure from cause
