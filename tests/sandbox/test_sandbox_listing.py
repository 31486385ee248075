import httpx
import pytest

from syncd.sandbox import Sandbox, serve
from tests.sandbox.helpers import SESSIONS, ids, listed, page, pages

ALL = [f"SES{number}" for number in range(1, 26)]


async def test_pages_bring_every_session_once(box: Sandbox, client: httpx.AsyncClient) -> None:
    listing = await pages(client)
    assert [len(each["Items"]) for each in listing] == [10, 10, 5]
    assert ids(*listing) == ALL
    assert {item["id"]: item for each in listing for item in each["Items"]} == box.live()


@pytest.mark.parametrize("order", ["created", "updated", "id", "newest"])
async def test_each_order_lists_all_and_sorts(box: Sandbox, client: httpx.AsyncClient, order: str) -> None:
    box.habits.order = order  # type: ignore[assignment]
    items = [item for each in await pages(client) for item in each["Items"]]
    session_ids = [item["id"] for item in items]
    expected = {
        "created": ALL,
        "newest": ALL[::-1],
        "id": sorted(ALL),
        "updated": [item["id"] for item in sorted(items, key=lambda item: str(item["Updated"]["at"]))],
    }
    assert sorted(session_ids) == sorted(ALL)
    assert session_ids == expected[order]


@pytest.mark.parametrize(
    ("habit", "sizes", "last"),
    [
        ("absent", [10, 10, 5], {}),
        ("null", [10, 10, 5], {"lastKey": None}),
        ("empty", [10, 10, 5], {"lastKey": ""}),
        ("empty_page", [10, 10, 5, 0], {}),
    ],
)
async def test_the_listing_ends_by_habit(
    box: Sandbox, client: httpx.AsyncClient, habit: str, sizes: list[int], last: dict[str, object]
) -> None:
    box.habits.final_key = habit  # type: ignore[assignment]
    listing = await pages(client)
    assert [len(each["Items"]) for each in listing] == sizes
    assert {key: value for key, value in listing[-1].items() if key != "Items"} == last


@pytest.mark.parametrize("sessions", [0, 25])
async def test_repeated_final_key_is_returned_forever(sessions: int) -> None:
    box = Sandbox(sessions=sessions)
    box.habits.final_key = "repeat"
    headers = {"Authorization": f"Bearer {box.token}"}
    async with serve(box), httpx.AsyncClient(base_url=box.url, headers=headers, trust_env=False) as client:
        first = await page(client)
        assert len(first["Items"]) == sessions
        for _ in range(3):
            assert await page(client, first["lastKey"]) == {"Items": [], "lastKey": first["lastKey"]}


async def test_delete_of_the_item_at_the_cursor_skips_no_item(box: Sandbox, client: httpx.AsyncClient) -> None:
    first = await page(client)
    box.delete("SES10")
    box.delete("SES2")
    assert ids(await page(client, first["lastKey"])) == ALL[10:20]


async def test_session_updated_after_its_page_is_listed_twice_and_one_created_newest_is_not_listed(
    box: Sandbox, client: httpx.AsyncClient
) -> None:
    box.habits.order = "updated"
    first = await page(client)
    moved = ids(first)[0]
    box.update(moved, name="moved to the end")
    rest = [await page(client, first["lastKey"])]
    rest.append(await page(client, rest[0]["lastKey"]))
    assert ids(*rest)[-1] == moved
    box.habits.order = "newest"
    first = await page(client)
    new = box.create(source_session_id="late", name="late")["id"]
    assert new not in ids(await page(client, first["lastKey"]))
    assert (await listed(client))[0] == new


async def test_a_session_moved_before_the_cursor_is_missed_by_that_listing(
    box: Sandbox, client: httpx.AsyncClient
) -> None:
    box.habits.order = "id"
    first = await page(client)
    unseen = next(each for each in ALL if each not in ids(first))
    box.delete(unseen)
    box.create(source_session_id="again", name="again", id="SES0")
    rest = await page(client, first["lastKey"])
    assert "SES0" not in ids(rest)
    assert "SES0" in await listed(client)


async def test_the_listing_lags_by_habit(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.listing_lag = 5
    box.create(source_session_id="late", name="late")
    old = box.live()["SES2"]["name"]
    box.update("SES2", name="renamed")
    box.delete("SES1")
    first_page = await page(client)
    assert ids(first_page) == ALL[:10]
    assert first_page["Items"][1]["name"] == old
    await box.sleep(4.9)
    assert await listed(client) == ALL
    await box.sleep(0.1)
    assert await listed(client) == [*ALL[1:], "SES26"]
    box.habits.listing_lag = 0
    box.delete("SES26")
    assert await listed(client) == ALL[1:]


@pytest.mark.parametrize("status", [400, 404, 410, 422])
async def test_an_expired_or_unknown_cursor_is_refused_by_habit(
    box: Sandbox, client: httpx.AsyncClient, status: int
) -> None:
    box.habits.cursor_status = status  # type: ignore[assignment]
    box.habits.cursor_ttl = 30
    key = (await page(client))["lastKey"]
    assert ids(await page(client, key)) == ALL[10:20]
    await box.sleep(31)
    for start in (key, "nonsense", "bm9uc2Vuc2U", "%22"):
        answer = await client.get(SESSIONS, params={"startKey": start})
        assert answer.status_code == status, start
    box.habits.cursor_ttl = None
    assert ids(await page(client, key)) == ALL[10:20]


async def test_an_awkward_cursor_works_to_the_character_only(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.awkward_cursor = True
    assert await listed(client) == ALL
    key = (await page(client))["lastKey"]
    assert set('+/=&%#? "ü') <= set(key)
    assert (await client.get(SESSIONS, params={"startKey": key.replace("+", " ")})).status_code == 400
    assert (await client.get(SESSIONS, params={"startKey": key.replace("%", "%25")})).status_code == 400
    assert (await client.get(SESSIONS, params={"startKey": key.strip()[:-1]})).status_code == 400


async def test_a_bare_plus_is_a_space_or_a_plus_by_habit(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.create(source_session_id="p", name="a+b")
    box.create(source_session_id="s", name="a b")
    for plus_is_space, name in ((True, "a b"), (False, "a+b")):
        box.habits.plus_is_space = plus_is_space
        answer = await page(client, query="exactMatch=true&name=a+b")
        assert [item["name"] for item in answer["Items"]] == [name]


async def test_empty_pages_alternate_with_full_ones(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.hollow_pages = True
    listing = await pages(client)
    assert [len(each["Items"]) for each in listing] == [10, 0, 10, 0, 5]
    assert ids(*listing) == ALL


async def test_filters_narrow_and_combine_over_pages(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.page_size = 2
    live = box.live().values()
    for query, wanted in {
        "createdBy=USR1": [each["id"] for each in live if each["Created"]["by"] == "USR1"],
        "updatedBy=USR2": [each["id"] for each in live if each["Updated"]["by"] == "USR2"],
        "kind=chat&createdBy=USR1": [
            each["id"] for each in live if each["kind"] == "chat" and each["Created"]["by"] == "USR1"
        ],
        "parentId=FOL7": [each["id"] for each in live if each.get("parentId") == "FOL7"],
        "automationId=AUT1": [each["id"] for each in live if each.get("automationId") == "AUT1"],
        "exactMatch=true": ALL,
    }.items():
        assert await listed(client, query) == wanted, query


async def test_names_match_exactly_and_fuzzily_only_by_habit(box: Sandbox, client: httpx.AsyncClient) -> None:
    blue = box.create(source_session_id="1", name="Blue Ink")["id"]
    red = box.create(source_session_id="2", name="Red Ink")["id"]
    assert await listed(client, "exactMatch=true&name=Blue%20Ink&name=Red%20Ink") == [blue, red]
    assert await listed(client, "exactMatch=true&name=blue%20ink") == []
    assert await listed(client, "name=Blue%20Ink") == []
    box.habits.fuzzy_matching = True
    assert await listed(client, "name=blue%20i") == [blue]


async def test_broken_items_are_mixed_into_the_first_page(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.broken_items = [{"id": "SES-BROKEN"}, None, "text"]
    listing = await pages(client)
    assert len(listing[0]["Items"]) == 13
    assert all(item in listing[0]["Items"] for item in box.habits.broken_items)
    assert ids(*listing[1:]) == ALL[10:]


async def test_extra_fields_are_always_on_the_same_sessions(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.habits.extra_fields = True
    first, second = await pages(client), await pages(client)
    items = {item["id"]: item for each in first for item in each["Items"]}
    assert [each["Items"] for each in first] == [each["Items"] for each in second]
    assert items == box.live()
    assert items["SES7"]["retention"] == {"policy": "R&D", "days": 7}
    assert items["SES11"]["kind"] == "agent"
    assert (await client.get(f"{SESSIONS}/SES11")).json() == items["SES11"]
