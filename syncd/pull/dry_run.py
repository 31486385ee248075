"""Predicts what a pass would change, without writing anything. `syncd once --dry-run` calls it, also beside a daemon.

It reads the whole listing and compares each page with the mirror. It does not ask Albert about sessions that are not
listed: a pass requests each of them before it counts one as gone, and the guard limits what it may delete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap64

from syncd.errors import SyncdError
from syncd.mirror.store import missing
from syncd.mirror.store.sessions import STATEMENTS
from syncd.records.fields import SESSIONS
from syncd.records.parse import read_page

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.mirror.db.database import Connection
    from syncd.records.fields import SessionRow

Read = Callable[[Callable[["Connection"], Any]], Awaitable[Any]]
INSERTED, UPDATED, UNCHANGED, RESTORED = "inserted", "updated", "unchanged", "restored"


class EndlessListingError(SyncdError):
    """The listing does not end."""


@dataclass
class Prediction:
    """What a pass would do, counted as in the table `passes`.

    Attributes
    ----------
    changes : Counter[str]
        Sessions by `inserted`, `updated`, `unchanged` and `restored`.
    unreadable : int
        Listed items that cannot be read.
    not_listed : int
        Live sessions of the mirror that the listing does not contain.
    """

    pages: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    not_listed: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by their names."""
        counts = {name: self.changes[name] for name in (INSERTED, UPDATED, UNCHANGED, RESTORED)}
        return {"pages": self.pages, **counts, "quarantined": self.unreadable, "not_listed": self.not_listed}


async def predict(albert: ChatSessionCollection, read: Read, *, max_pages: int) -> Prediction:
    """Read the listing and compare it with the mirror.

    Parameters
    ----------
    read : Read
        Runs a function of a connection in a read transaction of the mirror.

    Raises
    ------
    AlbertException
        A page was not answered; nothing is repeated.
    GarbledError
        A page is not a listing.
    EndlessListingError
        The listing has more than `max_pages` pages.
    """
    prediction, known, new, keys = Prediction(), BitMap64(), set[str](), set[str]()
    key: str | None = None
    while True:
        page = read_page(await albert.list_raw(start_key=key), SESSIONS)
        prediction.pages += 1
        prediction.unreadable += len(page.unreadable)
        rows = [row for row in page.rows if row.id not in new]
        prediction.changes.update(await read(partial(_compare, rows=rows, known=known, new=new)))
        key = page.next_key
        if key is None or key in keys:
            break
        if prediction.pages >= max_pages:
            raise EndlessListingError(f"the listing has more than {max_pages} pages; see SYNCD_MAX_PASS_PAGES")
        keys.add(key)
    prediction.not_listed = await read(partial(missing.count_live_without, known=known))
    return prediction


def _compare(connection: Connection, rows: Sequence[SessionRow], known: BitMap64, new: set[str]) -> Counter[str]:
    """Count what a page would change; add its sessions to `known` by their keys, or to `new` by their ids."""
    stored, counts = STATEMENTS.on(connection).stored(connection, rows), Counter[str]()
    for row in rows:
        before = stored.get(row.id)
        if before is None:
            new.add(row.id)
            counts[INSERTED] += 1
            continue
        if before.key in known:
            continue  # on two pages
        known.add(before.key)
        unchanged = UNCHANGED if before.content == row else UPDATED
        counts[RESTORED if before.deleted_at is not None else unchanged] += 1
    return counts
