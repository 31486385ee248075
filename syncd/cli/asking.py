"""Asks the running daemon through its status server. `healthcheck`, `status` and `doctor` call it.

It imports neither aiohttp, httpx nor SQLAlchemy, so that a container's health check starts fast.
"""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

from syncd.errors import SyncdError
from syncd.status.database_header import DATABASE, decode_database
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


class SilentError(SyncdError):
    """A program accepts connections on the port, and does not answer in time."""


class RefusedError(SyncdError):
    """The daemon answers with another status than 200."""


class OtherDatabaseError(SyncdError):
    """The daemon has another database open than the settings name."""


def host_to_ask(host: str) -> str:
    """Return the address at which a server that listens on `host` answers."""
    return WILDCARDS.get(host, host)


def ask_alive(settings: Settings, *, any_database: bool) -> str:
    """Return the answer of `/livez` of the daemon that has the database of the settings open.

    Parameters
    ----------
    any_database : bool
        Accept a daemon that has another database open.

    Raises
    ------
    NotAnsweredError
        There is no answer, or another program has the port.
    SilentError
        There is a connection and no answer.
    OtherDatabaseError
        The daemon on the port has another database open.
    RefusedError
        The daemon makes no progress.
    """
    host, port = host_to_ask(settings.syncd_status_host), settings.syncd_status_port
    answer, text = _get(host, port, "/livez", limit=SHORT)
    theirs, ours = answer.getheader(DATABASE), _database(settings)  # an older daemon does not name it
    if theirs is not None and not any_database and not _is_same(decode_database(theirs), ours):
        raise OtherDatabaseError(
            f"the daemon on {host}:{port} has another database open: {decode_database(theirs)}, not {ours}; "
            "use the settings of the daemon that you mean (SYNCD_STATUS_PORT, SYNCD_DATABASE_URL, --env-file); "
            "to see those in force, run: syncd config"
        )
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise RefusedError(f"the daemon answers {answer.status}: {text}")
    return text


def _get(host: str, port: int, path: str, *, limit: int) -> tuple[HTTPResponse, str]:
    """Request a path of the status server; return the answer and the text of its body.

    Raises
    ------
    NotAnsweredError
        There is no answer, or another program has the port.
    SilentError
        There is a connection and no answer.
    """
    connection, connected = HTTPConnection(host, port, timeout=TIMEOUT), False
    try:
        connection.connect()
        connected = True
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(limit).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        if connected and isinstance(error, TimeoutError):
            reason = f"{host}:{port} accepts connections and does not answer within {TIMEOUT:g} s"
            raise SilentError(f"{reason}: syncd run may hang; restart it, and keep its log") from error
        reason = f"the daemon does not answer on {host}:{port} ({error}); check whether syncd run is running"
        raise NotAnsweredError(reason) from error
    finally:
        connection.close()
    if answer.getheader("Server") != "syncd":
        raise NotAnsweredError(
            f"another program than syncd answers on {host}:{port}; check whether syncd run is running"
        )
    return answer, text


def _database(settings: Settings) -> str:
    return shown_database(settings.syncd_database_url.get_secret_value())


def _is_same(database: str, other: str) -> bool:
    """Return whether two texts of `shown_database` name one database; a file can be named by a symbolic link too."""
    files = database.startswith("/") and other.startswith("/")
    return database == other or (files and os.path.realpath(database) == os.path.realpath(other))


def ask_status(settings: Settings) -> dict[str, Any] | None:
    """Return the document of `/status.json` of the daemon that has the database of the settings open.

    Returns
    -------
    dict[str, Any] | None
        None if no daemon answers, or one of another database.

    Raises
    ------
    SilentError
        A program accepts connections on the port, and does not answer in time.
    """
    if settings.syncd_status_port == 0:
        return None
    try:
        host = host_to_ask(settings.syncd_status_host)
        _, text = _get(host, settings.syncd_status_port, "/status.json", limit=LONG)  # 503 has a document too
    except NotAnsweredError:
        return None
    try:
        document = json.loads(text)
        same = _is_same(document["daemon"]["database"], _database(settings))
    except (ValueError, KeyError, TypeError, AttributeError):  # an older daemon
        return None
    return document if same else None
