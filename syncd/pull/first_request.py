"""The first requests of a pass: does Albert know the sessions that the mirror has? `pull.flow` asks before each pass.

Other credentials, or another base URL, can lead to another tenant. Its listing would overwrite the mirror, and every
session of the mirror would look deleted. So a pass begins with a request for a session that Albert must know. If it is
gone, others are tried. If Albert knows none of them, nothing is read and nothing is written. `known_tenant` makes the
same requests for the queue and for reconciling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from syncd.albert import AlbertException, AlbertHTTPError, InvalidIdError
from syncd.mirror.store import established, holds
from syncd.pull.retries import ListingError, RefusedError
from syncd.records.enums import PassReason
from syncd.records.parse import GarbledError, read_session
from syncd.records.reasons import Reason
from syncd.rules.deletion import GONE

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.established import Known
    from syncd.mirror.store.holds import Decisions
    from syncd.pull.retries import RequestRetries
    from syncd.records.ids import SessionId

MOST = 5
"""Sessions that are requested at most: a few of them may have been deleted since the last pass."""


def sessions_to_request(connection: Connection, now: datetime) -> tuple[list[Known], Decisions]:
    """Return the sessions that Albert must know, with the decisions of operators that they depend on."""
    decisions = holds.decisions(connection)
    return established.to_request(connection, decisions, now, limit=MOST), decisions


@dataclass(frozen=True, kw_only=True)
class FirstRequest:
    """Asks Albert for sessions that it must know.

    Parameters
    ----------
    retries : RequestRetries | None
        Repeats a request that failed; None if its error is raised.
    """

    albert: ChatSessionCollection
    retries: RequestRetries | None = None

    async def unknown(self, known: Sequence[Known]) -> Reason | None:
        """Return why the pass must be held; None if it can go on.

        Parameters
        ----------
        known : Sequence[Known]
            The sessions to request, in this order. The first that exists ends the requests. One that is not answered
            is requested again after all others, so a session that Albert cannot answer stops no pass.

        Raises
        ------
        ListingError
            A request failed too often, or Albert refuses the credentials, or refuses every request without a 404.
        AlbertException, GarbledError
            A request failed, without `retries`.
        """
        gone, refused, waiting = 0, None, deque(known)

        async def request() -> tuple[Known, bool]:
            """Request the first session that waits; if that decides nothing, the next attempt requests another one."""
            session = waiting.popleft()
            try:
                return session, await self._exists(session.session_id)
            except (AlbertException, GarbledError):
                waiting.append(session)
                raise

        while waiting:
            try:
                session, exists = await (self.retries.run(request, "the first request") if self.retries else request())
            except (RefusedError, InvalidIdError) as error:
                waiting.pop()
                refused = error if isinstance(error, RefusedError) else refused
                continue
            if exists:
                return None
            gone += session.established
        if gone:
            text = (
                f"Albert answers 404 for all {gone} requested sessions of the mirror: "
                "the credentials may belong to another tenant or account, or the tenant was emptied"
            )
            return Reason(PassReason.KNOWN_SESSIONS_GONE, text)
        if refused is not None:
            raise ListingError(PassReason.LISTING_REFUSED, f"no session can be requested: {refused}") from refused
        return None

    async def _exists(self, session_id: SessionId) -> bool:
        """Whether Albert has a session.

        Raises
        ------
        AlbertException, GarbledError
            The answer does not decide it. A 404 with an HTML body is a gateway's and not Albert's.
        """
        try:
            row = read_session(await self.albert.get_raw(id=session_id))
        except AlbertHTTPError as error:
            if error.status_code not in GONE:
                raise
            if error.body.lstrip().startswith("<"):
                raise GarbledError(f"{error}, with a page of HTML: this is not Albert's answer") from error
            return False
        except GarbledError as error:
            if error.record_id == session_id:
                return True
            raise
        if row.id != session_id:
            raise GarbledError(f"the answer to the request for session {session_id!r} is session {row.id!r}")
        return True
