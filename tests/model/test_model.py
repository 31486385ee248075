"""Schedules from seeds: the invariants hold after every commit, and the mirror equals the API at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.mirror import passes
from tests.model.invariants import BrokenError
from tests.model.simulation import Files, simulate

SCHEDULES = int(os.environ.get("SCHEDULES", "120"))
FIRST = int(os.environ.get("FIRST_SEED", "1"))
BATCH = 20
FOUND = (
    28, 31, 32,  # the clock set back: a session or a tombstone of "later" was believed for an hour
    1011, 1069,  # the same, for rows that others had changed
    1025, 1070,  # the clock set forward: all look-ups of an unknown create came at once
    1033, 1095,  # a lagging look-up restored a deleted session with an older version
    1050, 1053, 1098,  # a second create while look-ups lag behind the first
    2067, 3055, 10049, 10155,  # a create right after a delete adopted the session that was gone
    30012,  # the same, restored by a sweep that asked for the source id of another session
    3191,  # a delete right after a create found nothing to delete
)  # fmt: skip


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.remove()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SCHEDULES, BATCH))
def test_invariants_hold_after_every_commit_and_faults_leave_no_trace(files: Files, first: int) -> None:
    commits = 0
    for seed in range(first, first + BATCH):
        try:
            commits += simulate(seed, files).commits
        except BaseException as error:
            error.add_note(f"seed {seed}: python -m tests.model.simulation {seed}")
            raise
    assert commits > BATCH * 10


@pytest.mark.parametrize("seed", FOUND)
def test_schedule_that_once_broke_an_invariant_does_not_any_more(files: Files, seed: int) -> None:
    simulate(seed, files)


def test_schedule_is_the_same_for_the_same_seed(files: Files) -> None:
    for seed in (3, 7, 11):
        once, again = simulate(seed, files), simulate(seed, files)
        assert once.log == again.log
        assert once.events == again.events
        assert once.turns == again.turns


def test_model_notices_a_rule_that_is_broken(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that cannot fail proves nothing: let no session ever be found missing, and it must fail."""
    monkeypatch.setattr(passes, "unseen", lambda *_: iter(()))
    failed = 0
    for seed in range(100, 115):
        try:
            simulate(seed, files)
        except BrokenError:
            failed += 1
        except BaseExceptionGroup:
            failed += 1
    assert failed > 0


def test_no_file_is_left_behind() -> None:
    made = Files()
    folder: Path = made.folder
    made.remove()
    assert not folder.exists()
