"""The pages of passes: the checkpoint's trail, and the means not to read again what has not changed.

A page whose bytes are those of a page of the last complete pass, and whose sessions have not changed since in the
mirror, says nothing new: it need not even be parsed. `ReadPage` is what is kept of such a page.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.keyset import pack, unpack
from syncd.mirror.db import raw
from syncd.mirror.schema.tables import pages, passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

DIGEST_BYTES = 16
_INSERT = """
INSERT INTO pages (pass_id, number, next_key, session_keys, quarantine_ids, digest, versions)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
# Not in WHERE: PostgreSQL, as long as it has no statistics, looks for live ones in an index of all that are live.
_LISTED = (
    "SELECT count(*) FILTER (WHERE missing_since IS NULL AND deleted_at IS NULL), sum(version) FROM sessions WHERE key"
)
_IN_RANGE = f"{_LISTED} BETWEEN ? AND ?"
_IN_LIST = f"{_LISTED} IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants


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


def digest(body: bytes, reader: bytes) -> bytes:
    """Return the digest of a page as one reader reads it (`records.parse.reader_of`)."""
    found = hashlib.sha256(reader)  # most processors compute this one in hardware
    found.update(body)
    return found.digest()[:DIGEST_BYTES]


def insert(connection: Connection, pass_id: int, first_number: int, read: Sequence[ReadPage]) -> None:
    """Write the rows of pages that follow each other."""
    raw.executemany(
        connection,
        _INSERT,
        [
            (
                pass_id,
                number,
                page.next_key,
                *map(pack, (page.session_keys, page.quarantine_ids)),
                page.digest,
                page.versions,
            )
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


def unchanged(connection: Connection, page: ReadPage, suspects: frozenset[int] = frozenset()) -> bool:
    """Whether the sessions of a page are all live, listed, and of the versions that they had then.

    Parameters
    ----------
    suspects : frozenset[int]
        Sessions of which something is in quarantine: a page that has one must be read, for it may resolve that.
    """
    keys = page.session_keys
    if not suspects.isdisjoint(keys):
        return False
    if not keys:
        return True
    first, last = min(keys), max(keys)
    if last - first + 1 == len(keys):
        found = raw.execute(connection, _IN_RANGE, (first, last))
    else:
        found = raw.execute(connection, _IN_LIST, (json.dumps(keys.tolist()),))
    return bool(found.fetchone() == (len(keys), page.versions))
