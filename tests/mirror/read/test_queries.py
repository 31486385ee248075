"""The twenty questions, asked of a mirrored sandbox, and answered a second time from the sandbox's own data."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.read.queries import Dialect
from syncd.mirror.read.questions import QUERIES
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.helpers.sample_history import HOSTILE, History, make_history, moment

pytestmark = pytest.mark.both_databases

BY_NAME = {query.name: query for query in QUERIES}
Rows = list[dict[str, Any]]
Wire = dict[str, Any]


def dialect_of(harness: Harness) -> Dialect:
    return "postgresql" if harness.database.dialect == "postgresql" else "sqlite"


async def ask(harness: Harness, name: str, **values: str) -> Rows:
    """Ask a question on a connection of another time zone: no answer may depend on that."""
    text = BY_NAME[name].sql(dialect_of(harness), **values)

    def work(connection: sa.Connection) -> Rows:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'Asia/Kolkata'")
        return [dict(row) for row in connection.exec_driver_sql(text).mappings()]

    return await harness.database.read(work)


def literal(at: datetime) -> str:
    return f"'{at:%Y-%m-%dT%H:%M:%S.%fZ}'"


@asynccontextmanager
async def open_with_history(folder: Path) -> AsyncIterator[tuple[Harness, History]]:
    async with open_harness(folder, sessions=60, habits=Habits(page_size=25, extra_fields=True)) as harness:
        yield harness, await make_history(harness)


def everyone(harness: Harness, history: History) -> list[Wire]:
    return [*harness.sandbox.live().values(), *history.deleted.values()]


def people(wires: list[Wire], key: Callable[[Wire], Hashable]) -> dict[Hashable, tuple[int, int]]:
    """Count sessions, and the people who created them, by a key."""
    groups = defaultdict(list)
    for wire in wires:
        groups[key(wire)].append(wire["Created"]["by"])
    return {name: (len(by), len(set(by))) for name, by in groups.items()}


async def test_adoption_counts_sessions_and_people_by_the_week_of_their_creation(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):

        def monday(wire: Wire) -> str:
            created = moment(wire["Created"]["at"]).date()
            return str(created - timedelta(days=created.weekday()))

        rows = await ask(harness, "adoption_by_week")
        assert {row["week"]: (row["sessions"], row["people"]) for row in rows} == people(
            everyone(harness, history), monday
        )


async def test_active_users_are_counted_by_the_month_of_the_last_message(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        rows = await ask(harness, "active_users")
        expected = people(everyone(harness, history), lambda wire: wire["lastMessageAt"][:7])
        assert {row["month"]: (row["sessions"], row["people"]) for row in rows} == expected


async def test_retention_counts_each_person_of_a_cohort_once_a_month(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        months = defaultdict(set)
        for wire in everyone(harness, history):
            months[wire["Created"]["by"]].add(wire["Created"]["at"][:7])
        expected = Counter((min(active), month) for active in months.values() for month in active)
        rows = await ask(harness, "retention")
        assert {(row["cohort"], row["month"]): row["people"] for row in rows} == expected


async def test_sessions_per_folder_count_those_without_one_too(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "sessions_per_folder")
        expected = Counter(wire.get("parentId") for wire in harness.sandbox.live().values())
        assert {row["parent_id"]: row["sessions"] for row in rows} == expected
        assert expected[None] > 0


async def test_automation_and_chat_are_counted_by_month(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        rows = await ask(harness, "automation_and_chat")
        expected = people(everyone(harness, history), lambda wire: (wire["Created"]["at"][:7], wire["kind"]))
        assert {(row["month"], row["kind"]): (row["sessions"], row["people"]) for row in rows} == expected


async def test_duration_is_the_time_from_creation_to_the_last_message(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        minutes = defaultdict(list)
        for wire in harness.sandbox.live().values():
            span = moment(wire["lastMessageAt"]) - moment(wire["Created"]["at"])
            minutes[wire["kind"]].append(span.total_seconds() / 60)
        rows = await ask(harness, "duration")
        assert {row["kind"] for row in rows} == minutes.keys()
        for row in rows:
            own = minutes[row["kind"]]
            assert row["sessions"] == len(own)
            assert row["average_minutes"] == pytest.approx(sum(own) / len(own), abs=0.51)
            assert row["under_5_minutes"] == sum(duration < 5 for duration in own)
            assert row["under_an_hour"] == sum(5 <= duration < 60 for duration in own)
            assert row["under_a_day"] == sum(60 <= duration < 1440 for duration in own)
            assert row["a_day_or_more"] == sum(duration >= 1440 for duration in own)


async def test_renamed_sessions_are_listed_with_both_names_each_time(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        rows = await ask(harness, "renamed_sessions")
        renames = {(row["session_id"], row["old_name"], row["new_name"]) for row in rows}
        assert renames == {
            ("SES1", history.old_names["SES1"], HOSTILE),
            ("SES2", history.old_names["SES2"], "renamed once"),
            ("SES2", "renamed once", "renamed twice"),
        }
        assert len(rows) == 3


async def test_deleted_sessions_exclude_those_deleted_before_the_moment(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        (row,) = await ask(harness, "deleted_sessions", since=literal(history.moments[-1]))
        assert row["id"] == "SES6"
        assert moment(row["deleted_at"]) == history.moments[-1]
        assert len(await ask(harness, "deleted_sessions", since=literal(history.moments[0]))) == 2


async def test_stale_sessions_are_those_without_a_message_since_the_moment(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        limit = datetime.now(UTC) - timedelta(days=400)
        rows = await ask(harness, "stale_sessions", since=literal(limit))
        expected = {
            session_id for session_id, wire in harness.sandbox.live().items() if moment(wire["lastMessageAt"]) < limit
        }
        assert {row["id"] for row in rows} == expected
        assert 0 < len(expected) < len(harness.sandbox.live())


async def test_growth_adds_up_to_the_live_sessions(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "growth")
        expected = Counter(wire["Created"]["at"][:10] for wire in harness.sandbox.live().values())
        assert {row["created_date"]: row["created"] for row in rows} == expected
        assert rows[-1]["sessions"] == len(harness.sandbox.live())


async def test_top_creators_are_counted_by_user_id(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "top_creators")
        wires = harness.sandbox.live().values()
        assert {row["created_by"]: row["sessions"] for row in rows} == Counter(wire["Created"]["by"] for wire in wires)
        names = {wire["Created"]["by"]: wire["Created"]["byName"] for wire in wires}
        assert {row["created_by"]: row["name"] for row in rows} == names


async def test_alive_on_a_date_knows_the_time_before_the_first_pass(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        at = datetime(2025, 1, 1, tzinfo=UTC)
        rows = await ask(harness, "alive_on_a_date", since=literal(at))
        expected = Counter(wire["kind"] for wire in everyone(harness, history) if moment(wire["Created"]["at"]) <= at)
        assert {row["kind"]: row["sessions"] for row in rows} == expected
        assert 0 < expected.total() < 60


async def test_as_of_counts_are_those_of_the_versions_of_the_moment(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        counts = [
            sum(row["sessions"] for row in await ask(harness, "as_of_counts", since=literal(at)))
            for at in history.moments
        ]
        assert counts == [60, 60, 60]  # one deleted and one created on the second and on the third day
        before = await ask(harness, "as_of_counts", since=literal(history.moments[0] - timedelta(microseconds=1)))
        assert before == []
        rows = await ask(harness, "as_of_counts", since=literal(history.moments[-1]))
        expected = Counter((wire["status"], wire["kind"]) for wire in harness.sandbox.live().values())
        assert {(row["status"], row["kind"]): row["sessions"] for row in rows} == expected


async def test_duplicate_sources_name_each_session_that_shares_one(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        assert [row["id"] for row in await ask(harness, "duplicate_sources")] == history.duplicates


async def test_funnel_counts_people_by_the_sessions_that_they_created(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        created = Counter(wire["Created"]["by"] for wire in everyone(harness, history)).values()
        (row,) = await ask(harness, "funnel")
        assert row == {
            "people": len(created), **{f"at_least_{n}": sum(count >= n for count in created) for n in (2, 10, 100)},
        }  # fmt: skip


async def test_heat_map_counts_last_messages_by_utc_weekday_and_hour(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "heat_map")
        times = [moment(wire["lastMessageAt"]) for wire in harness.sandbox.live().values()]
        expected = Counter((at.isoweekday() % 7, at.hour) for at in times)
        assert {(row["weekday"], row["hour"]): row["sessions"] for row in rows} == expected


async def test_history_of_a_session_lists_its_versions_from_the_oldest(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, history):
        rows = await ask(harness, "history_of_a_session", session_id="'SES2'")
        assert [row["name"] for row in rows] == [history.old_names["SES2"], "renamed once", "renamed twice"]
        assert [row["valid_to"] for row in rows] == [rows[1]["valid_from"], rows[2]["valid_from"], None]
        assert json.loads(rows[0]["changed_fields"]) == []
        assert "name" in json.loads(rows[1]["changed_fields"])


async def test_changes_since_tell_every_version_after_the_last_look(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "changes_since")
        assert len(rows) == len(await harness.sql("SELECT session_id FROM chat_session_history"))
        half = rows[len(rows) // 2]["seq"]
        later = await ask(harness, "changes_since", seq=str(half))
        assert later == [row for row in rows if row["seq"] > half]
        assert await ask(harness, "changes_since", seq=str(rows[-1]["seq"])) == []
        assert {("SES6", "deleted"), ("SES2", "updated")} <= {(row["session_id"], row["change"]) for row in later}


async def test_name_search_finds_names_in_any_case(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "name_search", text="'GLOSS'")
        expected = {
            session_id for session_id, wire in harness.sandbox.live().items() if "gloss" in wire["name"].lower()
        }
        assert {row["id"] for row in rows} == expected
        assert expected


async def test_search_in_extra_finds_sessions_with_an_unknown_field(tmp_path: Path) -> None:
    async with open_with_history(tmp_path) as (harness, _):
        rows = await ask(harness, "search_in_extra", text="'\"pinned\"'")
        expected = {session_id for session_id, wire in harness.sandbox.live().items() if "pinned" in wire}
        assert {row["id"] for row in rows} == expected
        assert expected


def test_three_questions_at_most_need_a_text_for_each_database() -> None:
    assert {query.name for query in QUERIES if not query.portable} == {"adoption_by_week", "duration", "heat_map"}
    assert len(BY_NAME) == len(QUERIES) == 20
