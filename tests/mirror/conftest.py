"""A folder with an empty mirror in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import empty_mirror


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    empty_mirror.create(tmp_path / "syncd.db")
    return tmp_path
