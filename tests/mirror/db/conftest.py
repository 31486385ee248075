"""Fixtures of the tests of databases."""

from __future__ import annotations

import pytest

from syncd.mirror.db import sqlite


@pytest.fixture
def short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
