"""Albert is unreachable or refuses requests: the daemon reports it and recovers by itself, and `once` exits 1."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from syncd.sandbox import Sandbox, serve
from syncd.sandbox.tokens import CLIENT_ID, CLIENT_SECRET
from tests.helpers.postgres_server import free_port
from tests.processes.helpers import SECRET, Syncd, at_work, eventually


async def test_daemon_started_while_albert_is_away_recovers_when_it_comes(tmp_path: Path) -> None:
    server = Sandbox(10, token=SECRET)
    async with AsyncExitStack() as stack:
        async with serve(server):
            port = int(server.url.rpartition(":")[2])
            syncd = await stack.enter_async_context(at_work(tmp_path, server))
        daemon = await syncd.run()
        failed = await daemon.event("pass.failed", state="failed")
        assert "no connection" in failed["error"]
        assert (await syncd.call("once", SYNCD_DATABASE_URL="sqlite+aiosqlite:///other.db")).code == 1
        async with serve(server, port=port):
            await daemon.event("pass.complete")
        assert await daemon.stop() == 0


async def test_refused_credentials_pause_the_daemon_and_use_no_attempt(syncd: Syncd) -> None:
    refusing = [True]
    daemon = await syncd.run()
    await daemon.event("pass.complete")

    def refuse(_request: web.BaseRequest) -> web.Response | None:
        return web.json_response({"message": "Unauthorized"}, status=401) if refusing[0] else None

    syncd.sandbox.script("*", "/", refuse, times=100_000)
    await syncd.call("enqueue", "create", "--source-session-id", "a", "--name", "A")
    assert "credentials" in (await daemon.event("queue.paused"))["hint"]
    assert "credentials" in (await daemon.event("pass.failed"))["error"]
    rests = [{"state": "pending", "attempts": 0}]  # between the looks whether the credentials are taken again
    await eventually(lambda: syncd.sql("SELECT state, attempts FROM operations") == rests)
    refusing[0] = False
    await daemon.event("operation.succeeded")
    await daemon.event("queue.resumed")
    done = len(daemon.events("pass.complete"))
    await eventually(lambda: len(daemon.events("pass.complete")) > done)
    assert await daemon.stop() == 0


@pytest.mark.parametrize("names", [("TOKEN",), ("CLIENT_ID", "CLIENT_SECRET")], ids=["token", "client credentials"])
async def test_secret_file_that_is_rotated_is_read_again_without_a_restart(
    syncd: Syncd, names: tuple[str, ...]
) -> None:
    good = {"TOKEN": syncd.sandbox.token, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": CLIENT_SECRET}
    files = {name: syncd.folder / name.lower() for name in names}
    for name, file in files.items():
        file.write_text("rotated-away" if name == names[-1] else good[name])
    daemon = await syncd.run(ALBERT_TOKEN="", **{f"ALBERT_{name}_FILE": str(file) for name, file in files.items()})
    await syncd.call("enqueue", "create", "--source-session-id", "a", "--name", "A")
    await daemon.event("queue.paused")
    files[names[-1]].write_text(f"{good[names[-1]]}\n")
    await daemon.event("operation.succeeded")
    await daemon.event("pass.complete")
    assert syncd.sql("SELECT attempts FROM operations") == [{"attempts": 1}]
    assert await daemon.stop() == 0


async def test_once_with_refused_credentials_or_a_dead_operation_exits_1(syncd: Syncd) -> None:
    refused = await syncd.call("once", "--json", ALBERT_TOKEN="wrong")
    assert refused.code == 1
    assert refused.data["pass"]["state"] == "failed"
    assert "credentials" in refused.data["pass"]["error"]
    assert "pass 1 is failed: Albert refuses the credentials" in refused.data["problems"][0]
    failed = await syncd.call("once", ALBERT_TOKEN="wrong")
    assert failed.code == 1
    assert failed.err.startswith("error: pass 2 is failed: Albert refuses the credentials")
    assert "run: syncd doctor" in failed.err
    (problem,) = (await syncd.call("status", "--json")).data["problems"]
    assert problem["code"] == "no_complete_pass"
    assert "Albert refuses the credentials" in problem["text"]

    assert (await syncd.call("once")).code == 0
    syncd.sandbox.script("DELETE", "/api/v3/chats/sessions/CHS1", 422)
    await syncd.call("enqueue", "delete", "--id", "CHS1")
    dead = await syncd.call("once", "--json")
    assert (dead.code, dead.data["operations"]["dead"]) == (1, 1)
    status = await syncd.call("status", "--json")
    assert (status.code, status.data["healthy"]) == (1, False)
    (problem,) = status.data["problems"]
    assert problem["code"] == "operations_dead"
    for command in ("list --state dead", "retry ID", "cancel ID"):
        assert f"syncd operations {command}" in problem["command"]
    assert (await syncd.call("operations", "cancel", "1")).code == 0
    assert (await syncd.call("status")).code == 0


async def test_doctor_names_each_problem_and_its_fix(syncd: Syncd) -> None:
    new = await syncd.call("doctor", "--json")
    assert new.code == 0
    assert {finding["check"]: finding["verdict"] for finding in new.data} == {
        "settings": "ok", "sqlite": new.data[1]["verdict"], "database": "warning",
        "disk": "ok", "daemon": "ok", "clock": "ok", "albert": "ok",
    }  # fmt: skip
    absent = await syncd.call("doctor", "--json", SYNCD_STATUS_PORT=str(free_port()))
    (daemon,) = [finding for finding in absent.data if finding["check"] == "daemon"]
    assert (absent.code, daemon["verdict"]) == (0, "warning")
    assert "no daemon with this database answers" in daemon["detail"]
    assert "syncd once" in new.data[2]["fix"]
    assert (await syncd.call("doctor", SYNCD_AUTO_MIGRATE="false")).code == 1
    assert (await syncd.call("doctor", SYNCD_DATABASE_URL="sqlite:///nowhere/syncd.db")).code == 1
    assert not syncd.file.exists()
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("doctor")).code == 0
    refused = await syncd.call("doctor", ALBERT_TOKEN="wrong")
    assert refused.code == 1
    assert "401" in refused.out
    unset = await syncd.call("doctor", ALBERT_TOKEN="", SYNCD_LEASE="no", SYNCD_NONSENSE="1")
    assert unset.code == 2
    assert all(name in unset.out for name in ("ALBERT_TOKEN", "SYNCD_LEASE", "SYNCD_NONSENSE"))
