"""`syncd migrate-store`: everything from one database into another."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, print_json, print_rows, run, takes_settings
from syncd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from syncd.mirror.copy.migrate_store import Moved
    from syncd.settings import Loaded


@click.command("migrate-store")
@click.option(
    "--to",
    "target",
    required=True,
    metavar="URL",
    help="The database to move to: empty, or left by an interrupted move.",
)
@as_json_option
@takes_settings()
def migrate_store(loaded: Loaded, target: str, *, as_json: bool) -> None:
    """Move everything from the database of SYNCD_DATABASE_URL into an empty one, SQLite or PostgreSQL.

    All of it goes over, history, queue and the running pass included, and is compared table by table in the end. After
    an interruption the same command goes on where it was; no daemon opens the target before it is done. The source
    stays as it is. Refuses while a daemon works on either; point SYNCD_DATABASE_URL at the target afterwards.
    """
    from syncd.cli.progress import bar
    from syncd.mirror.db.backends import backend_of
    from syncd.opening import database_url

    source, there = database_url(loaded.settings), _target(target)
    if source == there:
        raise UsageError("--to names the database that SYNCD_DATABASE_URL names already")
    backend_of(source).require_exists()
    with bar("moving", total=100) as advance:
        on_rows = (lambda done, total: advance(100 * done // max(total, 1))) if advance is not None else None
        moved = run(lambda: _move(source, there, on_rows))
    rows = [asdict(one) for one in moved]
    print_rows(rows, ("table", "rows", "digest"), as_json=False) if not as_json else print_json({"moved": rows})


def _target(text: str) -> sa.URL:
    """Read the target's URL as the setting would be read."""
    import pydantic

    from syncd.opening import database_url
    from syncd.settings import Settings

    try:
        return database_url(Settings.model_validate({"syncd_database_url": text}))
    except pydantic.ValidationError as error:
        words = str(error.errors(include_url=False, include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"--to {words}") from None


async def _move(source: sa.URL, target: sa.URL, on_rows: Callable[[int, int], None] | None) -> list[Moved]:
    from syncd.mirror.copy.migrate_store import move
    from syncd.mirror.db.backends import backend_of

    async with AsyncExitStack() as stack:
        for url in (source, target):
            await stack.enter_async_context(backend_of(url).keep_others_out("migrate-store"))
        backend_of(target).create()
        return await move(source, target, on_rows=on_rows)
