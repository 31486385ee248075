"""syncd on file systems that are mounted for the test: one file alone, a full disk, no room for a new file."""

from __future__ import annotations

import shutil
import subprocess

import anyio
import pytest

from tests.processes.helpers import COMMAND, Syncd

SYNCD = " ".join(COMMAND)


def may_mount() -> bool:
    program = shutil.which("unshare")
    return program is not None and subprocess.run([program, "-m", "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="mounting needs root, or a user namespace")


async def in_mounts(syncd: Syncd, script: str) -> tuple[str, str]:
    """Run a shell script that may mount; return what it printed."""
    helper = (
        'await_line() { for _ in $(seq 2000); do grep -q "$1" "$2" && return; sleep 0.02; done; cat "$2"; exit 9; }'
    )
    with anyio.fail_after(150):
        ended = await anyio.run_process(
            ["unshare", "-m", "sh", "-euc", f"{helper}\n{script}"], env=syncd.environment, cwd=syncd.folder, check=False
        )
    out, err = ended.stdout.decode(), ended.stderr.decode()
    assert ended.returncode == 0, out + err
    assert "Traceback" not in out + err
    return out, err


async def test_file_that_is_mounted_alone_is_refused_by_every_command(syncd: Syncd) -> None:
    """As `docker run -v /home/me/syncd.db:/data/syncd.db` does: WAL and lock would lie outside of the mount."""
    assert (await syncd.call("migrate")).code == 0
    out, _ = await in_mounts(
        syncd,
        f"""
        mkdir inside; touch inside/syncd.db; mount --bind syncd.db inside/syncd.db
        export SYNCD_DATABASE_URL=sqlite+aiosqlite:///inside/syncd.db
        for command in run once status "enqueue delete --id SES1" "backup copy.db" "operations list"; do
            code=0; {SYNCD} $command > out 2>&1 || code=$?
            echo $code $(grep -c "mount the folder" out) $(ls inside)
        done
        """,
    )
    assert out.splitlines() == ["3 1 syncd.db"] * 6


async def test_start_on_a_full_disk_waits_and_continues(syncd: Syncd) -> None:
    out, _ = await in_mounts(
        syncd,
        f"""
        mkdir disk; mount -t tmpfs -o size=8m none disk
        export SYNCD_DATABASE_URL=sqlite+aiosqlite:///disk/syncd.db
        {SYNCD} once > once.log
        cat /dev/zero > disk/full 2> /dev/null || true
        {SYNCD} run > run.log &
        await_line database.waiting run.log
        rm disk/full
        await_line database.resumed run.log; await_line pass.complete run.log
        kill -TERM $!; wait $!; echo $?
        """,
    )
    assert out.splitlines() == ["0"]
    log = (syncd.folder / "run.log").read_text()
    reason = f"no space is left in {syncd.folder / 'disk'}; make room, see: df -h"
    assert f'"reason": "the database cannot be used right now: disk I/O error: {reason}"' in log


async def test_first_start_without_room_for_a_file_waits_and_continues(syncd: Syncd) -> None:
    out, _ = await in_mounts(
        syncd,
        f"""
        mkdir disk; mount -t tmpfs -o nr_inodes=2 none disk; touch disk/last
        export SYNCD_DATABASE_URL=sqlite+aiosqlite:///disk/syncd.db
        {SYNCD} run > run.log &
        await_line "no inodes are left in .*see: df -i.*database.waiting" run.log
        mount -o remount,nr_inodes=1000 disk
        await_line database.resumed run.log; await_line pass.complete run.log
        kill -TERM $!; wait $!; echo $?
        """,
    )
    assert out.splitlines() == ["0"]


async def test_read_only_file_system_is_named_by_every_command(syncd: Syncd) -> None:
    out, _ = await in_mounts(
        syncd,
        f"""
        mkdir disk; mount -t tmpfs none disk
        export SYNCD_DATABASE_URL=sqlite+aiosqlite:///disk/syncd.db
        {SYNCD} migrate > /dev/null; mount -o remount,ro disk
        said() {{ echo $1 $(grep -c "is on a read-only file system" out) $(grep -c "owner" out); }}
        for command in status "enqueue delete --id SES1" once doctor; do
            code=0; {SYNCD} $command > out 2>&1 || code=$?; said $code
        done
        SYNCD_DATABASE_URL=sqlite+aiosqlite:///disk/new.db; {SYNCD} doctor > out 2>&1 || said $?
        """,
    )
    assert out.splitlines() == ["3 1 0"] * 3 + ["1 2 0"] * 2  # exit code, lines with the cause, with "owner"
