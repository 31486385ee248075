"""The health of the running daemon, for the health monitor: problems of the mirror, and of the process itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.status import health
from syncd.status.snapshot import NotReadError

if TYPE_CHECKING:
    from syncd.status.snapshot import Readings


@dataclass(frozen=True)
class Problem:
    """A problem with its stable code, its text and the command to type."""

    code: str
    text: str
    command: str | None = None


@dataclass(frozen=True)
class Health:
    """What the daemon knows about itself and the mirror."""

    problems: tuple[Problem, ...]


async def read_health(readings: Readings) -> Health:
    """Return the health of this daemon."""
    found = [Problem("loop_stalled", f"no progress: {loop}") for loop in readings.watchdog.stalled()]
    if readings.refused():
        found.append(Problem("credentials_refused", "Albert refuses the credentials", "syncd doctor"))
    found += [Problem("work_failing", str(failure)) for failure in readings.database.failures.repeated()]
    try:
        overview = (await readings.snapshot.latest()).overview
    except NotReadError as error:
        found.append(Problem("database_unreadable", str(error), "syncd doctor"))
    else:
        texts = health.problems(overview, pass_interval=readings.pass_interval)
        found += [Problem("needs_a_person", text, "syncd status") for text in texts]
    return Health(tuple(found))
