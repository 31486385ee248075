"""Checksums that are equal if two tables hold the same rows, in any order and on any database.

`migrate_store` compares the source with the target by them.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from syncd.mirror.schema.types import JsonText

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

_MODULUS = 2**128


class Checksum:
    """The number of some rows of a table, and the sum of their hashes; the order of the rows does not matter."""

    def __init__(self, table: sa.Table) -> None:
        self._json = [place for place, column in enumerate(table.columns) if column.type is JsonText]
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Add a row: its values in the order of the table's columns, times and JSON as text."""
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        for place in self._json:
            if values[place] != "{}":
                values[place] = _canonical(values[place])
        digest = hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % _MODULUS
        self.rows += 1

    @property
    def digest(self) -> str:
        """The sum, as 32 hexadecimal digits."""
        return f"{self._sum:032x}"


def _canonical(text: str) -> str:
    """Return JSON in one form for each meaning: databases write numbers and the order of keys differently."""
    value = json.loads(text, parse_float=_number, parse_int=_number)
    return json.dumps(value, sort_keys=True)


def _number(text: str) -> str:
    sign, digits, exponent = Decimal(text).as_tuple()
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    if not stripped:
        return "number 0"
    return f"number {'-' * sign}{stripped}e{int(exponent) + len(significant) - len(stripped)}"
