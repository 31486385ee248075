"""Runs mutants: each in a copy of the project of its own. `python -m tests.mutants` calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from tests.helpers.programs import ROOT
from tests.mutants.mutant import Mutant

LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".*_cache", ".hypothesis", "*.db", "dist")
"""Left out of a copy. Compiled files are copied: those of a changed file are not used, because its time differs."""
SECONDS = 240
"""How long one test may take; pytest ends most that hang earlier."""
FAILED = 1
"""The exit code of pytest when tests ran and one of them failed."""


class Result(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"
    """The test did not run: the mutant proves nothing."""


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the project to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="syncd-mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "project"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        yield folder


def apply(mutant: Mutant, folder: Path) -> None:
    """Replace the old text by the new one.

    Raises
    ------
    LookupError
        The old text does not occur exactly once.
    """
    file = folder / mutant.file
    text = file.read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        raise LookupError(f"{mutant.name}: its old text occurs {count} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def pytest(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests of a copy, without randomness and in one process; return the exit code and what pytest said last."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-n", "0"]
    if not all(_is_of_postgresql(test) for test in tests):
        command += ["-k", "not [postgresql"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*command, *tests], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=SECONDS * len(tests),
    )  # fmt: skip
    lines = (done.stdout or done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, " ".join([*lines[-1:], *failed[:1]])


def _is_of_postgresql(test: str) -> bool:
    return test.endswith("[postgresql]")


def run(mutant: Mutant) -> tuple[Result, str]:
    """Run the test of a mutant in a copy with its change; return the result and what pytest said last.

    Raises
    ------
    LookupError
        The old text does not occur exactly once.
    """
    with copied() as folder:
        apply(mutant, folder)
        try:
            code, line = pytest(folder, [mutant.test])
        except subprocess.TimeoutExpired:
            return Result.BROKEN, f"the test did not end within {SECONDS} seconds"
    if code == FAILED and " error" not in line and "Timeout" not in line:
        return Result.KILLED, line
    return (Result.SURVIVED if code == 0 else Result.BROKEN), line


def unchanged_tests_pass(mutants: Sequence[Mutant]) -> tuple[bool, str]:
    """Run the tests of some mutants in a copy without a change, because a test that always fails kills nothing."""
    lines, codes = [], []
    with copied() as folder:
        for key, tests in groupby(
            sorted({mutant.test for mutant in mutants}, key=_is_of_postgresql), _is_of_postgresql
        ):
            code, line = pytest(folder, sorted(tests))
            codes.append(code)
            lines.append(f"PostgreSQL: {line}" if key else line)
    return not any(codes), "; ".join(lines)


def run_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[tuple[Mutant, Result, str]]:
    """Run mutants, some at the same time; yield each with its result, in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, (result, line) in zip(mutants, pool.map(run, mutants), strict=True):
            yield mutant, result, line
