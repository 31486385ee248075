"""The status server: its paths, the hosts and methods it accepts, and its limits."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from syncd.albert.auth import StaticToken
from syncd.errors import UsageError
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.status import server
from syncd.status.database_header import decode_database, encode_database
from syncd.status.server import allowed_hosts, listen
from syncd.status.snapshot import Shared
from tests.helpers.harness import open_harness
from tests.pull.helpers import Listing, page, wire
from tests.status.helpers import send_bytes, served


async def test_alive_and_ready_when_all_is_well(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=5) as s:
        s.watchdog.heartbeat("passes")
        assert (await s.ask("/livez")).status == 200
        ready = await s.ask("/readyz")
        assert (ready.status, ready.text) == (200, "ok\n")


async def test_refused_credentials_turn_readiness_off_and_not_liveness(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        s.credentials["refused"] = True
        ready = await s.ask("/readyz")
        assert ready.status == 503
        assert "syncd doctor" in ready.text
        assert (await s.ask("/livez")).status == 200


async def test_session_reports_refused_credentials_until_they_are_accepted(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=3) as s:
        session = s.harness.albert._session
        good = session._exchange.credentials
        session._exchange.credentials = StaticToken("wrong")
        assert (await s.harness.one_pass()).state == "failed"
        assert session.refused
        session._exchange.credentials = good
        assert (await s.harness.one_pass()).state == "complete"
        assert not session.refused


async def test_schema_that_is_not_at_head_is_not_ready(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        await s.harness.sql("UPDATE alembic_version SET version_num = '9999'")
        ready = await s.fresh("/readyz")
        assert ready.status == 503
        assert "9999" in ready.text
        assert (await s.ask("/livez")).status == 200
        assert (await s.fresh("/metrics")).status == 503
        page = await s.fresh("/")
        assert page.status == 503
        assert "Needs you" in page.text


async def test_held_pass_and_stale_mirror_stay_ready(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=60) as s:
        await s.harness.one_pass()
        for session_id in list(s.harness.sandbox.live()):
            s.harness.sandbox.delete(session_id)
        assert (await s.harness.one_pass()).state == "held"
        s.harness.clock.forward(10 * 86400)
        assert (await s.fresh("/readyz")).status == 200
        page = await s.ask("/")
        assert "Needs you" in page.text
        assert "<code>syncd deletions list</code>" in page.text


async def test_locked_database_stays_ready_and_alive(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        with closing(sqlite3.connect(tmp_path / "syncd.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert (await s.fresh("/readyz")).status == 200
            assert (await s.fresh("/metrics")).status == 200


async def test_stalled_loop_is_not_alive_and_is_named(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        s.watchdog.heartbeat("passes")
        s.watchdog.heartbeat("watch")
        s.harness.clock.forward(59)
        s.watchdog.heartbeat("watch")
        assert (await s.ask("/livez")).status == 200
        s.harness.clock.forward(2)
        livez = await s.ask("/livez")
        assert (livez.status, livez.text) == (503, "no progress: passes\n")


async def test_foreign_host_is_refused_everywhere(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        for path in ("/", "/livez", "/readyz", "/metrics", "/nothing"):
            for host in ("evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "", None, "["):
                assert (await s.ask(path, host=host)).status in {400, 421}, (path, host)
        for host in ("localhost", f"127.0.0.1:{s.port}", "[::1]:1", "LOCALHOST"):
            assert (await s.ask("/livez", host=host)).status == 200, host


def test_server_on_every_interface_accepts_ip_addresses_and_its_own_name_as_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "syncd-0.mirror")
    allowed = allowed_hosts("0.0.0.0")  # noqa: S104 - not listened on
    assert all(allowed(host) for host in ("10.1.2.3:8080", "[fe80::1]:8080", "syncd-0", "syncd-0.mirror", "localhost"))
    assert not any(allowed(host) for host in ("evil.example", "10.1.2.3.evil.example", "syncd-0.evil.example", None))
    assert allowed_hosts("mirror.internal")("Mirror.Internal:8080")
    assert not allowed_hosts("mirror.internal")("10.1.2.3")


async def test_only_get_and_head_are_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            reply = await s.ask("/", method=method)
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        head = await s.ask("/metrics", method="HEAD")
        assert (head.status, head.text) == (200, "")
        assert int(head.headers["content-length"]) > 1000
        assert (await s.ask("/../etc/passwd")).status == 404


async def test_long_lines_and_headers_are_refused_and_the_server_continues(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        assert (await s.ask("/" + "a" * 5000)).status in {400, 404, 414}
        assert (await s.ask("/livez", long="a" * 20_000)).status in {400, 431}
        assert (await send_bytes(s.port, b"GARBAGE\r\n\r\n")).status == 400
        assert (await s.ask("/livez")).status == 200


async def test_connection_above_the_limit_is_closed_and_silent_connections_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server, "LIFETIME", 0.3)
    async with served(tmp_path) as s:
        silent = [await asyncio.open_connection("127.0.0.1", s.port) for _ in range(3)]
        for _, writer in silent:
            writer.write(b"GET /livez HT")
            await writer.drain()
        reader, extra = await asyncio.open_connection("127.0.0.1", s.port)
        assert await reader.read() == b""
        for reader, _ in silent:
            assert b"200" not in await reader.read()
        assert (await s.ask("/livez")).status == 200
        for writer in (extra, *(writer for _, writer in silent)):
            writer.close()


async def test_port_in_use_is_a_usage_error_that_names_the_setting() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match=r"SYNCD_STATUS_PORT.*choose another port"):
            listen("127.0.0.1", port)


async def test_metrics_count_passes_changes_operations_and_requests(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=25) as s:
        await s.harness.one_pass()
        s.harness.sandbox.update("SES1", name="renamed")
        await s.harness.one_pass()
        await s.harness.enqueue({"kind": "create", "source_session_id": "x", "name": "waits"})
        s.harness.clock.forward(90)
        s.metrics.observe_request("GET", 200, 0.1)
        s.metrics.observe_request("POST", 429, 0.1)
        text = (await s.fresh("/metrics")).text
        values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["syncd_sessions", (("state", "live"),)] == 25
        assert values["syncd_pass_seconds_count", (("state", "complete"),)] == 2
        assert values["syncd_pages_total", ()] == 6
        assert values["syncd_session_changes_total", (("change", "inserted"),)] == 25
        assert values["syncd_session_changes_total", (("change", "updated"),)] == 1
        assert values["syncd_operations", (("state", "pending"),)] == 1
        assert values["syncd_requests_total", (("method", "POST"), ("outcome", "429"))] == 1
        assert values["syncd_wal_bytes", ()] > 0
        assert values["syncd_database_bytes", ()] > 0
        again = (await s.fresh("/metrics")).text
        assert "syncd_pages_total 6.0" in again


async def test_scrapes_share_one_snapshot_a_second(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        reads = 0
        read = s.harness.database.read

        async def counted(work: object) -> object:
            nonlocal reads
            reads += 1
            return await read(work)  # type: ignore[arg-type]

        s.harness.database.read = counted  # type: ignore[method-assign,assignment]
        with s.harness.clock.standing_still():
            await asyncio.gather(*(s.ask(path) for path in ("/metrics", "/", "/metrics", "/metrics")))
            assert reads == 1
            s.harness.clock.forward(1.1)
            await s.ask("/metrics")
            assert reads == 2


async def test_requests_for_a_new_reading_that_overlap_share_the_next_one(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        ready, reads = anyio.Event(), 0

        async def read(_: object) -> int:
            nonlocal reads
            reads += 1
            number = reads
            await ready.wait()
            return number

        harness.database.read = read  # type: ignore[method-assign,assignment]
        shared = Shared(harness.database, harness.clock, lambda _: 0)
        first = asyncio.create_task(shared.latest(max_age=0))
        await asyncio.sleep(0)
        later = [asyncio.create_task(shared.latest(max_age=0)) for _ in range(2)]
        await asyncio.sleep(0)
        ready.set()
        assert [await first, *[await task for task in later]] == [1, 2, 2]


async def test_both_waits_for_a_new_reading_have_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:
        wait, limits = asyncio.wait, list[float]()

        async def noted(tasks: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - the signature of `wait`
            limits.append(timeout)
            return await wait(tasks, timeout=timeout)

        shared = Shared(harness.database, harness.clock, lambda _: 0)
        first = asyncio.create_task(shared.latest(max_age=0))
        await asyncio.sleep(0)
        monkeypatch.setattr(asyncio, "wait", noted)
        await shared.latest(max_age=0)
        await first
        assert len(limits) == 2
        assert limits[1] < limits[0]


async def test_readiness_counts_no_rows_and_many_probes_share_one_read_a_second(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=5) as s:
        asked: list[str] = []

        def listen_to(connection: sa.Connection) -> None:
            @sa.event.listens_for(connection.engine, "before_cursor_execute")
            def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
                asked.append(statement)

        await s.harness.database.read(listen_to)
        await asyncio.gather(*(s.ask("/readyz") for _ in range(5)))
        statements = " ".join(asked)
        assert statements.count("FROM alembic_version") == 1
        assert not any(name in statements for name in ("mirror_freshness", "FROM operations", "FROM passes", "count("))


async def test_page_shows_no_session_names_and_no_error_texts_of_albert(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=12) as s:
        await s.harness.one_pass()
        s.harness.sandbox.update("SES1", name="<script>alert('Contract Smith')</script>")
        await s.harness.one_pass()
        await s.harness.sql(
            "INSERT INTO passes (state, started_at, finished_at, error) VALUES ('failed', "
            "'2026-06-01T12:00:00.000000Z', '2026-06-01T12:00:01.000000Z', 'Contract Smith <script> is secret')"
        )
        reply = await s.fresh("/")
        assert reply.status == 200
        assert "Smith" not in reply.text
        assert "<script" not in reply.text
        assert "see the log" in reply.text
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        assert f'<style nonce="{nonce}">' in reply.text
        assert nonce not in (await s.ask("/")).text
        assert '="http' not in reply.text


@pytest.mark.parametrize(
    ("last", "text"),
    [
        ([wire("B"), {"name": "no id"}], "pass 1 is partial: an item had no readable id"),
        ([wire("B")], "pass 1 is partial: a page key was repeated"),
    ],
)
async def test_page_shows_the_kind_of_reason_for_a_partial_pass(tmp_path: Path, last: list[Any], text: str) -> None:
    async with served(tmp_path) as s:
        twice = None if len(last) > 1 else "1"
        Listing(s.harness, {None: page(wire("A"), key="1"), "1": page(*last, key=twice)})
        assert (await s.harness.one_pass()).state == "partial"
        assert text in (await s.fresh("/")).text


async def test_page_of_a_mirror_whose_passes_fail_has_the_reason_and_a_command(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=3) as s:
        session = s.harness.albert._session
        session._exchange.credentials = StaticToken("wrong")
        await s.harness.one_pass()
        page = (await s.fresh("/")).text
        assert "no pass has been complete yet (pass 1 is failed: Albert refuses the credentials)" in page
        assert "<code>syncd doctor</code>" in page


async def test_request_that_is_not_http_is_not_quoted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as s:
        for hostile in (b"Authorization : Bearer MYSECRET", b"X: a\0b", b"\x16\x03\x01"):
            request = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + hostile + b"\r\n\r\n"
            assert (await send_bytes(s.port, request)).status == 400
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


async def test_status_document_is_read_for_each_request_and_not_healthy_before_a_complete_pass(tmp_path: Path) -> None:
    async with served(tmp_path, sessions=4) as s:
        before = json.loads((await s.ask("/status.json")).text)
        assert (before["healthy"], before["starting"], before["problems"]) == (False, True, [])
        await s.harness.one_pass()
        after = json.loads((await s.ask("/status.json")).text)
        assert (after["starting"], after["freshness"]["live_sessions"]) == (False, 4)
        assert (after["daemon"]["version"], after["daemon"]["tenant"]) == ("1.2.3", "TEN1")


@pytest.mark.parametrize(
    "shown", ["/data/syncd.db", "/a b/\u00e4\n%41.db", "/a/\udcff.db", "postgresql+asyncpg://h:1/d?x=y"]
)
def test_name_of_any_database_is_sent_in_printable_ascii(shown: str) -> None:
    header = encode_database(shown)
    assert re.fullmatch("[!-~]+", header)
    assert decode_database(header) == shown


async def test_livez_names_the_database_of_the_daemon_whether_it_is_alive_or_not(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        s.watchdog.heartbeat("passes")
        alive = await s.ask("/livez")
        s.harness.clock.forward(61)
        stalled = await s.ask("/livez")
        assert (alive.status, stalled.status) == (200, 503)
        for reply in (alive, stalled):
            assert decode_database(reply.headers["syncd-database"]) == s.readings.identity.database
