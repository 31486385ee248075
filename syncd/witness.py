"""Evidence that a 404 comes from Albert. `syncd.lookups` requires it before it accepts a 404 as proof.

A gateway, a missing route and a maintenance page answer 404 too. A 404 proves that a session is absent only if another
session, which is known to exist, answers 200 to the same kind of request at about the same time: the witness.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from syncd.albert import AlbertException, AlbertHTTPError
from syncd.mirror.store import witnesses
from syncd.mirror.store.witnesses import Candidate
from syncd.records.parse import GarbledError, read_session

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Reader

CACHE_SECONDS = 3.0
"""Seconds for which a witness confirms further 404s whose bodies have the same form."""
REPEAT_SECONDS = 2.0
"""Seconds after a check without a witness before the next check, however many operations wait."""
MOST_CANDIDATES = 5
"""Sessions that one check requests at most: the first ones may have been deleted in Albert."""
NEVER = float("-inf")


class FindCandidates(Protocol):
    """A function like `mirror.store.witnesses.candidates`."""

    def __call__(self, connection: Connection, /, *, place: float, limit: int) -> list[Candidate]:
        """Return sessions that should exist, up to `limit` on each side of a place from 0 to 1."""
        ...


class RequestKind(StrEnum):
    """The kinds of request that a witness can answer."""

    BY_ID = "by id"
    BY_SOURCE = "by source id"


class AbsenceUnprovenError(Exception):
    """A 404 or 410 that may come from a gateway. It decides nothing: repeat the request later.

    Attributes
    ----------
    status : int
        404 or 410.
    """

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """When a witness answered, in monotonic seconds, and the id or source id that it was requested by."""

    at: float
    witness: str


@dataclass(slots=True)
class _Route:
    """The state of one kind of request. All times are monotonic seconds."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    checks: int = 0
    """The number of checks that have begun and were not cancelled."""
    checked_at: float = NEVER
    """When the last check began."""
    failure: str | None = None
    """Why the last check found no witness; None when it found one."""
    trusted_from: float = NEVER
    """When a check succeeded after a failed one: an answer to an earlier request may still be the gateway's."""
    witness: str = ""
    """The id or source id that answered the last check; an empty text when none did."""
    confirmed: dict[str, _Confirmation] = field(default_factory=dict)
    """How a 404 with a body of this form was last confirmed."""


@dataclass(kw_only=True, eq=False)
class Witness:
    """Confirms 404s. One object serves all flows of a process, so that they share its evidence.

    Parameters
    ----------
    random_place : Callable[[], float]
        Draws a number from 0 to 1 that selects the candidates.
    find_candidates : FindCandidates
        Reads the sessions that should exist.
    """

    database: Reader
    albert: ChatSessionCollection
    clock: Clock
    log: FilteringBoundLogger
    random_place: Callable[[], float] = random.random
    find_candidates: FindCandidates = witnesses.candidates
    _routes: dict[RequestKind, _Route] = field(default_factory=lambda: {kind: _Route() for kind in RequestKind})

    def among(self, find_candidates: FindCandidates) -> Witness:
        """Return a witness that requests other sessions. A sweep has better ones: those that its pass has listed.

        It has evidence of its own: after a mass deletion the other sessions of the mirror may all be gone, and a check
        that failed with them says nothing about these.
        """
        return Witness(
            database=self.database,
            albert=self.albert,
            clock=self.clock,
            log=self.log,
            random_place=self.random_place,
            find_candidates=find_candidates,
        )

    async def confirm(self, kind: RequestKind, asked: str, error: AlbertHTTPError, *, sent_at: float) -> None:
        """Require that a 404 or 410 comes from Albert.

        Without another live session in the mirror, a 404 with a JSON body is accepted as proof.

        Parameters
        ----------
        asked : str
            The id, or the source id, that the request named. It is never its own witness.
        sent_at : float
            When the request was sent, in monotonic seconds.

        Raises
        ------
        AbsenceUnprovenError
            No witness answered 200, so the 404 decides nothing.
        DatabaseUnusableError
            The mirror cannot be read.
        """
        route, form = self._routes[kind], _form(error.body)
        checks, answered_at = route.checks, self.clock.monotonic()

        def is_confirmed() -> bool:
            return _is_confirmed(route, form, asked, sent_at=sent_at, answered_at=answered_at)

        if is_confirmed():
            return
        async with route.lock:
            if is_confirmed():
                return
            checked_since_the_answer = route.checks > checks and route.witness != asked
            if not checked_since_the_answer and not self._failed_lately(route):
                candidates = await self._candidates(kind, asked)
                if not candidates:
                    self._accept_json(kind, error, form)
                    return
                await self._check(kind, route, candidates)
            if route.failure is not None:
                raise _unproven(error, route.failure)
            if sent_at < route.trusted_from:
                raise _unproven(error, "it was requested before a witness answered again")
            route.confirmed[form] = _Confirmation(route.checked_at, route.witness)

    def _failed_lately(self, route: _Route) -> bool:
        return route.failure is not None and self.clock.monotonic() - route.checked_at < REPEAT_SECONDS

    async def _candidates(self, kind: RequestKind, asked: str) -> list[Candidate]:
        read = partial(self.find_candidates, place=self.random_place(), limit=MOST_CANDIDATES)
        candidates = await self.database.read(read)
        return [candidate for candidate in candidates if _key(kind, candidate) != asked][:MOST_CANDIDATES]

    def _accept_json(self, kind: RequestKind, error: AlbertHTTPError, form: str) -> None:
        if not _is_json(form):
            raise _unproven(error, f"its body is not JSON, and the mirror has no session to request {kind}")

    async def _check(self, kind: RequestKind, route: _Route, candidates: list[Candidate]) -> None:
        """Request candidates until one answers 200, and note the result."""
        began, failure, witness = self.clock.monotonic(), "", ""
        route.checks += 1
        try:
            for candidate in candidates:
                failure = await self._request(kind, candidate)
                if not failure:
                    witness = _key(kind, candidate)
                    break
        except BaseException:
            route.checks -= 1  # it proves nothing to those that wait for it
            raise
        recovered = route.failure is not None and not failure
        if failure and route.failure is None:
            self.log.warning("absence.unproven", request=kind.value, reason=failure)
        if recovered:
            route.trusted_from = began
            route.confirmed.clear()
            self.log.info("absence.proven", request=kind.value)
        route.checked_at, route.failure, route.witness = began, failure or None, witness

    async def _request(self, kind: RequestKind, candidate: Candidate) -> str:
        """Request one candidate; return why it is not a witness, an empty text if it is."""
        asked = _key(kind, candidate)
        try:
            if kind is RequestKind.BY_ID:
                body = await self.albert.get_raw(id=asked)
            else:
                body = await self.albert.get_raw_by_source_session_id(source_session_id=asked)
            row = read_session(body)
        except AlbertException as error:
            return f"the session that was requested to confirm the 404: {error}"
        except GarbledError as error:
            if error.record_id == candidate.session_id:
                return ""
            return f"the session that was requested to confirm the 404 answered 200, but: {error}"
        same = (row.id if kind is RequestKind.BY_ID else row.source_session_id) == asked
        return "" if same else f"the request for {asked!r} was answered with another session"


def has_json_body(error: AlbertHTTPError) -> bool:
    """Whether an error has the form of Albert's own; a gateway mostly answers HTML or text."""
    return _is_json(_form(error.body))


def _key(kind: RequestKind, candidate: Candidate) -> str:
    return candidate.session_id if kind is RequestKind.BY_ID else candidate.source_session_id


def _is_confirmed(route: _Route, form: str, asked: str, *, sent_at: float, answered_at: float) -> bool:
    """Whether another session than the absent one answered shortly before the 404 or after it.

    The request may have waited long for its turn (`SYNCD_MAX_REQUESTS_PER_SECOND`), so the time of the answer counts.
    """
    confirmation = route.confirmed.get(form)
    if confirmation is None or confirmation.witness == asked:
        return False
    if route.failure is not None or sent_at < route.trusted_from:
        return False
    return confirmation.at >= answered_at - CACHE_SECONDS


def _form(body: str) -> str:
    """Return the form of an error's body: its JSON keys, or whether it is HTML or text.

    A gateway's 404 rarely has the form of Albert's, so it is not covered by a witness from before the gateway failed.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "html" if body.lstrip().startswith("<") else "text"
    return f"json {sorted(value)}" if isinstance(value, dict) else "text"


def _is_json(form: str) -> bool:
    return form.startswith("json")


def _unproven(error: AlbertHTTPError, reason: str) -> AbsenceUnprovenError:
    text = f"{error} (this may be a gateway's answer and not Albert's: {reason})"
    return AbsenceUnprovenError(text, status=error.status_code)
