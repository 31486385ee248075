"""`syncd doctor` while no daemon answers: it reports the problems of the mirror that `syncd status` reports."""

from __future__ import annotations

import pytest

from tests.helpers.databases import current_url
from tests.processes.helpers import Syncd

pytestmark = pytest.mark.both_databases


@pytest.fixture
def syncd(syncd: Syncd) -> Syncd:
    """Use the database of the test."""
    if (url := current_url()) is not None:
        syncd.environment["SYNCD_DATABASE_URL"] = url
    return syncd


async def test_doctor_without_a_daemon_reports_the_problems_of_status(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("doctor")).code == 0
    syncd.sandbox.script("DELETE", "/api/v3/chats/sessions/CHS1", 422)
    await syncd.call("enqueue", "delete", "--id", "CHS1")
    assert (await syncd.call("once", ALBERT_TOKEN="wrong")).code == 1
    assert (await syncd.call("once")).code == 1
    for session_id in list(syncd.sandbox.live()):
        syncd.sandbox.delete(session_id)
    assert (await syncd.call("once")).code == 1

    problems = (await syncd.call("status", "--json")).data["problems"]
    assert {"operations_dead", "deletions_held"} <= {problem["code"] for problem in problems}
    doctor = await syncd.call("doctor", "--json")
    assert doctor.code == 1
    findings = [finding for finding in doctor.data if finding["check"] == "mirror"]
    assert [(finding["verdict"], finding["detail"], finding["fix"]) for finding in findings] == [
        ("bad", f"{problem['code']}: {problem['text']}", problem["command"]) for problem in problems
    ]


async def test_doctor_does_not_advise_itself(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("once", ALBERT_TOKEN="wrong")).code == 1
    (problem,) = (await syncd.call("status", "--json")).data["problems"]
    assert (problem["code"], problem["command"]) == ("pass_not_complete", "syncd doctor")
    (mirror,) = [finding for finding in (await syncd.call("doctor", "--json")).data if finding["check"] == "mirror"]
    assert (mirror["detail"], mirror["fix"]) == (f"pass_not_complete: {problem['text']}", None)


async def test_doctor_finds_nothing_wrong_before_the_first_pass_and_the_reason_after_a_failed_one(syncd: Syncd) -> None:
    assert (await syncd.call("migrate")).code == 0
    assert (await syncd.call("doctor")).code == 0
    syncd.sandbox.script("GET", "/api/v3/chats/sessions", 400, times=1)
    assert (await syncd.call("once")).code == 1
    doctor = await syncd.call("doctor", "--json")
    assert doctor.code == 1
    assert [finding["detail"].partition(":")[0] for finding in doctor.data if finding["check"] == "mirror"] == [
        "no_complete_pass"
    ]
