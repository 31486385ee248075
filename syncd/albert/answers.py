"""Answers with an error status become exceptions with the text of the server, bounded and without secrets. No I/O."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from syncd.albert.errors import AlbertHTTPError, http_error_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from syncd.albert.wire import Answer

TEXT_LIMIT = 500
"""Characters of the server's text in a message: the size of a line in a log."""
BODY_LIMIT = 4096
"""Characters of a body that an error keeps: enough to find the cause, and small in a queue of errors."""
HIDDEN_LIMIT = 262_144
"""Characters in which secrets are looked for: in 60 MB that would take nine seconds."""

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_BEARER = re.compile(r"(?i)\b(bearer)(?:\s|%20|\+)+[^\s\"',;<>]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORTEST_SECRET = 4
"""Characters. A shorter secret occurs in messages by chance, and replacing it would garble them."""


def http_error(answer: Answer, *, hide: Callable[[str], str]) -> AlbertHTTPError:
    """Return the error for an answer whose status is not 2xx; ``hide`` is a :func:`redactor`."""
    text, body = _texts(answer, hide)
    return http_error_class(answer.status)(
        text,
        status_code=answer.status,
        method=answer.request.method,
        path=answer.request.path,
        retry_after=retry_after(answer),
        body=body,
    )


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that replaces secrets in a text, also percent-encoded ones and ones with JSON escapes."""
    forms = {
        form
        for secret in secrets
        if len(secret) >= _SHORTEST_SECRET
        for form in (
            secret,
            quote(secret, safe=""),
            quote(secret),
            json.dumps(secret)[1:-1],
            secret.replace("/", "\\/"),
        )
    }
    longest_first = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    known = re.compile(longest_first, re.IGNORECASE) if forms else None

    def hidden(text: str) -> str:
        text = known.sub("***", text) if known else text
        return _BEARER.sub(r"\1 ***", text)

    return hidden


def _texts(answer: Answer, hide: Callable[[str], str]) -> tuple[str, str]:
    """Return the message of the server and the text of the body.

    Secrets are replaced before the texts are truncated, so that no half of a secret remains. What follows
    `HIDDEN_LIMIT` is not shown in any case.
    """
    if answer.unreadable is not None:
        return f"({answer.unreadable})", ""
    text = answer.content.decode("utf-8", "replace")
    try:
        payload = json.loads(text)
        message = payload
        if isinstance(payload, dict):
            message = payload.get("errors") or payload.get("message") or payload
        if "\\" in text:  # encoded again, so that a secret in \u escapes is recognized
            text = json.dumps(payload, ensure_ascii=False)
        message = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    except (ValueError, RecursionError):
        message = text
    return one_line(hide(message[:HIDDEN_LIMIT])), hide(text[:HIDDEN_LIMIT])[:BODY_LIMIT]


def one_line(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return a text on one line of at most ``limit`` characters, with control characters escaped."""
    text = text.strip()
    escaped = _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text[:limit])
    return escaped[:limit] + ("…" if len(text) > limit or len(escaped) > limit else "")


def retry_after(answer: Answer) -> float | None:
    """Return the seconds of a ``Retry-After``; None if it is absent, malformed or in the past.

    An HTTP date is compared with the ``Date`` of the same answer, so that a wrong clock on either side has no effect.
    """
    value = answer.headers.get("retry-after", "").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    until = http_date(value)
    if until is None:
        return None
    now = http_date(answer.headers.get("date", "")) or datetime.now(UTC)
    seconds = (until - now).total_seconds()
    return seconds if seconds >= 0 else None


def http_date(value: str) -> datetime | None:
    """Return the time of a header such as ``Date``; None if it is malformed, or outside the calendar of Python."""
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
