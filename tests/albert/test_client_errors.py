"""Errors for the answers of the server: classes, messages without secrets, Retry-After, pickling and copying."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd import albert
from syncd.albert import (
    AlbertClientError,
    AlbertException,
    AlbertHTTPError,
    AlbertResponseError,
    AlbertServerError,
    AsyncAlbertSession,
    ChatSessionCollection,
    InvalidRequestError,
    TooManyRequestsError,
)
from syncd.albert.answers import HIDDEN_LIMIT, one_line, redactor
from tests.albert.client_wire import TOKEN, Wire, everything_shown, reply

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
    ("body", "message"),
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
    wire: Wire, session: AsyncAlbertSession, body: object, message: str
) -> None:
    wire.then(reply(400, body))
    with pytest.raises(AlbertHTTPError) as caught:
        await session.post(PATH, json={})
    assert caught.value.message == message
    assert str(caught.value) == f"POST {PATH} answered 400" + (f": {message}" if message else "")


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


async def test_echoed_token_with_json_escapes_is_not_in_the_error_of_a_large_body(
    wire: Wire, session: AsyncAlbertSession
) -> None:
    body = json.dumps({"message": TOKEN, "more": "x" * HIDDEN_LIMIT}).replace("t", "\\u0074")
    wire.then(reply(403, body.encode()))
    with pytest.raises(AlbertHTTPError) as caught:
        await session.get(PATH)
    assert TOKEN[:11] not in everything_shown(caught.value).replace("\\u0074", "t")


def test_secrets_are_redacted_in_url_and_json_encodings() -> None:
    secret = 'p/q+r="s" t\\u'
    hide = redactor([secret])
    for echoed in (secret, "p%2Fq%2Br%3D%22s%22%20t%5Cu", 'p/q+r=\\"s\\" t\\\\u', secret.replace("/", "\\/")):
        assert hide(f"<{echoed}>") == "<***>"


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


@pytest.mark.parametrize("name", [name for name in albert.__all__ if name.endswith("Error") or name == "BadGateway"])
def test_every_error_can_be_pickled(name: str) -> None:
    cls = getattr(albert, name)
    fields = {"status_code": 429, "retry_after": 1.5, "body": "b"} if issubclass(cls, AlbertHTTPError) else {}
    error = cls("words", method="GET", path="/p", **fields)
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(restored) is cls
    assert (str(restored), restored.__dict__, restored.args) == (str(error), error.__dict__, error.args)


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


def test_http_errors_keep_their_attributes_when_copied() -> None:
    error = TooManyRequestsError("slow down", status_code=429, retry_after=3.0)
    again: AlbertHTTPError = copy.copy(error)
    assert (again.retry_after, again.message, type(again)) == (3.0, "slow down", TooManyRequestsError)
