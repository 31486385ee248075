"""The guard: a sweep that would delete too much waits for a person, and has a way out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from syncd.mirror.store import passes
from syncd.pull.sweep import WITNESSES, Guard
from tests.helpers.harness import World, world
from tests.pull.helpers import Listing, all_but, asked_for, counted, dump, page, session

pytestmark = pytest.mark.both_databases


async def decide(w: World, pass_id: int, decision: str) -> str | None:
    return await w.database.write(lambda c: passes.decide(c, pass_id, decision, w.clock.now()))


async def held(w: World) -> list[int]:
    return [row.id for row in await w.database.read(passes.open_holds)]


def delete(w: World, *numbers: int) -> None:
    for number in numbers:
        w.sandbox.delete(f"SES{number}")


@pytest.mark.parametrize(
    ("live", "gone", "max_count", "max_fraction", "state"),
    [
        (40, 3, 3, 0.0, "complete"),
        (40, 4, 3, 0.0, "held"),
        (40, 4, 0, 0.1, "complete"),
        (40, 5, 0, 0.1, "held"),
        (40, 4, 3, 0.1, "complete"),
        (40, 4, 4, 0.05, "complete"),
        (40, 5, 4, 0.05, "held"),
        (3, 1, 0, 0.0, "held"),
        (3, 2, 25, 0.05, "complete"),
    ],
)
async def test_the_larger_of_count_and_fraction_is_the_limit(
    folder: Path, live: int, gone: int, max_count: int, *, max_fraction: float, state: str
) -> None:
    async with world(folder, sessions=live) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=max_count, max_fraction=max_fraction)
        await w.one_pass()
        delete(w, *range(1, gone + 1))
        assert (await w.one_pass()).state == state
        row = await counted(w)
        assert (row["missing"], row["deleted"]) == (gone, gone if state == "complete" else 0)
        assert len(await w.live()) == live - row["deleted"]


async def test_a_held_pass_deletes_nothing_marks_nothing_asks_nothing_and_keeps_its_candidates(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        before = await dump(w)
        (fresh,) = await w.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        w.clock.forward(60)
        delete(w, 1, 2, 3, 4, 5)
        outcome = await w.one_pass()
        assert (outcome.pass_id, outcome.state) == (2, "held")
        assert await dump(w) == before
        assert asked_for(w) == []
        assert (await w.sql("SELECT last_complete_pass_at FROM mirror_freshness")) == [fresh]
        (row,) = await w.sql("SELECT held_pass_id, live_sessions, missing_sessions FROM mirror_freshness")
        assert row == {"held_pass_id": 2, "live_sessions": 30, "missing_sessions": 0}
        kept = await w.sql(
            "SELECT s.id FROM held_sessions AS h JOIN sessions AS s ON s.key = h.session_key WHERE h.pass_id = 2"
        )
        assert sorted(row["id"] for row in kept) == [f"SES{number}" for number in (1, 2, 3, 4, 5)]
        assert "5 of 30" in str(outcome.error)
        (event,) = w.named("pass.held")
        assert (event["pass_id"], event["candidates"]) == (2, 5)
        assert w.named("pass.complete")[-1]["pass_id"] == 1


async def test_the_sessions_that_a_held_pass_would_let_go_are_told_also_by_the_holds_that_repeat_it(
    folder: Path,
) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        for number in (2, 3):
            assert (await w.one_pass()).pass_id == number
            told = await w.database.read(partial(passes.held_rows, pass_id=number, limit=4))
            assert told is not None
            assert len(told) == 4
            assert {row["id"] for row in told} < {"SES1", "SES2", "SES3", "SES4", "SES5"}
            assert all(row["source_session_id"] for row in told)


@pytest.mark.parametrize("live", [1, 5])
async def test_an_empty_listing_over_live_sessions_is_always_held(folder: Path, live: int) -> None:
    async with world(folder, sessions=live) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=1000, max_fraction=1.0)
        await w.one_pass()
        delete(w, *range(1, live + 1))
        assert (await w.one_pass()).state == "held"
        assert len(await w.live()) == live
        assert asked_for(w) == []


async def test_an_empty_listing_over_no_live_session_is_complete(folder: Path) -> None:
    async with world(folder, sessions=0) as w:
        assert (await w.one_pass()).state == "complete"
        assert (await counted(w))["seen"] == 0


async def test_approved_sessions_go_in_the_next_cycle_each_after_a_404_of_its_own(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=3, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w)
        gone = [f"SES{number}" for number in range(1, 7)]
        listing.pages = {None: all_but(w, *gone)}
        delete(w, 1, 2, 3, 4, 5)  # SES6 is not listed either, and alive
        assert (await w.one_pass()).state == "held"
        assert await decide(w, 2, "approved") is None
        assert await held(w) == []
        w.clock.forward(1)
        assert (await w.one_pass()).state == "complete"
        row = await counted(w)
        assert (row["missing"], row["deleted"]) == (6, 5)
        assert await w.live() == w.there()
        assert set(asked_for(w)) & set(gone) == set(gone)
        assert await w.sql("SELECT * FROM held_sessions") == [], "the approval is used up"


async def test_an_approval_is_void_for_a_session_that_answered_200(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=0, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w, {None: all_but(w, "SES6")})
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        w.clock.forward(1)
        await w.one_pass()
        assert "SES6" in await w.live()
        w.clock.forward(1)
        delete(w, 6)
        assert listing.asked
        assert (await w.one_pass()).state == "held", "it is missing anew, and nobody approved that"
        assert "SES6" in await w.live()


async def test_an_approval_is_void_for_a_session_that_was_listed_again_by_a_held_pass(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w, {None: all_but(w, "SES1", "SES2", "SES3")})
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        listing.pages = {None: all_but(w, "SES2", "SES3", "SES11", "SES12", "SES13")}
        assert (await w.one_pass()).state == "held"
        delete(w, 1, 2)
        listing.pages = {None: all_but(w)}
        assert (await w.one_pass()).state == "complete"
        assert set(await w.live()) - set(w.there()) == {"SES1"}, "SES2 is still approved, SES1 not any more"
        assert (await session(w, "SES1"))["absences"] == 1


async def test_an_approval_outlasts_an_answer_that_decides_nothing(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=0, max_fraction=0.0)
        await w.one_pass()
        delete(w, 6)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        w.sandbox.script("GET", "/api/v3/chats/sessions/SES6", 503)
        assert (await w.one_pass()).state == "complete"
        assert "SES6" in await w.live()
        assert (await w.one_pass()).state == "complete"
        assert "SES6" not in await w.live()


async def test_an_approval_of_some_does_not_let_others_go(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=2, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        delete(w, 11, 12, 13)
        assert (await w.one_pass()).state == "held"
        assert len(await w.live()) == 30
        for number in (11, 12):
            w.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_an_approved_empty_listing_empties_the_mirror_after_a_404_each(folder: Path) -> None:
    async with world(folder, sessions=12) as w:
        await w.one_pass()
        listing = Listing(w, {None: page()})
        delete(w, *range(1, 12))
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        assert (await w.one_pass()).state == "complete"
        assert list(await w.live()) == ["SES12"]
        assert listing.asked


async def test_a_rejection_leaves_the_sessions_live_until_a_later_pass_misses_them_anew(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        assert await decide(w, 2, "rejected") is None
        assert await held(w) == []
        assert len(await w.live()) == 30
        assert (await session(w, "SES1"))["missing_since"] is None
        assert (await w.one_pass()).state == "held"
        assert await held(w) == [3]
        assert len(await w.live()) == 30
        assert await decide(w, 3, "approved") is None
        await w.one_pass()
        assert await w.live() == w.there()


async def test_a_later_pass_within_the_limits_clears_the_hold(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w, {None: page(*list(w.sandbox.live().values())[:20])})
        assert (await w.one_pass()).state == "held"
        listing.pages = {None: page(*w.sandbox.live().values())}
        assert (await w.one_pass()).state == "complete"
        assert await held(w) == []
        assert await w.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": None}]
        assert await w.sql("SELECT * FROM held_sessions") == []
        assert "does not wait" in str(await decide(w, 2, "approved"))


async def test_holds_that_repeat_keep_one_copy_and_are_decided_together(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        for _ in range(4):
            assert (await w.one_pass()).state == "held"
        assert len(await w.sql("SELECT * FROM held_sessions")) == 5
        assert await held(w) == [5, 4, 3, 2]
        assert await decide(w, 4, "approved") is None
        assert await held(w) == []
        await w.one_pass()
        assert await w.live() == w.there()


async def test_a_hold_with_other_candidates_has_its_own(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3, 4)
        await w.one_pass()
        delete(w, 5)
        await w.one_pass()
        kept = await w.sql("SELECT pass_id, count(*) AS n FROM held_sessions GROUP BY pass_id ORDER BY pass_id")
        assert kept == [{"pass_id": 2, "n": 4}, {"pass_id": 3, "n": 5}]
        await decide(w, 2, "approved")
        assert await held(w) == [3]
        assert (await w.one_pass()).state == "complete", "what is not approved is within the limits"
        assert await w.live() == w.there()


@pytest.mark.parametrize(("pass_id", "words"), [(99, "no pass"), (1, "complete, not held")])
async def test_only_a_held_pass_can_be_decided(folder: Path, pass_id: int, words: str) -> None:
    async with world(folder, sessions=3) as w:
        await w.one_pass()
        assert words in str(await decide(w, pass_id, "approved"))


async def test_a_decision_is_made_once(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=0, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1)
        await w.one_pass()
        assert await decide(w, 2, "rejected") is None
        assert "does not wait" in str(await decide(w, 2, "approved"))
        assert (await w.sql("SELECT decision FROM passes WHERE id = 2")) == [{"decision": "rejected"}]


async def test_the_questions_of_a_sweep_are_bounded_by_the_guard(folder: Path) -> None:
    async with world(folder, sessions=100) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=7, max_fraction=0.0)
        await w.one_pass()
        delete(w, *range(1, 8))
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "complete"
        assert len(asked_for(w)) <= 7 + WITNESSES
        delete(w, *range(11, 51))
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "held"
        assert asked_for(w) == []


async def test_thousands_of_approved_sessions_go_in_one_pass(folder: Path) -> None:
    async with world(folder, sessions=3000) as w:
        w.sandbox.habits.page_size = 1000
        await w.one_pass()
        delete(w, *range(1, 2001))
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()
        assert await w.sql("SELECT * FROM held_sessions") == []


@pytest.mark.parametrize("state", ["partial", "failed"])
async def test_an_approval_is_void_for_a_session_that_a_pass_listed_again_however_it_ended(
    folder: Path, state: str
) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w, {None: all_but(w, "SES1", "SES2", "SES3")})
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, "approved")
        again = all_but(w)
        again["Items"].append({"no": "id"})
        listing.pages = {None: again | {"lastKey": "k"}, "k": page() if state == "partial" else 404}
        assert (await w.one_pass()).state == state
        delete(w, 1, 2, 3)
        listing.pages = {None: all_but(w)}
        assert (await w.one_pass()).state == "held"
        assert {"SES1", "SES2", "SES3"} <= set(await w.live())
