"""Whether the queue and reconciling may act: Albert must know the mirror's sessions first.

A pass begins with requests for sessions that Albert must know (`first_request`), and is held if it knows none of them.
The queue and reconciling do not wait for a pass. Before their first request with each token they ask the same, so that
no operation is sent to another tenant, and no session of another tenant is written to the mirror. While the newest pass
is held for this reason (`passes.is_tenant_in_doubt`), they send nothing on any replica.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syncd.albert import AlbertAuthError, AlbertException, AlbertHTTPError, ChatSessionCollection, UnauthorizedError
from syncd.mirror.store import established, holds
from syncd.pull.first_request import MOST, FirstRequest
from syncd.pull.retries import is_final
from syncd.records.parse import GarbledError

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.established import Known

ASK_AGAIN = 1.0
"""Seconds until a request that decided nothing is repeated, unless Albert names another time."""


@dataclass(kw_only=True)
class KnownTenant:
    """Asks once for each token whether Albert knows the mirror's sessions."""

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    is_confirmed: bool = field(default=False, init=False)
    _ask_at: float = field(default=0.0, init=False)
    """The monotonic time before which no request is sent."""

    def ask_again(self) -> None:
        """Forget the answer: there is a new token, or a pass is held because Albert knows no session."""
        self.is_confirmed = False

    async def may_act(self) -> bool:
        """Whether Albert knows the mirror's sessions, or refuses to say so and will refuse the operations too.

        False if it knows none of them, and while it gives no answer.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be read.
        """
        if self.is_confirmed:
            return True
        if self.clock.monotonic() < self._ask_at:
            return False
        known = await self.database.read(self._known)
        try:
            self.is_confirmed = await FirstRequest(albert=self.albert).unknown(known) is None
        except (AlbertException, GarbledError) as error:
            if isinstance(error, AlbertAuthError | UnauthorizedError) or is_final(error):
                return True
            wait = error.retry_after if isinstance(error, AlbertHTTPError) else None
            self._ask_at = self.clock.monotonic() + (wait or ASK_AGAIN)
        else:
            self._ask_at = self.clock.monotonic() + ASK_AGAIN
        return self.is_confirmed

    def _known(self, connection: Connection) -> list[Known]:
        decisions = holds.decisions(connection)
        return established.to_request(connection, decisions, self.clock.now(), limit=MOST)
