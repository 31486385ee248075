"""What the model found, as facts of their own: each fails without its mend, whatever the seeds stand for one day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from syncd.decide import UNKNOWN_LOOKUPS, Change, Known, next_lookup, weigh
from syncd.errors import DatabaseReplacedError
from syncd.listing import UPDATED_AT, Row
from syncd.sandbox import Habits
from syncd.tasks import task_group
from tests.world import world

NOW = "2026-06-01T12:00:00.000000Z"
LATER = "2026-06-01T13:00:00.000000Z"
BEFORE = "2026-06-01T11:59:59.000000Z"


def _known(*, observed_at: str | None = None, deleted_at: str | None = None, updated_at: str = BEFORE) -> Known:
    return Known(1, 1, BEFORE, None, observed_at, None, deleted_at, _row("old", updated_at))


def _row(name: str, updated_at: str = BEFORE) -> Row:
    row: list[str | None] = ["SES1", name, *[None] * 13, "{}"]
    row[UPDATED_AT] = updated_at
    return tuple(row)


def test_what_was_learned_before_the_clock_was_set_back_does_not_outweigh_what_is_seen_now() -> None:
    known = _known(observed_at=LATER)
    assert weigh(known, _row("new"), asked_at=NOW, now=NOW, listed_from=BEFORE, look_up=False) is Change.UPDATED
    buried = _known(deleted_at=LATER, observed_at=LATER)
    assert weigh(buried, _row("new"), asked_at=NOW, now=NOW, listed_from=BEFORE, look_up=False) is Change.RESTORED


def test_look_up_with_an_older_version_does_not_restore_a_deleted_session() -> None:
    buried = _known(deleted_at=BEFORE, updated_at=NOW)
    seen = _row("old", BEFORE)
    assert weigh(buried, seen, asked_at=NOW, now=NOW, listed_from=None, look_up=True) is Change.STALE
    assert weigh(buried, _row("x", LATER), asked_at=NOW, now=NOW, listed_from=None, look_up=True) is Change.RESTORED


def test_look_ups_of_an_unknown_create_keep_their_distance_when_the_clock_is_set_forward() -> None:
    since = datetime(2026, 6, 1, tzinfo=UTC)
    jumped = since + timedelta(hours=1)
    following = next_lookup(since, lookups=2, settle=60, now=jumped)
    assert following == jumped + timedelta(seconds=60 * (UNKNOWN_LOOKUPS[2] - UNKNOWN_LOOKUPS[1]))


async def test_clock_set_back_does_not_keep_a_deleted_session_alive(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        await w.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await w.push().drain()
        (created,) = [effect.session_id for effect in w.sandbox.effects]
        w.clock.at -= timedelta(hours=1)
        w.sandbox.delete(created)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_second_create_waits_where_look_ups_lag_behind_the_first(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(duplicate_create="duplicate", lookup_lag=30.0)) as w:
        await w.enqueue(*({"kind": "create", "source_session_id": "s", "name": f"n{n}"} for n in range(2)))
        await _until_final(w)
        assert [effect.kind for effect in w.sandbox.effects] == ["created"]
        first, second = await w.operation(1), await w.operation(2)
        assert first["result_session_id"] == second["result_session_id"]
        assert second["attempts"] == 1


async def test_delete_waits_where_look_ups_lag_behind_the_create(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(lookup_lag=30.0)) as w:
        await w.enqueue(
            {"kind": "create", "source_session_id": "s", "name": "n"}, {"kind": "delete", "source_session_id": "s"}
        )
        await _until_final(w)
        assert [effect.kind for effect in w.sandbox.effects] == ["created", "deleted"]
        assert w.there() == {}


async def test_create_waits_where_look_ups_lag_behind_the_delete(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await _until_final(w)
        w.sandbox.habits.lookup_lag = 30.0
        await w.enqueue(
            {"kind": "delete", "source_session_id": "s"}, {"kind": "create", "source_session_id": "s", "name": "again"}
        )
        await _until_final(w)
        assert [effect.kind for effect in w.sandbox.effects] == ["created", "deleted", "created"]
        assert list(w.there().values()) == ["again"]


async def test_lagging_look_up_of_a_reconciliation_does_not_bring_back_what_was_just_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.enqueue({"kind": "create", "source_session_id": "s", "name": "n"})
        await _until_final(w)
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = 10_000.0
        await w.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(w)
        await w.reconcile().run()
        assert await w.live() == {}


async def test_lagging_look_up_of_a_sweep_does_not_bring_back_what_was_just_deleted(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.sandbox.create(source_session_id="s", name="first", id="SES-first")
        w.sandbox.create(source_session_id="s", name="twin", id="SES-twin")
        assert (await w.one_pass()).state == "complete"
        w.sandbox.delete("SES-twin")
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = 10_000.0
        await w.enqueue({"kind": "delete", "session_id": "SES-first"})
        await _until_final(w)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def _until_final(w: object) -> None:
    """Work the queue, letting time pass, until nothing in it waits."""
    from tests.world import World  # noqa: PLC0415

    assert isinstance(w, World)
    for _ in range(200):
        await w.push().drain()
        left = await w.sql("SELECT id FROM operations WHERE state IN ('pending', 'running', 'unknown')")
        if not left:
            return
        w.clock.forward(1.0)
    raise AssertionError(await w.sql("SELECT * FROM operations"))


async def test_error_of_the_database_is_found_among_the_failures_of_many_tasks() -> None:
    async def fail(error: Exception) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    with pytest.raises(DatabaseReplacedError):  # noqa: PT012 - a task group is a block
        async with task_group() as group:
            group.start_soon(fail, ValueError("another"))
            group.start_soon(fail, DatabaseReplacedError("gone"))
            group.start_soon(fail, DatabaseReplacedError("gone"))
