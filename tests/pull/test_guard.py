"""The guard: deletions beyond its limit wait for a person, and every hold has an exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.store import holds, passes
from syncd.mirror.store.holds import Hold, NotHeldError
from syncd.records.enums import HoldState, PassReason
from syncd.rules.deletion import Guard
from tests.helpers.harness import World, world
from tests.pull.helpers import Listing, all_but, asked_for, counted, dump, page, session

pytestmark = pytest.mark.both_databases

APPROVED, REJECTED, CLOSED = HoldState.APPROVED, HoldState.REJECTED, HoldState.CLOSED
AT_MOST_THREE = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)


async def decide(w: World, pass_id: int, decision: HoldState) -> Hold:
    return await w.database.write(lambda c: holds.decide(c, pass_id, decision, by="alice", now=w.clock.now()))


async def held(w: World, *states: HoldState) -> list[int]:
    """Return the passes that opened the holds in these states, newest first; the default state is open."""
    return [hold.pass_id for hold in await w.database.read(lambda c: holds.listed(c, states or (HoldState.OPEN,)))]


async def sessions_of_holds(w: World) -> dict[int, list[str]]:
    """Return the sessions of each hold in force, by the pass that opened it."""
    rows = await w.sql(
        "SELECT h.pass_id, s.id FROM holds AS h JOIN hold_sessions AS x ON x.hold_id = h.id "
        "JOIN sessions AS s ON s.key = x.session_key ORDER BY h.pass_id, s.key"
    )
    return {
        pass_id: [row["id"] for row in rows if row["pass_id"] == pass_id] for pass_id in {r["pass_id"] for r in rows}
    }


def delete(w: World, *numbers: int) -> None:
    for number in numbers:
        w.sandbox.delete(f"SES{number}")


def names(*numbers: int) -> list[str]:
    return [f"SES{number}" for number in numbers]


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
        (20, 10, 25, 0.05, "complete"),
        (20, 11, 25, 0.05, "held"),
        (3, 1, 25, 0.05, "complete"),
        (3, 2, 25, 0.05, "held"),
        (49, 24, 25, 0.05, "complete"),
        (49, 25, 25, 0.05, "held"),
        (50, 25, 25, 0.05, "complete"),
        (50, 26, 25, 0.05, "held"),
    ],
)
async def test_limit_is_the_larger_of_count_and_fraction_but_at_most_half_of_a_small_mirror(
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


async def test_held_pass_deletes_nothing_marks_nothing_and_keeps_its_candidates(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        before = await dump(w)
        (fresh,) = await w.sql("SELECT last_complete_pass_at FROM mirror_freshness")
        w.clock.forward(60)
        delete(w, 1, 2, 3, 4, 5)
        outcome = await w.one_pass()
        assert (outcome.pass_id, outcome.state, outcome.reason) == (2, "held", PassReason.TOO_MANY_GONE)
        assert await dump(w) == before
        assert (await w.sql("SELECT last_complete_pass_at FROM mirror_freshness")) == [fresh]
        (row,) = await w.sql("SELECT held_pass_id, live_sessions, missing_sessions FROM mirror_freshness")
        assert row == {"held_pass_id": 2, "live_sessions": 30, "missing_sessions": 0}
        assert await sessions_of_holds(w) == {2: names(1, 2, 3, 4, 5)}
        assert "5 of 30" in str(outcome.error)
        assert "at least 4" in str(outcome.error)
        (event,) = w.named("pass.held")
        assert (event["pass_id"], event["candidates"], event["log_level"]) == (2, 5, "warning")
        assert w.named("pass.complete")[-1]["pass_id"] == 1
        (row,) = await w.sql("SELECT state, reason, error, missing FROM passes WHERE id = 2")
        assert row == {"state": "held", "reason": "too_many_gone", "error": outcome.error, "missing": 5}


@pytest.mark.parametrize("live", [1, 5])
@pytest.mark.parametrize("gone", [True, False])
async def test_empty_listing_over_live_sessions_is_always_held(folder: Path, live: int, *, gone: bool) -> None:
    async with world(folder, sessions=live) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=1000, max_fraction=1.0)
        await w.one_pass()
        Listing(w, {None: page()})
        if gone:
            delete(w, *range(2, live + 1))
        w.sandbox.requests.clear()
        outcome = await w.one_pass()
        assert (outcome.state, outcome.reason) == ("held", PassReason.LISTING_EMPTY)
        assert f"{live} sessions are live" in str(outcome.error)
        assert len(await w.live()) == live
        assert asked_for(w) == ["SES1"], "the first request of the pass, and no other"


async def test_empty_listing_without_live_sessions_is_complete(folder: Path) -> None:
    async with world(folder, sessions=0) as w:
        assert (await w.one_pass()).state == "complete"
        assert (await counted(w))["seen"] == 0


async def test_own_creates_that_are_not_listed_yet_open_no_hold(folder: Path) -> None:
    async with world(folder, sessions=0) as w:
        await w.one_pass()
        w.sandbox.habits.listing_lag = 60
        await w.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "ours"} for n in range(30)))
        await w.push().drain()
        w.clock.forward(1)
        assert (await w.one_pass()).state == "complete"
        row = await counted(w)
        assert (row["seen"], row["missing"], row["deleted"]) == (0, 0, 0)
        assert len(await w.live()) == 30


async def test_empty_listing_is_held_for_own_creates_that_a_pass_has_listed(folder: Path) -> None:
    async with world(folder, sessions=0) as w:
        await w.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "ours"} for n in range(3)))
        await w.push().drain()
        await w.one_pass()
        Listing(w, {None: page()})
        assert (await w.one_pass()).state == "held"


async def test_approved_sessions_are_deleted_in_the_next_pass_each_after_its_own_404(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=3, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w)
        gone = names(1, 2, 3, 4, 5, 6)
        listing.pages = {None: all_but(w, *gone)}
        delete(w, 1, 2, 3, 4, 5)  # SES6 is not listed and still exists
        assert (await w.one_pass()).state == "held"
        approved = await decide(w, 2, APPROVED)
        assert (approved.state, approved.sessions, approved.decided_by) == (APPROVED, 6, "alice")
        assert await held(w) == []
        w.clock.forward(1)
        assert (await w.one_pass()).state == "complete"
        row = await counted(w)
        assert (row["missing"], row["deleted"]) == (5, 5)
        assert await w.live() == w.there()
        assert set(asked_for(w)) & set(gone) == set(gone)
        assert await held(w, CLOSED) == [2]
        assert await sessions_of_holds(w) == {}, "the approval is used up"


async def test_approval_ends_for_a_session_that_answered_200(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=1, max_fraction=0.0)
        await w.one_pass()
        listing = Listing(w, {None: all_but(w, *names(4, 5, 6))})
        delete(w, 4, 5)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        w.clock.forward(1)
        await w.one_pass()
        assert set(await w.live()) == set(w.there())
        w.clock.forward(3600)
        delete(w, 6)
        assert listing.asked
        assert (await w.one_pass()).state == "complete"
        assert "SES6" in await w.live(), "it is missing again, and that was not approved"


async def test_approval_ends_for_a_session_that_was_listed_again_by_a_held_pass(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        w.sandbox.create(id="SES1", source_session_id="again", name="again")
        delete(w, 11, 12, 13)
        assert (await w.one_pass()).state == "held"
        delete(w, 1)
        for number in (11, 12, 13):
            w.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        assert (await w.one_pass()).state == "complete"
        assert set(await w.live()) - set(w.there()) == {"SES1"}, "SES2 and SES3 are still approved"
        assert (await session(w, "SES1"))["absences"] == 1


async def test_approval_lasts_after_a_failed_look_up(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=0, max_fraction=0.0)
        await w.one_pass()
        delete(w, 6)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        w.sandbox.script("GET", "/api/v3/chats/sessions/SES6", 503)
        assert (await w.one_pass()).state == "complete"
        assert "SES6" in await w.live()
        assert (await w.one_pass()).state == "complete"
        assert "SES6" not in await w.live()


async def test_approval_covers_only_the_sessions_of_its_hold(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=2, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        delete(w, 11, 12, 13)
        assert (await w.one_pass()).state == "held"
        assert len(await w.live()) == 30
        assert await sessions_of_holds(w) == {2: names(1, 2, 3), 3: names(11, 12, 13)}
        for number in (11, 12):
            w.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_approval_after_an_empty_listing_deletes_each_session_that_answers_404(folder: Path) -> None:
    async with world(folder, sessions=12) as w:
        await w.one_pass()
        Listing(w, {None: page()})
        delete(w, *range(2, 12))
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        assert (await w.one_pass()).state == "complete"
        assert set(await w.live()) == set(names(1, 12))


async def test_rejection_lasts_while_its_sessions_are_not_listed(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        await decide(w, 2, REJECTED)
        w.sandbox.requests.clear()
        for _ in range(3):
            assert (await w.one_pass()).state == "complete"
            row = await counted(w)
            assert (row["missing"], row["deleted"]) == (5, 0)
        assert await held(w) == []
        assert await held(w, REJECTED) == [2]
        assert len(await w.live()) == 30
        assert not set(asked_for(w)) & set(names(1, 2, 3, 4, 5))
        (row,) = await w.sql("SELECT held_pass_id, missing_sessions FROM mirror_freshness")
        assert row == {"held_pass_id": None, "missing_sessions": 5}


async def test_rejection_does_not_cover_other_sessions(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        await decide(w, 2, REJECTED)
        delete(w, 11, 12, 13)
        assert (await w.one_pass()).state == "complete"
        assert set(await w.live()) - set(w.there()) == set(names(1, 2, 3, 4, 5))
        delete(w, 14, 15, 16, 17)
        assert (await w.one_pass()).state == "held"
        assert await sessions_of_holds(w) == {2: names(1, 2, 3, 4, 5), 4: names(14, 15, 16, 17)}


async def test_rejection_ends_for_a_session_that_is_listed_again(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        await decide(w, 2, REJECTED)
        w.sandbox.create(id="SES1", source_session_id="again", name="again")
        await w.one_pass()
        assert await sessions_of_holds(w) == {2: names(2, 3, 4, 5)}
        delete(w, 1)
        assert (await w.one_pass()).state == "complete"
        assert set(await w.live()) - set(w.there()) == set(names(2, 3, 4, 5))
        for number in (2, 3, 4, 5):
            w.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        await w.one_pass()
        assert await held(w, CLOSED) == [2]
        delete(w, 2, 3, 4, 5)
        assert (await w.one_pass()).state == "held"
        assert await held(w) == [6]


async def test_rejected_hold_can_be_approved_and_an_approved_one_rejected(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        for decision in (APPROVED, REJECTED, APPROVED):
            await decide(w, 2, decision)
            with pytest.raises(NotHeldError, match=f"{decision} already"):
                await decide(w, 2, decision)
        await w.one_pass()
        assert await w.live() == w.there()
        with pytest.raises(NotHeldError, match="does not wait for a decision any more, nothing is held now"):
            await decide(w, 2, REJECTED)
        actions = await w.sql("SELECT at, by, action, subject, detail FROM operator_actions ORDER BY id")
        assert [(row["by"], row["action"], row["subject"]) for row in actions] == [
            ("alice", "approve", "pass 2"), ("alice", "reject", "pass 2"), ("alice", "approve", "pass 2"),
        ]  # fmt: skip
        assert [row["detail"] for row in actions] == [
            f"5 sessions; it was {was}" for was in ("open", APPROVED, REJECTED)
        ]
        assert {row["at"] for row in actions} == {"2026-06-01T12:00:00.000000Z"}
        (hold,) = await w.sql("SELECT state, decided_by, decided_at FROM holds")
        assert hold == {"state": "closed", "decided_by": "alice", "decided_at": "2026-06-01T12:00:00.000000Z"}


async def test_decision_during_a_sweep_applies_to_that_sweep(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()

        async def reject(_: object) -> None:
            await decide(w, 2, REJECTED)

        w.sandbox.script("GET", "/api/v3/chats/sessions/SES2", reject)
        assert (await w.one_pass()).state == "complete"
        assert await held(w) == []
        assert len(await w.live()) == 30


async def test_sweep_of_a_lost_pass_requests_nothing_again_after_a_decision(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()

        async def approve_and_take_over(_: object) -> None:
            await decide(w, 2, APPROVED)
            await w.database.write(passes.running)

        w.sandbox.script("GET", "/api/v3/chats/sessions/SES2", approve_and_take_over)
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "running"
        asked = [one for one in asked_for(w) if one in names(1, 2, 3, 4, 5)]
        assert len(asked) == len(set(asked)) > 0
        assert (await w.one_pass()).state == "complete"


async def test_later_pass_within_the_limits_closes_the_hold(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        kept = w.sandbox.live()
        delete(w, *range(21, 31))
        assert (await w.one_pass()).state == "held"
        for number in range(21, 29):
            w.sandbox.create(id=f"SES{number}", source_session_id=f"{number}", name="n")
        assert kept
        assert (await w.one_pass()).state == "complete"
        assert await held(w) == []
        assert await w.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": None}]
        assert await sessions_of_holds(w) == {}
        with pytest.raises(NotHeldError, match="does not wait"):
            await decide(w, 2, APPROVED)


async def test_held_passes_share_one_hold_that_is_reported_once_and_decided_by_any_of_them(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        for number in range(2, 6):
            w.clock.forward(300)
            outcome = await w.one_pass()
            assert (outcome.pass_id, outcome.state) == (number, "held")
            assert await w.sql("SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": 2}]
        assert await held(w) == [2]
        assert [event["pass_id"] for event in w.named("pass.held")] == [2]
        assert [event["pass_id"] for event in w.named("pass.still_held")] == [3, 4, 5]
        assert len(await w.sql("SELECT * FROM hold_sessions")) == 5
        (hold,) = await w.sql("SELECT pass_id, last_pass_id, opened_at, updated_at FROM holds")
        assert hold == {
            "pass_id": 2, "last_pass_id": 5,
            "opened_at": "2026-06-01T12:05:00.000000Z", "updated_at": "2026-06-01T12:20:00.000000Z",
        }  # fmt: skip
        shown = await w.database.read(lambda c: holds.session_rows(c, holds.get(c, 4).hold_id, limit=3))
        assert len(shown) == 3
        assert {row["id"] for row in shown} < set(names(1, 2, 3, 4, 5))
        assert (await decide(w, 4, APPROVED)).pass_id == 2
        await w.one_pass()
        assert await w.live() == w.there()


async def test_hold_that_loses_a_session_remains_the_same_hold(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4, 5)
        await w.one_pass()
        w.sandbox.create(id="SES1", source_session_id="again", name="again")
        assert (await w.one_pass()).state == "held"
        assert await sessions_of_holds(w) == {2: names(2, 3, 4, 5)}
        assert [event["pass_id"] for event in w.named("pass.held")] == [2]


async def test_hold_of_other_sessions_replaces_the_open_one(folder: Path) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = AT_MOST_THREE
        await w.one_pass()
        delete(w, 1, 2, 3, 4)
        await w.one_pass()
        delete(w, 5)
        await w.one_pass()
        assert await sessions_of_holds(w) == {3: names(1, 2, 3, 4, 5)}
        assert await held(w) == [3]
        assert [event["pass_id"] for event in w.named("pass.held")] == [2, 3]
        with pytest.raises(NotHeldError, match="pass 2 does not wait for a decision any more, pass 3 holds"):
            await decide(w, 2, APPROVED)
        await decide(w, 3, APPROVED)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


@pytest.mark.parametrize(("pass_id", "words"), [(99, "no pass"), (1, "complete, not held")])
async def test_only_a_held_pass_can_be_decided(folder: Path, pass_id: int, words: str) -> None:
    async with world(folder, sessions=3) as w:
        await w.one_pass()
        with pytest.raises(NotHeldError, match=words):
            await decide(w, pass_id, APPROVED)
        assert await w.sql("SELECT * FROM operator_actions") == []


@pytest.mark.parametrize("gone", [8, 40])
async def test_requests_of_a_held_sweep_are_bounded_by_the_guard(folder: Path, gone: int) -> None:
    async with world(folder, sessions=100) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=7, max_fraction=0.0)
        await w.one_pass()
        delete(w, *range(11, 11 + gone))
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "held"
        by_id = [session_id for session_id in asked_for(w) if session_id not in w.there()]
        assert len(by_id) == 8, "one more than the limit"
        assert len(asked_for(w)) <= 8 + 5


async def test_sweep_requests_each_missing_session_once(folder: Path) -> None:
    async with world(folder, sessions=100) as w:
        w.guard = Guard(grace=0, confirmations=1, max_count=7, max_fraction=0.0)
        await w.one_pass()
        delete(w, *range(11, 18))
        w.sandbox.requests.clear()
        assert (await w.one_pass()).state == "complete"
        by_id = [session_id for session_id in asked_for(w) if session_id not in w.there()]
        assert sorted(by_id) == sorted(names(*range(11, 18)))


async def test_thousands_of_approved_sessions_are_deleted_in_one_pass(folder: Path) -> None:
    async with world(folder, sessions=3000) as w:
        w.sandbox.habits.page_size = 1000
        await w.one_pass()
        delete(w, *range(1, 1001))
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, APPROVED)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()
        assert await sessions_of_holds(w) == {}


@pytest.mark.parametrize("state", ["partial", "failed"])
@pytest.mark.parametrize("decision", [APPROVED, REJECTED])
async def test_decision_ends_for_a_session_that_an_incomplete_pass_lists_again(
    folder: Path, state: str, decision: HoldState
) -> None:
    async with world(folder, sessions=30) as w:
        w.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await w.one_pass()
        delete(w, 1, 2, 3)
        assert (await w.one_pass()).state == "held"
        await decide(w, 2, decision)
        w.sandbox.create(id="SES1", source_session_id="again", name="again")
        again = all_but(w)
        again["Items"].append({"no": "id"})
        listing = Listing(w, {None: again | {"lastKey": "k"}, "k": page() if state == "partial" else 404})
        assert (await w.one_pass()).state == state
        assert await sessions_of_holds(w) == {2: names(2, 3)}
        assert listing.asked
