"""A served sandbox, a client that holds its token, and a clock that stands still."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from syncd.sandbox import Sandbox, serve


@dataclass
class StoppedClock:
    """Time goes on when a test says so."""

    at: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def box(clock: StoppedClock) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(sessions=25, now=clock, sleep=clock.sleep)
    sandbox.habits.page_size = 10
    async with serve(sandbox):
        yield sandbox


@pytest.fixture
async def client(box: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {box.token}"}
    async with httpx.AsyncClient(base_url=box.url, headers=headers, trust_env=False) as client:
        yield client
