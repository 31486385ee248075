"""The headers of requests, apart from the token. The session makes them once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from syncd.albert.bodies import ENCODINGS
from syncd.version import program_version

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULTS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": f"syncd/{program_version()}",
}
"""The same headers as those of the official SDK."""
_OWN: Final = frozenset(
    {"authorization", "host", "accept-encoding", "content-length", "transfer-encoding", "connection"}
)
"""Headers that the session or the transport sets itself; a caller cannot replace them."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
TOKEN_HEADERS: Final = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "User-Agent": f"syncd/{program_version()}",
    "Accept-Encoding": ENCODINGS,
}
"""The headers of a request to the token endpoint."""


def api_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of every API request except for the token.

    Parameters
    ----------
    given : Mapping[str, str] | None
        Headers of the caller. One replaces a default of the same name, in capitals or not. The session's own headers
        are not replaced.

    Raises
    ------
    ValueError
        A value contains a control character or one that is not ASCII, or a name is not a token of HTTP: it is empty, or
        has a character other than letters, digits and ``!#$%&'*+-.^_`|~``.
    """
    merged = {name.lower(): (name, value) for name, value in _DEFAULTS.items()}
    for name, value in (given or {}).items():
        if _CONTROL.search(name) or _CONTROL.search(value):
            raise ValueError("a header holds a control character")
        if not _NAME.fullmatch(name) or not value.isascii():
            raise ValueError("a header holds a character that cannot be sent")
        if name.lower() not in _OWN:
            merged[name.lower()] = (name, value)
    return {**dict(merged.values()), "Accept-Encoding": ENCODINGS}
