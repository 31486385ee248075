"""What every test may use, and which tests are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.databases import database_pool, each_database, postgres, postgres_url, pytest_generate_tests

__all__ = ["anyio_backend", "database_pool", "each_database", "postgres", "postgres_url", "pytest_generate_tests"]

TESTS = Path(__file__).parent
SLOW_FOLDERS = frozenset({"browse", "browser", "container", "kills", "model", "packaging", "processes", "security"})
"""Folders whose tests start processes, or run for seconds."""


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: aiohttp, aiosqlite and asyncpg are made for it."""
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow that start processes, or a PostgreSQL; other slow tests mark themselves."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in SLOW_FOLDERS or _needs_postgresql(item):
            item.add_marker(pytest.mark.slow)


def _needs_postgresql(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    names = getattr(item, "fixturenames", ())
    return "postgres" in names or (callspec is not None and callspec.params.get("each_database") == "postgresql")
