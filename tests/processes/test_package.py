"""The wheel: its files, and that an installed syncd works outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes.helpers import ROOT, bare_environment


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without a network and unpack it, as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-q",
         "-w", str(folder), "--no-cache-dir", "--disable-pip-version-check"],
        check=True, capture_output=True, timeout=55,
    )  # fmt: skip
    (wheel,) = folder.glob("syncd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_holds_the_program_its_migrations_and_its_licence(unpacked: Path) -> None:
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {"syncd/py.typed", "syncd/migrations/env.py", "syncd/migrations/versions/0001_schema.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    top = {name.split("/")[0] for name in names}
    assert {entry for entry in top if not entry.endswith(".dist-info")} == {"syncd"}


def test_installed_syncd_brings_a_schema_up_away_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    environment = bare_environment(PYTHONPATH=str(unpacked))
    for arguments, expected in ((["migrate"], "the schema was empty"), (["sources", "list"], "no source ids")):
        ended = subprocess.run(
            [sys.executable, "-m", "syncd", *arguments], cwd=tmp_path, env=environment, capture_output=True, check=True,
            text=True, timeout=30,
        )  # fmt: skip
        assert ended.stdout.startswith(expected)
