"""Fixtures of the tests of passes: a folder with an empty mirror, and one page a transaction."""

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
    """Write each page and its checkpoint in a separate transaction, even when pages arrive together."""
    monkeypatch.setattr("syncd.pull.fetch.MOST_PAGES", 1)
