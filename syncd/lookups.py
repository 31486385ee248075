"""Looks up one session by id or by source id. All flows use it, so that absence is decided in one place.

A 404 or 410 means "absent" only when a witness confirms that it comes from Albert: see `syncd.witness`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from syncd.albert import AlbertHTTPError
from syncd.clock import utc_text
from syncd.records.fields import SessionRow
from syncd.records.parse import GarbledError, read_session
from syncd.rules.deletion import GONE
from syncd.witness import RequestKind

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.records.ids import SessionId, SourceId
    from syncd.witness import FindCandidates, Witness


@dataclass(frozen=True, slots=True)
class Found:
    """A session as Albert returned it, and when it was requested (text of `clock.utc_text`)."""

    row: SessionRow
    asked_at: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Albert has no such session: a 404 or 410 that a witness confirmed."""

    status: int


LookUp = Found | Absent


@dataclass(frozen=True, kw_only=True)
class Lookups:
    """Looks up single sessions."""

    albert: ChatSessionCollection
    clock: Clock
    witness: Witness

    def among(self, find_candidates: FindCandidates) -> Lookups:
        """Return look-ups whose witnesses are other sessions: see `Witness.among`."""
        return replace(self, witness=self.witness.among(find_candidates))

    async def by_id(self, session_id: SessionId) -> LookUp:
        """Request `GET /{id}`.

        Raises
        ------
        AbsenceUnprovenError
            A 404 or 410 that may come from a gateway; nothing is decided.
        GarbledError
            A 200 that is not this session. `error.record_id` equals `session_id` when the session exists but cannot
            be read.
        AlbertException
            Any other failure, among them `InvalidIdError` for an id that cannot be sent.
        DatabaseUnusableError
            The mirror, which names the witnesses, cannot be read.
        """
        answer = await self._get(RequestKind.BY_ID, session_id)
        if isinstance(answer, Found) and answer.row.id != session_id:
            raise GarbledError(f"the answer to the request for session {session_id!r} is session {answer.row.id!r}")
        return answer

    async def by_source(self, source_id: SourceId) -> LookUp:
        """Request `GET /source/{source_id}`. The session that is found may carry another spelling of the source id.

        Raises
        ------
        AbsenceUnprovenError
            A 404 or 410 that may come from a gateway; nothing is decided.
        GarbledError
            A 200 that cannot be read as a session.
        AlbertException
            Any other failure, among them `InvalidIdError` for a source id that cannot be sent.
        DatabaseUnusableError
            The mirror, which names the witnesses, cannot be read.
        """
        return await self._get(RequestKind.BY_SOURCE, source_id)

    async def _get(self, kind: RequestKind, asked: str) -> LookUp:
        asked_at, sent_at = utc_text(self.clock.now()), self.clock.monotonic()
        try:
            if kind is RequestKind.BY_ID:
                body = await self.albert.get_raw(id=asked)
            else:
                body = await self.albert.get_raw_by_source_session_id(source_session_id=asked)
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            await self.witness.confirm(kind, asked, error, sent_at=sent_at)
            return Absent(error.status_code)
        return Found(read_session(body), asked_at)
