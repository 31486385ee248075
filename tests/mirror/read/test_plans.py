"""The plans of the questions: full scans read a table in its order, and points are found by an index.

The planner of SQLite does not look at the data unless ANALYZE has run, so that an empty mirror shows the plans of a
full one. PostgreSQL prefers a scan of a small table; without scans it shows whether an index can answer.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncd.mirror.read.queries import Dialect, Query
from syncd.mirror.read.questions import QUERIES
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

POINTS = {"history_of_a_session", "changes_since"}
LARGE = re.compile(r"\b(s|v|sessions|session_versions|operations)\b")
FRESHNESS = "SELECT * FROM mirror_freshness"


async def plan(harness: Harness, statement: str, *, scans: bool = True) -> list[str]:
    """Return the lines of a plan; with `scans=False` PostgreSQL uses an index wherever one fits."""

    def work(connection: sa.Connection) -> list[str]:
        if connection.dialect.name == "sqlite":
            return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
        if not scans:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        return [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}")]

    return await harness.database.read(work)


def dialect_of(harness: Harness) -> Dialect:
    return "postgresql" if harness.database.dialect == "postgresql" else "sqlite"


def scanned(line: str) -> bool:
    """Return whether a line reads every row of a large table."""
    match = re.search(r"SCAN (\w+)$|Seq Scan on (\w+)", line.strip())
    return match is not None and LARGE.fullmatch(match[1] or match[2]) is not None


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
async def test_question_reads_no_table_in_the_order_of_an_index(tmp_path: Path, query: Query) -> None:
    async with open_harness(tmp_path) as harness:
        lines = await plan(harness, query.sql(dialect_of(harness)))
        for line in lines:
            assert not re.search(r"SCAN \w+ USING INDEX", line), line  # a covering index is smaller than its table
        if "chat_folders" not in query.template:
            assert not any("folders" in line for line in lines)


@pytest.mark.parametrize("name", sorted(POINTS))
async def test_history_of_a_session_and_changes_since_a_number_are_found_by_an_index(tmp_path: Path, name: str) -> None:
    (query,) = (candidate for candidate in QUERIES if candidate.name == name)
    async with open_harness(tmp_path) as harness:
        lines = await plan(harness, query.sql(dialect_of(harness)), scans=False)
        assert not any(map(scanned, lines)), lines
        column = {"history_of_a_session": "id", "changes_since": "seq"}[name]
        assert len([line for line in lines if re.search(rf"(Index Cond: |INDEX \w+ )\(+\w*\.?{column}\b", line)]) == 2


@pytest.mark.parametrize(
    "statement",
    [
        FRESHNESS,
        "SELECT name FROM chat_sessions WHERE id = 'SES1'",
        "SELECT name FROM chat_sessions WHERE source_session_id = 's'",
        "SELECT id FROM chat_sessions_all WHERE deleted_at >= '2026-06-01T00:00:00.000000Z'",
    ],
)
async def test_point_is_read_without_a_scan(tmp_path: Path, statement: str) -> None:
    async with open_harness(tmp_path) as harness:
        lines = await plan(harness, statement, scans=False)
        assert not any(map(scanned, lines)), lines


@pytest.mark.sqlite
async def test_feed_is_read_in_its_order_without_sorting(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for where in ("WHERE seq > 5 ORDER BY seq", "ORDER BY seq DESC LIMIT 100"):
            lines = await plan(harness, f"SELECT * FROM chat_session_changes {where}")
            assert lines[0] == "MERGE (UNION ALL)"
            assert not any("TEMP B-TREE" in line for line in lines)


async def test_folder_is_looked_up_only_where_its_columns_are_read(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for view in ("chat_sessions", "chat_sessions_all"):
            counted = await plan(harness, f"SELECT kind, count(*) FROM {view} GROUP BY kind")
            assert not any(re.search(r"\b(f|folders)\b", line) for line in counted), counted
            named = await plan(harness, f"SELECT folder_name, count(*) FROM {view} GROUP BY folder_name")
            assert any(re.search(r"\b(f|folders)\b", line) for line in named), named
