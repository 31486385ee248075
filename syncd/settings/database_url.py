"""The URL of the database: its short forms, and what is wrong with it, without repeating a password."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from syncd.urls import PERCENT_ENCODE, is_host

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_SQLITE_FILE = re.compile(r"sqlite\+aiosqlite:///(?!file:|/*:memory:)[^?\x00-\x1f]*[^?/\x00-\x1f]")
_POSTGRESQL = "postgresql+asyncpg://"
_SPECIAL = re.compile(r"[@/?#\[\]\\\s]|%(?![0-9A-Fa-f]{2})")
"""Characters of a user name or password that must be percent-encoded."""
_PLACE = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>[0-9]{1,5}))?")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_LAST_PORT = 65535
_SSL = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_OPTIONS = {
    "ssl": re.compile("|".join(_SSL)),
    "prepared_statement_cache_size": re.compile("[0-9]{1,6}"),
    "target_session_attrs": re.compile("any|primary|standby|read-write|read-only|prefer-standby"),
    "host": re.compile(".+"),
    "port": re.compile("[0-9]{1,5}"),
    "passfile": re.compile(".+"),
}
"""The options that can follow the `?` of a PostgreSQL URL. The driver would fail on others with its own messages."""
_FORMS = (
    "must be sqlite+aiosqlite:///FILE (three slashes, four before an absolute path) or "
    "postgresql+asyncpg://USER@HOST/DATABASE"
)
_CREDENTIALS = f"has a special character in the user name or password that is not encoded; {PERCENT_ENCODE}"


def checked_database_url(text: str) -> str:
    """Return a database URL with its driver.

    Raises
    ------
    ValueError
        The database cannot be opened by this URL. The message can name an option after the `?`, and repeats nothing
        else of the URL.
    """
    scheme, separator, rest = text.partition("://")
    url = f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}"
    if _SQLITE_FILE.fullmatch(url):
        return url
    if not url.startswith(_POSTGRESQL):
        raise ValueError(_FORMS)
    if (problem := _postgresql_problem(url.removeprefix(_POSTGRESQL))) is not None:
        raise ValueError(problem)
    return url


def _postgresql_problem(rest: str) -> str | None:
    """Return what is wrong with a PostgreSQL URL after its `://`; None for an accepted one.

    The last `@` separates the user name and password from the host. More than one means that a character of the
    password was not encoded, and then no part of the URL can be repeated. An option such as
    `passfile=/home/a@b/.pgpass` may contain an `@`.
    """
    address, _, query = rest.partition("?")
    place, slash, database = address.partition("/")
    user, at, host = place.rpartition("@")
    if "#" in rest or "@" in database or (at and _SPECIAL.search(user)):
        return _CREDENTIALS
    if not slash or not database.strip("/") or not _is_place(host):
        return _CREDENTIALS if "@" in query else _FORMS
    if _UNSAFE.search(rest):
        return _FORMS
    return _option_problem(query)


def _is_place(text: str) -> bool:
    """Return whether a text is a host with a port or without, or empty for the server on this machine."""
    match = _PLACE.fullmatch(text)
    if match is None or not 0 < int(match["port"] or _LAST_PORT) <= _LAST_PORT:
        return False
    host = match["v6"] if match["v6"] is not None else match["host"]
    return not host or is_host(host)


def _option_problem(query: str) -> str | None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        known = _OPTIONS.get(name)
        if known is not None and known.fullmatch(value):
            continue
        if "@" in query:  # the option may be the second half of a password
            return _CREDENTIALS
        if known is None:
            return f"has an unknown option {name!r} after the ?; known are {', '.join(_OPTIONS)}"
        choices = f"; it is one of {', '.join(_SSL)}" if name == "ssl" else ""
        return f"has an option {name!r} that cannot be {value!r}{choices}"
    return None
