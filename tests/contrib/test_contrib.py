"""The SQL of the ready-made content runs on a mirrored sandbox: Metabase's questions, dbt's tests, Grafana's panels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.mirror.read import catalog
from syncd.mirror.read.queries import EXAMPLES, Dialect
from syncd.mirror.read.questions import QUERIES
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.helpers.programs import ROOT
from tests.helpers.sample_history import make_history

pytestmark = pytest.mark.both_databases

DBT = ROOT / "contrib" / "dbt"
SOURCES: list[dict[str, Any]] = yaml.safe_load((DBT / "models" / "sources.yml").read_text())["sources"][0]["tables"]
SINGULAR = sorted((DBT / "tests").glob("*.sql"))
DASHBOARD = json.loads((ROOT / "config" / "grafana-analysts.json").read_text())
Rows = list[dict[str, Any]]


def dialect_of(harness: Harness) -> Dialect:
    return "postgresql" if harness.database.dialect == "postgresql" else "sqlite"


async def select(harness: Harness, statement: str) -> Rows:
    """Run a text that may begin with comments or WITH."""
    return await harness.database.read(lambda c: [dict(row) for row in c.exec_driver_sql(statement).mappings()])


async def test_each_metabase_question_returns_the_rows_of_the_question(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25, extra_fields=True)) as harness:
        await make_history(harness)
        files = sorted((ROOT / "contrib" / "metabase" / dialect_of(harness)).glob("*.sql"))
        assert len(files) == len(QUERIES)
        for file, query in zip(files, QUERIES, strict=True):
            text = file.read_text(encoding="utf-8")
            assert set(re.findall(r"\{\{(\w+)\}\}", text)) == set(query.parameters)
            # Metabase passes the text of a variable as a value.
            filled = re.sub(r"\{\{(\w+)\}\}", lambda match: f"'{EXAMPLES[match[1]].strip(chr(39))}'", text)
            if dialect_of(harness) == "sqlite":
                filled = filled.replace("seq > '0'", "seq > 0")
            assert await select(harness, filled.rstrip().rstrip(";")) == await select(
                harness, query.sql(dialect_of(harness))
            ), file.name


def rendered(text: str) -> str:
    """Fill in the few expressions that the package uses."""
    text = re.sub(r"\{\{ source\('syncd', '(\w+)'\) \}\}", r"\1", text)
    text = re.sub(r"\{\{ var\('\w+', (\d+)\) \}\}", r"\1", text)
    assert "{{" not in text
    return text


def generic(table: str, column: str, test: Any) -> str:
    """Return the SQL of one of dbt's own tests; its rows are failures."""
    name, arguments = (test, {}) if isinstance(test, str) else next(iter(test.items()))
    arguments = arguments.get("arguments", {})
    if name == "not_null":
        return f"SELECT * FROM {table} WHERE {column} IS NULL"
    if name == "unique":
        return f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL GROUP BY {column} HAVING count(*) > 1"
    if name == "accepted_values":
        values = ", ".join(f"'{value}'" for value in arguments["values"])
        return f"SELECT {column} FROM {table} WHERE {column} NOT IN ({values})"
    assert name == "relationships"
    (parent,) = re.findall(r"^source\('syncd', '(\w+)'\)$", arguments["to"])
    return (
        f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL "
        f"AND {column} NOT IN (SELECT {arguments['field']} FROM {parent})"
    )


def dbt_tests() -> dict[str, str]:
    statements = {
        f"{table['name']}.{column['name']} {test}": generic(table["name"], column["name"], test)
        for table in SOURCES
        for column in table["columns"]
        for test in column.get("data_tests", ())
    }
    return statements | {file.stem: rendered(file.read_text(encoding="utf-8")) for file in SINGULAR}


def test_sources_name_every_column_that_is_promised() -> None:
    assert {table["name"]: [column["name"] for column in table["columns"]] for table in SOURCES} == {
        name: list(columns) for name, columns in catalog.EXPORTED.items()
    }


BROKEN = {
    "assert_mirror_is_fresh": "UPDATE passes SET finished_at = '2020-01-01T00:00:00.000000Z' WHERE state = 'complete'",
    "assert_versions_follow_each_other": "DELETE FROM session_versions WHERE version = 2",
    "assert_live_sessions_are_their_current_versions": "UPDATE mirror_totals SET live_sessions = live_sessions + 1",
}


async def test_dbt_tests_pass_on_a_mirror_and_fail_on_a_broken_one(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
        await harness.folders().run()
        tests = dbt_tests()
        assert len(tests) == 26
        for name, statement in tests.items():
            if name != "assert_mirror_is_fresh":  # the age is by the database's clock, and the harness has another
                assert await select(harness, statement) == [], name
        now = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')" if dialect_of(harness) == "sqlite" else "now()"
        await harness.sql(f"UPDATE passes SET finished_at = {now} WHERE state = 'complete'")
        assert await select(harness, tests["assert_mirror_is_fresh"]) == []
        assert BROKEN.keys() == {file.stem for file in SINGULAR}
        for name, statement in BROKEN.items():
            await harness.sql(statement)
            assert await select(harness, tests[name]), name


@pytest.mark.sqlite  # it names its database itself: the dashboard is for PostgreSQL
async def test_every_panel_of_the_dashboard_has_an_answer(tmp_path: Path, postgres_url: str) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25), url=postgres_url) as harness:
        await make_history(harness)
        assert len(DASHBOARD["panels"]) == 14
        for panel in DASHBOARD["panels"]:
            (target,) = panel["targets"]
            # Grafana writes the ends of the chosen time as literals.
            text = target["rawSql"].replace("$__timeFrom()", "'2026-01-02T00:00:00Z'")
            rows = await select(harness, text.replace("$__timeTo()", "'2027-01-01T00:00:00Z'"))
            assert rows, panel["title"]
            if target["format"] == "time_series":
                assert rows[0].keys() == {"time", "metric", "value"}


def test_panels_fill_the_grid_without_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
