"""Each command of `docs/deploy.md`, run as it stands there: in an empty folder, against a sandbox inside the container.

The image is built by `run.sh` with the page's first command and one more option: the engine has no network of its own.
The images that Compose asks for are this one, and a stand-in for PostgreSQL's.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.container.engine import IN_AN_ENGINE, ROOT, docker, run, run_redirected, succeeds, until

PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BUILD, BY_HAND, INSIDE, SQLITE, POSTGRESQL, *_KUBERNETES = (
    block.replace("\\\n", " ").splitlines() for block in FENCED.findall(PAGE)
)
RESTORE_BY_HAND, RESTORE_WITH_COMPOSE, *_ = (
    block.splitlines()
    for block in re.findall(r"^```text\n(.*?)^```$", PAGE.partition("## Restore")[2], re.MULTILINE | re.DOTALL)
)
"""The drills of the section Restore. Those for PostgreSQL and Kubernetes need programs that the engine lacks."""
KUBERNETES = [line for block in _KUBERNETES for line in block]
SANDBOX = {"ALBERT_BASE_URL": "http://127.0.0.1:8900", "SYNCD_PASS_INTERVAL": "1"}
TOKEN = "sandbox-token"
TYPED = {
    "albert_token": TOKEN,
    "postgres_password": "correct-horse",
    "database_url": "postgresql+asyncpg://syncd:correct-horse@postgres/syncd",
}
pytestmark = IN_AN_ENGINE


def compose() -> list[str]:
    """Return the plugin's words where it is there, and those of the program before it otherwise."""
    return ["docker", "compose"] if succeeds("compose", "version") else ["docker-compose"]


def carry_out(line: str, folder: Path) -> str:
    """Run a line of the page; what a person would type into it is given."""
    command = shlex.split(line)
    if command[:2] == ["docker", "compose"]:
        command = [*compose(), *command[2:]]
        if "exec" in command:
            command.insert(command.index("exec") + 1, "-T")  # there is no terminal here
    if command[-2] == "<":
        return run_redirected(*command[:-2], folder=folder, source=command[-1])
    return run(*command, folder=folder, given=TYPED.get(Path(command[-1]).name, ""))


def test_image_is_run_by_hand_as_the_page_says(tmp_path: Path) -> None:
    settings = {**SANDBOX, "ALBERT_TOKEN": TOKEN}
    (tmp_path / "syncd.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    (line,) = BY_HAND
    carry_out(line, tmp_path)
    try:
        until(lambda: succeeds("exec", "syncd", "syncd", "healthcheck"), "the daemon is alive")
        docker("exec", "--detach", "syncd", "syncd", "sandbox", "--sessions", "40")
        until(lambda: succeeds("exec", "syncd", "syncd", "status"), "a first pass")
        said = [carry_out(inside, tmp_path) for inside in INSIDE]
        assert "ok       albert" in said[0]
        assert "40 live" in said[1]
        assert "verified" in said[2]
        with closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
            assert copy.execute("SELECT count(*) FROM chat_sessions").fetchone() == (40,)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", "syncd") == "0"
        restored = [carry_out(inside, tmp_path) for inside in RESTORE_BY_HAND[:-1]]
        assert "restored standard input to /data/syncd.db" in restored[1]
        until(lambda: succeeds("exec", "syncd", "syncd", "healthcheck"), "the daemon is alive on the restored mirror")
        assert carry_out(RESTORE_BY_HAND[-1], tmp_path) == "no operations"
    finally:
        docker("rm", "--force", "--volumes", "syncd")
        docker("volume", "rm", "syncd")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Lay out a folder with the Compose file, on a port that is free here, towards a sandbox."""
    if shutil.which(compose()[0]) is None:
        pytest.skip("no Compose; on Debian: apt-get install docker-compose")
    file = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder = tmp_path / "project"
    folder.mkdir()
    assert "127.0.0.1:8080:8080" in file
    (folder / "compose.yaml").write_text(file.replace("127.0.0.1:8080:8080", f"127.0.0.1:{port}:8080"))
    variables = "".join(f"      {name}: '{value}'\n" for name, value in SANDBOX.items())
    services = "".join(f"  {name}:\n    environment:\n{variables}" for name in ("syncd", "syncd-postgresql"))
    (folder / "compose.override.yaml").write_text(f"services:\n{services}")
    try:
        yield folder
    finally:
        for profile in ("sqlite", "postgresql"):
            run(*compose(), "--profile", profile, "down", "--volumes", folder=folder)


def containers(folder: Path, service: str) -> list[str]:
    return docker("ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}").split()


def test_compose_brings_up_sqlite(project: Path) -> None:
    *up, status, down = SQLITE
    for line in up:
        carry_out(line, project)
    (container,) = containers(project, "syncd")
    until(lambda: succeeds("exec", container, "syncd", "healthcheck"), "the daemon is alive")
    docker("exec", "--detach", container, "syncd", "sandbox", "--sessions", "40")
    until(lambda: succeeds("exec", container, "syncd", "status"), "a first pass")
    assert "40 live" in carry_out(status, project)
    docker("exec", container, "syncd", "backup", "/data/backup.db")
    docker("cp", f"{container}:/data/backup.db", str(project / "backup.db"))
    restored = [carry_out(line, project) for line in RESTORE_WITH_COMPOSE[:-1]]
    assert "restored standard input to /data/syncd.db" in restored[1]
    until(lambda: succeeds("exec", container, "syncd", "healthcheck"), "the daemon is alive on the restored mirror")
    assert carry_out(RESTORE_WITH_COMPOSE[-1], project) == "no operations"
    carry_out(down, project)
    assert containers(project, "syncd") == []


def test_compose_brings_up_postgresql_with_two_daemons_of_which_one_leads(project: Path) -> None:
    carry_out(SQLITE[0], project)
    carry_out(SQLITE[1], project)
    *up, logs, down = POSTGRESQL
    for line in up:
        carry_out(line, project)
    daemons = containers(project, "syncd-postgresql")
    assert len(daemons) == 2
    for container in daemons:
        until(
            lambda container=container: succeeds("exec", container, "syncd", "healthcheck"),  # type: ignore[misc]
            "the daemon is alive",
        )
        docker("exec", "--detach", container, "syncd", "sandbox", "--sessions", "40")
    until(lambda: succeeds("exec", daemons[0], "syncd", "status"), "a first pass")
    said = carry_out(logs, project)
    assert (said.count('"replica.leading"'), said.count('"replica.standby"')) == (1, 1)
    assert said.count('"pass.complete"') > 0
    carry_out(down, project)
    assert containers(project, "postgres") == []
