"""Helpers of the tests of the queue: run it, and wait for the operations that it finishes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from syncd.push.flow import Push
from tests.helpers.harness import Harness

SESSIONS = "/api/v3/chats/sessions"
FINAL = frozenset({"succeeded", "dead", "cancelled"})


@asynccontextmanager
async def working(push: Push) -> AsyncIterator[TaskGroup]:
    """Work the queue for as long as the context lasts, and what is then in flight to its end."""
    async with anyio.create_task_group() as group:
        group.start_soon(push.run)
        yield group
        push.stop()


async def until(harness: Harness, holds: Callable[[], Any]) -> None:
    """Wait until a condition holds; time does not pass it."""

    async def met() -> Any:
        return holds()

    with anyio.fail_after(20):
        await harness.clock.until(met)


async def finished(harness: Harness, *ids: int, states: frozenset[str] = FINAL) -> list[dict[str, Any]]:
    """Wait until operations are in one of some states, and return them."""
    asked = ",".join(map(str, ids))

    async def holds() -> bool:
        rows = await harness.sql(f"SELECT DISTINCT state FROM operations WHERE id IN ({asked})")
        return {row["state"] for row in rows} <= states

    with anyio.fail_after(20):
        await harness.clock.until(holds)
    return [await harness.operation(operation_id) for operation_id in ids]


async def worked(harness: Harness, *ids: int, states: frozenset[str] = FINAL, **changes: Any) -> list[dict[str, Any]]:
    """Work the queue until operations are in one of some states, and return them."""
    async with working(harness.push(**changes)):
        return await finished(harness, *ids, states=states)


def create(source: str = "s-1", name: str = "wanted", **more: Any) -> dict[str, Any]:
    """Return the row of a create."""
    return {"kind": "create", "source_session_id": source, "name": name, **more}


def effects(harness: Harness, kind: str = "created") -> list[str]:
    """Return the source ids of what was really done, in order."""
    return [effect.source_session_id for effect in harness.sandbox.effects if effect.kind == kind]


def times(harness: Harness, method: str, prefix: str = SESSIONS) -> list[float]:
    """Return when the requests of a method came, in virtual seconds."""
    return [
        request.at
        for request in harness.sandbox.requests
        if request.method == method and request.raw_path.startswith(prefix)
    ]
