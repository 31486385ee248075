"""Variables that Kubernetes sets for Services. The loader ignores them.

For each Service of a namespace, Kubernetes adds variables to every pod: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`,
`NAME_PORT` and others (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). A
Service named `syncd` or `syncd-status` therefore sets variables that begin with `SYNCD_`. The value is compared too: a
Service named `syncd-status` sets `SYNCD_STATUS_PORT` to `tcp://10.0.0.1:8080`, and `8080` is a value of the setting.
"""

from __future__ import annotations

import re

from syncd.urls import is_address

_PROTOCOL = r"(?:TCP|UDP|SCTP)"
_LINK = re.compile(r"(?:tcp|udp|sctp)://(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_NAMES = (
    (re.compile(r"\w+_SERVICE_HOST", re.ASCII), "address"),
    (re.compile(r"\w+_SERVICE_PORT(?:_\w+)?", re.ASCII), "port"),
    (re.compile(rf"\w+_PORT_[0-9]+_{_PROTOCOL}_PROTO", re.ASCII), "protocol"),
    (re.compile(rf"\w+_PORT_[0-9]+_{_PROTOCOL}_PORT", re.ASCII), "port"),
    (re.compile(rf"\w+_PORT_[0-9]+_{_PROTOCOL}_ADDR", re.ASCII), "address"),
    (re.compile(rf"\w+_PORT(?:_[0-9]+_{_PROTOCOL})?", re.ASCII), "link"),
)
_LAST_PORT = 65535


def is_service_variable(name: str, value: str) -> bool:
    """Return whether both the name and the value have the form of a Service's variable."""
    return any(pattern.fullmatch(name) and _has_form(form, value) for pattern, form in _NAMES)


def _has_form(form: str, value: str) -> bool:
    if form == "address":
        return is_address(value)
    if form == "port":
        return _is_port(value)
    if form == "protocol":
        return value in {"tcp", "udp", "sctp"}
    link = _LINK.fullmatch(value)
    return link is not None and is_address(link["v6"] or link["v4"]) and _is_port(link["port"])


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value) <= _LAST_PORT
