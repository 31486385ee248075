"""Whether the queue and reconciling may act: Albert must know the mirror's sessions first.

A pass begins with requests for sessions that Albert must know (`first_request`), and is held if it knows none of them.
The queue and reconciling do not wait for a pass. Before their first request with each token they ask the same, so that
no operation is sent to another tenant, and no session of another tenant is written to the mirror. When a pass of any
replica is held for this reason (`passes.doubtful_pass`), they ask again, and send nothing until Albert knows a session.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False)
    _doubts: int = field(default=0, init=False)
    """The number of the last reason to ask. An answer to a request from before it proves nothing."""
    _confirmed: int = field(default=-1, init=False)
    """The last reason to ask that a good answer is newer than."""
    _asking: dict[int, int] = field(default_factory=dict, init=False)
    """The tasks that ask now, each with the last reason that its answer will be newer than."""
    _doubtful: PassId | None = field(default=None, init=False)
    """The last held pass that was asked about."""
    _failures: int = field(default=0, init=False)
    _ask_at: float = field(default=0.0, init=False)
    """The monotonic time before which no request is sent."""

    @property
    def is_confirmed(self) -> bool:
        """Whether Albert knew a session of the mirror since the last reason to ask."""
        return self._confirmed == self._doubts

    def ask_again(self) -> None:
        """Forget the answer, and ask without a wait: there is a new token.

        A task that asks calls it, too, if its own request is the first with the token. Its answer will be newer.
        """
        self._doubts, self._failures, self._ask_at = next(self._numbers), 0, 0.0
        task = anyio.get_current_task().id
        if task in self._asking:
            self._asking[task] = self._doubts

    def doubt(self, held: PassId) -> bool:
        """Forget an answer that is older than a held pass; return whether there is none since then.

        The thread of a transaction may call it.
        """
        if held != self._doubtful:
            self._doubtful, self._doubts = held, next(self._numbers)
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
            task, is_known, failure = anyio.get_current_task().id, False, None
            self._asking[task] = self._doubts
            try:
                is_known = await FirstRequest(albert=self.albert).unknown(known) is None
            except (AlbertException, GarbledError) as error:
                failure = error
            finally:
                newer_than = self._asking.pop(task)
            if newer_than != self._doubts:
                continue
            if is_known:
                self._confirmed, self._failures = newer_than, 0
            elif failure is not None and _is_refusal(failure):
                return True
            else:
                self._wait(None if failure is None else requested_wait(failure))
                return False
        return True

    def _wait(self, retry_after: float | None) -> None:
        self._failures += 1
        self._ask_at = self.clock.monotonic() + ASK_AGAIN.wait(self._failures, jitter=1.0, retry_after=retry_after)


def _is_refusal(error: AlbertException | GarbledError) -> bool:
    return isinstance(error, AlbertAuthError | UnauthorizedError) or is_final(error)
