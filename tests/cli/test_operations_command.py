"""`syncd operations`: listings of the queue, decisions of an operator, and their record."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.cli.conftest import Call

AT = "2026-01-01T00:00:00.000000Z"


def sql(statement: str) -> list[Any]:
    with closing(sqlite3.connect("syncd.db", isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def actions() -> list[Any]:
    return sql("SELECT by, action, subject, detail FROM operator_actions ORDER BY id")


@pytest.fixture
def queue(syncd: Call) -> Call:
    """Queue five operations, each on a key of its own: 1 pending, 2 unknown, 3 and 4 dead, 5 succeeded."""
    syncd("migrate")
    for number in range(1, 6):
        syncd("enqueue", "create", "--source-session-id", f"s-{number}", "--name", "n")
    sql(f"UPDATE operations SET state = 'unknown', unknown_since = '{AT}' WHERE id = 2")
    sql(f"UPDATE operations SET state = 'dead', finished_at = '{AT}', attempts = 8 WHERE id IN (3, 4)")
    sql(f"UPDATE operations SET state = 'succeeded', finished_at = '{AT}' WHERE id = 5")
    return syncd


def states() -> list[str]:
    return [state for (state,) in sql("SELECT state FROM operations ORDER BY id")]


def test_pending_unknown_and_dead_operations_are_cancelled_and_finished_ones_are_not(queue: Call) -> None:
    done = queue("operations", "cancel", "1", "2", "3", "5", "--by", "alice")
    assert done.code == 1
    assert done.out == "operation 1 is cancelled\noperation 2 is cancelled\noperation 3 is cancelled\n"
    assert done.err.splitlines() == [
        "warning: operation 2: its answer was lost, so Albert may have applied it; look for the session in Albert",
        "error: operation 5 is succeeded, not dead, pending or unknown",
    ]
    assert states() == ["cancelled", "cancelled", "cancelled", "dead", "succeeded"]
    assert actions() == [
        ("alice", "cancel", "operation 1", "it was pending"),
        ("alice", "cancel", "operation 2", "it was unknown"),
        ("alice", "cancel", "operation 3", "it was dead"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"), [("", "it is empty"), (" ", "it is empty"), ("\udcff", "no database can hold")], ids=ascii
)
def test_decision_of_nobody_or_of_a_name_that_cannot_be_stored_is_refused(queue: Call, name: str, reason: str) -> None:
    refused = queue("operations", "cancel", "1", "--by", name)
    assert (refused.code, refused.out) == (2, "")
    assert "--by" in refused.err
    assert reason in refused.err
    assert states()[0] == "pending"
    assert actions() == []


def test_name_of_the_user_that_cannot_be_stored_is_refused(queue: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\udcff")
    refused = queue("operations", "cancel", "1")
    assert refused.code == 2
    assert "'--by': '\\udcff' holds text" in refused.err
    assert queue("operations", "cancel", "1", "--by", "alice").code == 0


def test_warning_of_a_cancelled_unknown_operation_is_in_the_json(queue: Call) -> None:
    (operation,) = queue("operations", "cancel", "2", "--json").data
    assert (operation["id"], operation["error"], "may have applied it" in operation["warning"]) == (2, None, True)


def test_running_operation_is_not_cancelled(queue: Call) -> None:
    sql(f"UPDATE operations SET state = 'running', lease_until = '{AT}' WHERE id = 1")
    assert queue("operations", "cancel", "1").err == "error: operation 1 is running, not dead, pending or unknown\n"
    assert states()[0] == "running"


def test_all_dead_operations_are_retried_at_once(queue: Call) -> None:
    done = queue("operations", "retry", "--state", "dead", "--by", "bob")
    assert (done.code, done.out, done.err) == (0, "2 operations are pending again\n", "")
    assert states() == ["pending", "unknown", "pending", "pending", "succeeded"]
    assert sql("SELECT attempts, next_attempt_at, finished_at FROM operations WHERE id = 3") == [(0, None, None)]
    assert actions() == [("bob", "retry", "2 operations", "3-4")]
    assert queue("operations", "retry", "--state", "dead").out == "0 operations are pending again\n"
    assert len(actions()) == 1


def test_retried_operations_are_listed_in_the_json(queue: Call) -> None:
    assert [operation["id"] for operation in queue("operations", "retry", "--state", "dead", "--json").data] == [3, 4]


def test_decision_without_a_name_records_the_user_of_the_operating_system(
    queue: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    queue("operations", "retry", "3")
    assert actions() == [("carol", "retry", "operation 3", "it was dead")]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("retry",), "give ids or --state dead"),
        (("retry", "3", "--state", "dead"), "give the ids of operations, or --state dead; not both"),
        (("retry", "--state", "unknown"), "'unknown' is not 'dead'"),
        (("release",), "give ids or --all"),
        (("release", "1", "--all"), "give the ids of operations, or --all; not both"),
        (("cancel",), "Missing argument 'ID...'"),
    ],
)
def test_command_without_a_choice_of_operations_is_refused(
    queue: Call, arguments: tuple[str, ...], problem: str
) -> None:
    refused = queue("operations", *arguments)
    assert refused.code == 2
    assert problem in refused.err
    assert actions() == []


def test_operation_on_hold_is_shown_and_released(queue: Call) -> None:
    sql(f"UPDATE operations SET on_hold_at = '{AT}' WHERE state IN ('pending', 'unknown')")
    listed = queue("operations", "list").out.splitlines()
    assert listed[0].split()[:4] == ["ID", "KIND", "STATE", "HOLD"]
    assert [line.split()[0] for line in listed if "on hold" in line] == ["2", "1"]
    assert [row["id"] for row in queue("operations", "list", "--on-hold", "--json").data] == [2, 1]
    done = queue("operations", "release", "1", "3", "--by", "alice")
    assert done.out == "operation 1 is released\n"
    assert done.err == "error: operation 3 is not on hold; it is dead\n"
    assert sql("SELECT id FROM operations WHERE on_hold_at IS NOT NULL") == [(2,)]
    assert actions() == [("alice", "release", "operation 1", "it was pending")]


def test_all_operations_on_hold_are_released_at_once(queue: Call) -> None:
    sql(f"UPDATE operations SET on_hold_at = '{AT}' WHERE id < 3")
    assert queue("operations", "release", "--all", "--by", "alice").out == "2 operations are released\n"
    assert sql("SELECT count(*) FROM operations WHERE on_hold_at IS NOT NULL") == [(0,)]
    assert actions() == [("alice", "release", "2 operations", "1-2")]
    assert states()[:2] == ["pending", "unknown"]


@pytest.mark.parametrize("decision", ["cancel", "retry"])
def test_other_decision_about_an_operation_on_hold_ends_the_hold(queue: Call, decision: str) -> None:
    sql(f"UPDATE operations SET on_hold_at = '{AT}' WHERE id = 3")
    assert queue("operations", decision, "3").code == 0
    assert sql("SELECT on_hold_at FROM operations WHERE id = 3") == [(None,)]


def test_repeated_id_is_decided_once(queue: Call) -> None:
    assert queue("operations", "retry", "3", "3").code == 0
    assert len(actions()) == 1
