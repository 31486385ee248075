"""Sessions that exist and are not listed: they are not missing, open no hold, and are requested once an hour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.store import passes
from syncd.rules.deletion import Guard
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import BASE, asked_for, counted, session

pytestmark = pytest.mark.both_databases


def names(first: int, last: int) -> list[str]:
    return [f"SES{number}" for number in range(first, last + 1)]


async def recorded(harness: Harness) -> dict[str, str]:
    rows = await harness.sql(
        "SELECT id, unlisted_alive_at FROM sessions WHERE unlisted_alive_at IS NOT NULL ORDER BY key"
    )
    return {row["id"]: row["unlisted_alive_at"] for row in rows}


async def test_unlisted_sessions_that_answer_200_are_not_missing_and_open_no_hold(folder: Path) -> None:
    async with open_harness(folder, sessions=100) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = names(1, 30)
        harness.clock.forward(300)
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["missing"], row["deleted"]) == (70, 0, 0)
        assert len(await harness.live()) == 100
        assert await recorded(harness) == dict.fromkeys(names(1, 30), "2026-06-01T12:05:00.000000Z")
        assert harness.named("session.missing") == []
        assert await harness.sql("SELECT * FROM holds") == []


async def test_unlisted_session_is_requested_again_after_an_hour_and_not_before(folder: Path) -> None:
    async with open_harness(folder, sessions=40) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = names(11, 13)
        await harness.one_pass()
        for seconds in (1, 1799, 1799):
            harness.clock.forward(seconds)
            harness.sandbox.requests.clear()
            assert (await harness.one_pass()).state == "complete"
            assert asked_for(harness) == ["SES1"]
        harness.clock.forward(1)
        await harness.one_pass()
        assert set(asked_for(harness)) == {"SES1", *names(11, 13)}
        assert set((await recorded(harness)).values()) == {"2026-06-01T13:00:00.000000Z"}


async def test_session_that_was_created_and_deleted_before_it_was_listed_is_found_deleted(folder: Path) -> None:
    async with open_harness(folder, sessions=4) as harness:
        harness.guard = Guard(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.habits.listing_lag = 10_000.0
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await harness.push().drain()
        created = harness.sandbox.effects[-1].session_id
        harness.clock.forward(1)
        assert (await harness.one_pass()).state == "complete"
        assert await recorded(harness) == {}
        harness.sandbox.delete(created)
        for _ in range(3):
            harness.clock.forward(100)
            assert (await harness.one_pass()).state == "complete"
        assert (await session(harness, created))["deleted_at"] is not None


async def test_session_that_an_operation_created_and_no_listing_shows_is_recorded_after_the_grace(folder: Path) -> None:
    async with open_harness(folder, sessions=4) as harness:
        harness.guard = Guard(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await harness.push().drain()
        created = harness.sandbox.effects[-1].session_id
        harness.sandbox.habits.unlisted = [created]
        for seconds, expected in ((1, set[str]()), (120, {created})):
            harness.clock.forward(seconds)
            await harness.one_pass()
            assert set(await recorded(harness)) == expected


async def test_change_of_an_unlisted_session_is_mirrored_when_it_is_requested(folder: Path) -> None:
    async with open_harness(folder, sessions=10) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2"]
        harness.sandbox.update("SES2", name="changed")
        await harness.one_pass()
        assert (await harness.live())["SES2"] == "changed"


async def test_unlisted_mark_is_removed_when_the_session_is_listed_again(folder: Path) -> None:
    async with open_harness(folder, sessions=10) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2", "SES3"]
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES3"]
        await harness.one_pass()
        assert set(await recorded(harness)) == {"SES3"}


async def test_unlisted_mark_is_removed_when_the_session_is_gone_and_it_is_deleted(folder: Path) -> None:
    async with open_harness(folder, sessions=10) as harness:
        harness.guard = Guard(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2"]
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        await harness.one_pass()
        assert set(await recorded(harness)) == {"SES2"}
        harness.clock.forward(3600)
        await harness.one_pass()
        row = await session(harness, "SES2")
        assert (row["absences"], row["unlisted_alive_at"], row["deleted_at"]) == (1, None, None)
        await harness.one_pass()
        assert "SES2" not in await harness.live()


@pytest.mark.parametrize("step", [86400, -86400])
async def test_clock_step_only_causes_another_request_for_an_unlisted_session(folder: Path, step: float) -> None:
    async with open_harness(folder, sessions=10) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2"]
        await harness.one_pass()
        harness.clock.step(step)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert "SES2" in asked_for(harness)
        assert "SES2" in await harness.live()
        harness.sandbox.requests.clear()
        await harness.one_pass()
        assert "SES2" not in asked_for(harness)


async def test_clock_that_was_set_back_does_not_delay_the_request_for_an_unlisted_session(folder: Path) -> None:
    async with open_harness(folder, sessions=10) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2"]
        await harness.one_pass()
        harness.clock.step(-3600)
        harness.clock.forward(3601)  # the wall clock shows one second after the last request
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert "SES2" in asked_for(harness)


async def test_sessions_that_exist_do_not_count_towards_the_limit_of_the_guard(folder: Path) -> None:
    async with open_harness(folder, sessions=100) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await harness.one_pass()
        harness.sandbox.habits.unlisted = names(1, 30)
        for session_id in names(31, 33):
            harness.sandbox.delete(session_id)
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["missing"], row["deleted"]) == (3, 3)


async def test_hold_contains_only_sessions_that_are_gone(folder: Path) -> None:
    async with open_harness(folder, sessions=100) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await harness.one_pass()
        harness.sandbox.habits.unlisted = names(1, 30)
        for session_id in names(31, 34):
            harness.sandbox.delete(session_id)
        assert (await harness.one_pass()).state == "held"
        held = await harness.sql(
            "SELECT id FROM sessions WHERE key IN (SELECT session_key FROM hold_sessions) ORDER BY key"
        )
        assert [row["id"] for row in held] == names(31, 34)
        assert set(await recorded(harness)) == set(names(1, 30)), "what a held sweep has learned is kept"


async def take_over(harness: Harness) -> None:
    await harness.database.write(passes.resume)


async def finish_elsewhere(harness: Harness) -> None:
    """End the pass as a replica that took it over would."""

    def work(connection: sa.Connection) -> None:
        progress = passes.resume(connection)
        assert progress is not None
        passes.finish(connection, progress, passes.COMPLETE, now=harness.clock.now())

    await harness.database.write(work)


@pytest.mark.parametrize(("lose", "state"), [(take_over, "running"), (finish_elsewhere, "complete")])
@pytest.mark.parametrize("asked", ["SES2", "SES3"], ids=["exists", "gone"])
async def test_pass_lost_during_its_sweep_writes_nothing(
    folder: Path, lose: Callable[[Harness], Awaitable[None]], state: str, asked: str
) -> None:
    async with open_harness(folder, sessions=30) as harness:
        await harness.one_pass()
        harness.sandbox.habits.unlisted = ["SES2"]
        harness.sandbox.delete("SES3")

        async def lost(_: object) -> None:
            harness.sandbox.update("SES2", name="changed")
            await lose(harness)

        harness.sandbox.script("GET", f"{BASE}/{asked}", lost)
        assert (await harness.one_pass()).state == state
        assert await recorded(harness) == {}
        assert "changed" not in (await harness.live()).values()
        shown = await session(harness, "SES3")
        assert (shown["missing_since"], shown["absences"], shown["deleted_at"]) == (None, 0, None)
        assert len(harness.named("pass.lost")) == 1
        assert harness.named("session.missing") + harness.named("session.deleted") == []
        assert (await harness.one_pass()).state == "complete"
        assert set(await recorded(harness)) == {"SES2"}
        assert "SES3" not in await harness.live()


@pytest.mark.parametrize("lose", [take_over, finish_elsewhere])
async def test_pass_lost_during_a_held_sweep_opens_no_hold(
    folder: Path, lose: Callable[[Harness], Awaitable[None]]
) -> None:
    async with open_harness(folder, sessions=30) as harness:
        await harness.one_pass()
        for session_id in names(1, 20):
            harness.sandbox.delete(session_id)

        async def lost(_: object) -> None:
            await lose(harness)

        harness.sandbox.script("GET", f"{BASE}/SES3", lost)
        await harness.one_pass()
        assert await harness.sql("SELECT * FROM holds") == []
        assert len(harness.named("pass.lost")) == 1
        assert harness.named("pass.held") == []


async def test_observation_during_the_sweep_overrides_an_earlier_404(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        await harness.one_pass()
        listed = harness.sandbox.live()["SES3"]
        harness.sandbox.delete("SES3")
        harness.sandbox.delete("SES4")

        async def comes_back(_: object) -> None:
            harness.sandbox.create(id="SES3", source_session_id=listed["sourceSessionId"], name="back")
            harness.clock.forward(1)
            await harness.sql(
                "UPDATE source_sessions SET state = 'unresolved', session_id = NULL WHERE session_id = 'SES3'"
            )
            await harness.enqueue({"kind": "create", "source_session_id": listed["sourceSessionId"], "name": "back"})
            await harness.push().drain()

        harness.sandbox.script("GET", f"{BASE}/source/", comes_back)
        assert (await harness.one_pass()).state == "complete"
        assert "SES3" in await harness.live()
        assert (await session(harness, "SES3"))["missing_since"] is None
        assert "SES4" not in await harness.live()
