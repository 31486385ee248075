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
from tests.helpers.harness import World, world
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
    async with world(tmp_path) as w:
        w.sandbox.script(method, SESSIONS, status)
        (one,) = await w.enqueue(create())
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["last_status"]) == ("dead", status)
        assert f"scripted {status}" in row["last_error"]
        assert len(w.sandbox.requests) == (1 if method == "GET" else 2)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_is_dead_and_not_followed(tmp_path: Path, method: str) -> None:
    async with world(tmp_path) as w:
        answer = lambda _: web.Response(status=307, headers={"Location": f"{SESSIONS}/elsewhere"})  # noqa: E731
        w.sandbox.script(method, SESSIONS, answer)
        (one,) = await w.enqueue(create())
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["last_status"]) == ("dead", 307)
        assert "redirect" in row["last_error"]
        assert not [path for path in w.asked("GET") if "elsewhere" in path]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_403_is_retried_with_backoff_and_dead_when_attempts_are_used_up(tmp_path: Path, method: str) -> None:
    async with world(tmp_path) as w:
        path = f"{SESSIONS}/source" if method == "GET" else SESSIONS
        w.sandbox.script(method, path, 403, times=100)
        (one,) = await w.enqueue(create())
        (row,) = await worked(w, one, max_attempts=4)
        assert (row["state"], row["last_status"], row["attempts"]) == ("dead", 403, 4)
        at = times(w, method, path)
        assert [round(b - a, 2) for a, b in itertools.pairwise(at)] == [0.5, 1, 2]


async def test_403_that_passes_costs_only_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("POST", SESSIONS, 403, times=2)
        (one,) = await w.enqueue(create())
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"]) == ("succeeded", 3)


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize(("method", "status"), [("GET", 429), ("POST", 429), ("GET", 503)])
async def test_retry_after_is_waited_for_and_counts_no_attempt(
    tmp_path: Path, method: str, status: int, form: str
) -> None:
    async with world(tmp_path) as w:

        def later(_: web.BaseRequest) -> web.Response:
            now = w.clock.monotonic()
            value = "90" if form == "seconds" else formatdate(now + 90, usegmt=True)
            return web.Response(status=status, headers={"Retry-After": value, "Date": formatdate(now, usegmt=True)})

        w.sandbox.script(method, SESSIONS, later, times=2)
        (one,) = await w.enqueue(create())
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        at = times(w, method)
        assert at[1] - at[0] >= 90
        assert at[2] - at[1] >= 90


async def test_429_without_retry_after_is_retried_after_growing_waits_and_counts_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("POST", SESSIONS, 429, times=8)
        (one,) = await w.enqueue(create())
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        at = times(w, "POST")
        waits = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert all(longer >= 1.5 * shorter for shorter, longer in itertools.pairwise(waits))


async def test_503_with_retry_after_on_a_post_is_unknown_and_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = web.Response(status=503, headers={"Retry-After": "100"})
        w.sandbox.script("POST", SESSIONS, lambda _: answer)
        (one,) = await w.enqueue(create())
        await w.push().drain()
        assert (await w.operation(one))["state"] == "unknown"
        await worked(w, one)
        posted = times(w, "POST")[0]
        assert min(at - posted for at in times(w, "GET") if at > posted) >= 100


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_huge_retry_after_waits_no_longer_than_the_longest_wait(tmp_path: Path, method: str) -> None:
    async with world(tmp_path) as w:
        absurd = web.Response(status=503, headers={"Retry-After": "99999999999999999"})
        w.sandbox.script(method, SESSIONS, lambda _: absurd)
        (one,) = await w.enqueue(create())
        began = w.clock.monotonic()
        (row,) = await worked(w, one)
        assert row["state"] == "succeeded"
        assert w.clock.monotonic() - began < 3600


async def test_503_with_a_retry_after_of_zero_counts_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        busy = lambda _: web.Response(status=503, headers={"Retry-After": "0"})  # noqa: E731
        w.sandbox.script("GET", f"{SESSIONS}/source", busy, times=5)
        (one,) = await w.enqueue(create())
        (row,) = await worked(w, one, max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)


async def test_operation_waits_for_a_connection_and_uses_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        unreachable = AsyncAlbertSession(base_url="http://127.0.0.1:9", token="t", timeout=2)
        unreachable.ask = w.clock.watched(unreachable.ask)  # type: ignore[assignment]  # time stands still
        (one,) = await w.enqueue(create())
        began = w.clock.monotonic()
        async with unreachable, working(w.push(albert=ChatSessionCollection(session=unreachable), max_attempts=2)):
            await until(w, lambda: w.clock.monotonic() > began + 3600)
        row = await w.operation(one)
        assert (row["state"], row["attempts"]) == ("pending", 0)
        assert "no connection to 127.0.0.1:9" in row["last_error"]
        retries = w.named("operation.retrying")
        assert {event["reason"] for event in retries} == {"not reached"}
        assert 3600 / 20 <= len(retries) < 1000, "at least every 20 seconds, and slowly"
        (row,) = await worked(w, one)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)


async def test_page_of_a_gateway_instead_of_a_token_is_an_outage_and_uses_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        credentials = AlbertClientCredentials(id=w.sandbox.client_id, secret=w.sandbox.client_secret)
        session = AsyncAlbertSession(base_url=w.sandbox.url, auth_manager=credentials)
        session.ask = w.clock.watched(session.ask)  # type: ignore[assignment]  # time stands still
        w.sandbox.script("POST", TOKEN_PATH, lambda _: web.Response(text="<html>maintenance"), times=4)
        (one,) = await w.enqueue(create())
        async with session:
            (row,) = await worked(w, one, albert=ChatSessionCollection(session=session), max_attempts=2)
        assert (row["state"], row["attempts"]) == ("succeeded", 1)
        assert {event["reason"] for event in w.named("operation.retrying")} == {"not reached"}
        assert not w.named("queue.paused")


async def test_queue_pauses_while_the_token_is_refused_and_uses_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ids = await w.enqueue(*(create(f"s-{n}") for n in range(12)))
        w.sandbox.tokens.static_accepted = False
        push, began = w.push(), w.clock.monotonic()
        async with working(push):
            await until(w, lambda: w.clock.monotonic() > began + 3600)
            reason = push.refused
            assert reason is not None
            assert len(w.sandbox.requests) < 40
            rows = await w.sql("SELECT DISTINCT state, attempts FROM operations")
            assert rows == [{"state": "pending", "attempts": 0}]
            w.sandbox.tokens.static_accepted = True
            rows = await finished(w, *ids)
        assert {row["state"] for row in rows} == {"succeeded"}
        assert push.refused is None, "Albert accepts the token again"
        assert w.named("queue.paused")
        assert w.named("queue.resumed")


async def test_drain_ends_when_the_token_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ids = await w.enqueue(*(create(f"s-{n}") for n in range(12)))
        w.sandbox.tokens.static_accepted = False
        push = w.push()
        await push.drain()
        assert push.refused is not None
        assert len(w.sandbox.requests) <= 4
        assert {(await w.operation(one))["state"] for one in ids} == {"pending"}


async def test_refused_lookup_of_an_unknown_create_leaves_it_unknown(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("POST", SESSIONS, "lost_after")
        (one,) = await w.enqueue(create())
        await w.push().drain()
        w.sandbox.tokens.static_accepted = False
        w.clock.forward(5)
        await w.push().drain()
        row = await w.operation(one)
        assert (row["state"], row["attempts"], row["last_status"]) == ("unknown", 1, 401)
        w.sandbox.tokens.static_accepted = True
        (row,) = await worked(w, one)
        assert (row["state"], effects(w)) == ("succeeded", ["s-1"])


async def test_revoked_token_is_renewed_once_for_all_operations(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        keys = AlbertClientCredentials(id=w.sandbox.client_id, secret=SecretStr(w.sandbox.client_secret))
        async with AsyncAlbertSession(base_url=w.sandbox.url, auth_manager=keys, timeout=5) as session:
            push = w.push(albert=ChatSessionCollection(session=session), concurrency=16)
            await w.enqueue(create("first"))
            await push.drain()
            w.sandbox.tokens.revoke()
            ids = await w.enqueue(*(create(f"s-{n}") for n in range(16)))
            await push.drain()
        assert {(await w.operation(one))["state"] for one in ids} == {"succeeded"}
        assert len(w.asked("POST", "/api/v3/login")) == 2


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("attempt", range(1, 70, 7))
@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_backoff_is_full_jitter_within_its_bounds(attempt: int, jitter: Any) -> None:
    wait = Backoff(0.5, 300).wait(attempt, jitter=jitter)
    assert wait == min(300, 0.5 * 2 ** (attempt - 1)) * jitter


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("listing_works", [False, True])
async def test_403_for_all_operations_is_an_outage_and_uses_no_attempts(tmp_path: Path, listing_works: bool) -> None:
    async with world(tmp_path) as w:
        there = [w.sandbox.create(source_session_id=f"old-{n}", name="old")["id"] for n in range(4)]
        ids = await w.enqueue(
            *(create(f"s-{n}") for n in range(4)),
            *({"kind": "delete", "session_id": there[n]} for n in range(2)),
            {"kind": "update", "session_id": there[2], "name": "new"},
        )
        w.sandbox.faults = Faults(forbidden=1.0)
        push, began = w.push(max_attempts=3), w.clock.monotonic()

        async def answers() -> None:
            while listing_works:
                push.note_response()
                await w.clock.sleep(5)

        async with working(push) as group:
            group.start_soon(answers)
            await until(w, lambda: w.clock.monotonic() >= began + 600)
            states = await w.sql("SELECT DISTINCT state FROM operations")
            assert {row["state"] for row in states} <= {"pending", "running"}
            w.sandbox.faults = Faults()
            rows = await finished(w, *ids)
            group.cancel_scope.cancel()
        assert {(row["state"], row["attempts"]) for row in rows} == {("succeeded", 1)}
        assert len(w.named("queue.slowed")) == len(w.named("queue.resumed")) == 1


async def once(w: World) -> None:
    """Do what the process of `syncd once` does: it ends when nothing is due."""
    push = w.push(max_attempts=3)
    await push.recover(abandoned=w.database.dialect == "sqlite")
    await push.drain()


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("concurrency", [1, 2, 16])
@pytest.mark.parametrize("number", [3, 12])
async def test_403_for_all_operations_uses_no_attempts_in_processes_that_end_at_once(
    tmp_path: Path, concurrency: int, number: int
) -> None:
    async with world(tmp_path) as w:
        w.push_settings = replace(w.push_settings, concurrency=concurrency)
        ids = await w.enqueue(*(create(f"s-{n}") for n in range(number)))
        w.sandbox.faults = Faults(only=["POST"], forbidden=1.0)
        for _ in range(12):
            await once(w)
            rows = await w.sql("SELECT DISTINCT state, attempts FROM operations")
            assert rows == [{"state": "pending", "attempts": 0}]
            w.clock.forward(60)
        w.sandbox.faults = Faults()
        await once(w)
        assert {(row["state"], row["attempts"]) for row in [await w.operation(one) for one in ids]} == {
            ("succeeded", 1)
        }


@pytest.mark.parametrize("number", [1, 2])
async def test_403_for_fewer_operations_than_an_outage_takes_uses_their_attempts_in_each_process(
    tmp_path: Path, number: int
) -> None:
    async with world(tmp_path) as w:
        await w.enqueue(*(create(f"s-{n}") for n in range(number)))
        w.sandbox.faults = Faults(only=["POST"], forbidden=1.0)
        for _ in range(3):
            await once(w)
            w.clock.forward(60)
        rows = await w.sql("SELECT DISTINCT state, attempts FROM operations")
        assert rows == [{"state": "dead", "attempts": 3}]


async def test_403_of_operations_between_which_others_succeed_is_not_refunded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sources = [f"{kind}-{n}" for n in range(3) for kind in ("poison", "good")]
        await w.enqueue(*(create(source) for source in sources))
        w.sandbox.script("GET", f"{SESSIONS}/source/poison", 403, times=100)
        await w.push(max_attempts=3, concurrency=1).drain()
        rows = await w.sql("SELECT source_session_id, attempts FROM operations WHERE state = 'pending'")
        assert {row["attempts"] for row in rows} == {1}
        assert len(rows) == 3


async def test_refund_leaves_claimed_and_final_operations_as_they_are(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        dead, free, held = await w.enqueue(
            create("s-1", state="dead", attempts=3, finished_at=w.clock.now()),
            create("s-2", attempts=3),
            create("s-3", state="running", attempts=3, lease_owner="me"),
        )
        counts = {dead: 1, free: 5, held: 1, 12345: 1}
        assert await w.database.write(lambda c: refunds.refund(c, counts)) == {held}
        assert [(await w.operation(one))["attempts"] for one in (dead, free, held)] == [3, 0, 3]


async def test_403_for_one_operation_uses_its_attempts_while_others_succeed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.sandbox.script("GET", f"{SESSIONS}/source/poisonous", 403, times=100)
        ids = await w.enqueue(create("poisonous"), *(create(f"s-{n}") for n in range(6)))
        rows = await worked(w, *ids, max_attempts=3)
        assert [row["state"] for row in rows] == ["dead", *["succeeded"] * 6]
        assert (rows[0]["attempts"], rows[0]["last_status"]) == (3, 403)
