"""Hosts and URLs: which ones a secret may be sent to. The settings and the client use the same rules.

A host name consists of ASCII letters, as it is sent. A name in other letters is written in its `xn--` form. A value
that these functions accept does not fail later because of its form.
"""

from __future__ import annotations

import ipaddress
import os
import re

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"(?:.*\.)?[0-9]+\.?")
"""Resolvers interpret a name that ends in a number as an IPv4 address."""
_ADDRESS_6 = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,15})?")
_URL = re.compile(r"(?P<scheme>https?)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<more>.*)", re.DOTALL | re.IGNORECASE)
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65535
_USER = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")
"""A user name and a password as they appear in a URL: percent-encoded."""
_CREDENTIALS = re.compile(r"(?P<scheme>[^:/?#]+://)[^/?#]*@")
_PORTS = {"http": 80, "https": 443}
"""The port of each scheme if the URL names none."""
PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+")
"""A path that can be sent unchanged: percent-encoded, absolute, without dot segments."""
PERCENT_ENCODE = "percent-encode it: @ is %40, / is %2F, ? is %3F, # is %23, % is %25"
"""What to do about a special character in a user name or password."""


def is_host(text: str) -> bool:
    """Return whether a text is a host name or an IP address (version 6 without brackets)."""
    if ":" in text:
        return bool(_ADDRESS_6.fullmatch(text)) and is_address(text)
    return bool(_NAME.fullmatch(text)) and (not _NUMBER.fullmatch(text) or is_address(text))


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    return _address(text) is not None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def origin(base_url: str) -> str:
    """Return the normal form of a valid base URL, so that two spellings of one address are the same text.

    Scheme and host are in lower case, the scheme's own port and trailing slashes are removed, an IPv6 address is
    in its short form, and percent-encoded bytes are in upper case.

    Raises
    ------
    ValueError
        The URL is not valid; the message does not repeat it, since it may contain a password.
    """
    problem = base_url_problem(base_url)
    parts = _URL.fullmatch(base_url)
    place = None if parts is None else _PLACE.fullmatch(parts["place"])
    if problem is not None or parts is None or place is None:
        raise ValueError(f"the base URL {problem}")
    scheme, host = parts["scheme"].lower(), place["host"].strip("[]").lower().rstrip(".")
    address = _address(host)
    host = host if address is None else str(address)
    port = "" if int(place["port"] or _PORTS[scheme]) == _PORTS[scheme] else f":{int(place['port'])}"
    path = re.sub("%[0-9a-f]{2}", lambda encoded: encoded[0].upper(), parts["path"].rstrip("/"), flags=re.IGNORECASE)
    return f"{scheme}://[{host}]{port}{path}" if ":" in host else f"{scheme}://{host}{port}{path}"


def base_url_problem(url: str) -> str | None:
    """Return why Albert's base URL is refused; None for an accepted one.

    Accepted is an http(s) URL with a host and without user name, query or fragment; plain http for loopback only. The
    text never repeats the URL, which may contain a password.
    """
    parts = _URL.fullmatch(url)
    if parts is not None and ("@" in parts["place"] or parts["more"]):
        return "must have no user name, query or fragment"
    place = None if parts is None else _place(parts["place"])
    if parts is None or place is None:
        return "must be a URL such as https://app.albertinvent.com"
    host, path = place["host"].strip("[]"), parts["path"].rstrip("/")
    if not is_host(host):
        return "must be a URL with a host name in ASCII letters or an IP address, such as https://app.albertinvent.com"
    if path and not PATH.fullmatch(path):
        return "must have a percent-encoded path without the segments . and .."
    if parts["scheme"].lower() == "http" and not is_loopback(host):
        return "must begin with https://, because the token is sent unencrypted to loopback only"
    return None


def proxy_problem(url: str) -> str | None:
    """Return why the URL of a proxy is refused; None for an accepted one.

    Accepted is an http(s) URL with a host, with or without user name, password and port, and without a path. The text
    never repeats the URL.
    """
    if re.match(r"socks\w*://", url, re.IGNORECASE):
        return "must be an http or https proxy; SOCKS proxies are not supported"
    if (problem := _open_problem(url)) is not None:
        return problem
    parts = _URL.fullmatch(url)
    if parts is not None and (parts["path"].strip("/") or parts["more"]):
        return "must end after the host and port"
    return None


def notify_url_problem(url: str) -> str | None:
    """Return why the URL of a notification receiver is refused; None for an accepted one. The URL is not repeated."""
    if (problem := _open_problem(url)) is not None:
        return problem
    parts = _URL.fullmatch(url)
    if parts is not None and "#" in parts["more"]:
        return "must have no fragment (#...)"
    if parts is not None and not re.fullmatch(r"[\x21-\x7e]*", parts["path"] + parts["more"]):
        return "must be percent-encoded"
    return None


def without_credentials(url: str) -> str:
    """Return a URL without user name and password. The path and the query are unchanged."""
    match = _CREDENTIALS.match(url)
    return url if match is None else match["scheme"] + url[match.end() :]


def shown_database(url: str) -> str:
    """Return a database for people: the absolute path of a SQLite file, or a server's URL without its credentials."""
    scheme, _, path = url.partition(":///")
    return os.path.abspath(path) if scheme.startswith("sqlite") else without_credentials(url)  # noqa: PTH100 - also for a name that no file can have


def _open_problem(url: str) -> str | None:
    """Return what is wrong with the scheme, the credentials or the host of a URL that may have credentials."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return "must begin with http:// or https://"
    user, at, place = parts["place"].rpartition("@")
    rest = parts["path"] + parts["more"]
    if (at and not _USER.fullmatch(user)) or (not at and "@" in rest and _place(place) is None):
        return f"has a special character in the user name or password; {PERCENT_ENCODE}"
    host_and_port = _place(place)
    if host_and_port is None or not is_host(host_and_port["host"].strip("[]")):
        return "must have a host name in ASCII letters or an IP address, and a port from 1 to 65535 or none"
    return None


def _place(text: str) -> re.Match[str] | None:
    """Return the host and the port of a URL; None if there is no host or the port is out of range."""
    place = _PLACE.fullmatch(text)
    return place if place is not None and 0 < int(place["port"] or _LAST_PORT) <= _LAST_PORT else None
