"""What every test may use, and which tests are slow."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.helpers.databases import database_pool, each_database, postgres, postgres_url, pytest_generate_tests

__all__ = ["anyio_backend", "database_pool", "each_database", "postgres", "postgres_url", "pytest_generate_tests"]

TESTS = Path(__file__).parent
SLOW = (
    "browse", "browser", "container", "contrib", "hostile", "kills", "model", "packaging", "processes", "security",
    "docs/test_reading.py", "docs/test_typed_commands.py", "files/test_interrupted_exports.py",
    "mirror/copy/test_backup_to_standard_output.py", "mirror/copy/test_restore.py",
    "mirror/db/test_database_faults.py", "mirror/db/test_file_access.py", "status/test_alerts_fire.py",
    "status/test_daemon_with_status.py", "status/test_reachability.py", "test_benchmarks.py",
)  # fmt: skip
"""Folders and files whose tests start processes, or run for seconds."""


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio: aiohttp, aiosqlite and asyncpg are made for it."""
    return "asyncio"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Mark slow tests before a selection by markers, and put their files first after the tests have a random order.

    Slow are tests that start processes or a PostgreSQL, and all cases of a test but one. Other slow tests mark
    themselves. No worker is left with a slow file at the end.
    """
    _keep_one_case_on_postgresql(items)
    with_a_case: set[str] = set()
    for item in items:
        place, test = item.path.relative_to(TESTS).as_posix(), item.nodeid.partition("[")[0]
        if place.startswith(SLOW) or _needs_postgresql(item) or test in with_a_case:
            item.add_marker(pytest.mark.slow)
        else:
            with_a_case.add(test)
    yield
    items.sort(key=lambda item: not item.path.relative_to(TESTS).as_posix().startswith(SLOW))


def _keep_one_case_on_postgresql(items: list[pytest.Item]) -> None:
    """Remove what the marker `one_case_on_postgresql` says."""
    with_a_case: set[str] = set()
    for item in [*items]:
        if item.get_closest_marker("one_case_on_postgresql") is not None and _runs_on_postgresql(item):
            test = item.nodeid.partition("[")[0]
            if test in with_a_case:
                items.remove(item)
            with_a_case.add(test)


def _needs_postgresql(item: pytest.Item) -> bool:
    return "postgres" in getattr(item, "fixturenames", ()) or _runs_on_postgresql(item)


def _runs_on_postgresql(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("each_database") == "postgresql"
