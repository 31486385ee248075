"""Reads the tenant id out of a token's claims or out of the answer of the token endpoint.

Used by the client (`syncd.albert`) and by commands that compare the credentials with the database. The signature of a
token is not verified: the claims only decide whether syncd refuses its own token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

_LONGEST_TOKEN = 65_536
"""Characters; a longer text cannot be a header, so its claims are not decoded."""
_LONGEST_ID = 200
"""Characters of a tenant id; a longer value is not an id."""
_NAMES = ("tenantid", "tenant", "tid")
"""Claims that name the tenant, without case and separators, the most specific first.

Albert's token response has `tenant_id` and its login response `tenantId`; identity providers also use `tid` and
namespaced names such as `custom:tenant_id` and `https://albertinvent.com/tenant_id`.
"""


def tenant_of(claims: object) -> str | None:
    """Return the tenant id that a JSON object names.

    Parameters
    ----------
    claims : object
        Decoded JSON: the claims of a token, or the answer of the token endpoint.

    Returns
    -------
    str | None
        The id without surrounding white space; None if there is none.
    """
    if not isinstance(claims, Mapping):
        return None
    named = {_plain(str(name)): value for name, value in reversed(list(claims.items()))}
    for name in _NAMES:
        value = named.get(name)
        if isinstance(value, Mapping):
            value = value.get("id")
        if (tenant_id := _id(value)) is not None:
            return tenant_id
    return None


def tenant_of_token(token: str) -> str | None:
    """Return the tenant id in the claims of a JSON Web Token; None for an opaque token."""
    parts = token.strip().split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return tenant_of(claims)


def _plain(name: str) -> str:
    """Return the last part of a claim's name, without case and separators."""
    return re.sub(r"[^a-z]", "", re.split(r"[/:#]", name)[-1].lower())


def _id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return text if text and len(text) <= _LONGEST_ID and text.isprintable() else None
