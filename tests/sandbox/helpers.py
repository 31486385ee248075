"""What the tests of the sandbox share."""

import asyncio
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

SESSIONS = "/api/v3/chats/sessions"
NEW = {"name": "Why is it blue?", "sourceSessionId": "src-1"}

Page = dict[str, Any]


async def page(client: httpx.AsyncClient, start: str | None = None, query: str = "") -> Page:
    """Read one page; the key goes out percent-encoded to the last character."""
    key = "" if start is None else f"&startKey={quote(start, safe='')}"
    response = await client.get(f"{SESSIONS}?{query}{key}")
    response.raise_for_status()
    answer: Page = response.json()
    return answer


async def pages(client: httpx.AsyncClient, query: str = "") -> list[Page]:
    """Read pages until none brings a key, or one brings the key that it was asked with."""
    listing = [await page(client, query=query)]
    asked = None
    while (key := listing[-1].get("lastKey")) and key != asked:
        listing.append(await page(client, key, query))
        asked = key
    return listing


def ids(*listing: Page) -> list[str]:
    """Return the ids on some pages, in order."""
    return [item["id"] for each in listing for item in each["Items"]]


async def listed(client: httpx.AsyncClient, query: str = "") -> list[str]:
    """Return the ids of a whole listing."""
    return ids(*await pages(client, query))


async def send_request_line(url: str, line: str, token: str) -> str:
    """Send a request line just as it is written and return all that comes back."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = f"{line} HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()
