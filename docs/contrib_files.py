"""Ready-made content for other tools, made from the questions and the views. `docs.generate` writes it.

- `contrib/metabase`: each question as SQL with Metabase's variables.
- `contrib/dbt/models/sources.yml`: the views as dbt sources, with their descriptions and tests.
- `config/grafana-analysts.json`: a dashboard on PostgreSQL.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from syncd.mirror.read import catalog
from syncd.mirror.read.questions import QUERIES

if TYPE_CHECKING:
    from pathlib import Path

    from syncd.mirror.read.queries import Dialect, Query

METABASE_HEAD = """-- {question}
-- {about}
-- Written by make docs from syncd/mirror/read/questions.py.
"""
SOURCES_HEAD = """# Written by make docs from syncd/mirror/read/catalog.py.
version: 2
sources:
  - name: syncd
    description: The mirror of Albert's chat sessions.
    schema: "{{ var('syncd_schema', 'public') }}"
    tables:
"""
UNIQUE = ("not_null", "unique")
TESTS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("chat_sessions", "id"): UNIQUE,
    ("chat_sessions", "name"): ("not_null",),
    ("chat_sessions", "source_session_id"): ("not_null",),
    ("chat_sessions_all", "id"): UNIQUE,
    ("chat_session_history", "session_id"): ("not_null", {"relationships": ("chat_sessions_all", "id")}),
    ("chat_session_history", "change"): ({"accepted_values": ("created", "updated", "deleted", "restored")},),
    ("chat_session_changes", "seq"): UNIQUE,
    ("chat_session_changes", "session_id"): ("not_null", {"relationships": ("chat_sessions_all", "id")}),
    ("chat_sessions_daily", "date"): ("not_null",),
    ("chat_folders", "id"): UNIQUE,
    ("chat_folders", "path"): ("not_null",),
    ("passes", "id"): UNIQUE,
    ("passes", "state"): ({"accepted_values": ("running", "complete", "partial", "failed", "held")},),
    ("source_sessions", "source_session_id"): UNIQUE,
    ("source_sessions", "state"): ({"accepted_values": ("unresolved", "linked", "missing", "conflict")},),
}
"""The dbt tests of columns; a pair in `relationships` is a table and its column."""
PANELS = (
    ("adoption_by_week", "barchart", 12),
    ("active_users", "barchart", 12),
    ("sessions_per_folder", "barchart", 12),
    ("top_creators", "barchart", 12),
    ("automation_and_chat", "table", 12),
    ("duration", "table", 12),
    ("funnel", "table", 12),
    ("heat_map", "table", 12),
    ("renamed_sessions", "table", 12),
    ("deleted_sessions", "table", 12),
    ("stale_sessions", "table", 24),
)
"""The questions on the dashboard, the kind of their panel, and its width of 24."""
DAILY = """
SELECT CAST(date AS timestamp) AS time, kind AS metric, {column} AS value
FROM chat_sessions_daily
WHERE date BETWEEN substr($__timeFrom(), 1, 10) AND substr($__timeTo(), 1, 10)
ORDER BY 1
""".strip()
FRESHNESS = "SELECT age_seconds, live_sessions, deleted_sessions, missing_sessions FROM mirror_freshness"
DATASOURCE = {"type": "grafana-postgresql-datasource", "uid": "${datasource}"}


def files(root: Path) -> dict[Path, str]:
    """Return the text of each file."""
    dialects: tuple[Dialect, ...] = ("sqlite", "postgresql")
    questions = {
        root / "contrib" / "metabase" / dialect / f"{number:02}_{query.name}.sql": _metabase_question(query, dialect)
        for dialect in dialects
        for number, query in enumerate(QUERIES, start=1)
    }
    return questions | {
        root / "contrib" / "dbt" / "models" / "sources.yml": _sources(),
        root / "config" / "grafana-analysts.json": json.dumps(_dashboard(), indent=2) + "\n",
    }


def _metabase_question(query: Query, dialect: Dialect) -> str:
    """Return a question with Metabase's variables: text variables, which PostgreSQL needs the types of."""
    types = {"since": "CAST({} AS timestamptz)", "seq": "CAST({} AS bigint)"} if dialect == "postgresql" else {}
    values = {name: types.get(name, "{}").format("{{" + name + "}}") for name in query.parameters}
    head = METABASE_HEAD.format(question=query.question, about=query.about.replace("`", ""))
    return f"{head}{query.sql(dialect, **values)};\n"


def _sources() -> str:
    lines = [SOURCES_HEAD.rstrip()]
    for name, table in (catalog.VIEWS | catalog.TABLES).items():
        lines += [f"      - name: {name}", f"        description: {json.dumps(table.comment)}", "        columns:"]
        for column in catalog.columns(name):
            lines += [f"          - name: {column.name}", f"            description: {json.dumps(column.comment)}"]
            if tests := TESTS.get((name, column.name)):
                lines.append("            data_tests:")
                lines += [line for test in tests for line in _dbt_test(test)]
    return "\n".join(lines) + "\n"


def _dbt_test(test: Any) -> list[str]:  # noqa: ANN401 - a name, or a name with arguments
    if isinstance(test, str):
        return [f"              - {test}"]
    ((name, arguments),) = test.items()
    if name == "relationships":
        given = {"to": f"\"source('syncd', '{arguments[0]}')\"", "field": arguments[1]}
    else:
        given = {"values": json.dumps(list(arguments))}
    return [
        f"              - {name}:",
        "                  arguments:",
        *(f"                    {key}: {value}" for key, value in given.items()),
    ]


def _dashboard() -> dict[str, Any]:
    by_name = {query.name: query for query in QUERIES}
    panels = [
        _panel("Freshness", "stat", FRESHNESS, 24, 4, "table"),
        _panel("Live sessions", "timeseries", DAILY.format(column="live"), 12, 8, "time_series"),
        _panel("Sessions with a message on the day", "timeseries", DAILY.format(column="active"), 12, 8, "time_series"),
        *(
            _panel(by_name[name].question, kind, by_name[name].sql("postgresql", since="$__timeFrom()"), width, 8)
            for name, kind, width in PANELS
        ),
    ]
    x = y = 0
    for number, panel in enumerate(panels, 1):
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        panel["id"], panel["gridPos"]["x"], panel["gridPos"]["y"] = number, x, y
        x += width
        if x >= 24:  # noqa: PLR2004 - the columns of Grafana's grid
            x, y = 0, y + height
    return {
        "title": "Albert chat sessions",
        "uid": "syncd-analysts",
        "tags": ["syncd"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "5m",
        "time": {"from": "now-90d", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "grafana-postgresql-datasource",
                    "label": "PostgreSQL",
                }
            ]
        },
        "panels": panels,
    }


def _panel(title: str, kind: str, sql: str, width: int, height: int, format: str = "table") -> dict[str, Any]:
    target = {"refId": "A", "datasource": DATASOURCE, "format": format, "rawQuery": True, "rawSql": sql}
    return {
        "title": title,
        "type": kind,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": [target],
    }
