"""What every test may use."""

from __future__ import annotations

import pytest

from tests.helpers.databases import database_pool, each_database, postgres, postgres_url, pytest_generate_tests

__all__ = ["anyio_backend", "database_pool", "each_database", "postgres", "postgres_url", "pytest_generate_tests"]


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: aiohttp, aiosqlite and asyncpg are made for it."""
    return "asyncio"
