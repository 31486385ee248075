"""`syncd config` and `syncd migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from syncd.cli.common import as_json_option, print_json, print_rows, run, takes_settings

if TYPE_CHECKING:
    from syncd.settings import Loaded, Settings


@click.command(short_help="Show the settings in force and their origins.")
@as_json_option
@takes_settings()
def config(loaded: Loaded, *, as_json: bool) -> None:
    """Show every setting in force and its origin: default, environment, or the file and the line.

    Secrets are hidden, and passwords in URLs.
    """
    rows = [
        {"setting": name, "value": value, "from": loaded.origins[name.lower()]}
        for name, value in loaded.shown().items()
    ]
    print_rows(rows, ("setting", "value", "from"), as_json=as_json)


@click.command(short_help="Bring the database's schema to head.")
@as_json_option
@takes_settings()
def migrate(loaded: Loaded, *, as_json: bool) -> None:
    """Bring the database's schema to head, making the database when there is none."""
    before, after = run(lambda: _migrate(loaded.settings))
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"the schema is {after} already")
    else:
        click.echo(f"the schema was {before or 'empty'} and is {after} now")


async def _migrate(settings: Settings) -> tuple[str | None, str]:
    from syncd.mirror.db.database import Database
    from syncd.opening import COMMAND_BUSY_TIMEOUT, bring_to_head, database_url

    async with Database.create(database_url(settings), busy_timeout=COMMAND_BUSY_TIMEOUT) as database:
        return await bring_to_head(database)
