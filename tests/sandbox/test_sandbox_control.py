import json
from dataclasses import fields

import httpx
import pytest

from syncd.sandbox import Faults, Habits, Sandbox, serve
from syncd.sandbox.generate import generate
from tests.sandbox.helpers import NEW, SESSIONS

LOGIN = "/api/v3/login/oauth/token"
FORM = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox-secret"}


async def test_an_issued_token_works_until_its_lifetime_is_over(box: Sandbox) -> None:
    box.habits.token_lifetime = 60
    async with httpx.AsyncClient(base_url=box.url, trust_env=False) as client:
        token = (await client.post(LOGIN, data=FORM)).json()
        assert token.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "tenant_id"}
        assert token["expires_in"] == 60
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        assert (await client.get(SESSIONS, headers=headers)).status_code == 200
        await box.sleep(60)
        assert (await client.get(SESSIONS, headers=headers)).status_code == 401
        token = (await client.post(LOGIN, data=FORM)).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        assert (await client.get(SESSIONS, headers=headers)).status_code == 200
        box.tokens.revoke()
        assert (await client.get(SESSIONS, headers=headers)).status_code == 401


async def test_wrong_credentials_are_refused(box: Sandbox) -> None:
    async with httpx.AsyncClient(base_url=box.url, trust_env=False) as client:
        assert (await client.post(LOGIN, data=FORM | {"client_secret": "x"})).status_code == 401
        assert (await client.post(LOGIN, data=FORM | {"grant_type": "password"})).status_code == 400
        assert (await client.get(LOGIN)).status_code == 405
        assert (await client.get(SESSIONS)).status_code == 401
        assert (await client.get(SESSIONS, headers={"Authorization": "Bearer x"})).status_code == 401
        assert (await client.post(SESSIONS, json=NEW)).status_code == 401
    assert box.effects == []


async def test_another_process_sees_effects_requests_sessions_and_counts(
    box: Sandbox, client: httpx.AsyncClient
) -> None:
    await client.post(SESSIONS, json=NEW)
    async with httpx.AsyncClient(base_url=f"{box.url}/_sandbox", trust_env=False) as other:
        effects = (await other.get("/effects")).json()
        assert effects == [
            {
                "number": 1,
                "kind": "created",
                "session_id": "SES26",
                "source_session_id": "src-1",
                "at": box.now(),
            }
        ]
        requests = (await other.get("/requests")).json()
        assert requests == [{"method": "POST", "raw_path": SESSIONS, "at": box.now(), "status": 201}]
        assert (await other.get("/sessions")).json() == list(box.live().values())
        assert (await other.get("/state")).json() == box.state()
        assert box.state()["live"] == 26
        assert (await other.get("/nothing")).status_code == 404


async def test_another_process_changes_habits_and_faults_all_or_none(box: Sandbox, client: httpx.AsyncClient) -> None:
    habits, faults = "/_sandbox/habits", "/_sandbox/faults"
    answer = await client.patch(habits, json={"page_size": 3, "cursor_ttl": 5, "broken_items": [None]})
    assert answer.json()["page_size"] == box.habits.page_size == 3
    assert len((await client.get(SESSIONS)).json()["Items"]) == 4
    assert (await client.patch(habits, json={"page_size": 7, "order": "odd"})).status_code == 400
    assert (await client.patch(habits, json={"page_sise": 7})).status_code == 400
    assert (await client.patch(habits, content=b"[]")).status_code == 400
    assert (await client.patch(habits, content=b"{")).status_code == 400
    assert box.habits.page_size == 3
    assert (await client.patch(faults, json={"error_500": 1, "only": ["GET"]})).status_code == 200
    assert (await client.get(SESSIONS)).status_code == 500
    assert (await client.get(faults)).json()["only"] == ["GET"]


@pytest.mark.parametrize("kind", [Habits, Faults])
def test_every_option_has_a_line_of_help(kind: type[Habits | Faults]) -> None:
    for each in fields(kind):
        assert each.metadata["help"].endswith("."), each.name
        assert "\n" not in each.metadata["help"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - must be refused
async def test_the_sandbox_is_served_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        async with serve(Sandbox(), host=host):
            pass


def test_without_a_socket_there_is_no_address() -> None:
    with pytest.raises(RuntimeError, match="serve"):
        _ = Sandbox().url


async def test_requests_are_not_recorded_when_switched_off(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.record_requests = False
    await client.get(SESSIONS)
    assert not box.requests


def test_others_create_update_delete_and_restore_without_http() -> None:
    box = Sandbox(sessions=3)
    wire = box.create(source_session_id="s", name="n", parent_id="FOL1", automation_id="AUT1", kind="automation")
    assert (wire["id"], wire["parentId"], wire["automationId"]) == ("SES4", "FOL1", "AUT1")
    assert "parentId" not in box.update("SES4", parent_id=None)
    assert box.delete("SES4")["sourceSessionId"] == "s"
    assert box.create(source_session_id="s", name="again", id="SES4") == box.live()["SES4"]
    assert [each.kind for each in box.effects] == ["created", "updated", "deleted", "created"]
    with pytest.raises(KeyError):
        box.delete("SES9")
    with pytest.raises(KeyError):
        box.update("SES9", name="x")
    with pytest.raises(ValueError, match="SES1"):
        box.create(source_session_id="s", name="n", id="SES1")


def test_generated_sessions_are_the_same_for_the_same_seed_and_of_a_real_size() -> None:
    sessions, same, other = list(generate(500, 1)), list(generate(500, 1)), list(generate(500, 2))
    assert sessions == same
    assert sessions != other
    assert len({session.id for session in sessions}) == len({session.source for session in sessions}) == 500
    assert 380 < sum(len(session.encoded) for session in sessions) / 500 < 450
    assert any(ord(letter) > 127 for session in sessions for letter in session.name)


def test_attributes_of_a_generated_session_equal_its_json() -> None:
    for each in generate(500, 3):
        wire = each.wire()
        assert json.loads(each.encoded)["id"] == each.id
        assert (each.source, each.name) == (wire["sourceSessionId"], wire["name"])
        assert (each.parent_id, each.kind) == (wire.get("parentId"), wire["kind"])
        assert (each.automation_id, each.updated_at) == (wire.get("automationId"), wire["Updated"]["at"])
        assert each.created_by == each.updated_by == wire["Created"]["by"]
        assert wire["Created"]["at"] <= wire["Updated"]["at"]
