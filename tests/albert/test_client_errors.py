"""Every failure has the class that says what to do about it, and no secret in it."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd import albert
from syncd.albert import (
    AlbertClientError,
    AlbertConnectError,
    AlbertException,
    AlbertHTTPError,
    AlbertLostError,
    AlbertResponseError,
    AlbertServerError,
    AlbertTimeoutError,
    AsyncAlbertSession,
    ChatSessionCollection,
    InvalidRequestError,
    NotFoundError,
    RedirectError,
    TooManyRequestsError,
)
from syncd.albert.answers import one_line, redactor
from tests.albert.client_wire import TOKEN, Open, Reply, Wire, hang, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/api/v3/chats/sessions/SES1"

STATUSES = [
    (300, "RedirectError", "RedirectError"),
    (302, "RedirectError", "RedirectError"),
    (304, "RedirectError", "RedirectError"),
    (400, "BadRequestError", "AlbertClientError"),
    (401, "UnauthorizedError", "AlbertClientError"),
    (402, "AlbertClientError", "AlbertClientError"),
    (403, "ForbiddenError", "AlbertClientError"),
    (404, "NotFoundError", "AlbertClientError"),
    (409, "ConflictError", "AlbertClientError"),
    (410, "GoneError", "AlbertClientError"),
    (412, "PreconditionFailedError", "AlbertClientError"),
    (415, "UnsupportedMediaTypeError", "AlbertClientError"),
    (418, "AlbertClientError", "AlbertClientError"),
    (428, "PreconditionRequiredError", "AlbertClientError"),
    (429, "TooManyRequestsError", "AlbertClientError"),
    (500, "InternalServerError", "AlbertServerError"),
    (502, "BadGateway", "AlbertServerError"),
    (503, "ServiceUnavailableError", "AlbertServerError"),
    (504, "AlbertServerError", "AlbertServerError"),
    (599, "AlbertServerError", "AlbertServerError"),
    (600, "AlbertHTTPError", "AlbertHTTPError"),
]


@pytest.mark.parametrize(
    ("status", "rejected"),
    [(302, True), (400, True), (403, True), (408, False), (409, True), (429, True), (500, False), (503, False)],
)
def test_redirects_and_4xx_answers_except_408_reject_the_request(status: int, *, rejected: bool) -> None:
    assert AlbertHTTPError(status_code=status).rejected is rejected


def everything_shown(error: BaseException) -> str:
    """Return all text that a log, a traceback or a crash report could show of an error and its causes."""
    shown, todo, met = [], [error], set()
    while todo:
        each = todo.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        shown += [str(each), repr(each), repr(each.args), repr(getattr(each, "__dict__", {}))]
        shown += traceback.format_exception(each)
        todo += [behind for behind in (each.__cause__, each.__context__) if behind is not None]
    return "\n".join(shown)


@pytest.mark.parametrize(("status", "name", "family"), STATUSES)
async def test_status_maps_to_its_error_class_and_family(
    wire: Wire, session: AsyncAlbertSession, status: int, name: str, family: str
) -> None:
    wire.then(reply(status, {"message": "the words"} if status != 304 else b""))
    with pytest.raises(AlbertHTTPError) as caught:
        await session.get(PATH)
    assert type(caught.value).__name__ == name
    assert isinstance(caught.value, getattr(albert, family))
    assert (caught.value.status_code, caught.value.method, caught.value.path) == (status, "GET", PATH)
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"errors": "no such name"}, "no such name"),
        ({"message": "no such name"}, "no such name"),
        ({"errors": [{"msg": "no"}], "message": "unused"}, '[{"msg": "no"}]'),
        ({"errors": [], "message": "then this"}, "then this"),
        ({"title": "odd"}, '{"title": "odd"}'),
        (["a", 1], '["a", 1]'),
        ("plain words ", "plain words"),
        (b"", ""),
        (b"\xff\xfe", "��"),
        ("two\nlines\x1b[31m\x9b", r"two\nlines\x1b[31m\x9b"),
    ],
)
async def test_message_quotes_the_server_on_one_line(
    wire: Wire, session: AsyncAlbertSession, body: object, words: str
) -> None:
    wire.then(reply(400, body))
    with pytest.raises(AlbertHTTPError) as caught:
        await session.post(PATH, json={})
    assert caught.value.message == words
    assert str(caught.value) == f"POST {PATH} answered 400" + (f": {words}" if words else "")


async def test_message_and_body_are_bounded(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(reply(500, "x" * 100_000))
    with pytest.raises(AlbertServerError) as caught:
        await session.get(PATH)
    assert len(caught.value.message) == 501
    assert len(caught.value.body) == 4096
    assert len(str(caught.value)) < 1000


@given(st.text())
def test_one_line_bounds_every_text_and_removes_line_breaks(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 501
    assert len(line.splitlines()) <= 1
    line.encode()


@pytest.mark.parametrize(
    "body",
    [
        f"who is {TOKEN}?",
        {"message": f"Bearer {TOKEN}"},
        {"errors": [{"header": f"Authorization: Bearer {TOKEN}"}]},
        json.dumps({"message": TOKEN}).replace("t", "\\u0074").encode(),
        "x" * 480 + TOKEN * 40,
        "y" * 4080 + TOKEN * 2,
        f"Bearer {TOKEN[:11]}",
    ],
)
async def test_echoed_token_is_not_in_the_error(wire: Wire, session: AsyncAlbertSession, body: object) -> None:
    wire.then(reply(403, body, x_echo=TOKEN))
    with pytest.raises(AlbertHTTPError) as caught:
        await session.get(PATH)
    shown = everything_shown(caught.value)
    assert TOKEN[:11] not in shown
    assert "x-echo" not in shown.lower()


def test_secrets_are_redacted_in_url_and_json_encodings() -> None:
    secret = 'p/q+r="s" t\\u'
    hide = redactor([secret])
    for echoed in (secret, "p%2Fq%2Br%3D%22s%22%20t%5Cu", 'p/q+r=\\"s\\" t\\\\u', secret.replace("/", "\\/")):
        assert hide(f"<{echoed}>") == "<***>"


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


def http_date(seconds: float) -> str:
    return format_datetime(datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("99999999999", 99999999999.0),
        (http_date(30), 30.0),
        (http_date(0), 0.0),
        (http_date(-30), None),
        ("9" * 400, None),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("²", None),
        ("Tue, 99 Foo 2030", None),
    ],
)
async def test_retry_after_is_read_from_seconds_and_from_dates(
    wire: Wire, session: AsyncAlbertSession, value: str, seconds: float | None
) -> None:
    wire.then(reply(429, retry_after=value, date=http_date(0)))
    with pytest.raises(TooManyRequestsError) as caught:
        await session.get(PATH)
    assert caught.value.retry_after == seconds


async def test_retry_after_is_measured_by_the_local_clock_if_the_server_sends_no_date(
    wire: Wire, session: AsyncAlbertSession
) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    wire.then(reply(503, retry_after=later))
    with pytest.raises(AlbertServerError) as caught:
        await session.get(PATH)
    assert caught.value.retry_after is not None
    assert 90 < caught.value.retry_after <= 100


async def test_redirects_are_not_followed(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(*(reply(status, location=f"{wire.url}/elsewhere") for status in (301, 302, 303, 307, 308)))
    for _ in range(5):
        with pytest.raises(RedirectError):
            await session.get(PATH)
    assert {each.path for each in wire.seen} == {PATH}


@pytest.mark.parametrize("name", [name for name in albert.__all__ if name.endswith("Error") or name == "BadGateway"])
def test_every_error_can_be_pickled(name: str) -> None:
    cls = getattr(albert, name)
    words = {"status_code": 429, "retry_after": 1.5, "body": "b"} if issubclass(cls, AlbertHTTPError) else {}
    error = cls("words", method="GET", path="/p", **words)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(copy) is cls
    assert (str(copy), copy.__dict__, copy.args) == (str(error), error.__dict__, error.args)


def test_errors_share_one_base_and_client_errors_are_not_server_errors() -> None:
    assert all(issubclass(getattr(albert, name), AlbertException) for name in albert.__all__ if name.endswith("Error"))
    assert issubclass(InvalidRequestError, ValueError)
    assert not issubclass(AlbertClientError, AlbertServerError)


async def test_body_that_is_not_json_is_refused_before_any_request(wire: Wire, session: AsyncAlbertSession) -> None:
    for hostile in ("\ud800", float("nan"), object()):
        with pytest.raises(InvalidRequestError):
            await session.post(PATH, json={"name": hostile})
    assert not wire.seen


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"null", b"{}", b'{"name": 5}', b"\xff", b'{"name": "n"'])
async def test_200_that_is_not_a_session_is_a_response_error(
    wire: Wire, sessions: ChatSessionCollection, answer: bytes
) -> None:
    wire.then(reply(200, answer))
    with pytest.raises(AlbertResponseError) as caught:
        await sessions.get_by_id(id="SES1")
    assert (caught.value.method, caught.value.path) == ("GET", PATH)


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
