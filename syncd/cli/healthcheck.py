"""`syncd healthcheck`: ask the running daemon whether it is alive.

It serves a container's HEALTHCHECK, so it starts fast: it imports neither an HTTP client nor SQLAlchemy.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import click

from syncd.cli.common import takes_settings
from syncd.errors import SyncdError, UsageError

if TYPE_CHECKING:
    from syncd.settings import Loaded

TIMEOUT = 4.0
"""Seconds; less than the image's limit for the whole check."""
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to ask, not where to listen
LONGEST_ANSWER = 1000


class NotAnsweredError(SyncdError):
    """No daemon answers on the port."""


@click.command()
@takes_settings()
def healthcheck(loaded: Loaded) -> None:
    """Ask the running daemon whether it is alive (its /livez); exit 0 when it is, 1 when not."""
    settings = loaded.settings
    if settings.syncd_status_port == 0:
        raise UsageError("SYNCD_STATUS_PORT is 0: the status server is off, so nothing can be asked")
    click.echo(ask(host_to_ask(settings.syncd_status_host), settings.syncd_status_port, "/livez"))


def host_to_ask(host: str) -> str:
    """Return the address at which a server that listens on `host` answers."""
    return WILDCARDS.get(host, host)


def ask(host: str, port: int, path: str) -> str:
    """Return the daemon's answer to a path of its status server.

    Raises
    ------
    NotAnsweredError
        There is no answer, or another program has the port.
    SyncdError
        The daemon answers with another status than 200; the message contains its text.
    """
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(LONGEST_ANSWER).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        reason = f"the daemon does not answer on {host}:{port} ({error}); is syncd run alive?"
        raise NotAnsweredError(reason) from error
    finally:
        connection.close()
    if answer.getheader("Server") != "syncd":
        raise NotAnsweredError(f"another program than syncd answers on {host}:{port}; is syncd run alive?")
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise SyncdError(f"the daemon answers {answer.status}: {text}")
    return text
