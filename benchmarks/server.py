"""The server of the benchmarks: Albert's wire with as little of its own work as can be, on a core of its own.

It speaks HTTP/1.1 through a bare asyncio protocol. The listing is made up on the fly from a template, so a million
sessions cost no memory; `changed` sessions carry another name when asked for generation 1. A look-up by source id answers
404 and a POST answers with the session, as a queue of creates wants it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
from urllib.parse import parse_qs, urlsplit

AT = "2025-%02d-%02dT%02d:%02d:%02d.%03dZ"


def session(number: int, generation: int = 0) -> dict[str, object]:
    """Make the session of a number: about 430 bytes of JSON."""
    day = AT % (1 + number % 12, 1 + number % 28, number % 24, number % 60, number % 59, number % 1000)
    user = {"by": f"USR{number % 97}", "byName": f"Researcher Number {number % 97}", "at": day}
    scrambled = (number * 2654435761) % 2**32
    return {
        "id": f"SES{number}",
        "name": f"How does the rheology of formulation {number} change with pigment load{' (revised)' * generation}?",
        "parentId": f"CFD{number % 211}",
        "sourceSessionId": f"{scrambled:08x}-0000-4000-8000-{number:012x}",
        "lastMessageAt": day,
        "status": "active",
        "kind": "chat",
        "Created": user,
        "Updated": user if not generation else {**user, "at": day.replace("2025", "2026")},
    }


@functools.lru_cache(maxsize=20_000)
def page(first: int, size: int, total: int, generation: int, every: int) -> bytes:
    """Make the answer for a page; in generation 1 one session out of `every` has changed."""
    last = min(first + size, total)
    items = [session(n, generation if every and n % every == 0 else 0) for n in range(first, last)]
    body = json.dumps({"Items": items, "lastKey": str(last) if last < total else None}, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Protocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived whole."""
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            answer = self.answer(head, body)
            if self.options.latency:
                loop = asyncio.get_running_loop()
                loop.call_later(self.options.latency, self.transport.write, answer)
            else:
                self.transport.write(answer)

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Answer one request."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if method == "POST":
            made = json.dumps({"id": f"NEW{json.loads(body)['sourceSessionId']}", **json.loads(body)}).encode()
            return b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
                len(made),
                made,
            )
        path = urlsplit(target)
        if "/source/" in path.path:
            return (
                b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n"
                b'{"message":"not found"}'
            )
        first = int(parse_qs(path.query).get("startKey", ["0"])[0])
        return page(first, self.options.page, self.options.sessions, self.options.generation, self.options.every)


async def main() -> None:
    """Serve until the parent goes away."""
    parser = argparse.ArgumentParser()
    for name, default in (("sessions", 100_000), ("page", 100), ("generation", 0), ("every", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(options), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(input)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (EOFError, KeyboardInterrupt):
        pass
