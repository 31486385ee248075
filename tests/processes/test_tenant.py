"""One tenant per database: with settings of another one, no command writes or sends anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web

from syncd.mirror.db.database import Database
from syncd.sandbox import Habits, Sandbox, serve
from syncd.sandbox.tokens import web_token
from tests.helpers.databases import current_url
from tests.processes.helpers import Syncd, at_work, eventually

pytestmark = pytest.mark.both_databases

TABLES = (
    "sessions",
    "passes",
    "operations",
    "source_sessions",
    "holds",
    "mirror_identity",
    "operator_actions",
    "writers",
)
CREDENTIALS: dict[str, Any] = {
    "ALBERT_TOKEN": "", "ALBERT_CLIENT_ID": Sandbox.client_id, "ALBERT_CLIENT_SECRET": Sandbox.client_secret,
}  # fmt: skip
"""Client credentials instead of the token: an empty value counts as not set."""
DECISIONS = (
    ["operations", "retry", "1"], ["operations", "release", "2"], ["operations", "cancel", "3"],
    ["deletions", "approve", "7"],
)  # fmt: skip
"""Commands that each have an effect on the database that `waiting_for_decisions` makes."""
ACTING = (
    ["once"], ["run"], ["enqueue", "create", "--source-session-id", "s-9", "--name", "n"],
    ["enqueue", "delete", "--id", "SES1"], ["enqueue", "update", "--id", "SES1", "--name", "n"],
    ["enqueue", "import", "more.csv"], ["sources", "add", "new-1"], ["deletions", "reject", "7"],
    ["operations", "release", "--all"], ["quarantine", "replay"], ["prune", "--older-than", "1d"], *DECISIONS,
)  # fmt: skip
LONG_AGO = "2020-01-01T00:00:00.000000Z"


class Pair:
    """A database, the tenant A that it mirrors, and another tenant B."""

    def __init__(self, syncd: Syncd, a: Sandbox, b: Sandbox) -> None:
        self.syncd, self.a, self.b = syncd, a, b

    async def sql(self, statement: str) -> list[dict[str, Any]]:
        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            result = connection.exec_driver_sql(statement)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

        async with Database(sa.make_url(self.syncd.environment["SYNCD_DATABASE_URL"]), busy_timeout=5) as database:
            return await (database.read if statement.startswith("SELECT") else database.write)(work)

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return all that a command could have written."""
        return {table: await self.sql(f"SELECT * FROM {table}") for table in TABLES}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with tenants(tmp_path) as made:
        yield made


@asynccontextmanager
async def tenants(folder: Path) -> AsyncIterator[Pair]:
    a, b = Sandbox(12, seed=3, habits=Habits()), Sandbox(7, seed=4, habits=Habits(tenant_id="TEN2"))
    async with serve(a), serve(b), at_work(folder, a) as syncd:
        syncd.environment["SYNCD_DATABASE_URL"] = current_url() or f"sqlite+aiosqlite:///{folder / 'syncd.db'}"
        yield Pair(syncd, a, b)


async def waiting_for_decisions(pair: Pair) -> None:
    """Leave a dead operation 1, an operation 2 on hold, a pending operation 3, an old one, and the held pass 7."""
    (pair.syncd.folder / "more.csv").write_text("source_session_id,name\ncrm-1,One\n")
    for number in range(1, 5):
        await pair.sql(f"INSERT INTO operations (kind, source_session_id, name) VALUES ('create', 's-{number}', 'n')")
    await pair.sql(f"UPDATE operations SET state = 'dead', finished_at = '{LONG_AGO}' WHERE id = 1")
    await pair.sql(f"UPDATE operations SET on_hold_at = '{LONG_AGO}' WHERE id = 2")
    await pair.sql(f"UPDATE operations SET state = 'cancelled', finished_at = '{LONG_AGO}' WHERE id = 4")
    await pair.sql(
        f"INSERT INTO passes (id, state, started_at, finished_at) VALUES (7, 'held', '{LONG_AGO}', '{LONG_AGO}')"
    )
    await pair.sql(
        "INSERT INTO holds (id, pass_id, last_pass_id, state, reason, detail, opened_at, updated_at) VALUES "
        f"(1, 7, 7, 'open', 'too_many_gone', 'too many', '{LONG_AGO}', '{LONG_AGO}')"
    )
    await pair.sql("UPDATE passes SET hold_id = 1 WHERE id = 7")


async def assert_all_are_refused(pair: Pair, *parts: str, **settings: str) -> None:
    """Assert that every acting command exits with 2, names these parts, and neither writes nor sends."""
    before = await pair.rows()
    pair.a.requests.clear()
    for command in ACTING:
        refused = await pair.syncd.call(*command, given=b"", **settings)
        assert refused.code == 2, command
        for part in (*parts, "syncd tenant accept"):
            assert part in refused.err, command
        logged = [json.loads(line) for line in refused.out.splitlines()]
        mismatches = [event["level"] for event in logged if event["event"] == "tenant.mismatch"]
        assert mismatches == (["error"] if command[0] in {"once", "run"} else [])
    assert [*pair.a.requests, *pair.b.requests] == []
    assert await pair.rows() == before


async def test_other_origin_ends_every_acting_command_before_it_writes_or_sends(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await waiting_for_decisions(pair)
    await assert_all_are_refused(pair, pair.a.url, pair.b.url, ALBERT_BASE_URL=pair.b.url)
    for command in DECISIONS:
        before = await pair.rows()
        done = await pair.syncd.call(*command)
        assert done.code == 0, (command, done.err)
        assert await pair.rows() != before


async def test_client_credentials_of_another_tenant_end_the_command_after_the_token_request(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    await pair.syncd.call("enqueue", "create", "--source-session-id", "s", "--name", "n")
    before = await pair.rows()
    pair.a.habits.tenant_id = "TEN2"
    pair.a.requests.clear()
    for command in ("once", "run"):
        refused = await pair.syncd.call(command, **CREDENTIALS)
        assert refused.code == 2
        for part in ("tenant TEN1", "tenant TEN2", "syncd tenant accept"):
            assert part in refused.err
        (event,) = [json.loads(line) for line in refused.out.splitlines() if '"tenant.mismatch"' in line]
        assert (event["tenant"], event["settings_tenant"]) == ("TEN1", "TEN2")
    assert {request.raw_path for request in pair.a.requests} == {"/api/v3/login/oauth/token"}
    assert await pair.rows() == before


async def test_dry_run_reads_no_listing_of_another_tenant(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    pair.a.habits.tenant_id = "TEN2"
    pair.a.requests.clear()
    refused = await pair.syncd.call("once", "--dry-run", **CREDENTIALS)
    assert refused.code == 2
    assert "tenant TEN1" in refused.err
    assert "tenant TEN2" in refused.err
    assert {request.raw_path for request in pair.a.requests} == {"/api/v3/login/oauth/token"}


async def test_tenant_of_a_web_token_is_compared_before_any_request(pair: Pair) -> None:
    pair.a.tokens.static = web_token({"tenantId": "TEN1"}, "x")
    assert (await pair.syncd.call("once", ALBERT_TOKEN=pair.a.token)).code == 0
    assert (await pair.sql("SELECT tenant_id FROM mirror_identity")) == [{"tenant_id": "TEN1"}]
    await waiting_for_decisions(pair)
    pair.a.tokens.static = web_token({"tenantId": "TEN2"}, "x")
    await assert_all_are_refused(pair, "tenant TEN1", "tenant TEN2", ALBERT_TOKEN=pair.a.token)


async def test_rotated_secret_of_another_tenant_ends_the_daemon_before_its_next_request(pair: Pair) -> None:
    daemon = await pair.syncd.run(**CREDENTIALS)
    await daemon.event("pass.complete")
    pair.a.habits.tenant_id = "TEN2"
    pair.a.tokens.revoke()
    seen: list[str] = []

    def note(request: web.BaseRequest) -> bool:
        """Note the header of every request, and match none."""
        seen.append(request.headers.get("Authorization", ""))
        return False

    pair.a.script("*", note, 500)
    assert await daemon.code() == 2
    assert daemon.events("tenant.mismatch", settings_tenant="TEN2", tenant="TEN1")
    issued = set(pair.a.tokens._ends)
    assert issued
    assert not any(header.removeprefix("Bearer ") in issued for header in seen)
    assert "TEN2" in daemon.err.read_text()


async def test_queue_sends_nothing_with_a_token_of_another_tenant(pair: Pair) -> None:
    daemon = await pair.syncd.run(**CREDENTIALS, SYNCD_PASS_INTERVAL="300", SYNCD_RECONCILE_INTERVAL="300")
    await daemon.event("pass.complete")
    pair.a.habits.tenant_id = "TEN2"
    pair.a.tokens.revoke()
    await pair.sql("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', 's', 'n')")
    await pair.sql("INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1')")
    assert await daemon.code() == 2
    assert pair.a.effects == []
    states = {row["state"]: row["attempts"] for row in await pair.sql("SELECT state, attempts FROM operations")}
    assert states == {"pending": 0}


async def test_spellings_of_the_origin_are_the_same_tenant(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    spelling = pair.a.url.replace("http://127", "HTTP://127") + "/"
    assert (await pair.syncd.call("once", ALBERT_BASE_URL=spelling)).code == 0


async def test_existing_mirror_without_a_pin_is_pinned_at_the_next_start(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.sql("DELETE FROM mirror_identity")
    done = await pair.syncd.call("once")
    assert done.code == 0
    (event,) = [json.loads(line) for line in done.out.splitlines() if '"tenant.pinned"' in line]
    assert event["origin"] == pair.a.url
    assert (await pair.sql("SELECT origin FROM mirror_identity")) == [{"origin": pair.a.url}]
    assert (await pair.syncd.call("once", ALBERT_BASE_URL=pair.b.url)).code == 2


async def test_tenant_that_was_unknown_is_added_by_the_first_token_that_names_it(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    assert (await pair.sql("SELECT tenant_id FROM mirror_identity")) == [{"tenant_id": "TEN1"}]
    assert (await pair.syncd.call("once")).code == 0  # an opaque token names none


async def test_outage_at_the_start_leaves_the_check_to_the_first_token(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    pair.a.habits.tenant_id = "TEN2"
    pair.a.requests.clear()
    pair.a.script("POST", "/api/v3/login", 503)
    refused = await pair.syncd.call("once", **CREDENTIALS)
    assert refused.code == 2
    assert {request.raw_path for request in pair.a.requests} == {"/api/v3/login/oauth/token"}


async def test_program_that_queues_needs_no_settings_of_albert(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    assert (await pair.syncd.call("enqueue", "delete", "--id", "SES1", ALBERT_BASE_URL="", ALBERT_TOKEN="")).code == 0


async def test_reads_work_with_the_settings_of_another_tenant(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    for command in (["status"], ["operations", "list"], ["tenant", "show"], ["deletions", "list"], ["sources", "list"],
                    ["export", "out", "--format", "csv"], ["quarantine", "list"]):  # fmt: skip
        done = await pair.syncd.call(*command, ALBERT_BASE_URL=pair.b.url)
        assert done.code in {0, 1}, (command, done.err)
        assert "tenant accept" in done.out or command[0] not in {"tenant", "status"}


async def test_show_has_the_tenant_of_the_mirror_and_that_of_the_settings(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    shown = (await pair.syncd.call("tenant", "show", "--json")).data
    assert (shown["origin"], shown["tenant_id"], shown["matches"]) == (pair.a.url, "TEN1", None)
    of_token = web_token({"tenantId": "TEN1"}, "x")
    shown = (await pair.syncd.call("tenant", "show", "--json", ALBERT_TOKEN=of_token)).data
    assert (shown["settings"]["tenant_id"], shown["matches"]) == ("TEN1", True)
    shown = (await pair.syncd.call("tenant", "show", "--json", ALBERT_BASE_URL=pair.b.url)).data
    assert shown["settings"] == {"origin": pair.b.url, "tenant_id": None}
    assert shown["matches"] is False


async def test_accept_changes_the_tenant_to_that_of_the_settings(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    other = {**CREDENTIALS, "ALBERT_BASE_URL": pair.b.url}
    accepted = await pair.syncd.call("tenant", "accept", "--by", "alice", "--json", **other)  # ids differ: no probe
    assert accepted.code == 0, accepted.err
    assert accepted.data["before"] == {"origin": pair.a.url, "tenant_id": "TEN1"}
    assert accepted.data["after"] == {"origin": pair.b.url, "tenant_id": "TEN2"}
    assert accepted.data["on_hold"] == 0
    assert {request.raw_path for request in pair.b.requests} == {"/api/v3/login/oauth/token"}
    (action,) = await pair.sql("SELECT action, subject, detail, by FROM operator_actions")
    assert (action["action"], action["subject"], action["by"]) == ("accept", "tenant", "alice")
    assert pair.b.url in action["detail"]
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 2
    assert (await pair.syncd.call("tenant", "accept", **CREDENTIALS)).code == 0
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0


async def test_new_address_of_the_same_tenant_leaves_the_queue_as_it_is(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.syncd.call("enqueue", "create", "--source-session-id", "s", "--name", "n")
    twin = Sandbox(12, seed=3)
    async with serve(twin):
        accepted = await pair.syncd.call("tenant", "accept", "--json", ALBERT_BASE_URL=twin.url)
        assert accepted.data["on_hold"] is None
        assert (await pair.syncd.call("once", ALBERT_BASE_URL=twin.url)).code == 0
    assert [effect.source_session_id for effect in twin.effects] == ["s"]


async def test_operations_for_the_tenant_before_are_put_on_hold(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.syncd.call("enqueue", "create", "--source-session-id", "s", "--name", "n")
    accepted = await pair.syncd.call("tenant", "accept", ALBERT_BASE_URL=pair.b.url)
    assert "1 operation is on hold" in accepted.out
    assert len(pair.b.requests) == 5
    await pair.syncd.call("once", ALBERT_BASE_URL=pair.b.url)
    assert pair.b.effects == []


async def test_accept_is_refused_while_a_daemon_runs(pair: Pair) -> None:
    daemon = await pair.syncd.run()
    await daemon.event("pass.complete")
    refused = await pair.syncd.call("tenant", "accept", ALBERT_BASE_URL=pair.b.url)
    assert refused.code == 3
    assert "stop it first" in refused.err
    assert (await pair.sql("SELECT origin FROM mirror_identity")) == [{"origin": pair.a.url}]


async def test_accept_without_an_answer_of_albert_changes_nothing(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    pair.b.script("POST", "/api/v3/login", 401)
    refused = await pair.syncd.call("tenant", "accept", **CREDENTIALS, ALBERT_BASE_URL=pair.b.url)
    assert refused.code == 1
    assert "syncd doctor" in refused.err
    assert (await pair.sql("SELECT origin FROM mirror_identity")) == [{"origin": pair.a.url}]


async def test_accept_needs_a_database(tmp_path: Path, pair: Pair) -> None:
    missing = await pair.syncd.call("tenant", "accept", SYNCD_DATABASE_URL=f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.code == 3
    assert [path.name for path in tmp_path.glob("none*")] == []


async def test_doctor_names_the_other_tenant(pair: Pair) -> None:
    assert (await pair.syncd.call("once", **CREDENTIALS)).code == 0
    for base_url, expected in ((pair.b.url, pair.b.url), (pair.a.url, "TEN9")):
        pair.a.habits.tenant_id = "TEN9"
        doctor = await pair.syncd.call("doctor", "--json", **CREDENTIALS, ALBERT_BASE_URL=base_url)
        assert doctor.code == 1
        (tenant,) = [finding for finding in doctor.data if finding["check"] == "tenant"]
        assert tenant["verdict"] == "bad"
        assert expected in tenant["detail"]
        assert "tenant accept" in tenant["fix"]


async def test_replica_with_the_settings_of_another_tenant_does_not_start(pair: Pair) -> None:
    daemon = await pair.syncd.run()
    await daemon.event("pass.complete")
    other = await pair.syncd.start("run", ALBERT_BASE_URL=pair.b.url)
    assert await other.code() in {2, 3}  # on SQLite the first daemon holds the file
    assert list(pair.b.requests) == []
    await eventually(lambda: len(daemon.events("pass.complete")) > 1, why="the first daemon continues")
