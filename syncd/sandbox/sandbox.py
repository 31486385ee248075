"""The interface of the sandbox: its behaviour, its effects, and changes by other users."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from syncd.sandbox.api import Api
from syncd.sandbox.faults import Action, Faults, Match, Script, Scripts
from syncd.sandbox.folders import Folders
from syncd.sandbox.generate import USERS, generate
from syncd.sandbox.habits import Habits
from syncd.sandbox.limits import Bucket
from syncd.sandbox.session import Session, Wire, decode, render
from syncd.sandbox.store import Effect, Store
from syncd.sandbox.tokens import CLIENT_ID, CLIENT_SECRET, Tokens

_REQUESTS_KEPT: Final = 100_000
_WIRE_NAMES: Final = {
    "source_session_id": "sourceSessionId",
    "parent_id": "parentId",
    "automation_id": "automationId",
    "automation_run_id": "automationRunId",
    "last_message_at": "lastMessageAt",
}


@dataclass(slots=True)
class Request:
    """A request as it was received; the status is 0 until an answer is sent."""

    method: str
    raw_path: str
    at: float
    status: int = 0


class Sandbox:
    """A stand-in Albert tenant; `serve` puts it on a socket.

    Parameters
    ----------
    sessions : int
        How many generated sessions there are at the start.
    seed : int
        Determines the sessions, and the faults that are drawn at random.
    habits, faults
        Both may be changed, or replaced, while the server runs.
    token : str
        The static bearer token; client credentials are exchanged for others.
    now : Callable[[], float]
        Seconds since 1970; governs lags, lifetimes, limits and audit times. Generated sessions are from before 2026.
    sleep : Callable[[float], Awaitable[None]]
        Waits for latency and slow answers.
    record_requests : bool
        Off for load tests.
    """

    client_id: Final = CLIENT_ID
    client_secret: Final = CLIENT_SECRET

    def __init__(
        self,
        sessions: int = 0,
        *,
        seed: int = 1,
        habits: Habits | None = None,
        faults: Faults | None = None,
        token: str = "sandbox-token",  # noqa: S107 - opens nothing but generated data on loopback
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        record_requests: bool = True,
    ) -> None:
        self.habits = habits or Habits()
        self.faults = faults or Faults()
        self.record_requests = record_requests
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        self.now = now
        self.sleep = sleep
        self.rng = Random(seed)  # noqa: S311 - the same faults for the same seed
        self.scripts = Scripts()
        self.bucket = Bucket(now)
        self.store = Store(generate(sessions, seed), now)
        self.tokens = Tokens(token, now, Random(seed))  # noqa: S311 - its own, or logins would move the faults
        self.folders = Folders(now)
        self.api = Api(self.store, self.folders, self.tokens, now)
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The base URL without a trailing slash; raises RuntimeError outside of `serve`."""
        if self._url is None:
            raise RuntimeError("the sandbox has no address yet: use it inside `async with serve(sandbox)`")
        return self._url

    @url.setter
    def url(self, url: str | None) -> None:
        self._url = url

    @property
    def token(self) -> str:
        """The static bearer token."""
        return self.tokens.static

    @property
    def effects(self) -> list[Effect]:
        """All changes since the start, in their order, by the client and by other users."""
        return self.store.effects

    def live(self) -> dict[str, Wire]:
        """Return every existing session by its id, as it is sent."""
        return {session.id: self.wire(session) for session in self.store.truth.by_id.values()}

    def wire(self, session: Session) -> Wire:
        """Return a session as it is sent under the present habits."""
        return decode(render(session, extra_fields=self.habits.extra_fields))

    def create(self, *, source_session_id: str, name: str, parent_id: str | None = None, **fields: object) -> Wire:
        """Create a session as another user, without HTTP, even if the source id exists already.

        Further fields have their Python names or their names on the wire. `id` sets the id, which can be that of a
        deleted session.
        """
        wire = _wire_names({"name": name, "source_session_id": source_session_id, "parent_id": parent_id, **fields})
        wire = {key: value for key, value in wire.items() if value is not None}
        return self.wire(self.store.create(wire, USERS[0]))

    def update(self, id: str, **fields: object) -> Wire:
        """Change fields as another user; None removes a field. Raise KeyError without such a session."""
        return self.wire(self.store.update(id, _wire_names(fields), USERS[0]))

    def delete(self, id: str) -> Wire:
        """Delete a session as another user, and return it; raise KeyError without such a session."""
        return self.wire(self.store.delete(id))

    def script(self, method: str, match: Match, action: Action, times: int = 1) -> None:
        """Set an action for the next `times` requests that match; scripts precede limits, faults and tokens.

        Parameters
        ----------
        method : str
            The method, or `*` for any.
        match : str or Callable
            The beginning of the raw path, or a function of the aiohttp request.
        action : str, int or Callable
            The name of a fault, a status to answer immediately, or a (coroutine) function of the aiohttp request. It
            returns a response, or None to continue with the request.
        times : int
            The number of requests.
        """
        self.scripts.add(Script(method, match, action, times))

    def state(self) -> dict[str, int]:
        """Return the numbers of sessions, effects, requests and scripts."""
        kinds = [effect.kind for effect in self.effects]
        return {
            "live": len(self.store.truth.by_id),
            "gone": len(self.store.truth.gone),
            "effects": len(kinds),
            "created": kinds.count("created"),
            "updated": kinds.count("updated"),
            "deleted": kinds.count("deleted"),
            "requests": len(self.requests),
            "scripts": len(self.scripts),
        }


def _wire_names(fields: dict[str, object]) -> Wire:
    return {_WIRE_NAMES.get(key, key): value for key, value in fields.items()}
