"""Predicts what a pass would change, without writing anything. `syncd once --dry-run` calls it, also beside a daemon.

It begins with the first requests of a pass. Then it reads the whole listing and compares each page with the mirror. It
does not ask Albert about sessions that are not listed: a pass requests each of them before it counts one as gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap64

from syncd.errors import SyncdError
from syncd.mirror.store import established, holds, missing, passes
from syncd.mirror.store.sessions import STATEMENTS
from syncd.pull.first_request import MOST, FirstRequest
from syncd.pull.retries import CeilingError, ListingError
from syncd.pull.sweep import empty_listing, undecided_keys
from syncd.records.fields import SESSIONS
from syncd.records.parse import read_page
from syncd.rules.versions import Change

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.established import Known
    from syncd.pull.retries import Retries
    from syncd.records.fields import SessionRow
    from syncd.records.parse import Page
    from syncd.records.reasons import Reason

Read = Callable[[Callable[["Connection"], Any]], Awaitable[Any]]
_COUNTED = (Change.INSERTED, Change.UPDATED, Change.UNCHANGED, Change.RESTORED)
"""What a prediction counts. It compares content alone, so no answer is stale."""


class UnreadableListingError(SyncdError):
    """The listing cannot be read to its end."""


@dataclass
class Prediction:
    """What a pass would do, counted as in the table `passes`.

    Attributes
    ----------
    changes : Counter[Change]
        Sessions by `inserted`, `updated`, `unchanged` and `restored`.
    unreadable : int
        Listed items that cannot be read.
    not_listed : int
        Live sessions of the mirror that the listing does not contain.
    live : int
        Live sessions of the mirror.
    held : str | None
        Why the pass would be held whatever Albert answers about single sessions. It then changes nothing.
    """

    pages: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    unreadable: int = 0
    not_listed: int = 0
    live: int = 0
    held: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by their names, and `held`."""
        counts = {change.value: self.changes[change] for change in _COUNTED}
        return {
            "pages": self.pages, **counts, "quarantined": self.unreadable, "not_listed": self.not_listed,
            "live_sessions": self.live, "held": self.held,
        }  # fmt: skip


async def predict(
    albert: ChatSessionCollection, read: Read, *, clock: Clock, retries: Retries, max_pages: int
) -> Prediction:
    """Make the first requests, read the listing, and compare it with the mirror.

    Parameters
    ----------
    read : Read
        Runs a function of a connection in a read transaction of the mirror.
    retries : Retries
        Repeats requests that fail.

    Raises
    ------
    UnreadableListingError
        A request failed too often, Albert refuses it, or the listing has more than `max_pages` pages.
    """
    prediction, now = Prediction(live=await read(passes.live_count)), clock.now()
    try:
        known = await read(partial(_to_request, now=now))
        reason: Reason | None = await FirstRequest(albert=albert, retries=retries).unknown(known)
        if reason is None:
            await _compare_listing(albert, read, retries, max_pages, prediction)
            if not sum(prediction.changes.values()) and not prediction.unreadable:
                reason = await read(partial(_empty_listing, now=now))
    except CeilingError as error:
        raise UnreadableListingError(
            f"the listing does not end: {error}; see SYNCD_MAX_PASS_PAGES and SYNCD_MAX_PASS_SECONDS"
        ) from error
    except ListingError as error:
        raise UnreadableListingError(f"the listing cannot be read: {error}; run: syncd doctor") from error
    prediction.held = None if reason is None else reason.text
    return prediction


def _to_request(connection: Connection, now: datetime) -> list[Known]:
    return established.to_request(connection, holds.decisions(connection), now, limit=MOST)


def _empty_listing(connection: Connection, now: datetime) -> Reason | None:
    """Return why a pass with an empty listing would be held; None if the mirror has no session to miss."""
    missed = undecided_keys(connection, holds.decisions(connection), now)
    return empty_listing(len(missed)) if missed else None


async def _compare_listing(
    albert: ChatSessionCollection, read: Read, retries: Retries, max_pages: int, prediction: Prediction
) -> None:
    known, new, keys = BitMap64(), set[str](), set[str]()
    key: str | None = None

    async def request() -> Page[SessionRow]:
        return read_page(await albert.list_raw(start_key=key), SESSIONS)

    while True:
        page = await retries.run(request, "a page")
        prediction.pages += 1
        prediction.unreadable += len(page.unreadable)
        rows = [row for row in page.rows if row.id not in new]
        prediction.changes.update(await read(partial(_compare, rows=rows, known=known, new=new)))
        key = page.next_key
        if key is None or key in keys:
            break
        if prediction.pages >= max_pages:
            raise CeilingError(f"it has more than {max_pages} pages")
        keys.add(key)
    prediction.not_listed = await read(partial(missing.count_live_without, known=known))


def _compare(connection: Connection, rows: Sequence[SessionRow], known: BitMap64, new: set[str]) -> Counter[Change]:
    """Count what a page would change; add its sessions to `known` by their keys, or to `new` by their ids."""
    stored, counts = STATEMENTS.on(connection).stored(connection, rows), Counter[Change]()
    for row in rows:
        before = stored.get(row.id)
        if before is None:
            new.add(row.id)
            counts[Change.INSERTED] += 1
            continue
        if before.key in known:
            continue  # on two pages
        known.add(before.key)
        unchanged = Change.UNCHANGED if before.content == row else Change.UPDATED
        counts[Change.RESTORED if before.deleted_at is not None else unchanged] += 1
    return counts
