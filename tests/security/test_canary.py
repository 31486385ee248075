"""A canary in every setting that holds a secret: it goes to the configured origin and nowhere else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Faults, Habits, Sandbox, serve
from syncd.settings import Settings
from tests.helpers import fork_server
from tests.hostile.raw_server import http, serve_raw
from tests.kills.case import ROOT
from tests.kills.case import environment as environment_of
from tests.kills.harness import enqueue
from tests.kills.mirrors import SqliteMirrors

pytestmark = pytest.mark.timeout(300)  # processes of a busy machine take their time
CANARY = "cAnArY-7f3e9d1c5b"
ID = f"{CANARY}-client"
HOSTILE_NAME = 'line\nbreak \x1b[31mred\x1b[0m \u202eevil\u2066 \x07 \r\n{"event": "operation.succeeded"}'
SESSION_PATHS = re.compile(
    r"(GET|POST) /api/v3/chats/sessions(\?startKey=[A-Za-z0-9\-._~%]+)?"
    r"|(GET|DELETE) /api/v3/chats/sessions/[A-Za-z0-9\-._~%]+"
    r"|GET /api/v3/chats/sessions/source/[A-Za-z0-9\-._~%]+"
    r"|GET /api/v3/chats/folders(\?startKey=[A-Za-z0-9\-._~%]+)?"
    r"|POST /api/v3/login/oauth/token"
)


MIRRORS = SqliteMirrors()


def environment(folder: Path, url: str, **more: str) -> dict[str, str]:
    """Return the environment of a syncd with its mirror in a folder."""
    return environment_of(MIRRORS.url(folder), url, **more)


async def _run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return await fork_server.run(command, environment=env, folder=folder)


def _assert_clean(folder: Path, outputs: list[bytes]) -> None:
    """Look for the canary, in any of the ways to write it, in all that was left behind."""
    forms = [CANARY.encode(), quote(CANARY, safe="").encode(), CANARY.encode("utf-16-le"), CANARY.lower().encode()]
    for output in outputs:
        assert not any(form in output or form in output.lower() for form in forms), output
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(form in content for form in forms), file


@pytest.mark.parametrize("kind", ["token", "client credentials"])
async def test_secret_is_in_no_log_database_wal_or_traceback(tmp_path: Path, kind: str) -> None:
    habits = Habits(page_size=5)
    faults = Faults(error_500=0.1, lost_after=0.1, forbidden=0.05, garbled=0.05, login=True)
    async with serve(Sandbox(12, habits=habits, faults=faults, token=CANARY)) as sandbox:
        env = environment(tmp_path, sandbox.url, SYNCD_LOG_LEVEL="debug", SYNCD_REQUEST_TIMEOUT="2")
        if kind == "client credentials":
            del env["ALBERT_TOKEN"]
            env |= {"ALBERT_CLIENT_ID": ID, "ALBERT_CLIENT_SECRET": CANARY}  # both refused: the worst of days
        else:
            env["ALBERT_TOKEN"] = CANARY
        outputs = []
        for command in (("once",), ("config",), ("doctor",), ("once",)):
            done = await _run(tmp_path, *command, **env)
            assert b"Traceback" not in done.stderr
            outputs += [done.stdout, done.stderr]
            if command == ("once",) and not (tmp_path / "queued").exists():
                await enqueue(MIRRORS, tmp_path)
                (tmp_path / "queued").touch()
    _assert_clean(tmp_path, outputs)


async def test_secret_of_a_running_daemon_is_not_in_its_arguments_wal_or_log(tmp_path: Path) -> None:
    async with serve(Sandbox(12, token=CANARY)) as sandbox:
        env = environment(tmp_path, sandbox.url, ALBERT_TOKEN=CANARY, SYNCD_LOG_LEVEL="debug")
        log = tmp_path / "log"
        with log.open("wb") as out:
            process = await anyio.open_process(
                [sys.executable, "-m", "syncd", "run"], env=env, cwd=tmp_path, stdout=out, stderr=out
            )
        with anyio.fail_after(60):
            while b"pass.complete" not in log.read_bytes():  # noqa: ASYNC110 - another process
                await anyio.sleep(0.05)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        _assert_clean(tmp_path, [arguments])  # with the WAL still there
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    _assert_clean(tmp_path, [])


async def test_secret_that_a_server_echoes_is_hidden_in_logs_and_rows(tmp_path: Path) -> None:
    body = json.dumps({"message": f"bad token {CANARY}, Bearer {CANARY}"}).encode()
    async with serve_raw(http(body, status="403 Forbidden")) as raw:
        env = environment(tmp_path, raw.url, ALBERT_TOKEN=CANARY, SYNCD_LOG_LEVEL="debug")
        await _run(tmp_path, "migrate", **env)
        await enqueue(MIRRORS, tmp_path)
        done = await _run(tmp_path, "once", **env)
        assert done.returncode == 1
    _assert_clean(tmp_path, [done.stdout, done.stderr])
    assert b"***" in done.stdout


async def test_password_in_a_database_url_is_not_shown(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://user:{CANARY}@127.0.0.1:1/nothing"
    env = environment(tmp_path, "http://127.0.0.1:1", SYNCD_DATABASE_URL=url, PGCONNECT_TIMEOUT="1")
    outputs = []
    for command in (("config",), ("config", "--json")):
        done = await _run(tmp_path, *command, **env)
        outputs += [done.stdout, done.stderr]
    _assert_clean(tmp_path, outputs)


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_doctor_does_not_show_the_password_of_a_database_that_works(
    tmp_path: Path, postgres_url: str, options: tuple[str, ...]
) -> None:
    url = sa.make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)
    env = environment(tmp_path, "http://127.0.0.1:1", SYNCD_DATABASE_URL=url)
    done = await _run(tmp_path, "doctor", *options, **env)
    assert b"***@127.0.0.1" in done.stdout  # the database was found good, and its address is shown
    _assert_clean(tmp_path, [done.stdout, done.stderr])


async def test_bad_settings_are_reported_without_their_secrets(tmp_path: Path) -> None:
    env = environment(
        tmp_path, f"http://{CANARY}@example.com", ALBERT_TOKEN=f"{CANARY}\n", SYNCD_DATABASE_URL=f"mysql://u:{CANARY}@h/d",
        SYNCD_LEASE="-1", SYNCD_NONSENSE=CANARY, SYNCD_PROXY=f"http://u:{CANARY}@@h", SYNCD_NOTIFY_URL=f"h/{CANARY}",
        SYNCD_STATUS_HOST=f"x{CANARY}x", ALBERT_TOKN=CANARY,
    )  # fmt: skip
    done = await _run(tmp_path, "once", **env)
    assert done.returncode == 2
    _assert_clean(tmp_path, [done.stdout, done.stderr])


def test_every_setting_that_holds_a_secret_is_a_secret_type() -> None:
    secret = {name for name, field in Settings.model_fields.items() if SecretStr in _types(field.annotation)}
    assert secret == {
        "albert_token", "albert_client_id", "albert_client_secret", "syncd_database_url", "syncd_proxy",
        "syncd_notify_url",
    }  # fmt: skip


def _types(annotation: object) -> set[object]:
    return {annotation, *getattr(annotation, "__args__", ())}


async def test_only_the_known_paths_leave_whatever_the_ids_hold(tmp_path: Path) -> None:
    ids = ("a/../../../users/USR1", "..%2f", "?x=1#y", "ü ñ", "a b+c", "//evil.example/", "%2e%2e", "\\..\\")
    async with serve(Sandbox(7, habits=Habits(page_size=3, awkward_cursor=True))) as sandbox:
        env = environment(tmp_path, sandbox.url)
        await _run(tmp_path, "migrate", **env)
        for hostile_id in ids:
            with closing(sqlite3.connect(tmp_path / "syncd.db", isolation_level=None)) as program:
                insert = "INSERT INTO operations (kind, source_session_id, session_id, name) VALUES (?, ?, ?, ?)"
                program.execute(insert, ("create", hostile_id, None, HOSTILE_NAME))
                program.execute(insert, ("delete", None, hostile_id, None))
        done = await _run(tmp_path, "once", **env)
        assert done.returncode == 0, done.stdout
        lines = [f"{request.method} {request.raw_path}" for request in sandbox.requests]
        assert len(lines) > 2 * len(ids)
        assert [line for line in lines if not SESSION_PATHS.fullmatch(line)] == []
        assert not [e for e in sandbox.effects if e.kind == "deleted"]
    _assert_one_event_a_line(done.stdout)


def _assert_one_event_a_line(output: bytes) -> None:
    for line in output.decode().splitlines():
        assert isinstance(json.loads(line)["event"], str)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", output.decode())


async def test_names_cannot_break_a_log_line_or_paint_a_terminal(tmp_path: Path) -> None:
    async with serve(Sandbox(2)) as sandbox:
        sandbox.create(source_session_id=HOSTILE_NAME, name=HOSTILE_NAME, id=f"SES-{HOSTILE_NAME}")
        sandbox.create(source_session_id="twin", name="n")
        sandbox.create(source_session_id="twin", name="n", id=f"SES2-{HOSTILE_NAME}")
        sandbox.habits.broken_items.append({"id": f"bad-{HOSTILE_NAME}", "name": 7})
        env = environment(tmp_path, sandbox.url, SYNCD_LOG_LEVEL="debug")
        for style in ("json", "console"):
            done = await _run(tmp_path, "once", **(env | {"SYNCD_LOG_FORMAT": style}))
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", done.stdout.decode())
            if style == "json":
                _assert_one_event_a_line(done.stdout)
        for command in (("quarantine", "list"), ("sources", "list")):
            done = await _run(tmp_path, *command, **env)
            assert done.returncode == 0
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", done.stdout.decode())


async def test_proxy_variables_of_the_environment_are_ignored(tmp_path: Path) -> None:
    async with serve(Sandbox(3)) as sandbox, serve_raw(http(b"{}")) as proxy:
        env = environment(tmp_path, sandbox.url)
        env |= dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), proxy.url)
        done = await _run(tmp_path, "once", **env)
        assert done.returncode == 0
        assert proxy.requests == []


async def test_netrc_of_the_home_directory_is_ignored(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login l password {CANARY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / "work").mkdir()
    seen: list[str | None] = []
    async with serve(Sandbox(3)) as sandbox:
        sandbox.script("*", "/", lambda request: seen.append(request.headers.get("Authorization")), times=50)
        done = await _run(tmp_path / "work", "once", **environment(tmp_path / "work", sandbox.url, HOME=str(tmp_path)))
        assert done.returncode == 0
    assert set(seen) == {"Bearer sandbox-token"}


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    async with serve(Sandbox(3)) as sandbox:
        previous = os.umask(0)
        try:
            assert (await _run(tmp_path, "once", **environment(tmp_path, sandbox.url))).returncode == 0
        finally:
            os.umask(previous)
    for file in tmp_path.glob("syncd.db*"):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_sql_is_put_together_in_the_mirror_alone_and_each_place_is_marked() -> None:
    """The linter's S608 is on for all of syncd; a place that switches it off puts constants together, in `mirror/`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert settings["select"] == ["ALL"]
    excepted = {path for path, rules in settings["per-file-ignores"].items() if "S608" in rules}
    assert "S608" not in settings["ignore"]
    assert not {path for path in excepted if path.startswith("syncd")}
    marked = {
        file.relative_to(ROOT / "syncd").parts[0]
        for file in (ROOT / "syncd").rglob("*.py")
        if "noqa: S608" in file.read_text()
    }
    assert marked == {"mirror"}


def test_linter_refuses_a_value_in_the_text_of_a_statement(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text('def find(connection, name):\n    return connection.execute(f"SELECT * FROM s WHERE n = {name}")\n')
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run(
        [ruff, "check", "--isolated", "--select", "S608", str(bad)], capture_output=True, check=False, timeout=60
    )
    assert b"S608" in done.stdout
