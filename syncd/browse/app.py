"""Datasette as an ASGI application on one SQLite file, and the server that runs it on loopback."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from syncd.browse.metadata import NAME, metadata
from syncd.errors import UsageError, how_to_install

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

HOST = "127.0.0.1"
SETTINGS = {
    "sql_time_limit_ms": 5000,  # also the longest that a query holds the WAL back
    "facet_time_limit_ms": 1000,
    "default_page_size": 50,
    "default_facet_size": 10,
    "default_cache_ttl": 0,  # the mirror lives
    "suggest_facets": False,  # trying every column costs more than the page
}
TEMPLATES = Path(__file__).parent / "templates"


def require_datasette() -> None:
    """Refuse to begin without the extra.

    Raises
    ------
    UsageError
        Datasette is not installed.
    """
    try:
        import datasette  # noqa: F401, PLC0415 - an optional extra
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(f"browse needs Datasette, which is not installed; run: {how_to_install('browse')}") from error


def make_app(path: Path) -> App:
    """Make the application; each of its connections to the file is opened with `mode=ro`."""
    from datasette.app import Datasette  # noqa: PLC0415 - an optional extra
    from datasette.database import Database  # noqa: PLC0415

    datasette = Datasette(memory=False, metadata=metadata(), settings=SETTINGS, template_dir=str(TEMPLATES))
    datasette.add_database(Database(datasette, path=str(path.resolve()), is_mutable=True), name=NAME)
    datasette.remove_database("_memory")
    return only_local_hosts(datasette.app())


def only_local_hosts(app: App) -> App:
    """Refuse requests for other hosts: a foreign page could point its own name at loopback and read the answers."""

    async def guarded(
        scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").partition(":")[0]
            if host not in {HOST, "localhost"}:
                await send(
                    {"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]}
                )
                await send({"type": "http.response.body", "body": b"syncd browse answers on loopback only\n"})
                return
        await app(scope, receive, send)

    return guarded


def listen(port: int) -> socket.socket:
    """Take the port on loopback.

    Raises
    ------
    UsageError
        Another program has it.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # a reader of the address may connect immediately
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}; choose another: syncd browse --port 0"
        ) from error
    return listener


async def serve(app: App, on: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and then return."""
    import uvicorn  # noqa: PLC0415 - an optional extra

    class Server(uvicorn.Server):
        """Leaves the signals alone: uvicorn would raise them again at its end."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=3))

    async def stop_on_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                logging.getLogger("uvicorn.error").disabled = True  # a query that its end cancels is not an error
                server.should_exit = True
                return

    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signal)
        await server.serve(sockets=[on])
        group.cancel_scope.cancel()
