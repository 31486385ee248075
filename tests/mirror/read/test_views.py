"""The views of analysts, read after a history that the sandbox has played."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from anyio import to_thread

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.read import catalog, views
from syncd.mirror.schema.types import Boolean
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.helpers.sample_history import make_history

pytestmark = pytest.mark.both_databases


async def changes(harness: Harness, since: int = 0) -> list[dict[str, Any]]:
    return await harness.sql(f"SELECT * FROM chat_session_changes WHERE seq > {since} ORDER BY seq")


async def test_change_feed_has_each_version_once_and_each_session_in_its_order(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=20, habits=Habits(page_size=7)) as harness:
        await make_history(harness)
        rows = await changes(harness)
        assert len({row["seq"] for row in rows}) == len(rows)
        history = await harness.sql("SELECT session_id, valid_from FROM chat_session_history")
        assert Counter((row["session_id"], row["valid_from"]) for row in rows) == Counter(map(_key, history))
        last: dict[str, Any] = {}
        for row in rows:
            assert last.get(row["session_id"], row["valid_from"]) == row["valid_from"]
            last[row["session_id"]] = row["valid_to"]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["session_id"], row["valid_from"]


async def test_changed_fields_are_those_that_differ_from_the_version_before(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.update("SES1", name="renamed", parent_id="FOL-NEW")
        harness.sandbox.update(
            "SES2", lastMessageAt="2027-01-01T00:00:00.000Z", Updated={"at": "2027-01-01T00:00:00.000Z"}
        )
        await harness.one_pass()
        fields = {row["session_id"]: set(json.loads(row["changed_fields"])) for row in await changes(harness, since=3)}
        assert fields.keys() == {"SES1", "SES2"}
        assert fields["SES1"] >= {"name", "parent_id"}
        assert not fields["SES1"] & {"id", "status", "last_message_at", "extra"}
        assert "last_message_at" in fields["SES2"]
        assert not fields["SES2"] & {"name", "parent_id"}


async def test_deleted_and_restored_sessions_are_versions_of_the_feed(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        wire = harness.sandbox.delete("SES2")
        await harness.one_pass()
        harness.clock.forward(3600)
        harness.sandbox.create(source_session_id=wire["sourceSessionId"], id="SES2", name="back")
        await harness.one_pass()
        (deleted, restored) = await changes(harness, since=3)
        assert (deleted["session_id"], deleted["change"], deleted["changed_fields"]) == ("SES2", "deleted", "[]")
        assert (restored["session_id"], restored["change"], restored["name"]) == ("SES2", "restored", "back")
        assert "name" in json.loads(restored["changed_fields"])


async def test_tombstone_is_not_missing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES2")
        await harness.one_pass()
        (row,) = await harness.sql("SELECT missing_since, deleted_at FROM chat_sessions_all WHERE id = 'SES2'")
        assert row["missing_since"] is None
        assert row["deleted_at"] is not None
        (fresh,) = await harness.sql("SELECT missing_sessions, deleted_sessions, live_sessions FROM mirror_freshness")
        assert fresh == {"missing_sessions": 0, "deleted_sessions": 1, "live_sessions": 2}


async def test_dates_are_utc_dates_as_text(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        harness.sandbox.update("SES1", lastMessageAt="2027-01-01T00:30:00+02:00")
        harness.sandbox.update("SES2", lastMessageAt=None)
        await harness.one_pass()
        harness.sandbox.update("SES3", lastMessageAt="2028-02-29T23:59:59.999999Z")
        await harness.one_pass()
        rows = await harness.sql("SELECT id, created_date, last_message_date FROM chat_sessions ORDER BY id")
        assert [row["last_message_date"] for row in rows] == ["2026-12-31", None, "2028-02-29"]
        assert [row["created_date"] for row in rows] == [
            wire["Created"]["at"][:10] for _, wire in sorted(harness.sandbox.live().items())
        ]


async def test_listed_pass_counts_as_listed_although_it_is_not_complete(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        times = ", ".join(f"'2026-06-01T12:0{minute}:00.000000Z'" for minute in range(3))
        await harness.sql(
            f"INSERT INTO passes (state, started_at, finished_at, listed_at) VALUES ('complete', {times})"
        )
        await harness.sql(
            "INSERT INTO passes (state, started_at, finished_at, listed_at) VALUES ('partial', "
            "'2026-06-01T13:00:00.000000Z', '2026-06-01T13:01:00.000000Z', '2026-06-01T13:02:00.000000Z')"
        )
        await harness.sql(
            "INSERT INTO passes (state, started_at, finished_at) VALUES ('failed', "
            "'2026-06-01T14:00:00.000000Z', '2026-06-01T14:01:00.000000Z')"
        )
        (row,) = await harness.sql("SELECT * FROM mirror_freshness")
        assert str(row["last_complete_pass_at"]) == "2026-06-01T12:01:00.000000Z"
        assert str(row["last_listed_at"]) == "2026-06-01T13:02:00.000000Z"
        assert 0 < row["listed_age_seconds"] < row["age_seconds"]


async def test_age_of_a_pass_that_ended_before_the_clock_was_set_back_is_zero(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=1) as harness:
        await harness.one_pass()
        await harness.sql(
            "UPDATE passes SET finished_at = '2999-01-01T00:00:00.000000Z', listed_at = '2999-01-01T00:00:00Z'"
        )
        (row,) = await harness.sql("SELECT * FROM mirror_freshness")
        assert (row["age_seconds"], row["listed_age_seconds"]) == (0, 0)
        url = harness.database.url.render_as_string(hide_password=False)
        bare = await to_thread.run_sync(views.overview_of, url)
        assert bare is not None
        for fresh in ((await harness.database.read(views.overview))["freshness"], bare["freshness"]):
            assert (fresh["age_seconds"], fresh["listed_age_seconds"]) == (0, 0)
            assert fresh["last_complete_pass_at"].year == 2999


async def test_operations_on_hold_and_unlisted_sessions_are_counted(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        await harness.enqueue(*({"kind": "delete", "session_id": f"SES{n}"} for n in range(1, 4)))
        hold = "UPDATE operations SET on_hold_at = requested_at"
        await harness.sql(f"{hold} WHERE session_id <> 'SES1'")
        await harness.sql(
            "UPDATE operations SET state = 'cancelled', finished_at = requested_at WHERE session_id = 'SES2'"
        )
        await harness.sql("UPDATE sessions SET unlisted_alive_at = first_seen_at WHERE id = 'SES3'")
        (row,) = await harness.sql("SELECT operations_on_hold, unlisted_alive_sessions FROM mirror_freshness")
        assert row == {"operations_on_hold": 1, "unlisted_alive_sessions": 1}


async def test_daily_counts_add_up(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
        harness.sandbox.update("SES8", kind="automation", lastMessageAt="2027-01-01T00:00:00Z")
        await harness.one_pass()
        rows = await harness.sql("SELECT * FROM chat_sessions_daily ORDER BY kind, date")
        running: Counter[str] = Counter()
        for row in rows:
            running[row["kind"]] += row["created"] - row["deleted"]
            assert row["live"] == running[row["kind"]], row
        live = await harness.sql("SELECT kind, count(*) AS n FROM chat_sessions GROUP BY kind")
        assert running == {row["kind"]: row["n"] for row in live}
        everyone = await harness.sql("SELECT * FROM chat_sessions_all")
        assert sum(row["created"] for row in rows) == len(everyone)
        assert sum(row["deleted"] for row in rows) == 2
        created = Counter((row["created_date"], row["kind"]) for row in everyone)
        assert {(row["date"], row["kind"]): row["created"] for row in rows if row["created"]} == created
        versions = await harness.sql("SELECT session_id, last_message_at FROM chat_session_history")
        active = {(row["session_id"], str(row["last_message_at"])[:10]) for row in versions}
        assert sum(row["active"] for row in rows) == len(active)
        assert len(active) > len(everyone), "no session has messages on two dates"


async def test_session_created_later_than_it_was_seen_counts_when_it_was_seen(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=2) as harness:
        harness.sandbox.update("SES1", Created={"at": "2099-01-01T00:00:00Z"}, lastMessageAt=None)
        harness.sandbox.update("SES2", Created=None, lastMessageAt=None)
        await harness.one_pass()
        rows = await harness.sql(
            "SELECT date, sum(created) AS created, max(live) AS live FROM chat_sessions_daily GROUP BY 1"
        )
        assert [(row["date"], int(row["created"])) for row in rows] == [("2026-06-01", 2)]


AT = "2026-06-01T12:00:00.000000Z"
FOLDERS = (
    ("FOL1", "Lab", "root", None, "Lab", AT, AT, None),
    ("FOL2", "x", "child", "FOL1", "Lab / x", AT, AT, None),
    ("FOL3", "gone", "child", "FOL1", "Lab / gone", AT, AT, AT),
)


async def test_sessions_have_the_name_and_path_of_their_folder(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=4) as harness:
        for number, folder in enumerate(("FOL1", "FOL2", "FOL3", None), 1):
            harness.sandbox.update(f"SES{number}", parent_id=folder)
        await harness.one_pass()
        columns = "id, name, type, parent_id, path, first_seen_at, changed_at, deleted_at"
        for row in FOLDERS:
            marks = ", ".join("?" for _ in row)
            await harness.sql(f"INSERT INTO folders ({columns}) VALUES ({marks})", *row)
        for view in ("chat_sessions", "chat_sessions_all"):
            rows = await harness.sql(f"SELECT id, folder_name, folder_path FROM {view} ORDER BY id")
            assert [tuple(row.values()) for row in rows] == [
                ("SES1", "Lab", "Lab"), ("SES2", "x", "Lab / x"), ("SES3", None, None), ("SES4", None, None),
            ]  # fmt: skip
        assert [row["id"] for row in await harness.sql("SELECT id FROM chat_folders ORDER BY id")] == ["FOL1", "FOL2"]


@pytest.mark.sqlite
async def test_every_column_of_a_view_has_a_declared_type(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for view in catalog.VIEWS.values():
            rows = await harness.sql(f"SELECT name, type FROM pragma_table_info('{view.name}')")
            kinds = {row["name"]: row["type"] for row in rows}
            if sqlite3.sqlite_version_info < (3, 41):  # an older SQLite declares no type for a CAST
                kinds = {name: kind for name, kind in kinds.items() if kind}
                assert {"folder_name", "created_date", "missing_since"}.intersection(view.c.keys()) <= kinds.keys()
            for name, kind in kinds.items():
                declared = view.c[name].type
                is_integer = isinstance(declared, sa.Integer | Boolean)
                expected = "REAL" if isinstance(declared, sa.Float) else "INT" if is_integer else "TEXT"
                assert kind.startswith(expected), (view.name, name, kind)
