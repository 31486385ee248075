"""Rules for ids that a person reads as the same: they differ only in white space, invisible characters or case.

Pure: no I/O, no clock and no randomness. `mirror.store.lookalikes` compares a file with itself, the mirror and the
queue.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from syncd.visible_text import is_invisible, quoted


@dataclass(frozen=True, slots=True)
class NamedId:
    """An id in a column of a file, or in a place that is described by a word such as `mirror`."""

    place: str
    column: str
    value: str


@dataclass(frozen=True, slots=True)
class Lookalike:
    """Two different ids that look the same, and what they differ in."""

    id: NamedId
    other: NamedId
    differs_in: tuple[str, ...]

    def as_data(self) -> dict[str, str | list[str]]:
        """Return what JSON shows."""
        return {
            "place": self.id.place,
            "column": self.id.column,
            "value": self.id.value,
            "resembles": self.other.value,
            "resembles_in": self.other.place,
            "differs_in": list(self.differs_in),
        }

    def __str__(self) -> str:
        return (
            f"{self.id.place}: {self.id.column} {quoted(self.id.value)} differs from {quoted(self.other.value)} "
            f"({self.other.place}) only in {' and '.join(self.differs_in)}"
        )


def folded(text: str) -> str:
    """Return a text that is the same for ids that look the same."""
    if text.isascii() and text.isalnum():
        return text.lower()
    return _composed(_visible(text).casefold())


def differences(text: str, other: str) -> tuple[str, ...]:
    """Return in what two ids differ that look the same."""
    visible, other_visible = _visible(text), _visible(other)
    aspects = (
        ("white space", _hidden(text, str.isspace) != _hidden(other, str.isspace)),
        ("invisible characters", _hidden(text, _is_zero_width) != _hidden(other, _is_zero_width)),
        ("case", _composed(visible) != _composed(other_visible)),
        (_FORM, visible.casefold() != other_visible.casefold()),
    )
    return tuple(name for name, differs in aspects if differs) or (_FORM,)


def lookalikes(ids: Iterable[NamedId], known: Iterable[NamedId]) -> Iterator[Lookalike]:
    """Yield the ids of a file that look like an earlier one of the file, or like a known one.

    An id that is itself known is not compared with the other known ones. Each pair of values is reported once.

    Parameters
    ----------
    ids : Iterable[NamedId]
        The ids of the file, in their order.
    known : Iterable[NamedId]
        Ids of the mirror and the queue. They are read once, and only those that look like one of the file are kept.
    """
    ids_by_key: dict[tuple[str, str], dict[str, NamedId]] = {}
    for named_id in ids:
        alike = ids_by_key.setdefault((named_id.column, folded(named_id.value)), {})
        if named_id.value in alike:
            continue
        if alike:
            earlier = next(iter(alike.values()))
            yield Lookalike(named_id, earlier, differences(named_id.value, earlier.value))
        alike[named_id.value] = named_id
    known_by_key: dict[tuple[str, str], dict[str, NamedId]] = {}
    for named_id in known:
        if (key := (named_id.column, folded(named_id.value))) in ids_by_key:
            known_by_key.setdefault(key, {}).setdefault(named_id.value, named_id)
    for key, others in known_by_key.items():
        for named_id in ids_by_key[key].values():
            if named_id.value not in others:
                other = next(iter(others.values()))
                yield Lookalike(named_id, other, differences(named_id.value, other.value))


_FORM = "the Unicode form of a letter"


def _is_zero_width(character: str) -> bool:
    return is_invisible(character) and not character.isspace()


def _is_hidden(character: str) -> bool:
    return character.isspace() or is_invisible(character)


def _visible(text: str) -> str:
    return "".join(character for character in text if not _is_hidden(character))


def _hidden(text: str, selects: Callable[[str], bool]) -> list[tuple[int, str]]:
    """Return the selected characters, each after the number of visible characters before it."""
    selected = []
    before = 0
    for character in text:
        if selects(character):
            selected.append((before, character))
        elif not _is_hidden(character):
            before += 1
    return selected


def _composed(text: str) -> str:
    """Return a text in one of the forms in which Unicode writes the same letter."""
    return unicodedata.normalize("NFKC", text)
