"""A pass over unchanged sessions changes only its own rows, and each changed field makes a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.store import pages
from syncd.mirror.store.pages import unchanged
from syncd.pull import write_pages
from syncd.records.parse import read_page
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.pull.helpers import Listing, counted, dump, history, page, wire

pytestmark = pytest.mark.both_databases


async def pragma(harness: Harness, name: str) -> int:
    return int(await harness.database.write(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar_one()))


@pytest.mark.sqlite  # it uses a function or a pragma of SQLite
async def test_pass_over_unchanged_sessions_writes_no_session_and_no_history(folder: Path) -> None:
    async with open_harness(folder, sessions=250, habits=Habits(page_size=50, extra_fields=True)) as harness:
        await harness.one_pass()
        before = await dump(harness)
        changes = await harness.database.write(lambda c: c.execute(sa.text("SELECT total_changes()")).scalar_one())
        for _ in range(3):
            harness.clock.forward(300)
            assert (await harness.one_pass()).state == "complete"
            row = await counted(harness)
            assert (row["seen"], row["unchanged"]) == (250, 250)
        assert await dump(harness) == before
        after = await harness.database.write(lambda c: c.execute(sa.text("SELECT total_changes()")).scalar_one())
        # A pass inserts its row, writes five pages and five counts, ends, and deletes five pages of the last pass.
        assert after - changes <= 3 * (1 + 5 + 5 + 1 + 5)


@pytest.mark.slow
@pytest.mark.sqlite  # it uses a function or a pragma of SQLite
async def test_file_does_not_grow_with_unchanged_passes(folder: Path) -> None:
    async with open_harness(folder, sessions=500, habits=Habits(page_size=100)) as harness:
        await harness.one_pass()
        await harness.one_pass()
        size = await pragma(harness, "page_count")
        for _ in range(20):
            harness.clock.forward(300)
            await harness.one_pass()
        assert await pragma(harness, "page_count") <= size + 1  # twenty rows of `passes` may need a page more
        assert [row["n"] for row in await harness.sql("SELECT count(*) AS n FROM pages")] == [5]


def _backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _backwards(value[key]) for key in reversed(value)}
    return value


async def test_order_of_json_keys_does_not_count_as_a_change(folder: Path) -> None:
    async with open_harness(folder) as harness:
        item = wire(
            "A", zeta={"b": [1, {"y": 1, "x": 2}], "a": None}, alpha=1.5, Created={"at": "2026", "by": "U", "q": 1}
        )
        listing = Listing(harness, {None: page(item)})
        await harness.one_pass()
        before = await dump(harness)
        backwards = _backwards(item)
        assert json.dumps(backwards) != json.dumps(item)
        listing.pages = {None: page(backwards)}
        await harness.one_pass()
        assert await dump(harness) == before
        assert (await counted(harness))["unchanged"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"parentId": "FOL1"},
        {"sourceSessionId": "other"},
        {"status": "archived"},
        {"kind": "agent"},
        {"automationId": "AUT1"},
        {"automationRunId": "RUN1"},
        {"lastMessageAt": "2026-01-02T00:00:00Z"},
        {"Created": {"by": "USR9"}},
        {"Updated": {"by": "USR1", "byName": "Ada", "at": "2026-01-01T00:01:00Z"}},
        {"pinned": False},
        {"pinned": None},
    ],
    ids=json.dumps,
)
async def test_each_field_counts_as_a_change_and_makes_one_version(folder: Path, change: dict[str, Any]) -> None:
    async with open_harness(folder) as harness:
        listing = Listing(harness, {None: page(wire("A"), wire("B"))})
        await harness.one_pass()
        harness.clock.forward(60)
        listing.pages = {None: page(wire("A") | change, wire("B"))}
        await harness.one_pass()
        row = await counted(harness)
        assert (row["updated"], row["unchanged"]) == (1, 1)
        assert [version["change"] for version in await history(harness, "A")] == ["created", "updated"]
        assert [version["change"] for version in await history(harness, "B")] == ["created"]
        (changed_at,) = await harness.sql("SELECT changed_at, first_seen_at FROM chat_sessions WHERE id = 'A'")
        assert changed_at == {
            "changed_at": "2026-06-01T12:01:00.000000Z",
            "first_seen_at": "2026-06-01T12:00:00.000000Z",
        }


async def test_extra_has_the_unknown_fields_and_is_an_empty_object_without_any(folder: Path) -> None:
    async with open_harness(folder) as harness:
        Listing(
            harness,
            {None: page(wire("A"), wire("B", z=1, a={"d": [True, None], "c": "ü"}), wire("C", lastMessageAt="soon"))},
        )
        await harness.one_pass()
        rows = await harness.sql("SELECT extra, last_message_at FROM chat_sessions ORDER BY id")
        assert [json.loads(row["extra"]) for row in rows] == [
            {},
            {"a": {"c": "ü", "d": [True, None]}, "z": 1},
            {"lastMessageAt": "soon"},
        ]
        assert rows[2]["last_message_at"] is None
        (stored,) = await harness.sql("SELECT id FROM chat_sessions WHERE extra -> 'a' ->> 'c' = 'ü'")
        assert stored == {"id": "B"}


async def test_views_have_the_documented_columns(folder: Path) -> None:
    content = [
        "id",
        "name",
        "parent_id",
        "source_session_id",
        "status",
        "kind",
        "automation_id",
        "automation_run_id",
        "last_message_at",
        "created_by",
        "created_by_name",
        "created_at",
        "updated_by",
        "updated_by_name",
        "updated_at",
        "extra",
        "first_seen_at",
        "changed_at",
    ]
    history_first = ["session_id", "change", "valid_from", "valid_to", "pass_id"]
    async with open_harness(folder) as harness:

        async def columns(name: str) -> list[str]:
            query = f"SELECT * FROM {name} LIMIT 0"
            return await harness.database.read(lambda c: list(c.exec_driver_sql(query).keys()))

        later: list[str] = []  # the columns of fields that were added since the first release
        ends = ["folder_name", "folder_path", "created_date", "last_message_date", *later]
        assert await columns("chat_sessions") == [*content, *ends]
        assert await columns("chat_sessions_all") == [*content, "missing_since", "deleted_at", *ends]
        assert await columns("chat_session_history") == [*history_first, *content, *later]
        assert await columns("chat_session_changes") == ["seq", "changed_fields", *history_first, *content, *later]
        assert await columns("chat_sessions_daily") == ["date", "kind", "live", "created", "deleted", "active"]
        assert await columns("chat_folders") == [
            "id", "name", "parent_id", "type", "path", "created_at", "updated_at", "extra", "first_seen_at",
            "changed_at",
        ]  # fmt: skip
        assert await columns("mirror_freshness") == [
            "last_complete_pass_at", "age_seconds", "live_sessions", "deleted_sessions", "missing_sessions",
            "quarantined_items", "operations_pending", "operations_unknown", "operations_dead", "held_pass_id",
            "last_listed_at", "listed_age_seconds", "operations_on_hold", "unlisted_alive_sessions",
        ]  # fmt: skip
        public = [
            "id",
            "state",
            "started_at",
            "finished_at",
            "pages",
            "seen",
            "inserted",
            "updated",
            "unchanged",
            "restored",
            "missing",
            "deleted",
            "quarantined",
            "error",
        ]
        assert [name for name in await columns("passes") if name in public] == public
        assert {"id", "pass_id", "session_id", "reason", "payload", "seen_at", "resolved_at"} <= set(
            await columns("quarantine")
        )


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many pages were checked at once, for each check."""
    sizes = []

    def check(connection: Any, read: Any, suspects: Any) -> bool:
        sizes.append(len(read))
        return unchanged(connection, read, suspects)

    monkeypatch.setattr(pages, "unchanged", check)
    return sizes


async def test_only_the_page_whose_session_changed_in_the_mirror_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, checked: list[int]
) -> None:
    reads = []

    def read(body: bytes, fields: Any) -> Any:
        reads.append(body)
        return read_page(body, fields)

    monkeypatch.setattr(write_pages, "read_page", read)
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A"), key="1"), "1": page(wire("B"), key="2"), "2": page(wire("C"))})
        await harness.one_pass()
        await harness.one_pass()
        assert (checked, reads) == ([3], [])
        await harness.sql("UPDATE sessions SET version = version + 1, name = 'other' WHERE id = 'B'")
        await harness.one_pass()
        assert (checked, len(reads)) == ([3, 3, 1, 1, 1], 1)
        row = await counted(harness)
        assert (row["seen"], row["updated"], row["unchanged"]) == (3, 1, 2)
        assert (await harness.live())["B"] == "name of B"


async def test_session_on_two_unchanged_pages_counts_once(folder: Path, checked: list[int]) -> None:
    async with open_harness(folder) as harness:
        Listing(harness, {None: page(wire("A"), wire("B"), key="1"), "1": page(wire("B"), wire("C"))})
        for unchanged_sessions in (0, 3):
            await harness.one_pass()
            row = await counted(harness)
            assert (row["pages"], row["seen"], row["unchanged"]) == (2, 3, unchanged_sessions)
        assert checked == [2, 1, 1]  # together the answer is no
