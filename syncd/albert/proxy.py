"""The proxy of a session: its address, and its credentials as a header. The session makes it, the transport uses it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from syncd.urls import proxy_problem, without_credentials

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An http(s) proxy.

    Attributes
    ----------
    url : str
        The URL without user name and password.
    place : str
        `host:port`, for messages.
    authorization : str | None
        The value of `Proxy-Authorization`; None without credentials. It stays out of `repr`.
    """

    url: str
    place: str
    authorization: str | None = field(default=None, repr=False)

    def secrets(self) -> list[str]:
        """Return the text that no message may contain: the credentials as they are in the header."""
        return [] if self.authorization is None else [self.authorization.removeprefix("Basic ")]


def proxy_of(given: str | SecretStr | None) -> Proxy | None:
    """Return the proxy for its URL, such as `http://user:p%40ss@proxy.example.com:3128`; None for None.

    Raises
    ------
    ValueError
        The URL is not that of an http(s) proxy. The message does not repeat it.
    """
    if given is None:
        return None
    url = given.get_secret_value() if isinstance(given, SecretStr) else given
    if (problem := proxy_problem(url)) is not None:
        raise ValueError(f"the proxy {problem}")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    place = host if parts.port is not None else f"{host}:{_PORTS[parts.scheme]}"
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    return Proxy(without_credentials(url).rstrip("/"), place, authorization)
