"""The clock that flows receive as an argument, the one of the machine, and times as text."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """The wall clock, a clock that only goes forward, and a sleep. Tests use a virtual one."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        ...


class SystemClock:
    """The machine's clock and anyio's sleep."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        import anyio  # noqa: PLC0415 - commands that only write times start without it

        await anyio.sleep(seconds)


def machine_boot() -> str:
    """Name this machine since its last restart. Processes with the same name share one monotonic clock.

    On systems other than Linux each call returns another name, so that nothing is compared with readings of other
    processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/time").readlink()  # a time namespace shifts the monotonic clock
    except OSError:
        return f"process {uuid.uuid4()}"
    return f"{boot} {namespace}"


def utc_text(moment: datetime) -> str:
    """Write a time as syncd stores it in SQLite: UTC, six fraction digits and ``Z``, so that text sorts by time.

    Raises
    ------
    ValueError
        The time is naive: it does not say which moment it means.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be stored")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat("T", "microseconds")[:26] + "Z"


def read_utc_text(text: str) -> datetime:
    """Read what `utc_text` wrote."""
    return datetime.fromisoformat(text).astimezone(UTC)


def read_stored_time(text: str | None) -> datetime | None:
    """Read a stored time; return None for text that is not a time, which another program may have written."""
    try:
        return None if text is None else read_utc_text(text)
    except (ValueError, OverflowError):  # the latter for a time near year 1 or 9999 in another zone
        return None
