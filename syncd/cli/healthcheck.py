"""`syncd healthcheck`: ask the running daemon whether it is alive; for a container's HEALTHCHECK, so it starts fast."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import click

from syncd.cli.common import takes_settings
from syncd.errors import SyncdError, UsageError

if TYPE_CHECKING:
    from syncd.settings import Loaded

TIMEOUT = 4.0
"""Seconds; less than what the image gives the whole check."""
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to ask, not where to listen
LONGEST_ANSWER = 1000


@click.command()
@takes_settings()
def healthcheck(loaded: Loaded) -> None:
    """Ask the running daemon whether it is alive (its /livez); exit 0 when it is, 1 when not."""
    settings = loaded.settings
    host, port = settings.syncd_status_host, settings.syncd_status_port
    if port == 0:
        raise UsageError("SYNCD_STATUS_PORT is 0: the status server is off, so there is nobody to ask")
    click.echo(ask(WILDCARDS.get(host, host), port))


def ask(host: str, port: int) -> str:
    """Return what `/livez` says.

    Raises
    ------
    SyncdError
        Nobody answers, or the daemon says that it is not alive.
    """
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        words = answer.read(LONGEST_ANSWER).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise SyncdError(f"the daemon does not answer on {host}:{port} ({error}); is syncd run alive?") from error
    finally:
        connection.close()
    if answer.getheader("Server") != "syncd":
        raise SyncdError(f"{host}:{port} is not syncd's: another program has the port; is syncd run alive?")
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise SyncdError(f"the daemon answers {answer.status}: {words}")
    return words
