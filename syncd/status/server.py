"""The status server: GET and HEAD on five paths. `daemon.status_port` starts it.

It limits connections and sizes, and rejects unknown Host headers. A page in a browser can make a name of its own point
at this port (DNS rebinding), and its requests then have that name as their Host. The server accepts `localhost`, the
loopback addresses and the host that it listens on. If it listens on every interface, it also accepts the machine's host
name and any numeric address, which probes and Prometheus use and no rebinding can produce.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from syncd.errors import UsageError
from syncd.status import page
from syncd.status.database_header import DATABASE, encode_database
from syncd.status.document import document, encode, of_daemon
from syncd.status.snapshot import NotReadError, without_foreign_text

if TYPE_CHECKING:
    from syncd.status.metrics import Metrics
    from syncd.status.snapshot import View

MAX_CONNECTIONS = 64
LIFETIME = 60.0
"""Seconds after which a connection is closed in any case: a client cannot keep one by sending a byte a minute."""
LINE_BYTES = 2048
HEADER_BYTES = 8190
KEEPALIVE = 15.0
TEXT = "text/plain"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Server": "syncd",
}

Answer = Callable[[], Awaitable[web.Response]]


def listen(host: str, port: int) -> socket.socket:
    """Bind the port.

    Raises
    ------
    UsageError
        The port cannot be bound; the message says what to do.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS, reuse_port=False)
    except OSError as error:
        raise UsageError(
            f"SYNCD_STATUS_HOST/SYNCD_STATUS_PORT: cannot listen on {host}:{port} ({error.strerror or error}); "
            "choose another port, or 0 for no status server"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the address of a bound socket, such as `http://127.0.0.1:8080`."""
    name, port = listener.getsockname()[:2]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@asynccontextmanager
async def serve(view: View, metrics: Metrics, listener: socket.socket, host: str) -> AsyncIterator[None]:
    """Serve a view on a bound socket while the context lasts, and close the socket."""
    handler = RequestHandler(view, metrics, allowed_hosts(host))
    server = web.Server(
        handler.handle,
        access_log=None,
        logger=_log(),
        keepalive_timeout=KEEPALIVE,
        lingering_time=0.0,
        max_line_size=LINE_BYTES,
        max_field_size=HEADER_BYTES,
        max_headers=64,
    )
    loop = asyncio.get_running_loop()
    accepting = await loop.create_server(lambda: _bounded(server, loop), sock=listener)
    try:
        yield
    finally:
        accepting.close()
        await server.shutdown(0.2)


class _NoBadRequests(logging.Filter):
    """Drops errors of malformed requests: they would let a client write headers and any number of lines to the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _log() -> logging.Logger:
    log = logging.getLogger("syncd.status.http")
    log.filters = [_NoBadRequests()]
    return log


def _bounded(server: web.Server, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
    """Return the protocol of a new connection: it is closed after `LIFETIME`, and immediately if there are too many."""
    if len(server.connections) >= MAX_CONNECTIONS:
        return _Closed()
    protocol = server()
    loop.call_later(LIFETIME, protocol.force_close)
    return protocol


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@dataclass(frozen=True)
class Allowed:
    """The Host headers that are accepted: some names, and either any numeric address or only those of the loopback."""

    names: frozenset[str]
    addresses: bool

    def __call__(self, header: str | None) -> bool:
        """Return whether a Host header is accepted; its port does not matter."""
        try:
            name = (urlsplit(f"//{header or ''}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.addresses or address.is_loopback


def allowed_hosts(host: str) -> Allowed:
    """Return the Host headers that a server on `host` accepts."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    names = {"localhost", host.lower()}
    if everywhere:
        machine = socket.gethostname().lower()
        names |= {machine, machine.partition(".")[0]}
    return Allowed(frozenset(names), everywhere)


class RequestHandler:
    """Answers requests with a view of the daemon."""

    def __init__(self, view: View, metrics: Metrics, allowed: Allowed) -> None:
        self._view = view
        self._metrics = metrics
        self._allowed = allowed
        self._paths: dict[str, Answer] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._scrape,
            "/status.json": self._status,
            "/": self._page,
        }

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if len(request.headers.getall("Host", ())) != 1 or not self._allowed(request.headers.get("Host")):
            return _text(421, "this Host is not the status server's; use its address or localhost in the URL")
        if request.method not in {"GET", "HEAD"}:
            refused = _text(405, "GET and HEAD only")
            refused.headers["Allow"] = "GET, HEAD"
            return refused
        answer = self._paths.get(request.path)
        if answer is None:
            return _text(404, "there are /, /status.json, /livez, /readyz and /metrics")
        return await answer()

    async def _livez(self) -> web.Response:
        stalled = self._view.stalled()
        response = _text(503, f"no progress: {', '.join(stalled)}") if stalled else _text(200, "ok")
        response.headers[DATABASE] = encode_database(self._view.identity.database)
        return response

    async def _readyz(self) -> web.Response:
        health = await self._view.readiness()
        if health.not_ready:
            return _text(503, "\n".join(map(str, health.not_ready)))
        return _text(200, "ok")

    async def _status(self) -> web.Response:
        # a script requests it right after the event that it waited for
        health, snapshot = await self._view.assess(max_age=0)
        overview = None if snapshot is None else without_foreign_text(snapshot.overview)
        body = encode(document(health, overview, of_daemon(self._view.identity, snapshot)))
        status = 200 if snapshot is not None else 503
        return web.Response(status=status, body=body, headers={**SAFE, "Content-Type": "application/json"})

    async def _scrape(self) -> web.Response:
        try:
            body = await self._view.exposition(self._metrics)
        except NotReadError as error:
            return _text(503, str(error))
        return web.Response(body=body, headers={**SAFE, "Content-Type": EXPOSITION})

    async def _page(self) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        health, snapshot = await self._view.assess()
        text = page.render(health, snapshot, identity=self._view.identity, nonce=nonce)
        status = 200 if snapshot is not None else 503
        headers = {**SAFE, "Content-Security-Policy": policy}
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def _text(status: int, line: str) -> web.Response:
    return web.Response(status=status, text=f"{line}\n", content_type=TEXT, headers=SAFE)
