"""The pages of passes: what a pass has seen so far, and the means to recognize pages that have not changed.

If the bytes of a page are those of a page of the last complete pass, and its sessions have not changed in the mirror
since, it contains nothing new and is not parsed. `ReadPage` is the part of each page that is kept. `pull.write_pages`
and `passes` write pages, `pull.page_cache` reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.mirror.db import raw
from syncd.mirror.schema.tables import pages, passes
from syncd.records.enums import PassState
from syncd.records.ids import PassId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


DIGEST_BYTES = 16
_INSERT = """
INSERT INTO pages (pass_id, number, next_key, sessions, unreadable, repeated, digest, versions)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# Not in WHERE: PostgreSQL, as long as it has no statistics, searches an index of all live sessions for them.
_LISTED = (
    "SELECT count(*) FILTER (WHERE missing_since IS NULL AND deleted_at IS NULL), sum(version) FROM sessions WHERE key"
)
_IN_RANGE = f"{_LISTED} BETWEEN ? AND ?"
_IN_LIST = f"{_LISTED} IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page that was read, as its row stores it.

    Parameters
    ----------
    sessions : BitMap64
        The keys of its sessions.
    unreadable, repeated : BitMap64
        Rows of the quarantine: see `quarantine.MetItems`.
    digest : bytes | None
        None if the mirror does not contain exactly the content of the page.
    versions : int
        The sum of the versions of its sessions. Versions only grow: the sum is the same as long as none changes.
    """

    next_key: str | None
    sessions: BitMap64
    unreadable: BitMap64
    repeated: BitMap64
    digest: bytes | None
    versions: int


def digest(body: bytes, reader: bytes) -> bytes:
    """Return the digest of a page as one reader reads it (`records.parse.reader_of`)."""
    hasher = hashlib.sha256(reader)  # most processors compute this one in hardware
    hasher.update(body)
    return hasher.digest()[:DIGEST_BYTES]


def pack(numbers: Iterable[int]) -> bytes:
    """Write numbers for a row of `pages`: runs of neighbours, as most pages have them, take a few bytes."""
    bitmap = BitMap64(numbers)
    bitmap.run_optimize()
    return bitmap.serialize()


def unpack(data: bytes) -> BitMap64:
    """Read what `pack` wrote."""
    return BitMap64.deserialize(data)


def insert(connection: Connection, pass_id: PassId, first_number: int, read: Sequence[ReadPage]) -> None:
    """Write the rows of successive pages."""
    raw.executemany(
        connection,
        _INSERT,
        [
            (
                pass_id,
                number,
                page.next_key,
                *map(pack, (page.sessions, page.unreadable, page.repeated)),
                page.digest,
                page.versions,
            )
            for number, page in enumerate(read, first_number)
        ],
    )


def newest_complete(connection: Connection) -> PassId:
    """Return the id of the newest complete pass, whose pages are kept; 0 if there is none."""
    query = sa.select(sa.func.max(passes.c.id)).where(passes.c.state == PassState.COMPLETE)
    return PassId(connection.execute(query).scalar() or 0)


def digests(connection: Connection) -> tuple[PassId, dict[bytes, int]]:
    """Return the last complete pass and the number of each of its pages by digest."""
    newest = newest_complete(connection)
    query = sa.select(pages.c.digest, pages.c.number).where(pages.c.pass_id == newest, pages.c.digest.is_not(None))
    return newest, {row.digest: row.number for row in connection.execute(query)}


def keys(connection: Connection) -> list[str]:
    """Return the page keys that the last complete pass was given, in their order."""
    query = sa.select(pages.c.next_key).where(
        pages.c.pass_id == newest_complete(connection), pages.c.next_key.is_not(None)
    )
    return list(connection.execute(query.order_by(pages.c.number)).scalars())


def window(connection: Connection, pass_id: PassId, first: int, count: int) -> dict[int, ReadPage]:
    """Return successive pages of a pass by their numbers."""
    query = sa.select(pages).where(pages.c.pass_id == pass_id, pages.c.number.between(first, first + count - 1))
    return {row.number: _read(row) for row in connection.execute(query)}


def of_pass(connection: Connection, pass_id: PassId) -> Iterable[ReadPage]:
    """Yield all pages of a pass in their order, in bounded memory."""
    query = sa.select(pages).where(pages.c.pass_id == pass_id).order_by(pages.c.number)
    return map(_read, connection.execute(query.execution_options(yield_per=100)))


def _read(row: sa.Row[tuple[object, ...]]) -> ReadPage:
    return ReadPage(
        row.next_key, unpack(row.sessions), unpack(row.unreadable), unpack(row.repeated), row.digest, row.versions
    )


def unchanged(connection: Connection, read: Sequence[ReadPage], suspects: BitMap64) -> bool:
    """Whether the sessions of some pages are all live, listed, and of the same versions as when the pages were read.

    Parameters
    ----------
    read : Sequence[ReadPage]
        If a session is on two of them, the answer is no.
    suspects : BitMap64
        Sessions with an item in quarantine: a page that has one is read, because it may resolve the item.
    """
    keys = BitMap64.union(*(page.sessions for page in read))
    count = sum(len(page.sessions) for page in read)
    if not suspects.isdisjoint(keys) or len(keys) < count:
        return False
    if not keys:
        return True
    first, last = keys.min(), keys.max()
    if last - first + 1 == len(keys):
        cursor = raw.execute(connection, _IN_RANGE, (first, last))
    else:
        cursor = raw.execute(connection, _IN_LIST, (json.dumps(list(keys)),))
    return bool(cursor.fetchone() == (count, sum(page.versions for page in read)))
