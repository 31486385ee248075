"""Errors for answers that break off, connections that fail, deadlines, and sessions that are closed."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from syncd.albert import (
    AlbertConnectError,
    AlbertLostError,
    AlbertResponseError,
    AlbertTimeoutError,
    AsyncAlbertSession,
    InvalidRequestError,
    NotFoundError,
    RedirectError,
)
from tests.albert.client_wire import TOKEN, Open, Reply, Wire, hang, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

from tests.albert.client_wire import everything_shown

PATH = "/api/v3/chats/sessions/SES1"
CUT = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "close")
BREAKS = [
    ("closed without an answer", Reply(b"", "close")),
    ("reset without an answer", Reply(b"", "reset")),
    ("cut in the status line", Reply(b"HTTP/1.1 20", "close")),
    ("cut in the headers", Reply(b"HTTP/1.1 200 OK\r\nContent-", "close")),
    ("cut in the body", CUT),
    ("reset in the body", Reply(CUT.raw, "reset")),
    ("cut in a chunk", Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", "close")),
]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize(("name", "answer"), BREAKS)
async def test_broken_answer_is_a_lost_error_and_the_request_is_sent_once(
    wire: Wire, session: AsyncAlbertSession, method: str, name: str, answer: Reply
) -> None:
    wire.then(reply(200), answer)
    await session.get("/warm")  # the next request reuses this connection
    if method == "DELETE" and ("body" in name or "chunk" in name):
        await session.delete(PATH)  # a delete needs only the status
    else:
        with pytest.raises(AlbertLostError) as caught:
            await session.request(method, PATH)
        assert not caught.value.not_applied
        assert (caught.value.method, caught.value.path) == (method, PATH)
        assert TOKEN not in everything_shown(caught.value)
    assert [each.method for each in wire.seen] == ["GET", method]


async def test_truncated_body_does_not_hide_the_status(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(Reply(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{", "close"))
    with pytest.raises(NotFoundError) as caught:
        await session.get(PATH)
    assert caught.value.message == "(the body cannot be read)"


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nno colon {TOKEN}\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    ],
)
async def test_answer_that_is_not_http_is_a_response_error_without_the_token(
    wire: Wire, session: AsyncAlbertSession, raw: bytes
) -> None:
    wire.then(Reply(raw, "close"))
    with pytest.raises(AlbertResponseError) as caught:
        await session.get(PATH)
    assert TOKEN not in everything_shown(caught.value)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_refused_connection_is_a_connect_error(closed_port: int, opened: Open) -> None:
    with pytest.raises(AlbertConnectError) as caught:
        await opened(base_url=f"http://127.0.0.1:{closed_port}").post(PATH, json={})
    assert caught.value.not_applied
    assert isinstance(caught.value.__cause__, OSError)
    assert TOKEN not in everything_shown(caught.value)


async def test_unknown_host_is_a_connect_error(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(AlbertConnectError, match="not known") as caught:
        await opened(base_url="https://albert.invalid").get(PATH)
    assert caught.value.not_applied


async def test_slow_name_look_up_is_a_connect_error(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", stuck)
    with pytest.raises(AlbertConnectError, match="look-up"):
        await opened(base_url="https://albert.invalid", timeout=0.2).get(PATH)


async def test_tls_handshake_that_hangs_is_a_connect_error(opened: Open) -> None:
    released = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(AlbertConnectError, match="in time") as caught:
            await opened(base_url=f"https://127.0.0.1:{port}", timeout=0.2).post(PATH, json={})
        assert caught.value.not_applied
        released.set()


async def test_request_to_a_silent_server_times_out(wire: Wire, opened: Open) -> None:
    wire.then(hang)
    with pytest.raises(AlbertTimeoutError) as caught:
        await opened(timeout=0.1).post(PATH, json={})
    assert not caught.value.not_applied
    assert (caught.value.method, caught.value.path) == ("POST", PATH)


async def test_slow_body_does_not_extend_the_deadline(wire: Wire, opened: Open) -> None:
    dripped = 0

    async def drip(_: object, writer: asyncio.StreamWriter) -> None:
        nonlocal dripped
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            dripped += 1
            await writer.drain()
            await asyncio.sleep(0.01)

    wire.then(drip)
    with pytest.raises(AlbertTimeoutError):
        await opened(timeout=0.2).get(PATH)
    assert dripped > 3


async def test_cancelled_request_leaves_the_session_usable(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(hang)
    task = asyncio.create_task(session.get(PATH))
    await wire.arrived(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await session.get(PATH)).status_code == 200


async def test_redirects_are_not_followed(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(*(reply(status, location=f"{wire.url}/elsewhere") for status in (301, 302, 303, 307, 308)))
    for _ in range(5):
        with pytest.raises(RedirectError):
            await session.get(PATH)
    assert {each.path for each in wire.seen} == {PATH}


async def test_request_of_a_closed_session_is_an_error(session: AsyncAlbertSession) -> None:
    await session.aclose()
    await session.aclose()
    with pytest.raises(InvalidRequestError, match="closed"):
        await session.get(PATH)


def test_request_in_another_event_loop_is_an_error() -> None:
    session = AsyncAlbertSession(base_url="http://127.0.0.1:9", token="t")

    async def request() -> None:
        await session.get(PATH)

    with pytest.raises(AlbertConnectError):
        asyncio.run(request())
    with pytest.raises(InvalidRequestError, match="another event loop"):
        asyncio.run(request())
    asyncio.run(session.aclose())


async def test_request_without_an_asyncio_loop_is_an_error(
    session: AsyncAlbertSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise RuntimeError("no running event loop")

    monkeypatch.setattr("syncd.albert.transport.asyncio.get_running_loop", none)
    with pytest.raises(InvalidRequestError, match="asyncio"):
        await session.get(PATH)
