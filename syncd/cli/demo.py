"""`syncd demo`: all functions of syncd in a minute, against the sandbox."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd.cli.common import env_file_option, print_rows, run
from syncd.errors import UsageError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from syncd.app import Flows
    from syncd.mirror.db.database import Connection
    from syncd.sandbox import Sandbox

DATABASE = "syncd-demo.db"
QUERIES = (
    (
        "how fresh is the mirror",
        "SELECT last_complete_pass_at, live_sessions, deleted_sessions FROM mirror_freshness",
    ),
    (
        "who asks most",
        "SELECT created_by_name, count(*) AS sessions FROM chat_sessions GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
    ),
    (
        "what was renamed",
        "SELECT session_id, name, change, valid_from FROM chat_session_history "  # noqa: ISC004 - one statement
        "WHERE session_id IN (SELECT session_id FROM chat_session_history WHERE change = 'updated')",
    ),
    ("which source ids need a look", "SELECT * FROM source_sessions WHERE state <> 'linked'"),
    ("what became of the queue", "SELECT kind, state, count(*) AS operations FROM operations GROUP BY 1, 2"),
)


@click.command(short_help="See the whole of it in a minute; no account needed.")
@click.option("--sessions", type=click.IntRange(100), default=3000, show_default=True, help="Sessions on the server.")
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DATABASE,
    show_default=True,
    help="The mirror's file; only the default one is replaced when it is there.",
)
@env_file_option
@click.pass_context
def demo(
    context: click.Context,
    sessions: int,
    database: Path,
    env_files: tuple[Path, ...],  # noqa: ARG001 - taken as by every command; the demo has its own settings
) -> None:
    """Mirror a stand-in Albert, create, delete and reconcile, and show what is in the database; no account needed.

    Exits 0 only when the mirror and the server agree in the end.
    """
    try:
        _remove_old_demo(database)
    except OSError as error:
        raise UsageError(
            f"{safe_text(os.fspath(database))} cannot be made: {error.strerror}; run syncd demo in a folder that you "
            "can write to, or name another file with --database"
        ) from error
    agree = run(lambda: _demo(sessions, database))
    context.exit(0 if agree else 1)


def _remove_old_demo(database: Path) -> None:
    """Remove the database of an earlier demo.

    Raises
    ------
    UsageError
        Another database is there.
    OSError
        The file system refuses it.
    """
    if database.exists() and database != Path(DATABASE):
        raise UsageError(f"{database} exists already, and a demo replaces no database; name a new file")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{database}{suffix}").unlink()


async def _demo(sessions: int, database: Path) -> bool:
    from syncd.app import logged_retries, open_flows
    from syncd.cli.progress import page_progress
    from syncd.logs import configure
    from syncd.sandbox import Habits, Sandbox, serve
    from syncd.settings import load

    log = configure(level="error", style="console", stream=sys.stderr)
    server = Sandbox(sessions, seed=7, habits=Habits(page_size=100, latency=0.005))
    async with serve(server):
        settings = load({
            "ALBERT_BASE_URL": server.url, "ALBERT_TOKEN": server.token, "SYNCD_DELETE_GRACE": "0",
            "SYNCD_DELETE_CONFIRMATIONS": "1", "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{os.fspath(database)}",
        }).settings  # fmt: skip
        retries = logged_retries(30, log)
        with page_progress() as on_page:
            async with open_flows(settings, command="demo", log=log, retries=retries, on_page=on_page) as flows:
                await _run_steps(flows, server)
                return await _show(flows, server, database)


def _print_step(text: str) -> None:
    click.echo(f"• {text}")


async def _run_steps(flows: Flows, server: Sandbox) -> None:
    """Run a pass, changes by another user, operations, a second pass and the reconciliation."""
    _print_step(f"Albert's stand-in listens on {server.url} and has {len(server.live())} sessions")
    await flows.pull.run()
    _print_step("the first pass has mirrored them, page by page")

    first, second, third = list(server.live())[:3]
    server.update(first, name="Renamed in Albert by another user")
    server.delete(second)
    server.create(source_session_id="made-by-others", name="Created in Albert by another user")
    twin = server.live()[third]["sourceSessionId"]
    server.create(source_session_id=twin, name="A second session with the same source id")
    _print_step("another user renamed, deleted and created sessions in Albert; two now share a source id")

    created = [
        {"kind": "create", "source_session_id": f"demo-{n}", "name": f"Created from the queue {n}"} for n in range(20)
    ]
    deleted = [{"kind": "delete", "source_session_id": f"demo-{n}"} for n in range(5)]
    await flows.database.write(lambda c: _prepare(c, [*created, *deleted]))
    await flows.push.drain()
    _print_step("20 creates and 5 deletes from the queue have been applied")

    outcome = await flows.pull.run()
    await flows.mirror_folders(outcome.state)
    await flows.reconcile.run()
    _print_step("a second pass has found the changes, folders are mirrored, and the source ids are reconciled")


def _prepare(connection: Connection, rows: list[dict[str, Any]]) -> None:
    from syncd.mirror.store import operations, sources
    from syncd.records.ids import SourceId

    operations.enqueue(connection, rows)
    sources.add(connection, [SourceId("in-no-session")])


async def _show(flows: Flows, server: Sandbox, database: Path) -> bool:
    def ask(sql: str) -> Callable[[Connection], list[Mapping[str, Any]]]:
        return lambda connection: [dict(row) for row in connection.exec_driver_sql(sql).mappings()]

    for title, sql in QUERIES:
        rows = await flows.database.read(ask(sql))
        click.echo(f"\n-- {title}\n{sql};\n")
        print_rows(rows, list(rows[0]) if rows else (), as_json=False)
    mirrored = {row["id"]: row["name"] for row in await flows.database.read(ask("SELECT id, name FROM chat_sessions"))}
    there = {session_id: wire["name"] for session_id, wire in server.live().items()}
    agree = mirrored == there
    verdict = "agree" if agree else "DO NOT AGREE"
    click.echo(f"\nThe mirror ({len(mirrored)} sessions) and the server ({len(there)}) {verdict}.")
    click.echo(f"Try the queries yourself: sqlite3 {database}, or: python3 -m sqlite3 {database} (Python 3.12)")
    return agree
