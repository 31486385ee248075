"""`python -m benchmarks.analysts [--sessions N] [--on STORE...] [--write]`: questions on the views against flat tables.

A flat table has the rows and columns of a view, and no index. Each question runs on the view and on the flat table, in
turns, and the least CPU of each is compared. Writes `analysts.json` and the part `analysts` of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import report
from benchmarks.machine import ROOT, describe, load_average
from benchmarks.stores import POSTGRES
from syncd.mirror.db.sqlite_module import sqlite3

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.read.queries import Dialect

PAGE = 1000
UPDATED, DELETED = 10, 100
"""After the first pass, one of this number of sessions is changed, and one is deleted."""
TARGET, POINT_MS, FRESHNESS_MS = 1.5, 1.0, 20.0
POINTS = {"history_of_a_session", "changes_since"}
"""Questions that an index answers. Only their time counts."""
VIEWS = ("chat_sessions", "chat_sessions_all", "chat_session_history", "chat_session_changes")
_NAMES = re.compile(rf"\b({'|'.join(VIEWS)})\b")


class Reader(Protocol):
    """An analyst's connection."""

    def cpu(self) -> float:
        """Return the CPU seconds of the database so far."""

    def run(self, statement: str) -> list[Any]:
        """Run a statement and fetch its rows."""


class SqliteReader:
    """A connection of Python's own SQLite."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)

    def cpu(self) -> float:
        """Return the CPU seconds of this process."""
        return time.process_time()

    def run(self, statement: str) -> list[Any]:
        """Run a statement and fetch its rows."""
        return self._db.execute(statement).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class PostgresReader:
    """A connection to PostgreSQL without parallel workers."""

    def __init__(self, url: str) -> None:
        import asyncpg

        self._runner = asyncio.Runner()
        self._db = self._runner.run(asyncpg.connect(url.replace("+asyncpg", "")))
        self.run("SET max_parallel_workers_per_gather = 0")
        self._pid = self.run("SELECT pg_backend_pid()")[0][0]

    def cpu(self) -> float:
        """Return the CPU seconds of the backend, with a resolution of nanoseconds."""
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0]) / 1e9

    def run(self, statement: str) -> list[Any]:
        """Run a statement and fetch its rows."""
        return list(self._runner.run(self._db.fetch(statement)))

    def close(self) -> None:
        """Close the connection."""
        self._runner.run(self._db.close())
        self._runner.close()


def fill(url: str, sessions: int) -> None:
    """Make a mirror with a history, with syncd's own functions."""
    import sqlalchemy as sa

    from syncd.mirror.db.database import Database
    from syncd.mirror.schema import migrate
    from syncd.sandbox.generate import generate

    async def work() -> None:
        async with Database.create(sa.make_url(url), busy_timeout=30) as database:
            await database.write(migrate.migrate)
            await database.write(lambda c: c.exec_driver_sql(PASS).close())
            for at, wires in ((1, _pages(generate(sessions, 1))), (2, _pages(_changed(sessions)))):
                for body in wires:
                    await database.write(_writes(body, f"2026-06-0{at}T12:00:00.000000Z"))
            for first in range(0, sessions, DELETED * PAGE):
                keys = range(first + DELETED, min(first + DELETED * PAGE, sessions) + 1, DELETED)
                await database.write(_deletes(list(keys)))

    asyncio.run(work())


PASS = (
    "INSERT INTO passes (state, started_at, finished_at, listed_at) VALUES ('complete', '2026-06-01T12:00:00.000000Z', "
    "'2026-06-01T12:01:00.000000Z', '2026-06-01T12:01:00.000000Z')"
)


def _pages(sessions: Iterator[Any]) -> Iterator[bytes]:
    while page := list(islice(sessions, PAGE)):
        yield b'{"Items":[' + b",".join(session.encoded for session in page) + b"]}"


def _changed(sessions: int) -> Iterator[Any]:
    """Yield every tenth session with another name and a later message."""
    from syncd.sandbox.generate import generate
    from syncd.sandbox.session import session_of

    for session in islice(generate(sessions, 1), 0, None, UPDATED):
        at = "2026-06-02T11:00:00.000Z"
        changed = {"name": f"{session.name} (2)", "lastMessageAt": at, "Updated": {"by": "USR1", "at": at}}
        yield session_of(session.wire() | changed, session.number)


def _writes(body: bytes, at: str) -> Callable[[Connection], object]:
    from syncd.mirror.store import sessions
    from syncd.records.fields import SESSIONS
    from syncd.records.ids import PassId
    from syncd.records.parse import read_page

    rows = read_page(body, SESSIONS).rows
    return lambda c: sessions.apply(c, rows, sessions.Observation(at, at, PassId(1), new=at < "2026-06-02"))


def _deletes(keys: list[int]) -> Callable[[Connection], object]:
    from syncd.mirror.store import sessions
    from syncd.records.ids import PassId

    return lambda c: sessions.tombstone(c, keys, now="2026-06-03T12:00:00.000000Z", pass_id=PassId(1))


def flatten(reader: Reader) -> None:
    """Make the flat tables, and update the statistics of the database."""
    for view in VIEWS:
        reader.run(f"CREATE TABLE flat_{view} AS SELECT * FROM {view}")
    if isinstance(reader, PostgresReader):
        reader.run("VACUUM ANALYZE")


def questions(dialect: Dialect, sessions: int) -> dict[str, str]:
    """Return the queries of README.md and the questions of `docs/queries.md`, by name."""
    from syncd.mirror.read.questions import QUERIES

    blocks = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    statements = [sql.strip() for block in blocks for sql in re.split(r";\s*\n", block) if "SELECT" in sql]
    readme = {f"README {number}": sql for number, sql in enumerate(statements, 1) if _NAMES.search(sql)}
    values = {"seq": str(10**12), "session_id": f"'SES{sessions // 2}'", "since": "'2026-06-02T00:00:00.000000Z'"}
    return readme | {query.name: query.sql(dialect, **values) for query in QUERIES}


def measure(reader: Reader, statements: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """Measure the least CPU of each question in milliseconds, on the view and on the flat table."""
    taken: dict[str, dict[str, float]] = {}
    for name, statement in statements.items():
        flat = _NAMES.sub(r"flat_\1", statement)
        assert _same(reader.run(statement), reader.run(flat)), f"{name} has another answer on the flat table"
        least = {"view": float("inf"), "flat": float("inf")}
        for _ in range(rounds):
            for key, text in (("view", statement), ("flat", flat)):
                begun = reader.cpu()
                reader.run(text)
                least[key] = min(least[key], (reader.cpu() - begun) * 1000)
        taken[name] = least
        print(f"  {name}: {least['view']:.1f} / {least['flat']:.1f} ms", file=sys.stderr, flush=True)
    return taken


def _same(rows: list[Any], other: list[Any]) -> bool:
    return len(rows) == len(other) and sorted(map(repr, rows)) == sorted(map(repr, other))


def freshness(reader: Reader) -> float:
    """Return the least CPU of a query of `mirror_freshness`, in milliseconds."""
    took = []
    for _ in range(20):
        begun = reader.cpu()
        reader.run("SELECT * FROM mirror_freshness")
        took.append((reader.cpu() - begun) * 1000)
    return min(took)


def run(name: str, sessions: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure one database."""
    if name == "sqlite":
        path = folder / "mirror.db"
        fill(f"sqlite+aiosqlite:///{path}", sessions)
        with closing(SqliteReader(str(path))) as reader:
            flatten(reader)
            return _taken(reader, "sqlite", sessions, rounds)
    from tests.helpers.postgres_server import PostgresServer

    server = PostgresServer(*POSTGRES, "fsync=off")
    try:
        server.start()
        server.sql("CREATE DATABASE analysts")
        fill(server.url("analysts"), sessions)
        with closing(PostgresReader(server.url("analysts"))) as analyst:
            flatten(analyst)
        # The mirror was written through the server's buffers, where its pages lie scattered; a flat table was not.
        server.stop()
        server.start()
        with closing(PostgresReader(server.url("analysts"))) as analyst:
            return _taken(analyst, "postgresql", sessions, rounds)
    finally:
        server.remove()


def _taken(reader: Reader, dialect: Dialect, sessions: int, rounds: int) -> dict[str, Any]:
    return {
        "freshness": freshness(reader),
        "questions": measure(reader, questions(dialect, sessions), rounds),
    }


def section(results: dict[str, Any]) -> str:
    """Write the table for `docs/performance.md`."""
    rows: list[tuple[str, ...]] = [
        ("question", *(f"{title}, {what}" for title in ("SQLite", "PostgreSQL") for what in ("ms", "flat", "ratio")))
    ]
    names = next(iter(results["stores"].values()))["questions"]
    for name in names:
        row = [name.replace("_", " ")]
        for store in report.STORES:
            took = results["stores"].get(store, {"questions": {}})["questions"].get(name)
            row += (
                ["", "", ""]
                if took is None
                else [*map(report.number, (took["view"], took["flat"])), _ratio(name, took)]
            )
        rows.append(tuple(row))
    fresh = ", ".join(f"{store} {report.number(took['freshness'])} ms" for store, took in results["stores"].items())
    about = (
        f"Taken {results['taken_at']}, {results['sessions']:,} sessions, {results['rounds']} rounds, load average "
        f"before {results['load_average']}. `mirror_freshness`: {fresh} (target {FRESHNESS_MS:g} ms)."
    )
    return f"{about}\n\n{report.markdown(rows)}"


def _ratio(name: str, took: dict[str, float]) -> str:
    met = took["view"] <= POINT_MS if name in POINTS else took["view"] / took["flat"] <= TARGET
    text = f"{took['view'] / took['flat']:.2f}"
    return text if met else f"**{text}**"


def main() -> None:
    """Measure, and print the results or write them to files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analysts")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--on", nargs="+", choices=report.STORES, default=report.STORES, help="these databases only")
    parser.add_argument("--write", action="store_true", help="write analysts.json and docs/performance.md")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "taken_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sessions": options.sessions,
        "rounds": options.rounds,
        "load_average": load_average(),
        "machine": describe(Path(tempfile.gettempdir())),
        "stores": {},
    }
    for name in options.on:
        print(f"{name}, {options.sessions:,} sessions", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="syncd-analysts-") as folder:
            results["stores"][name] = run(name, options.sessions, options.rounds, Path(folder))
    print(section(results))
    if options.write:
        report.ANALYSTS.write_text(json.dumps(results, indent=1) + "\n")
        report.write()


if __name__ == "__main__":
    main()
