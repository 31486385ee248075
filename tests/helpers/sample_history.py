"""A mirror with a history: ten days of changes in Albert, and the answers that analysts should get."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.helpers.harness import World

DAY = 86_400.0
HOSTILE = "=cmd|'/C calc'!A0, \"quoted\"\r\nsecond line \U0001f9ea\u2028"


@dataclass
class Scene:
    """The changes and their times; each moment is the mirror's clock at the end of a pass."""

    moments: list[datetime] = field(default_factory=list)
    old_names: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    deleted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The deleted sessions as they were."""


async def play(w: World) -> Scene:
    """Rename, deactivate, move, delete, duplicate and revive sessions, with a pass after each day of it."""
    scene = Scene()
    w.clock.at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)

    async def a_pass() -> None:
        assert (await w.one_pass()).state == "complete"
        scene.moments.append(w.clock.now())

    await a_pass()
    w.clock.forward(DAY)
    scene.old_names = {one: w.sandbox.live()[one]["name"] for one in ("SES1", "SES2")}
    w.sandbox.update("SES1", name=HOSTILE)
    w.sandbox.update("SES2", name="renamed once")
    w.sandbox.update("SES3", status="inactive")
    w.sandbox.update("SES4", parent_id="FOL-NEW")
    scene.deleted["SES5"] = w.sandbox.delete("SES5")
    source = w.sandbox.live()["SES7"]["sourceSessionId"]
    twin = w.sandbox.create(source_session_id=source, name="a twin")
    scene.duplicates = ["SES7", twin["id"]]
    await a_pass()
    w.clock.forward(7 * DAY)
    w.sandbox.update("SES2", name="renamed twice")
    scene.deleted["SES6"] = w.sandbox.delete("SES6")
    await w.enqueue({"kind": "create", "source_session_id": "from-queue", "name": "from the queue"})
    await w.push().drain()
    await a_pass()
    await w.reconcile().run()
    w.clock.forward(DAY)
    return scene


def moment(value: Any) -> datetime:
    """Read a time of a row, from either database."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
