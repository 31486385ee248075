"""Tokens: a fixed one, one that is read again when it was rotated, or one had for client credentials.

Every kind answers two questions of the session: which token is at hand (at once, no waiting), and which one
to use after that was refused. A renewal is one request however many wait for it, and nobody owns it: whoever
holds the lock asks; if that one is cancelled, the next in line does.
"""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

import anyio
from pydantic import SecretStr

from syncd.albert.errors import AlbertAuthError, AlbertException
from syncd.albert.urls import checked_base_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from syncd.albert.wire import Answer

TOKEN_PATH = "/api/v3/login/oauth/token"  # noqa: S105 - a path
MARGIN = 60.0
"""Seconds before its end that a token is renewed, but never before half of its life has passed."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token; compared by identity, since a server may give the same text twice."""

    secret: SecretStr
    header: str = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Token:
        """Return the token for its text, surrounding white space stripped.

        Raises
        ------
        ValueError
            It is empty, or cannot stand in a header.
        """
        text = text.strip()
        if not _VISIBLE.fullmatch(text):
            raise ValueError("the token is empty, or holds characters that cannot stand in a header")
        return cls(SecretStr(text), f"Bearer {text}")


class TokenRequest(Protocol):
    """Sends a request for a token."""

    def __call__(self, base_url: str | None, form: bytes) -> Awaitable[Answer]:
        """Send the form to the endpoint below a base URL (None: the session's); give a 2xx or raise."""


class Credentials(Protocol):
    """What a session asks of any kind of credentials."""

    def at_hand(self) -> Token | None:
        """Return a token that needs no waiting, if there is one."""

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:
        """Return another token than ``rejected``, or None when there is no other."""

    def secrets(self) -> list[str]:
        """Return all that must not be quoted."""


class StaticToken:
    """One token for good."""

    def __init__(self, token: str | SecretStr) -> None:
        self._token = Token.of(_revealed(token))

    def at_hand(self) -> Token | None:
        """Return the token."""
        return self._token

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:  # noqa: ARG002
        """Return None: there is no other."""
        return None

    def secrets(self) -> list[str]:
        """Return the token."""
        return [self._token.secret.get_secret_value()]


class TokenReader:
    """A token read from elsewhere (a mounted secret file), and read again when it is refused."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._token: Token | None = None

    def at_hand(self) -> Token | None:
        """Return what was read last."""
        return self._token

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:  # noqa: ARG002
        """Read again; None if that gives what was rejected."""
        if self._token is not None and self._token is not rejected:
            return self._token  # another request has read it in the meantime
        token = self._fresh()
        if rejected is not None and token.header == rejected.header:
            return None
        self._token = token
        return token

    def _fresh(self) -> Token:
        try:
            return Token.of(self._read())
        except OSError as error:
            raise AlbertAuthError(f"the token cannot be read: {error.strerror}") from error
        except ValueError:
            pass
        raise AlbertAuthError("what was read as the token is empty, or cannot stand in a header")

    def secrets(self) -> list[str]:
        """Return the token, if it was read."""
        return [] if self._token is None else [self._token.secret.get_secret_value()]


class AlbertClientCredentials:
    """An OAuth2 client id and secret, exchanged for tokens at ``POST /api/v3/login/oauth/token``.

    Parameters
    ----------
    id : SecretStr | str | Callable[[], str]
        The client id, or a function that reads it: that is called before every request for a token.
    secret : SecretStr | str | Callable[[], str]
        The client secret, or a function that reads it.
    base_url : str | None
        Where the token endpoint is; the session's base URL if None.
    clock : Callable[[], float]
        Monotonic seconds.

    Notes
    -----
    One may serve several sessions of one event loop. A token is kept for its ``expires_in`` less 60 seconds,
    at least for half of it; without a usable ``expires_in``, until it is refused.
    """

    def __init__(
        self,
        *,
        id: SecretStr | str | Callable[[], str],
        secret: SecretStr | str | Callable[[], str],
        base_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = (id, secret)
        self.id = "" if callable(id) else _revealed(id)
        self.secret = SecretStr("" if callable(secret) else _revealed(secret))
        self.base_url = None if base_url is None else checked_base_url(base_url)
        self._clock = clock
        self._lock = anyio.Lock()
        self._token: Token | None = None
        self._renew_at = 0.0
        self._failures = 0
        self._failure: AlbertException | None = None
        if not (callable(id) or self.id) or not (callable(secret) or self.secret):
            raise ValueError("the client id and the client secret must not be empty")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, secret={self.secret!r}, base_url={self.base_url!r})"

    def at_hand(self) -> Token | None:
        """Return the token while it is fresh."""
        return self._token if self._token is not None and self._clock() < self._renew_at else None

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token:
        """Return a token that is not ``rejected``; one request for all who wait, its failure shared too."""
        if self._token is rejected:
            self._token = None  # nobody else begins with it
        failures = self._failures
        async with self._lock:
            token = self.at_hand()
            if token is not None:
                return token
            if self._failure is not None and self._failures != failures:
                raise copy.copy(self._failure) from self._failure
            try:
                return await self._fetch(ask)
            except AlbertException as error:
                self._failure = error
                self._failures += 1
                raise

    async def _fetch(self, ask: TokenRequest) -> Token:
        self._read()
        form = {
            "grant_type": "client_credentials",
            "client_id": self.id,
            "client_secret": self.secret.get_secret_value(),
        }
        asked_at = self._clock()
        answer = await ask(self.base_url, urlencode(form).encode())
        token, lifetime = _granted(answer.content)
        self._token = token
        self._renew_at = asked_at + max(lifetime - MARGIN, lifetime / 2)
        return token

    def _read(self) -> None:
        """Take up what may have been rotated; what is no function stays as it is."""
        try:
            name, secret = (source().strip() if callable(source) else _revealed(source) for source in self._sources)
        except OSError as error:
            raise AlbertAuthError(f"the client credentials cannot be read: {error.strerror}") from error
        except ValueError:
            name = secret = ""  # raised outside, so that no context quotes the file
        if not name or not secret:
            raise AlbertAuthError("what was read as the client credentials is empty, or no text")
        self.id, self.secret = name, SecretStr(secret)

    def secrets(self) -> list[str]:
        """Return the client secret and the current token."""
        token = [] if self._token is None else [self._token.secret.get_secret_value()]
        return [self.secret.get_secret_value(), *token]


def _granted(body: bytes) -> tuple[Token, float]:
    """Return the token of a grant and its seconds to live."""
    try:
        grant = json.loads(body)
        token = Token.of(grant["access_token"])
        lifetime = grant.get("expires_in")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # raised outside, so that no context quotes the body
    else:
        known = isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0
        return token, float(lifetime) if known else float("inf")
    raise AlbertAuthError("the token endpoint's answer holds no usable access_token")


def _revealed(secret: SecretStr | str) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
