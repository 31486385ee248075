"""The work of statements on SQLite, counted and not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from syncd.mirror.db import raw

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection


def steps(connection: Connection, work: Callable[[Connection], Any]) -> int:
    """Count the instructions of SQLite's virtual machine that some work takes, in hundreds."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    driver = raw.sqlite(connection)
    driver.set_progress_handler(tick, 100)
    try:
        work(connection)
    finally:
        driver.set_progress_handler(None, 100)
    return count
