"""The documentation is held to the code: what is not documented, or documented wrongly, fails here."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import asyncpg
import click
import pytest
from pydantic import SecretStr

from docs import reference
from syncd import errors
from syncd.cli import cli
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.sandbox import Sandbox, serve
from syncd.settings import FROM_FILES, Settings, load
from tests.cli.conftest import Call
from tests.cli.conftest import syncd as syncd  # noqa: PLC0414 - a fixture

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
STABLE_EVENTS = {
    "daemon.started", "daemon.stopped", "pass.started", "page.mirrored", "pass.complete", "pass.failed", "pass.held",
    "session.missing", "session.deleted", "session.restored", "item.quarantined", "operation.succeeded",
    "operation.retrying", "operation.unknown", "operation.dead", "source.linked", "source.missing", "source.conflict",
    "operation.contradicted", "tenant.mismatch", "database.waiting", "database.resumed",
    "albert.unreachable", "albert.reachable", "health.changed",
}  # fmt: skip


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(path), flags=re.MULTILINE | re.DOTALL)


def written(value: object) -> str:
    """Write a default as it stands in an environment file."""
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    return "" if plain is None else str(plain).lower() if isinstance(plain, bool) else str(plain)


def test_page_of_commands_matches_the_help_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert text("docs/commands.md") == reference.render(), "run: make docs"


def test_every_exit_code_of_the_errors_is_documented() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SyncdError)]
    codes = {0} | {kind.exit_code for kind in kinds}
    documented = {int(code) for code in re.findall(r"^\| (\d) \|", text("docs/commands.md"), flags=re.MULTILINE)}
    assert documented == codes


def test_environment_file_lists_every_setting_with_its_default_and_sets_none() -> None:
    file = text("config/syncd.env")
    assert [line for line in file.splitlines() if line and not line.startswith("#")] == []
    given = dict(re.findall(r"^#([A-Z_]+)=(.*)$", file, flags=re.MULTILINE))
    assert given == {name.upper(): written(field.default) for name, field in Settings.model_fields.items()}
    named = set(re.findall(r"^# Or ([A-Z_]+)_FILE=", file, flags=re.MULTILINE))
    assert named == set(FROM_FILES)


def test_environment_file_uncommented_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "all.env"
    file.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", text("config/syncd.env"), flags=re.MULTILINE))
    assert load({}, [file]).settings == load({}).settings


def test_page_of_settings_lists_every_setting_with_its_default_and_meaning() -> None:
    page = text("docs/settings.md")
    for name, field in Settings.model_fields.items():
        file = " (or `_FILE`)" if name.upper() in FROM_FILES else ""
        default = f"`{written(field.default)}`" if field.default is not None else "none"
        assert f"| `{name.upper()}`{file} | {default} | {field.description} |" in page, name
    assert set(re.findall(r"^\| `([A-Z_]{2,})`", page, flags=re.MULTILINE)) == {
        n.upper() for n in Settings.model_fields
    }


def test_every_log_event_is_documented_and_no_other() -> None:
    logged = {event for path in sorted((ROOT / "syncd").rglob("*.py")) for event in events_of(path)}
    logged = logged - {"source.*"} | {"source.linked", "source.missing", "source.conflict"}
    page = text("docs/log-events.md")
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", page, flags=re.MULTILINE))
    assert documented == logged
    stable, others = page.split("## The others")
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", stable, flags=re.MULTILINE)) == STABLE_EVENTS
    assert "| --- |" in others


def events_of(path: Path) -> set[str]:
    """Return the events that a module logs; what stands in braces of an f-string as `*`."""
    events = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            name = first.value
        elif isinstance(first, ast.JoinedStr):
            name = "".join(part.value if isinstance(part, ast.Constant) else "*" for part in first.values)  # type: ignore[misc]
        else:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"debug", "info", "warning", "error", "exception", "write", "tell", "log"} and re.fullmatch(
            r"[a-z_]+\.[a-z_*]+", name
        ):
            events.add(name)
    return events


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_pages_are_commands(page: str) -> None:
    makefile = text("Makefile")
    lines = [line for block in blocks(page, "(?:sh|ini)") for line in block.splitlines()]
    lines += re.findall(r"`((?:syncd|make) [^`]+)`", text(page))
    seen = 0
    for line in lines:
        command = shlex.split(line.removeprefix("ExecStart="), comments=True)
        if command[:1] == ["make"]:
            assert re.search(rf"^{command[1]}:.*## ", makefile, flags=re.MULTILINE), line
        elif command and command[0].endswith("syncd") and len(command) > 1:
            parse(command[1:])
        else:
            continue
        seen += 1
    assert seen >= 2


def parse(arguments: list[str]) -> None:
    """Parse a command line without carrying it out; click raises for what is no command, option or argument."""
    command: click.Command = cli
    context = click.Context(cli, info_name="syncd", help_option_names=["-h", "--help"])
    while isinstance(command, click.Group):
        inner = command.get_command(context, arguments[0])
        assert inner is not None, arguments
        command, arguments = inner, arguments[1:]
    if arguments:  # a bare name in running text is not a whole call
        command.make_context(command.name, arguments, parent=context)


ABOUT_ITSELF = ("cli", "sandbox", "browse")
"""Folders whose files are named by nouns of the outside: commands, the stand-in."""


def test_page_of_the_architecture_names_every_module_and_no_other() -> None:
    page = text("docs/architecture.md").partition("## One pass")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", page, flags=re.MULTILINE)
    named: set[str] = set()
    for place, contents in rows:
        named |= {f"{place}{name}" for name in re.findall(r"`([a-z_]+)`", contents)} if place.endswith("/") else {place}
    folders = {place for place, _ in rows if place.endswith("/")}
    there = {
        str(path.relative_to(ROOT / "syncd").with_suffix("" if path.parent != ROOT / "syncd" else ".py"))
        for path in (ROOT / "syncd").rglob("*.py")
        if not path.name.startswith("__") and path.relative_to(ROOT / "syncd").parts[0] not in ABOUT_ITSELF
    }
    assert named == there
    assert folders >= {
        f"{path.parent.relative_to(ROOT / 'syncd')}/" for path in (ROOT / "syncd").rglob("__init__.py")
    } - {"./", "mirror/", *(f"{name}/" for name in ABOUT_ITSELF)}


def statements() -> list[str]:
    queries = [statement for block in blocks("README.md", "sql") for statement in block.split(";") if statement.strip()]
    assert len(queries) >= 10
    return queries


def test_sql_of_the_readme_runs_on_a_new_mirror(syncd: Call) -> None:
    assert syncd("migrate").code == 0
    with closing(sqlite3.connect("syncd.db")) as connection:
        for statement in statements():
            connection.execute(statement)


async def test_sql_of_the_readme_runs_unchanged_on_postgresql(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        for statement in statements():
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_file_that_the_readme_has_people_put_a_token_into_stays_out_of_git() -> None:
    (line,) = [line for block in blocks("README.md", "sh") for line in block.splitlines() if "config/syncd.env" in line]
    source, target = shlex.split(line, comments=True)[-2:]
    ignored = ["git", "check-ignore", "--quiet", "--no-index"]
    assert subprocess.run([*ignored, target], cwd=ROOT, check=False).returncode == 0
    assert subprocess.run([*ignored, source], cwd=ROOT, check=False).returncode == 1


@pytest.mark.parametrize(
    "example", [block for page in ("README.md", "docs/library.md") for block in blocks(page, "python")]
)
async def test_python_of_the_pages_runs_unchanged(example: str, tmp_path: Path) -> None:
    async with serve(Sandbox(20)) as server:
        file = tmp_path / "example.py"
        file.write_text(f"BASE_URL, TOKEN = {server.url!r}, {server.token!r}\n{example}")
        ended = await anyio.run_process([sys.executable, str(file)], env={"PYTHONPATH": str(ROOT)}, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        assert ended.stdout
        effects = [effect.kind for effect in server.effects]
        assert effects == (["created", "deleted"] if ".create(" in example else [])
