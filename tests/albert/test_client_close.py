"""A session that is closed while other tasks wait for answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
import pytest

from syncd.albert import AlbertTimeoutError, AsyncAlbertSession, ChatSessionCollection, InvalidRequestError
from syncd.push.answers import outcome_of
from syncd.push.outcomes import Dead, Retry
from tests.albert.client_wire import TOKEN, Open, Seen, Wire, everything_shown, hang

PATH = "/api/v3/chats/sessions/SES1"
SENT, UNSENT = "before the answer was received", "before the request was sent"


async def half_a_body(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await asyncio.Event().wait()


async def error_of_close(
    wire: Wire, session: AsyncAlbertSession, call: Coroutine[Any, Any, Any], *, turns: int = 1
) -> Any:
    """Close a session while a call waits for the answer to its request; return the error of the call.

    Between the arrival of the request and the close, each task runs `turns` times.
    """
    task = asyncio.ensure_future(call)
    await wire.arrived(1)
    for _ in range(turns):
        await asyncio.sleep(0)
    await session.aclose()
    with pytest.raises(InvalidRequestError) as caught:
        await asyncio.wait_for(task, 5)
    assert task.cancelling() == 0
    assert TOKEN not in everything_shown(caught.value)
    return caught.value


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_close_during_a_request_is_named_as_its_cause_and_it_may_have_been_applied(
    wire: Wire, session: AsyncAlbertSession, method: str
) -> None:
    wire.then(hang)
    error = await error_of_close(wire, session, session.request(method, PATH))
    assert str(error) == f"{method} {PATH}: this program closed the session {SENT}"
    assert (error.not_applied, error.method) == (False, method)


@pytest.mark.parametrize("turns", range(8))
async def test_close_at_any_moment_of_the_answer_is_named_as_its_cause(
    wire: Wire, session: AsyncAlbertSession, turns: int
) -> None:
    wire.then(half_a_body)
    error = await error_of_close(wire, session, session.post(PATH, json={}), turns=turns)
    assert (error.message, error.not_applied) == (f"this program closed the session {SENT}", False)


async def test_close_while_a_listing_waits_for_a_page_is_named_as_its_cause(
    wire: Wire, session: AsyncAlbertSession
) -> None:
    wire.then(hang)

    async def first() -> object:
        return await anext(ChatSessionCollection(session=session).get_all())

    assert SENT in str(await error_of_close(wire, session, first()))


async def test_close_while_a_token_is_requested_applied_nothing(wire: Wire, renewing: AsyncAlbertSession) -> None:
    wire.then(hang)
    error = await error_of_close(wire, renewing, renewing.post(PATH, json={}))
    assert (error.message, error.not_applied) == (f"this program closed the session {UNSENT}", True)


async def test_close_while_a_token_alone_is_requested_is_named_as_its_cause(
    wire: Wire, renewing: AsyncAlbertSession
) -> None:
    wire.then(hang)
    assert (await error_of_close(wire, renewing, renewing.authenticate())).not_applied


async def test_close_while_a_limit_delays_the_request_applied_nothing(opened: Open) -> None:
    session = opened(before_request=asyncio.Event().wait)
    task = asyncio.create_task(session.get(PATH))
    await asyncio.sleep(0)
    await session.aclose()
    with pytest.raises(InvalidRequestError, match=UNSENT) as caught:
        await asyncio.wait_for(task, 5)
    assert caught.value.not_applied


async def test_close_ends_a_request_that_waits_for_a_connection(wire: Wire, opened: Open) -> None:
    wire.then(hang)
    session = opened(max_connections=1)
    sent, waiting = asyncio.create_task(session.get(PATH)), asyncio.create_task(session.post(PATH, json={}))
    await wire.arrived(1)
    await session.aclose()
    for task, message, not_applied in ((sent, SENT, False), (waiting, UNSENT, True)):
        with pytest.raises(InvalidRequestError, match=message) as caught:
            await asyncio.wait_for(task, 5)
        assert (caught.value.not_applied, task.cancelling()) == (not_applied, 0)
    assert len(wire.seen) == 1


@pytest.mark.parametrize("connects", [True, False])
async def test_request_may_have_been_applied_at_its_deadline_if_it_had_a_connection(
    wire: Wire, opened: Open, monkeypatch: pytest.MonkeyPatch, *, connects: bool
) -> None:
    async def wait_for_a_free_connection(*_: Any) -> None:
        await asyncio.Event().wait()

    wire.then(hang)
    if not connects:
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", wait_for_a_free_connection)
    awaited = "whole answer" if connects else "connection or token"
    with pytest.raises(AlbertTimeoutError, match=f"no {awaited} within") as caught:
        await opened(timeout=0.2).post(PATH, json={})
    assert caught.value.not_applied is not connects
    assert len(wire.seen) == connects


async def test_task_that_is_cancelled_before_the_close_stays_cancelled(wire: Wire, opened: Open) -> None:
    wire.then(hang)
    session = opened(max_connections=1)
    tasks = [asyncio.create_task(session.get(PATH)) for _ in range(2)]
    await wire.arrived(1)
    for task in tasks:
        task.cancel()
    await session.aclose()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_operation_of_a_request_that_a_close_ended_is_not_dead() -> None:
    error = InvalidRequestError("the session was closed")
    assert isinstance(outcome_of(error), Dead)
    error.not_applied = False
    assert isinstance(outcome_of(error), Retry)
