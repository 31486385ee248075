"""The walk-through of CONTRIBUTING, "Add a field": its code, and its steps 1 and 2 on a field of every type.

The values are followed from the wire to the files of an export. One sample view stands for the four views of step 2.
"""

from __future__ import annotations

import importlib.util
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pyarrow import parquet

from syncd.albert import ChatSession
from syncd.files.exports import export, plan
from syncd.files.formats import Format
from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.read import catalog
from syncd.mirror.schema.tables import content_columns
from syncd.mirror.store import sessions
from syncd.mirror.store.sessions_postgresql import PostgresqlSessions
from syncd.mirror.store.sessions_sqlite import SqliteSessions
from syncd.records import fields
from syncd.records.fields import EXTRA, SESSIONS, FieldList, SessionRow
from tests.helpers.harness import Harness, open_harness
from tests.helpers.rows import SAMPLES
from tests.pull.helpers import Listing, counted, history, page, wire

pytestmark = pytest.mark.both_databases

NEW = [name for name in SAMPLES.columns if name not in SESSIONS.by_column]
ITEM: dict[str, Any] = wire(
    "A", label="ü", size=1.5, pinned=True, Meta={"tags": {"b": [1, 1.0], "a": None}, "archivedAt": "2026-06-01"}
)
STORED = {"label": "ü", "size": 1.5, "pinned": True, "tags": {"a": None, "b": [1, 1.0]}}
STORED_AT = "2026-06-01T00:00:00.000000Z"


def know(monkeypatch: pytest.MonkeyPatch, fields: FieldList[Any] = SAMPLES) -> None:
    """Step 1, one line for each field: the reader, the statements and the catalogue follow the list."""
    for module in ("syncd.pull.fetch", "syncd.pull.write_pages"):
        monkeypatch.setattr(f"{module}.SESSIONS", fields)
    statements: PerDialect[Any] = PerDialect(SqliteSessions(fields), PostgresqlSessions(fields))
    monkeypatch.setattr(sessions, "STATEMENTS", statements)
    view = sa.Table("sample_sessions", sa.MetaData(), *content_columns(fields))
    monkeypatch.setitem(catalog.VIEWS, view.name, view)
    monkeypatch.setattr(catalog, "EXPORTED", {view.name: fields.columns})


def migrate(connection: sa.Connection) -> None:
    """Step 2, the migration: two columns and the view for each field."""
    operations = Operations(MigrationContext.configure(connection))
    for table in ("sessions", "session_versions"):
        for column in content_columns(SAMPLES):
            if column.name in NEW:
                operations.add_column(table, column)
    operations.execute(
        f"CREATE VIEW sample_sessions AS SELECT {', '.join(SAMPLES.columns)} FROM sessions WHERE deleted_at IS NULL"
    )


async def _mirrored(harness: Harness) -> dict[str, Any]:
    (row,) = await harness.database.read(
        lambda c: list(c.execute(sa.select(catalog.VIEWS["sample_sessions"])).mappings())
    )
    return dict(row) | {"tags": None if row["tags"] is None else json.loads(row["tags"])}


async def test_new_field_of_each_type_has_its_value_in_its_column_and_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch)
    async with open_harness(tmp_path) as harness:
        await harness.database.write(migrate)
        listing = Listing(harness, {None: page(ITEM)})
        for changes in (1, 0):
            await harness.one_pass()
            row = await counted(harness)
            assert (row["inserted"], row["updated"]) == (changes, 0)
        mirrored = await _mirrored(harness)
        assert {name: mirrored[name] for name in STORED} == STORED
        assert mirrored["extra"] == "{}"
        changes_to: list[dict[str, Any]] = [
            {"label": "v"}, {"size": 2}, {"pinned": False}, {"Meta": {"tags": []}}, {"pinned": None},
        ]  # fmt: skip
        for change in changes_to:
            harness.clock.forward(60)
            listing.pages = {None: page(ITEM | change)}
            await harness.one_pass()
            assert (await counted(harness))["updated"] == 1
            mirrored = await _mirrored(harness)
            for name, value in (change | change.get("Meta", {})).items():
                assert name == "Meta" or mirrored[name] == value
        assert len(await history(harness, "A")) == 6


async def test_row_from_before_the_field_was_known_is_updated_by_the_first_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        Listing(harness, {None: page(ITEM, wire("B"))})
        await harness.one_pass()
        know(monkeypatch)
        await harness.database.write(migrate)
        await harness.one_pass()
        assert (await counted(harness))["updated"] == 1
        assert {row["label"] for row in await harness.sql("SELECT label FROM sample_sessions")} == {"ü", None}


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
async def test_export_writes_each_type_in_its_own_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    know(monkeypatch)
    async with open_harness(tmp_path) as harness:
        await harness.database.write(migrate)
        Listing(harness, {None: page(ITEM)})
        await harness.one_pass()
        planned = plan(tmp_path / "out", format, only=["sample_sessions"])
        await harness.database.read(
            lambda c: export(c, planned, now=harness.clock.now(), begin=lambda _: None, advance=lambda _: None)
        )
        path = tmp_path / "out" / f"sample_sessions.{format}"
        if format == "parquet":
            schema = parquet.read_schema(path)
            assert {name: str(schema.field(name).type) for name in NEW} == {
                "label": "string", "size": "double", "pinned": "bool", "tags": "string",
                "archived_at": "timestamp[us, tz=UTC]",
            }  # fmt: skip
            (row,) = parquet.read_table(path).to_pylist()
            assert {name: row[name] for name in STORED} == STORED | {"tags": row["tags"]}
            assert json.loads(row["tags"]) == STORED["tags"]
        elif format == "csv":
            assert '"{""a"":' in path.read_text()
            assert ",ü,1.5,true," in path.read_text()
        else:
            row = json.loads(path.read_text())
            assert {name: row[name] for name in STORED} == STORED | {"tags": row["tags"]}
            assert row["archived_at"] == STORED_AT


def load_generator() -> Any:
    """Load `docs/generate.py`, which is a script."""
    path = Path(__file__).resolve().parents[2] / "docs/generate.py"
    spec = importlib.util.spec_from_file_location("generate_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.sqlite  # no database is read
def test_new_field_of_each_type_is_a_row_of_the_schema_page(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch)
    examples = {name: field.wire.example for name, field in SAMPLES.by_column.items()}
    rows = load_generator()._relation(catalog.VIEWS["sample_sessions"], examples, None)
    assert "| `label` | TEXT | text | a text | `urgent` |" in rows
    assert "| `size` | REAL | double precision | a number | `1.5` |" in rows
    assert "| `pinned` | INTEGER | boolean | a boolean | `true` |" in rows
    assert '| `tags` | TEXT | jsonb | any JSON | `["a"]` |' in rows
    assert "| `archived_at` | TEXT | timestamptz | a time | `2026-06-01T10:30:00.000000Z` |" in rows


def _blocks() -> list[str]:
    """Return the code of the walk-through in CONTRIBUTING, with a field that no list can have."""
    page = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()
    section = page.partition("## Add a field")[2].replace("starred", "field_of_the_guide")
    return [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)]


async def test_line_and_migration_of_the_walk_through_make_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, migration, attribute = _blocks()
    item = wire("A", field_of_the_guide=True)
    space = {**vars(fields), "SessionRow": SessionRow}
    exec(f"class NewRow(SessionRow, frozen=True, gc=False):\n    {line.strip()}\n", space)  # noqa: S102 - our own
    exec(f"class NewSession(ChatSession):\n    {attribute}", model := {"ChatSession": ChatSession})  # noqa: S102 - our own
    assert model["NewSession"].model_validate(item).field_of_the_guide is True  # type: ignore[attr-defined]
    new: FieldList[Any] = FieldList(space["NewRow"], noun="session", indexed=("id", "source_session_id"))
    assert set(new.by_column) - set(SESSIONS.by_column) == {"field_of_the_guide"}
    async with open_harness(tmp_path) as harness:

        def upgrade(connection: sa.Connection) -> None:
            with Operations.context(MigrationContext.configure(connection)):
                exec(migration, module := {"sa": sa, "op": op})  # noqa: S102 - our own
                module["upgrade"]()  # type: ignore[operator]

        await harness.database.write(upgrade)
        know(monkeypatch, new)
        Listing(harness, {None: page(item, wire("B", field_of_the_guide=False), wire("C"))})
        await harness.one_pass()
        rows = await harness.sql(f"SELECT id, field_of_the_guide, {EXTRA} FROM sessions ORDER BY id")
        assert [(row["id"], row["field_of_the_guide"], row[EXTRA]) for row in rows] == [
            ("A", True, "{}"), ("B", False, "{}"), ("C", None, "{}"),
        ]  # fmt: skip
