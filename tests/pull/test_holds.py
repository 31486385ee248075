"""A hold over several passes: it is reported once, loses sessions, is replaced and is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.store import holds
from syncd.mirror.store.holds import NotHeldError
from syncd.records.ids import PassId
from tests.helpers.harness import open_harness
from tests.pull.holds import APPROVED, AT_MOST_THREE, decide, delete, held, names, sessions_of_holds

pytestmark = pytest.mark.both_databases


async def test_later_pass_within_the_limits_closes_the_hold(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        kept = harness.sandbox.live()
        delete(harness, *range(21, 31))
        assert (await harness.one_pass()).state == "held"
        for number in range(21, 29):
            harness.sandbox.create(id=f"SES{number}", source_session_id=f"{number}", name="n")
        assert kept
        assert (await harness.one_pass()).state == "complete"
        assert await held(harness) == []
        assert await harness.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": None}]
        assert await sessions_of_holds(harness) == {}
        with pytest.raises(NotHeldError, match="does not wait"):
            await decide(harness, 2, APPROVED)


async def test_held_passes_share_one_hold_that_is_reported_once_and_decided_by_any_of_them(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        for number in range(2, 6):
            harness.clock.forward(300)
            outcome = await harness.one_pass()
            assert (outcome.pass_id, outcome.state) == (number, "held")
            assert await harness.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": 2}]
        assert await held(harness) == [2]
        assert [event["pass_id"] for event in harness.named("pass.held")] == [2]
        assert [event["pass_id"] for event in harness.named("pass.still_held")] == [3, 4, 5]
        assert len(await harness.sql("SELECT * FROM hold_sessions")) == 5
        (hold,) = await harness.sql("SELECT pass_id, last_pass_id, opened_at, updated_at FROM holds")
        assert hold == {
            "pass_id": 2, "last_pass_id": 5,
            "opened_at": "2026-06-01T12:05:00.000000Z", "updated_at": "2026-06-01T12:20:00.000000Z",
        }  # fmt: skip
        shown = await harness.database.read(lambda c: holds.session_rows(c, holds.get(c, PassId(4)).hold_id, limit=3))
        assert len(shown) == 3
        assert {row["id"] for row in shown} < set(names(1, 2, 3, 4, 5))
        assert (await decide(harness, 4, APPROVED)).pass_id == 2
        await harness.one_pass()
        assert await harness.live() == harness.there()


async def test_hold_that_loses_a_session_remains_the_same_hold(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()
        harness.sandbox.create(id="SES1", source_session_id="again", name="again")
        assert (await harness.one_pass()).state == "held"
        assert await sessions_of_holds(harness) == {2: names(2, 3, 4, 5)}
        assert [event["pass_id"] for event in harness.named("pass.held")] == [2]


async def test_hold_of_other_sessions_replaces_the_open_one(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4)
        await harness.one_pass()
        delete(harness, 5)
        await harness.one_pass()
        assert await sessions_of_holds(harness) == {3: names(1, 2, 3, 4, 5)}
        assert await held(harness) == [3]
        assert [event["pass_id"] for event in harness.named("pass.held")] == [2, 3]
        with pytest.raises(NotHeldError, match="pass 2 does not wait for a decision any more, pass 3 holds"):
            await decide(harness, 2, APPROVED)
        await decide(harness, 3, APPROVED)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()
