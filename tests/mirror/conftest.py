"""A folder with an empty mirror in it: the schema is made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.schema import migrate


@pytest.fixture(scope="session")
def empty_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "syncd.db"
    engine = sync_engine(path)
    with engine.begin() as connection:
        migrate.migrate(connection)
    engine.dispose()
    return path


@pytest.fixture
def folder(tmp_path: Path, empty_mirror: Path) -> Path:
    shutil.copy(empty_mirror, tmp_path / "syncd.db")
    return tmp_path
