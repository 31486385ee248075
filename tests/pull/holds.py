"""Helpers of the tests of holds: decide about one, list them, and delete sessions of the sandbox."""

from __future__ import annotations

from syncd.mirror.store import holds
from syncd.mirror.store.holds import Hold
from syncd.records.enums import HoldState
from syncd.records.ids import PassId
from syncd.rules.deletion import Guard
from tests.helpers.harness import Harness

APPROVED, REJECTED, CLOSED = HoldState.APPROVED, HoldState.REJECTED, HoldState.CLOSED
AT_MOST_THREE = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.0)


async def decide(harness: Harness, pass_id: int, decision: HoldState) -> Hold:
    return await harness.database.write(
        lambda c: holds.decide(c, PassId(pass_id), decision, by="alice", now=harness.clock.now())
    )


async def held(harness: Harness, *states: HoldState) -> list[int]:
    """Return the passes that opened the holds in these states, newest first; the default state is open."""
    return [
        hold.pass_id for hold in await harness.database.read(lambda c: holds.listed(c, states or (HoldState.OPEN,)))
    ]


async def sessions_of_holds(harness: Harness) -> dict[int, list[str]]:
    """Return the sessions of each hold in force, by the pass that opened it."""
    rows = await harness.sql(
        "SELECT h.pass_id, s.id FROM holds AS h JOIN hold_sessions AS x ON x.hold_id = h.id "
        "JOIN sessions AS s ON s.key = x.session_key ORDER BY h.pass_id, s.key"
    )
    return {
        pass_id: [row["id"] for row in rows if row["pass_id"] == pass_id] for pass_id in {r["pass_id"] for r in rows}
    }


def delete(harness: Harness, *numbers: int) -> None:
    for number in numbers:
        harness.sandbox.delete(f"SES{number}")


def names(*numbers: int) -> list[str]:
    return [f"SES{number}" for number in numbers]
