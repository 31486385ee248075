"""Tokens: requested once, renewed once for all waiting requests, and hidden in every text."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from syncd.albert import (
    AlbertAuthError,
    AlbertClientCredentials,
    AlbertConnectError,
    AlbertException,
    AlbertLostError,
    AlbertResponseError,
    AlbertTimeoutError,
    AsyncAlbertSession,
    BadGateway,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.albert.auth import TOKEN_PATH
from tests.albert.client_wire import Answer, Open, Reply, Seen, Wire, hang, reply, serving
from tests.albert.token_server import API, SECRET, Clock, Issuer


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
        (10**400, 1e9 - 60),
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
    "html of a gateway": (reply(200, "<html>"), AlbertResponseError),
    "no token": (reply(200, {}), AlbertAuthError),
    "refusal with 200": (reply(200, {"error": "invalid_client"}), AlbertAuthError),
    "null": (reply(200, "null"), AlbertResponseError),
    "empty token": (reply(200, {"access_token": ""}), AlbertAuthError),
    "number": (reply(200, {"access_token": 5}), AlbertAuthError),
    "token with a line break": (reply(200, {"access_token": "a\r\nX: y"}), AlbertAuthError),
    "bad gzip": (reply(200, b"x", content_encoding="gzip"), AlbertResponseError),
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
        # a busy machine must not turn an answer into a timeout
        await opened(auth_manager=credentials, timeout=0.3 if answer is hang else 10).post(API, json={})
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
    with pytest.raises(ValueError, match="must be given"):
        AsyncAlbertSession(base_url="https://albert.example")
    for name, secret in (("", "s"), ("i", "")):
        with pytest.raises(ValueError, match="empty"):
            AlbertClientCredentials(id=name, secret=secret)
    with pytest.raises(ValueError, match="base URL"):
        AlbertClientCredentials(id="i", secret="s", base_url="http://albert.example")
