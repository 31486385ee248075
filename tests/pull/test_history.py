"""The history of a session: the validity of its versions, without gaps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from syncd.rules.deletion import Guard
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import history, session

pytestmark = pytest.mark.both_databases


async def check_chain(harness: Harness) -> None:
    """Assert that the versions of each session are in order, without gaps or overlaps, and the last is current."""
    rows = await harness.sql("SELECT session_id, valid_from, valid_to FROM chat_session_history")
    for session_id in {row["session_id"] for row in rows}:
        versions = await history(harness, session_id)
        assert versions[-1]["valid_to"] is None
        for version, following in pairwise(versions):
            assert version["valid_to"] == following["valid_from"]
            assert version["valid_from"] <= version["valid_to"]


async def live_through(harness: Harness, step: float) -> None:
    """Create, update, delete and restore SES2 in four passes, `step` seconds apart."""
    await harness.one_pass()
    harness.clock.forward(step)
    harness.sandbox.update("SES2", name="second name")
    await harness.one_pass()
    harness.clock.forward(step)
    gone = harness.sandbox.delete("SES2")
    await harness.one_pass()
    harness.clock.forward(step)
    harness.sandbox.create(id="SES2", source_session_id=gone["sourceSessionId"], name="third name")
    await harness.one_pass()


async def test_each_version_ends_where_the_next_begins(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await live_through(harness, 100)
        versions = await history(harness, "SES2")
        assert [version["change"] for version in versions] == ["created", "updated", "deleted", "restored"]
        assert [version["pass_id"] for version in versions] == [1, 2, 3, 4]
        assert [version["name"] for version in versions][1:] == ["second name", "second name", "third name"]
        assert [version["valid_from"][11:19] for version in versions] == [
            "12:00:00",
            "12:01:40",
            "12:03:20",
            "12:05:00",
        ]
        await check_chain(harness)


async def test_current_version_of_a_deleted_session_is_its_deletion(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        await harness.one_pass()
        harness.clock.forward(60)
        harness.sandbox.delete("SES2")
        await harness.one_pass()
        current = await harness.sql(
            "SELECT change, valid_from FROM chat_session_history WHERE session_id = 'SES2' AND valid_to IS NULL"
        )
        row = await session(harness, "SES2")
        assert current == [{"change": "deleted", "valid_from": row["deleted_at"]}]
        shown = await harness.sql("SELECT deleted_at, changed_at FROM chat_sessions_all WHERE id = 'SES2'")
        assert shown == [{"deleted_at": row["deleted_at"], "changed_at": row["deleted_at"]}]
        assert (await harness.sql("SELECT live_sessions, deleted_sessions FROM mirror_freshness")) == [
            {"live_sessions": 4, "deleted_sessions": 1}
        ]


async def test_clock_that_steps_back_does_not_end_a_version_before_its_beginning(folder: Path) -> None:
    async with open_harness(folder, sessions=5) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        for change in ("name", "gone"):
            harness.clock.forward(-3600)
            if change == "name":
                harness.sandbox.update("SES2", name="in the past")
            else:
                harness.sandbox.delete("SES3")
            assert (await harness.one_pass()).state == "complete"
        await check_chain(harness)
        assert (await harness.live())["SES2"] == "in the past"
        harness.clock.forward(2 * 3600 + 1)
        assert (await harness.one_pass()).state == "complete"
        await check_chain(harness)
        assert await harness.live() == harness.there()


async def test_version_written_by_an_operation_has_no_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=2) as harness:
        (operation,) = await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "ours"})
        await harness.push().drain()
        created = (await harness.operation(operation))["result_session_id"]
        await harness.one_pass()
        assert [version["pass_id"] for version in await history(harness, created)] == [None]


async def test_page_mirrored_event_has_the_counts_of_its_page(folder: Path) -> None:
    async with open_harness(folder, sessions=15) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES12", name="new")
        await harness.one_pass()
        events = [(e["pass_id"], e["page"], e["sessions"], e["changed"]) for e in harness.named("page.mirrored")]
        assert events == [(1, 1, 10, 10), (1, 2, 5, 5), (2, 1, 10, 0), (2, 2, 5, 1)]
        assert [e["log_level"] for e in harness.named("page.mirrored")] == ["info", "info", "debug", "info"]
        complete = harness.named("pass.complete")[-1]
        row = await harness.last_pass()
        for name in ("pages", "seen", "inserted", "updated", "unchanged", "restored", "missing", "deleted"):
            assert complete[name] == row[name]
        assert [(e["pass_id"], e["resumed"]) for e in harness.named("pass.started")] == [(1, False), (2, False)]
