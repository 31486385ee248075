"""The mirror of folders: which rows a listing adds, changes and deletes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from syncd.mirror.store import folders
from syncd.pull.folders import PAGES_WITHOUT_NEW
from syncd.records.enums import FolderListingState
from syncd.rules.deletion import Guard
from syncd.sandbox import Habits
from syncd.sandbox.generate import FOLDERS
from tests.helpers.harness import Harness, open_harness

pytestmark = pytest.mark.both_databases

LISTING = "/api/v3/chats/folders"
COMPLETE, PARTIAL = FolderListingState.COMPLETE, FolderListingState.PARTIAL
FAILED, UNAVAILABLE = FolderListingState.FAILED, FolderListingState.UNAVAILABLE


async def mirrored(harness: Harness) -> dict[str, Any]:
    rows = await harness.sql("SELECT id, name, path, type, parent_id FROM chat_folders")
    return {row["id"]: (row["name"], row["type"], row["parent_id"]) for row in rows}


def there(harness: Harness) -> dict[str, Any]:
    return {
        folder_id: (wire["name"], wire["type"], wire.get("parentId"))
        for folder_id, wire in harness.sandbox.folders.by_id.items()
    }


async def listing_row(harness: Harness) -> dict[str, Any]:
    return (await harness.sql("SELECT state, error, finished_at, complete_at FROM folder_listing"))[0]


def is_listing(request: web.BaseRequest) -> bool:
    return request.raw_path.partition("?")[0] == LISTING


def is_folder(request: web.BaseRequest) -> bool:
    return request.raw_path.startswith(f"{LISTING}/")


async def only_folders(harness: Harness, *ids: str) -> None:
    """Mirror a server that has these folders only."""
    harness.sandbox.folders.by_id.clear()
    for folder_id in ids:
        harness.sandbox.folders.create(id=folder_id, name=folder_id.title())
    assert await harness.folders().run() is COMPLETE


@pytest.mark.parametrize("final_key", ["absent", "repeat"])
async def test_folders_of_all_pages_are_mirrored_with_their_paths(tmp_path: Path, final_key: Any) -> None:
    habits = Habits(page_size=7, final_key=final_key, awkward_cursor=True)
    async with open_harness(tmp_path, sessions=20, habits=habits) as harness:
        await harness.one_pass()
        assert await harness.folders().run() is COMPLETE
        assert await mirrored(harness) == there(harness)
        assert len(await mirrored(harness)) == len(FOLDERS)
        rows = await harness.sql("SELECT id, parent_id, folder_name, folder_path FROM chat_sessions")
        folders = harness.sandbox.folders.by_id
        for row in rows:
            folder = folders.get(row["parent_id"])
            names = [] if folder is None else [folder["name"]]
            if folder is not None and "parentId" in folder:
                names.insert(0, folders[folder["parentId"]]["name"])
            assert (row["folder_name"], row["folder_path"]) == (names[-1] if names else None, " / ".join(names) or None)
        assert any(row["folder_path"] and " / " in row["folder_path"] for row in rows)


async def test_unchanged_folders_are_not_written(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(page_size=10)) as harness:
        harness.sandbox.folders.update("FOL3", color="red", numbers=[1e23, 1.50])
        await harness.folders().run()
        before = await harness.sql("SELECT * FROM folders ORDER BY id")
        harness.clock.forward(60)
        assert await harness.folders().run() is COMPLETE
        assert await harness.sql("SELECT * FROM folders ORDER BY id") == before
        assert [entry["changed"] for entry in harness.named("folders.mirrored")] == [len(FOLDERS), 0]
        assert [entry["log_level"] for entry in harness.named("folders.mirrored")] == ["info", "debug"]


async def test_renamed_folder_changes_the_paths_of_the_folders_in_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.folders.create(id="top", name="Top")
        harness.sandbox.folders.create(id="in", name="In", parent_id="top")
        await harness.folders().run()
        (old,) = await harness.sql("SELECT changed_at, first_seen_at FROM chat_folders WHERE id = 'in'")
        harness.clock.forward(60)
        harness.sandbox.folders.update("top", name="Renamed")
        await harness.folders().run()
        (row,) = await harness.sql("SELECT path, changed_at, first_seen_at FROM chat_folders WHERE id = 'in'")
        assert row["path"] == "Renamed / In"
        assert row["changed_at"] > old["changed_at"]
        assert row["first_seen_at"] == old["first_seen_at"]


async def test_absence_of_a_folder_counts_although_its_path_changes_in_the_same_listing(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.guard = Guard(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        harness.sandbox.folders.create(id="top", name="Top")
        harness.sandbox.folders.create(id="in", name="In", parent_id="top")
        await harness.folders().run()
        harness.sandbox.folders.delete("in")
        harness.sandbox.folders.update("top", name="Renamed")
        for _ in range(2):
            harness.clock.forward(60)
            await harness.folders().run()
        assert await mirrored(harness) == there(harness)


async def test_deleted_folder_is_removed_after_its_confirmations_and_returns_when_listed(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(page_size=10, gone_status=410)) as harness:
        harness.guard = Guard(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.folders().run()
        (seen,) = await harness.sql("SELECT first_seen_at FROM chat_folders WHERE id = 'FOL9'")
        wire = harness.sandbox.folders.delete("FOL9")
        await harness.folders().run()
        assert "FOL9" in await mirrored(harness)
        harness.clock.forward(60)
        await harness.folders().run()
        assert await mirrored(harness) == there(harness)
        assert harness.named("folders.mirrored")[-1]["deleted"] == 1
        harness.sandbox.folders.create(id="FOL9", name=wire["name"])
        await harness.folders().run()
        assert await mirrored(harness) == there(harness)
        assert await harness.sql("SELECT first_seen_at FROM chat_folders WHERE id = 'FOL9'") == [seen]


async def test_folder_that_answers_200_is_kept_when_listings_omit_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.folders.create(id="shy", name="Shy")
        await harness.folders().run()
        wire = harness.sandbox.folders.by_id.pop("shy")
        harness.sandbox.script(
            "GET", f"{LISTING}/shy", lambda _: web.json_response(wire | {"name": "Renamed"}), times=9
        )
        for _ in range(3):
            assert await harness.folders().run() is COMPLETE
        assert (await mirrored(harness))["shy"] == ("Renamed", "root", None)


async def test_only_consecutive_absences_count(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.guard = Guard(grace=0, confirmations=2, max_count=25, max_fraction=0.05)
        await harness.folders().run()
        for _ in range(3):
            wire = harness.sandbox.folders.delete("FOL9")
            await harness.folders().run()
            harness.sandbox.folders.create(id="FOL9", name=wire["name"])
            await harness.folders().run()
        assert "FOL9" in await mirrored(harness)
        assert await harness.sql("SELECT id FROM folders WHERE absences <> 0") == []


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("status", [404, 410, 500, 403])
async def test_missing_folder_is_kept_while_no_folder_answers_200(tmp_path: Path, status: int) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.folders().run()
        harness.sandbox.folders.delete("FOL9")
        harness.sandbox.script("GET", is_folder, lambda _: web.Response(status=status, text="<html>gateway"), times=99)
        for _ in range(3):
            await harness.folders().run()
        assert "FOL9" in await mirrored(harness)


async def test_more_missing_folders_than_the_guard_allows_are_kept(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.guard = Guard(grace=0, confirmations=1, max_count=3, max_fraction=0.05)
        await harness.folders().run()
        for folder_id in list(harness.sandbox.folders.by_id)[:4]:
            harness.sandbox.folders.delete(folder_id)
        requests = len(harness.asked("GET", f"{LISTING}/"))
        assert await harness.folders().run() is PARTIAL
        assert len(await mirrored(harness)) == len(FOLDERS)
        assert len(harness.asked("GET", f"{LISTING}/")) == requests
        assert "4 of 40 folders are not listed" in harness.named("folders.failed")[0]["reason"]


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.json_response({"Items": []}),
        lambda _: web.json_response({"Items": None}),
        lambda _: web.json_response({}),
        lambda _: web.Response(text="<html>", content_type="text/html"),
        lambda _: web.Response(status=500),
        lambda _: web.Response(status=404, text="<html>no route"),
        lambda _: web.json_response({"message": "forbidden"}, status=403),
        lambda _: web.json_response({"message": "bad"}, status=400),
    ],
)
async def test_failed_or_empty_listing_never_empties_the_mirror(tmp_path: Path, answer: Any) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.folders().run()
        before = await harness.sql("SELECT * FROM folders ORDER BY id")
        harness.sandbox.script("GET", is_listing, answer, times=99)
        for _ in range(4):
            await harness.folders().run()
        assert await harness.sql("SELECT * FROM folders ORDER BY id") == before


async def test_empty_listing_deletes_no_folder_until_it_has_been_empty_for_long(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await only_folders(harness, "a", "b", "c")
        removed = [harness.sandbox.folders.delete(folder_id) for folder_id in ("a", "b", "c")]
        for _ in range(11):
            assert await harness.folders().run() is PARTIAL
        for wire in removed:
            harness.sandbox.folders.create(id=wire["id"], name=wire["name"])
        assert await harness.folders().run() is COMPLETE, "the next ones are not in a row with those before"
        for folder_id in ("a", "b", "c"):
            harness.sandbox.folders.delete(folder_id)
        for _ in range(11):
            await harness.folders().run()
        assert set(await mirrored(harness)) == {"a", "b", "c"}
        levels = {(entry["log_level"], entry["reason"].partition(":")[0]) for entry in harness.named("folders.failed")}
        assert levels == {(level, "no folder is listed, which may be an error") for level in ("warning", "debug")}
        await harness.folders().run()
        assert await mirrored(harness) == {}
        assert harness.named("folders.failed")[-1]["log_level"] == "debug"
        assert await harness.folders().run() is COMPLETE


async def test_empty_listing_with_404s_of_a_gateway_deletes_no_folder_ever(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await only_folders(harness, "only")
        harness.sandbox.folders.delete("only")
        harness.sandbox.script(
            "GET", f"{LISTING}/only", lambda _: web.Response(status=404, text="<html>gateway"), times=99
        )
        for _ in range(13):
            assert await harness.folders().run() is PARTIAL
        assert "only" in await mirrored(harness)


async def test_failure_on_a_later_page_keeps_the_pages_before_it_and_finds_nothing_missing(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(page_size=10)) as harness:
        harness.sandbox.script("GET", lambda request: "startKey" in request.raw_path, 500, times=3)
        assert await harness.folders().run() is FAILED
        assert len(await mirrored(harness)) == 10
        assert await harness.folders().run() is COMPLETE
        harness.sandbox.folders.delete("FOL1")
        harness.sandbox.script("GET", lambda request: "startKey" in request.raw_path, 404, times=3)
        assert await harness.folders().run() is FAILED
        assert "FOL1" in await mirrored(harness)
        assert harness.asked("GET", f"{LISTING}/") == []


@pytest.mark.parametrize("status", [403, 404])
async def test_missing_privilege_or_route_is_reported_once_and_does_not_affect_passes(
    tmp_path: Path, status: int
) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        harness.sandbox.script("GET", is_listing, status, times=9 if status == 403 else 3)  # a 403 may be transient
        for _ in range(3):
            assert (await harness.one_pass()).state == "complete"
            assert await harness.folders().run() is UNAVAILABLE
        levels = [entry["log_level"] for entry in harness.named("folders.unavailable")]
        assert levels == ["warning", "debug", "debug"]
        assert (await listing_row(harness))["state"] == "unavailable"
        assert await harness.folders().run() is COMPLETE
        assert (await listing_row(harness))["error"] is None
        harness.sandbox.script("GET", is_listing, status, times=99)
        await harness.folders().run()
        assert harness.named("folders.unavailable")[-1]["log_level"] == "warning"


async def test_failed_listing_is_retried_and_logged_once_for_each_reason(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.script("GET", is_listing, 503, times=2)
        assert await harness.folders().run() is COMPLETE
        harness.sandbox.script("GET", is_listing, 500, times=6)
        assert [await harness.folders().run() for _ in range(2)] == [FAILED, FAILED]
        assert [entry["log_level"] for entry in harness.named("folders.failed")] == ["warning", "debug"]


async def test_server_that_asks_for_a_long_wait_ends_the_listing(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        answer = web.Response
        harness.sandbox.script("GET", is_listing, lambda _: answer(status=429, headers={"Retry-After": "600"}), times=9)
        before = harness.clock.monotonic()
        assert await harness.folders().run() is FAILED
        assert harness.clock.monotonic() - before < 60


async def test_item_without_an_id_makes_the_listing_partial_and_keeps_no_deleted_folder(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.folders().run()
        harness.sandbox.folders.delete("FOL9")
        readable = [folder for folder in harness.sandbox.folders.by_id.values() if folder["id"] != "FOL8"]
        items: list[dict[str, Any]] = [*readable, {"id": 8, "name": "no id"}]
        harness.sandbox.script("GET", is_listing, lambda _: web.json_response({"Items": items}), times=9)
        for _ in range(3):
            assert await harness.folders().run() is PARTIAL
            assert "no readable id" in (await listing_row(harness))["error"]
        left = await mirrored(harness)
        assert "FOL9" not in left
        assert "FOL8" in left, "it answers 200"


async def test_unreadable_folder_with_an_id_counts_as_seen(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.folders().run()
        before = await mirrored(harness)
        harness.sandbox.folders.by_id["FOL9"]["name"] = 5
        for _ in range(3):
            assert await harness.folders().run() is COMPLETE
        assert await mirrored(harness) == before
        assert harness.asked("GET", f"{LISTING}/") == []


async def test_endless_listing_stops_at_the_ceiling(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(page_size=1)) as harness:
        assert await harness.folders(max_pages=5).run() is PARTIAL
        assert len(await mirrored(harness)) == 5


async def test_repeated_page_key_with_a_new_folder_makes_the_listing_partial(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        pages = [{"Items": [{"id": f"F{number}", "name": "n"}], "lastKey": "k"} for number in range(9)]
        harness.sandbox.script("GET", is_listing, lambda _: web.json_response(pages.pop()), times=9)
        assert await harness.folders().run() is PARTIAL
        assert len(pages) == 7


async def test_older_listing_does_not_write_after_a_newer_one(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        async def another(_: web.BaseRequest) -> None:
            await harness.database.write(folders.begin)

        harness.sandbox.script("GET", is_listing, another)
        assert await harness.folders().run() is None
        assert await mirrored(harness) == {}
        assert (await listing_row(harness))["state"] is None
        assert await harness.folders().run() is COMPLETE


async def test_listing_after_a_killed_one_completes(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.database.write(folders.begin)
        assert await harness.folders().run() is COMPLETE
        assert await mirrored(harness) == there(harness)


async def test_listing_that_gives_new_keys_forever_ends(tmp_path: Path) -> None:
    async with open_harness(tmp_path, habits=Habits(page_size=10)) as harness:
        numbers = itertools.count()

        def page_with_a_new_key(_: web.BaseRequest) -> web.Response:
            return web.json_response({"Items": [{"id": "FOL1", "name": "n"}], "lastKey": f"key {next(numbers)}"})

        harness.sandbox.script("GET", LISTING, page_with_a_new_key, times=10**6)
        assert await harness.folders(max_pages=10**6).run() is FolderListingState.PARTIAL
        assert next(numbers) == 1 + PAGES_WITHOUT_NEW
        (event,) = harness.named("folders.failed")
        assert "without a new folder" in event["reason"]
