"""The pages of passes: the checkpoint's trail, and the means not to read again what has not changed.

A page whose bytes are those of a page of the last complete pass, and whose sessions have not changed since in the
mirror, says nothing new: it need not even be parsed. `Known` is what is kept of such a page.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.keyset import pack, unpack
from syncd.mirror.tables import pages, passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

DIGEST_BYTES = 16
_COUNT = "SELECT count(*), sum(version) FROM sessions WHERE missing_since IS NULL AND deleted_at IS NULL AND key "


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page that was read, for its row.

    `digest` is there when the mirror holds just what the page says; `versions` is then the sum of the versions of its
    sessions: versions only grow, so that the sum stays the same as long as none of them changes.
    """

    next_key: str | None
    session_keys: array[int]
    quarantine_ids: Sequence[int]
    digest: bytes | None
    versions: int


def digest(body: bytes) -> bytes:
    """Return what tells a page's bytes from all others."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def insert(connection: Connection, pass_id: int, first_number: int, read: Sequence[ReadPage]) -> None:
    """Write the rows of pages that follow each other."""
    connection.execute(
        sa.insert(pages),
        [
            {
                "pass_id": pass_id,
                "number": number,
                "next_key": page.next_key,
                "session_keys": pack(page.session_keys),
                "quarantine_ids": pack(page.quarantine_ids),
                "digest": page.digest,
                "versions": page.versions,
            }
            for number, page in enumerate(read, first_number)
        ],
    )


def digests(connection: Connection) -> tuple[int, dict[bytes, int]]:
    """Return the last complete pass and the number of each of its pages by digest."""
    newest = connection.execute(sa.select(sa.func.max(passes.c.id)).where(passes.c.state == "complete")).scalar() or 0
    query = sa.select(pages.c.digest, pages.c.number).where(pages.c.pass_id == newest, pages.c.digest.is_not(None))
    return newest, {row[0]: row[1] for row in connection.execute(query)}


def window(connection: Connection, pass_id: int, first: int, count: int) -> dict[int, ReadPage]:
    """Return some pages of a pass that follow each other, by their numbers."""
    columns = (pages.c.number, pages.c.next_key, pages.c.session_keys, pages.c.digest, pages.c.versions)
    query = sa.select(*columns).where(pages.c.pass_id == pass_id, pages.c.number.between(first, first + count - 1))
    return {
        number: ReadPage(next_key, unpack(keys), (), mark, versions)
        for number, next_key, keys, mark, versions in connection.execute(query)
    }


def unchanged(connection: Connection, page: ReadPage) -> bool:
    """Whether the sessions of a page are all live, listed, and of the versions that they had then."""
    keys = page.session_keys
    if not keys:
        return True
    first, last = min(keys), max(keys)
    if last - first + 1 == len(keys):
        found = connection.exec_driver_sql(_COUNT + "BETWEEN ? AND ?", (first, last)).one()
    else:
        wanted = json.dumps(keys.tolist())
        found = connection.exec_driver_sql(_COUNT + "IN (SELECT value FROM json_each(?))", (wanted,)).one()
    return bool(found[0] == len(keys) and found[1] == page.versions)
