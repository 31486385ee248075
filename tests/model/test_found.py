"""Regression tests for errors that the model found: each fails without its fix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from syncd.mirror.db.shared_clock import HostClock
from syncd.mirror.store import elapsed, initial_load
from syncd.sandbox import Habits
from tests.helpers.harness import World, world

pytestmark = pytest.mark.both_databases

LONG = 10_000.0
"""Seconds by which look-ups lag in a test that ends sooner."""


async def _until_final(w: World) -> None:
    """Work the queue, letting time pass, until nothing in it waits."""
    for _ in range(200):
        await w.push().drain()
        if not await w.sql("SELECT id FROM operations WHERE state IN ('pending', 'running', 'unknown')"):
            return
        w.clock.forward(1.0)
    raise AssertionError(await w.sql("SELECT * FROM operations"))


async def _created(w: World, source_id: str) -> str:
    await w.enqueue({"kind": "create", "source_session_id": source_id, "name": "n"})
    await _until_final(w)
    return str(w.sandbox.effects[-1].session_id)


def _effects(w: World) -> list[str]:
    return [effect.kind for effect in w.sandbox.effects]


async def test_clock_set_back_does_not_keep_a_deleted_session_alive(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        created = await _created(w, "s")
        w.clock.step(-3600)
        w.sandbox.delete(created)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def test_clock_set_back_does_not_hide_what_others_change(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        created = await _created(w, "s")
        w.clock.step(-3600)
        w.sandbox.update(created, name="changed by others")
        assert (await w.one_pass()).state == "complete"
        assert (await w.live())[created] == "changed by others"


async def test_clock_set_back_does_not_stretch_the_grace_of_a_missing_session(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        w.guard = type(w.guard)(grace=60, confirmations=2, max_count=25, max_fraction=0.05)
        assert (await w.one_pass()).state == "complete"
        w.sandbox.delete("SES1")
        assert (await w.one_pass()).state == "complete"
        w.clock.step(-3600)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
            w.clock.forward(61)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


async def set_forward(w: World, seconds: float, *, restarted: bool) -> None:
    """Set the clock forward while the process runs, or before the next process starts."""
    w.clock.step(seconds)
    if restarted:
        w.database.clock = HostClock(w.clock)
        await elapsed.continue_clock(w.database, w.machine)


@pytest.mark.parametrize("restarted", [False, True])
async def test_lagging_look_up_sets_no_row_back_after_the_clock_was_set_forward(
    tmp_path: Path, *, restarted: bool
) -> None:
    async with world(tmp_path, sessions=3, habits=Habits(lookup_lag=LONG)) as w:
        await w.one_pass()
        w.clock.forward(1.0)
        w.sandbox.update("SES1", name="new")
        await w.one_pass()
        await set_forward(w, 3600, restarted=restarted)
        (source_id,) = (await w.sql("SELECT source_session_id FROM chat_sessions WHERE id = 'SES1'"))[0].values()
        await w.enqueue({"kind": "create", "source_session_id": source_id, "name": "n"})
        await _until_final(w)
        assert (await w.live())["SES1"] == "new"


async def test_lagging_listing_sets_no_row_back_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=3, habits=Habits(listing_lag=LONG)) as w:
        await w.one_pass()
        await w.enqueue({"kind": "update", "session_id": "SES1", "name": "ours"})
        await _until_final(w)
        w.clock.step(-3600)
        assert (await w.one_pass()).state == "complete"
        assert (await w.live())["SES1"] == "ours"
        w.sandbox.habits.listing_lag = 0.0
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.update("SES1", name="changed by others")
        await w.one_pass()
        assert (await w.live())["SES1"] == "changed by others"


async def test_tombstone_is_lifted_after_the_grace_and_contradicts_its_delete_although_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.guard = type(w.guard)(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await w.one_pass()
        w.sandbox.script("DELETE", "/", 204)
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(w)
        w.clock.step(-3600)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
            assert "SES1" not in await w.live(), "the listing may lag by the grace"
            w.clock.forward(59)
        w.clock.forward(3)
        await w.one_pass()
        assert [event["operation_id"] for event in w.named("operation.contradicted")] == [1]
        await _until_final(w)
        assert [effect.kind for effect in w.sandbox.effects] == ["deleted"]
        assert await w.live() == w.there()


@pytest.mark.parametrize("restarted", [False, True])
async def test_lagging_listing_lifts_no_tombstone_after_the_clock_was_set_forward(
    tmp_path: Path, *, restarted: bool
) -> None:
    async with world(tmp_path, sessions=3, habits=Habits(listing_lag=LONG)) as w:
        w.guard = type(w.guard)(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await w.one_pass()
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(w)
        await set_forward(w, 3600, restarted=restarted)
        assert (await w.one_pass()).state == "complete"
        assert "SES1" not in await w.live()
        assert w.named("operation.contradicted") == []


async def test_second_create_waits_while_look_ups_lag(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(duplicate_create="duplicate", lookup_lag=30.0)) as w:
        await w.enqueue(*({"kind": "create", "source_session_id": "s", "name": f"n{n}"} for n in range(2)))
        await _until_final(w)
        assert _effects(w) == ["created"]
        first, second = await w.operation(1), await w.operation(2)
        assert first["result_session_id"] == second["result_session_id"]
        assert second["attempts"] == 1


async def test_delete_is_sent_although_look_ups_lag_after_the_create(tmp_path: Path) -> None:
    async with world(tmp_path, habits=Habits(lookup_lag=30.0)) as w:
        await _created(w, "s")
        await w.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(w)
        assert _effects(w) == ["created", "deleted"]
        assert w.there() == {}


async def test_create_waits_while_look_ups_lag_after_the_delete(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await _created(w, "s")
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = 30.0
        await w.enqueue(
            {"kind": "delete", "source_session_id": "s"}, {"kind": "create", "source_session_id": "s", "name": "again"}
        )
        await _until_final(w)
        assert _effects(w) == ["created", "deleted", "created"]
        assert list(w.there().values()) == ["again"]
        assert await w.live() == w.there()
        assert len(w.asked("GET")) < 40  # requests are rare


async def test_lagging_look_up_of_a_reconciliation_does_not_bring_back_what_was_just_deleted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await _created(w, "s")
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = LONG
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
        w.sandbox.habits.lookup_lag = LONG
        await w.enqueue({"kind": "delete", "session_id": "SES-first"})
        await _until_final(w)
        assert (await w.one_pass()).state == "complete"
        assert await w.live() == w.there()


class Killed(Exception):  # noqa: N818 - it stands for a kill
    pass


async def _first_pass_killed_before_its_links(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(initial_load, "_link", kill)
        with pytest.raises(Killed):
            await w.one_pass()


@pytest.mark.sqlite
async def test_first_pass_that_ended_before_the_links_finds_sessions_in_conflict_with_a_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, habits=Habits(duplicate_create="duplicate")) as w:
        await w.database.write(initial_load.begin)
        created = await _created(w, "s")
        other = w.sandbox.create(source_session_id="s", name="by others")["id"]
        await _first_pass_killed_before_its_links(w, monkeypatch)
        assert (await w.one_pass()).state == "complete"
        (row,) = await w.sql("SELECT state, note FROM source_sessions")
        assert row["state"] == "conflict"
        assert created in row["note"]
        assert str(other) in row["note"]


@pytest.mark.sqlite
@pytest.mark.parametrize("empty_before", [False, True])
async def test_first_pass_that_ended_while_source_ids_were_linked_links_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_before: bool
) -> None:
    async with world(tmp_path) as w:
        if empty_before:
            assert (await w.one_pass()).state == "complete"
        for number in range(5):
            w.sandbox.create(source_session_id=f"s-{number}", name="n")
        await _first_pass_killed_before_its_links(w, monkeypatch)
        assert (await w.one_pass()).state == "complete"
        linked = await w.sql("SELECT session_id FROM source_sessions WHERE state = 'linked'")
        assert {row["session_id"] for row in linked} == set(w.there())


async def test_answer_to_a_create_does_not_undo_what_was_listed_while_it_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        create = w.albert.create_raw

        async def slow(*, body: Mapping[str, object]) -> bytes:
            answer = await create(body=body)
            w.sandbox.update(w.sandbox.effects[-1].session_id, name="changed by others")  # in the same millisecond
            w.clock.forward(1)
            assert (await w.one_pass()).state == "complete"
            return answer

        monkeypatch.setattr(w.albert, "create_raw", slow)
        await _created(w, "s")
        assert list((await w.live()).values()) == ["changed by others"]


async def test_listing_that_lags_does_not_bring_what_an_operation_deleted_before_the_mirror_ever_saw_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, sessions=3) as w:
        w.guard = type(w.guard)(grace=60, confirmations=2, max_count=25, max_fraction=0.05)
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.listing_lag = LONG
        await w.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(w)
        for _ in range(2):
            assert (await w.one_pass()).state == "complete"
            assert await w.live() == w.there()
        (tombstone,) = await w.sql("SELECT change, pass_id FROM sessions WHERE deleted_at IS NOT NULL")
        assert tombstone == {"change": "deleted", "pass_id": None}
        (counts,) = await w.sql("SELECT seen, inserted FROM passes WHERE id = 1")
        assert counts == {"seen": 3, "inserted": 3}


async def test_look_up_that_was_under_way_does_not_bring_what_an_operation_deleted_before_the_mirror_ever_saw_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        session = w.sandbox.create(source_session_id="s", name="by others")["id"]
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.lookup_lag = 5.0
        await w.enqueue({"kind": "delete", "session_id": session})
        await w.push().drain()
        await w.enqueue({"kind": "create", "source_session_id": "s", "name": "anew"})
        await _until_final(w)
        assert _effects(w)[-2:] == ["deleted", "created"]
        assert await w.live() == w.there()
        assert list(w.there().values()) == ["anew"]


@pytest.mark.parametrize("method", ["list_raw", "get_raw_by_source_session_id"])
async def test_answer_that_waits_to_be_written_is_as_of_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with world(tmp_path) as w:
        lag = w.push_settings.retry_policy.settle
        w.guard = type(w.guard)(grace=lag, confirmations=2, max_count=25, max_fraction=0.05)
        await _created(w, "s")
        w.sandbox.store.catch_up(0, 0)
        w.sandbox.habits.listing_lag = w.sandbox.habits.lookup_lag = LONG
        await w.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(w)
        ask = getattr(w.albert, method)

        async def slow(**asked: Any) -> bytes:
            answer: bytes = await ask(**asked)
            w.clock.forward(lag / 2)
            return answer

        monkeypatch.setattr(w.albert, method, slow)
        w.clock.forward(lag * 0.75)
        await (w.one_pass() if method == "list_raw" else w.reconcile().run())
        assert await w.live() == {}
