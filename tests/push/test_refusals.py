"""Refusals of Albert: the operation is dead or waits, or the whole queue pauses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from syncd.albert import AlbertClientCredentials, AsyncAlbertSession, ChatSessionCollection
from syncd.albert.auth import TOKEN_PATH
from syncd.mirror.store import refunds
from syncd.rules.retry import Backoff
from syncd.sandbox.faults import Faults
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS, create, effects, finished, times, until, worked, working

pytestmark = pytest.mark.both_databases


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    ("method", "status"),
    [(method, status) for method in ("GET", "POST") for status in (402, 412, 415, 422, 428)] + [("GET", 405)],
)
async def test_other_4xx_is_dead_at_once_with_the_status_and_the_error_of_the_server(
    tmp_path: Path, method: str, status: int
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script(method, SESSIONS, status)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"]) == ("dead", status)
        assert f"scripted {status}" in row["last_error"]
        assert len(harness.sandbox.requests) == (1 if method == "GET" else 2)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_is_dead_and_not_followed(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path) as harness:
        answer = lambda _: web.Response(status=307, headers={"Location": f"{SESSIONS}/elsewhere"})  # noqa: E731
        harness.sandbox.script(method, SESSIONS, answer)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["last_status"]) == ("dead", 307)
        assert "redirect" in row["last_error"]
        assert not [path for path in harness.asked("GET") if "elsewhere" in path]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_403_is_retried_with_backoff_and_dead_when_attempts_are_used_up(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path) as harness:
        path = f"{SESSIONS}/source" if method == "GET" else SESSIONS
        harness.sandbox.script(method, path, 403, times=100)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id, max_attempts=4)
        assert (row["state"], row["last_status"], row["attempts"]) == ("dead", 403, 4)
        at = times(harness, method, path)
        assert [round(b - a, 2) for a, b in itertools.pairwise(at)] == [0.5, 1, 2]


async def test_403_that_passes_costs_only_time(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 403, times=2)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 3)


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize(("method", "status"), [("GET", 429), ("POST", 429), ("GET", 503)])
async def test_retry_after_is_waited_for_and_counts_no_attempt(
    tmp_path: Path, method: str, status: int, form: str
) -> None:
    async with open_harness(tmp_path) as harness:

        def later(_: web.BaseRequest) -> web.Response:
            now = harness.clock.monotonic()
            value = "90" if form == "seconds" else formatdate(now + 90, usegmt=True)
            return web.Response(status=status, headers={"Retry-After": value, "Date": formatdate(now, usegmt=True)})

        harness.sandbox.script(method, SESSIONS, later, times=2)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        at = times(harness, method)
        assert at[1] - at[0] >= 90
        assert at[2] - at[1] >= 90


async def test_429_without_retry_after_is_retried_after_growing_waits_and_counts_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, 429, times=8)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        at = times(harness, "POST")
        waits = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert all(longer >= 1.5 * shorter for shorter, longer in itertools.pairwise(waits))


async def test_503_with_retry_after_on_a_post_is_unknown_and_waited_for(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        answer = web.Response(status=503, headers={"Retry-After": "100"})
        harness.sandbox.script("POST", SESSIONS, lambda _: answer)
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        assert (await harness.operation(operation_id))["state"] == "unknown"
        await worked(harness, operation_id)
        posted = times(harness, "POST")[0]
        assert min(at - posted for at in times(harness, "GET") if at > posted) >= 100


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_huge_retry_after_waits_no_longer_than_the_longest_wait(tmp_path: Path, method: str) -> None:
    async with open_harness(tmp_path) as harness:
        absurd = web.Response(status=503, headers={"Retry-After": "99999999999999999"})
        harness.sandbox.script(method, SESSIONS, lambda _: absurd)
        (operation_id,) = await harness.enqueue(create())
        began = harness.clock.monotonic()
        (row,) = await worked(harness, operation_id)
        assert row["state"] == "succeeded"
        assert harness.clock.monotonic() - began < 3600


async def test_503_with_a_retry_after_of_zero_counts_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        busy = lambda _: web.Response(status=503, headers={"Retry-After": "0"})  # noqa: E731
        harness.sandbox.script("GET", f"{SESSIONS}/source", busy, times=5)
        (operation_id,) = await harness.enqueue(create())
        (row,) = await worked(harness, operation_id, max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)


@pytest.mark.slow
async def test_operation_waits_for_a_connection_and_uses_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        unreachable = AsyncAlbertSession(base_url="http://127.0.0.1:9", token="t", timeout=2)
        unreachable.ask = harness.clock.watched(unreachable.ask)  # type: ignore[assignment]  # time stands still
        (operation_id,) = await harness.enqueue(create())
        began = harness.clock.monotonic()
        async with (
            unreachable,
            working(harness.push(albert=ChatSessionCollection(session=unreachable), max_attempts=2)),
        ):
            await until(harness, lambda: harness.clock.monotonic() > began + 3600)
        row = await harness.operation(operation_id)
        assert (row["state"], row["attempts"]) == ("pending", 0)
        retries = harness.named("operation.retrying")
        assert any("no connection to 127.0.0.1:9" in event["error"] for event in retries)
        assert {event["reason"] for event in retries} <= {"not reached", "returned"}
        assert 3600 / 20 <= len(retries) < 1000, "at least every 20 seconds, and slowly"
        (row,) = await worked(harness, operation_id)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)


async def test_page_of_a_gateway_instead_of_a_token_is_an_outage_and_uses_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        credentials = AlbertClientCredentials(id=harness.sandbox.client_id, secret=harness.sandbox.client_secret)
        session = AsyncAlbertSession(base_url=harness.sandbox.url, auth_manager=credentials)
        session.ask = harness.clock.watched(session.ask)  # type: ignore[assignment]  # time stands still
        harness.sandbox.script("POST", TOKEN_PATH, lambda _: web.Response(text="<html>maintenance"), times=4)
        (operation_id,) = await harness.enqueue(create())
        async with session:
            (row,) = await worked(harness, operation_id, albert=ChatSessionCollection(session=session), max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        assert {event["reason"] for event in harness.named("operation.retrying")} == {"not reached"}
        assert not harness.named("queue.paused")


async def test_queue_pauses_while_the_token_is_refused_and_uses_no_attempt(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(12)))
        harness.sandbox.tokens.static_accepted = False
        push, began = harness.push(), harness.clock.monotonic()
        async with working(push):
            await until(harness, lambda: harness.clock.monotonic() > began + 3600)
            reason = push.refused
            assert reason is not None
            assert len(harness.sandbox.requests) < 40
            rows = await harness.sql("SELECT DISTINCT state, attempts FROM operations")
            assert rows == [{"state": "pending", "attempts": 0}]
            harness.sandbox.tokens.static_accepted = True
            rows = await finished(harness, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert push.refused is None, "Albert accepts the token again"
        assert harness.named("queue.paused")
        assert harness.named("queue.resumed")


async def test_drain_ends_when_the_token_is_refused(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(12)))
        harness.sandbox.tokens.static_accepted = False
        push = harness.push()
        await push.drain()
        assert push.refused is not None
        assert len(harness.sandbox.requests) <= 4
        assert {(await harness.operation(operation_id))["state"] for operation_id in ids} == {"pending"}


async def test_refused_lookup_of_an_unknown_create_leaves_it_unknown(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("POST", SESSIONS, "lost_after")
        (operation_id,) = await harness.enqueue(create())
        await harness.push().drain()
        harness.sandbox.tokens.static_accepted = False
        harness.clock.forward(5)
        await harness.push().drain()
        row = await harness.operation(operation_id)
        assert (row["state"], row["attempts"], row["last_status"]) == ("unknown", 1, 401)
        harness.sandbox.tokens.static_accepted = True
        (row,) = await worked(harness, operation_id)
        assert (row["state"], effects(harness)) == ("succeeded", ["s-1"])


async def test_revoked_token_is_renewed_once_for_all_operations(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        keys = AlbertClientCredentials(id=harness.sandbox.client_id, secret=SecretStr(harness.sandbox.client_secret))
        async with AsyncAlbertSession(base_url=harness.sandbox.url, auth_manager=keys, timeout=5) as session:
            push = harness.push(albert=ChatSessionCollection(session=session), concurrency=16)
            await harness.enqueue(create("first"))
            await push.drain()
            harness.sandbox.tokens.revoke()
            ids = await harness.enqueue(*(create(f"s-{n}") for n in range(16)))
            await push.drain()
        assert {(await harness.operation(operation_id))["state"] for operation_id in ids} == {"succeeded"}
        assert len(harness.asked("POST", "/api/v3/login")) == 2


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("attempt", range(1, 70, 7))
@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_backoff_is_full_jitter_within_its_bounds(attempt: int, jitter: Any) -> None:
    wait = Backoff(0.5, 300).wait(attempt, jitter=jitter)
    assert wait == min(300, 0.5 * 2 ** (attempt - 1)) * jitter


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("listing_works", [False, True])
async def test_403_for_all_operations_is_an_outage_and_uses_no_attempts(tmp_path: Path, listing_works: bool) -> None:
    async with open_harness(tmp_path) as harness:
        there = [harness.sandbox.create(source_session_id=f"old-{n}", name="old")["id"] for n in range(4)]
        ids = await harness.enqueue(
            *(create(f"s-{n}") for n in range(4)),
            *({"kind": "delete", "session_id": there[n]} for n in range(2)),
            {"kind": "update", "session_id": there[2], "name": "new"},
        )
        harness.sandbox.faults = Faults(forbidden=1.0)
        push, began = harness.push(max_attempts=3), harness.clock.monotonic()

        async def answers() -> None:
            while listing_works:
                push.note_response()
                await harness.clock.sleep(5)

        async with working(push) as group:
            group.start_soon(answers)
            await until(harness, lambda: harness.clock.monotonic() >= began + 600)
            states = await harness.sql("SELECT DISTINCT state FROM operations")
            assert {row["state"] for row in states} <= {"pending", "running"}
            harness.sandbox.faults = Faults()
            rows = await finished(harness, *ids)
            group.cancel_scope.cancel()
        assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", 1)}
        assert len(harness.named("queue.slowed")) == len(harness.named("queue.resumed")) == 1


async def once(harness: Harness) -> None:
    """Do what the process of `syncd once` does: it ends when nothing is due."""
    push = harness.push(max_attempts=3)
    await push.recover(abandoned=harness.database.dialect == "sqlite")
    await push.drain()


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("concurrency", [1, 2, 16])
@pytest.mark.parametrize("number", [3, 12])
async def test_403_for_all_operations_uses_no_attempts_in_processes_that_end_at_once(
    tmp_path: Path, concurrency: int, number: int
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.push_settings = replace(harness.push_settings, concurrency=concurrency)
        ids = await harness.enqueue(*(create(f"s-{n}") for n in range(number)))
        harness.sandbox.faults = Faults(only=["POST"], forbidden=1.0)
        for _ in range(12):
            await once(harness)
            rows = await harness.sql("SELECT DISTINCT state, attempts FROM operations")
            assert rows == [{"state": "pending", "attempts": 0}]
            harness.clock.forward(60)
        harness.sandbox.faults = Faults()
        await once(harness)
        assert {
            (row["state"], row["attempts"]) for row in [await harness.operation(operation_id) for operation_id in ids]
        } == {("succeeded", 1)}


@pytest.mark.parametrize("number", [1, 2])
async def test_403_for_fewer_operations_than_an_outage_takes_uses_their_attempts_in_each_process(
    tmp_path: Path, number: int
) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(*(create(f"s-{n}") for n in range(number)))
        harness.sandbox.faults = Faults(only=["POST"], forbidden=1.0)
        for _ in range(3):
            await once(harness)
            harness.clock.forward(60)
        rows = await harness.sql("SELECT DISTINCT state, attempts FROM operations")
        assert rows == [{"state": "dead", "attempts": 3}]


async def test_403_of_operations_between_which_others_succeed_is_not_refunded(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        sources = [f"{kind}-{n}" for n in range(3) for kind in ("poison", "good")]
        await harness.enqueue(*(create(source) for source in sources))
        harness.sandbox.script("GET", f"{SESSIONS}/source/poison", 403, times=100)
        await harness.push(max_attempts=3, concurrency=1).drain()
        rows = await harness.sql("SELECT source_session_id, attempts FROM operations WHERE state = 'pending'")
        assert {row["attempts"] for row in rows} == {1}
        assert len(rows) == 3


async def test_refund_leaves_claimed_and_final_operations_as_they_are(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        dead, free, held = await harness.enqueue(
            create("s-1", state="dead", attempts=3, finished_at=harness.clock.now()),
            create("s-2", attempts=3),
            create("s-3", state="running", attempts=3, lease_owner="me"),
        )
        counts = {dead: 1, free: 5, held: 1, 12345: 1}
        assert await harness.database.write(lambda c: refunds.refund(c, counts)) == {held}
        assert [(await harness.operation(operation_id))["attempts"] for operation_id in (dead, free, held)] == [3, 0, 3]


async def test_403_for_one_operation_uses_its_attempts_while_others_succeed(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("GET", f"{SESSIONS}/source/poisonous", 403, times=100)
        ids = await harness.enqueue(create("poisonous"), *(create(f"s-{n}") for n in range(6)))
        rows = await worked(harness, *ids, max_attempts=3)
        assert [row["state"] for row in rows] == ["dead", *["succeeded"] * 6]
        assert (rows[0]["attempts"], rows[0]["last_status"]) == (3, 403)
