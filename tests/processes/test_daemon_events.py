"""Events about the process itself: its identity, the error that ends it, a reload, and a wait for the database."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.version import program_version
from tests.processes.helpers import COMMAND, SECRET, SOON_BUSY, Syncd, eventually

BROKEN = """\
import sys
from syncd.__main__ import main
from syncd.mirror.store import {module}
def broken(*given, **named):
    raise TypeError("a defect")
{module}.{function} = broken
sys.argv = ["syncd", {command!r}]
main()
"""
"""The program with a defect in one function."""


def spoil(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE theirs (a)")


async def test_start_names_version_host_tenant_database_and_the_changed_settings_without_secrets(syncd: Syncd) -> None:
    syncd.sandbox.habits.tenant_id = "TEN7"
    hook = "https://hooks.example.com/path-canary?key=canary"
    daemon = await syncd.run(
        ALBERT_TOKEN="",
        ALBERT_CLIENT_ID=syncd.sandbox.client_id,
        ALBERT_CLIENT_SECRET=syncd.sandbox.client_secret,
        SYNCD_NOTIFY_URL=hook,
    )
    started = await daemon.event("daemon.started")
    assert started["version"] == program_version()
    assert started["host"] == socket.gethostname()
    assert (started["origin"], started["tenant"]) == (syncd.sandbox.url, "TEN7")
    assert started["database"].endswith("syncd.db")
    changed = started["settings"]
    assert changed["SYNCD_PASS_INTERVAL"] == 0.3
    assert changed["SYNCD_NOTIFY_URL"] == "https://hooks.example.com/********"
    assert changed["ALBERT_CLIENT_SECRET"] == "********"
    assert "SYNCD_LOG_LEVEL" not in changed
    assert "canary" not in "".join(daemon.lines)
    assert syncd.sandbox.client_secret not in "".join(daemon.lines)


async def test_start_names_the_tenant_as_unknown_while_no_token_names_one(syncd: Syncd) -> None:
    daemon = await syncd.run()
    assert (await daemon.event("daemon.started"))["tenant"] == "unknown"


@pytest.mark.parametrize("command", ["run", "once"])
async def test_error_that_ends_the_process_is_an_event_with_the_exit_code(syncd: Syncd, command: str) -> None:
    spoil(syncd.file)
    ended = await syncd.call(command)
    assert ended.code == 3
    failed = json.loads(ended.out.splitlines()[-1])
    assert (failed["event"], failed["level"], failed["exit_code"]) == ("daemon.failed", "error", 3)
    assert "exception" not in failed
    assert ended.err == f"error: {failed['reason']}\n"


async def test_error_is_reported_once_where_the_log_and_standard_error_are_the_same(syncd: Syncd) -> None:
    spoil(syncd.file)
    for style, begin in (("json", "{"), ("console", "error: ")):
        ended = await anyio.run_process(
            [*COMMAND, "run"], stderr=subprocess.STDOUT, cwd=syncd.folder, check=False,
            env={**syncd.environment, "SYNCD_LOG_FORMAT": style},
        )  # fmt: skip
        (line,) = ended.stdout.decode().splitlines()
        assert (ended.returncode, line.startswith(begin)) == (3, True)
    as_json = await syncd.call("once", "--json")
    assert (as_json.code, as_json.out) == (3, "")
    assert json.loads(as_json.err)["event"] == "daemon.failed"


@pytest.mark.parametrize("command", ["run", "once"])
async def test_defect_that_ends_the_process_is_an_event_with_a_structured_traceback(syncd: Syncd, command: str) -> None:
    program = BROKEN.format(module="identity", function="pin", command=command)
    ended = await anyio.run_process(
        [COMMAND[0], "-c", program], env=syncd.environment, cwd=syncd.folder, check=False
    )  # fmt: skip
    assert ended.returncode == 1
    failed = json.loads(ended.stdout.splitlines()[-1])
    assert (failed["event"], failed["exit_code"]) == ("daemon.failed", 1)
    assert failed["exception"][0]["exc_type"] == "TypeError"
    assert failed["exception"][0]["frames"][-1]["name"] == "broken"
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.startswith(b"error: unforeseen error: TypeError")


async def test_sighup_reads_the_log_level_and_a_rotated_token_again(syncd: Syncd) -> None:
    env, token = syncd.folder / "my.env", syncd.folder / "token"
    env.write_text("SYNCD_LOG_LEVEL=info\n")
    token.write_text(SECRET)
    daemon = await syncd.start(
        "run", "--env-file", "my.env", ALBERT_TOKEN="", ALBERT_TOKEN_FILE=str(token), SYNCD_RETRY_MAX="60"
    )
    await daemon.event("pass.complete")
    assert not daemon.events(level="debug")
    env.write_text("SYNCD_LOG_LEVEL=debug\nSYNCD_PASS_INTERVAL=0.4\n")
    token.write_text("rotated-token")
    syncd.sandbox.tokens.static = "rotated-token"
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = await daemon.event("settings.reloaded")
    assert (reloaded["log_level"], reloaded["changed"]) == ("debug", ["ALBERT_TOKEN", "SYNCD_LOG_LEVEL"])
    after = len(daemon.events("pass.complete"))
    await eventually(lambda: len(daemon.events("pass.complete")) > after + 1)
    await daemon.event("page.mirrored", level="debug", changed=0)
    env.write_text("SYNCD_LOG_LEVEL=loud\n")
    daemon.process.send_signal(signal.SIGHUP)
    assert "SYNCD_LOG_LEVEL" in (await daemon.event("settings.rejected"))["problems"]
    assert await daemon.stop() == 0


async def test_change_to_the_other_kind_of_credentials_needs_a_restart_and_the_old_ones_stay_in_use(
    syncd: Syncd,
) -> None:
    env = syncd.folder / "my.env"
    env.write_text(f"ALBERT_TOKEN={SECRET}\n")
    daemon = await syncd.start("run", "--env-file", "my.env", ALBERT_TOKEN="")
    await daemon.event("pass.complete")
    client = f"ALBERT_CLIENT_ID={syncd.sandbox.client_id}\nALBERT_CLIENT_SECRET={syncd.sandbox.client_secret}\n"
    env.write_text(f"{client}SYNCD_LOG_LEVEL=debug\n")
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = await daemon.event("settings.reloaded", changed=["SYNCD_LOG_LEVEL"])
    assert reloaded["need_restart"] == ["ALBERT_TOKEN", "ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET"]
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = await daemon.event("settings.reloaded", changed=[])
    assert reloaded["need_restart"] == ["ALBERT_TOKEN", "ALBERT_CLIENT_ID", "ALBERT_CLIENT_SECRET"]
    after = len(daemon.events("pass.complete"))
    await eventually(lambda: len(daemon.events("pass.complete")) > after + 1)
    assert not daemon.events("pass.failed")
    assert await daemon.stop() == 0


async def test_once_logs_the_wait_for_a_locked_database_and_its_end(syncd: Syncd) -> None:
    assert (await syncd.call("migrate")).code == 0
    syncd.constants |= SOON_BUSY
    with closing(sqlite3.connect(syncd.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        once = await syncd.start("once")
        await once.event("database.waiting")
        other.execute("COMMIT")
    assert await once.code() == 0
    resumed = once.events("database.resumed")
    assert [event["seconds"] > 0 for event in resumed] == [True]
