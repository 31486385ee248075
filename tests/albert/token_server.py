"""A scripted server that issues tokens, and a clock for their expiry. The tests of tokens and deadlines use it."""

from __future__ import annotations

from syncd.albert.auth import TOKEN_PATH
from tests.albert.client_wire import Answer, Seen, Wire, reply

SECRET = "s3cr3t/of+the=client"
API = "/api/v3/chats/sessions"


class Issuer:
    """A server that issues numbered tokens and accepts those in `good`."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.good: set[str] = set()
        self.expires_in: object = 3600
        self.same_text = False
        wire.default = self.answer

    def answer(self, seen: Seen) -> Answer:
        if seen.path == TOKEN_PATH:
            token = f"issued-token-{0 if self.same_text else len(self.token_requests)}"
            self.good.add(token)
            return reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in})
        taken = seen.headers["authorization"].removeprefix("Bearer ") in self.good
        return reply(200, {"Items": []}) if taken else reply(401, {"message": "expired"})

    @property
    def token_requests(self) -> list[Seen]:
        return [each for each in self.wire.seen if each.path == TOKEN_PATH]

    @property
    def api_requests(self) -> list[Seen]:
        return [each for each in self.wire.seen if each.path != TOKEN_PATH]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now
