"""Rows that other programs insert with plain SQL: ids are data and not path syntax, and bad rows affect no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.helpers.harness import open_harness
from tests.push.helpers import create, finished, working

pytestmark = pytest.mark.both_databases

on_sqlite = pytest.mark.sqlite  # PostgreSQL refuses such text at the INSERT
HOSTILE = ("a\nb", "\x7f", "a\x85b", "x" * 2000, "日" * 700)
AWKWARD = (
    "a/../../../users/USR1", "%2e%2e", "%2F", "a b", "a?b#c", "häß/çø", "日本語", "..;/x", "~", "a%", "...", "+&=",
    "'\"",
)  # fmt: skip


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_empty_id_and_dots_are_refused_at_the_insert(tmp_path: Path, value: str) -> None:
    async with open_harness(tmp_path) as harness:
        for kind, column in (
            ("delete", "session_id"),
            ("delete", "source_session_id"),
            ("create", "source_session_id"),
        ):
            with pytest.raises(sa.exc.IntegrityError):
                await harness.sql(f"INSERT INTO operations (kind, {column}, name) VALUES (?, ?, 'n')", kind, value)


async def test_ids_that_can_never_be_sent_are_dead_and_the_others_go_on(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for value in (*HOSTILE, "a\x00b") if harness.database.dialect == "sqlite" else HOSTILE:
            await harness.sql("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, 'n')", value)
            await harness.sql("INSERT INTO operations (kind, session_id) VALUES ('delete', ?)", value)
            await harness.sql("INSERT INTO operations (kind, source_session_id) VALUES ('delete', ?)", value + "2")
        (good,) = await harness.enqueue(create())
        ids = [row["id"] for row in await harness.sql("SELECT id FROM operations")]
        async with working(harness.push()):
            rows = await finished(harness, *ids)
        assert {row["state"] for row in rows if row["id"] != good} == {"dead"}
        assert (await harness.operation(good))["state"] == "succeeded"
        assert len(harness.sandbox.requests) == 2


async def test_id_that_can_never_be_sent_is_dead_also_after_its_claim_was_lost(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        (number,) = await harness.enqueue(create(source_session_id="a\nb"))
        await harness.sql(
            "UPDATE operations SET state = 'unknown', attempts = 1, unknown_since = ? WHERE id = ?",
            "2026-06-01T12:00:00.000000Z", number,
        )  # fmt: skip
        async with working(harness.push()):
            (row,) = await finished(harness, number)
        assert (row["state"], len(harness.sandbox.requests)) == ("dead", 0)


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("value", AWKWARD)
async def test_awkward_id_is_one_encoded_segment_on_the_wire(tmp_path: Path, value: str) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, 'n')", value)
        await harness.sql("INSERT INTO operations (kind, session_id) VALUES ('delete', ?)", value)
        ids = [row["id"] for row in await harness.sql("SELECT id FROM operations")]
        async with working(harness.push()):
            rows = await finished(harness, *ids)
        assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
        assert harness.sandbox.live()[rows[0]["result_session_id"]]["sourceSessionId"] == value
        for request in harness.sandbox.requests:
            assert request.raw_path.startswith("/api/v3/chats/sessions")
            assert request.raw_path.count("/") <= (6 if "/source/" in request.raw_path else 5)
            assert "?" not in request.raw_path
            assert " " not in request.raw_path


@on_sqlite
@pytest.mark.parametrize(
    "columns",
    [
        {"kind": "'create'", "source_session_id": "CAST(x'ff41' AS TEXT)", "name": "'n'"},
        {"kind": "'create'", "source_session_id": "'s-bad'", "name": "CAST(x'ff' AS TEXT)"},
        {"kind": "'create'", "source_session_id": "'s-bad'", "name": "'n'", "parent_id": "CAST(x'c3' AS TEXT)"},
        {"kind": "'create'", "source_session_id": "'s-bad'", "name": "'a' || char(0)"},
        {"kind": "'delete'", "session_id": "CAST(x'ff' AS TEXT)"},
        {"kind": "'delete'", "source_session_id": "CAST(x'80' AS TEXT)"},
    ],
)
async def test_bytes_that_are_not_utf8_cost_their_own_row_only(tmp_path: Path, columns: dict[str, str]) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(f"INSERT INTO operations ({', '.join(columns)}) VALUES ({', '.join(columns.values())})")
        (good,) = await harness.enqueue(create())
        async with working(harness.push()):
            rows = await finished(harness, 1, good)
        assert [row["state"] for row in rows] == ["dead", "succeeded"]
        assert {path for path in harness.asked("GET") if "s-1" not in path} <= {"/api/v3/chats/sessions/source/s-bad"}
        assert len(harness.asked("POST")) == 1
        assert await harness.reconcile().run() == 0


@on_sqlite
@pytest.mark.parametrize("column", ["requested_by", "last_error", "lease_owner", "target_session_id"])
async def test_bytes_that_are_not_utf8_in_other_columns_do_not_affect_other_operations(
    tmp_path: Path, column: str
) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(
            f"INSERT INTO operations (kind, source_session_id, name, {column}) "
            "VALUES ('create', 's-bad', 'n', CAST(x'ff' AS TEXT))"
        )
        (good,) = await harness.enqueue(create())
        async with working(harness.push()):
            (row,) = await finished(harness, good)
        assert row["state"] == "succeeded"
        assert harness.named("loop.failed") == []
