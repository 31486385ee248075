"""Finds pages of the last complete pass by their digests. `pull.fetch` calls it for each page before it reads the page.

The digests are in memory, with 16 bytes and a number for each page. The pages are read from the database in windows.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from syncd.mirror.store import pages

if TYPE_CHECKING:
    from syncd.mirror.db.database import Database
    from syncd.mirror.store.pages import ReadPage
    from syncd.records.ids import PassId

WINDOW = 64
"""Pages read from the database at once. Most passes list pages in the order of the last one."""


class PageCache:
    """The pages of one complete pass."""

    def __init__(self, database: Database, pass_id: PassId, numbers: dict[bytes, int]) -> None:
        self._database = database
        self._pass_id = pass_id
        self._numbers = numbers
        self._window: dict[int, ReadPage] = {}

    @classmethod
    async def load(cls, database: Database) -> PageCache:
        """Load the digests of the last complete pass."""
        return cls(database, *await database.read(pages.digests))

    async def find(self, mark: bytes) -> ReadPage | None:
        """Return the page with this digest; None if the last complete pass has no such page."""
        number = self._numbers.get(mark)
        if number is None:
            return None
        if number not in self._window:
            load = partial(pages.window, pass_id=self._pass_id, first=number, count=WINDOW)
            self._window = await self._database.read(load)
        page = self._window.get(number)
        return page if page is not None and page.digest == mark else None
