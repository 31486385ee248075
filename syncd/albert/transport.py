"""httpx's interface over aiohttp's connections: one request, sent at most once, exactly as written.

Why not httpx's own: its pool walks all of its connections for every request (at 32 at once a third of the
rate), and a request costs 1.6 times as much. Why not the package httpx-aiohttp: it reports a disconnect as a
failure to connect, which would have a create sent twice, and it quotes URLs anew.

aiohttp resends idempotent requests by itself when a connection breaks (``ClientSession._request``, also on a
connection that was not reused), never POST or PATCH. Here nothing is resent: a middleware turns a disconnect
into our own error, which aiohttp does not take up. So one call is one request, and a rate limiter counts
right.
"""

from __future__ import annotations

import asyncio
import errno
import io
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

from syncd import failpoints
from syncd.albert.answers import UNREADABLE
from syncd.albert.bodies import UnreadableBodyError, decoded, too_large
from syncd.albert.errors import (
    AlbertConnectError,
    AlbertException,
    AlbertLostError,
    AlbertResponseError,
)

if TYPE_CHECKING:
    import socket
    import ssl

    from aiohttp import ClientHandlerType
    from aiohttp.abc import ResolveResult

KEEPALIVE: Final = 4.0
"""Seconds an idle connection is kept: less than the 5 after which uvicorn and Node close theirs."""

_LARGE = 1 << 20  # beyond this aiohttp warns about bytes
_CODING = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Transport(httpx.AsyncBaseTransport):
    """Sends one request and reads its whole body within bounds.

    Parameters
    ----------
    connect_timeout : float
        Seconds for a name look-up, and again for the connection with its TLS handshake.
    max_response_bytes : int
        The limit of a body, before and after decompression.
    max_connections : int
        Requests beyond as many wait for a connection.
    verify : ssl.SSLContext | None
        A context that checks certificates against a CA of one's own; None for the system's.

    Raises
    ------
    AlbertTransportError, AlbertResponseError
        From ``handle_async_request``, with a text that quotes nothing of the request. A body that cannot be
        read under a status that is not a success, or in the answer to a DELETE, is no error: the status says
        enough, and ``extensions["syncd.unreadable"]`` says why there is no body.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        max_response_bytes: int,
        max_connections: int,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._limit = max_response_bytes
        self._max_connections = max_connections
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; its URL must be encoded, its content bytes."""
        failure: AlbertException
        cause: BaseException | None = None
        try:
            if failpoints.ON:
                failpoints.hit(f"before request: {_named(request)}")
            response = await self._exchange(request)
            if failpoints.ON:
                failpoints.hit(f"after request: {_named(request)}")
            return response  # noqa: TRY300 - what follows the handlers is for failures
        except UnreadableBodyError as error:
            failure = AlbertResponseError(f"the body of the answer cannot be read: {error}")
        except aiohttp.ClientError as error:
            failure = _translated(error)
            cause = _harmless(error)
        # Raised here and not in the handler: aiohttp's exceptions hold the request's headers, and with them
        # the token, and would stay on as the context.
        raise failure from cause

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        content: bytes | io.BytesIO | None = request.content or None
        if content is not None and len(request.content) > _LARGE:
            content = io.BytesIO(request.content)
        answer = await self._open_session().request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=request.headers.multi_items(),
            data=content,
            allow_redirects=False,
        )
        try:
            body, unreadable = await self._body(answer), None
        except (UnreadableBodyError, aiohttp.ClientPayloadError):
            answer.close()
            if answer.ok and answer.status < HTTPStatus.MULTIPLE_CHOICES and request.method != "DELETE":
                raise
            body, unreadable = b"", "the body cannot be read"
        except BaseException:
            answer.close()
            raise
        return httpx.Response(
            answer.status,
            headers=[pair for pair in answer.raw_headers if pair[0].lower() not in _CODING],
            content=body,
            request=request,
            extensions={} if unreadable is None else {UNREADABLE: unreadable},
        )

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
        codings = answer.headers.getall("Content-Encoding", ())
        return decoded(raw, ",".join(codings), self._limit)

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the aiohttp session, made on first use since it belongs to the running loop."""
        if self._closed:
            raise RuntimeError("this session is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections,
                    keepalive_timeout=KEEPALIVE,
                    ssl=True if self._verify is None else self._verify,
                    resolver=_Resolver(self._connect_timeout),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
                trust_env=False,
                auto_decompress=False,
                middlewares=(_at_most_once,),
            )
        return self._session

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None


def _named(request: httpx.Request) -> str:
    """Name a request by what its path points at, for a test that ends the process here."""
    path = request.url.path
    kind = "source" if "/source/" in path else "item" if path.count("/") > len(("", "api", "v3", "chats")) else "list"
    return f"{request.method} {kind}"


class _Resolver(AbstractResolver):
    """aiohttp's resolver with a time-out of its own: ``sock_connect`` does not cover the look-up."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._inner = aiohttp.DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily | int = 0) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._inner.resolve(host, port, family)  # type: ignore[arg-type]
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "the name look-up timed out") from None

    async def close(self) -> None:
        await self._inner.close()


async def _at_most_once(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again: it does so for these two errors."""
    try:
        return await send(request)
    except _NEVER_CONNECTED:
        raise  # aiohttp does not resend after these
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        failure = _translated(error)
        cause = _harmless(error)
    raise failure from cause


def _translated(error: aiohttp.ClientError) -> AlbertException:
    """Return our error for aiohttp's; what tells them apart is whether the request can have been applied."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            made: AlbertException = AlbertConnectError("the connection was not made in time")
        case aiohttp.ClientConnectorError():
            made = AlbertConnectError(f"no connection: {_reason(error.os_error)}")
        case aiohttp.ClientPayloadError():
            made = AlbertLostError("the answer was cut")
        case aiohttp.ClientOSError():
            made = AlbertLostError(f"the connection broke: {_reason(error)}")
        case aiohttp.ServerDisconnectedError():
            made = AlbertLostError("the server closed the connection without an answer")
        case aiohttp.ClientResponseError():
            made = AlbertResponseError("the answer is not HTTP")
        case _:  # what no version known raises here; the cautious reading
            made = AlbertLostError(f"the connection failed ({type(error).__name__})")
    return made


def _reason(error: OSError) -> str:
    return str(getattr(error, "verify_message", "") or error.strerror or type(error).__name__)


def _harmless(error: aiohttp.ClientError) -> BaseException | None:
    """Return the operating system's error below aiohttp's, which quotes no header; None if there is none."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    cause = error.__cause__
    return cause if isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError) else None
