"""The deadline of a request, and `before_request`, which is awaited before each attempt."""

from __future__ import annotations

import asyncio

import pytest

from syncd.albert import (
    AlbertClientCredentials,
    AlbertTimeoutError,
)
from syncd.albert.auth import TOKEN_PATH
from tests.albert.client_wire import Open, Wire, hang, reply
from tests.albert.token_server import API, Issuer


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
