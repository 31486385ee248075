"""A syncd that is killed and restarted loses and repeats nothing. Tests take a sample, `make soak` every place."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from syncd.aio import gather
from tests.kills.case import ROOT
from tests.kills.harness import case, kill_at, make_templates, places
from tests.kills.instrumented_syncd import function_name
from tests.kills.mirrors import Mirrors, PostgresMirrors, SqliteMirrors
from tests.kills.stages import STAGES

pytestmark = pytest.mark.timeout(300)  # processes of a busy machine are slow
SEED = 20261125
SAMPLE = 2
AT_ONCE = 3
NOT_PASSED = {
    "pull.flow.Pull._end": "passes that fail; the model kills them there",
    "pull.flow.Pull._hold": "passes that find nothing they know; the model kills them there",
    "push.runner.Runner._record_broken": "writes that syncd itself failed on an operation, which no run should",
    "push.runner.Runner.refund": "three operations that answer 403; a kill before it leaves their attempts used",
    "mirror.store.identity.unmark_moved": "moves that fail after the mark; a kill before it leaves the mark",
    "tenant_guard.TenantGuard.check": "the first token that names a tenant, after a start without one",
    "mirror.store.sources.resolve": "source ids that another program inserted while their session was mirrored",
}
SOMETIMES = {"push.leases.renew"}
"""The renewal of claims, which only runs on a slow machine reach; the model kills processes there."""
OTHERWISE = {
    "sqlite": {"mirror.schema.privileges.require_rights": "looks after PostgreSQL alone"},
    "postgresql": dict.fromkeys(
        ("mirror.store.initial_load._link", "mirror.store.initial_load._build_index"), "loads SQLite alone"
    ),
}
"""Commits that a sample of runs does not reach, and the reason."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def mirrors(request: pytest.FixtureRequest) -> Mirrors:
    """Run over both databases."""
    if request.param == "sqlite":
        return SqliteMirrors()
    return PostgresMirrors(request.getfixturevalue("postgres"))


@pytest.fixture(scope="module")
async def templates(tmp_path_factory: pytest.TempPathFactory, mirrors: Mirrors) -> Path:
    folder = tmp_path_factory.mktemp("templates")
    await make_templates(folder, mirrors)
    return folder


@pytest.fixture(scope="module")
async def found(templates: Path, mirrors: Mirrors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Record every place, in each stage."""
    folder = tmp_path_factory.mktemp("record")
    recorded = await gather(
        lambda stage: places(folder / stage, templates, mirrors, stage, seed=3), STAGES, at_once=AT_ONCE
    )
    return dict(zip(STAGES, recorded, strict=True))


async def test_process_killed_at_any_place_and_restarted_applies_each_operation_once(
    tmp_path: Path, templates: Path, mirrors: Mirrors, found: dict[str, list[str]]
) -> None:
    rng = Random(SEED)  # noqa: S311 - not for secrets
    kills: list[tuple[str, int]] = []
    for stage, passed in found.items():
        after_the_post = [number for number, place in enumerate(passed, 1) if place == "after request: POST list"]
        sample = SAMPLE if isinstance(mirrors, SqliteMirrors) and STAGES[stage].claims else 1
        numbers = {*after_the_post[:1], *rng.sample(range(1, len(passed) + 1), sample)}
        kills += [(stage, number) for number in sorted(numbers)]

    async def kill(position: tuple[str, int]) -> list[str] | None:
        stage, number = position
        return await kill_at(number, tmp_path / f"{stage} {number}", templates, mirrors, stage, seed=3)

    results = await gather(kill, kills, at_once=AT_ONCE)
    assert {position: problems for position, problems in zip(kills, results, strict=True) if problems} == {}


async def test_places_cover_every_commit_and_every_kind_of_request(
    mirrors: Mirrors, found: dict[str, list[str]]
) -> None:
    database = "sqlite" if isinstance(mirrors, SqliteMirrors) else "postgresql"
    passed = {place for stage in STAGES for place in found[stage]}
    commits = {name for place in passed if "commit: " in place for name in place.split(": ")[1].split(", ")}
    written = set(_writers())
    explained = set(NOT_PASSED | OTHERWISE[database]) | SOMETIMES
    assert written - commits <= explained, "a new place where something is committed: cover or explain it"
    assert explained <= written, "a place is explained that is not there any more"
    for request in ("GET list", "GET item", "GET source", "POST list", "DELETE item"):
        assert {f"before request: {request}", f"after request: {request}"} <= passed


def _writers() -> Iterator[str]:
    """Name every function, but for those of the commands, that calls `write` of a database, by the argument."""
    package = ROOT / "syncd"
    for file in package.rglob("*.py"):
        name = ".".join(file.relative_to(package).with_suffix("").parts)
        if name.startswith("cli."):
            continue
        for function, called in _functions(ast.parse(file.read_text()), f"{name}."):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(
                    ("database.write", "database.write_batched")
                ):
                    yield _work(call, called, importlib.import_module(f"syncd.{name}"))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield functions and methods with their names; a nested function belongs to the outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, prefix + child.name
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _work(call: ast.Call, name: str, module: ModuleType) -> str:
    """Name the work as `instrumented_syncd.commit_name` does; a nested function has the name of the outer one."""
    work = call.args[0]
    if isinstance(work, ast.Call):  # partial(work, ...)
        work = work.args[0]
    function: object = module
    for part in ast.unparse(work).split("."):
        function = getattr(function, part, None)
    return function_name(function) if callable(function) else name


async def test_process_is_killed_at_no_place_by_default(tmp_path: Path, templates: Path, mirrors: Mirrors) -> None:
    async with case(tmp_path / "one", templates, mirrors, "work queued", seed=1) as stage_case:
        done = await stage_case.syncd(["once"], PLACE="nonsense=1")
        assert done.returncode == 0
        assert await stage_case.differences() == []
