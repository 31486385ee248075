"""The fields of Albert's records: one list for each kind of record.

`records.parse` reads records by such a list. The columns of tables, views and exports, and their descriptions in
`docs/schema.md`, come from it too. CONTRIBUTING.md shows how to add a field.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from syncd.records.ids import SessionId, SourceId


class FieldType(StrEnum):
    """What a field contains, on the wire and in its column."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    JSON = "JSON"


Text = Annotated[str, FieldType.TEXT]
Number = Annotated[float, FieldType.NUMBER]
"""A number that a float holds exactly. Any other number stays in `extra`, and the column is null."""
Boolean = Annotated[bool, FieldType.BOOLEAN]
Time = Annotated[str, FieldType.TIME]
"""A time as `clock.utc_text` writes it. A time that cannot be read stays in `extra`, and the column is null."""
Json = Annotated[str, FieldType.JSON]
"""Any JSON value, as canonical text (`tolerant_json.canonical`)."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A field on the wire.

    Parameters
    ----------
    path : str
        The name in the JSON object, or `Block.name` for a field of an object inside it.
    comment : str
        The meaning, for `docs/schema.md` and PostgreSQL's COMMENT.
    example : str
        A value as the mirror stores it, for `docs/schema.md`.
    """

    path: str
    comment: str
    example: str


class Row(msgspec.Struct, frozen=True, gc=False):
    """A record as the mirror stores it.

    A subclass has one annotated attribute for each other field, and ends with `extra`.
    """

    id: Annotated[Text, Wire("id", "Albert's id of the record", "SES1")]


EXTRA = "extra"
_EXTRA = Wire(
    "",
    "JSON of the fields that syncd does not know, and of times that could not be read; {} when empty",
    '{"color":"red"}',
)


# ruff: noqa: E501 - a field is one line
# fmt: off
class SessionRow(Row, frozen=True, gc=False):
    """A chat session. A line is a column: its name, its type (optional with `| None`), and its place on the wire."""

    id: Annotated[SessionId, FieldType.TEXT, Wire("id", "Albert's id of the session, such as SES123", "SES1")]
    name: Annotated[Text, Wire("name", "the session's name", "Which PTFE wax gives the best gloss?")]
    parent_id: Annotated[Text | None, Wire("parentId", "the folder that the session is in", "FOL17")]
    source_session_id: Annotated[SourceId, FieldType.TEXT, Wire("sourceSessionId", "the external id that the session was created with", "36f675cc-81e7-4ef5-a8e2-5d940ed90475")]
    status: Annotated[Text | None, Wire("status", "active or inactive, or a value that Albert has added since", "active")]
    kind: Annotated[Text | None, Wire("kind", "chat or automation, or a value that Albert has added since", "automation")]
    automation_id: Annotated[Text | None, Wire("automationId", "the automation that owns the session", "AUT2")]
    automation_run_id: Annotated[Text | None, Wire("automationRunId", "the run that made the session", "RUN1")]
    last_message_at: Annotated[Time | None, Wire("lastMessageAt", "when the last message was written", "2026-06-01T10:40:00.000000Z")]
    created_by: Annotated[Text | None, Wire("Created.by", "the id of the user who created the session", "USR1")]
    created_by_name: Annotated[Text | None, Wire("Created.byName", "the name of the user who created the session", "Ada Okafor")]
    created_at: Annotated[Time | None, Wire("Created.at", "when Albert created the session", "2026-06-01T10:30:00.000000Z")]
    updated_by: Annotated[Text | None, Wire("Updated.by", "the id of the user who changed the session last", "USR2")]
    updated_by_name: Annotated[Text | None, Wire("Updated.byName", "the name of the user who changed the session last", "Beatriz Núñez")]
    updated_at: Annotated[Time | None, Wire("Updated.at", "when Albert changed the session last", "2026-06-01T10:50:00.000000Z")]
    extra: Annotated[Json, _EXTRA] = "{}"


class FolderRow(Row, frozen=True, gc=False):
    """A folder of chat sessions."""

    id: Annotated[Text, Wire("id", "Albert's id of the folder, such as FOL17", "FOL17")]
    name: Annotated[Text, Wire("name", "the folder's name", "Adhesives")]
    type: Annotated[Text | None, Wire("type", "root or child, or a value that Albert has added since", "child")]
    parent_id: Annotated[Text | None, Wire("parentId", "the folder that the folder is in", "FOL1")]
    created_at: Annotated[Time | None, Wire("Created.at", "when Albert created the folder", "2026-06-01T10:20:00.000000Z")]
    updated_at: Annotated[Time | None, Wire("Updated.at", "when Albert changed the folder last", "2026-06-01T10:21:00.000000Z")]
    extra: Annotated[Json, Wire("", "JSON of the fields that have no column; {} when empty", '{"sequence":["SES1"]}')] = "{}"
# fmt: on


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a list of fields.

    Parameters
    ----------
    block : str
        The name of the object that contains the field; "" for the record itself.
    name : str
        The name of the field in that object.
    """

    column: str
    type: FieldType
    required: bool
    wire: Wire
    block: str
    name: str


@dataclass(frozen=True, slots=True)
class Block:
    """The fields of one object on the wire: of the record itself (with the name "") or of an object inside it."""

    name: str
    fields: tuple[Field, ...]
    names: frozenset[str]
    """All names in the object that are known: those of the fields and, in the record itself, of the other blocks."""
    required: bool
    """Whether one of the fields is required, so that the object cannot be absent."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class FieldList(Generic[R]):
    """The fields of one kind of record, read from the annotations of its row.

    Parameters
    ----------
    row : type[R]
        The class of the rows. It has a required text `id`.
    noun : str
        The kind of record, for messages.
    indexed : tuple[str, ...]
        Required text columns that share an index, which limits their length; see `items.LONGEST_INDEXED`.
    newest_by : str
        The column that orders two answers about one record on the same page.
    """

    row: type[R]
    noun: str
    indexed: tuple[str, ...] = ("id",)
    newest_by: str = "updated_at"
    by_column: dict[str, Field] = field(init=False, compare=False)
    """All columns, `extra` included, in the order of a row."""

    def __post_init__(self) -> None:
        """Read the annotations once.

        Raises
        ------
        TypeError
            An annotation has another form, or `extra` is not declared.
        """
        annotations = get_type_hints(self.row, include_extras=True)
        by_column = {name: _field(name, annotations[name]) for name in self.row.__struct_fields__}
        if EXTRA not in by_column:
            raise TypeError(f"{self.row.__name__} has no column {EXTRA}")
        object.__setattr__(self, "by_column", by_column)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Return the names of all columns in the order of a row."""
        return tuple(self.by_column)

    @cached_property
    def first_columns(self) -> tuple[str, ...]:
        """Return the columns of the first release: those up to `extra`. Views begin with them."""
        return self.columns[: self.columns.index(EXTRA) + 1]

    @cached_property
    def later_columns(self) -> tuple[str, ...]:
        """Return the columns that came later. Views end with them, because PostgreSQL adds a column at the end only."""
        return self.columns[len(self.first_columns) :]

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Return the fields on the wire: all columns except `extra`."""
        return tuple(member for member in self.by_column.values() if member.column != EXTRA)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Return the fields by the object that contains them, those of the record itself first."""
        members: dict[str, list[Field]] = {"": []}
        for member in self.fields:
            members.setdefault(member.block, []).append(member)
        inner = members.keys() - {""}
        return tuple(
            Block(
                name=block,
                fields=tuple(fields),
                names=frozenset(member.name for member in fields) | (set() if block else inner),
                required=any(member.required for member in fields),
            )
            for block, fields in members.items()
        )


def _field(name: str, annotation: Any) -> Field:  # noqa: ANN401 - a type
    """Read one annotation, such as `Annotated[Text | None, Wire(...)]`.

    Raises
    ------
    TypeError
        The annotation has another form.
    """
    if get_origin(annotation) is not Annotated or not isinstance(wire := annotation.__metadata__[-1], Wire):
        raise TypeError(f"{name} needs an annotation such as Annotated[Text | None, Wire(...)]")
    # Annotated flattens: Annotated[Text, Wire(...)] is Annotated[str, TEXT, Wire(...)].
    options = [annotation, *(part for part in get_args(annotation.__origin__) if part is not NoneType)]
    types = [part for option in options for part in getattr(option, "__metadata__", ()) if isinstance(part, FieldType)]
    if len(types) != 1:
        raise TypeError(f"{name} needs one of the types Text, Number, Boolean, Time and Json")
    block, _, last = wire.path.rpartition(".")
    return Field(name, types[0], NoneType not in get_args(annotation.__origin__), wire, block, last)


FOLDERS = FieldList(FolderRow, noun="folder")
SESSIONS = FieldList(SessionRow, noun="session", indexed=("id", "source_session_id"))
