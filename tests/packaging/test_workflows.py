"""What runs elsewhere is checked here: workflows, hooks and the gate name commands and targets that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.programs import ROOT

BINARIES = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
CHECKS = [
    ["zizmor", "--offline", "--no-progress", ".github"],
    ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
    ["check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"],
    ["pre-commit", "validate-config", ".pre-commit-config.yaml"],
]
DANGEROUS = """
name: Dangerous
on: pull_request_target
jobs:
  dangerous:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v5
      - run: echo "${{ github.event.pull_request.title }}"
"""


def check(command: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BINARIES / command[0], *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )


def commands() -> list[str]:
    """Return the shell lines of the workflows, the gate and the hooks."""
    lines: list[str] = (ROOT / ".ci" / "run").read_text().splitlines()
    for path in WORKFLOWS:
        jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
        lines += [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return lines + [hook["entry"] for hook in local["hooks"]]


@pytest.mark.parametrize(
    "command", CHECKS, ids=lambda command: " ".join(command[:1] + command[-1:]).replace(f"{ROOT}/", "")
)
def test_workflows_and_hooks_have_no_findings(command: list[str]) -> None:
    done = check(command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dangerous_workflow_has_findings(tmp_path: Path) -> None:
    file = tmp_path / "dangerous.yaml"
    file.write_text(DANGEROUS)
    done = check(["zizmor", "--offline", "--no-progress", str(file)])
    assert "dangerous-triggers" in done.stdout
    assert "template-injection" in done.stdout


def test_every_target_that_is_called_exists() -> None:
    targets = set(re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {name for line in commands() for name in re.findall(r"\bmake (?:--silent )?([a-z./-]+)", line)}
    assert {"check", "test", "test-lowest", "version", "dist"} <= called
    assert called <= targets


def test_every_program_of_a_hook_is_installed() -> None:
    programs = {word for line in commands() for word in re.findall(r"\.venv/bin/(\S+)", line)} - {"python"}
    assert programs >= {"ruff", "mypy", "lint-imports"}
    assert {name for name in programs if not (BINARIES / name).exists()} == set()
