"""Whether the queue and reconciling may act: Albert must know the mirror's sessions first.

A pass begins with requests for sessions that Albert must know (`first_request`), and is held if it knows none of them.
The queue and reconciling do not wait for a pass. Before their first request with each token they ask the same, so that
no operation is sent to another tenant, and no session of another tenant is written to the mirror. When a pass of any
replica is held for this reason (`passes.doubtful_pass`), they ask again, and send nothing until Albert knows a session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio

from syncd.albert import AlbertAuthError, AlbertException, ChatSessionCollection, UnauthorizedError
from syncd.pull.first_request import FirstRequest, sessions_to_request
from syncd.pull.retries import is_final, requested_wait
from syncd.records.parse import GarbledError
from syncd.rules.retry import Backoff

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.db.database import Database
    from syncd.records.ids import PassId

ASK_AGAIN = Backoff(1.0, 60.0)
"""The waits in seconds before Albert is asked again, unless it names another time."""


@dataclass(kw_only=True)
class KnownTenant:
    """Asks once for each token whether Albert knows the mirror's sessions."""

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    is_confirmed: bool = field(default=False, init=False)
    _doubtful: PassId | None = field(default=None, init=False)
    """The last held pass that was asked about."""
    _doubts: int = field(default=0, init=False)
    """Counts the reasons to ask again. An answer to a request from before the last one proves nothing."""
    _asking: int | None = field(default=None, init=False)
    """The task that is asking."""
    _failures: int = field(default=0, init=False)
    _ask_at: float = field(default=0.0, init=False)
    """The monotonic time before which no request is sent."""

    def ask_again(self) -> None:
        """Forget the answer, and ask without a wait: there is a new token.

        The task that is asking calls it, too, if its own request is the first with the token.
        """
        self.is_confirmed, self._failures, self._ask_at = False, 0, 0.0
        self._doubts += anyio.get_current_task().id != self._asking

    def doubt(self, held: PassId) -> bool:
        """Forget an answer that is older than a held pass; return whether there is none since then."""
        if held != self._doubtful:
            self._doubtful, self.is_confirmed = held, False
            self._doubts += 1
        return not self.is_confirmed

    async def may_act(self) -> bool:
        """Whether Albert knows the mirror's sessions, or refuses the request and will refuse the operations too.

        False if it knows none of them, and while it gives no answer.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be read.
        """
        while not self.is_confirmed:
            if self.clock.monotonic() < self._ask_at:
                return False
            known, _ = await self.database.read(partial(sessions_to_request, now=self.clock.now()))
            doubts, self._asking = self._doubts, anyio.get_current_task().id
            try:
                is_known = await FirstRequest(albert=self.albert).unknown(known) is None
            except (AlbertException, GarbledError) as error:
                if isinstance(error, AlbertAuthError | UnauthorizedError) or is_final(error):
                    return True
                self._wait(requested_wait(error))
                return False
            finally:
                self._asking = None
            if doubts != self._doubts:
                continue
            if not is_known:
                self._wait(None)
                return False
            self.is_confirmed, self._failures = True, 0
        return True

    def _wait(self, retry_after: float | None) -> None:
        self._failures += 1
        self._ask_at = self.clock.monotonic() + ASK_AGAIN.wait(self._failures, jitter=1.0, retry_after=retry_after)
