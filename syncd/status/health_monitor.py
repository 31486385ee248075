"""Watches the health of the daemon, and reports each change once.

`daemon.health_reports` runs it during the start, `daemon.loops` afterwards.

::

    health ──(every few seconds)──► HealthMonitor ──► log: `health.changed`
                                                  ├─► Notifier (POST to SYNCD_NOTIFY_URL)
                                                  └─► the status text of systemd
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from syncd.errors import SyncdError
from syncd.logs import safe_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock

SECONDS_BETWEEN_READINGS, MOST_SECONDS_BETWEEN_READINGS = 5.0, 15.0
"""The pause between readings, and its limit. A change must last for two readings."""
PAUSE_FACTOR = 50.0
"""How much longer the pause is, up to that limit, than the last reading, which counts rows of a large mirror."""


class Problem(Protocol):
    """A problem that needs a person."""

    @property
    def code(self) -> str:
        """The stable code of the problem."""

    @property
    def text(self) -> str:
        """The problem in words."""

    @property
    def command(self) -> str | None:
        """The command to type; None if none helps."""


class Health(Protocol):
    """The health of a daemon: healthy without problems."""

    @property
    def problems(self) -> Sequence[Problem]:
        """The problems, the most urgent first."""


@dataclass(frozen=True, kw_only=True)
class HealthChange:
    """A change of the health that lasted.

    Parameters
    ----------
    at : datetime
        When the change was seen for the second time, in UTC.
    healthy_before : bool
        Whether the daemon was healthy before the change.
    problems : tuple[Problem, ...]
        The problems after the change.
    """

    at: datetime
    healthy_before: bool
    problems: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Whether the daemon is healthy after the change."""
        return not self.problems

    def listed(self) -> list[dict[str, str | None]]:
        """Return the problems as fields of an event or of a document, with bounded texts."""
        return [
            {
                "code": str(problem.code),
                "text": safe_text(problem.text),
                "command": None if problem.command is None else safe_text(problem.command),
            }
            for problem in self.problems
        ]


@dataclass(kw_only=True)
class HealthMonitor:
    """Reads the health again and again. A daemon begins as healthy, so a start without problems is not a change.

    A change is another set of problem codes; texts contain ages and counts, which change all the time.

    Parameters
    ----------
    read : Callable[[], Awaitable[Health]]
        Reads the health. A `SyncdError` from it means that there is no reading now.
    on_reading : Callable[[Health], None]
        Called with each reading.
    on_change : Callable[[HealthChange], None]
        Called with each change. It must return immediately.
    """

    read: Callable[[], Awaitable[Health]]
    clock: Clock
    log: FilteringBoundLogger
    on_change: Callable[[HealthChange], None]
    on_reading: Callable[[Health], None] = lambda _: None
    _codes: frozenset[str] = field(default=frozenset(), init=False)
    _candidate: frozenset[str] | None = field(default=None, init=False)
    """The codes of the reading before, if they differ from `_codes`."""

    async def run(self) -> None:
        """Observe the health forever."""
        while True:
            began = self.clock.monotonic()
            await self.observe()
            pause = max(SECONDS_BETWEEN_READINGS, PAUSE_FACTOR * (self.clock.monotonic() - began))
            await self.clock.sleep(min(pause, MOST_SECONDS_BETWEEN_READINGS))

    async def observe(self) -> None:
        """Take one reading, and report a change that it confirms."""
        try:
            health = await self.read()
        except SyncdError:
            return
        self.on_reading(health)
        codes = frozenset(str(problem.code) for problem in health.problems)
        before, self._candidate = self._candidate, None if codes == self._codes else codes
        if self._candidate is None or before is None or not self._lasts(before, codes):
            return
        change = HealthChange(at=self.clock.now(), healthy_before=not self._codes, problems=tuple(health.problems))
        self._codes, self._candidate = codes, None
        self._log(change)
        self.on_change(change)

    def _lasts(self, before: frozenset[str], codes: frozenset[str]) -> bool:
        """Return whether two readings agree: on the problems, or on another health than the one reported last."""
        return before == codes or (bool(before) == bool(codes) and bool(codes) != bool(self._codes))

    def _log(self, change: HealthChange) -> None:
        if change.healthy:
            self.log.info("health.changed", healthy=True, healthy_before=change.healthy_before, problems=[])
        else:
            problems = change.listed()
            self.log.warning("health.changed", healthy=False, healthy_before=change.healthy_before, problems=problems)
