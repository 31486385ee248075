"""The status page as a person sees it: in Chromium, light and dark, narrow and wide.

`SYNCD_TEST_SCREENSHOTS=FOLDER` keeps the screenshots to look at; `docs/status-page.png` is one of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, async_playwright

from syncd.status.health import DEAD
from tests.status.helpers import Served, served

CHROMIUM = shutil.which("chromium")
LOOKS: tuple[tuple[Literal["light", "dark"], int], ...] = (
    ("light", 1280),
    ("dark", 1280),
    ("light", 360),
    ("dark", 360),
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; on Debian: apt-get install chromium"),
    pytest.mark.timeout(120),
]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Seen:
    """A page that is open, what its console said, and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@asynccontextmanager
async def seen(browser: Browser, url: str, scheme: Literal["light", "dark"], width: int) -> AsyncIterator[Seen]:
    page = await browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    visit = Seen(page)
    page.on("console", lambda message: visit.complaints.append(message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.asked.append(request.url))
    try:
        await page.goto(url)
        yield visit
    finally:
        await page.close()


async def keep(page: Page, name: str) -> None:
    if (folder := os.environ.get("SYNCD_TEST_SCREENSHOTS")) is not None:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


async def a_day(s: Served) -> None:
    """Fill the mirror as a day would: passes that changed something, and a queue."""
    harness = s.harness
    harness.clock.at = datetime.now(UTC) - timedelta(
        seconds=31 * 300
    )  # freshness is measured by the database's own clock
    await harness.one_pass()
    for number in range(1, 31):
        harness.clock.forward(300)
        for session in range(number % 7):
            harness.sandbox.update(f"SES{session + 1}", name=f"renamed {number}")
        if number % 9 == 0:
            harness.sandbox.delete(f"SES{100 + number}")
        if number % 5 == 0:
            harness.sandbox.create(source_session_id=f"new-{number}", name="made by others")
        await harness.one_pass()
    await harness.sql(
        "UPDATE passes SET started_at = "
        "strftime('%Y-%m-%dT%H:%M:%f000Z', finished_at, '-' || (9 + id * 7 % 5 + (id = 1) * 20) || ' seconds')"
    )
    await harness.enqueue(
        *({"kind": "create", "source_session_id": f"q-{n}", "name": f"queued {n}"} for n in range(12))
    )
    await harness.push().drain()
    await harness.enqueue({"kind": "create", "source_session_id": "waits", "name": "waits"})


async def trouble(s: Served) -> None:
    """Make three things that need a person: a held pass, a dead operation, refused credentials."""
    for session_id in list(s.harness.sandbox.live())[:60]:
        s.harness.sandbox.delete(session_id)
    assert (await s.harness.one_pass()).state == "held"
    await s.harness.sql(
        "UPDATE operations SET state = 'dead', finished_at = requested_at WHERE source_session_id = 'waits'"
    )
    s.credentials["refused"] = True


async def check(visit: Seen, url: str, width: int) -> None:
    assert visit.complaints == []
    assert {address for address in visit.asked if not address.startswith(("data:", url))} == set()
    assert await visit.page.evaluate("document.documentElement.scrollWidth") <= width
    clipped = await visit.page.evaluate(
        "[...document.querySelectorAll('section,td,code')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert clipped == 0


async def a_little(s: Served) -> None:
    """Make what is worth a look by day: an item that cannot be read, and a source id that two sessions carry."""
    source = s.harness.sandbox.live()["SES7"]["sourceSessionId"]
    s.harness.sandbox.create(source_session_id=source, name="a twin")
    s.harness.sandbox.update("SES8", name=None)
    await s.harness.one_pass()
    await s.harness.reconcile().run()


async def test_verdict_is_seen_and_the_page_fits_in_light_and_dark_narrow_and_wide(tmp_path: Path) -> None:
    async def look(verdict: str, *commands: str) -> None:
        s.readings.snapshot._kept = None
        for scheme, width in LOOKS:
            async with seen(browser, s.url, scheme, width) as visit:
                heading = visit.page.get_by_role("heading", level=1)
                assert await heading.inner_text() == verdict
                box = await heading.bounding_box()
                assert box is not None
                assert box["y"] < 120
                assert await visit.page.locator("code").all_inner_texts() == list(commands)
                assert await visit.page.locator("svg[role=img]").count() == 4
                await keep(visit.page, f"{verdict.split(maxsplit=1)[0].lower()}-{len(commands)}-{scheme}-{width}")
                await check(visit, s.url, width)
                grounds[scheme] = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor")

    grounds: dict[str, str] = {}
    async with served(tmp_path, sessions=200) as s, chromium() as browser:
        await a_day(s)
        await look("Fresh")
        await a_little(s)
        by_day = ("syncd quarantine list", "syncd sources list --state conflict")
        await look("Fresh", *by_day)
        await trouble(s)
        urgent = ("syncd doctor", "syncd deletions list", DEAD)
        await look("Needs you", *urgent, *by_day)
        assert grounds == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 27)"}


async def test_empty_mirror_and_unreadable_database_have_a_page_too(tmp_path: Path) -> None:
    async with served(tmp_path) as s, chromium() as browser:
        async with seen(browser, s.url, "light", 360) as visit:
            assert await visit.page.get_by_role("heading", level=1).inner_text() == "Starting"
            assert await visit.page.locator(".todo").count() == 0
            await keep(visit.page, "empty-light-360")
            await check(visit, s.url, 360)
        await s.harness.sql("DROP TABLE alembic_version")
        s.readings.snapshot._kept = None
        async with seen(browser, s.url, "dark", 1280) as visit:
            assert await visit.page.get_by_role("heading", level=1).inner_text() == "Needs you"
            assert await visit.page.locator(".todo code").all_inner_texts() == ["syncd doctor"]
            await keep(visit.page, "unreadable-dark-1280")
            assert all("503" in text for text in visit.complaints)  # the browser tells the status, and nothing else
