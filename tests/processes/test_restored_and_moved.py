"""Restored and moved databases: a restored backup holds its operations, and the source of a move refuses to act."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.databases import current_url
from tests.helpers.postgres_server import PostgresServer
from tests.processes.helpers import Syncd
from tests.processes.test_tenant import ACTING, Pair, pair, waiting_for_decisions

__all__ = ["pair"]
pytestmark = pytest.mark.both_databases

CREATE = ("enqueue", "create", "--source-session-id")


async def states(pair: Pair) -> dict[int, str]:
    rows = await pair.sql("SELECT id, state FROM operations ORDER BY id")
    return {row["id"]: row["state"] for row in rows}


async def mark_as_copy(pair: Pair) -> None:
    await pair.sql("UPDATE mirror_identity SET copied_at = '2026-06-01T12:00:00.000000Z'")


async def test_copy_starts_once_with_its_open_operations_on_hold(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.syncd.call(*CREATE, "old", "--name", "n")
    await pair.syncd.call("enqueue", "delete", "--id", "SES1")
    await mark_as_copy(pair)
    started = await pair.syncd.call("once")
    (event,) = [json.loads(line) for line in started.out.splitlines() if '"operations.on_hold"' in line]
    assert (event["level"], event["operations"]) == ("warning", 2)
    assert [json.loads(line)["event"] for line in started.out.splitlines()].count("pass.complete") == 1
    assert pair.a.effects == []
    await pair.syncd.call(*CREATE, "new", "--name", "n")
    assert (await pair.syncd.call("once")).code == 0
    assert [effect.source_session_id for effect in pair.a.effects] == ["new"]
    assert await states(pair) == {1: "pending", 2: "pending", 3: "succeeded"}
    shown = await pair.syncd.call("status")
    assert shown.code == 1
    assert "2 operations are on hold" in shown.out


async def test_operation_whose_hold_has_ended_is_applied(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    for source in ("keep", "drop"):
        await pair.syncd.call(*CREATE, source, "--name", "n")
    await mark_as_copy(pair)
    assert (await pair.syncd.call("once")).code == 0
    released = await pair.syncd.call("operations", "release", "1", "--by", "alice")
    assert (released.code, released.out) == (0, "operation 1 is released\n")
    assert (await pair.syncd.call("operations", "cancel", "2")).code == 0
    assert (await pair.syncd.call("once")).code == 0
    assert [effect.source_session_id for effect in pair.a.effects] == ["keep"]
    assert (await pair.syncd.call("status")).code == 0


async def put_back(pair: Pair, backup: Path, by: str) -> None:
    """Restore a backup, by the command or by a plain copy; a mark is what a copy has on PostgreSQL."""
    syncd = pair.syncd
    if by == "command":
        done = await syncd.call("restore", "--in-place" if current_url() else str(backup))
        assert done.code == 0, done.err
    elif current_url():
        await mark_as_copy(pair)
    else:
        for ending in ("", "-wal", "-shm"):
            Path(f"{syncd.file}{ending}").unlink(missing_ok=True)
        shutil.copy(backup, syncd.file)


@pytest.mark.parametrize("by", ["command", "copy"])
async def test_restored_backup_sends_nothing_until_a_release_and_mirrors_meanwhile(
    pair: Pair, tmp_path: Path, by: str
) -> None:
    syncd, backup = pair.syncd, tmp_path / "backup.db"
    assert (await syncd.call("once")).code == 0
    await syncd.call(*CREATE, "old", "--name", "n")
    await syncd.call("enqueue", "delete", "--id", "SES1")
    if not current_url():
        assert (await syncd.call("backup", str(backup))).code == 0
    await put_back(pair, backup, by)
    pair.a.create(source_session_id="later", name="later")
    before = len(pair.a.effects)
    for _ in range(2):
        assert (await syncd.call("once")).code == 0
    assert len(pair.a.effects) == before
    assert {row["id"] for row in await pair.sql("SELECT id FROM chat_sessions")} == set(pair.a.live())
    listed = (await syncd.call("operations", "list", "--json")).data
    assert [(row["id"], row["on_hold_at"] is not None) for row in listed] == [(2, True), (1, True)]
    assert (await syncd.call("operations", "release", "--all")).out == "2 operations are released\n"
    assert (await syncd.call("once")).code == 0
    assert {(effect.kind, effect.source_session_id == "old") for effect in pair.a.effects[before:]} == {
        ("created", True), ("deleted", False),
    }  # fmt: skip


async def test_operation_that_is_queued_before_the_first_start_of_a_copy_is_not_on_hold(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.syncd.call(*CREATE, "old", "--name", "n")
    await mark_as_copy(pair)
    assert (await pair.syncd.call(*CREATE, "new", "--name", "n")).code == 0
    assert (await pair.syncd.call("once")).code == 0
    assert [effect.source_session_id for effect in pair.a.effects] == ["new"]
    assert await states(pair) == {1: "pending", 2: "succeeded"}


async def test_database_that_was_restored_by_other_means_is_put_on_hold_by_the_command(pair: Pair) -> None:
    assert (await pair.syncd.call("once")).code == 0
    await pair.syncd.call(*CREATE, "old", "--name", "n")
    done = await pair.syncd.call("restore", "--in-place", "--by", "alice", "--json")
    assert done.code == 0, done.err
    assert done.data["on_hold"] == 1
    assert (await pair.syncd.call("once")).code == 0
    assert pair.a.effects == []
    (action,) = await pair.sql("SELECT action, by, detail FROM operator_actions")
    assert (action["action"], action["by"]) == ("restore", "alice")
    assert "1 operations on hold" in action["detail"]


async def test_restore_warns_if_the_settings_name_another_tenant(pair: Pair, tmp_path: Path) -> None:
    assert (await pair.syncd.call("once")).code == 0
    ways = [["--in-place"]]
    if pair.syncd.file.exists():
        assert (await pair.syncd.call("backup", str(tmp_path / "backup.db"))).code == 0
        ways.append([str(tmp_path / "backup.db")])
    for arguments in ways:
        done = await pair.syncd.call("restore", *arguments, ALBERT_BASE_URL="https://other.example")
        assert done.code == 0
        assert f"warning: the restored database mirrors {pair.a.url}" in done.err
        assert "https://other.example; change the settings, or run: syncd tenant accept" in done.err


async def test_restore_is_refused_while_a_daemon_runs(pair: Pair, tmp_path: Path) -> None:
    daemon = await pair.syncd.run()
    await daemon.event("pass.complete")
    backup = tmp_path / "backup.db"
    if pair.syncd.file.exists():
        assert (await pair.syncd.call("backup", str(backup))).code == 0
        refused = await pair.syncd.call("restore", str(backup))
        assert refused.code == 3
        assert "syncd run" in refused.err
    refused = await pair.syncd.call("restore", "--in-place")
    assert refused.code == 3
    assert "stop it first" in refused.err


async def test_restore_needs_a_file_or_in_place(pair: Pair) -> None:
    for arguments in ((), ("some.db", "--in-place")):
        assert (await pair.syncd.call("restore", *arguments)).code == 2
    missing = await pair.syncd.call("restore", "missing.db")
    assert missing.code == 2
    assert ("pg_restore" in missing.err) is (current_url() is not None)


@pytest.fixture
def target(tmp_path: Path, postgres: PostgresServer) -> Iterator[str]:
    """Name an empty database of the other kind."""
    name = postgres.empty()
    yield f"sqlite+aiosqlite:///{tmp_path / 'moved.db'}" if current_url() else postgres.url(name)
    postgres.drop(name)


async def test_moved_database_refuses_to_act_and_can_still_be_read(pair: Pair, target: str) -> None:
    syncd = pair.syncd
    assert (await syncd.call("once")).code == 0
    moved = await syncd.call("migrate-store", "--to", target)
    assert moved.code == 0, moved.err
    await waiting_for_decisions(pair)
    before, asked = await pair.rows(), len(pair.a.requests)
    for command in (arguments for arguments in ACTING if arguments[0] != "prune"):
        refused = await syncd.call(*command)
        assert refused.code == 3, command
        assert target in refused.err
        assert "--force" in refused.err
    assert (await syncd.call("once", "--dry-run")).code == 3
    assert len(pair.a.requests) == asked
    assert (await syncd.call("once", "--dry-run", "--force")).code == 0
    assert await pair.rows() == before
    await _reads_name_the_move(syncd, target)
    await pair.sql("DELETE FROM operations")
    await pair.sql("DELETE FROM passes WHERE id = 7")
    assert (await syncd.call(*CREATE, "s", "--name", "n", "--force")).code == 0
    assert (await syncd.call("once", "--force")).code == 0
    assert [effect.source_session_id for effect in pair.a.effects] == ["s"]
    assert (await syncd.call("once")).code == 3
    assert (await syncd.call("migrate-store", "--unmark", "--json")).data == {"moved_to": target}
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("once", SYNCD_DATABASE_URL=target)).code == 0


async def _reads_name_the_move(syncd: Syncd, target: str) -> None:
    shown = await syncd.call("status")
    assert shown.code == 1
    assert target in shown.out
    assert (await syncd.call("operations", "list")).code == 0
    assert target in (await syncd.call("tenant", "show")).out
    (moved,) = [finding for finding in (await syncd.call("doctor", "--json")).data if target in finding["detail"]]
    assert (moved["check"], moved["verdict"]) == ("moved", "bad")


@pytest.mark.sqlite
async def test_restored_backup_undoes_nothing_that_happened_since(pair: Pair, tmp_path: Path) -> None:
    syncd, backup = pair.syncd, tmp_path / "backup.db"
    assert (await syncd.call("once")).code == 0
    await syncd.call(*CREATE, "s", "--name", "n")
    await syncd.call("enqueue", "delete", "--source-session-id", "old-1")
    pair.a.create(source_session_id="old-1", name="the old one", id="SES-old")
    assert (await syncd.call("backup", str(backup))).code == 0
    assert (await syncd.call("once")).code == 0
    assert {(effect.kind, effect.source_session_id) for effect in pair.a.effects[1:]} == {
        ("created", "s"), ("deleted", "old-1"),
    }  # fmt: skip
    pair.a.delete(pair.a.effects[-1].session_id) if pair.a.effects[-1].kind == "created" else None
    pair.a.create(source_session_id="old-1", name="a newer one", id="SES-new")
    before = len(pair.a.effects)
    restored = await syncd.call("restore", str(backup), "--json")
    assert restored.code == 0, restored.err
    assert restored.data["on_hold"] == 2
    assert (await syncd.call("once")).code == 0
    assert len(pair.a.effects) == before
    assert {row["id"] for row in syncd.sql("SELECT id FROM chat_sessions")} == set(pair.a.live())


@pytest.mark.sqlite
async def test_backup_is_restored_from_standard_input(pair: Pair, tmp_path: Path) -> None:
    syncd, backup = pair.syncd, tmp_path / "backup.db"
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("backup", str(backup))).code == 0
    content = backup.read_bytes()
    syncd.file.unlink()
    restored = await syncd.call("restore", "-", "--json", given=content)
    assert restored.code == 0, restored.err
    assert (restored.data["file"], restored.data["kept"]) == ("standard input", None)
    assert len(syncd.sql("SELECT id FROM chat_sessions")) == 12
    assert (await syncd.call("restore", "-", given=content[:5000])).code == 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("size", "code", "text"),
    [
        (0, 2, "is empty: .*docker run needs the option --interactive, and kubectl exec needs --stdin"),
        (8, 3, "is not a SQLite database; restore the file that syncd backup wrote"),
        (5000, 3, "is cut off: it has 5000 of [0-9]+ bytes; if it was copied from another place, copy it again"),
    ],
)
async def test_backup_on_standard_input_that_is_cut_off_is_named_with_what_to_do(
    pair: Pair, tmp_path: Path, size: int, code: int, text: str
) -> None:
    syncd, backup = pair.syncd, tmp_path / "backup.db"
    assert (await syncd.call("migrate")).code == 0
    assert (await syncd.call("backup", str(backup))).code == 0
    refused = await syncd.call("restore", "-", given=backup.read_bytes()[:size])
    assert refused.code == code
    assert re.match(f"error: standard input {text}", refused.err)


@pytest.mark.sqlite
async def test_restored_backup_of_another_tenant_is_reported(pair: Pair, tmp_path: Path) -> None:
    syncd, backup = pair.syncd, tmp_path / "backup.db"
    assert (await syncd.call("once")).code == 0
    assert (await syncd.call("backup", str(backup))).code == 0
    restored = await syncd.call("restore", str(backup), ALBERT_BASE_URL=pair.b.url)
    assert restored.code == 0
    assert "syncd tenant accept" in restored.err
    assert (await syncd.call("once", ALBERT_BASE_URL=pair.b.url)).code == 2
