"""The pure decisions: what a sighting means, what may go, how long to wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.clock import utc_text
from syncd.records.parse import UPDATED_AT, Row
from syncd.rules.decide import (
    LONGEST_RETRY_AFTER,
    UNKNOWN_LOOKUPS,
    Backoff,
    Change,
    StoredSession,
    classify_change,
    difference,
    guard_limit,
    listed_from,
    may_delete,
    next_lookup,
    pass_pause,
    source_state,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return utc_text(NOON + timedelta(seconds=seconds))


def row(name: str = "n", updated: float | None = None) -> Row:
    content: list[str | None] = ["A", name, None, "s", *[None] * 11, "{}"]
    content[UPDATED_AT] = None if updated is None else at(updated)
    return tuple(content)


def known(content: Row, *, observed: float | None = None, deleted: float | None = None) -> StoredSession:
    return StoredSession(
        key=1,
        version=1,
        valid_from=at(0),
        pass_id=1,
        observed_at=None if observed is None else at(observed),
        missing_since=None,
        deleted_at=None if deleted is None else at(deleted),
        content=content,
    )


@pytest.mark.parametrize(
    ("before", "now", "asked", "change"),
    [
        (known(row()), row(), 10, Change.UNCHANGED),
        (known(row(), observed=20), row(), 10, Change.UNCHANGED),
        (known(row("a", 1)), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 2)), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 3)), row("b", 2), 10, Change.STALE),
        (known(row("a")), row("b", 2), 10, Change.UPDATED),
        (known(row("a", 2)), row("b"), 10, Change.UPDATED),
        (known(row("a", 1), observed=20), row("b", 1), 10, Change.STALE),
        (known(row("a", 1), observed=10), row("b", 1), 10, Change.UPDATED),
        (known(row("a", 1), observed=9), row("b", 1), 10, Change.UPDATED),
    ],
)
def test_a_row_never_goes_back(before: StoredSession, now: Row, asked: float, change: Change) -> None:
    for since in (None, at(0)):
        assert classify_change(before, now, asked_at=at(asked), now=at(300), listed_from=since) is change


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
def test_a_tombstone_is_lifted_by_a_listing_only_after_the_grace(
    deleted: float, observed: float | None, asked: float, since: float | None, change: Change
) -> None:
    tombstone = known(row("a"), deleted=deleted, observed=observed)
    for content in (row("a"), row("b", 500)):
        lifted_from = None if since is None else at(since)
        assert classify_change(tombstone, content, asked_at=at(asked), now=at(300), listed_from=lifted_from) is change


def test_a_tombstone_of_after_the_clock_was_set_back_is_not_lifted_by_a_listing_that_lags() -> None:
    tombstone = known(row("a"), deleted=3600, observed=90)  # as old as the version before it, and made just now
    assert classify_change(tombstone, row("a"), asked_at=at(100), now=at(101), listed_from=at(80)) is Change.STALE
    assert classify_change(tombstone, row("a"), asked_at=at(300), now=at(301), listed_from=at(180)) is Change.RESTORED


@pytest.mark.parametrize(
    ("asked", "now", "change"),
    [
        (100, 101, Change.UPDATED),  # the clock was set back by an hour since the session was observed
        (3601, 101, Change.UPDATED),  # the same, while the answer was under way: asked for after the observation
        (3599, 101, Change.STALE),  # and before
        (100, 3541, Change.STALE),  # a replica's clock may be ahead by a minute
    ],
)
def test_what_was_learned_before_the_clock_was_set_back_does_not_outweigh_what_is_seen_now(
    asked: float, now: float, change: Change
) -> None:
    before = known(row("a"), observed=3600)
    assert classify_change(before, row("b"), asked_at=at(asked), now=at(now), listed_from=at(0)) is change
    buried = known(row("a"), deleted=3600, observed=3600)
    restored = {Change.UPDATED: Change.RESTORED}.get(change, change)
    assert classify_change(buried, row("b"), asked_at=at(asked), now=at(now), listed_from=at(0)) is restored


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
def test_an_answer_that_was_under_way_while_a_listing_brought_a_version_decides_only_by_its_date(
    before: Row, now: Row, paged: bool, change: Change
) -> None:
    listed = replace(known(before), valid_from=at(20))
    assert classify_change(listed, now, asked_at=at(10), now=at(30), listed_from=None, paged=paged) is change
    assert classify_change(listed, now, asked_at=at(20), now=at(30), listed_from=None, paged=paged) is Change.UPDATED
    buried = replace(listed, deleted_at=at(20))
    after = Change.RESTORED if paged else Change.STALE
    assert classify_change(buried, now, asked_at=at(10), now=at(30), listed_from=None, paged=paged) is after


def test_the_grace_counts_back_from_when_it_was_asked_and_from_now_where_the_clock_was_set_back() -> None:
    assert listed_from(NOON, NOON + timedelta(hours=1), 120) == "2026-06-01T11:58:00.000000Z"
    assert listed_from(utc_text(NOON), NOON, 0.5) == "2026-06-01T11:59:59.500000Z"
    assert listed_from(at(3600), NOON, 120) == "2026-06-01T11:58:00.000000Z"


@pytest.mark.parametrize(
    ("live", "count", "fraction", "limit"),
    [(100, 25, 0.05, 25), (1000, 25, 0.05, 50), (0, 0, 0.5, 0), (3, 0, 0.5, 1), (1, 0, 0.99, 0), (10, 0, 1.0, 10)],
)
def test_the_guards_limit_is_the_larger_of_both(live: int, count: int, fraction: float, limit: int) -> None:
    assert guard_limit(live, max_count=count, max_fraction=fraction) == limit


@pytest.mark.parametrize(
    ("absences", "missing_for", "wanted", "grace", "may"),
    [
        (2, 120, 2, 120, True),
        (1, 999, 2, 120, False),
        (9, 119.9, 2, 120, False),
        (1, 0, 1, 0, True),
        (0, 9, 1, 0, False),
    ],
)
def test_deletion_wants_both_the_confirmations_and_the_grace(
    absences: int, missing_for: float, wanted: int, grace: float, *, may: bool
) -> None:
    now = NOON + timedelta(seconds=missing_for)
    assert may_delete(absences=absences, missing_since=NOON, now=now, confirmations=wanted, grace=grace) is may


def test_a_clock_that_was_set_back_deletes_nothing_early() -> None:
    now = NOON - timedelta(days=1)
    assert not may_delete(absences=9, missing_since=NOON, now=now, confirmations=1, grace=0)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_lies_between_nothing_and_its_bound(attempt: int, jitter: float) -> None:
    wait = Backoff(0.5, 300).wait(attempt, jitter=jitter)
    assert 0 <= wait <= min(300, 0.5 * 2 ** min(attempt - 1, 60))


def test_waits_double_up_to_the_longest() -> None:
    waits = [Backoff(0.5, 5).wait(attempt, jitter=1.0) for attempt in range(1, 7)]
    assert waits == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    ("told", "wait"),
    [(7.0, 7.0), (LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER), (LONGEST_RETRY_AFTER + 1, 300.0), (0.0, 0.5), (None, 0.5)],
)
def test_what_the_server_asks_for_is_waited_unless_it_is_out_of_its_mind(told: float | None, wait: float) -> None:
    assert Backoff(0.5, 300).wait(1, jitter=1.0, retry_after=told) == wait


def test_look_ups_are_spread_over_the_settle_time() -> None:
    found: list[datetime] = []
    while (due := next_lookup(NOON, lookups=len(found), settle=60, now=found[-1] if found else NOON)) is not None:
        found.append(due)
    assert found == [NOON + timedelta(seconds=60 * part) for part in UNKNOWN_LOOKUPS]


def test_look_ups_keep_their_distance_from_each_other_when_the_clock_is_set_forward() -> None:
    late = NOON + timedelta(hours=1)
    distance = UNKNOWN_LOOKUPS[2] - UNKNOWN_LOOKUPS[1]
    assert next_lookup(NOON, lookups=2, settle=60, now=late) == late + timedelta(seconds=60 * distance / 2)


@pytest.mark.parametrize(
    ("interval", "seconds_spent", "failed", "pause"),
    [(300, 10, False, 290), (300, 400, False, 0), (300, 10, True, 45), (30, 10, True, 20), (300, 299, True, 1)],
)
def test_pass_that_failed_is_tried_again_before_the_first_good_minute_is_over(
    interval: float, seconds_spent: float, failed: bool, pause: float
) -> None:
    assert pass_pause(interval, seconds_spent, failed=failed) == pause


@pytest.mark.parametrize(
    ("carriers", "albert", "state", "session_id"),
    [
        ([("A", False)], None, "linked", "A"),
        ([("A", False)], "A", "linked", "A"),
        ([("A", True)], None, "linked", "A"),
        ([("A", True), ("B", False)], None, "linked", "B"),
        ([("A", False), ("B", False)], None, "conflict", None),
        ([("A", True), ("B", True)], None, "conflict", None),
        ([("A", False), ("B", False)], "A", "conflict", None),
        ([("A", False)], "B", "conflict", None),
    ],
)
def test_a_source_id_is_linked_to_the_one_session_that_carries_it(
    carriers: list[tuple[str, bool]], albert: str | None, state: str, session_id: str | None
) -> None:
    found = source_state(carriers, albert)
    assert found is not None
    assert (found.state, found.session_id) == (state, session_id)
    if state == "conflict":
        named = {carrier for carrier, missing in carriers if not missing} or {carrier for carrier, _ in carriers}
        assert all(each in str(found.note) for each in named | ({albert} if albert else set()))


def test_the_mirror_cannot_tell_of_a_source_id_that_nobody_carries() -> None:
    assert source_state([]) is None


def test_the_difference_of_an_adopted_session_is_named() -> None:
    assert difference(row("n"), name="n", parent_id=None) is None
    told = str(difference(row("n"), name="other", parent_id="FOL1"))
    assert "'n'" in told
    assert "'other'" in told
    assert "FOL1" in told
