"""The server of the benchmarks: it answers as Albert does, with as little CPU as possible, on a core of its own.

It speaks HTTP/1.1 through a bare asyncio protocol. Every session is calculated from its number, so a million of them
need no memory, and a verification can calculate them again. Pages are created before they are measured. A look-up by
source id finds the sessions of the listing and those that a POST created. A POST answers with the session.

`GET /bench/set?sessions=N&page=P...` sets the listing and resets the counts. `GET /bench/counts` returns the counts of
requests. `GET /bench/arrivals` returns the time of the first look-up of each source id (`time.monotonic`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from benchmarks.machine import SERVER_CORE, pin

COLUMNS = (
    "id", "name", "parent_id", "source_session_id", "last_message_at", "status", "kind",
    "created_by", "created_by_name", "created_at", "updated_by", "updated_by_name", "updated_at", "extra",
)  # fmt: skip
"""The columns of the flat table of sessions that the floors and the peers write."""
LISTING = "/api/v3/chats/sessions"
LOOK_UP = f"GET {LISTING}/source/".encode()
AT = "2025-%02d-%02dT%02d:%02d:%02d.%03dZ"
PREBUILT = 200_000
"""Listings of up to this number of sessions are created in advance and kept."""
ANSWER = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
NOT_FOUND = ANSWER % (b"404 Not Found", 23, b'{"message":"not found"}')


@dataclass(frozen=True)
class Listing:
    """The listing that is served.

    Parameters
    ----------
    sessions, page : int
        The number of sessions, and the number on each page.
    every : int
        One session out of this number has changed; 0 for none.
    changed_from : int
        Sessions from this number on have changed; -1 for none.
    lists_created : int
        1 if sessions that a POST created follow in the listing; otherwise only look-ups find them.
    latency : float
        Seconds by which each answer is delayed.
    """

    sessions: int = 0
    page: int = 100
    every: int = 0
    changed_from: int = -1
    lists_created: int = 0
    latency: float = 0.0

    def changed(self, number: int) -> bool:
        """Whether the session of a number is served in its second version."""
        return bool(self.every and number % self.every == 0) or 0 <= self.changed_from <= number


@dataclass
class Served:
    """The counts of requests since the last `set`."""

    pages: int = 0
    lookups: int = 0
    """Look-ups that were answered with 404."""
    witnesses: int = 0
    """Look-ups that found a session."""
    posts: int = 0
    other: int = 0
    connections: int = 0
    """Connections with a look-up."""
    arrivals: dict[str, float] = field(default_factory=dict)


def source_id(number: int) -> str:
    """Make a source id. They have no order, like ids of another system."""
    return f"{(number * 2654435761) % 2**32:08x}-0000-4000-8000-{number:012x}"


def session(number: int, *, changed: bool = False) -> dict[str, Any]:
    """Make the session of a number: about 430 bytes of JSON."""
    day = AT % (1 + number % 12, 1 + number % 28, number % 24, number % 60, number % 59, number % 1000)
    user = {"by": f"USR{number % 97}", "byName": f"Researcher Number {number % 97}", "at": day}
    return {
        "id": f"SES{number}",
        "name": f"How does the rheology of formulation {number} change with pigment load{' (revised)' * changed}?",
        "parentId": f"CFD{number % 211}",
        "sourceSessionId": source_id(number),
        "lastMessageAt": day,
        "status": "active",
        "kind": "chat",
        "Created": user,
        "Updated": {**user, "at": day.replace("2025", "2026")} if changed else user,
    }


def _page(listing: Listing, first: int) -> bytes:
    last = min(first + listing.page, listing.sessions)
    items = [session(n, changed=listing.changed(n)) for n in range(first, last)]
    key = str(last) if last < listing.sessions else None
    return _json(b"200 OK", {"Items": items, "lastKey": key})


def _json(status: bytes, value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return ANSWER % (status, len(body), body)


class Server:
    """The state of the server: the listing and the counts."""

    def __init__(self) -> None:
        self.listing = Listing()
        self.served = Served()
        self.created: dict[str, dict[str, Any]] = {}
        self.page = functools.partial(_page, self.listing)

    def set(self, query: str) -> bytes:
        """Serve another listing."""
        values = dict(parse_qsl(query))
        numbers = {name: int(value) for name, value in values.items() if name != "latency"}
        listing = Listing(**numbers, latency=float(values.get("latency", 0)))
        if asdict(listing) | {"latency": 0} != asdict(self.listing) | {"latency": 0}:
            self.page = functools.partial(_page, listing)
            if listing.sessions <= PREBUILT:
                made = {first: self.page(first) for first in range(0, max(listing.sessions, 1), listing.page)}
                self.page = made.__getitem__  # type: ignore[assignment]
        self.listing, self.served, self.created = listing, Served(), {}
        return _json(b"200 OK", asdict(listing))

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Answer one request."""
        method, target, _ = head[: head.index(b"\r\n")].decode().split(" ")
        if method == "POST":
            self.served.posts += 1
            asked = json.loads(body)
            created = {"id": f"NEW{asked['sourceSessionId']}", **asked}
            self.created[asked["sourceSessionId"]] = created
            return _json(b"201 Created", created)
        path, _, query = target.partition("?")
        if path == LISTING:
            self.served.pages += 1
            return self._listed(int(query.partition("startKey=")[2] or 0))
        if path.startswith(f"{LISTING}/source/"):
            source = unquote(path.rpartition("/")[2])
            if (known := self._known(source)) is not None:  # the witness of a 404
                self.served.witnesses += 1
                return _json(b"200 OK", known)
            self.served.lookups += 1
            self.served.arrivals.setdefault(source, time.monotonic())
            return NOT_FOUND
        return self._control(path, query)

    def _listed(self, first: int) -> bytes:
        """Return the page that begins with a session, by its place in the listing."""
        listing = self.listing
        if not listing.lists_created or first + listing.page < listing.sessions:
            return self.page(first)
        last = first + listing.page
        items = [session(number, changed=listing.changed(number)) for number in range(first, listing.sessions)]
        created = max(first - listing.sessions, 0), max(last - listing.sessions, 0)
        items += itertools.islice(self.created.values(), *created)
        key = str(last) if last < listing.sessions + len(self.created) else None
        return _json(b"200 OK", {"Items": items, "lastKey": key})

    def _known(self, source: str) -> dict[str, Any] | None:
        """Return the session of a source id, from the listing or from a POST."""
        number = int(source[-12:], 16)
        if number < self.listing.sessions:
            return session(number, changed=self.listing.changed(number))
        return self.created.get(source)

    def _control(self, path: str, query: str) -> bytes:
        served = self.served
        if path == "/bench/set":
            return self.set(query)
        if path == "/bench/counts":
            return _json(b"200 OK", {name: value for name, value in asdict(served).items() if name != "arrivals"})
        if path == "/bench/arrivals":
            return _json(b"200 OK", served.arrivals)
        if path.startswith(f"{LISTING}/SES"):  # a sweep checks that a listed session answers
            served.other += 1
            number = int(path.rpartition("SES")[2])
            return _json(b"200 OK", session(number, changed=self.listing.changed(number)))
        served.other += 1
        return NOT_FOUND


class Protocol(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.looked_up_for: Served | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived completely."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = 0
            if head.startswith(b"POST"):
                at = head.lower().index(b"\r\ncontent-length:") + 17
                length = int(head[at:].partition(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            answer = self.server.answer(head, body)
            if head.startswith(LOOK_UP) and self.looked_up_for is not self.server.served:
                self.looked_up_for = self.server.served
                self.server.served.connections += 1
            if self.server.listing.latency:
                asyncio.get_running_loop().call_later(self.server.listing.latency, self._write, answer)
            else:
                self.transport.write(answer)

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


async def main() -> None:
    """Serve until the parent closes standard input; the port is the one line of output."""
    pin(SERVER_CORE)
    server = Server()
    listener = await asyncio.get_running_loop().create_server(lambda: Protocol(server), "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    with contextlib.suppress(EOFError):
        await asyncio.to_thread(input)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
