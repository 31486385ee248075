"""A 404 is accepted only when a session that is known to exist answers 200 to the same kind of request."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.albert import InternalServerError, NotFoundError
from syncd.lookups import Absent, Found
from syncd.mirror.store import holds
from syncd.records.enums import PassReason
from syncd.records.ids import PassId, SessionId, SourceId
from syncd.records.parse import GarbledError
from syncd.records.reasons import Reason
from syncd.sandbox import answers
from syncd.sandbox.faults import Faults
from syncd.witness import CACHE_SECONDS, MOST_CANDIDATES, AbsenceUnprovenError, RequestKind
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import SESSIONS

pytestmark = pytest.mark.both_databases


async def look_up(harness: Harness, kind: str, asked: str = "no-session") -> Any:
    return await (
        harness.lookups.by_id(SessionId(asked)) if kind == "by_id" else harness.lookups.by_source(SourceId(asked))
    )


def gateway(harness: Harness, *methods: str) -> None:
    harness.sandbox.faults = Faults(gateway_404=1.0, only=list(methods))


@pytest.mark.parametrize("kind", ["by_id", "by_source"])
async def test_404_is_accepted_when_a_live_session_answers(tmp_path: Path, kind: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        assert await look_up(harness, kind) == Absent(404)


@pytest.mark.parametrize("kind", ["by_id", "by_source"])
async def test_404_of_a_gateway_decides_nothing(tmp_path: Path, kind: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        gateway(harness)
        with pytest.raises(AbsenceUnprovenError, match="gateway") as caught:
            await look_up(harness, kind)
        assert caught.value.status == 404
        assert len(harness.named("absence.unproven")) == 1


@pytest.mark.parametrize("kind", ["by_id", "by_source"])
async def test_json_404_for_every_session_decides_nothing(tmp_path: Path, kind: str) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", SESSIONS, 404, times=1000)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, kind)


async def test_witness_of_one_kind_proves_nothing_for_the_other(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{SESSIONS}/source/", 404, times=1000)
        assert await look_up(harness, "by_id") == Absent(404)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_source")


async def test_json_404_is_accepted_when_the_mirror_has_no_live_session(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        assert await look_up(harness, "by_source") == Absent(404)
        gateway(harness)
        with pytest.raises(AbsenceUnprovenError, match="not JSON"):
            await look_up(harness, "by_source")


async def test_session_is_never_its_own_witness(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES1")
        assert await look_up(harness, "by_id", "SES1") == Absent(404)


async def test_session_that_was_the_witness_for_others_is_not_its_own(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{SESSIONS}/SES2", 404, times=100)
        assert await look_up(harness, "by_id") == Absent(404)
        harness.sandbox.script("GET", f"{SESSIONS}/SES1", 404, times=100)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_id", "SES1")


async def test_witness_confirms_no_answer_that_came_long_after_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        sent_at = harness.clock.monotonic()
        assert await look_up(harness, "by_id") == Absent(404)
        await harness.clock.sleep(CACHE_SECONDS + 1)  # the request waits for its turn
        with pytest.raises(NotFoundError) as answered:
            await harness.lookups.albert.get_raw(id="late")
        harness.sandbox.script("GET", f"{SESSIONS}/SES", 404, times=100)
        with pytest.raises(AbsenceUnprovenError):
            await harness.lookups.witness.confirm(RequestKind.BY_ID, "late", answered.value, sent_at=sent_at)


async def test_check_that_was_cancelled_confirms_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{SESSIONS}/first", 404, times=100)
        harness.sandbox.script("GET", f"{SESSIONS}/second", 404, times=100)
        asked, errors = anyio.Event(), list[Any]()

        async def never(_: object) -> web.Response:
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError

        harness.sandbox.script("GET", f"{SESSIONS}/SES", never)
        harness.sandbox.script("GET", f"{SESSIONS}/SES", 404, times=100)

        async def second() -> None:
            with pytest.raises(AbsenceUnprovenError) as caught:
                await look_up(harness, "by_id", "second")
            errors.append(caught.value)

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel_when, asked, scope)
                group.start_soon(second)
                await look_up(harness, "by_id", "first")
        assert len(errors) == 1


async def cancel_when(happened: anyio.Event, scope: anyio.CancelScope) -> None:
    await happened.wait()
    scope.cancel()


async def test_410_needs_a_witness_too(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", SESSIONS, 410, times=1000)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_id")


async def test_other_candidates_are_tried_when_a_witness_is_gone(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=MOST_CANDIDATES) as harness:
        await harness.one_pass()
        for number in range(1, MOST_CANDIDATES):
            harness.sandbox.delete(f"SES{number}")
        assert await look_up(harness, "by_id") == Absent(404)


async def test_missing_session_is_no_candidate(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES1")
        await harness.sql("UPDATE sessions SET missing_since = ?", "2026-06-01T12:00:00.000000Z")
        assert await look_up(harness, "by_id") == Absent(404)
        assert len(harness.asked("GET", f"{SESSIONS}/SES1")) == 0


async def hold(harness: Harness, *session_ids: str) -> None:
    """Write an open hold of some sessions, as a sweep does."""
    now = harness.clock.now()
    marks = ", ".join("?" for _ in session_ids)
    rows = await harness.sql(f"SELECT key FROM sessions WHERE id IN ({marks}) ORDER BY key", *session_ids)
    keys = array("q", (row["key"] for row in rows))
    reason = Reason(PassReason.TOO_MANY_GONE, "a test")
    await harness.database.write(lambda c: holds.place(c, PassId(1), keys, reason, now))


async def test_sessions_of_a_hold_are_not_requested_while_there_are_others(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=40) as harness:
        await harness.one_pass()
        gone = [f"SES{number}" for number in range(1, 40)]
        for session_id in gone:
            harness.sandbox.delete(session_id)
        await hold(harness, *gone)
        assert await look_up(harness, "by_id") == Absent(404)
        assert harness.asked("GET", f"{SESSIONS}/SES")[-1] == f"{SESSIONS}/SES40"


async def test_404_is_not_accepted_while_every_session_is_in_a_hold_and_gone(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        for session_id in list(harness.sandbox.live()):
            harness.sandbox.delete(session_id)
        await hold(harness, "SES1", "SES2", "SES3")
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_id")


async def test_one_witness_serves_all_404s_of_a_few_seconds(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        before = len(harness.sandbox.requests)
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(look_up, harness, "by_source", f"absent-{number}")
        assert len(harness.sandbox.requests) - before == 21
        harness.clock.forward(1)
        await look_up(harness, "by_source")
        assert len(harness.sandbox.requests) - before == 22
        harness.clock.forward(4)
        await look_up(harness, "by_source")
        assert len(harness.sandbox.requests) - before == 24


async def test_witness_from_before_does_not_cover_a_404_of_another_form(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        assert await look_up(harness, "by_source") == Absent(404)
        gateway(harness)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_source")


async def test_failed_check_is_shared_and_repeated_after_a_pause(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        gateway(harness)
        before = len(harness.sandbox.requests)
        for _ in range(10):
            with pytest.raises(AbsenceUnprovenError):
                await look_up(harness, "by_id")
        assert len(harness.sandbox.requests) - before == 10 + 3
        harness.clock.forward(2)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_id")
        assert len(harness.sandbox.requests) - before == 11 + 6


async def test_404_from_before_a_witness_answered_again_decides_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        gateway(harness)
        with pytest.raises(AbsenceUnprovenError):
            await look_up(harness, "by_id", "SES2")
        harness.clock.forward(2)

        def recovers(_: web.BaseRequest) -> web.StreamResponse:
            harness.sandbox.faults = Faults()
            harness.clock.forward(0.1)
            return answers.gateway()

        harness.sandbox.script("GET", f"{SESSIONS}/SES2", recovers)
        with pytest.raises(AbsenceUnprovenError, match="before a witness answered again"):
            await look_up(harness, "by_id", "SES2")
        assert isinstance(await look_up(harness, "by_id", "SES2"), Found)
        assert await look_up(harness, "by_id") == Absent(404)
        assert len(harness.named("absence.proven")) == 1


async def test_witness_that_fails_otherwise_decides_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        harness.sandbox.script("GET", f"{SESSIONS}/SES1", 500, times=100)
        with pytest.raises(AbsenceUnprovenError, match="500"):
            await look_up(harness, "by_id")


async def test_witness_whose_answer_is_another_session_proves_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        await harness.one_pass()
        other = answers.json_value(harness.sandbox.create(source_session_id="other", name="n"))
        harness.sandbox.script("GET", SESSIONS, lambda _: answers.json_value({}, 404))
        harness.sandbox.script("GET", SESSIONS, lambda _: web.Response(body=other.body), times=100)
        with pytest.raises(AbsenceUnprovenError, match="another session"):
            await look_up(harness, "by_id", "absent")


async def test_answer_that_is_another_session_is_not_found(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        other = answers.json_value(harness.sandbox.create(source_session_id="other", name="n"))
        harness.sandbox.script("GET", SESSIONS, lambda _: web.Response(body=other.body))
        with pytest.raises(GarbledError, match="SES1"):
            await look_up(harness, "by_id", "SES9")


async def test_other_failures_of_a_look_up_are_raised_as_they_are(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("GET", SESSIONS, 500)
        with pytest.raises(InternalServerError):
            await look_up(harness, "by_id")
