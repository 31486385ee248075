"""The header by which `/livez` names the daemon's database. `syncd healthcheck` compares it with its own settings.

It costs no request to the database, so that the answer is the same while the database is locked or unreachable. This
module imports nothing of aiohttp: the health check of a container starts often.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

DATABASE = "Syncd-Database"


def encode_database(shown: str) -> str:
    """Return the text of `urls.shown_database` in a form that a header can have."""
    return quote(shown, safe="/:@?=&,.", errors="surrogateescape")


def decode_database(header: str) -> str:
    """Return the text that `encode_database` was given."""
    return unquote(header, errors="surrogateescape")
