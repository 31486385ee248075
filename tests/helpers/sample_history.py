"""A mirror with a history: ten days of changes in Albert, and the answers that analysts should get."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.helpers.harness import Harness

DAY = 86_400.0
HOSTILE = "=cmd|'/C calc'!A0, \"quoted\"\r\nsecond line \U0001f9ea\u2028"


@dataclass
class History:
    """The changes and their times; each moment is the mirror's clock at the end of a pass."""

    moments: list[datetime] = field(default_factory=list)
    old_names: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    deleted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The deleted sessions as they were."""


async def make_history(harness: Harness) -> History:
    """Rename, deactivate, move, delete, duplicate and revive sessions, with a pass after each day of it."""
    history = History()
    harness.clock.at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)

    async def a_pass() -> None:
        assert (await harness.one_pass()).state == "complete"
        history.moments.append(harness.clock.now())

    await a_pass()
    harness.clock.forward(DAY)
    history.old_names = {session_id: harness.sandbox.live()[session_id]["name"] for session_id in ("SES1", "SES2")}
    harness.sandbox.update("SES1", name=HOSTILE)
    harness.sandbox.update("SES2", name="renamed once")
    harness.sandbox.update("SES3", status="inactive")
    harness.sandbox.update("SES4", parent_id="FOL-NEW")
    history.deleted["SES5"] = harness.sandbox.delete("SES5")
    source = harness.sandbox.live()["SES7"]["sourceSessionId"]
    twin = harness.sandbox.create(source_session_id=source, name="a twin")
    history.duplicates = ["SES7", twin["id"]]
    await a_pass()
    harness.clock.forward(7 * DAY)
    harness.sandbox.update("SES2", name="renamed twice")
    history.deleted["SES6"] = harness.sandbox.delete("SES6")
    await harness.enqueue({"kind": "create", "source_session_id": "from-queue", "name": "from the queue"})
    await harness.push().drain()
    await a_pass()
    await harness.reconcile().run()
    harness.clock.forward(DAY)
    return history


def moment(value: Any) -> datetime:
    """Read a time of a row, from either database."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
