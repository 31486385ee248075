"""What tells whether two tables hold the same rows, whatever their order and their database."""

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
    """The count of some rows and the sum of their hashes; the order of the rows does not count."""

    def __init__(self, table: sa.Table) -> None:
        self._json = [place for place, column in enumerate(table.columns) if column.type is JsonText]
        self.rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Count a row, given as `select` reads it."""
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        for place in self._json:
            if values[place] != "{}":
                values[place] = _canonical(values[place])
        digest = hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % _MODULUS
        self.rows += 1

    @property
    def digest(self) -> str:
        """The sum, as text."""
        return f"{self._sum:032x}"


def _canonical(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON so that what means the same is the same: databases write numbers and the order of keys differently."""
    value = json.loads(text, parse_float=_number, parse_int=_number)
    return json.dumps(value, sort_keys=True)


def _number(text: str) -> str:
    sign, digits, exponent = Decimal(text).as_tuple()
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    if not stripped:
        return "number 0"
    return f"number {'-' * sign}{stripped}e{int(exponent) + len(significant) - len(stripped)}"
