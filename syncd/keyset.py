"""A set of small integers in one bit each: what a pass has seen costs 125 kB for a million sessions."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeySet:
    """Surrogate integer keys, as a bitmap that grows."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        place = key >> 3
        return place < len(self._bits) and bool(self._bits[place] & (1 << (key & 7)))

    def update(self, keys: Iterable[int]) -> None:
        """Add keys."""
        bits = self._bits
        for key in keys:
            place, bit = key >> 3, 1 << (key & 7)
            if place >= len(bits):
                bits.extend(bytes(place - len(bits) + 1024))
            if not bits[place] & bit:
                bits[place] |= bit
                self._count += 1


def pack(keys: Iterable[int]) -> bytes:
    """Write keys for a row of `pages`, 8 bytes each."""
    return array("q", keys).tobytes()


def unpack(data: bytes) -> array[int]:
    """Read what `pack` wrote."""
    keys: array[int] = array("q")
    keys.frombytes(data)
    return keys
