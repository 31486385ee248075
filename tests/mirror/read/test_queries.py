"""The ten questions, asked of a mirrored sandbox, against answers computed from the sandbox's own data."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.read.queries import QUERIES, SINCE, Dialect
from syncd.sandbox import Habits
from tests.helpers.harness import World, world
from tests.helpers.sample_history import HOSTILE, Scene, moment, play

pytestmark = pytest.mark.both_databases

BY_NAME = {query.name: query for query in QUERIES}
Rows = list[dict[str, Any]]


def dialect_of(w: World) -> Dialect:
    return "postgresql" if w.database.dialect == "postgresql" else "sqlite"


async def ask(w: World, name: str, *, since: str = SINCE) -> Rows:
    text = BY_NAME[name].sql(dialect_of(w), since=since)

    def work(connection: sa.Connection) -> Rows:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TIME ZONE 'UTC'")
        return [dict(row) for row in connection.exec_driver_sql(text).mappings()]

    return await w.database.read(work)


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[tuple[World, Scene]]:
    async with world(folder, sessions=60, habits=Habits(page_size=25)) as w:
        yield w, await play(w)


async def test_freshness_names_the_last_pass_and_counts_what_there_is(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, scene):
        (row,) = await ask(w, "freshness")
        assert moment(row["last_complete_pass_at"]) == scene.moments[-1]
        assert row["age_seconds"] == pytest.approx((datetime.now(UTC) - scene.moments[-1]).total_seconds(), abs=30)
        assert row["live_sessions"] == len(w.sandbox.live())
        assert row["deleted_sessions"] == 2


async def test_sessions_per_day_count_creations_by_utc_day(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, _):
        rows = await ask(w, "sessions_per_day")
        expected = Counter(wire["Created"]["at"][:10] for wire in w.sandbox.live().values())
        assert {str(row["day"]): row["sessions"] for row in rows} == expected
        days = [date.fromisoformat(str(row["day"])) for row in rows]
        assert days == sorted(days, reverse=True)


async def test_sessions_per_creator_count_by_user_id(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, _):
        rows = await ask(w, "sessions_per_creator")
        assert {row["created_by"]: row["sessions"] for row in rows} == Counter(
            wire["Created"]["by"] for wire in w.sandbox.live().values()
        )
        names = {wire["Created"]["by"]: wire["Created"]["byName"] for wire in w.sandbox.live().values()}
        assert {row["created_by"]: row["name"] for row in rows} == names


async def test_sessions_per_folder_count_those_without_one_too(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, _):
        rows = await ask(w, "sessions_per_folder")
        expected = Counter(wire.get("parentId") for wire in w.sandbox.live().values())
        assert {row["parent_id"]: row["sessions"] for row in rows} == expected
        assert expected[None] > 0


async def test_renamed_sessions_are_told_with_both_names_each_time(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, scene):
        rows = await ask(w, "renamed_sessions")
        found = {(row["session_id"], row["old_name"], row["new_name"]) for row in rows}
        assert found == {
            ("SES1", scene.old_names["SES1"], HOSTILE),
            ("SES2", scene.old_names["SES2"], "renamed once"),
            ("SES2", "renamed once", "renamed twice"),
        }
        assert len(rows) == 3


async def test_deleted_last_week_leaves_out_what_was_deleted_before(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, scene):
        (row,) = await ask(w, "deleted_last_week")
        assert row["id"] == "SES6"
        assert moment(row["deleted_at"]) == scene.moments[-1]


async def test_stale_sessions_are_those_without_a_message_for_90_days(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, _):
        rows = await ask(w, "stale_sessions")
        limit = datetime.now(UTC) - timedelta(days=90)
        expected = {one for one, wire in w.sandbox.live().items() if moment(wire["lastMessageAt"]) < limit}
        assert {row["id"] for row in rows} == expected
        assert 0 < len(expected) < len(w.sandbox.live())


async def test_duplicate_sources_name_each_session_that_shares_one(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, scene):
        assert [row["id"] for row in await ask(w, "duplicate_sources")] == scene.duplicates


async def test_changed_since_tells_every_version_from_that_moment_on(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, scene):
        since = f"'{scene.moments[1]:%Y-%m-%dT%H:%M:%S.%fZ}'"
        found = {(row["session_id"], row["change"]) for row in await ask(w, "changed_since", since=since)}
        created = next(one for one, wire in w.sandbox.live().items() if wire["sourceSessionId"] == "from-queue")
        last_day = {("SES2", "updated"), ("SES6", "deleted"), (created, "created")}
        assert last_day <= found
        assert len(await ask(w, "changed_since", since="'2000-01-01T00:00:00.000000Z'")) == len(
            await w.sql("SELECT session_id FROM chat_session_history")
        )


async def test_time_in_state_adds_up_the_days_between_versions(tmp_path: Path) -> None:
    async with played(tmp_path) as (w, _):
        rows = {row["state"]: row for row in await ask(w, "time_in_state")}
        assert rows["deleted"]["sessions"] == 2
        assert rows["deleted"]["longest_days"] == pytest.approx(9, abs=0.05)
        assert rows["deleted"]["average_days"] == pytest.approx((9 + 2) / 2, abs=0.05)
        ever_active = [wire for wire in w.sandbox.live().values() if wire["status"] == "active"]
        assert rows["active"]["sessions"] == len(ever_active) + 3  # and the two deleted, and the one made inactive
        assert rows["active"]["longest_days"] == pytest.approx(10, abs=0.05)
