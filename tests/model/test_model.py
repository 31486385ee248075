"""Schedules from seeds: the invariants hold after every commit, and the mirror equals the API at the end."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.lookups import Absent, Lookups
from syncd.mirror.store import missing, operations, passes, restored, sessions, totals
from syncd.mirror.store.missing import Unlisted
from syncd.mirror.store.operation import Claimed
from syncd.pull.evidence import Asking, Evidence, Verdict
from syncd.pull.first_request import FirstRequest
from syncd.pull.known_tenant import KnownTenant
from syncd.push import kinds
from syncd.push.outcomes import Effect
from syncd.push.targets import NoHolder
from syncd.rules.versions import Change, classify_change
from syncd.witness import Witness
from tests.model import actions, simulation
from tests.model.actions import FIRST_MISDATED
from tests.model.invariants import BrokenError
from tests.model.simulation import simulate
from tests.model.soak import run_batch
from tests.model.store import SqliteStore

FIRST, SCHEDULES, BATCH = 1_000_001, 100, 25
"""The seeds of every run; `python -m tests.model.soak` tries others for a given time."""
FOUND = (
    72, 130, 379, 403, 594,  # a create right after a delete adopted the session that was gone: look-ups lag
    272, 449, 552,  # the clock was set back, and information of a "later" time was accepted
    100156,  # a tombstone of after the clock was set back was lifted by a listing that lagged
    7441, 28416, 36292, 40734, 43502, 49757, 54008, 55262, 62187,  # a drain left what the last one had blocked
    37245,  # the answer to a create, older than what had been listed meanwhile in the same millisecond
    88168,  # an answer that waited to be written was accepted as if it had been requested then
    52226,  # a look-up brought what an operation had deleted before the mirror ever saw it
    2234323,  # a page that was requested in the microsecond in which an update was recorded
    124, 525, 865,  # a first pass that was killed while it linked source ids left the rest without a link
)  # fmt: skip
# A killed process closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    made = SqliteStore()
    yield made
    made.remove()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, BATCH))
def test_invariants_hold_after_every_commit_and_faults_leave_no_trace(first: int) -> None:
    total = run_batch(first, BATCH)
    assert total.failures == []
    assert total.commits > BATCH * 20
    assert total.requests > BATCH * 10


@pytest.mark.parametrize("seed", FOUND)
def test_schedule_that_once_broke_an_invariant_does_not_any_more(store: SqliteStore, seed: int) -> None:
    simulate(seed, store)


def test_schedule_is_the_same_for_the_same_seed(store: SqliteStore) -> None:
    for seed in (3, 7, 11):
        once, again = simulate(seed, store), simulate(seed, store)
        assert once == again


def _breaks(store: SqliteStore, *texts: str, first: int = 100, count: int = 40) -> bool:
    """Whether one of some schedules breaks an invariant with one of these texts."""
    for seed in range(first, first + count):
        try:
            simulate(seed, store)
        except (BaseExceptionGroup, BrokenError) as error:
            if any(text in str(_innermost(error)) for text in texts):
                return True
    return False


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def test_model_notices_that_no_session_is_ever_missed(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that cannot fail proves nothing."""
    monkeypatch.setattr(missing, "unlisted", lambda *_: array("q"))
    assert _breaks(store, "9: the mirror is not the API")


def test_model_notices_that_an_unlisted_session_counts_as_gone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_: object, session: Unlisted) -> Evidence:
        return Evidence(session, Verdict.GONE)

    monkeypatch.setattr(Asking, "_ask_one", gone)
    assert _breaks(store, "4: ")


def test_model_notices_a_pass_without_first_requests(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(FirstRequest, "unknown", nothing)
    assert _breaks(store, "SESX")


def test_model_notices_a_create_that_is_sent_without_a_look(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lookups, "by_source", _finds_nothing)
    monkeypatch.setattr(kinds, "look_for_holder", _knows_nothing)
    assert _breaks(store, "6: ")


async def _finds_nothing(*_: object) -> Absent:
    return Absent(404)


async def _knows_nothing(*_: object) -> NoHolder:
    return NoHolder(404, Effect())


def test_model_notices_that_every_404_is_accepted(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(*_: object, **__: object) -> None:
        pass

    async def act(_: KnownTenant) -> bool:
        return True

    monkeypatch.setattr(Witness, "confirm", accept)
    monkeypatch.setattr(KnownTenant, "may_act", act)  # a gateway's 404s for all sessions stop the queue, too
    monkeypatch.setattr(passes, "doubtful_pass", lambda _: None)
    monkeypatch.setattr(actions, "GATEWAY", 0.95)
    assert _breaks(store, "3: ", "4: ", "6: ", "7: ", "9: the mirror", first=780, count=20)


def test_model_notices_a_row_that_is_frozen_by_its_date(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(*compared: Any, **observed: Any) -> Change:
        return classify_change(*compared, **observed | {"listed_twice": True})

    monkeypatch.setattr(sessions, "classify_change", accept)
    assert _breaks(store, "9: the mirror is not the API", first=FIRST_MISDATED, count=120)


def test_model_notices_a_request_without_a_durable_claim(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(connection: sa.Connection, **how: Any) -> Claimed:
        claimed = real(connection, **how)
        connection.exec_driver_sql("UPDATE operations SET state = 'pending' WHERE state = 'running'")
        return claimed

    real = operations.claim
    monkeypatch.setattr(operations, "claim", claim)
    assert _breaks(store, "5: ")


def test_model_notices_a_restored_backup_that_acts(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold_nothing(connection: sa.Connection, now: datetime) -> int:
        operations.recover(connection, now=now, abandoned=True)
        totals.skip_numbers(connection)
        return 0

    monkeypatch.setattr(restored, "hold_open_operations", hold_nothing)
    monkeypatch.setattr(simulation, "RESTORED", 1.0)
    assert _breaks(store, "was not released", first=290)


def test_no_file_remains() -> None:
    made = SqliteStore()
    folder = made.folder
    made.remove()
    assert not folder.exists()


def test_broken_invariant_is_no_error_that_the_program_could_catch() -> None:
    assert not issubclass(BrokenError, Exception)
