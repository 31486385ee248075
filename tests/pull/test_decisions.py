"""Decisions of an operator about a hold: the sessions that an approval or a rejection covers, and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.store import passes
from syncd.mirror.store.holds import NotHeldError
from syncd.records.enums import HoldState
from syncd.rules.deletion import Guard
from tests.helpers.harness import open_harness
from tests.pull.helpers import Listing, all_but, asked_for, counted, page, session
from tests.pull.holds import APPROVED, AT_MOST_THREE, CLOSED, REJECTED, decide, delete, held, names, sessions_of_holds

pytestmark = pytest.mark.both_databases


async def test_approved_sessions_are_deleted_in_the_next_pass_each_after_its_own_404(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=3600, confirmations=5, max_count=3, max_fraction=0.0)
        await harness.one_pass()
        listing = Listing(harness)
        gone = names(1, 2, 3, 4, 5, 6)
        listing.pages = {None: all_but(harness, *gone)}
        delete(harness, 1, 2, 3, 4, 5)  # SES6 is not listed and still exists
        assert (await harness.one_pass()).state == "held"
        approved = await decide(harness, 2, APPROVED)
        assert (approved.state, approved.sessions, approved.decided_by) == (APPROVED, 6, "alice")
        assert await held(harness) == []
        harness.clock.forward(1)
        assert (await harness.one_pass()).state == "complete"
        row = await counted(harness)
        assert (row["missing"], row["deleted"]) == (5, 5)
        assert await harness.live() == harness.there()
        assert set(asked_for(harness)) & set(gone) == set(gone)
        assert await held(harness, CLOSED) == [2]
        assert await sessions_of_holds(harness) == {}, "the approval is used up"


async def test_approval_ends_for_a_session_that_answered_200(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=3600, confirmations=5, max_count=1, max_fraction=0.0)
        await harness.one_pass()
        listing = Listing(harness, {None: all_but(harness, *names(4, 5, 6))})
        delete(harness, 4, 5)
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        harness.clock.forward(1)
        await harness.one_pass()
        assert set(await harness.live()) == set(harness.there())
        harness.clock.forward(3600)
        delete(harness, 6)
        assert listing.asked
        assert (await harness.one_pass()).state == "complete"
        assert "SES6" in await harness.live(), "it is missing again, and that was not approved"


async def test_approval_ends_for_a_session_that_was_listed_again_by_a_held_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, 1, 2, 3)
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        harness.sandbox.create(id="SES1", source_session_id="again", name="again")
        delete(harness, 11, 12, 13)
        assert (await harness.one_pass()).state == "held"
        delete(harness, 1)
        for number in (11, 12, 13):
            harness.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) - set(harness.there()) == {"SES1"}, "SES2 and SES3 are still approved"
        assert (await session(harness, "SES1"))["absences"] == 1


async def test_approval_lasts_after_a_failed_look_up(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=3600, confirmations=5, max_count=0, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, 6)
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        harness.sandbox.script("GET", "/api/v3/chats/sessions/SES6", 503)
        assert (await harness.one_pass()).state == "complete"
        assert "SES6" in await harness.live()
        assert (await harness.one_pass()).state == "complete"
        assert "SES6" not in await harness.live()


async def test_approval_covers_only_the_sessions_of_its_hold(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=2, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, 1, 2, 3)
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        delete(harness, 11, 12, 13)
        assert (await harness.one_pass()).state == "held"
        assert len(await harness.live()) == 30
        assert await sessions_of_holds(harness) == {2: names(1, 2, 3), 3: names(11, 12, 13)}
        for number in (11, 12):
            harness.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_approval_after_an_empty_listing_deletes_each_session_that_answers_404(folder: Path) -> None:
    async with open_harness(folder, sessions=12) as harness:
        await harness.one_pass()
        Listing(harness, {None: page()})
        delete(harness, *range(2, 12))
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) == set(names(1, 12))


async def test_rejection_lasts_while_its_sessions_are_not_listed(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()
        await decide(harness, 2, REJECTED)
        harness.sandbox.requests.clear()
        for _ in range(3):
            assert (await harness.one_pass()).state == "complete"
            row = await counted(harness)
            assert (row["missing"], row["deleted"]) == (5, 0)
        assert await held(harness) == []
        assert await held(harness, REJECTED) == [2]
        assert len(await harness.live()) == 30
        assert not set(asked_for(harness)) & set(names(1, 2, 3, 4, 5))
        (row,) = await harness.sql("SELECT held_pass_id, missing_sessions FROM mirror_freshness")
        assert row == {"held_pass_id": None, "missing_sessions": 5}


async def test_rejection_does_not_cover_other_sessions(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()
        await decide(harness, 2, REJECTED)
        delete(harness, 11, 12, 13)
        assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) - set(harness.there()) == set(names(1, 2, 3, 4, 5))
        delete(harness, 14, 15, 16, 17)
        assert (await harness.one_pass()).state == "held"
        assert await sessions_of_holds(harness) == {2: names(1, 2, 3, 4, 5), 4: names(14, 15, 16, 17)}


async def test_rejection_ends_for_a_session_that_is_listed_again(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()
        await decide(harness, 2, REJECTED)
        harness.sandbox.create(id="SES1", source_session_id="again", name="again")
        await harness.one_pass()
        assert await sessions_of_holds(harness) == {2: names(2, 3, 4, 5)}
        delete(harness, 1)
        assert (await harness.one_pass()).state == "complete"
        assert set(await harness.live()) - set(harness.there()) == set(names(2, 3, 4, 5))
        for number in (2, 3, 4, 5):
            harness.sandbox.create(id=f"SES{number}", source_session_id=f"again {number}", name="again")
        await harness.one_pass()
        assert await held(harness, CLOSED) == [2]
        delete(harness, 2, 3, 4, 5)
        assert (await harness.one_pass()).state == "held"
        assert await held(harness) == [6]


async def test_rejected_hold_can_be_approved_and_an_approved_one_rejected(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()
        for decision in (APPROVED, REJECTED, APPROVED):
            await decide(harness, 2, decision)
            with pytest.raises(NotHeldError, match=f"{decision} already"):
                await decide(harness, 2, decision)
        await harness.one_pass()
        assert await harness.live() == harness.there()
        with pytest.raises(NotHeldError, match="does not wait for a decision any more, nothing is held now"):
            await decide(harness, 2, REJECTED)
        actions = await harness.sql("SELECT at, by, action, subject, detail FROM operator_actions ORDER BY id")
        assert [(row["by"], row["action"], row["subject"]) for row in actions] == [
            ("alice", "approve", "pass 2"), ("alice", "reject", "pass 2"), ("alice", "approve", "pass 2"),
        ]  # fmt: skip
        assert [row["detail"] for row in actions] == [
            f"5 sessions; it was {was}" for was in ("open", APPROVED, REJECTED)
        ]
        assert {row["at"] for row in actions} == {"2026-06-01T12:00:00.000000Z"}
        (hold,) = await harness.sql("SELECT state, decided_by, decided_at FROM holds")
        assert hold == {"state": "closed", "decided_by": "alice", "decided_at": "2026-06-01T12:00:00.000000Z"}


async def test_decision_during_a_sweep_applies_to_that_sweep(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()

        async def reject(_: object) -> None:
            await decide(harness, 2, REJECTED)

        harness.sandbox.script("GET", "/api/v3/chats/sessions/SES2", reject)
        assert (await harness.one_pass()).state == "complete"
        assert await held(harness) == []
        assert len(await harness.live()) == 30


async def test_sweep_of_a_lost_pass_requests_nothing_again_after_a_decision(folder: Path) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = AT_MOST_THREE
        await harness.one_pass()
        delete(harness, 1, 2, 3, 4, 5)
        await harness.one_pass()

        async def approve_and_take_over(_: object) -> None:
            await decide(harness, 2, APPROVED)
            await harness.database.write(passes.resume)

        harness.sandbox.script("GET", "/api/v3/chats/sessions/SES2", approve_and_take_over)
        harness.sandbox.requests.clear()
        assert (await harness.one_pass()).state == "running"
        asked = [session_id for session_id in asked_for(harness) if session_id in names(1, 2, 3, 4, 5)]
        assert len(asked) == len(set(asked)) > 0
        assert (await harness.one_pass()).state == "complete"


@pytest.mark.parametrize(("pass_id", "message"), [(99, "no pass"), (1, "complete, not held")])
async def test_only_a_held_pass_can_be_decided(folder: Path, pass_id: int, message: str) -> None:
    async with open_harness(folder, sessions=3) as harness:
        await harness.one_pass()
        with pytest.raises(NotHeldError, match=message):
            await decide(harness, pass_id, APPROVED)
        assert await harness.sql("SELECT * FROM operator_actions") == []


@pytest.mark.slow
async def test_thousands_of_approved_sessions_are_deleted_in_one_pass(folder: Path) -> None:
    async with open_harness(folder, sessions=3000) as harness:
        harness.sandbox.habits.page_size = 1000
        await harness.one_pass()
        delete(harness, *range(1, 1001))
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, APPROVED)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()
        assert await sessions_of_holds(harness) == {}


@pytest.mark.parametrize("state", ["partial", "failed"])
@pytest.mark.parametrize("decision", [APPROVED, REJECTED])
async def test_decision_ends_for_a_session_that_an_incomplete_pass_lists_again(
    folder: Path, state: str, decision: HoldState
) -> None:
    async with open_harness(folder, sessions=30) as harness:
        harness.guard = Guard(grace=3600, confirmations=5, max_count=2, max_fraction=0.0)
        await harness.one_pass()
        delete(harness, 1, 2, 3)
        assert (await harness.one_pass()).state == "held"
        await decide(harness, 2, decision)
        harness.sandbox.create(id="SES1", source_session_id="again", name="again")
        again = all_but(harness)
        again["Items"].append({"no": "id"})
        listing = Listing(harness, {None: again | {"lastKey": "k"}, "k": page() if state == "partial" else 404})
        assert (await harness.one_pass()).state == state
        assert await sessions_of_holds(harness) == {2: names(2, 3)}
        assert listing.asked
