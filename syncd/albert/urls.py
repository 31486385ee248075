"""Base URLs that a secret may be sent to, and queries that arrive as they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from syncd.albert.errors import InvalidRequestError
from syncd.urls import PATH, base_url_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Params: TypeAlias = Mapping[str, str | Sequence[str] | None]


def checked_base_url(url: str) -> str:
    """Return ``url`` with its host in small letters and no trailing slash, ready for a path to be appended.

    Raises
    ------
    ValueError
        What `base_url_problem` says. The message never repeats the URL, which may hold a password.
    """
    problem = base_url_problem(url)
    if problem is not None:
        raise ValueError(f"the base URL {problem}")
    scheme, _, rest = url.rstrip("/").partition("://")
    place, slash, prefix = rest.partition("/")
    return f"{scheme.lower()}://{place.lower()}{slash}{prefix}"


def checked_path(path: str) -> str:
    """Return ``path`` if it can go onto the wire unchanged: encoded already, absolute, no dot segments."""
    if not PATH.fullmatch(path):
        raise InvalidRequestError(f"not an encoded absolute path: {path[:200]!a}")
    return path


def query(params: Params) -> str:
    """Return the query string, ``name=a&name=b`` for a sequence; None and empty sequences are left out.

    Every byte but the unreserved ones is percent-encoded, a space as ``%20``: ``+`` (httpx's default) reaches
    some servers as a plus sign, and page keys must arrive exactly.
    """
    pairs: list[str] = []
    try:
        for key, value in params.items():
            if value is None:
                continue
            values = (value,) if isinstance(value, str) else value
            name = quote(key, safe="")
            pairs.extend(f"{name}={quote(each, safe='')}" for each in values)
    except (UnicodeEncodeError, TypeError):
        pass
    else:
        return "&".join(pairs)
    raise InvalidRequestError("a query holds something that is not text, or a lone surrogate")
