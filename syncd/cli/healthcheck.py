"""`syncd healthcheck`: ask the running daemon whether it is alive, for a container's HEALTHCHECK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from syncd.cli.asking import ask_alive
from syncd.cli.common import takes_settings
from syncd.errors import UsageError

if TYPE_CHECKING:
    from syncd.settings import Loaded


@click.command()
@takes_settings()
def healthcheck(loaded: Loaded) -> None:
    """Ask the running daemon whether it is alive (its /livez); exit 0 when it is, 1 when not.

    If SYNCD_DATABASE_URL is set, a daemon that has another database open is not accepted.
    """
    settings = loaded.settings
    if settings.syncd_status_port == 0:
        raise UsageError("SYNCD_STATUS_PORT is 0: the status server is off, so nothing can be asked")
    # Without the setting it may be in an environment file that only the daemon was started with.
    click.echo(ask_alive(settings, any_database=loaded.origins["syncd_database_url"] == "default"))
