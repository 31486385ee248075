"""`syncd prune` deletes old rows that are not needed any more, and passes and the queue continue."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from syncd.mirror.store import prune as pruning
from syncd.mirror.store.prune import needed_since, old_rows, prune
from tests.cli.conftest import Call, syncd
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import BASE

__all__ = ["syncd"]
pytestmark = pytest.mark.both_databases

OLD = "2020-01-01T00:00:00.000000Z"
OLDER = "2019-12-31T00:00:00.000000Z"
NEW = "2026-05-31T12:00:00.000000Z"
AGE = timedelta(days=90)


async def pruned(harness: Harness, *, history: bool = False) -> dict[str, int]:
    now = harness.clock.now()
    return await prune(
        harness.database, old_rows(now - AGE, history=history), by="alice", now=now, what="rows older than 90d"
    )


async def ids(harness: Harness, table: str) -> list[int]:
    return [row["id"] for row in await harness.sql(f"SELECT id FROM {table} ORDER BY id")]


async def insert(harness: Harness, table: str, *rows: dict[str, Any]) -> None:
    for row in rows:
        values = ", ".join("NULL" if value is None else f"'{value}'" for value in row.values())
        await harness.sql(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})")


def operation(state: str, at: str | None, **more: Any) -> dict[str, Any]:
    return {"kind": "delete", "session_id": f"{state} {at}", "state": state, "finished_at": at, **more}


async def test_only_operations_that_are_over_for_long_are_deleted(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(
            harness, "operations",
            operation("succeeded", OLD), operation("cancelled", OLD), operation("dead", OLD),
            operation("succeeded", NEW), operation("cancelled", NEW),
            *(operation(state, None, requested_at=OLD) for state in ("pending", "running", "unknown")),
        )  # fmt: skip
        assert (await pruned(harness))["operations"] == 2
        assert await ids(harness, "operations") == [3, 4, 5, 6, 7, 8]


@pytest.mark.sqlite  # a trigger of PostgreSQL corrects such a row before the transaction ends
async def test_operation_that_another_one_waits_for_is_kept(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(
            harness, "operations",
            operation("succeeded", OLD), operation("succeeded", OLD), operation("pending", None),
            operation("cancelled", NEW),
        )  # fmt: skip
        await harness.sql(
            "UPDATE operations SET blocked_by = id - 2 WHERE id > 2"
        )  # a trigger decides about inserted rows
        await pruned(harness)
        assert await ids(harness, "operations") == [1, 3, 4]


async def test_passes_before_the_newest_complete_one_are_deleted(tmp_path: Path) -> None:
    def one(state: str, finished_at: str | None) -> dict[str, Any]:
        return {"state": state, "started_at": OLD, "finished_at": finished_at}

    async with open_harness(tmp_path) as harness:
        await insert(
            harness, "passes",
            one("complete", OLD), one("partial", OLD), one("failed", OLD), one("held", OLD), one("failed", NEW),
            one("complete", OLD), one("failed", OLD), one("running", None),
        )  # fmt: skip
        assert (await pruned(harness))["passes"] == 3
        assert await ids(harness, "passes") == [4, 5, 6, 7, 8]


async def test_no_pass_is_deleted_before_one_is_complete(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, "passes", *[{"state": "failed", "started_at": OLD, "finished_at": OLD}] * 3)
        assert (await pruned(harness))["passes"] == 0


async def test_items_that_were_resolved_before_the_newest_complete_pass_are_deleted(tmp_path: Path) -> None:
    def item(fingerprint: str, resolved_at: str | None) -> dict[str, Any]:
        return {"reason": "r", "payload": "{}", "seen_at": OLD, "fingerprint": fingerprint, "resolved_at": resolved_at}

    async with open_harness(tmp_path) as harness:
        await insert(harness, "quarantine", item("a", OLD), item("b", NEW), item("c", None))
        assert (await pruned(harness))["quarantine"] == 0
        await insert(
            harness, "passes", {"state": "complete", "started_at": "2019-12-31T00:00:00.000000Z", "finished_at": OLD}
        )
        assert (await pruned(harness))["quarantine"] == 0
        await insert(harness, "passes", {"state": "complete", "started_at": NEW, "finished_at": NEW})
        assert (await pruned(harness))["quarantine"] == 1
        assert await ids(harness, "quarantine") == [2, 3]


async def test_history_is_deleted_only_on_request_and_current_versions_never(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        for name in ("second", "third"):
            harness.sandbox.update("SES1", name=name)
            await harness.one_pass()
        await harness.sql(f"UPDATE session_versions SET valid_from = '{OLD}', valid_to = '{OLD}' WHERE version = 1")
        assert "session_versions" not in await pruned(harness)
        assert (await pruned(harness, history=True))["session_versions"] == 1
        changes = await harness.sql(
            "SELECT name FROM chat_session_history WHERE session_id = 'SES1' ORDER BY valid_from"
        )
        assert [row["name"] for row in changes] == ["second", "third"]
        assert await harness.live() == harness.there()


async def test_mirror_and_queue_continue_after_a_prune(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=60) as harness:
        await harness.one_pass()
        await harness.enqueue(*({"kind": "delete", "session_id": f"SES{number}"} for number in range(1, 7)))
        await harness.push().drain()
        await harness.one_pass()
        await harness.sql(f"UPDATE operations SET finished_at = '{OLD}'")
        await harness.sql(f"UPDATE passes SET started_at = '{OLD}', finished_at = '{OLD}' WHERE id = 1")
        assert await pruned(harness, history=True) == {
            "operations": 6, "passes": 1, "quarantine": 0, "session_versions": 0,
        }  # fmt: skip
        written = await harness.sql("SELECT count(*) AS n FROM chat_session_history")
        assert (await harness.one_pass()).state == "complete"
        last = await harness.last_pass()
        assert (last["id"], last["seen"], last["unchanged"]) == (3, 54, 54)
        assert await harness.sql("SELECT count(*) AS n FROM chat_session_history") == written
        assert (await harness.enqueue({"kind": "delete", "session_id": "SES9"})) == [7]
        await harness.push().drain()
        assert await harness.live() == harness.there()


async def test_many_rows_are_deleted_in_short_transactions_and_changed_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        await insert(harness, "operations", *(operation("cancelled", OLD, name=f"n{number}") for number in range(10)))
        monkeypatch.setattr(pruning, "CHUNK", 3)
        write, sizes = harness.database.write, list[int]()
        reopen = "UPDATE operations SET finished_at = NULL, state = 'pending' WHERE id = 2"

        async def write_after_a_change(work: Any) -> int:
            if not sizes:
                await write(lambda connection: connection.exec_driver_sql(reopen).close())
            sizes.append(await write(work))
            return sizes[-1]

        monkeypatch.setattr(harness.database, "write", write_after_a_change)
        assert (await pruned(harness))["operations"] == 9
        assert sizes == [2, 3, 3, 1]
        assert await ids(harness, "operations") == [2]


async def test_prune_is_in_the_log_of_operator_actions_if_it_deleted_anything(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await pruned(harness)
        assert await harness.sql("SELECT * FROM operator_actions") == []
        await insert(harness, "operations", operation("cancelled", OLD), operation("succeeded", OLD))
        await pruned(harness)
        actions = await harness.sql("SELECT by, action, subject FROM operator_actions")
        assert actions == [{"by": "alice", "action": "prune", "subject": "rows older than 90d"}]


async def test_rows_are_needed_until_a_pass_has_compared_them_or_for_a_day_or_twice_the_grace(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        began = harness.clock.now()

        async def needed(grace: float = 120, settle: float = 60) -> timedelta:
            read = partial(needed_since, now=began, delete_grace=grace, settle=settle)
            return began - await harness.database.read(read)

        assert await needed() == timedelta(days=1)
        assert await needed(grace=100_000) == timedelta(seconds=200_000)
        assert await needed(settle=90_000) == timedelta(seconds=180_000)
        await harness.one_pass()
        assert await needed() == timedelta(seconds=120)
        assert await needed(settle=300) == timedelta(seconds=300)
        harness.sandbox.script("GET", BASE, 500, times=100)
        assert (await harness.one_pass()).state == "failed"
        assert await needed() == timedelta(seconds=120)


@pytest.mark.sqlite
def test_command_counts_before_it_deletes(syncd: Call, tmp_path: Path) -> None:
    assert syncd("migrate").code == 0
    syncd("enqueue", "delete", "--id", "SES1")
    syncd("operations", "cancel", "1")
    assert syncd("prune", "--older-than", "1d", "--json").data == {
        "dry_run": False, "deleted": {"operations": 0, "passes": 0, "quarantine": 0},
    }  # fmt: skip
    age(tmp_path)
    dry = syncd("prune", "--older-than", "36h", "--history", "--dry-run", "--json")
    counts = {"operations": 1, "passes": 0, "quarantine": 0, "session_versions": 0}
    assert dry.data == {"dry_run": True, "deleted": counts}
    assert "1 row would be deleted" in syncd("prune", "--older-than", "36h", "--dry-run").out
    done = syncd("prune", "--older-than", "36h", "--by", "alice")
    assert done.code == 0
    assert "operations         1 row deleted" in done.out
    assert syncd("operations", "list", "--json").data == []


def age(folder: Path) -> None:
    """Let the operations be of another year."""
    from contextlib import closing  # noqa: PLC0415

    from syncd.mirror.db.sqlite_module import sqlite3  # noqa: PLC0415 - one statement

    with closing(sqlite3.connect(folder / "syncd.db")) as connection, connection:
        connection.execute(f"UPDATE operations SET finished_at = '{OLD}'")


@pytest.mark.sqlite
@pytest.mark.parametrize(("arguments", "said"), [
    (["--older-than", "soon"], "such as 90d"), (["--older-than", "-1d"], "such as 90d"), ([], "--older-than"),
    (["--older-than", "9999999d"], "at most 36500d"), (["--older-than", "9" * 400], "at most 36500d"),
])  # fmt: skip
def test_age_that_is_unreadable_is_a_usage_error(syncd: Call, arguments: list[str], said: str) -> None:
    refused = syncd("prune", *arguments)
    assert refused.code == 2
    assert said in refused.err


@pytest.mark.sqlite
def test_row_that_passes_still_use_is_kept_whatever_the_age(syncd: Call) -> None:
    assert syncd("migrate").code == 0
    syncd("enqueue", "delete", "--id", "SES1")
    syncd("operations", "cancel", "1")
    young = syncd("prune", "--older-than", "0s")
    assert (young.code, "are kept, because passes still use them" in young.err) == (0, True)
    assert "operations         0 rows deleted" in young.out
    assert "are kept" not in syncd("prune", "--older-than", "2d").err


@pytest.mark.sqlite
def test_database_of_another_tenant_is_not_pruned(syncd: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    syncd("enqueue", "delete", "--id", "SES1")
    syncd("operations", "cancel", "1")
    age(tmp_path)
    monkeypatch.setenv("ALBERT_BASE_URL", "https://a.example")
    assert syncd("tenant", "accept").code == 0
    monkeypatch.setenv("ALBERT_BASE_URL", "https://b.example")
    refused = syncd("prune", "--older-than", "2d")
    assert refused.code == 2
    assert "https://a.example" in refused.err
    assert [row["id"] for row in json.loads(syncd("operations", "list", "--json").out)] == [1]
