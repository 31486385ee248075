"""Wait for a database that cannot be used right now, and report work that fails again and again.

`Database` runs each transaction through `Retries`. A lock of another program, a full disk or a lost connection is
waited for, and the work runs again. `Failures` counts other identical failures of the same work: an error that was
taken to be transient and is permanent stops the work forever, so three of them over five seconds are reported.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import anyio
import sqlalchemy as sa

from syncd.errors import DatabaseAwayError, DatabaseBusyError
from syncd.mirror.db import postgresql, sqlite
from syncd.mirror.db.sqlite_module import sqlite3

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two tries: doubled each time."""
CONFLICT_SECONDS = 0.02
"""The longest wait in seconds after a deadlock or a lost race, before the transaction runs again."""
IDENTICAL_FAILURES = 3
TROUBLE_SECONDS = 5.0
"""Seconds that identical failures must span before they are reported: a lock of another program is usually shorter."""


@dataclass(frozen=True)
class Failure:
    """Work that failed with the same error each time since it last succeeded.

    Parameters
    ----------
    work : str
        What failed, such as the name of a function or of a loop.
    error : str
        The error's text.
    count : int
        How often in a row.
    since, last : float
        Monotonic seconds of the first and the latest of these failures.
    """

    work: str
    error: str
    count: int
    since: float
    last: float

    @property
    def is_repeated(self) -> bool:
        """Whether it failed at least three times over 5 seconds, so that it needs a person."""
        return self.count >= IDENTICAL_FAILURES and self.last - self.since >= TROUBLE_SECONDS

    def __str__(self) -> str:
        return f"{self.work} failed {self.count} times in a row: {self.error}"


@dataclass(eq=False)
class Failures:
    """The work that has failed since it last succeeded; `/readyz` and the status page read it.

    Parameters
    ----------
    on_repeated : Callable[[Failure], None] | None
        Called once when work has failed too often with the same error.
    on_recovered : Callable[[Failure], None] | None
        Called when that work succeeds.
    """

    on_repeated: Callable[[Failure], None] | None = None
    on_recovered: Callable[[Failure], None] | None = None
    _of: dict[str, Failure] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)

    def failed(self, work: str, error: str, now: float) -> None:
        """Count a failure; `now` is in monotonic seconds. Another error than before begins a new count."""
        before = self._of.get(work)
        if before is None or before.error != error:
            self._of[work] = failure = Failure(work, error, 1, now, now)
        else:
            self._of[work] = failure = replace(before, count=before.count + 1, last=now)
        if failure.is_repeated and work not in self._reported:
            self._reported.add(work)
            if self.on_repeated is not None:
                self.on_repeated(failure)

    def succeeded(self, work: str) -> None:
        """Forget the failures of some work."""
        failure = self._of.pop(work, None)
        if failure is not None and work in self._reported:
            self._reported.remove(work)
            if self.on_recovered is not None:
                self.on_recovered(failure)

    def any(self) -> bool:
        """Return whether any work has failed since it last succeeded."""
        return bool(self._of)

    def has(self, work: str) -> bool:
        """Return whether some work has failed since it last succeeded."""
        return work in self._of

    def repeated(self) -> list[Failure]:
        """Return the work that fails again and again with the same error (`is_repeated`), the longest failing first."""
        failures = (failure for failure in self._of.values() if failure.is_repeated)
        return sorted(failures, key=lambda failure: failure.since)


def work_name(work: Any) -> str:  # noqa: ANN401 - any callable
    """Return a name for a function, by which its failures are counted: `sessions.apply`, `operations.claim`."""
    while isinstance(work, partial):
        work = work.func
    module = getattr(work, "__module__", "").rpartition(".")[2]
    name = getattr(work, "__qualname__", type(work).__name__).partition(".<locals>")[0]
    return f"{module}.{name}" if module else name


@dataclass(eq=False)
class Retries:
    """The waiting of one database's transactions.

    Parameters
    ----------
    busy_timeout : float
        Seconds that a step waits before it fails with `DatabaseBusyError`.
    on_wait : Callable[[str], None] | None
        Called with the reason when a step begins to wait and no other waits already.
    on_resume : Callable[[float], None] | None
        Called with the seconds that were waited, when no step waits any more and the database has answered
        one of them, with a result or with an error of the statement.
    """

    busy_timeout: float = float("inf")
    on_wait: Callable[[str], None] | None = None
    on_resume: Callable[[float], None] | None = None
    failures: Failures = field(default_factory=Failures)
    wait_reason: str | None = field(default=None, init=False)
    """Why the newest waiting step waits; None while none does."""
    _waiting: int = 0
    _waiting_since: float = 0.0
    _resumed: bool = False

    @property
    def waiting(self) -> bool:
        """Whether a step waits for a lock, room on the disk or a server."""
        return self._waiting > 0

    async def run(self, name: Callable[[], str], step: Callable[[], Awaitable[T]]) -> T:
        """Run a step, and again for as long as the database cannot be used and `busy_timeout` allows.

        The step is shielded from cancellation; the waits between two tries are not.

        Parameters
        ----------
        name : Callable[[], str]
            Returns the name by which failures are counted.

        Raises
        ------
        DatabaseBusyError
            The database could not be used for longer than `busy_timeout`.
        DatabaseUnusableError
            Waiting would not help.
        """
        began, pause, waits = anyio.current_time(), FIRST_PAUSE, False
        try:
            while True:
                try:
                    with anyio.CancelScope(shield=True):
                        result = await step()
                except Exception as error:  # noqa: BLE001 - raised again by `_reason` unless a wait may help
                    self._resumed |= waits and classify_error(error) is None
                    reason = self._reason(error, name, began)
                else:
                    self._resumed |= waits
                    if self.failures.any():
                        self.failures.succeeded(name())
                    return result
                if reason is None:
                    await anyio.sleep(random.uniform(0, CONFLICT_SECONDS))  # noqa: S311 - not a secret
                    continue
                if not waits:
                    waits = True
                    self._begin_wait(reason)
                self.wait_reason = reason
                await anyio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            if waits:
                self._end_wait()

    def _reason(self, error: Exception, name: Callable[[], str], began: float) -> str | None:
        """Return why a step has to wait, None if it can run again immediately; raise other errors."""
        meaning = classify_error(error)
        if meaning is None:
            raise error
        if postgresql.is_conflict(error) and anyio.current_time() - began < self.busy_timeout:
            return None
        if not isinstance(meaning, DatabaseAwayError):  # `database.waiting` reports a wait
            self.failures.failed(name(), str(meaning), anyio.current_time())
        if not isinstance(meaning, DatabaseBusyError) or anyio.current_time() - began >= self.busy_timeout:
            raise meaning from error
        return str(meaning)

    def _begin_wait(self, reason: str) -> None:
        self._waiting += 1
        if self._waiting > 1:
            return
        self._waiting_since, self._resumed = anyio.current_time(), False
        if self.on_wait is not None:
            self.on_wait(reason)

    def _end_wait(self) -> None:
        self._waiting -= 1
        if self._waiting > 0:
            return
        self.wait_reason = None
        if self._resumed and self.on_resume is not None:
            self.on_resume(anyio.current_time() - self._waiting_since)


def classify_error(error: BaseException) -> Exception | None:
    """Return the meaning of an error for the database: `DatabaseBusyError` if waiting helps, `DatabaseUnusableError`.

    None if the error is the statement's own.
    """
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, DatabaseBusyError):
        return cause
    return sqlite.classify_error(cause) if isinstance(cause, sqlite3.Error) else postgresql.classify_error(error)
