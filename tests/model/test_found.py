"""Regression tests for errors that the model found: each fails without its fix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from syncd.mirror.db.shared_clock import HostClock
from syncd.mirror.store import elapsed, initial_load
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

LONG = 10_000.0
"""Seconds by which look-ups lag in a test that ends sooner."""


async def _until_final(harness: Harness) -> None:
    """Work the queue, letting time pass, until nothing in it waits."""
    for _ in range(200):
        await harness.push().drain()
        if not await harness.sql("SELECT id FROM operations WHERE state IN ('pending', 'running', 'unknown')"):
            return
        harness.clock.forward(1.0)
    raise AssertionError(await harness.sql("SELECT * FROM operations"))


async def _created(harness: Harness, source_id: str) -> str:
    await harness.enqueue({"kind": "create", "source_session_id": source_id, "name": "n"})
    await _until_final(harness)
    return str(harness.sandbox.effects[-1].session_id)


def _effects(harness: Harness) -> list[str]:
    return [effect.kind for effect in harness.sandbox.effects]


async def test_clock_set_back_does_not_keep_a_deleted_session_alive(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        created = await _created(harness, "s")
        harness.clock.step(-3600)
        harness.sandbox.delete(created)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def test_clock_set_back_does_not_hide_what_others_change(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        created = await _created(harness, "s")
        harness.clock.step(-3600)
        harness.sandbox.update(created, name="changed by others")
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.live())[created] == "changed by others"


async def test_clock_set_back_does_not_stretch_the_grace_of_a_missing_session(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        harness.guard = type(harness.guard)(grace=60, confirmations=2, max_count=25, max_fraction=0.05)
        assert (await harness.one_pass()).state == "complete"
        harness.sandbox.delete("SES1")
        assert (await harness.one_pass()).state == "complete"
        harness.clock.step(-3600)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            harness.clock.forward(61)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


async def set_forward(harness: Harness, seconds: float, *, restarted: bool) -> None:
    """Set the clock forward while the process runs, or before the next process starts."""
    harness.clock.step(seconds)
    if restarted:
        harness.database.clock = HostClock(harness.clock)
        await elapsed.continue_clock(harness.database, harness.machine)


@pytest.mark.parametrize("restarted", [False, True])
async def test_lagging_look_up_sets_no_row_back_after_the_clock_was_set_forward(
    tmp_path: Path, *, restarted: bool
) -> None:
    async with open_harness(tmp_path, sessions=3, habits=Habits(lookup_lag=LONG)) as harness:
        await harness.one_pass()
        harness.clock.forward(1.0)
        harness.sandbox.update("SES1", name="new")
        await harness.one_pass()
        await set_forward(harness, 3600, restarted=restarted)
        (source_id,) = (await harness.sql("SELECT source_session_id FROM chat_sessions WHERE id = 'SES1'"))[0].values()
        await harness.enqueue({"kind": "create", "source_session_id": source_id, "name": "n"})
        await _until_final(harness)
        assert (await harness.live())["SES1"] == "new"


async def test_lagging_listing_sets_no_row_back_after_the_clock_was_set_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3, habits=Habits(listing_lag=LONG)) as harness:
        await harness.one_pass()
        await harness.enqueue({"kind": "update", "session_id": "SES1", "name": "ours"})
        await _until_final(harness)
        harness.clock.step(-3600)
        assert (await harness.one_pass()).state == "complete"
        assert (await harness.live())["SES1"] == "ours"
        harness.sandbox.habits.listing_lag = 0.0
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.update("SES1", name="changed by others")
        await harness.one_pass()
        assert (await harness.live())["SES1"] == "changed by others"


async def test_tombstone_is_lifted_after_the_grace_and_contradicts_its_delete_although_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.guard = type(harness.guard)(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        harness.sandbox.script("DELETE", "/", 204)
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(harness)
        harness.clock.step(-3600)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            assert "SES1" not in await harness.live(), "the listing may lag by the grace"
            harness.clock.forward(59)
        harness.clock.forward(3)
        await harness.one_pass()
        assert [event["operation_id"] for event in harness.named("operation.contradicted")] == [1]
        await _until_final(harness)
        assert [effect.kind for effect in harness.sandbox.effects] == ["deleted"]
        assert await harness.live() == harness.there()


@pytest.mark.parametrize("restarted", [False, True])
async def test_lagging_listing_lifts_no_tombstone_after_the_clock_was_set_forward(
    tmp_path: Path, *, restarted: bool
) -> None:
    async with open_harness(tmp_path, sessions=3, habits=Habits(listing_lag=LONG)) as harness:
        harness.guard = type(harness.guard)(grace=120, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.one_pass()
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(harness)
        await set_forward(harness, 3600, restarted=restarted)
        assert (await harness.one_pass()).state == "complete"
        assert "SES1" not in await harness.live()
        assert harness.named("operation.contradicted") == []


async def test_second_create_waits_while_look_ups_lag(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(duplicate_create="duplicate", lookup_lag=30.0)) as harness:
        await harness.enqueue(*({"kind": "create", "source_session_id": "s", "name": f"n{n}"} for n in range(2)))
        await _until_final(harness)
        assert _effects(harness) == ["created"]
        first, second = await harness.operation(1), await harness.operation(2)
        assert first["result_session_id"] == second["result_session_id"]
        assert second["attempts"] == 1


async def test_delete_is_sent_although_look_ups_lag_after_the_create(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(lookup_lag=30.0)) as harness:
        await _created(harness, "s")
        await harness.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(harness)
        assert _effects(harness) == ["created", "deleted"]
        assert harness.there() == {}


async def test_create_waits_while_look_ups_lag_after_the_delete(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await _created(harness, "s")
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = 30.0
        await harness.enqueue(
            {"kind": "delete", "source_session_id": "s"}, {"kind": "create", "source_session_id": "s", "name": "again"}
        )
        await _until_final(harness)
        assert _effects(harness) == ["created", "deleted", "created"]
        assert list(harness.there().values()) == ["again"]
        assert await harness.live() == harness.there()
        assert len(harness.asked("GET")) < 40  # requests are rare


async def test_lagging_look_up_of_a_reconciliation_does_not_bring_back_what_was_just_deleted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await _created(harness, "s")
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = LONG
        await harness.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(harness)
        await harness.reconcile().run()
        assert await harness.live() == {}


async def test_lagging_look_up_of_a_sweep_does_not_bring_back_what_was_just_deleted(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.sandbox.create(source_session_id="s", name="first", id="SES-first")
        harness.sandbox.create(source_session_id="s", name="twin", id="SES-twin")
        assert (await harness.one_pass()).state == "complete"
        harness.sandbox.delete("SES-twin")
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = LONG
        await harness.enqueue({"kind": "delete", "session_id": "SES-first"})
        await _until_final(harness)
        assert (await harness.one_pass()).state == "complete"
        assert await harness.live() == harness.there()


class Killed(Exception):  # noqa: N818 - it stands for a kill
    pass


async def _first_pass_killed_before_its_links(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(initial_load, "_link", kill)
        with pytest.raises(Killed):
            await harness.one_pass()


@pytest.mark.sqlite
async def test_first_pass_that_ended_before_the_links_finds_sessions_in_conflict_with_a_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path, habits=Habits(duplicate_create="duplicate")) as harness:
        await harness.database.write(initial_load.begin)
        created = await _created(harness, "s")
        other = harness.sandbox.create(source_session_id="s", name="by others")["id"]
        await _first_pass_killed_before_its_links(harness, monkeypatch)
        assert (await harness.one_pass()).state == "complete"
        (row,) = await harness.sql("SELECT state, note FROM source_sessions")
        assert row["state"] == "conflict"
        assert created in row["note"]
        assert str(other) in row["note"]


@pytest.mark.sqlite
@pytest.mark.parametrize("empty_before", [False, True])
async def test_first_pass_that_ended_while_source_ids_were_linked_links_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_before: bool
) -> None:
    async with open_harness(tmp_path) as harness:
        if empty_before:
            assert (await harness.one_pass()).state == "complete"
        for number in range(5):
            harness.sandbox.create(source_session_id=f"s-{number}", name="n")
        await _first_pass_killed_before_its_links(harness, monkeypatch)
        assert (await harness.one_pass()).state == "complete"
        linked = await harness.sql("SELECT session_id FROM source_sessions WHERE state = 'linked'")
        assert {row["session_id"] for row in linked} == set(harness.there())


async def test_answer_to_a_create_does_not_undo_what_was_listed_while_it_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        create = harness.albert.create_raw

        async def slow(*, body: Mapping[str, object]) -> bytes:
            answer = await create(body=body)
            harness.sandbox.update(
                harness.sandbox.effects[-1].session_id, name="changed by others"
            )  # in the same millisecond
            harness.clock.forward(1)
            assert (await harness.one_pass()).state == "complete"
            return answer

        monkeypatch.setattr(harness.albert, "create_raw", slow)
        await _created(harness, "s")
        assert list((await harness.live()).values()) == ["changed by others"]


async def test_listing_that_lags_does_not_bring_what_an_operation_deleted_before_the_mirror_ever_saw_it(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.guard = type(harness.guard)(grace=60, confirmations=2, max_count=25, max_fraction=0.05)
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.listing_lag = LONG
        await harness.enqueue({"kind": "delete", "session_id": "SES1"})
        await _until_final(harness)
        for _ in range(2):
            assert (await harness.one_pass()).state == "complete"
            assert await harness.live() == harness.there()
        (tombstone,) = await harness.sql("SELECT change, pass_id FROM sessions WHERE deleted_at IS NOT NULL")
        assert tombstone == {"change": "deleted", "pass_id": None}
        (counts,) = await harness.sql("SELECT seen, inserted FROM passes WHERE id = 1")
        assert counts == {"seen": 3, "inserted": 3}


async def test_look_up_that_was_under_way_does_not_bring_what_an_operation_deleted_before_the_mirror_ever_saw_it(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path) as harness:
        session = harness.sandbox.create(source_session_id="s", name="by others")["id"]
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.lookup_lag = 5.0
        await harness.enqueue({"kind": "delete", "session_id": session})
        await harness.push().drain()
        await harness.enqueue({"kind": "create", "source_session_id": "s", "name": "repeated"})
        await _until_final(harness)
        assert _effects(harness)[-2:] == ["deleted", "created"]
        assert await harness.live() == harness.there()
        assert list(harness.there().values()) == ["repeated"]


@pytest.mark.parametrize("method", ["list_raw", "get_raw_by_source_session_id"])
async def test_answer_that_waits_to_be_written_is_as_of_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with open_harness(tmp_path) as harness:
        lag = harness.push_settings.retry_policy.settle
        harness.guard = type(harness.guard)(grace=lag, confirmations=2, max_count=25, max_fraction=0.05)
        await _created(harness, "s")
        harness.sandbox.store.catch_up(0, 0)
        harness.sandbox.habits.listing_lag = harness.sandbox.habits.lookup_lag = LONG
        await harness.enqueue({"kind": "delete", "source_session_id": "s"})
        await _until_final(harness)
        ask = getattr(harness.albert, method)

        async def slow(**asked: Any) -> bytes:
            answer: bytes = await ask(**asked)
            harness.clock.forward(lag / 2)
            return answer

        monkeypatch.setattr(harness.albert, method, slow)
        harness.clock.forward(lag * 0.75)
        await (harness.one_pass() if method == "list_raw" else harness.reconcile().run())
        assert await harness.live() == {}
