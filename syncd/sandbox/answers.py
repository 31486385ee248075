"""The answers of the server: JSON, and errors in each of the forms that are known of the real one."""

import json
import math
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from syncd.sandbox.habits import Habits

_JSON = {"Content-Type": "application/json"}


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """Answer with JSON that is encoded already."""
    return web.Response(body=body, status=status, headers=_JSON)


def json_value(value: object, status: int = 200) -> web.Response:
    """Answer with a value as JSON."""
    return json_bytes(json.dumps(value).encode(), status)


def problem(habits: Habits, status: int, message: str) -> web.Response:
    """Answer with an error, in the form that the habits select."""
    if habits.error_format == "text":
        return web.Response(text=message, status=status)
    if habits.error_format == "message":
        return json_value({"message": message}, status)
    return json_value({"title": "Error", "status": status, "errors": [{"msg": message}]}, status)


def retry_later(habits: Habits, status: int, wait: float, now: float) -> web.Response:
    """Answer with an error and the time to wait, rounded up to whole seconds, as the header requires."""
    response = problem(habits, status, HTTPStatus(status).phrase)
    if habits.retry_after_format == "seconds":
        response.headers["Retry-After"] = str(max(1, math.ceil(wait)))
    elif habits.retry_after_format == "http_date":
        response.headers["Retry-After"] = formatdate(math.ceil(now + wait), usegmt=True)
    return response


def garbled() -> web.Response:
    """Answer like a proxy, with 200 and an HTML page."""
    page = "<!DOCTYPE html><html><body><h1>One moment please</h1></body></html>"
    return web.Response(text=page, content_type="text/html")


def gateway() -> web.Response:
    """Answer like a gateway that does not reach the server: 404 with HTML, for every path."""
    page = "<!doctype html><html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>"
    return web.Response(text=page, status=404, content_type="text/html")


async def cut(request: web.BaseRequest, response: web.Response) -> web.StreamResponse | None:
    """Send half of a body with the Content-Length of the whole body, and close; return None for an empty body."""
    body = response.body
    if not isinstance(body, bytes) or not body:
        return None
    part = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    part.content_length = len(body)
    part.force_close()
    await part.prepare(request)
    await part.write(body[: len(body) // 2])
    return part
