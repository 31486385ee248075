"""`syncd config` and `syncd migrate`."""

from __future__ import annotations

from io import StringIO
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
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL for this kind of database; contact no database.")
@click.option(
    "--from", "start", metavar="REVISION", help="With --sql: the revision of the schema; an empty database by default."
)
@as_json_option
@takes_settings()
def migrate(loaded: Loaded, start: str | None, *, as_sql: bool, as_json: bool) -> None:
    """Bring the database's schema to head, creating the database if it does not exist.

    Where the daemon's role may not change the schema, an administrator can execute what --sql prints.
    """
    if as_sql:
        _print_sql(loaded.settings, start, as_json=as_json)
        return
    if start is not None:
        raise click.UsageError("--from needs --sql: the revision of a database is in the database")
    before, after = run(lambda: _migrate(loaded.settings))
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"the schema is {after} already")
    else:
        click.echo(f"the schema was {before or 'empty'} and is {after} now")


def _print_sql(settings: Settings, start: str | None, *, as_json: bool) -> None:
    from syncd.mirror.schema.migrate import print_sql
    from syncd.mirror.schema.revisions import REVISIONS
    from syncd.opening import database_url

    if as_json:
        raise click.UsageError("--sql prints SQL and not JSON; leave out --json or --sql")
    if start is not None and start not in REVISIONS:
        raise click.UsageError(f"--from must be one of {', '.join(REVISIONS)}, not {start!r}")
    output = StringIO()
    print_sql(database_url(settings).get_backend_name(), start, output)
    click.echo(output.getvalue(), nl=False)


async def _migrate(settings: Settings) -> tuple[str | None, str]:
    from syncd.mirror.db.database import Database
    from syncd.opening import COMMAND_BUSY_TIMEOUT, bring_to_head, database_url

    async with Database.create(database_url(settings), busy_timeout=COMMAND_BUSY_TIMEOUT) as database:
        return await bring_to_head(database)
