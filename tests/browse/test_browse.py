"""`syncd browse`: Datasette on the live mirror, over a socket and in a real browser, while the daemon writes."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest

from syncd.browse import metadata
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.read import catalog
from syncd.mirror.read.questions import QUERIES
from syncd.sandbox import Habits
from tests.helpers import harness as harnesses
from tests.helpers.programs import start, syncd, without
from tests.helpers.sample_history import make_history

CHROMIUM = os.environ.get("SYNCD_TEST_CHROMIUM") or shutil.which("chromium")
CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


async def mirror(folder: Path) -> None:
    async with harnesses.open_harness(folder, sessions=60, habits=Habits(page_size=25, extra_fields=True)) as harness:
        await make_history(harness)


@contextmanager
def running(folder: Path, *arguments: object, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a command that prints an address first, and stop it in the end."""
    process = start(folder, *arguments, **more)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def get(address: str, *, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, path, headers={"Host": host or parts.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_browse_answers_the_twenty_questions_read_only_on_loopback(tmp_path: Path) -> None:
    await mirror(tmp_path)
    with running(tmp_path, "browse", "--port", "0") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        for query in QUERIES:
            values = {"since": "2000" if query.name == "deleted_sessions" else "9999", "session_id": "SES1", "seq": "0"}
            asked = urlencode({name: values.get(name, "") for name in query.parameters})
            status, body = get(f"{address}/{query.name}.json?{asked}")
            said = json.loads(body)
            assert (status, said.get("error"), bool(said["rows"])) == (200, None, True), query.name
            status, page = get(f"{address}/{query.name}?{asked}")
            assert status == 200
            assert ("syncd-chart" in page) == (query.chart is not None), query.name
        statement = "DELETE FROM sessions"
        assert get(f"{address}.json?sql={quote(statement)}")[0] == 400
        assert get(address, host="evil.example")[0] == 421
        assert get(address, host="evil.example:80")[0] == 421
        assert get(address, host=f"localhost:{urlsplit(address).port}")[0] == 200
        assert get(address, host="127.0.0.1")[0] == 200, "as browsers send it for port 80"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with sqlite3.connect(tmp_path / "syncd.db") as connection:
        assert connection.execute("SELECT count(*) FROM chat_sessions").fetchone() == (60,)
    connection.close()


async def test_each_link_of_the_description_leads_to_a_page(tmp_path: Path) -> None:
    await mirror(tmp_path)
    links = re.findall(r'href="([^"]+)"', metadata()["description_html"])
    assert len(links) == 2
    with running(tmp_path, "browse", "--port", "0") as (_, address):
        for link in links:
            status, page = get(urljoin(address, link))
            assert (status, "<table" in page) == (200, True), link


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_signal_during_a_query_ends_browse_without_a_traceback(tmp_path: Path, number: signal.Signals) -> None:
    await mirror(tmp_path)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    with running(tmp_path, "browse", "--port", "0") as (process, address):
        parts = urlsplit(address)
        assert get(address)[0] == 200
        query = socket.create_connection((parts.hostname, parts.port))
        before = processor_seconds(process.pid)
        query.sendall(f"GET /syncd.json?sql={quote(endless)} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        wait_for(lambda: processor_seconds(process.pid) > 0.3 + before)
        process.send_signal(number)
        assert process.wait(20) == 0
        query.close()
        assert process.stderr is not None
        assert process.stderr.read() == "the live mirror, read only; stop with Ctrl-C\n"


async def test_connections_to_the_mirror_cannot_write(tmp_path: Path) -> None:
    from datasette.database import Database  # noqa: PLC0415 - an optional extra

    await mirror(tmp_path)
    connection = Database(_Settings(), path=str(tmp_path / "syncd.db"), is_mutable=True).connect()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM sessions")
    connection.close()


class _Settings:
    nolock = False


def test_every_relation_is_described_and_internal_tables_are_hidden() -> None:
    tables = metadata()["databases"]["syncd"]["tables"]
    for name, table in (catalog.VIEWS | catalog.TABLES | catalog.INTERNAL).items():
        assert tables[name]["columns"] == {column.name: column.comment for column in table.c}
        assert tables[name].get("hidden", False) == (name in catalog.INTERNAL)
        assert set(tables[name].get("facets", ())) <= set(table.c.keys())
        assert tables[name].get("sort_desc", "") in {"", *table.c.keys()}
    assert "read the views instead" in tables["pages"]["description"]


def test_missing_datasette_and_postgresql_are_usage_errors(tmp_path: Path) -> None:
    done = syncd(tmp_path, "browse", PYTHONPATH=without(tmp_path, "datasette"))
    assert (done.returncode, done.stdout) == (2, "")
    command = f"{shlex.quote(sys.executable)} -m pip install 'syncd[browse]'"
    assert done.stderr == f"error: browse needs Datasette, which is not installed; run: {command}\n"
    done = syncd(tmp_path, "browse", SYNCD_DATABASE_URL="postgresql+asyncpg://stranger@127.0.0.1:1/none")
    assert done.returncode == 2
    assert "browse reads SQLite only" in done.stderr


def test_mirror_that_is_not_there_is_exit_3(tmp_path: Path) -> None:
    assert syncd(tmp_path, "browse", "--port", "0").returncode == 3


async def test_port_in_use_is_reported(tmp_path: Path) -> None:
    await mirror(tmp_path)
    with running(tmp_path, "browse", "--port", "0") as (_, address):
        done = syncd(tmp_path, "browse", "--port", urlsplit(address).port)
        assert done.returncode == 2
        assert "choose another: syncd browse --port 0" in done.stderr


@contextmanager
def page_of_a_browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium, or set SYNCD_TEST_CHROMIUM")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield browser.new_page(viewport={"width": 1200, "height": 1400})
        browser.close()


@pytest.mark.timeout(120)
def test_live_mirror_is_seen_in_a_browser_while_the_daemon_writes(tmp_path: Path) -> None:
    with running(tmp_path, "sandbox", "--port", "0", "--sessions", "300") as (sandbox, albert):
        assert sandbox.stdout is not None
        token = sandbox.stdout.readline().strip().partition("=")[2]
        settings = {
            "ALBERT_BASE_URL": albert.partition("=")[2], "ALBERT_TOKEN": token, "SYNCD_PASS_INTERVAL": "0.5",
            "SYNCD_STATUS_PORT": "0",
        }  # fmt: skip
        assert syncd(tmp_path, "once", **settings).returncode == 0
        with running(tmp_path, "run", **settings), running(tmp_path, "browse", "--port", "0") as (_, address):
            _see(tmp_path, address, settings)


def _see(folder: Path, address: str, settings: dict[str, str]) -> None:
    def passes() -> int:
        return int(json.loads(get(f"{address}.json?sql=SELECT+max(id)+AS+n+FROM+passes")[1])["rows"][0][0])

    with page_of_a_browser() as page:
        noise: list[str] = []
        page.on("console", lambda message: noise.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.goto(address)
        page.get_by_role("link", name="Who creates sessions?").click()
        page.wait_for_url("**/top_creators**")
        assert page.locator("svg.syncd-chart rect").count() == page.locator("table.rows-and-columns tbody tr").count()
        page.goto(f"{address}/chat_sessions")
        assert "when syncd first saw the session" in page.locator("dl.column-descriptions").inner_text()
        assert "300 rows" in page.locator("h3").first.inner_text()
        page.locator("[data-column=status] a", has_text="inactive").first.click()
        page.wait_for_url("**status=inactive**")
        made = syncd(
            folder, "enqueue", "create", "--source-session-id", "seen", "--name", "<b>made & seen</b>", **settings
        )
        assert made.returncode == 0
        before = passes()
        wait_for(lambda: passes() >= before + 2)
        page.goto(f"{address}/chat_sessions?source_session_id=seen")
        assert "<b>made & seen</b>" in page.locator("table.rows-and-columns").inner_text()
        page.goto(address)
        assert page.locator("h3 a", has_text="session_versions").count() == 0
        assert noise == []
