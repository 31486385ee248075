"""A folder with an empty mirror in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import empty_mirror


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    empty_mirror.create(tmp_path / "syncd.db")
    return tmp_path


@pytest.fixture
def _a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each page, and a checkpoint behind it, in a transaction of its own, however fast the pages come."""
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)
