"""The text of a value: surrounding characters are removed, and characters that cannot belong to it are refused."""

from __future__ import annotations

from syncd.visible_text import character_name, invisible_characters

_MARK = "\ufeff"
"""A byte order mark, which some editors put at the start of a file."""
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019"}
"""Opening quotation marks with the closing one; word processors replace straight quotation marks by curved ones."""
_NAMED = 3
"""Invisible characters that one message names."""


def stripped(text: str) -> str:
    """Return a value without surrounding white space, line ends and byte order marks."""
    while text != (text := text.strip().strip(_MARK)):
        pass
    return text


def text_problem(value: str) -> str | None:
    """Return why a stripped value is refused; None for an accepted one. The value is not repeated."""
    if (characters := invisible_characters(value)) != []:
        named = ", ".join(
            f"{character_name(character)} at character {place}" for place, character in characters[:_NAMED]
        )
        more = f" and {len(characters) - _NAMED} more" if len(characters) > _NAMED else ""
        return f"contains invisible characters: {named}{more}; type the value again or copy it as plain text"
    if len(value) > 1 and _QUOTES.get(value[0]) == value[-1]:
        return (
            "has quotation marks around it; remove them (Docker and Kubernetes keep quotation marks as part of a value)"
        )
    return None
