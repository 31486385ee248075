"""Ids of a file are compared with the mirror and the queue, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.mirror.store import lookalikes
from tests.helpers.harness import Harness, open_harness
from tests.push.helpers import create

pytestmark = pytest.mark.both_databases


async def find(harness: Harness, *values: str, column: str = "source_session_id") -> list[tuple[str, str, str]]:
    key = "session_id" if column == "id" else column
    rows: list[dict[str, Any]] = [{"place": f"line {n}", key: value} for n, value in enumerate(values, 2)]
    pairs = await harness.database.read(lambda c: lookalikes.find(c, rows))
    assert {each.id.column for each in pairs} <= {column}
    return [(each.id.value, each.other.place, each.other.value) for each in pairs]


async def test_ids_like_those_of_the_mirror_and_the_queue_are_found(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="in-mirror", name="n")
        await harness.one_pass()
        await harness.enqueue(create("in-queue"))
        assert await find(harness, "in-mirror ", "In-Queue", "in-\u200bmirror", "in-mirror", "another") == [
            ("in-\u200bmirror", "line 2", "in-mirror "),
            ("in-mirror", "line 2", "in-mirror "),
            ("In-Queue", "queue", "in-queue"),
            ("in-mirror ", "mirror", "in-mirror"),
            ("in-\u200bmirror", "mirror", "in-mirror"),
        ]
        assert await find(harness, "in-mirror ") == [("in-mirror ", "mirror", "in-mirror")]


async def test_session_id_of_an_open_delete_is_in_the_queue_and_that_of_a_finished_one_is_not(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.enqueue({"kind": "delete", "session_id": "SES9"})
        assert await find(harness, "ses9", column="id") == [("ses9", "queue", "SES9")]
        await harness.sql("UPDATE operations SET state = 'cancelled', finished_at = '2026-01-01T00:00:00.000000Z'")
        assert await find(harness, "ses9", column="id") == []


async def test_session_ids_are_compared_with_live_sessions(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        made = harness.sandbox.create(source_session_id="s-1", name="n", id="SES1")
        await harness.one_pass()
        assert made is not None
        assert await find(harness, "ses1", column="id") == [("ses1", "mirror", "SES1")]


async def test_mirror_is_read_in_chunks_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "_CHUNK", 3)
    async with open_harness(tmp_path) as harness:
        for number in range(10):
            harness.sandbox.create(source_session_id=f"s-{number}", name="n")
        await harness.one_pass()
        pairs = await find(harness, *(f"S-{number}" for number in range(10)))
        assert sorted(value for value, *_ in pairs) == [f"S-{number}" for number in range(10)]
