"""Base URLs that a secret may be sent to, and queries that arrive as they were written."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from syncd.albert.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Params: TypeAlias = Mapping[str, str | Sequence[str] | None]

_LAST_PORT = 65535
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+")


def checked_base_url(url: str) -> str:
    """Return ``url`` without a trailing slash, ready for a path to be appended.

    Raises
    ------
    ValueError
        Not an http(s) URL with a host; holds a user name, a query or a fragment; or is plain http to anything
        but a loopback host. The message never repeats the URL, which may hold a password.
    """
    if _UNSAFE.search(url):
        raise ValueError("the base URL holds a space, a control character or a backslash")
    parsed = _parsed(url)
    if parsed is None or parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("the base URL must look like https://host or https://host:port/prefix")
    if "@" in url.split("/", 3)[2]:
        raise ValueError("the base URL must not hold a user name or password")
    if "?" in url or "#" in url:
        raise ValueError("the base URL must not hold a query or a fragment")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError("the base URL must begin with https:// (http:// is for loopback hosts only)")
    return str(parsed).rstrip("/")


def _parsed(url: str) -> httpx.URL | None:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None  # raised by the caller, so that no context holds the URL
    return parsed if parsed.port is None or 0 < parsed.port <= _LAST_PORT else None


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_path(path: str) -> str:
    """Return ``path`` if it can go onto the wire unchanged: encoded already, absolute, no dot segments."""
    if not _PATH.fullmatch(path):
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
