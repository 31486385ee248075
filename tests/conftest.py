"""What every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: aiohttp, aiosqlite and asyncpg are made for it."""
    return "asyncio"
