"""Base URLs, paths and queries, as they are sent. The session calls these functions."""

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
    """Return a base URL with its host in small letters and without a trailing slash, so that a path can follow.

    Raises
    ------
    ValueError
        A secret must not be sent to this URL; see `base_url_problem`. The message does not repeat the URL.
    """
    problem = base_url_problem(url)
    if problem is not None:
        raise ValueError(f"the base URL {problem}")
    scheme, _, rest = url.rstrip("/").partition("://")
    place, slash, prefix = rest.partition("/")
    return f"{scheme.lower()}://{place.lower()}{slash}{prefix}"


def checked_path(path: str) -> str:
    """Return a path that can be sent unchanged: percent-encoded, absolute, without dot segments.

    Raises
    ------
    InvalidRequestError
        The path has another form.
    """
    if not PATH.fullmatch(path):
        raise InvalidRequestError(f"not an encoded absolute path: {path[:200]!a}")
    return path


def query(params: Params) -> str:
    """Return the query string, ``name=a&name=b`` for a sequence. None and empty sequences are left out.

    Every byte that is not unreserved is percent-encoded. A space is ``%20``: some servers read ``+`` (the default of
    httpx) as a plus sign, and page keys must arrive exactly.

    Raises
    ------
    InvalidRequestError
        A name or a value is not text, or contains a lone surrogate.
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
    raise InvalidRequestError("a query contains something that is not text, or a lone surrogate")
