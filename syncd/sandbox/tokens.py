"""The bearer tokens that are accepted: a static one, and those fetched with client credentials."""

from collections.abc import Callable
from random import Random

CLIENT_ID = "sandbox"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - opens nothing but generated data on loopback


class Tokens:
    """Issued tokens and when each runs out."""

    def __init__(self, static: str, now: Callable[[], float], jitter: Random) -> None:
        self.static = static
        self.static_accepted = True
        self._now = now
        self._chance = jitter
        self._ends: dict[str, float] = {}

    def issue(self, lifetime: float) -> str:
        """Return a new token that is accepted for `lifetime` seconds."""
        now = self._now()
        self._ends = {token: end for token, end in self._ends.items() if end > now}
        token = f"sandbox-{self._chance.getrandbits(160):040x}"
        self._ends[token] = now + lifetime
        return token

    def revoke(self) -> None:
        """Accept none of the issued tokens any more; new ones can be fetched."""
        self._ends.clear()

    def accepts(self, authorization: str | None) -> bool:
        """Judge an Authorization header."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        if token == self.static:
            return self.static_accepted
        return self._ends.get(token, float("-inf")) > self._now()
