"""Hosts that can be asked, and base URLs that a secret may be sent to: one rule for the settings and for the client.

A name is of ASCII letters, as it goes onto the wire: one in other letters is written as its `xn--` form. What is taken
here fails nowhere later because of how it is written.
"""

from __future__ import annotations

import ipaddress
import re

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"(?:.*\.)?[0-9]+\.?")
"""A name that ends in a number is taken for an IPv4 address by whoever resolves it."""
_ADDRESS_6 = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]{1,15})?")
_BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<more>.*)", re.DOTALL | re.IGNORECASE
)
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65535
PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+")
"""A path that goes onto the wire unchanged: encoded already, absolute, no dot segments."""


def is_host(text: str) -> bool:
    """Whether this is a host's name, or an IP address (version 6 without brackets)."""
    if ":" in text:
        return bool(_ADDRESS_6.fullmatch(text)) and _address(text) is not None
    return bool(_NAME.fullmatch(text)) and (not _NUMBER.fullmatch(text) or _address(text) is not None)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def base_url_problem(url: str) -> str | None:
    """Say what a base URL must be and is not; None when nothing is wrong.

    An http(s) URL with a host; no user name, query or fragment; plain http to loopback alone. The words never repeat
    the URL, which may hold a password.
    """
    parts = _BASE_URL.fullmatch(url)
    if parts is not None and ("@" in parts["place"] or parts["more"]):
        return "must have no user, query or fragment"
    place = None if parts is None else _PLACE.fullmatch(parts["place"])
    if parts is None or place is None or not 0 < int(place["port"] or _LAST_PORT) <= _LAST_PORT:
        return "must be a URL such as https://app.albertinvent.com"
    host, path = place["host"].strip("[]"), parts["path"].rstrip("/")
    if not is_host(host):
        return "must be a URL such as https://app.albertinvent.com, and its host a name of ASCII letters or an address"
    if path and not PATH.fullmatch(path):
        return "must have a path that is percent-encoded and has no segment . or .."
    if parts["scheme"].lower() == "http" and not is_loopback(host):
        return "must be https: a token is not sent in the clear, except to loopback"
    return None
