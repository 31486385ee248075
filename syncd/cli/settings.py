"""`syncd config` and `syncd migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from syncd.cli.common import as_json_option, print_json, print_rows, run, takes_settings

if TYPE_CHECKING:
    from syncd.settings import Loaded, Settings


@click.command(short_help="Show the settings in force and their origins.")
@as_json_option
@takes_settings()
def config(loaded: Loaded, *, as_json: bool) -> None:
    """Show the settings in force, with secrets hidden, and where each came from."""
    rows = [
        {
            "setting": name.upper(),
            "value": shown(name, getattr(loaded.settings, name)),
            "from": loaded.origins[name],
        }
        for name in type(loaded.settings).model_fields
    ]
    print_rows(rows, ("setting", "value", "from"), as_json=as_json)


def shown(name: str, value: Any) -> Any:  # noqa: ANN401 - a setting
    """Return what may be shown of a setting: of the database's URL all but the password, of other secrets nothing."""
    if name == "syncd_database_url":
        import sqlalchemy as sa

        return sa.make_url(value.get_secret_value()).render_as_string(hide_password=True)
    return "********" if isinstance(value, SecretStr) else value


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
