"""Tokens: had once, renewed once for all who wait, never shown."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from syncd.albert import (
    AlbertAuthError,
    AlbertClientCredentials,
    AlbertConnectError,
    AlbertException,
    AlbertHTTPError,
    AlbertLostError,
    AlbertTimeoutError,
    AsyncAlbertSession,
    BadGateway,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.albert.auth import TOKEN_PATH
from tests.albert.client_wire import Answer, Open, Reply, Seen, Wire, hang, reply, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s3cr3t/of+the=client"
API = "/api/v3/chats/sessions"


class Issuer:
    """A server that issues numbered tokens and accepts those in `good`."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.good: set[str] = set()
        self.expires_in: object = 3600
        self.same_text = False
        wire.default = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.path == TOKEN_PATH:
            token = f"issued-token-{0 if self.same_text else len(self.token_requests)}"
            self.good.add(token)
            return reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in})
        taken = seen.headers["authorization"].removeprefix("Bearer ") in self.good
        return reply(200, {"Items": []}) if taken else reply(401, {"message": "expired"})

    @property
    def token_requests(self) -> list[Seen]:
        return [each for each in self.wire.seen if each.path == TOKEN_PATH]

    @property
    def api_requests(self) -> list[Seen]:
        return [each for each in self.wire.seen if each.path != TOKEN_PATH]


@pytest.fixture
def issuer(wire: Wire) -> Issuer:
    return Issuer(wire)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(clock: Clock) -> AlbertClientCredentials:
    return AlbertClientCredentials(id="client", secret=SecretStr(SECRET), clock=clock)


@pytest.fixture
def renewing(opened: Open, credentials: AlbertClientCredentials) -> AsyncAlbertSession:
    return opened(auth_manager=credentials)


async def test_token_request_is_the_form_of_the_official_sdk(issuer: Issuer, renewing: AsyncAlbertSession) -> None:
    await renewing.get(API)
    (asked,) = issuer.token_requests
    assert (asked.method, asked.target) == ("POST", TOKEN_PATH)
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in asked.headers
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client"],
        "client_secret": [SECRET],
    }
    assert issuer.api_requests[0].headers["authorization"] == "Bearer issued-token-1"


async def test_fifty_requests_at_the_start_share_one_token_request(
    issuer: Issuer, renewing: AsyncAlbertSession
) -> None:
    await asyncio.gather(*(renewing.get(API) for _ in range(50)))
    assert len(issuer.token_requests) == 1
    assert len(issuer.api_requests) == 50


@pytest.mark.parametrize("same_text", [False, True])
async def test_fifty_refused_requests_share_one_renewal_and_are_sent_again_once(
    issuer: Issuer, renewing: AsyncAlbertSession, *, same_text: bool
) -> None:
    """The server may issue the same text again as the new token; all requests still share one renewal."""
    issuer.same_text = same_text
    await renewing.get(API)
    issuer.good.clear()
    refused, released = 0, asyncio.Event()

    async def refuse(_: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        refused += 1
        if refused == 50:
            released.set()
        await released.wait()
        writer.write(reply(401).raw)

    issuer.wire.then(*[refuse] * 50)
    answers = await asyncio.gather(*(renewing.post(API, json={"n": n}) for n in range(50)))
    assert {each.status_code for each in answers} == {200}
    assert len(issuer.token_requests) == 2
    assert len(issuer.api_requests) == 1 + 50 + 50
    sent = [each.json["n"] for each in issuer.api_requests[1:]]
    assert sorted(sent) == sorted([*range(50), *range(50)])


async def test_second_401_is_an_error_after_one_renewal(issuer: Issuer, renewing: AsyncAlbertSession) -> None:
    await renewing.get(API)
    issuer.wire.then(reply(401), reply(200, {"access_token": "refused-too", "expires_in": 60}), reply(401))
    with pytest.raises(UnauthorizedError) as caught:
        await renewing.get(API)
    assert caught.value.not_applied
    assert len(issuer.wire.seen) == 2 + 3


async def test_static_token_is_not_sent_again_after_a_401(wire: Wire, session: AsyncAlbertSession) -> None:
    wire.then(reply(401, {"message": "who?"}))
    with pytest.raises(UnauthorizedError, match="who"):
        await session.get(API)
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    ("expires_in", "kept"),
    [
        (3600, 3540),
        (120, 60),
        (100, 50),
        (10, 5),
        (90.0, 45),
        (None, 1e9),
        (0, 1e9),
        (-5, 1e9),
        ("x", 1e9),
        (True, 1e9),
    ],
)
async def test_token_is_kept_until_a_minute_before_its_end_or_half_of_its_life(
    issuer: Issuer, renewing: AsyncAlbertSession, clock: Clock, expires_in: object, kept: float
) -> None:
    issuer.expires_in = expires_in
    await renewing.get(API)
    clock.now += kept - 0.01
    await renewing.get(API)
    assert len(issuer.token_requests) == 1
    clock.now += 0.02
    await renewing.get(API)
    assert len(issuer.token_requests) == (1 if kept == 1e9 else 2)


async def test_cancelled_renewal_does_not_fail_the_requests_that_wait_for_it(
    issuer: Issuer, renewing: AsyncAlbertSession
) -> None:
    issuer.wire.then(hang)
    leader = asyncio.create_task(renewing.get(API))
    await issuer.wire.arrived(1)
    followers = [asyncio.create_task(renewing.get(API)) for _ in range(10)]
    await asyncio.sleep(0)
    leader.cancel()
    answers = await asyncio.gather(*followers)
    assert {each.status_code for each in answers} == {200}
    assert leader.cancelled()
    assert len(issuer.token_requests) == 2


async def test_failed_renewal_is_one_request_and_fails_every_waiting_request(
    issuer: Issuer, renewing: AsyncAlbertSession
) -> None:
    go = asyncio.Event()

    async def refuse(_: Seen, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(reply(401, {"message": "bad client"}).raw)

    issuer.wire.then(refuse)
    tasks = [asyncio.create_task(renewing.get(API)) for _ in range(20)]
    await issuer.wire.arrived(1)
    go.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, AlbertAuthError) and each.not_applied for each in errors)
    assert len({id(each) for each in errors}) == 20  # each request raises its own error, with its own traceback
    assert len(issuer.wire.seen) == 1
    await renewing.get(API)  # the next request asks for a token again


TOKEN_FAILURES: dict[str, tuple[Answer, type[AlbertException]]] = {
    "400": (reply(400, {"message": "bad"}), AlbertAuthError),
    "401": (reply(401, {"message": "bad"}), AlbertAuthError),
    "403": (reply(403), AlbertAuthError),
    "404 is no missing session": (reply(404), AlbertAuthError),
    "409 is no existing session": (reply(409), AlbertAuthError),
    "redirect": (reply(302, location="http://evil.example/"), AlbertAuthError),
    "429": (reply(429, retry_after="7"), TooManyRequestsError),
    "502": (reply(502), BadGateway),
    "503": (reply(503, retry_after="7"), ServiceUnavailableError),
    "html": (reply(200, "<html>"), AlbertAuthError),
    "no token": (reply(200, {}), AlbertAuthError),
    "null": (reply(200, "null"), AlbertAuthError),
    "empty token": (reply(200, {"access_token": ""}), AlbertAuthError),
    "number": (reply(200, {"access_token": 5}), AlbertAuthError),
    "token with a line break": (reply(200, {"access_token": "a\r\nX: y"}), AlbertAuthError),
    "bad gzip": (reply(200, b"x", content_encoding="gzip"), AlbertAuthError),
    "lost": (Reply(b"", "close"), AlbertLostError),
    "slow": (hang, AlbertTimeoutError),
}


@pytest.mark.parametrize("name", TOKEN_FAILURES)
async def test_failed_token_request_means_that_nothing_was_applied(
    wire: Wire,
    opened: Open,
    credentials: AlbertClientCredentials,
    name: str,
) -> None:
    answer, error = TOKEN_FAILURES[name]
    wire.then(answer)
    with pytest.raises(AlbertException) as caught:
        await opened(auth_manager=credentials, timeout=0.3).post(API, json={})
    assert type(caught.value) is error
    assert caught.value.not_applied
    assert [each.path for each in wire.seen] == [TOKEN_PATH]
    if isinstance(caught.value, TooManyRequestsError | ServiceUnavailableError):
        assert caught.value.retry_after == 7
        assert caught.value.path == TOKEN_PATH


async def test_unreachable_token_endpoint_is_a_connect_error(opened: Open) -> None:
    async with serving() as gone:
        away = AlbertClientCredentials(id="client", secret=SECRET, base_url=gone.url)
    with pytest.raises(AlbertConnectError) as caught:
        await opened(auth_manager=away).get(API)
    assert SECRET not in repr(caught.value)


async def test_echoed_client_secret_is_not_in_the_error(wire: Wire, renewing: AsyncAlbertSession) -> None:
    wire.then(reply(401, {"message": f"no such pair client/{SECRET}"}), reply(503, f"client_secret={SECRET}"))
    for _ in range(2):
        with pytest.raises(AlbertException) as caught:
            await renewing.get(API)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in str(error)
            assert SECRET not in repr(error.__dict__)
            error = error.__cause__ or error.__context__


async def test_token_may_come_from_another_base_url(wire: Wire, opened: Open) -> None:
    async with serving() as other:
        Issuer(other)
        made = AlbertClientCredentials(id="client", secret=SECRET, base_url=other.url + "/login/")
        other.then(reply(200, {"access_token": "from-elsewhere", "expires_in": 60}))
        await opened(auth_manager=made).get(API)
        assert [each.path for each in other.seen] == [f"/login{TOKEN_PATH}"]
        assert wire.seen[0].headers["authorization"] == "Bearer from-elsewhere"


async def test_auth_manager_overrides_token(issuer: Issuer, opened: Open, credentials: AlbertClientCredentials) -> None:
    await opened(auth_manager=credentials, token="unused-token").get(API)
    assert issuer.api_requests[0].headers["authorization"] == "Bearer issued-token-1"


# -- a token that is read --


async def test_rotated_token_file_is_read_again_after_a_401(wire: Wire, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    reading = opened(token=file.read_text)
    await reading.get(API)
    file.write_text("second-token\n")
    await reading.get(API)
    wire.then(reply(401))
    await reading.get(API)
    used = [each.headers["authorization"].removeprefix("Bearer ") for each in wire.seen]
    assert used == ["first-token", "first-token", "first-token", "second-token"]


async def test_unchanged_token_is_not_sent_again_after_a_401(wire: Wire, opened: Open) -> None:
    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        return "the-token"

    wire.then(reply(401))
    with pytest.raises(UnauthorizedError):
        await opened(token=read).get(API)
    assert (reads, len(wire.seen)) == (2, 1)


async def test_rotated_client_secret_is_read_for_the_next_token(issuer: Issuer, opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first-secret\n")
    session = opened(auth_manager=AlbertClientCredentials(id=lambda: "client\n", secret=file.read_text))
    await session.get(API)
    file.write_text("second-secret\n")
    await session.get(API)
    issuer.good.clear()
    await session.get(API)
    forms = [parse_qs(each.body.decode()) for each in issuer.token_requests]
    assert [(form["client_id"], form["client_secret"]) for form in forms] == [
        (["client"], ["first-secret"]),
        (["client"], ["second-secret"]),
    ]


def _gone() -> str:
    raise FileNotFoundError(2, "No such file or directory", "/run/secrets/client")


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (_gone, "cannot be read: No such file"),
        (b"\xff-hidden".decode, "empty, or not text"),
        (lambda: " \n", "empty, or not text"),
    ],
    ids=["gone", "not UTF-8", "empty"],
)
async def test_client_credentials_that_cannot_be_read_are_an_auth_error(
    issuer: Issuer, opened: Open, read: Callable[[], str], words: str
) -> None:
    with pytest.raises(AlbertAuthError, match=words) as caught:
        await opened(auth_manager=AlbertClientCredentials(id="client", secret=read)).get(API)
    assert caught.value.not_applied
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, OSError)
    assert not issuer.wire.seen


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "nön", "a\0b"])
async def test_file_without_a_valid_token_is_an_auth_error(wire: Wire, opened: Open, content: str) -> None:
    with pytest.raises(AlbertAuthError) as caught:
        await opened(token=lambda: content).get(API)
    assert caught.value.not_applied
    assert not wire.seen


async def test_token_file_that_cannot_be_read_is_an_auth_error(wire: Wire, opened: Open, tmp_path: Path) -> None:
    with pytest.raises(AlbertAuthError, match="No such file"):
        await opened(token=(tmp_path / "none").read_text).get(API)
    assert not wire.seen


# -- what is shown --


async def test_no_repr_shows_a_secret(issuer: Issuer, renewing: AsyncAlbertSession, opened: Open) -> None:
    await renewing.get(API)
    static = opened(token=SecretStr("static-token"))
    made = renewing._exchange.credentials
    shown = repr([renewing, made, made.at_hand(), static, static._exchange.credentials])
    shown += str(made)
    for secret in (SECRET, "issued-token", "static-token"):
        assert secret not in shown
    assert issuer.wire.seen


@pytest.mark.parametrize("token", ["", "  ", "a b", "a\nb", "ä", "a\x7f"])
def test_token_that_is_invalid_in_a_header_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(ValueError, match="the token") as caught:
        AsyncAlbertSession(base_url="https://albert.example", token=token)
    assert token.strip() == "" or token not in str(caught.value)


def test_missing_and_empty_credentials_are_refused() -> None:
    with pytest.raises(ValueError, match="either"):
        AsyncAlbertSession(base_url="https://albert.example")
    for name, secret in (("", "s"), ("i", "")):
        with pytest.raises(ValueError, match="empty"):
            AlbertClientCredentials(id=name, secret=secret)
    with pytest.raises(ValueError, match="base URL"):
        AlbertClientCredentials(id="i", secret="s", base_url="http://albert.example")


# -- the deadline and the limiter --


async def test_before_request_is_awaited_for_token_requests_and_repeats_too(
    issuer: Issuer, opened: Open, credentials: AlbertClientCredentials
) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        assert turns == len(issuer.wire.seen) + 1

    limited = opened(auth_manager=credentials, before_request=turn)
    await limited.get(API)
    issuer.good.clear()
    await limited.get(API)
    assert turns == len(issuer.wire.seen) == 2 + 3


async def test_time_in_before_request_is_not_part_of_the_deadline(
    issuer: Issuer, opened: Open, credentials: AlbertClientCredentials
) -> None:
    async def turn() -> None:
        await asyncio.sleep(0.15)

    response = await opened(auth_manager=credentials, before_request=turn, timeout=0.2).get(API)
    assert response.status_code == 200
    assert len(issuer.wire.seen) == 2


async def test_timeout_error_of_before_request_is_raised_unchanged(opened: Open) -> None:
    async def turn() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await opened(before_request=turn).get(API)


async def test_deadline_covers_the_renewal_and_the_repeat(
    wire: Wire, opened: Open, credentials: AlbertClientCredentials
) -> None:
    wire.then(reply(200, {"access_token": "first-token", "expires_in": 3600}), reply(401), hang)
    with pytest.raises(AlbertTimeoutError) as caught:
        await opened(auth_manager=credentials, timeout=0.2).post(API, json={})
    assert caught.value.not_applied  # the first attempt was refused, and no new token arrived
    assert [each.path for each in wire.seen] == [TOKEN_PATH, API, TOKEN_PATH]


async def test_repeat_that_times_out_may_have_been_applied(
    wire: Wire, opened: Open, credentials: AlbertClientCredentials
) -> None:
    grant = reply(200, {"access_token": "some-token", "expires_in": 3600})
    wire.then(grant, reply(401), grant, hang)
    with pytest.raises(AlbertTimeoutError) as caught:
        await opened(auth_manager=credentials, timeout=0.2).post(API, json={})
    assert not caught.value.not_applied


def test_http_errors_keep_their_attributes_when_copied() -> None:
    error = TooManyRequestsError("slow down", status_code=429, retry_after=3.0)
    again: AlbertHTTPError = copy.copy(error)
    assert (again.retry_after, again.message, type(again)) == (3.0, "slow down", TooManyRequestsError)
