"""aiohttp's connections: one request, sent at most once, exactly as written.

Why not httpx's own: its pool walks all of its connections for every request (at 32 at once a third of the
rate), and a request costs four times as much. Why not the package httpx-aiohttp: it reports a disconnect as a
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
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from syncd.albert.bodies import UnreadableBodyError, decoded, too_large
from syncd.albert.errors import (
    AlbertConnectError,
    AlbertException,
    AlbertLostError,
    AlbertResponseError,
)
from syncd.albert.wire import Answer, Request

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Mapping

    from aiohttp import ClientHandlerType
    from aiohttp.abc import ResolveResult

KEEPALIVE: Final = 4.0
"""Seconds an idle connection is kept: less than the 5 after which uvicorn and Node close theirs."""

_LARGE = 1 << 20  # beyond this aiohttp warns about bytes
_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Transport:
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
        From ``send``, with a text that quotes nothing of the request. A body that cannot be read under a
        status that is not a success, or in the answer to a DELETE, is no error: the status says enough, and
        ``unreadable`` says why there is no body.
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

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send a request; ``Host`` and what belongs to the body are added to its headers."""
        failure: AlbertException
        cause: BaseException | None = None
        try:
            return await self._exchange(request, headers)
        except UnreadableBodyError as error:
            failure = AlbertResponseError(f"the body of the answer cannot be read: {error}")
        except aiohttp.ClientError as error:
            failure = _translated(error)
            cause = _harmless(error)
        # Raised here and not in the handler: aiohttp's exceptions hold the request's headers, and with them
        # the token, and would stay on as the context.
        raise failure from cause

    async def _exchange(self, request: Request, headers: Mapping[str, str]) -> Answer:
        content = request.content or None
        answer = await self._open_session().request(
            request.method,
            URL(request.url, encoded=True),
            headers=headers,
            data=content if content is None or len(content) <= _LARGE else io.BytesIO(content),
            allow_redirects=False,
        )
        try:
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
