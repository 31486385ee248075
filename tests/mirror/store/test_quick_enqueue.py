"""`syncd enqueue` and `syncd operations list` without SQLAlchemy: the same rows, and None for any other mirror."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema.revisions import REVISIONS
from syncd.mirror.store import bare_sqlite, operation_views, operations, quick_enqueue
from syncd.mirror.store.import_plan import enqueue_all
from syncd.records.ids import OperationId
from syncd.records.operation_kinds import CONTENT_COLUMNS
from syncd.rules.identity import Identity
from tests.helpers import empty_mirror
from tests.helpers.harness import Harness, open_harness

A, B = Identity("https://a.example", "TEN1"), Identity("https://b.example", "TEN2")
DELETE = {"kind": "delete", "session_id": "SES1", "requested_by": "alice"}
AT = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create an empty mirror in the mode of one that was used."""
    path = tmp_path / "syncd.db"
    empty_mirror.create(path)
    execute(path, "PRAGMA journal_mode=WAL")
    return path


def execute(path: Path, *statements: str) -> list[Any]:
    rows: list[Any] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def queued(path: Path) -> int:
    return int(execute(path, "SELECT count(*) FROM operations")[0][0])


async def everything(harness: Harness) -> list[dict[str, Any]]:
    return await harness.database.read(lambda c: operation_views.listing(c, state=None, limit=9))


async def test_operation_is_queued_as_the_general_way_queues_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        database = f"sqlite+aiosqlite:///{harness.database.path}"
        assert quick_enqueue.enqueue(database, DELETE, A) == 1
        assert await harness.database.write(lambda c: operations.enqueue(c, [DELETE])) == [2]
        second, first = await everything(harness)
        assert second.pop("blocked_by") == first["id"]
        assert first.pop("blocked_by") is None
        for name in ("id", "requested_at"):
            assert first.pop(name) < second.pop(name)
        assert first == second


@pytest.mark.parametrize(
    "options",
    [{"state": None, "limit": 9}, {"state": "dead", "limit": 9}, {"state": None, "limit": 1},
     {"state": None, "limit": 9, "on_hold": True}],
    ids=str,
)  # fmt: skip
async def test_operations_are_listed_as_the_general_way_lists_them(tmp_path: Path, options: dict[str, Any]) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(DELETE, DELETE, DELETE, {"kind": "create", "source_session_id": "s", "name": "n"})
        await harness.sql(f"UPDATE operations SET state = 'dead', finished_at = '{AT}' WHERE id = 1")
        await harness.sql(f"UPDATE operations SET on_hold_at = '{AT}' WHERE id = 2")
        await harness.sql("UPDATE operations SET name = CAST(x'ff41' AS TEXT), next_attempt_at = 'soon' WHERE id = 4")
        listed = operation_views.listing_of(f"sqlite+aiosqlite:///{harness.database.path}", **options)
        assert listed == await harness.database.read(lambda c: operation_views.listing(c, **options))
        assert listed


@pytest.mark.parametrize(
    "change",
    [
        f"INSERT INTO mirror_identity (id, copied_at) VALUES (1, '{AT}')",
        f"INSERT INTO mirror_identity (id, moved_to, moved_at) VALUES (1, 'sqlite:///b.db', '{AT}')",
        f"INSERT INTO mirror_identity (id, origin, tenant_id) VALUES (1, '{B.origin}', '{B.tenant_id}')",
        f"UPDATE alembic_version SET version_num = '{REVISIONS[-2]}'",
        "DROP TABLE alembic_version",
        "PRAGMA journal_mode=DELETE",
        "CREATE TRIGGER t BEFORE INSERT ON operations BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "CREATE TRIGGER t BEFORE INSERT ON operations BEGIN SELECT RAISE(IGNORE); END",
    ],
    ids=["copy", "moved", "other tenant", "older", "foreign", "no WAL", "refused by a trigger", "ignored by one"],
)
def test_mirror_that_needs_something_before_its_use_is_left_to_the_general_way(file: Path, change: str) -> None:
    execute(file, change)
    assert quick_enqueue.enqueue(url(file), DELETE, A) is None
    assert queued(file) == 0


@pytest.mark.parametrize("identity", [None, A, Identity(A.origin), Identity(None, "ten1")], ids=str)
def test_mirror_of_the_named_tenant_is_written_to(file: Path, identity: Identity | None) -> None:
    if identity is not None:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(
                "INSERT INTO mirror_identity (id, origin, tenant_id) VALUES (1, ?, ?)",
                (identity.origin, identity.tenant_id),
            )
    assert quick_enqueue.enqueue(url(file), DELETE, A) == 1
    assert queued(file) == 1


def test_operation_that_the_schema_refuses_is_left_to_the_general_way(file: Path) -> None:
    assert quick_enqueue.enqueue(url(file), {"kind": "delete"}, A) is None
    assert queued(file) == 0


def test_file_that_another_program_holds_is_left_to_the_general_way(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bare_sqlite, "LOCK_SECONDS", 0)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert quick_enqueue.enqueue(url(file), DELETE, A) is None
        assert operation_views.listing_of(url(file), state=None, limit=9) == []


@pytest.mark.parametrize("name", ["none.db", "text.db", "folder", "syncd.db?mode=ro", "impossible\0name"])
def test_url_of_no_mirror_is_left_to_the_general_way(file: Path, name: str) -> None:
    (file.parent / "text.db").write_text("not a database")
    (file.parent / "folder").mkdir()
    assert quick_enqueue.enqueue(url(file.parent / name), DELETE, A) is None
    assert operation_views.listing_of(url(file.parent / name), state=None, limit=9) is None
    assert not (file.parent / "none.db").exists()


def test_other_kind_of_database_is_left_to_the_general_way() -> None:
    for database in ("postgresql+asyncpg://stranger@127.0.0.1:9/none", "postgresql+asyncpg:///none"):
        assert quick_enqueue.enqueue(database, DELETE, A) is None
        assert operation_views.listing_of(database, state=None, limit=9) is None


def test_file_that_is_replaced_before_the_commit_gets_nothing(file: Path) -> None:
    def work(connection: sqlite3.Connection) -> OperationId:
        connection.execute("INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1')")
        file.rename(file.with_name("moved.db"))
        return OperationId(1)

    assert bare_sqlite.write(url(file), work) is None
    Path(f"{file}-wal").unlink(missing_ok=True)
    assert queued(file.with_name("moved.db")) == 0


def test_file_that_is_replaced_during_the_commit_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = iter([(1, 1), (1, 1), (1, 2)])
    monkeypatch.setattr(sqlite_file, "identity", lambda _: next(identities))
    with pytest.raises(DatabaseReplacedError, match="was replaced or removed"):
        quick_enqueue.enqueue(url(file), DELETE, A)


async def test_row_that_a_trigger_ignores_is_an_error(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql("CREATE TRIGGER t BEFORE INSERT ON operations BEGIN SELECT RAISE(IGNORE); END")
        with pytest.raises(DatabaseUnusableError, match="nothing was queued"):
            await harness.enqueue(DELETE)


async def test_operation_with_a_time_that_another_program_wrote_can_be_listed(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue(DELETE, DELETE)
        await harness.sql("UPDATE operations SET not_before = '9999-12-31T23:59:59-10:00' WHERE id = 1")
        assert [row["not_before"] for row in await everything(harness)] == [None, None]


async def test_file_of_operations_of_which_a_trigger_ignores_one_is_not_queued(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(
            "CREATE TRIGGER t BEFORE INSERT ON operations WHEN NEW.session_id = 'SES2' BEGIN SELECT RAISE(IGNORE); END"
        )
        rows = [dict.fromkeys(CONTENT_COLUMNS) | DELETE | {"session_id": f"SES{number}"} for number in (1, 2)]
        with pytest.raises(DatabaseUnusableError, match="nothing was queued"):
            await harness.database.write(lambda c: enqueue_all(c, rows))
        assert await everything(harness) == []
