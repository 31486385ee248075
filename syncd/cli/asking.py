"""Asks the running daemon through its status server. `healthcheck`, `status` and `doctor` call it.

It imports neither aiohttp, httpx nor SQLAlchemy, so that a container's health check starts fast.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from syncd.errors import SyncdError
from syncd.urls import shown_database

if TYPE_CHECKING:
    from syncd.settings import Settings

TIMEOUT = 4.0
"""Seconds; less than the image's limit for the whole check."""
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to ask, not where to listen
SHORT, LONG = 1000, 10_000_000
"""Bytes that are read of an answer."""


class NotAnsweredError(SyncdError):
    """No daemon answers on the port."""


class RefusedError(SyncdError):
    """The daemon answers with another status than 200; `text` is its body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the daemon answers {status}: {text[:SHORT]}")
        self.text = text


def host_to_ask(host: str) -> str:
    """Return the address at which a server that listens on `host` answers."""
    return WILDCARDS.get(host, host)


def ask(host: str, port: int, path: str, *, limit: int = SHORT) -> str:
    """Return the daemon's answer to a path of its status server.

    Raises
    ------
    NotAnsweredError
        There is no answer, or another program has the port.
    RefusedError
        The daemon answers with another status than 200.
    """
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(limit).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        reason = f"the daemon does not answer on {host}:{port} ({error}); is syncd run alive?"
        raise NotAnsweredError(reason) from error
    finally:
        connection.close()
    if answer.getheader("Server") != "syncd":
        raise NotAnsweredError(f"another program than syncd answers on {host}:{port}; is syncd run alive?")
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise RefusedError(answer.status, text)
    return text


def ask_status(settings: Settings) -> dict[str, Any] | None:
    """Return the document of `/status.json` of the daemon that has the database of the settings open.

    Returns
    -------
    dict[str, Any] | None
        None if no daemon answers, or one of another database.
    """
    if settings.syncd_status_port == 0:
        return None
    try:
        text = ask(host_to_ask(settings.syncd_status_host), settings.syncd_status_port, "/status.json", limit=LONG)
    except RefusedError as error:
        text = error.text
    except NotAnsweredError:
        return None
    try:
        found = json.loads(text)
        same = found["daemon"]["database"] == shown_database(settings.syncd_database_url.get_secret_value())
    except (ValueError, KeyError, TypeError):  # an older daemon
        return None
    return found if same else None
