"""Rules for versions: a stored row never returns to an older one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from syncd.clock import utc_text
from syncd.records.fields import SessionRow
from syncd.records.ids import PassId
from syncd.rules.versions import Change, StoredSession, Timing, classify_change, listed_from
from tests.helpers.rows import session_row

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return utc_text(NOON + timedelta(seconds=seconds))


def row(name: str = "n", updated: float | None = None) -> SessionRow:
    return session_row(name=name, updated_at=None if updated is None else at(updated))


def known(content: SessionRow, *, observed: float | None = None, deleted: float | None = None) -> StoredSession:
    return StoredSession(
        key=1,
        version=1,
        valid_from=at(0),
        pass_id=PassId(1),
        observed_at=None if observed is None else at(observed),
        missing_since=None,
        deleted_at=None if deleted is None else at(deleted),
        content=content,
    )


def classified(before: StoredSession, row: SessionRow, *, listed_twice: bool = False, **timing: Any) -> Change:
    return classify_change(before, row, Timing(**timing), listed_twice=listed_twice)


@pytest.mark.parametrize(
    ("before", "now", "asked", "change"),
    [
        (known(row()), row(), 10, Change.UNCHANGED),
        (known(row(), observed=20), row(), 10, Change.UNCHANGED),
        (known(row("a", 1)), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 2)), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 3)), row("b", 2), 10, Change.UPDATED),
        (known(row("a")), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 2)), row("b"), 10, Change.UPDATED),
        (known(row("a", 1), observed=20), row("b", 1), 10, Change.STALE),
        (known(row("a", 1), observed=10), row("b", 1), 10, Change.UPDATED),
        (known(row("a", 1), observed=9), row("b", 1), 10, Change.UPDATED),
    ],
)
def test_answer_wins_unless_the_row_was_observed_after_its_request(
    before: StoredSession, now: SessionRow, asked: float, change: Change
) -> None:
    for since in (None, at(0)):
        assert classified(before, now, asked_at=at(asked), now=at(300), listed_from=since) is change


@pytest.mark.parametrize(("paged", "change"), [(True, Change.STALE), (False, Change.UPDATED)])
def test_page_of_the_moment_of_an_observation_does_not_outweigh_it(paged: bool, change: Change) -> None:
    before = known(row("a", 1), observed=10)
    verdict = classified(before, row("b", 1), asked_at=at(10), now=at(11), listed_from=at(0), paged=paged)
    assert verdict is change


WRONG_DATE = 73 * 365 * 86_400.0
"""Seconds until some day in 2099."""


@pytest.mark.parametrize(
    ("listed", "dates", "change"),
    [
        (-1, (3, 2), Change.STALE),
        (-1, (2, 3), Change.UPDATED),
        (-1, (2, 2), Change.UPDATED),
        (-1, (None, 2), Change.UPDATED),
        (-1, (3, None), Change.UPDATED),
        (-1, (WRONG_DATE, 2), Change.STALE),
        (0, (3, 2), Change.UPDATED),
        (1, (3, 2), Change.UPDATED),
        (1, (WRONG_DATE, 2), Change.UPDATED),
    ],
)
@pytest.mark.parametrize("paged", [False, True])
def test_date_orders_only_answers_that_overlap_in_time(
    listed: float, dates: tuple[float | None, float | None], paged: bool, change: Change
) -> None:
    before, after = known(row("a", dates[0])), row("b", dates[1])
    verdict = classified(before, after, asked_at=at(120 + listed), now=at(300), listed_from=at(listed), paged=paged)
    assert verdict is change


def test_date_orders_two_pages_of_one_pass() -> None:
    for dates, change in (((3, 2), Change.STALE), ((2, 3), Change.UPDATED)):
        before, after = known(row("a", dates[0])), row("b", dates[1])
        verdict = classified(
            before, after, asked_at=at(200), now=at(200), listed_from=at(200), paged=True, listed_twice=True
        )
        assert verdict is change


def test_row_that_a_wrong_clock_dated_in_the_future_does_not_order_answers() -> None:
    before = structs.replace(known(row("a", 3)), valid_from=at(WRONG_DATE))
    assert classified(before, row("b", 2), asked_at=at(9), now=at(9), listed_from=at(0)) is Change.UPDATED


def test_row_that_was_written_before_the_clock_was_set_back_is_ordered_by_the_date_for_a_day() -> None:
    for ahead, date, change in (
        (61, 2, Change.STALE), (3600, 2, Change.STALE), (3600, 4, Change.UPDATED), (3600, None, Change.UPDATED),
        (86_401, 2, Change.UPDATED),
    ):  # fmt: skip
        before = structs.replace(known(row("a", 3)), valid_from=at(200 + ahead))
        verdict = classified(before, row("b", date), asked_at=at(200), now=at(200), listed_from=at(80), paged=True)
        assert verdict is change, (ahead, date)


def test_answer_that_was_requested_before_the_clock_was_set_back_is_ordered_by_the_date() -> None:
    for date, change in ((2, Change.STALE), (4, Change.UPDATED)):
        before = structs.replace(known(row("a", 3)), valid_from=at(99))
        verdict = classified(before, row("b", date), asked_at=at(200), now=at(100), listed_from=at(-20), paged=True)
        assert verdict is change


def test_answer_that_may_not_lift_a_tombstone_still_changes_a_live_row() -> None:
    for deleted, change in ((None, Change.UPDATED), (0, Change.STALE)):
        before = known(row("a"), deleted=deleted)
        verdict = classified(before, row("b"), asked_at=at(9), now=at(9), listed_from=at(0), lifts=False)
        assert verdict is change


@pytest.mark.parametrize(
    ("deleted", "observed", "asked", "since", "change"),
    [
        (0, None, 200, 80, Change.RESTORED),
        (80, None, 200, 80, Change.RESTORED),
        (81, None, 200, 80, Change.STALE),
        (81, None, 200, None, Change.RESTORED),
        (0, 201, 200, 80, Change.STALE),
        (0, 201, 200, None, Change.STALE),
    ],
)
def test_listing_lifts_a_tombstone_only_after_the_grace(
    deleted: float, observed: float | None, asked: float, since: float | None, change: Change
) -> None:
    tombstone = known(row("a"), deleted=deleted, observed=observed)
    for content in (row("a"), row("b", 500)):
        lifted_from = None if since is None else at(since)
        assert classified(tombstone, content, asked_at=at(asked), now=at(300), listed_from=lifted_from) is change


def test_tombstone_written_after_the_clock_was_set_back_is_not_lifted_by_a_lagging_listing() -> None:
    tombstone = known(row("a"), deleted=3600, observed=90)  # as old as the version before it, and made just now
    assert classified(tombstone, row("a"), asked_at=at(100), now=at(101), listed_from=at(80)) is Change.STALE
    assert classified(tombstone, row("a"), asked_at=at(300), now=at(301), listed_from=at(180)) is Change.RESTORED


@pytest.mark.parametrize(
    ("asked", "now", "change"),
    [
        (100, 101, Change.UPDATED),  # the clock was set back by an hour since the session was observed
        (3601, 101, Change.UPDATED),  # the same, while the answer was under way: asked for after the observation
        (3599, 101, Change.STALE),  # and before
        (100, 3541, Change.STALE),  # a replica's clock may be ahead by a minute
    ],
)
def test_observation_from_before_the_clock_was_set_back_does_not_outweigh_a_new_answer(
    asked: float, now: float, change: Change
) -> None:
    before = known(row("a"), observed=3600)
    assert classified(before, row("b"), asked_at=at(asked), now=at(now), listed_from=at(0)) is change
    deleted_row = known(row("a"), deleted=3600, observed=3600)
    restored = {Change.UPDATED: Change.RESTORED}.get(change, change)
    assert classified(deleted_row, row("b"), asked_at=at(asked), now=at(now), listed_from=at(0)) is restored


@pytest.mark.parametrize(
    ("before", "now", "paged", "change"),
    [
        (row("a", 2), row("b", 2), False, Change.STALE),  # changed twice in one millisecond: the later one was listed
        (row("a"), row("b"), False, Change.STALE),
        (row("a", 2), row("b"), False, Change.STALE),
        (row("a", 2), row("b", 3), False, Change.UPDATED),
        (row("a", 2), row("b", 2), True, Change.UPDATED),
    ],
)
def test_answer_that_overlaps_a_listed_version_wins_only_by_its_date(
    before: SessionRow, now: SessionRow, paged: bool, change: Change
) -> None:
    listed = structs.replace(known(before), valid_from=at(20))
    assert classified(listed, now, asked_at=at(10), now=at(30), listed_from=None, paged=paged) is change
    assert classified(listed, now, asked_at=at(20), now=at(30), listed_from=None, paged=paged) is Change.UPDATED
    deleted_row = structs.replace(listed, deleted_at=at(20))
    after = Change.RESTORED if paged else Change.STALE
    assert classified(deleted_row, now, asked_at=at(10), now=at(30), listed_from=None, paged=paged) is after


def test_lag_counts_from_the_request_and_from_now_if_the_clock_was_set_back() -> None:
    assert listed_from(NOON, NOON + timedelta(hours=1), 120) == "2026-06-01T11:58:00.000000Z"
    assert listed_from(utc_text(NOON), NOON, 0.5) == "2026-06-01T11:59:59.500000Z"
    assert listed_from(at(3600), NOON, 120) == "2026-06-01T11:58:00.000000Z"
