"""kill -9 at critical moments: committed work is kept, and nothing is done twice."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from urllib.parse import quote

from syncd.mirror.db.daemon_lock import daemon_lock
from syncd.sandbox import Habits, Sandbox, serve
from tests.helpers.postgres_server import free_port
from tests.processes.helpers import SECRET, Syncd, at_work, eventually

LAST_PASS = "SELECT id, state, pages, seen, inserted FROM passes ORDER BY id DESC LIMIT 1"


def pages_of(syncd: Syncd) -> int:
    rows = syncd.rows(LAST_PASS)
    return int(rows[0]["pages"]) if rows else 0


def reached(syncd: Syncd, goal: int) -> bool:
    return pages_of(syncd) >= goal


async def test_first_pass_killed_twice_continues_at_its_checkpoint_and_repeats_no_committed_page(
    tmp_path: Path,
) -> None:
    server = Sandbox(3000, seed=5, habits=Habits(page_size=30, latency=0.01), token=SECRET)
    async with serve(server), at_work(tmp_path, server) as syncd:
        committed = 0
        for _ in range(2):
            goal = committed + 20
            daemon = await syncd.start("run", SYNCD_PASS_INTERVAL="600")
            await eventually(partial(reached, syncd, goal))
            daemon.process.kill()
            assert await daemon.code() == -9
            committed = pages_of(syncd)
            assert committed < 100, "the kill came too late to show anything"
            assert syncd.sql("SELECT count(*) AS n FROM chat_sessions") == [{"n": committed * 30}]

        (checkpoint,) = syncd.sql("SELECT page_key FROM passes")
        last = await syncd.start("run", SYNCD_PASS_INTERVAL="600")
        started = await last.event("pass.started")
        assert (started["resumed"], started["pass_id"], started["pages"]) == (True, 1, committed)
        await last.event("pass.complete", pass_id=1)
        assert await last.stop() == 0

        assert syncd.sql(LAST_PASS) == [{"id": 1, "state": "complete", "pages": 100, "seen": 3000, "inserted": 3000}]
        assert syncd.sql("SELECT count(*) AS n FROM chat_session_history") == [{"n": 3000}]
        listings = [
            request.raw_path for request in server.requests if request.raw_path.startswith("/api/v3/chats/sessions?")
        ]
        resumed = [path.endswith(f"startKey={quote(checkpoint['page_key'], safe='')}") for path in listings]
        assert resumed[::-1].index(True) + 1 == 100 - committed  # requests from the last one with this key on


async def test_create_in_flight_at_a_kill_is_looked_up_and_not_sent_again(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    syncd.sandbox.script("POST", "/api/v3/chats/sessions", "hang_after")
    await syncd.call("enqueue", "create", "--source-session-id", "hanging", "--name", "Hanging")
    daemon = await syncd.run(SYNCD_REQUEST_TIMEOUT="30")
    await eventually(lambda: [effect for effect in syncd.sandbox.effects if effect.kind == "created"])
    assert syncd.sql("SELECT state, attempts FROM operations") == [{"state": "running", "attempts": 1}]
    daemon.process.kill()
    await daemon.code()

    again = await syncd.run(SYNCD_UNKNOWN_SETTLE="1")
    assert (await again.event("operation.unknown"))["operation_id"] == 1
    await again.event("operation.succeeded", operation_id=1)
    assert [request.method for request in syncd.sandbox.requests].count("POST") == 1
    assert [effect.kind for effect in syncd.sandbox.effects] == ["created"]


async def test_killed_daemon_leaves_no_stale_lock(syncd: Syncd) -> None:
    daemon = await syncd.run()
    daemon.process.kill()
    await daemon.code()
    assert (await syncd.call("once")).code == 0


async def test_second_daemon_and_once_are_refused_with_the_process_that_runs(syncd: Syncd) -> None:
    syncd.environment["SYNCD_STATUS_PORT"] = str(free_port())  # the same for all of them
    daemon = await syncd.run(SYNCD_PASS_INTERVAL="600")
    await daemon.event("folders.mirrored")
    asked = len(syncd.sandbox.requests)
    for command in ("run", "once"):
        refused = await syncd.call(command)
        assert refused.code == 3
        assert f"held by syncd run, process {daemon.process.pid}, since 2" in refused.err
    assert len(syncd.sandbox.requests) == asked
    link = syncd.folder / "other-name.db"
    link.symlink_to(syncd.file)
    assert (await syncd.call("once", SYNCD_DATABASE_URL=f"sqlite+aiosqlite:///{link}")).code == 3
    assert (await syncd.call("status")).code == 0


async def test_daemon_whose_lock_file_is_removed_locks_another_one(syncd: Syncd) -> None:
    daemon = await syncd.run(SYNCD_PASS_INTERVAL="600")
    await daemon.event("folders.mirrored")
    lock = syncd.file.with_name(f"{syncd.file.name}.lock")
    lock.unlink()
    await eventually(lock.exists)
    assert (await syncd.call("once")).code == 3
    assert await daemon.stop() == 0


async def test_daemon_stops_when_another_one_took_its_removed_lock(syncd: Syncd) -> None:
    daemon = await syncd.run(SYNCD_PASS_INTERVAL="600")
    await daemon.event("folders.mirrored")
    syncd.file.with_name(f"{syncd.file.name}.lock").unlink()
    with daemon_lock(syncd.file, "run"):
        assert await daemon.code() == 3
    stopped = await daemon.event("daemon.failed")
    assert f"is held by syncd run, process {os.getpid()}, since 2" in stopped["reason"]
