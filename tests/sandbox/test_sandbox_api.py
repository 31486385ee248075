from urllib.parse import quote

import httpx
import pytest

from syncd.sandbox import Sandbox
from tests.sandbox.helpers import NEW, SESSIONS, send_request_line


async def test_create_is_found_by_id_and_by_source(box: Sandbox, client: httpx.AsyncClient) -> None:
    created = await client.post(SESSIONS, json=NEW)
    assert created.status_code == 201
    wire = created.json()
    assert wire.items() >= NEW.items()
    assert (await client.get(f"{SESSIONS}/{wire['id']}")).json() == wire
    assert (await client.get(f"{SESSIONS}/source/src-1")).json() == wire
    assert box.live()[wire["id"]] == wire
    assert [(each.number, each.kind, each.session_id) for each in box.effects] == [(1, "created", wire["id"])]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"name":"x"}',
        b'{"name":"","sourceSessionId":"s"}',
        b'{"name":1,"sourceSessionId":"s"}',
        b'{"name":"x","sourceSessionId":"s","parentId":1}',
    ],
)
async def test_a_create_without_its_fields_is_400_and_has_no_effect(
    box: Sandbox, client: httpx.AsyncClient, body: bytes
) -> None:
    assert (await client.post(SESSIONS, content=body)).status_code == 400
    assert box.effects == []


async def test_the_client_does_not_choose_ids_and_keeps_unknown_fields(box: Sandbox, client: httpx.AsyncClient) -> None:
    wire = (await client.post(SESSIONS, json=NEW | {"id": "SES1", "colour": "teal", "parentId": None})).json()
    assert wire["id"] == "SES26"
    assert wire["colour"] == "teal"
    assert "parentId" not in wire
    assert box.live()["SES26"] == wire


async def test_a_lone_surrogate_in_a_name_survives(box: Sandbox, client: httpx.AsyncClient) -> None:
    body = rb'{"name":"\ud800","sourceSessionId":"s"}'
    created = await client.post(SESSIONS, content=body)
    assert rb"\ud800" in created.content
    assert box.live()["SES26"]["name"] == "\ud800"


async def test_patch_changes_name_folder_and_status(box: Sandbox, client: httpx.AsyncClient) -> None:
    operations = [
        {"operation": "update", "attribute": "name", "newValue": "renamed"},
        {"operation": "update", "attribute": "parentId", "newValue": None},
        {"operation": "update", "attribute": "status", "newValue": "inactive"},
    ]
    answer = await client.patch(f"{SESSIONS}/SES1", json={"data": operations})
    assert (answer.status_code, answer.content) == (204, b"")
    wire = box.live()["SES1"]
    assert (wire["name"], wire["status"], "parentId" in wire) == ("renamed", "inactive", False)
    assert wire["Updated"]["by"] == "USR99"
    assert [each.kind for each in box.effects] == ["updated"]
    again = await client.patch(f"{SESSIONS}/SES1", json={"data": operations})
    assert again.status_code == 204
    assert len(box.effects) == 1  # nothing differed


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        [{"operation": "update", "attribute": "id", "newValue": "SES9"}],
        [{"operation": "update", "attribute": "name", "newValue": None}],
        [{"operation": "update", "attribute": "name"}],
        ["name"],
    ],
)
async def test_a_patch_of_another_shape_is_400(box: Sandbox, client: httpx.AsyncClient, data: object) -> None:
    assert (await client.patch(f"{SESSIONS}/SES1", json={"data": data})).status_code == 400
    assert box.effects == []


@pytest.mark.parametrize("status", [404, 410])
async def test_a_deleted_id_is_gone_and_one_that_never_was_is_404(
    box: Sandbox, client: httpx.AsyncClient, status: int
) -> None:
    box.habits.gone_status = 410 if status == 410 else 404
    assert (await client.delete(f"{SESSIONS}/SES3")).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert (await client.request(method, f"{SESSIONS}/SES3")).status_code == status
        assert (await client.request(method, f"{SESSIONS}/SES999")).status_code == 404
    assert [each.kind for each in box.effects] == ["deleted"]
    assert "SES3" not in box.live()


async def test_ids_are_decoded_once_from_the_raw_path(box: Sandbox, client: httpx.AsyncClient) -> None:
    for odd in ("a/b", "a%2Fb", "ü ?#", ".."):
        wire = box.create(source_session_id=f"of {odd}", name="odd", id=odd)
        answer = await send_request_line(box.url, f"GET {SESSIONS}/{quote(odd, safe='')}", box.token)
        assert answer.startswith("HTTP/1.1 200"), odd
        source = await client.get(f"{SESSIONS}/source/{quote(f'of {odd}', safe='')}")
        assert source.json() == wire
    assert (await client.get(f"{SESSIONS}/a/b")).status_code == 404


async def test_path_with_dots_is_not_normalized_and_matches_no_route(box: Sandbox) -> None:
    path = f"{SESSIONS}/a/../../../users/USR1"
    answer = await send_request_line(box.url, f"DELETE {path}", box.token)
    assert answer.startswith("HTTP/1.1 404")
    assert [(each.method, each.raw_path, each.status) for each in box.requests] == [("DELETE", path, 404)]
    assert box.effects == []


@pytest.mark.parametrize(
    ("habit", "status"), [("conflict", 409), ("bad_request", 400), ("first", 200), ("duplicate", 201)]
)
async def test_a_second_create_is_answered_by_habit(
    box: Sandbox, client: httpx.AsyncClient, habit: str, status: int
) -> None:
    box.habits.duplicate_create = habit  # type: ignore[assignment]
    first = (await client.post(SESSIONS, json=NEW)).json()
    second = await client.post(SESSIONS, json=NEW)
    assert second.status_code == status
    assert len(box.effects) == (2 if habit == "duplicate" else 1)
    if habit == "first":
        assert second.json() == first
    assert (await client.get(f"{SESSIONS}/source/src-1")).json() == first


@pytest.mark.parametrize(
    ("habit", "body"),
    [
        ("errors", '{"title": "Error", "status": 404, "errors": [{"msg": "No such session"}]}'),
        ("message", '{"message": "No such session"}'),
        ("text", "No such session"),
    ],
)
async def test_errors_have_the_shape_that_is_the_habit(
    box: Sandbox, client: httpx.AsyncClient, habit: str, body: str
) -> None:
    box.habits.error_format = habit  # type: ignore[assignment]
    assert (await client.get(f"{SESSIONS}/SES0")).text == body


async def test_a_lag_hides_a_change_until_its_time_and_not_from_duplicates(
    box: Sandbox, client: httpx.AsyncClient
) -> None:
    box.habits.lookup_lag = 5
    created = (await client.post(SESSIONS, json=NEW)).json()
    box.delete("SES1")
    at = f"{SESSIONS}/{created['id']}"
    assert (await client.get(at)).status_code == 404
    assert (await client.get(f"{SESSIONS}/source/src-1")).status_code == 404
    assert (await client.get(f"{SESSIONS}/SES1")).status_code == 200
    assert (await client.post(SESSIONS, json=NEW)).status_code == 409
    await box.sleep(5)
    assert (await client.get(at)).json() == created
    assert (await client.get(f"{SESSIONS}/SES1")).status_code == 404


async def test_a_method_that_is_not_known_is_405(client: httpx.AsyncClient) -> None:
    assert (await client.put(SESSIONS, json=NEW)).status_code == 405
