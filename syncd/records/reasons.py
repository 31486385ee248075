"""A reason as a code, on which programs act, and a sentence, which people read. Passes and holds store both."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.records.enums import PassReason


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pass is not complete."""

    code: PassReason
    text: str
