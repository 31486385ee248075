"""Characters that a reader cannot see. Settings name them, and dry runs compare ids without them."""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 200
"""Characters of a quoted value: enough for the path of a file, and a message stays readable."""
_CONTROLS = {"\0": "NUL", "\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE", "\x7f": "DELETE"}
"""Names of control characters, which Unicode leaves without one."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks without a glyph, which their category does not reveal."""
_PLAIN = re.compile(r"[\x20-\x7e]*")
_ZERO_WIDTH = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_invisible(character: str) -> bool:
    """Return whether a character has no glyph of its own. The ordinary space counts as visible."""
    if " " <= character <= "~":
        return False
    category = unicodedata.category(character)
    if category in _ZERO_WIDTH or character in _BLANKS:
        return True
    return category == "Zs" or "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def invisible_characters(text: str) -> list[tuple[int, str]]:
    """Return the invisible characters of a text, each with its position; the first character has position 1."""
    if _PLAIN.fullmatch(text):
        return []
    return [(place, character) for place, character in enumerate(text, 1) if is_invisible(character)]


def character_name(character: str) -> str:
    """Return the name and the number of a character, such as `ZERO WIDTH SPACE (U+200B)`."""
    name = _CONTROLS.get(character) or unicodedata.name(character, "CONTROL CHARACTER")
    return f"{name} (U+{ord(character):04X})"


def escape_invisible(text: str) -> str:
    r"""Return a text with each invisible character as an escape such as `\u200b`."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode() if is_invisible(character) else character
        for character in text
    )


def quoted(text: str) -> str:
    """Return a text in quotation marks for a message: bounded, on one line, with invisible characters escaped."""
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return f"'{escape_invisible(shown)}'"
