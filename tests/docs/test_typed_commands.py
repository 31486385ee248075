"""Every command of syncd's that the pages tell people to type is typed here, on a mirror in the trouble it is for.

The blocks of `docs/deploy.md` run in an engine (tests/container), those of `docs/reading.md` beside a mirror
(tests/docs, tests/files), `make` targets in `.ci/run`; pages that none of them runs may have no block of commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Habits, Sandbox, serve
from tests.cli.conftest import Call
from tests.cli.conftest import syncd as syncd  # noqa: PLC0414 - a fixture
from tests.helpers.programs import environment

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {"docs/commands.md", "docs/performance.md"}  # by programs, from the commands and from measurements
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
    if str(path.relative_to(ROOT)) not in WRITTEN
}
ELSEWHERE = {"docs/deploy.md", "docs/reading.md"}
HELD, DEAD, SESSION = 7, 12, "SES30"
STAND_FOR = {"PASS": str(HELD), "ID": str(DEAD), "FILE": "copy.db"}
ELSEWHERE_URL = ("postgresql+asyncpg://syncd@db.example.com/syncd", "sqlite+aiosqlite:///another.db")
CALLED_BY_TESTS = ("make docs", "make soak", ".venv/bin/python -m tests.")
"""The programs of the one are run by tests of what they write, those of the others in their short form."""
NOT_HEALTHY = {"status", "doctor", "healthcheck", "once"}
"""What exits with 1 here: the mirror is in trouble, and no daemon runs."""


def blocks(page: str) -> list[str]:
    """Return the command lines of a page's blocks, comments left out and continued lines made one."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL))
    return [line for line in text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def said_in(page: str) -> list[str]:
    inline = re.findall(r"`(syncd [^`]+)`", PAGES[page])
    return inline + (
        [line for line in blocks(page) if "syncd " in line] if page not in ELSEWHERE | {"README.md"} else []
    )


SAID = sorted({line for page in PAGES for line in said_in(page)} - {"syncd browse"})
"""`syncd browse` is run by tests/browse, on the port that it names."""


@pytest.fixture(scope="module")
def albert() -> Iterator[Sandbox]:
    server = Sandbox(60, habits=Habits(page_size=20))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(server)):
        yield server


@pytest.fixture
def called(syncd: Call, albert: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call a command towards the sandbox."""
    monkeypatch.setenv("ALBERT_BASE_URL", str(albert.url))
    monkeypatch.setenv("ALBERT_TOKEN", albert.token)
    return syncd


@pytest.fixture(scope="module")
def troubled(albert: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a mirror with a held pass, a dead operation on hold, an item in quarantine and a source id in conflict."""
    folder = tmp_path_factory.mktemp("troubled")
    given = {"ALBERT_BASE_URL": str(albert.url), "ALBERT_TOKEN": albert.token}

    def once() -> None:
        command = [sys.executable, "-m", "syncd", "once"]
        subprocess.run(command, cwd=folder, env=environment(folder, **given), capture_output=True, check=False)

    once()
    sql(
        folder / "syncd.db",
        f"INSERT INTO passes (id, state, started_at, finished_at) SELECT {HELD - 1}, state, started_at, finished_at "
        "FROM passes"
        f"; INSERT INTO operations (id, kind, session_id) VALUES ({DEAD}, 'delete', '{SESSION}')",
    )
    albert.script("DELETE", f"/api/v3/chats/sessions/{SESSION}", 422)
    albert.create(source_session_id=albert.live()["SES1"]["sourceSessionId"], name="a twin")
    albert.update("SES2", name=None)
    for number in range(31, 61):
        albert.delete(f"SES{number}")
    once()
    rows = sql(
        folder / "syncd.db",
        "SELECT held_pass_id, operations_dead, quarantined_items, "
        "(SELECT count(*) FROM source_sessions WHERE state = 'conflict') FROM mirror_freshness",
    )
    assert rows == [(HELD, 1, 1, 1)]
    sql(folder / "syncd.db", f"UPDATE operations SET on_hold_at = finished_at WHERE id = {DEAD}")
    return folder


def sql(file: Path, statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return [row for statement in statements.split("; ") for row in connection.execute(statement)]


@pytest.mark.parametrize("line", SAID)
def test_command_has_the_effect_that_the_pages_describe(
    line: str, called: Call, troubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(troubled / "syncd.db", tmp_path)
    (tmp_path / "backups").mkdir()
    for name in ("migration.csv", "ids.csv"):
        (tmp_path / name).write_text("source_session_id,name\ncrm-1,One\n")
    command = [STAND_FOR.get(word, word) for word in shlex.split(line.replace(*ELSEWHERE_URL), comments=True)]
    while "=" in command[0]:
        monkeypatch.setenv(*command.pop(0).split("=", 1))
    command = [SESSION if before == "--id" else word for before, word in zip(["", *command], command, strict=False)]
    if command[1] == "run":
        stopped(command, tmp_path)
        return
    if command[1] == "restore" and not command[2].startswith("--"):
        assert called("backup", command[2]).code == 0
    ended = called(*command[1:])
    assert ended.code == (1 if command[1] in NOT_HEALTHY else 0), ended.err
    assert ended.out or ended.err


def stopped(arguments: list[str], folder: Path) -> str:
    """Run the daemon until its first pass has ended, and stop it."""
    command = [sys.executable, "-m", *arguments]
    options: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, **options) as process:
        deadline = threading.Timer(40, process.kill)
        deadline.start()
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if any(f'"pass.{ended}"' in line for ended in ("complete", "held", "still_held")):
                process.send_signal(signal.SIGTERM)
        deadline.cancel()
    assert process.returncode == 0, said
    return said


def test_blocks_of_the_readme_run_from_top_to_bottom_in_an_empty_folder(
    called: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALBERT_TOKEN")
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "migration.csv").write_text("source_session_id,name\ncrm-1,One\ncrm-2,Two\n")
    said = {}
    for line in blocks("README.md"):
        command = shlex.split(line, comments=True)
        if command[0] == "export":
            monkeypatch.setenv(command[1].partition("=")[0], "sandbox-token")
        elif command[0] == "install":
            shutil.copy(command[-2], command[-1])
        elif command[:2] != ["make", "demo"]:  # the gate runs it as it stands
            assert Path(command[0]).name == "syncd", line
            said[" ".join(command[1:])] = (
                stopped(["syncd", *command[1:]], tmp_path) if command[1] == "run" else ran(called, command)
            )
    assert "ok       albert" in said["doctor"]
    assert "2 created" in said["enqueue import migration.csv --dry-run"]
    assert '"operation.succeeded"' in said["run --env-file my.env"]
    assert "healthy" in said["status"]


def ran(called: Call, command: list[str]) -> str:
    ended = called(*command[1:])
    assert ended.code == 0, (command, ended)
    return ended.out + ended.err


def test_every_block_of_commands_is_run_by_a_test_or_by_the_gate() -> None:
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for page in PAGES.keys() - ELSEWHERE - {"README.md"}:
        for line in blocks(page):
            plain = line.partition("#")[0].strip()
            by_the_gate = plain.startswith("make ") and plain in gate
            assert line in SAID or by_the_gate or plain.startswith(CALLED_BY_TESTS), (page, line)
        labels = re.findall(r"^```(.*)$", PAGES[page], flags=re.MULTILINE)[::2]
        assert set(labels) <= {"sh", "sql", "python", "ini", "json", "text"}, page


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("soak --seconds 1 --count 3 --first 1 --jobs 1", "seeds 1 to 3: 3 schedules, 0 failed"),
        ("simulation 100156", ""),
    ],
)
def test_model_runs_the_given_number_of_schedules_or_one(program: str, said: str) -> None:
    command = [sys.executable, "-m", *f"tests.model.{program}".split()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert said in ended.stdout


@pytest.mark.parametrize("program", ["df", "fuser", "lsof"])
def test_program_named_in_the_runbook_finds_the_cause(program: str, tmp_path: Path) -> None:
    lines = set(re.findall(rf"`({program} [^`]+)`", PAGES["docs/operations.md"]))
    assert lines
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} on this machine")
    file = tmp_path / "syncd.db"
    with file.open("w"):
        for line in lines:
            command = [str(file) if word == "FILE" else word for word in line.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout
