"""Exit codes and output streams: data only on standard output, closed pipes, and no secrets in any output."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import anyio
import pytest

from syncd.sandbox import Faults
from tests.processes.helpers import COMMAND, SECRET, Syncd, bare_environment, eventually


async def test_bad_settings_exit_2_before_albert_is_asked_or_a_database_made(syncd: Syncd) -> None:
    wrong = {"SYNCD_TYPO": "1", "SYNCD_PASS_INTERVAL": "soon", "SYNCD_DELETE_GRACE": "-1"}
    usual, syncd.environment = syncd.environment, syncd.environment | wrong
    for command in ("run", "once"):
        refused = await syncd.call(command)
        assert (refused.code, refused.out) == (2, "")
        assert len(refused.err.splitlines()) == 3
        assert all(name in refused.err for name in wrong)
    syncd.environment = usual
    missing = await syncd.call("once", ALBERT_TOKEN="")
    assert missing.code == 2
    assert "ALBERT_TOKEN" in missing.err
    assert not syncd.sandbox.requests
    assert list(syncd.folder.iterdir()) == []


async def test_once_logs_to_stdout_and_with_json_to_stderr(syncd: Syncd) -> None:
    plain = await syncd.call("once")
    assert plain.code == 0
    events = [json.loads(line)["event"] for line in plain.out.splitlines()]
    expected = [
        "tenant.pinned",
        "database.opened",
        "pass.started",
        *["page.mirrored"] * 3,
        "pass.complete",
        "folders.mirrored",
    ]
    assert events == expected
    assert plain.err == ""
    as_json = await syncd.call("once", "--json")
    ended = as_json.data["pass"]
    assert (ended["id"], ended["state"], ended["error"], ended["seen"]) == (2, "complete", None, 30)
    assert as_json.data["problems"] == []
    assert [json.loads(line)["event"] for line in as_json.err.splitlines()][1:] == ["pass.started", "pass.complete"]


async def test_once_does_not_wait_for_operations_that_are_not_due(syncd: Syncd) -> None:
    await syncd.call("enqueue", "create", "--source-session-id", "now", "--name", "N")
    syncd.sql(
        "INSERT INTO operations (kind, source_session_id, name, not_before) "
        "VALUES ('create', 'later', 'L', '2099-01-01T00:00:00.000000Z')"
    )
    ended = await syncd.call("once", "--json")
    assert ended.code == 0
    assert (ended.data["operations"]["succeeded"], ended.data["operations"]["pending"]) == (1, 1)


async def test_env_file_serves_a_process_and_unchanged_passes_leave_the_size_as_it_was(syncd: Syncd) -> None:
    env = syncd.folder / "my.env"
    env.write_text(f"ALBERT_BASE_URL={syncd.sandbox.url}\nALBERT_TOKEN_FILE=token\nSYNCD_DATABASE_URL=sqlite:///m.db\n")
    (syncd.folder / "token").write_text(f"{SECRET}\n")
    syncd.environment = bare_environment()
    sizes = []
    for _ in range(4):
        assert (await syncd.call("once", "--env-file", "my.env")).code == 0
        sizes.append((syncd.folder / "m.db").stat().st_size)
    assert len(set(sizes)) == 1
    assert SECRET.encode() not in (syncd.folder / "m.db").read_bytes()
    assert not syncd.file.exists()


async def test_secret_is_in_no_output_of_any_failure(syncd: Syncd) -> None:
    for faults in (Faults(error_500=1.0), Faults(cut=1.0), Faults(garbled=1.0)):
        syncd.sandbox.faults = faults
        ended = await syncd.call("once", SYNCD_LOG_LEVEL="debug")  # `call` looks for the secret
        assert ended.code == 1
    assert SECRET.encode() not in syncd.file.read_bytes()


async def test_closed_pipe_ends_a_command_without_an_error_message(syncd: Syncd) -> None:
    rows = b"source_session_id\n" + b"".join(b"source-%06d\n" % number for number in range(20_000))
    assert (await syncd.call("sources", "import", "-", given=rows)).code == 0
    for option in ([], ["--json"]):
        ended = await anyio.to_thread.run_sync(
            head, [*COMMAND, "sources", "list", "--limit", "20000", *option], syncd.environment, syncd.folder
        )
        assert ended == b""


async def test_log_that_cannot_be_written_ends_neither_the_daemon_nor_a_command(syncd: Syncd) -> None:
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - opens at once
        once = await anyio.run_process(
            [*COMMAND, "once"], stdout=full, env=syncd.environment, cwd=syncd.folder, check=False
        )
        assert (once.returncode, once.stderr) == (0, b"")
        process = await anyio.open_process([*COMMAND, "run"], stdout=full, env=syncd.environment, cwd=syncd.folder)
        async with process:
            assert process.stderr is not None
            try:
                await eventually(lambda: len(syncd.rows("SELECT 1 FROM passes WHERE state = 'complete'")) > 2)
                process.terminate()
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
            with pytest.raises(anyio.EndOfStream):
                await process.stderr.receive()


def head(command: list[str], environment: dict[str, str], folder: Path) -> bytes:
    """Read one line of a command's output, close the pipe, and return what it had to say about that."""
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(20) == 1
    return complaint


async def test_sandbox_reports_a_busy_port(syncd: Syncd) -> None:
    port = syncd.sandbox.url.rpartition(":")[2]
    refused = await syncd.call("sandbox", "--port", port, "--sessions", "1")
    assert (refused.code, refused.out) == (2, "")
    assert f"cannot listen on port {port}" in refused.err


async def test_demo_ends_well_and_its_mirror_agrees_with_the_server(syncd: Syncd) -> None:
    syncd.environment = bare_environment()
    shown = await syncd.call("demo", "--sessions", "300")
    assert shown.code == 0, shown.out
    assert "agree." in shown.out
    assert "in-no-session" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("status", 0),
        ("--help", 0),
        ("healthcheck", 1),
        ("operations list", 0),
        ("enqueue delete --id SES1", 0),
        ("enqueue create --source-session-id s --name n", 0),
    ],
)
async def test_frequent_commands_load_no_heavy_libraries(syncd: Syncd, command: str, code: int) -> None:
    if command not in {"--help", "healthcheck"}:
        assert (await syncd.call("once")).code == 0
    program = (
        f"import sys; sys.argv = ['syncd', *{command.split()}]\n"
        "from syncd.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: code = ended.code\n"
        "heavy = {'sqlalchemy', 'alembic', 'httpx', 'aiohttp', 'tqdm', 'structlog', 'anyio', 'asyncio'}\n"
        "print(code, sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    environment = syncd.environment | {"SYNCD_STATUS_PORT": "1"}
    ended = await anyio.run_process([COMMAND[0], "-c", program], env=environment, cwd=syncd.folder)
    assert ended.stderr.decode().splitlines()[-1] == f"{code} []"


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["config"], ["operations", "list"], ["status", "--json"]]
)
async def test_full_standard_output_is_an_error_of_one_line(syncd: Syncd, arguments: list[str]) -> None:
    assert (await syncd.call("migrate")).code == 0
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - it does not block
        done = await anyio.run_process(
            [*COMMAND, *arguments], stdout=full, check=False, env=syncd.environment, cwd=syncd.folder
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: the output cannot be written")
