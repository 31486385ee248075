"""Faults between client and server: drawn at random, or scripted for single requests."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Literal, get_args

from aiohttp import web
from pydantic import ConfigDict

FaultName = Literal[
    "error_500",
    "error_500_after",
    "error_503_retry_after",
    "forbidden",
    "gateway_404",
    "lost_before",
    "lost_after",
    "hang_before",
    "hang_after",
    "garbled",
    "cut",
    "slow",
]
FAULT_NAMES: tuple[FaultName, ...] = get_args(FaultName)

Answered = web.StreamResponse | None
# The name of a fault, a status to answer immediately, or a function; if it returns None, the request continues.
Action = FaultName | int | Callable[[web.BaseRequest], Answered | Awaitable[Answered]]
Match = str | Callable[[web.BaseRequest], bool]


@dataclass
class Faults:
    """Probabilities from 0 to 1 for each kind of fault; at most one applies to a request, in the order below."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_default=True)

    error_500: float = field(default=0.0, metadata={"help": "Chance of a 500 before anything is done."})
    error_500_after: float = field(default=0.0, metadata={"help": "Chance of a 500 although it was done."})
    error_503_retry_after: float = field(
        default=0.0, metadata={"help": "Chance of a 503 with Retry-After before anything is done."}
    )
    forbidden: float = field(default=0.0, metadata={"help": "Chance of a transient 403."})
    gateway_404: float = field(
        default=0.0, metadata={"help": "Chance that a gateway answers 404 with HTML before anything is done."}
    )
    lost_before: float = field(
        default=0.0, metadata={"help": "Chance that the connection breaks before anything is done."}
    )
    lost_after: float = field(
        default=0.0, metadata={"help": "Chance that it is done and the connection breaks without an answer."}
    )
    hang_before: float = field(default=0.0, metadata={"help": "Chance that nothing is done and no answer ever comes."})
    hang_after: float = field(default=0.0, metadata={"help": "Chance that it is done and no answer ever comes."})
    garbled: float = field(default=0.0, metadata={"help": "Chance that it is done and answered by 200 and HTML."})
    cut: float = field(default=0.0, metadata={"help": "Chance that it is done and the answer ends half-way."})
    slow: float = field(default=0.0, metadata={"help": "Chance that the answer takes slow_seconds longer."})
    slow_seconds: float = field(default=1.0, metadata={"help": "Seconds that a slow answer takes longer."})
    retry_after: float = field(default=1.0, metadata={"help": "The Retry-After of a 503, in seconds."})
    only: list[str] = field(
        default_factory=list, metadata={"help": "A method that faults are restricted to; none given: all."}
    )
    login: bool = field(default=False, metadata={"help": "Faults strike the token endpoint too."})

    def draw(self, method: str, rng: Random) -> FaultName | None:
        """Return the fault for a request of this method; None for no fault."""
        if self.only and method not in self.only:
            return None
        for name in FAULT_NAMES:
            probability: float = getattr(self, name)
            if probability and rng.random() < probability:
                return name
        return None


@dataclass
class Script:
    """An action for the next `times` requests that match."""

    method: str
    match: Match
    action: Action
    times: int

    def fits(self, request: web.BaseRequest) -> bool:
        """Return whether the script applies to a request; `*` matches any method."""
        if self.method not in ("*", request.method):
            return False
        if callable(self.match):
            return self.match(request)
        return request.raw_path.startswith(self.match)


class Scripts:
    """The queue of scripts; the oldest one that applies to a request is used."""

    def __init__(self) -> None:
        self._waiting: list[Script] = []

    def __len__(self) -> int:
        return sum(script.times for script in self._waiting)

    def add(self, script: Script) -> None:
        """Add a script at the end of the queue."""
        self._waiting.append(script)

    def take(self, request: web.BaseRequest) -> Action | None:
        """Return the action of the first script that applies, and count the use; None if none applies."""
        for script in self._waiting:
            if script.fits(request):
                script.times -= 1
                if script.times <= 0:
                    self._waiting.remove(script)
                return script.action
        return None
