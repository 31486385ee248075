"""`make dist` builds the distributions without a network, from what is in the repository."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MAKE = ["make", "--silent", "--old-file=.venv/runtime"]
"""The environment is that of the tests and is not installed again."""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "dist"
    subprocess.run([*MAKE, "dist", f"DIST={folder}"], cwd=ROOT, check=True, capture_output=True, timeout=100)
    return folder


def test_version_is_that_of_the_project() -> None:
    done = subprocess.run([*MAKE, "version"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == f"{VERSION}\n"


def test_source_distribution_contains_tests_docs_and_what_builds_it(dist: Path) -> None:
    assert sorted(path.name for path in dist.iterdir()) == [
        f"syncd-{VERSION}-py3-none-any.whl",
        f"syncd-{VERSION}.tar.gz",
    ]
    with tarfile.open(dist / f"syncd-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "requirements/dev.txt", "tests/conftest.py", "docs/architecture.md", "migrations/env.py"}
    assert wanted <= names
    assert not {name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "dist"))}


def test_wheel_of_the_source_distribution_contains_only_the_package(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"syncd-{VERSION}-py3-none-any.whl") as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"syncd", f"syncd-{VERSION}.dist-info"}
    assert {"syncd/py.typed", "syncd/migrations/versions/0001_schema.py"} <= set(names)
