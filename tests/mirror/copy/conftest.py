"""What the tests of moves share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.postgres_server import PostgresServer


@pytest.fixture
def empty_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.empty()
    yield postgres.url(name)
    postgres.drop(name)
