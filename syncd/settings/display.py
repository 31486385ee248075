"""The parts of a setting that may be shown: `syncd config`, log events and error messages call it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from syncd.settings.fields import Settings

HIDDEN = "********"
_PASSWORD = re.compile(r"(?<=://)([^:/?#@]*):[^@/?#]*@")
_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)


def shown(settings: Settings, name: str) -> str | float | bool | None:
    """Return the value of a setting for people and for JSON, without its secrets.

    Shown is the database URL and the proxy without the password, and the origin of the notification URL, whose path is
    a secret with most receivers. Of the other secrets nothing is shown, not even the length.
    """
    value = getattr(settings, name)
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, SecretStr):
        return value  # type: ignore[no-any-return]
    text = value.get_secret_value()
    if name in {"syncd_database_url", "syncd_proxy"}:
        return _PASSWORD.sub(r"\1:***@", text)
    if name == "syncd_notify_url":
        parts = urlsplit(text)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{HIDDEN}"
    return HIDDEN


def without_secrets(url: str) -> str:
    """Return a URL of any form, a wrong one too, without what can be a secret: credentials, query and fragment."""
    if not set("/.?=").intersection(url):
        return url  # not a URL
    return _QUERY.sub(r"?***", _CREDENTIALS.sub("***@", url))
