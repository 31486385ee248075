"""A pass that is stopped at any point continues there, and its counters are correct."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from syncd.errors import DatabaseReplacedError
from syncd.mirror.store import initial_load, passes
from tests.helpers.harness import open_harness
from tests.pull.helpers import BASE, Listing, counted, dump, listings, page, run_until, session, wire

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("_a_page_at_a_time")]

PAGES = 5


@pytest.mark.parametrize("boundary", range(1, PAGES + 1))
async def test_pass_stopped_after_any_page_continues_with_the_next_page(folder: Path, boundary: int) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await run_until(harness, pages=boundary)
        before = await harness.last_pass()
        assert (before["state"], before["pages"]) == ("running", boundary)
        assert before["seen"] == min(10 * boundary, 45)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert len(listings(harness)) == PAGES - boundary
        row = await counted(harness)
        assert (row["id"], row["pages"], row["seen"], row["inserted"]) == (before["id"], PAGES, 45, 45)
        assert [event["resumed"] for event in harness.named("pass.started")] == [False, True]
        assert await harness.live() == harness.there()
        assert len(await harness.sql("SELECT * FROM chat_session_history")) == 45


@pytest.mark.parametrize("request_number", range(1, PAGES + 1))
async def test_pass_stopped_during_any_page_request_has_correct_counters(folder: Path, request_number: int) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await harness.one_pass()
        for changed in ("SES1", "SES17", "SES42"):
            harness.sandbox.update(changed, name=f"new {changed}")
        with anyio.CancelScope() as scope:
            asked = iter(range(1, 100))

            def stop(_: object) -> None:
                if next(asked) == request_number:
                    scope.cancel()

            harness.sandbox.script("GET", BASE, stop, times=PAGES)
            await harness.one_pass()
        assert (await harness.last_pass())["state"] == "running"
        harness.sandbox.scripts = type(harness.sandbox.scripts)()
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["id"], row["pages"], row["seen"], row["updated"], row["unchanged"]) == (2, PAGES, 45, 3, 42)
        assert await harness.live() == harness.there()


async def test_changes_between_the_two_halves_of_a_pass_are_counted_once(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await harness.one_pass()
        await run_until(harness, pages=2)
        harness.sandbox.update("SES3", name="changed after it was read")
        harness.sandbox.delete("SES4")
        harness.sandbox.delete("SES44")
        harness.sandbox.create(source_session_id="new", name="new")
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["seen"], row["inserted"], row["unchanged"], row["missing"], row["deleted"]) == (45, 1, 44, 1, 1)
        await harness.one_pass()
        assert await harness.live() == harness.there()


async def test_pass_taken_over_by_another_replica_is_lost_and_not_failed(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        pull = harness.pull()
        real, asked = harness.albert.list_raw, iter(range(1, PAGES + 1))

        async def taken_up(**given: Any) -> bytes:
            if next(asked) == 3:
                await harness.database.write(passes.resume)  # the first statement of the other replica
            return await real(**given)

        harness.albert.list_raw = taken_up  # type: ignore[method-assign]
        outcome = await pull.run()
        assert outcome.state == "running"
        assert not harness.named("pass.failed")
        (lost,) = harness.named("pass.lost")
        assert (lost["pass_id"], lost["state"], lost["log_level"]) == (1, "running", "warning")
        harness.albert.list_raw = real  # type: ignore[method-assign]
        assert (await harness.one_pass()).pass_id == 1


def _cancel(scope: anyio.CancelScope, _: object) -> None:
    scope.cancel()


async def test_pass_stopped_in_its_sweep_repeats_its_requests_and_counts_each_404_once(folder: Path) -> None:
    async with open_harness(folder, sessions=25) as harness:
        harness.guard = type(harness.guard)(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.delete("SES7")
        for _ in range(3):
            with anyio.CancelScope() as scope:
                harness.sandbox.script("GET", f"{BASE}/SES7", partial(_cancel, scope))
                await harness.one_pass()
            assert (await harness.last_pass())["state"] == "running"
            assert (await session(harness, "SES7"))["missing_since"] is None
        assert (await harness.one_pass()).state == "complete"
        assert (await session(harness, "SES7"))["absences"] == 1
        assert len(await harness.live()) == 25
        row = await counted(harness)
        assert (row["id"], row["missing"], row["deleted"]) == (2, 1, 0)


async def test_failed_pass_taken_over_by_another_replica_keeps_the_pages_of_that_replica(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await harness.one_pass()
        await run_until(harness, pages=2)
        pages = await harness.sql("SELECT * FROM pages WHERE pass_id = 2 ORDER BY number")
        assert pages

        async def taken_up(_: object) -> web.Response:
            await harness.database.write(passes.resume)
            return web.json_response({"message": "no"}, status=401)

        harness.sandbox.script("GET", f"{BASE}/SES1", taken_up)
        assert (await harness.one_pass()).state == "running"
        assert [event["state"] for event in harness.named("pass.lost")] == ["running"]
        assert harness.named("pass.failed") == []
        assert await harness.sql("SELECT * FROM pages WHERE pass_id = 2 ORDER BY number") == pages
        assert (await harness.one_pass()).state == "complete"


async def test_repeated_key_is_detected_across_a_restart(folder: Path) -> None:
    pages: dict[str | None, Any] = {
        None: page(wire("A"), key="1"),
        "1": page(wire("B"), key="2"),
        "2": page(wire("C"), key="1"),
    }
    async with open_harness(folder) as harness:
        listing = Listing(harness, pages)
        await run_until(harness, pages=2)
        listing.asked.clear()
        assert (await harness.one_pass()).state == "partial"
        assert listing.asked == ["2"]


async def test_outcome_written_with_the_last_page_is_not_written_twice(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A"), {"name": "no id"})})
        outcome = await harness.one_pass()
        assert outcome.state == "partial"
        row = await harness.last_pass()
        assert (row["state"], row["error"], row["finished_at"]) == (
            "partial", outcome.error, "2026-06-01T12:00:00.000000Z",
        )  # fmt: skip
        assert len(harness.named("pass.failed")) == 1


async def test_checkpoint_that_is_too_old_starts_a_new_pass_at_once(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await run_until(harness, pages=3)
        harness.clock.forward(21_601)
        assert (await harness.one_pass()).state == "complete"
        rows = await harness.sql("SELECT state, pages, error FROM passes ORDER BY id")
        assert [(row["state"], row["pages"]) for row in rows] == [("partial", 3), ("complete", PAGES)]
        assert "too old" in rows[0]["error"]


@pytest.mark.parametrize(("stopped", "completed"), [(1000, 1), (100_000, 2)])
async def test_completely_read_pass_is_swept_after_a_short_stop(folder: Path, stopped: float, completed: int) -> None:
    """Freshness is the end of a pass, so the end of a pass must not follow its listing by hours."""
    async with open_harness(folder, sessions=5) as harness:
        await run_until(harness, pages=1)
        harness.clock.forward(stopped)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "complete"
        assert bool(listings(harness)) == (completed == 2)
        assert (await harness.last_pass())["id"] == completed


async def test_page_key_refused_after_a_restart_starts_a_new_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:
        harness.sandbox.habits.cursor_ttl = 60
        await run_until(harness, pages=3)
        harness.clock.forward(61)
        assert (await harness.one_pass()).state == "complete"
        assert [row["state"] for row in await harness.sql("SELECT state FROM passes ORDER BY id")] == [
            "failed",
            "complete",
        ]
        row = await counted(harness)
        assert (row["seen"], row["unchanged"], row["inserted"]) == (45, 30, 15)


async def test_pass_ended_by_another_process_is_abandoned_without_a_crash(folder: Path) -> None:
    async with open_harness(folder, sessions=45) as harness:

        async def end_it(_: object) -> None:
            await harness.sql("UPDATE passes SET state = 'failed', finished_at = started_at")

        harness.sandbox.script("GET", f"{BASE}?", lambda _: None, times=2)
        harness.sandbox.script("GET", f"{BASE}?", end_it)
        outcome = await harness.one_pass()
        assert (outcome.pass_id, outcome.state) == (1, "failed")
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_page_that_cannot_be_written_fails_the_pass_with_only_that_error(folder: Path) -> None:
    """The fetcher, which then has no reader for its next page, must not hide the cause."""
    async with open_harness(folder, sessions=45) as harness:
        read_ahead = anyio.Event()

        async def wait(_: object) -> None:
            read_ahead.set()

        real = harness.database.write

        async def write(work: Any) -> Any:
            if harness.sandbox.requests:
                await read_ahead.wait()
                with harness.clock.standing_still():
                    await anyio.wait_all_tasks_blocked()
                raise DatabaseReplacedError("replaced")
            return await real(work)

        harness.sandbox.script("GET", BASE, lambda _: None, times=2)
        harness.sandbox.script("GET", BASE, wait)
        harness.database.write = write  # type: ignore[method-assign]
        with anyio.fail_after(20), pytest.raises(DatabaseReplacedError):
            await harness.one_pass()


async def test_rows_and_checkpoint_of_a_page_are_written_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(folder, sessions=45) as harness:
        await run_until(harness, pages=2)
        before, row = await dump(harness), await harness.last_pass()

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("in the middle of the transaction")

        with monkeypatch.context() as patch:
            patch.setattr(passes, "checkpoint", broken)
            with pytest.raises(RuntimeError, match="in the middle"):
                await harness.one_pass()
        assert await dump(harness) == before
        assert await harness.last_pass() == row | {"fence": row["fence"] + 1}
        assert (await harness.one_pass()).state == "complete"
        assert (await counted(harness))["inserted"] == 45


@pytest.mark.sqlite
async def test_first_pass_of_a_large_listing_builds_the_index_before_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_load, "MOST_SESSIONS", 20)
    async with open_harness(folder, sessions=45) as harness:
        await run_until(harness, pages=3)
        assert await harness.database.read(initial_load.has_index)
        assert len(await harness.sql("SELECT * FROM source_sessions WHERE state = 'linked'")) == 30
        assert (await harness.one_pass()).state == "complete"
        assert len(await harness.sql("SELECT * FROM source_sessions WHERE state = 'linked'")) == 45
