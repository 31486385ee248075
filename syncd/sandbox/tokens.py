"""The bearer tokens that are accepted: a static one, and those obtained with client credentials."""

import base64
import json
from collections.abc import Callable, Mapping
from random import Random

CLIENT_ID = "sandbox"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - opens nothing but generated data on loopback


def web_token(claims: Mapping[str, object], signature: str) -> str:
    """Return a JSON Web Token with these claims; its signature is not checked, and makes it unique."""
    parts = ({"alg": "none", "typ": "JWT"}, dict(claims))
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join((*encoded, signature))


class Tokens:
    """Issued tokens and when each expires."""

    def __init__(self, static: str, now: Callable[[], float], rng: Random) -> None:
        self.static = static
        self.static_accepted = True
        self._now = now
        self._rng = rng
        self._ends: dict[str, float] = {}

    def issue(self, lifetime: float, *, claims: Mapping[str, object] | None = None) -> str:
        """Return a new token that is accepted for `lifetime` seconds; a JSON Web Token if `claims` are given."""
        now = self._now()
        self._ends = {token: end for token, end in self._ends.items() if end > now}
        token = f"sandbox-{self._rng.getrandbits(160):040x}"
        token = token if claims is None else web_token(claims, token)
        self._ends[token] = now + lifetime
        return token

    def revoke(self) -> None:
        """Reject all issued tokens from now on; new ones can be obtained."""
        self._ends.clear()

    def accepts(self, authorization: str | None) -> bool:
        """Return whether an Authorization header contains an accepted token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        if token == self.static:
            return self.static_accepted
        return self._ends.get(token, float("-inf")) > self._now()
