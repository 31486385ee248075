"""`operations` is open to INSERT by any program: invalid rows are refused, valid ones are completed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.store import operations
from tests.helpers.harness import open_harness

pytestmark = pytest.mark.both_databases

CREATE = {"kind": "create", "source_session_id": "s", "name": "n"}
DELETE = {"kind": "delete", "session_id": "SES1"}


@pytest.fixture
def other(folder: Path) -> Iterator[sqlite3.Connection]:
    """Another program, with plain SQL."""
    connection = sqlite3.connect(folder / "syncd.db", isolation_level=None)
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def insert(other: sqlite3.Connection, row: dict[str, Any], how: str = "INSERT") -> dict[str, Any]:
    columns = ", ".join(row)
    marks = ", ".join("?" * len(row))
    other.execute(f"{how} INTO operations ({columns}) VALUES ({marks})", list(row.values()))
    return dict(other.execute("SELECT * FROM operations ORDER BY id DESC LIMIT 1").fetchone())


@pytest.mark.parametrize(
    "row",
    [
        CREATE,
        CREATE | {"parent_id": "FOL1", "requested_by": "me"},
        DELETE,
        {"kind": "delete", "source_session_id": "s"},
        {"kind": "update", "source_session_id": "s", "parent_id": ""},
        CREATE | {"source_session_id": "a/../b?c#d%2F ü"},
        CREATE | {"name": "x" * 1_000_000},
    ],
)
def test_valid_row_is_pending_with_all_defaults(other: sqlite3.Connection, row: dict[str, Any]) -> None:
    stored = insert(other, row)
    assert stored["id"] == 1
    assert (stored["state"], stored["attempts"], stored["fence"], stored["lookups"]) == ("pending", 0, 0, 0)
    assert datetime.fromisoformat(stored["requested_at"]).tzinfo is UTC or stored["requested_at"].endswith("Z")
    assert len(stored["requested_at"]) == 27
    assert stored["next_attempt_at"] is None


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "rename", "source_session_id": "s", "name": "n"},
        {"kind": "update", "source_session_id": "s"},
        {"kind": None, "source_session_id": "s", "name": "n"},
        {"source_session_id": "s", "name": "n"},
        {"kind": "create", "name": "n"},
        {"kind": "create", "source_session_id": "s"},
        CREATE | {"session_id": "SES1"},
        CREATE | {"name": ""},
        CREATE | {"source_session_id": ""},
        CREATE | {"source_session_id": "."},
        CREATE | {"source_session_id": ".."},
        {"kind": "delete"},
        {"kind": "delete", "session_id": ""},
        {"kind": "delete", "session_id": ".."},
        DELETE | {"source_session_id": "s"},
        CREATE | {"state": "done"},
        CREATE | {"state": "succeeded"},
        CREATE | {"finished_at": "2026-01-01T00:00:00.000000Z"},
        CREATE | {"attempts": -1},
        CREATE | {"attempts": "many"},
        CREATE | {"name": b"bytes"},
        CREATE | {"source_session_id": b"\xff"},
        CREATE | {"id": "one"},
        CREATE | {"not_before": "tomorrow"},
        CREATE | {"not_before": ""},
        CREATE | {"not_before": "2026-13-01T00:00:00Z"},
        CREATE | {"not_before": "2026-01-32"},
        CREATE | {"not_before": "2026-02-30T00:00:00.000000Z"},
        CREATE | {"not_before": "2026-02-30"},
        CREATE | {"not_before": "12:00"},
        CREATE | {"requested_at": "now"},
        CREATE | {"not_before": "2460000.5"},
        CREATE | {"not_before": b"2026-01-01"},
        CREATE | {"not_before": "0000-01-01T00:00:00.000000Z"},
        CREATE | {"not_before": "-0001-01-01T00:00:00.000000Z"},
        CREATE | {"not_before": 0},
        CREATE | {"not_before": "9999-12-31T23:59:59-05:00"},
        CREATE | {"requested_at": "now and then"},
        CREATE | {"requested_at": "0000-01-01"},
        CREATE | {"next_attempt_at": "soon"},
        CREATE | {"next_attempt_at": "2026-02-30T00:00:00.000000Z"},
        CREATE | {"lease_until": "2026-01-01"},
        CREATE | {"unknown_since": "0000-01-01T00:00:00.000000Z"},
        CREATE | {"state": "dead", "finished_at": "yesterday"},
    ],
    ids=str,
)
def test_invalid_row_is_refused(other: sqlite3.Connection, row: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(other, row)
    assert other.execute("SELECT count(*) FROM operations").fetchone()[0] == 0
    assert other.execute("SELECT count(*) FROM source_sessions").fetchone()[0] == 0


TIMES = {
    "2026-01-31T12:00:00.123456Z": "2026-01-31T12:00:00.123456Z",
    "2026-01-31T12:00:59.999999Z": "2026-01-31T12:00:59.999999Z",
    "2026-01-31T12:00:00Z": "2026-01-31T12:00:00.000000Z",
    "2026-01-31 12:00:00": "2026-01-31T12:00:00.000000Z",
    "2026-01-31 12:00": "2026-01-31T12:00:00.000000Z",
    "2026-01-31": "2026-01-31T00:00:00.000000Z",
    "2026-01-31T12:00:00+05:30": "2026-01-31T06:30:00.000000Z",
    "2026-01-31T12:00:00.5-08:00": "2026-01-31T20:00:00.500000Z",
    "2026-01-31T24:00:00.000000Z": "2026-02-01T00:00:00.000000Z",
}


@pytest.mark.parametrize(("given", "stored"), TIMES.items())
def test_time_in_another_format_is_stored_in_the_sortable_format(
    other: sqlite3.Connection, given: str, stored: str
) -> None:
    row = insert(other, CREATE | {"not_before": given, "requested_at": given})
    assert (row["not_before"], row["next_attempt_at"], row["requested_at"]) == (stored, stored, stored)


@pytest.mark.sqlite  # PostgreSQL's own type lets in what is a time, and nothing else
@pytest.mark.parametrize("given", TIMES)
async def test_queue_can_read_every_accepted_time(folder: Path, given: str) -> None:
    async with open_harness(folder) as harness:
        (row,) = await harness.sql(
            "INSERT INTO operations (kind, source_session_id, name, not_before, requested_at) "
            "VALUES ('create', 's', 'n', ?, ?) RETURNING id", given, given,
        )  # fmt: skip
        long_ago = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
        assert await harness.database.read(lambda c: operations.next_due(c, after=long_ago)) is not None
        assert (await harness.operation(row["id"]))["not_before"].tzinfo is not None
        await harness.push().drain()
        assert (await harness.operation(row["id"]))["state"] == "succeeded"


def test_insert_of_an_operation_adds_its_source_id(other: sqlite3.Connection) -> None:
    insert(other, CREATE)
    insert(other, DELETE)
    rows = [tuple(row) for row in other.execute("SELECT source_session_id, state FROM source_sessions")]
    assert rows == [("s", "unresolved")]


@pytest.mark.parametrize("how", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR ROLLBACK", "REPLACE"])
def test_insert_of_an_operation_does_not_change_an_existing_source_id(other: sqlite3.Connection, how: str) -> None:
    other.execute(
        "INSERT INTO source_sessions (source_session_id, state, session_id, note) VALUES ('s', 'linked', 'SES1', 'x')"
    )
    before = [tuple(row) for row in other.execute("SELECT * FROM source_sessions")]
    insert(other, CREATE, how)
    insert(other, {"kind": "delete", "source_session_id": "s"}, how)
    assert [tuple(row) for row in other.execute("SELECT * FROM source_sessions")] == before


@pytest.mark.parametrize(
    "row",
    [
        {"source_session_id": None},
        {"source_session_id": b"x"},
        {"source_session_id": "s", "state": "lost"},
        {"source_session_id": "s", "state": "linked"},
    ],
)
def test_invalid_row_of_a_source_id_is_refused(other: sqlite3.Connection, row: dict[str, Any]) -> None:
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    with pytest.raises(sqlite3.IntegrityError):
        other.execute(f"INSERT INTO source_sessions ({columns}) VALUES ({marks})", list(row.values()))


def test_ids_are_never_reused(other: sqlite3.Connection) -> None:
    first = insert(other, CREATE)["id"]
    other.execute("DELETE FROM operations")
    assert insert(other, CREATE)["id"] > first


async def test_every_source_id_of_a_live_session_is_linked(folder: Path) -> None:
    async with open_harness(folder, sessions=25) as harness:
        await harness.one_pass()
        rows = await harness.sql(
            "SELECT c.id FROM chat_sessions AS c LEFT JOIN source_sessions AS s USING (source_session_id) "
            "WHERE s.source_session_id IS NULL OR s.state <> 'linked' OR s.session_id <> c.id"
        )
        assert rows == []
        assert (
            await harness.database.read(lambda c: c.execute(sa.text("SELECT count(*) FROM source_sessions")).scalar())
            == 25
        )
