import asyncio

import httpx
import pytest
from aiohttp import web

from syncd.sandbox import FaultName, Faults, Sandbox
from tests.sandbox.helpers import NEW, SESSIONS

DONE = {"error_500_after": True, "lost_after": True, "garbled": True, "cut": True}
NOT_DONE = {"error_500": False, "error_503_retry_after": False, "forbidden": False, "lost_before": False}
STATUS = {"error_500": 500, "error_500_after": 500, "error_503_retry_after": 503, "forbidden": 403}


@pytest.mark.parametrize(("fault", "done"), list((DONE | NOT_DONE).items()))
@pytest.mark.parametrize("scripted", [True, False])
async def test_a_fault_strikes_before_or_after_the_effect(
    box: Sandbox,
    client: httpx.AsyncClient,
    fault: FaultName,
    done: bool,
    scripted: bool,
) -> None:
    if scripted:
        box.script("POST", SESSIONS, fault)
    else:
        setattr(box.faults, fault, 1.0)
    if fault in STATUS or fault == "garbled":
        answer = await client.post(SESSIONS, json=NEW)
        assert answer.status_code == STATUS.get(fault, 200)
        assert (answer.headers["Content-Type"] == "text/html; charset=utf-8") == (fault == "garbled")
        assert ("Retry-After" in answer.headers) == (fault == "error_503_retry_after")
    else:
        with pytest.raises(httpx.TransportError):
            await client.post(SESSIONS, json=NEW)
    assert len(box.effects) == done


async def test_a_lost_answer_is_recorded_without_a_status(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.script("DELETE", f"{SESSIONS}/SES1", "lost_after")
    with pytest.raises(httpx.TransportError):
        await client.delete(f"{SESSIONS}/SES1")
    await client.get(f"{SESSIONS}/SES1")
    assert [(each.method, each.status) for each in box.requests] == [("DELETE", 0), ("GET", 404)]


async def test_a_hanging_request_was_done_or_not_and_does_not_hold_up_the_end(
    box: Sandbox, client: httpx.AsyncClient
) -> None:
    box.script("*", lambda request: request.method == "POST", "hang_after")
    hanging = asyncio.ensure_future(client.post(SESSIONS, json=NEW))
    while not box.effects:  # noqa: ASYNC110 - an effect sets no event
        await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert box.requests[0].status == 0


async def test_a_slow_answer_and_latency_take_time(box: Sandbox, client: httpx.AsyncClient) -> None:
    began = box.now()
    box.faults = Faults(slow=1.0, slow_seconds=3.0)
    box.habits.latency = 0.5
    assert (await client.get(SESSIONS)).status_code == 200
    assert box.now() - began == 3.5


async def test_faults_keep_to_their_methods_and_spare_the_login(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.faults = Faults(error_500=1.0, only=["POST"])
    form = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox-secret"}
    assert (await client.get(SESSIONS)).status_code == 200
    assert (await client.post("/api/v3/login/oauth/token", data=form)).status_code == 200
    assert (await client.post(SESSIONS, json=NEW)).status_code == 500
    box.faults.login = True
    assert (await client.post("/api/v3/login/oauth/token", data=form)).status_code == 500


async def test_the_same_seed_draws_the_same_faults() -> None:
    drawn = []
    for _ in range(2):
        box = Sandbox(seed=7, faults=Faults(error_500=0.3, lost_after=0.3))
        drawn.append([box.faults.draw("GET", box.rng) for _ in range(50)])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {None, "error_500", "lost_after"}


async def test_scripts_are_used_up_in_order_and_win_over_faults(box: Sandbox, client: httpx.AsyncClient) -> None:
    box.faults = Faults(error_500=1.0)
    box.script("GET", f"{SESSIONS}/SES2", 429, times=2)
    box.script("*", SESSIONS, 418)
    statuses = [(await client.get(f"{SESSIONS}/SES2")).status_code for _ in range(4)]
    assert statuses == [429, 429, 418, 500]
    assert box.state()["scripts"] == 0


async def test_a_script_may_answer_or_act_and_let_the_request_go_on(box: Sandbox, client: httpx.AsyncClient) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"you said": (await request.json())["name"]})

    def interleave(_: web.BaseRequest) -> None:
        box.delete("SES1")

    box.script("POST", SESSIONS, answer)
    box.script("GET", SESSIONS, interleave)
    assert (await client.post(SESSIONS, json=NEW)).json() == {"you said": NEW["name"]}
    assert (await client.get(SESSIONS)).json()["Items"][0]["id"] == "SES2"
    assert [each.kind for each in box.effects] == ["deleted"]


@pytest.mark.parametrize(
    ("habit", "header"),
    [("seconds", "1"), ("http_date", "Fri, 15 Jan 2027 08:00:01 GMT"), ("none", None)],
)
async def test_requests_over_the_limit_get_a_retry_after(
    box: Sandbox, client: httpx.AsyncClient, habit: str, header: str | None
) -> None:
    box.habits.rate_limit = 2.0
    box.habits.retry_after_format = habit  # type: ignore[assignment]
    answers = [await client.get(SESSIONS) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[2].headers.get("Retry-After") == header
    await box.sleep(0.5)
    assert (await client.get(SESSIONS)).status_code == 200
    assert (await client.get(SESSIONS)).status_code == 429
    box.habits.rate_limit = None
    assert (await client.get(SESSIONS)).status_code == 200
