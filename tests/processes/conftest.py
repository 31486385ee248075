from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncd.sandbox import Habits, Sandbox, serve
from tests.processes.helpers import SECRET, Syncd, at_work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of whole processes more time: each start of an interpreter is seconds on a busy machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture
async def syncd(tmp_path: Path) -> AsyncIterator[Syncd]:
    """Have a syncd in an empty folder, towards a sandbox with 30 sessions and a token that must not be printed."""
    server = Sandbox(30, seed=3, habits=Habits(page_size=10), token=SECRET)
    async with serve(server), at_work(tmp_path, server) as running:
        yield running
