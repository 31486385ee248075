"""The model's schedules over PostgreSQL, as replicas: two that lead at once among them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from syncd.mirror.store import passes
from tests.model.postgres_store import PostgresStore
from tests.model.simulation import simulate
from tests.model.soak import run_batch

FIRST, SCHEDULES = 1_000_001, 16
"""The seeds of every run; `python -m tests.model.soak --postgres` tries others for a given time."""
FOUND = (1_000_003, 1_000_019)
"""Two led at once, and the one that had lost its pass failed on the pages of the other, not with its own error."""
# A killed process closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.timeout(300)
def test_invariants_hold_after_every_commit_of_replicas(postgres_url: str) -> None:
    total = run_batch(FIRST, SCHEDULES, postgres_url)
    assert total.failures == []
    assert total.commits > SCHEDULES * 20
    assert set(FOUND) <= set(range(FIRST, FIRST + SCHEDULES + 3))


def test_model_notices_a_page_of_a_pass_that_was_lost(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that cannot fail proves nothing: here no fence is raised."""

    def without_a_fence(connection: sa.Connection) -> passes.Progress | None:
        progress = real(connection)
        connection.exec_driver_sql("UPDATE passes SET fence = 0")
        if progress is not None:
            progress.fence = 0
        return progress

    real = passes.resume
    monkeypatch.setattr(passes, "resume", without_a_fence)
    store, broken = PostgresStore(postgres_url), []
    try:
        for seed in (*FOUND, *range(FIRST, FIRST + 20)):
            try:
                simulate(seed, store)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it was noticed
                broken.append(error)
                break
    finally:
        store.remove()
    assert broken
