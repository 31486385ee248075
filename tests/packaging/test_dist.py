"""`make dist` builds the distributions without a network, from what is in the repository."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
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


def test_source_distribution_contains_tests_docs_and_build_files(dist: Path) -> None:
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


def test_page_on_a_package_index_has_links_that_work_there(tmp_path: Path) -> None:
    address = "https://git.example.com/team/syncd"
    environment = {**os.environ, "SYNCD_REPOSITORY_URL": address}
    command = [*MAKE, "dist", f"DIST={tmp_path}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=100)
    metadata = metadata_of(tmp_path)
    assert metadata.get_all("Project-URL") == [
        f"Documentation, {address}/blob/v{VERSION}/README.md",
        f"Changelog, {address}/blob/v{VERSION}/CHANGELOG.md",
        f"Source, {address}",
        f"Issues, {address}/issues",
    ]
    links = set(re.findall(r"\]\(([^)#]+)", str(metadata.get_payload())))
    files = f"{address}/blob/v{VERSION}/"
    assert {link for link in links if not link.startswith("https://")} == set()
    assert f"{files}docs/library.md" in links
    for link in links:
        assert not link.startswith(files) or (ROOT / link.removeprefix(files)).exists()


def test_metadata_names_status_audience_and_versions_of_python(dist: Path) -> None:
    metadata = metadata_of(dist)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "The syncd authors"
    assert "sqlite" in metadata["Keywords"]
    classifiers = metadata.get_all("Classifier") or []
    assert "Typing :: Typed" in classifiers
    assert [classifier for classifier in classifiers if classifier.startswith("Development Status")] == [
        "Development Status :: 4 - Beta"
    ]
    assert str(metadata.get_payload()).startswith("# syncd\n")


def metadata_of(folder: Path) -> Message:
    with zipfile.ZipFile(folder / f"syncd-{VERSION}-py3-none-any.whl") as archive:
        return message_from_bytes(archive.read(f"syncd-{VERSION}.dist-info/METADATA"))
