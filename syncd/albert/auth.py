"""Tokens: a fixed one, one that is read again after a rotation, or one for client credentials.

The session calls two methods of each kind. `at_hand` returns a token without waiting. `renewed` returns another one
after a refusal. A renewal is one request, however many tasks wait for it. The task that holds the lock sends it; if
that task is cancelled, the next one does.
"""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import anyio
from pydantic import SecretStr

from syncd.albert.errors import AlbertAuthError, AlbertException, AlbertResponseError
from syncd.albert.session_arguments import check_arguments
from syncd.albert.urls import checked_base_url
from syncd.claims import tenant_of, tenant_of_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from syncd.albert.wire import Answer

TOKEN_PATH = "/api/v3/login/oauth/token"  # noqa: S105 - a path
MARGIN = 60.0
"""Seconds before its expiry that a token is renewed, but not before half of its lifetime."""
LONGEST_LIFETIME = 1e9
"""Seconds, about 31 years: a longer lifetime of a token may not even be a number that Python can add."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token. Tokens are compared by identity, because a server can return the same text twice.

    `tenant_id` is the tenant that the token response or the token's own claims name. It is None for an opaque token.
    """

    secret: SecretStr
    header: str = field(repr=False)
    tenant_id: str | None = None

    @classmethod
    def of(cls, text: str, *, tenant_id: str | None = None) -> Token:
        """Return the token for its text without surrounding white space.

        Parameters
        ----------
        tenant_id : str | None
            The tenant that the token response names; the token's claims are read if it is None.

        Raises
        ------
        ValueError
            The text is empty, or cannot be the value of a header.
        """
        if not isinstance(text, str):
            raise ValueError("the token is not text")  # noqa: TRY004 - a function returned it
        text = text.strip()
        if not _VISIBLE.fullmatch(text):
            raise ValueError("the token is empty, or contains a character that cannot be sent in a header")
        return cls(SecretStr(text), f"Bearer {text}", tenant_id or tenant_of_token(text))


class TokenRequest(Protocol):
    """Sends a request for a token."""

    def __call__(self, base_url: str | None, form: bytes) -> Awaitable[Answer]:
        """Send a form to the token endpoint of a base URL (None: that of the session) and return its 2xx answer.

        Raises
        ------
        AlbertException
            The status is not 2xx, or there is no answer.
        """


class Credentials(Protocol):
    """The methods that a session calls, on any kind of credentials."""

    def at_hand(self) -> Token | None:
        """Return a token that is available without waiting; None if there is none."""

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:
        """Return another token than ``rejected``; None if there is no other.

        Raises
        ------
        AlbertAuthError
            No token was obtained.
        AlbertException
            As ``ask`` says.
        """

    def secrets(self) -> list[str]:
        """Return the texts that no message may contain."""

    def reload(self) -> None:
        """Forget the token, so that the next request reads the credentials again."""


class StaticToken:
    """A token that does not change.

    Raises
    ------
    ValueError
        The token is empty, or cannot be the value of a header.
    """

    def __init__(self, token: str | SecretStr) -> None:
        self._token = Token.of(_revealed(token))

    def at_hand(self) -> Token | None:
        """Return the token."""
        return self._token

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:  # noqa: ARG002
        """Return None: there is no other token."""
        return None

    def secrets(self) -> list[str]:
        """Return the token."""
        return [self._token.secret.get_secret_value()]

    def reload(self) -> None:
        """Do nothing: the token is fixed."""


class TokenReader:
    """A token that a function reads, such as one in a mounted file. It is read again after a refusal."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._token: Token | None = None

    def at_hand(self) -> Token | None:
        """Return the token that was read last."""
        return self._token

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token | None:  # noqa: ARG002
        """Read the token again; return None if it is the rejected one.

        Raises
        ------
        AlbertAuthError
            The token cannot be read, is empty, or cannot be the value of a header.
        """
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
            raise AlbertAuthError(f"the token cannot be read: {error.strerror or type(error).__name__}") from error
        except ValueError:
            pass
        except Exception as error:
            raise AlbertAuthError(f"the function that reads the token failed: {type(error).__name__}") from error
        raise AlbertAuthError(
            "the token that was read is not text, is empty, or contains a character that cannot be sent"
        )

    def secrets(self) -> list[str]:
        """Return the token; nothing before it was read."""
        return [] if self._token is None else [self._token.secret.get_secret_value()]

    def reload(self) -> None:
        """Forget the token, so that the next request reads it again."""
        self._token = None


class AlbertClientCredentials:
    """An OAuth2 client id and secret, exchanged for tokens at ``POST /api/v3/login/oauth/token``.

    Parameters
    ----------
    id : SecretStr | str | Callable[[], str]
        The client id, or a function that reads it. The function is called before every request for a token.
    secret : SecretStr | str | Callable[[], str]
        The client secret, or a function that reads it.
    base_url : str | None
        The base URL of the token endpoint; None for that of the session.
    clock : Callable[[], float]
        Monotonic seconds.

    Notes
    -----
    Several sessions of one event loop can share an instance. A token is used for its ``expires_in`` less 60 seconds,
    and at least for half of it. Without a usable ``expires_in`` it is used until it is refused.

    Raises
    ------
    ValueError
        The id or the secret is empty, or a secret must not be sent to the base URL.
    """

    def __init__(
        self,
        *,
        id: SecretStr | str | Callable[[], str],
        secret: SecretStr | str | Callable[[], str],
        base_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_arguments(id=id, secret=secret)
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
        """Return the token before it is due for renewal; None afterwards."""
        return self._token if self._token is not None and self._clock() < self._renew_at else None

    async def renewed(self, rejected: Token | None, ask: TokenRequest) -> Token:
        """Return a token that is not ``rejected``. All waiting tasks share one request, and its failure.

        Raises
        ------
        AlbertAuthError
            The credentials cannot be read or were refused, or the answer contains no token.
        AlbertResponseError
            The answer is not a JSON object.
        AlbertException
            As ``ask`` says.
        """
        if self._token is rejected:
            self._token = None  # no other request begins with it
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
        requested_at = self._clock()
        answer = await ask(self.base_url, urlencode(form).encode())
        token, lifetime = _granted(answer.content)
        self._token = token
        self._renew_at = requested_at + max(lifetime - MARGIN, lifetime / 2)
        return token

    def _read(self) -> None:
        """Read the id and the secret again, as far as they are functions."""
        try:
            client_id, secret = (
                source().strip() if callable(source) else _revealed(source) for source in self._sources
            )
        except OSError as error:
            raise AlbertAuthError(
                f"the client credentials cannot be read: {error.strerror or type(error).__name__}"
            ) from error
        except ValueError:
            client_id = secret = ""  # raised below, so that no context quotes the file
        except Exception as error:
            raise AlbertAuthError(
                f"a function that reads the client credentials failed: {type(error).__name__}"
            ) from error
        if not client_id or not secret:
            raise AlbertAuthError("the client credentials that were read are empty, or not text")
        self.id, self.secret = client_id, SecretStr(secret)

    def secrets(self) -> list[str]:
        """Return the client secret and the current token."""
        token = [] if self._token is None else [self._token.secret.get_secret_value()]
        return [self.secret.get_secret_value(), *token]

    def reload(self) -> None:
        """Forget the token, so that the next request reads the credentials again and asks for another."""
        self._token = None


def _granted(body: bytes) -> tuple[Token, float]:
    """Return the token of a grant and its lifetime in seconds.

    Raises
    ------
    AlbertAuthError
        The answer contains no token.
    AlbertResponseError
        The answer is not a JSON object, so it is not from Albert.
    """
    grant: Any = None
    try:
        grant = json.loads(body)
        token = Token.of(grant["access_token"], tenant_id=tenant_of(grant))
        lifetime = grant.get("expires_in")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # raised below, so that no context quotes the body
    else:
        known = isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0
        return token, float(min(lifetime, LONGEST_LIFETIME)) if known else float("inf")
    if isinstance(grant, dict):
        raise AlbertAuthError("the answer of the token endpoint has no usable access_token")
    raise AlbertResponseError("the answer of the token endpoint is not a JSON object")


def _revealed(secret: SecretStr | str) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret
