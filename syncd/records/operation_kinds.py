"""Declares what each kind of operation needs and refuses.

The CHECK constraints of the table `operations`, the checks of `syncd enqueue` and of import files, and the options of
the commands are made from these declarations. The behaviour of a kind is in `syncd.push.kinds`. CONTRIBUTING.md lists
the steps for a new kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncd.records.enums import OperationKind

CONTENT_COLUMNS = ("source_session_id", "session_id", "name", "parent_id")
"""The columns of an operation that depend on its kind."""
NEVER_EMPTY = ("source_session_id", "session_id", "name")
IMPORT_NAMES = {"session_id": "id"}
"""Columns whose name in import files and options differs from the name in the table."""
IMPORT_COLUMNS = ("kind", *(IMPORT_NAMES.get(name, name) for name in CONTENT_COLUMNS if name != "session_id"), "id")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSpec:
    """The columns of one kind of operation.

    Attributes
    ----------
    summary, details : str
        The first sentence of the command's help, without its full stop, and the rest of it.
    required : tuple[str, ...]
        Columns that must be set.
    one_of : tuple[str, ...]
        Columns of which exactly one must be set.
    any_of : tuple[str, ...]
        Columns of which at least one must be set.
    refused : tuple[str, ...]
        Columns that must not be set.
    check : str
        The name of the CHECK constraint.
    help : Mapping[str, str]
        The text for each column that the kind uses; the options of `syncd enqueue KIND`.
    repeatable : bool
        The request can be sent again at any time: a lost answer needs no look-ups over the settle time.
    leaves_live : bool
        The operation has succeeded only if the session is live in the mirror.
    """

    kind: OperationKind
    summary: str
    details: str = ""
    required: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    check: str
    help: Mapping[str, str]
    repeatable: bool
    leaves_live: bool = False

    @property
    def named(self) -> str:
        """Return the kind with its article."""
        return f"an {self.kind}" if self.kind[0] in "aeiou" else f"a {self.kind}"

    @property
    def condition(self) -> str:
        """Return the condition of the CHECK constraint, in SQL of both databases."""
        parts = [f"{name} IS NOT NULL" for name in self.required]
        parts += [f"{name} IS NULL" for name in self.refused]
        if self.one_of:
            parts.append(" <> ".join(f"({name} IS NULL)" for name in self.one_of))
        if self.any_of:
            parts.append(f"({' OR '.join(f'{name} IS NOT NULL' for name in self.any_of)})")
        needs = " AND ".join(parts)
        return f"kind <> '{self.kind}' OR {needs if len(parts) == 1 else f'({needs})'}"

    def problem(self, row: Mapping[str, str | None]) -> str | None:
        """Return what is wrong with the columns of an operation; None if they are what the kind needs."""
        empty = [name for name in NEVER_EMPTY if row.get(name) == ""]
        if empty:
            return f"{_shown(empty[0])} must not be empty"
        missing = [name for name in self.required if not row.get(name)]
        if missing:
            return f"{self.named} needs {' and '.join(map(_shown, self.required))}"
        if any(row.get(name) for name in self.refused):
            return f"{self.named} takes no {' or '.join(map(_shown, self.refused))}: Albert assigns it"
        if self.one_of and sum(bool(row.get(name)) for name in self.one_of) != 1:
            return f"{self.named} needs {' or '.join(map(_shown, self.one_of))}, exactly one of them"
        if self.any_of and all(row.get(name) is None for name in self.any_of):
            return f"{self.named} needs {' or '.join(map(_shown, self.any_of))}, or both"
        return None


def _shown(column: str) -> str:
    return IMPORT_NAMES.get(column, column)


_SPECS = (
    KindSpec(
        kind=OperationKind.CREATE,
        summary="Make sure that a session with this source id exists",
        details="If Albert has a session with this source id, it is adopted as it is.",
        required=("source_session_id", "name"),
        refused=("session_id",),
        check="create_needs_source_and_name",
        help={
            "source_session_id": "The external id that the session must have.",
            "name": "The name to create it with.",
            "parent_id": "The folder to create it in.",
        },
        repeatable=False,
        leaves_live=True,
    ),
    KindSpec(
        kind=OperationKind.DELETE,
        summary="Delete a session, by its id or by its source id",
        one_of=("session_id", "source_session_id"),
        check="delete_needs_one_id",
        help={
            "session_id": "Albert's id of the session.",
            "source_session_id": "The external id of the session.",
        },
        repeatable=True,
    ),
    KindSpec(
        kind=OperationKind.UPDATE,
        summary="Rename a session, move it to another folder, or both",
        details="An empty --parent-id moves the session out of its folder.",
        one_of=("session_id", "source_session_id"),
        any_of=("name", "parent_id"),
        check="update_needs_one_id_and_a_change",
        help={
            "session_id": "Albert's id of the session.",
            "source_session_id": "The external id of the session.",
            "name": "The new name.",
            "parent_id": "The folder to move it to; '' moves it out of its folder.",
        },
        repeatable=True,
    ),
)
SPECS: Mapping[OperationKind, KindSpec] = {spec.kind: spec for spec in _SPECS}


def problem(row: Mapping[str, str | None]) -> str | None:
    """Return what is wrong with the kind and the columns of an operation; None if nothing is."""
    kind = row.get("kind")
    if kind is None or kind not in SPECS:
        return f"kind must be {', '.join(list(SPECS)[:-1])} or {list(SPECS)[-1]}, not {kind!r}"
    return SPECS[OperationKind(kind)].problem(row)
