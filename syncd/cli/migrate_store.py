"""`syncd migrate-store`: the content of one database moves to another one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, by_option, print_json, print_rows, run, say, takes_settings
from syncd.errors import UsageError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from syncd.mirror.copy.migrate_store import Moved
    from syncd.mirror.db.database import Connection
    from syncd.settings import Loaded, Settings


@click.command("migrate-store", short_help="Move everything to another database.")
@click.option("--to", "target", metavar="URL", help="The database to move to: empty, or left by an interrupted move.")
@click.option("--force", is_flag=True, help="Move this database although it was moved to another one before.")
@click.option("--unmark", is_flag=True, help="Move nothing: let this database act again after it was moved.")
@by_option
@as_json_option
@takes_settings()
def migrate_store(loaded: Loaded, target: str | None, by: str, *, force: bool, unmark: bool, as_json: bool) -> None:
    """Move everything from the database of SYNCD_DATABASE_URL to an empty one, SQLite or PostgreSQL.

    History, queue and the running pass are included, and every table is compared at the end. After an interruption the
    same command continues; no daemon opens the target before the end. No daemon may work on either database meanwhile.
    Point SYNCD_DATABASE_URL at the target afterwards: the old database is marked as moved, and run, once and enqueue
    refuse to act on it without --force.
    """
    from syncd.cli.progress import bar
    from syncd.opening import database_backend

    backend = database_backend(loaded.settings)
    backend.require_exists()
    source = backend.url
    if (target is None) is not unmark:
        raise UsageError("name the target with --to URL, or use --unmark to let a moved database act again")
    if target is None:
        _unmark(loaded.settings, by, as_json=as_json)
        return
    target_url = _target(target)
    if source == target_url:
        raise UsageError("--to names the database that SYNCD_DATABASE_URL names already")
    with bar("moving", total=100) as advance:
        on_rows = (lambda done, total: advance(100 * done // max(total, 1))) if advance is not None else None
        moved = run(lambda: _move(source, target_url, on_rows, force=force))
    rows = [asdict(table) for table in moved]
    empty = "this move is complete already"
    if as_json:
        print_json({"moved": rows})
    else:
        print_rows(rows, ("table", "rows", "digest"), as_json=False, empty=empty)
    say("the old database is marked as moved; point SYNCD_DATABASE_URL at the new one")


def _target(text: str) -> sa.URL:
    """Read the target's URL as the setting would be read."""
    import pydantic

    from syncd.opening import database_url
    from syncd.settings import Settings

    try:
        return database_url(Settings.model_validate({"syncd_database_url": text}))
    except pydantic.ValidationError as error:
        reason = str(error.errors(include_url=False, include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"--to {reason}") from None


async def _move(
    source: sa.URL, target: sa.URL, on_rows: Callable[[int, int], None] | None, *, force: bool
) -> list[Moved]:
    from syncd.clock import SystemClock
    from syncd.mirror.copy.migrate_store import move
    from syncd.mirror.db.backends import backend_of

    async with AsyncExitStack() as stack:
        for url in (source, target):
            await stack.enter_async_context(backend_of(url).keep_others_out("migrate-store"))
        backend_of(target).create()
        return await move(source, target, now=SystemClock().now(), force=force, on_rows=on_rows)


def _unmark(settings: Settings, by: str, *, as_json: bool) -> None:
    """Let a moved database act again."""
    moved_to = run(lambda: _remove_mark(settings, by))
    if as_json:
        print_json({"moved_to": moved_to})
    elif moved_to is None:
        click.echo("the database is not marked as moved")
    else:
        target = safe_text(moved_to)
        click.echo(f"the database is not marked as moved to {target} any more; make sure that no daemon works there")


async def _remove_mark(settings: Settings, by: str) -> str | None:
    from syncd.mirror.db.shared_clock import read_clock
    from syncd.mirror.store import identity, operator_actions
    from syncd.opening import open_database

    def work(connection: Connection) -> str | None:
        moved_to = identity.unmark_moved(connection)
        if moved_to is not None:
            now = read_clock(connection)
            operator_actions.record(
                connection, now=now, by=by, action="unmark", subject="database", detail=f"moved to {moved_to}"
            )
        return moved_to

    async with open_database(settings) as database:
        return await database.write(work)
