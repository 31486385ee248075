"""A killed syncd, restarted, has lost nothing and doubled nothing; a sample here, every place by `make soak`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.kills.rig import case, kill_at, make_template, places, syncd

pytestmark = pytest.mark.timeout(300)  # processes of a busy machine take their time
SAMPLE = 5
SEED = 20261123


async def test_killed_anywhere_and_restarted_it_has_one_effect_for_each_operation(tmp_path: Path) -> None:
    await make_template(tmp_path / "template")
    found = await places(tmp_path / "record", tmp_path / "template", 1)
    around_the_post = [number for number, place in enumerate(found, 1) if "request: POST" in place]
    sample = {*around_the_post[:2], *Random(SEED).sample(range(1, len(found) + 1), SAMPLE)}  # noqa: S311
    wrong = {}
    for number in sorted(sample):
        problems = await kill_at(number, tmp_path / f"kill-{number}", tmp_path / "template", 1)
        if problems:
            wrong[found[number - 1]] = problems
    assert wrong == {}


async def test_places_cover_every_commit_and_every_kind_of_request(tmp_path: Path) -> None:
    await make_template(tmp_path / "template")
    found = set(await places(tmp_path / "record", tmp_path / "template", 1))
    for flow in ("Pull._begin", "Pull._mirror_page", "_Sweep._find", "_Sweep._conclude", "Push._launch", "_conclude"):
        for when in ("before", "after"):
            assert any(place.startswith(f"{when} commit") and flow in place for place in found), (flow, when, found)
    for request in ("GET list", "GET item", "GET source", "POST list", "DELETE item"):
        assert {f"before request: {request}", f"after request: {request}"} <= found


async def test_failpoints_are_off_unless_asked_for(tmp_path: Path) -> None:
    await make_template(tmp_path / "template")
    async with case(tmp_path / "one", tmp_path / "template", 1) as one:
        done = await syncd("once", tmp_path / "one", one.sandbox.url, FAILPOINT="nonsense=1")
        assert done.returncode == 0
        assert one.check() == []
