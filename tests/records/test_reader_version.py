"""A release that reads the same items as other rows must say so, or known pages keep their old rows."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from syncd.records.fields import SESSIONS, FieldList, Json, Row, Text, Time, Wire
from syncd.records.items import UnreadableError, read_item
from syncd.records.parse import READER_VERSION, reader_of
from tests.helpers.harness import open_harness
from tests.helpers.rows import SAMPLES
from tests.pull.helpers import Listing, counted, page, wire


# fmt: off
class FirstRow(Row, frozen=True, gc=False):
    """The fields of the first release: a new field is another reader by itself, and must not change the rows below."""

    id: Annotated[Text, Wire("id", "", "")]
    name: Annotated[Text, Wire("name", "", "")]
    parent_id: Annotated[Text | None, Wire("parentId", "", "")]
    source_session_id: Annotated[Text, Wire("sourceSessionId", "", "")]
    status: Annotated[Text | None, Wire("status", "", "")]
    kind: Annotated[Text | None, Wire("kind", "", "")]
    automation_id: Annotated[Text | None, Wire("automationId", "", "")]
    automation_run_id: Annotated[Text | None, Wire("automationRunId", "", "")]
    last_message_at: Annotated[Time | None, Wire("lastMessageAt", "", "")]
    created_by: Annotated[Text | None, Wire("Created.by", "", "")]
    created_by_name: Annotated[Text | None, Wire("Created.byName", "", "")]
    created_at: Annotated[Time | None, Wire("Created.at", "", "")]
    updated_by: Annotated[Text | None, Wire("Updated.by", "", "")]
    updated_by_name: Annotated[Text | None, Wire("Updated.byName", "", "")]
    updated_at: Annotated[Time | None, Wire("Updated.at", "", "")]
    extra: Annotated[Json, Wire("", "", "")] = "{}"
# fmt: on


FIRST: FieldList[FirstRow] = FieldList(FirstRow, noun="session", indexed=("id", "source_session_id"))
ROWS = {1: "b8b943d22c15dc83"}
"""What the reader of each version made of the items below. A reader that makes something else is another version."""
AUDIT = {"by": "U", "byName": "Ünï", "at": "2026-01-31T12:00:00+05:00", "role": 1}
ITEMS: list[Any] = [
    {"id": "A", "name": "n", "sourceSessionId": "s"},
    {"id": "A", "name": "", "sourceSessionId": "", "parentId": "", "status": None, "lastMessageAt": None},
    wire("B", kind="agent", automationId="a", automationRunId="r", Created=AUDIT, Updated=AUDIT),
    wire("C", lastMessageAt="soon", Created={"at": 17}, Updated={"at": ""}, pinned=False, more={"b": 1.0, "a": [None]}),
    wire("D", lastMessageAt="2026-01-31", big=2**70, tiny=-0.0, line="\u2028"),
    wire("E", name=None),
    wire("F", status=1),
    wire("G", more="a\0"),
    wire("\ud800"),
    {"name": "without an id"},
    7,
]


def _read(item: Any) -> Any:
    try:
        return msgspec.structs.asdict(read_item(item, FIRST))
    except UnreadableError as error:
        return [error.record_id]


def test_same_items_give_the_same_rows_as_long_as_the_version_is_the_same() -> None:
    rows = json.dumps([_read(item) for item in ITEMS], sort_keys=True)
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == ROWS[READER_VERSION], (
        "raise READER_VERSION, and add a line"
    )


def test_reader_with_other_fields_is_another_reader() -> None:
    assert reader_of(SESSIONS) != reader_of(SAMPLES)


@pytest.mark.both_databases
async def test_pages_that_an_older_reader_has_read_are_read_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        Listing(harness, {None: page(*(wire(f"S{n}", kind="chat") for n in range(50)))})
        await harness.one_pass()
        await harness.sql("UPDATE sessions SET kind = NULL WHERE key <= 42")
        await harness.one_pass()
        assert (await counted(harness))["updated"] == 0  # nothing but syncd writes its tables: the page is known
        monkeypatch.setattr("syncd.records.parse.READER_VERSION", READER_VERSION + 1)
        reader_of.cache_clear()
        for updated in (42, 0):
            await harness.one_pass()
            assert (await counted(harness))["updated"] == updated
        assert await harness.sql("SELECT id FROM chat_sessions WHERE kind IS NULL") == []
    reader_of.cache_clear()
