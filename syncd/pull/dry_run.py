"""Predicts what a pass would change, without writing anything. `syncd once --dry-run` calls it, also beside a daemon.

It begins with the first requests of a pass. Then it reads the whole listing, compares each page with the mirror, and
asks Albert about the sessions that are not listed, as a sweep does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from syncd.clock import machine_boot
from syncd.errors import SyncdError
from syncd.lookups import Lookups
from syncd.mirror.store import elapsed, missing, passes, sessions
from syncd.mirror.store.passes import Progress
from syncd.mirror.store.sessions import STATEMENTS
from syncd.pull.evidence import Asking, Evidence, Verdict
from syncd.pull.first_request import FirstRequest, sessions_to_request
from syncd.pull.retries import CeilingError, ListingError
from syncd.pull.sweep import ask_albert, may_delete, read_situation, reason_to_hold
from syncd.records.fields import SESSIONS
from syncd.records.ids import PassId, SessionId
from syncd.records.parse import read_page
from syncd.rules.versions import Change
from syncd.witness import Witness

if TYPE_CHECKING:
    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Reader
    from syncd.pull.evidence import Answers
    from syncd.pull.retries import RequestRetries
    from syncd.pull.sweep import Situation
    from syncd.records.fields import SessionRow
    from syncd.records.parse import Page
    from syncd.rules.deletion import Guard

_COUNTED = (Change.INSERTED, Change.UPDATED, Change.UNCHANGED, Change.RESTORED)
"""What a prediction counts. It compares content alone, so no answer is stale."""


class UnreadableListingError(SyncdError):
    """The listing cannot be read to its end."""


@dataclass
class PassPrediction:
    """The predicted results of a pass, counted as in the table `passes`.

    Attributes
    ----------
    changes : Counter[Change]
        Sessions by `inserted`, `updated`, `unchanged` and `restored`.
    unreadable, without_id : int
        Listed items that cannot be read, and how many of them do not even have a readable id.
    not_listed : int
        Live sessions that the listing does not contain, without those that an operation or a look-up has found lately.
    missing : int
        How many of them did not answer 200: the pass would mark them as missing, or hold them.
    deleted : int
        How many of those the pass would delete.
    live : int
        Live sessions of the mirror.
    held : str | None
        Why the pass would be held. It then deletes nothing.
    """

    pages: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    unreadable: int = 0
    without_id: int = 0
    not_listed: int = 0
    missing: int = 0
    deleted: int = 0
    live: int = 0
    held: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by their names, and `held`."""
        counts = {change.value: self.changes[change] for change in _COUNTED}
        return {
            "pages": self.pages, **counts, "quarantined": self.unreadable, "without_id": self.without_id,
            "not_listed": self.not_listed, "missing": self.missing, "deleted": self.deleted,
            "live_sessions": self.live, "held": self.held,
        }  # fmt: skip


@dataclass(kw_only=True)
class DryRun:
    """A pass that writes nothing.

    Parameters
    ----------
    retries : RequestRetries
        Repeats requests of pages that fail.
    max_pages : int
        Pages after which the listing is not read further.
    guard : Guard
        What a sweep may delete, and when.
    machine : str
        Names the machine whose monotonic clock `clock` reads.
    """

    albert: ChatSessionCollection
    mirror: Reader
    clock: Clock
    retries: RequestRetries
    max_pages: int
    guard: Guard
    machine: str = field(default_factory=machine_boot)

    async def predict(self) -> PassPrediction:
        """Make the first requests, read the listing, compare it with the mirror, and request unlisted sessions.

        Raises
        ------
        UnreadableListingError
            A request failed too often, Albert refuses it, or the listing has more than `max_pages` pages.
        DatabaseUnusableError
            The mirror cannot be read.
        """
        prediction, now = PassPrediction(live=await self.mirror.read(passes.live_count)), self.clock.now()
        progress = Progress(PassId(0), now, resumed=False)
        try:
            known, _ = await self.mirror.read(partial(sessions_to_request, now=now))
            reason = await FirstRequest(albert=self.albert, retries=self.retries).unknown(known)
            if reason is not None:
                prediction.held = reason.text
                return prediction
            await self._compare_listing(prediction, progress)
        except CeilingError as error:
            raise UnreadableListingError(
                f"the listing does not end: {error}; see SYNCD_MAX_PASS_PAGES and SYNCD_MAX_PASS_SECONDS"
            ) from error
        except ListingError as error:
            raise UnreadableListingError(f"the listing cannot be read: {error}; run: syncd doctor") from error
        await self._sweep(prediction, progress)
        return prediction

    async def _compare_listing(self, prediction: PassPrediction, progress: Progress) -> None:
        new, keys = set[str](), set[str]()
        key: str | None = None

        async def request() -> Page[SessionRow]:
            return read_page(await self.albert.list_raw(start_key=key), SESSIONS)

        while True:
            page = await self.retries.run(request, "a page")
            prediction.pages += 1
            prediction.unreadable += len(page.unreadable)
            prediction.without_id += sum(item.record_id is None for item in page.unreadable)
            prediction.changes.update(await self.mirror.read(partial(_compare, page=page, progress=progress, new=new)))
            key = page.next_key
            if key is None or key in keys:
                return
            if prediction.pages >= self.max_pages:
                raise CeilingError(f"it has more than {self.max_pages} pages")
            keys.add(key)

    async def _sweep(self, prediction: PassPrediction, progress: Progress) -> None:
        """Count the results that the sweep of the pass would have."""
        reading = elapsed.Reading(self.machine, self.clock.monotonic(), self.clock.now())
        situation = await self.mirror.read(
            partial(read_situation, progress=progress, now=self.clock.now(), reading=reading)
        )
        log = structlog.wrap_logger(None, [_drop])
        witness = Witness(database=self.mirror, albert=self.albert, clock=self.clock, log=log)
        lookups = Lookups(albert=self.albert, clock=self.clock, witness=witness)
        lookups = lookups.among(partial(missing.listed, progress=progress))
        asking = Asking(database=self.mirror, lookups=lookups, log=log, write_existing=_write_nothing)
        answers = await ask_albert(situation, self.guard, asking)
        prediction.not_listed = len(situation.keys)
        prediction.missing = sum(key not in answers.existing for key in situation.keys)
        reason = reason_to_hold(situation, answers, self.guard.limit(situation.live))
        if reason is not None:
            prediction.held = reason.text
            return
        prediction.deleted = await self.mirror.read(
            partial(_count_deleted, situation=situation, answers=answers, guard=self.guard, reading=reading)
        )


def _drop(*_: object) -> str:
    raise structlog.DropEvent


async def _write_nothing(_: list[Evidence]) -> None:
    pass


def _compare(connection: Connection, page: Page[SessionRow], progress: Progress, new: set[str]) -> Counter[Change]:
    """Count what a page would change; note its sessions in the progress, and in `new` if the mirror has none."""
    rows = [row for row in page.rows if row.id not in new]
    stored, counts = STATEMENTS.on(connection).stored(connection, rows), Counter[Change]()
    with_id = [item.record_id for item in page.unreadable if item.record_id is not None]
    progress.counts["seen"] += len(page.rows) + len(with_id)
    for row in rows:
        before = stored.get(row.id)
        if before is None:
            new.add(row.id)
            counts[Change.INSERTED] += 1
            continue
        if before.key in progress.seen:
            continue  # on two pages
        progress.seen.add(before.key)
        change = Change.UNCHANGED if before.content == row else Change.UPDATED
        counts[Change.RESTORED if before.deleted_at is not None else change] += 1
    for session_id in with_id:
        if (key := sessions.key_of(connection, SessionId(session_id))) is not None:
            progress.seen.add(key)
    return counts


def _count_deleted(
    connection: Connection, situation: Situation, answers: Answers, guard: Guard, reading: elapsed.Reading
) -> int:
    """Count the sessions that the pass would delete, once it has counted its own 404s."""
    elapsed_ms = elapsed.measure(connection, reading)
    gone = missing.read(connection, answers.keys(Verdict.GONE))
    counted = [replace(row, absences=row.absences + 1) for row in gone]
    return sum(may_delete(row, situation.decisions, guard, elapsed_ms) for row in counted)
