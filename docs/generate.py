"""Write the pages that are made from the code, or compare them (`--check`).

`docs/schema.md`, `docs/queries.md`, the table of problems in `docs/operations.md`, and the files of `contrib_files`.

Meanings are the comments of `syncd/mirror/schema/tables`. Examples are read through the views from a database that the
migrations created and that accepted the rows below. An example that the schema would refuse cannot be written.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from docs import contrib_files as contrib
from docs import mutants, problems
from syncd.clock import read_utc_text
from syncd.mirror.db.database import Database
from syncd.mirror.read import catalog
from syncd.mirror.read.questions import QUERIES
from syncd.mirror.schema import migrate, tables
from syncd.mirror.store.pages import pack
from syncd.records.fields import FOLDERS, SESSIONS, FieldList, FieldType

HERE = Path(__file__).resolve().parent
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
LONGEST_EXAMPLE = 48
CLOCK = {"age_seconds": "93.217", "listed_age_seconds": "99.108"}
"""Examples of ages, which the database calculates from its clock."""

SCHEMA_HEAD = """# The tables and views of the mirror

`make docs` writes this page from the code, and a test compares them.

Read the **views**. Their names and columns are stable: a change of them is a breaking change. The **tables** of the
second part are stable too, except for the columns marked *internal*. Other programs may insert into two of them. The
**internal tables** of the third part may change with any release. The version of the schema is in `alembic_version`.

All times are UTC. On SQLite they are text in one fixed form (`2026-06-01T12:00:00.000000Z`), in which the order of
texts is the order of times. On PostgreSQL they are `timestamptz`. On PostgreSQL the meanings are also the `COMMENT`s of
the views and columns (`\\d+`).
"""
QUERIES_HEAD = """# Twenty questions

`make docs` writes this page from `syncd/mirror/read/questions.py`, and tests run each query. A query that is shown once
runs on SQLite and on PostgreSQL. `syncd browse` contains all of them, and
[contrib/metabase](../contrib/metabase/README.md) has them as files for Metabase. [schema.md](schema.md) explains each
column. [reading.md](reading.md) explains how to connect, how to write a moment for each tool, and for which moments the
history is exact.

## Reading changes in a job

A job that copies changes elsewhere reads the view `chat_session_changes` and stores the highest `seq` that it has
processed. Each version of a session has one number, in the order of commits, with any number of replicas. A reader that
continues after its highest number misses no version and reads none twice.

```python
import json
import sqlite3
from contextlib import closing
from pathlib import Path

state = Path("last-seq.json")
last = json.loads(state.read_text()) if state.exists() else 0
query = (
    "SELECT seq, session_id, change, changed_fields FROM chat_session_changes WHERE seq > ? ORDER BY seq LIMIT 10000"
)
with closing(sqlite3.connect("file:syncd.db?mode=ro", uri=True)) as mirror:
    changes = mirror.execute(query, (last,)).fetchall()
for seq, session_id, change, changed_fields in changes:
    print(seq, session_id, change, json.loads(changed_fields))  # your work, which may see a change again after a crash
    last = seq
state.write_text(json.dumps(last))
```

- If the target is a database, write `last` in the same transaction as the changes. Then no change is applied twice.
- On PostgreSQL the query is the same, with `$1` or `%s` in place of `?`.
- `syncd export changes --format jsonl --since 0` writes the same rows to a file. The number for the next `--since` is
  `last_seq` in `syncd-export.json`.
- `seq` has gaps, and it is not a time. The numbers of two databases are not comparable, but a move between SQLite and
  PostgreSQL keeps them. After an older backup was restored, read the feed again from 0.
- `changed_fields` is `[]` for `created` and `deleted`. More than half of the versions `updated` are only new messages.
  `changed_fields LIKE '%"name"%'` finds the renamed sessions, `'%"parent_id"%'` the moved ones.
- Pruning the history also removes versions from the feed.
"""


def _at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def _examples_of(fields: FieldList[Any]) -> dict[str, Any]:
    """Return the example of each field as a value for SQLAlchemy."""
    types: dict[FieldType, Callable[[str], Any]] = {
        FieldType.TIME: read_utc_text,
        FieldType.NUMBER: float,
        FieldType.BOOLEAN: "true".__eq__,
    }
    return {name: types.get(one.type, str)(one.wire.example) for name, one in fields.by_column.items()}


_FIRST = {**_examples_of(SESSIONS), "change": "updated", "valid_from": _at(1), "pass_id": 2}
_ADA = {name: _FIRST[name] for name in ("created_by", "created_by_name", "created_at")}
_DONE = {"state": "succeeded", "attempts": 1, "last_status": 201, "finished_at": _at(2), "fence": 1}
ROWS: dict[sa.Table, list[dict[str, Any]]] = {
    tables.sessions: [
        {"key": 1, **_FIRST, "version": 2, "first_seen_at": NOON, "seq": 3, "changed_fields": '["name"]',
         "created_date": "2026-06-01", "last_message_date": "2026-06-01"},
        {
            "key": 2, "id": "SES2", "name": "Compare epoxy resins", "source_session_id": "lab-7", **_ADA, "version": 2,
            "change": "deleted", "valid_from": _at(5), "first_seen_at": NOON, "observed_at": _at(0.5),
            "absences": 2, "absence_pass_id": 2, "deleted_at": _at(5), "seq": 4,
        },
        {
            "key": 3, "id": "SES3", "name": "Open time of a wood adhesive", "source_session_id": "lab-8", **_ADA,
            "version": 1, "change": "created", "valid_from": NOON, "first_seen_at": NOON, "missing_since": _at(1),
            "unlisted_alive_at": _at(3), "missing_elapsed_ms": 61000, "unlisted_alive_elapsed_ms": 62000, "seq": 2,
        },
    ],
    tables.session_versions: [
        {**_FIRST, "session_key": 1, "version": 1, "name": "Which wax?", "change": "created", "valid_from": NOON,
         "valid_to": _at(1), "pass_id": 1, "seq": 1, "first_seen_at": NOON},
    ],
    tables.passes: [
        {"id": 2, "state": "complete", "started_at": _at(1), "finished_at": _at(1.5), "pages": 30, "seen": 2957,
         "inserted": 12, "updated": 3, "unchanged": 2941, "restored": 1, "missing": 2, "deleted": 1, "quarantined": 1,
         "page_key": "SES2957", "read_at": _at(1.4), "listed_at": _at(1.4)},
        {"id": 3, "state": "held", "started_at": _at(6), "finished_at": _at(7), "hold_id": 2,
         "reason": "too_many_gone", "error": "300 of 2957 live sessions are not listed"},
    ],
    tables.operations: [
        {"id": 1, "kind": "create", "source_session_id": "lab-8", "name": "Viscosity of batch B-114",
         "parent_id": "FOL17", "requested_by": "nightly import", "requested_at": NOON, "not_before": _at(1),
         "result_session_id": "SES3001", **_DONE},
        {"id": 2, "kind": "delete", "session_id": "SES9", "requested_at": NOON, "state": "dead", "attempts": 1,
         "last_status": 403, "last_error": "DELETE /api/v3/chats/sessions/SES9 answered 403: not allowed",
         "finished_at": _at(2)},
        {"id": 3, "kind": "delete", "source_session_id": "lab-9", "requested_at": NOON, "state": "running",
         "lease_until": _at(3), "lease_owner": "host-1:4711", "target_session_id": "SES10"},
        {"id": 4, "kind": "create", "source_session_id": "lab-10", "name": "Open time", "requested_at": NOON,
         "state": "unknown", "next_attempt_at": _at(2), "unknown_since": _at(1), "lookups": 2, "clock_at": _at(1),
         "settle_machine": "1f0c7a52 time:[4026531834]", "settle_us": 7345110226, "settle_for": _at(1)},
        {"id": 5, "kind": "update", "source_session_id": "lab-10", "parent_id": "FOL18", "requested_at": NOON,
         "on_hold_at": _at(9), "blocked_by": 4},
    ],
    tables.source_sessions: [
        {"source_session_id": "lab-7", "state": "linked", "session_id": "SES2", "checked_at": _at(1)},
        {"source_session_id": "lab-11", "state": "conflict", "checked_at": _at(1),
         "note": "carried by SES4, SES5"},
    ],
    tables.quarantine: [
        {"id": 1, "pass_id": 2, "session_id": "SES6", "reason": "no readable name",
         "payload": '{"id": "SES6", "name": 5}', "seen_at": _at(1), "resolved_at": _at(6), "fingerprint": "9f2c1a",
         "accepted_at": _at(2)},
    ],
    tables.pages: [
        {"pass_id": 2, "number": 1, "next_key": "SES100", "digest": b"\x9f\x2c", "versions": 104,
         "sessions": pack(range(1, 101)), "unreadable": pack([7]), "repeated": pack([])},
    ],
    tables.holds: [
        {"id": 2, "pass_id": 3, "last_pass_id": 3, "state": "open", "reason": "too_many_gone",
         "detail": "300 of 2957 live sessions are not listed", "opened_at": _at(7), "updated_at": _at(7)},
        {"id": 1, "pass_id": 1, "last_pass_id": 1, "state": "closed", "reason": "listing_empty",
         "detail": "the listing was empty", "opened_at": NOON, "updated_at": _at(1), "decided_at": _at(0.8),
         "decided_by": "alice"},
    ],
    tables.hold_sessions: [{"hold_id": 2, "session_key": 1}],
    tables.elapsed_time: [
        {"id": 1, "milliseconds": 61000, "machine": "1f0c7a52 time:[4026531834]", "monotonic_ms": 7345110,
         "database_at": _at(7), "clock_at": _at(7)},
    ],
    tables.mirror_identity: [
        {"id": 1, "origin": "https://app.albertinvent.com", "tenant_id": "TEN1", "pinned_at": _at(1),
         "copied_at": _at(3), "moved_to": "postgresql+asyncpg://syncd@db/syncd", "moved_at": _at(4)},
    ],
    tables.operator_actions: [
        {"id": 1, "at": _at(2), "by": "alice", "action": "retry", "subject": "operation 12", "detail": "it was dead"},
    ],
    tables.mirror_totals: [{"id": 1, "last_seq": 4, "live_sessions": 2, "deleted_sessions": 1}],
    tables.folders: [
        {"id": "FOL1", "name": "Lab", "type": "root", "path": "Lab", "first_seen_at": NOON, "changed_at": NOON,
         "extra": '{"pinned": true}', "absences": 1, "deleted_at": _at(8)},
        {**_examples_of(FOLDERS), "path": "Lab / Adhesives", "first_seen_at": NOON, "changed_at": NOON},
    ],
    tables.folder_listing: [
        {"id": 1, "fence": 3, "state": "partial", "error": "1 folder could not be read", "finished_at": _at(2),
         "complete_at": _at(1)},
    ],
    tables.writers: [{"id": "9b2c41f0a7d34e2c8f1b6d5e4c3a2b19", "number": 4711, "written_at": _at(2)}],
}  # fmt: skip


def _fill(connection: sa.Connection) -> None:
    migrate.migrate(connection)
    for table, rows in ROWS.items():
        for row in rows:
            # A create makes its own row of source_sessions, by a trigger.
            connection.execute(sa.insert(table).prefix_with("OR REPLACE"), row)


def _examples(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """Return, for each relation, the first value of each column that is not null."""
    found: dict[str, dict[str, Any]] = {}
    for name in catalog.VIEWS | catalog.TABLES | catalog.INTERNAL:
        rows = connection.execute(sa.text(f'SELECT * FROM "{name}"')).mappings().all()  # noqa: S608 - our own names
        rows = sorted(rows, key=lambda row: row.get("state") == "held")
        found[name] = {
            column: CLOCK.get(column)
            or next((row[column] for row in rows if row[column] not in (None, "[]")), rows[0][column])
            for column in rows[0]
        }
    return found


async def _read_examples() -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        url = sa.make_url(f"sqlite+aiosqlite:///{folder}/examples.db")
        async with Database.create(url, busy_timeout=5) as database:
            await database.write(_fill)
            return await database.read(_examples)


def _type(column: sa.Column[Any], dialect: sa.Dialect) -> str:
    name = column.type.compile(dialect=dialect)
    return {"TIMESTAMP WITH TIME ZONE": "timestamptz", "DOUBLE": "REAL"}.get(name, name)


def _shown(value: Any) -> str:  # noqa: ANN401 - a value of a row
    if isinstance(value, bytes):
        return f"`X'{value.hex().upper()}'`"
    text = str(value)
    return f"`{text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 1] + '…'}`".replace("|", "\\|")


def _relation(table: sa.Table, examples: dict[str, Any], promised: tuple[str, ...] | None) -> list[str]:
    lines = [f"### {table.name}", "", f"{(table.comment or '')[:1].upper()}{(table.comment or '')[1:]}.", ""]
    lines += ["| column | SQLite | PostgreSQL | meaning | example |", "| --- | --- | --- | --- | --- |"]
    for column in table.c:
        if examples[column.name] is None:
            raise LookupError(f"{table.name}.{column.name} has no example")
        words = column.comment or ""
        if promised is not None and column.name not in promised:
            words = f"*internal:* {words}"
        types = (_type(column, sqlite.dialect()), _type(column, postgresql.dialect()))  # type: ignore[no-untyped-call]
        lines.append(
            f"| `{column.name}` | {types[0]} | {types[1].lower()} | {words} | {_shown(examples[column.name])} |"
        )
    return [*lines, ""]


def schema_page() -> str:
    """Return the text of `docs/schema.md`."""
    examples = anyio.run(_read_examples)
    lines = [SCHEMA_HEAD, "## Views", ""]
    for name, view in catalog.VIEWS.items():
        lines += _relation(view, examples[name], None)
    lines += ["## Tables", ""]
    for name, table in catalog.TABLES.items():
        lines += _relation(table, examples[name], catalog.PROMISED[name])
    lines += [
        "## Internal tables",
        "",
        "The views read these tables, and passes and the guard store their state in them.",
        "",
    ]
    for name, table in catalog.INTERNAL.items():
        lines += _relation(table, examples[name], None)
    return "\n".join(lines)


def queries_page() -> str:
    """Return the text of `docs/queries.md`."""
    lines = [QUERIES_HEAD]
    for number, query in enumerate(QUERIES, start=1):
        lines += [f"## {number}. {query.question}", "", query.about, ""]
        texts = [("", query.sql("sqlite"))]
        if not query.portable:
            texts = [("On SQLite:", query.sql("sqlite")), ("On PostgreSQL:", query.sql("postgresql"))]
        for where, sql in texts:
            lines += [*([where, ""] if where else []), "```sql", f"{sql};", "```", ""]
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Return the text of each file that is made from the code."""
    return {
        HERE / "schema.md": schema_page(),
        HERE / "queries.md": queries_page(),
        problems.PAGE: problems.render(),
        mutants.PAGE: mutants.render(),
        **contrib.files(HERE.parent),
    }


def main() -> int:
    """Write the files, or compare them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(HERE.parent)))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if stale:
        verdict = "not what the code says; run: make docs" if check else "written"
        print(f"{', '.join(stale)}: {verdict}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
