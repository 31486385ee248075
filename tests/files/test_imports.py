"""Import files: all of it is good, or none of it is used, and the reason has its line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import UsageError
from syncd.files import imports
from syncd.files.open_text import open_text
from syncd.mirror.store import import_plan
from tests.helpers.harness import open_harness
from tests.push.helpers import create

pytestmark = pytest.mark.both_databases


def rows(text: str) -> list[dict[str, Any]]:
    return imports.read_operations(io.StringIO(text, newline=""))


def from_file(folder: Path, content: bytes) -> list[dict[str, Any]]:
    file = folder / "rows"
    file.write_bytes(content)
    return imports.read_operations(open_text(file))


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_csv_and_json_lines_are_distinguished_with_and_without_a_mark(tmp_path: Path, mark: bytes, end: bytes) -> None:
    csv = end.join([b"source_session_id,name,parent_id", b"s-1,n\xc3\xa4me,", b"s-2,two,F1", b""])
    lines = end.join([
        b'{"source_session_id": "s-1", "name": "n\xc3\xa4me"}',
        b'{"kind": "create", "source_session_id": "s-2", "name": "two", "parent_id": "F1"}', b"",
    ])  # fmt: skip
    for content in (csv, lines):
        operations = from_file(tmp_path, mark + content)
        assert [(row["kind"], row["source_session_id"], row["name"], row["parent_id"]) for row in operations] == [
            ("create", "s-1", "näme", None), ("create", "s-2", "two", "F1"),
        ]  # fmt: skip


@pytest.mark.one_case_on_postgresql
@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("source_session_id,name\ns-1,n\ns-2,\n", 3, "needs source_session_id and name"),
        ('source_session_id,name\ns-1,"two\nlines"\ns-2,"three\n\nlines"\n..,n\n', 7, "cannot be an id"),
        ('source_session_id,name\ns-1,"two\nlines",more\n', 2, "cell 3: there are only 2 columns"),
        ("source_session_id,name\n\n\ns-1\n", 4, "it has 1 of 2 cells; name is missing"),
        ('source_session_id,name\ns-1,"open\nto the\nend\n', 2, "not CSV"),
        ("source_session_id,colour\ns-1,n\n", 1, "unknown: 'colour'"),
        ("source_session_id,name,name\ns-1,n,m\n", 1, "named twice"),
        ("", 1, "it is empty"),
        ("kind,source_session_id,name\nrename,s-1,n\n", 2, "kind must be create, delete or update, not 'rename'"),
        ("kind,source_session_id,id\ndelete,s-1,SES1\n", 2, "a delete needs id or source_session_id, exactly one"),
        ("kind,source_session_id,id,name\nupdate,s-1,SES1,n\n", 2, "an update needs id or source_session_id, exactly"),
        ("kind,source_session_id,name,parent_id\nupdate,s-1,,\n", 2, "an update needs name or parent_id"),
        ("source_session_id,name,id\ns-1,n,SES1\n", 2, "takes no id"),
        ('{"source_session_id": "s-1", "name": "n"}\n\n{"source_session_id": "s-2"}\n', 3, "needs"),
        ('{"source_session_id": "s-1", "name": "n"}\nnot json\n', 2, "not JSON"),
        ('{"source_session_id": "s-1", "name": "n"}\n[1]\n', 2, "not an object"),
        ('{"source_session_id": "s-1", "name": 7}\n', 1, "must be text"),
        ('{"source_session_id": "s-1", "name": "n", "colour": "x"}\n', 1, "unknown key 'colour'"),
        ('{"source_session_id": "s-1", "name": "n", "name": "m"}\n', 1, "twice"),
        ('{"source_session_id": "s-1", "name": "a\\u0000b"}\n', 1, "no database can hold"),
        ('{"source_session_id": "s\\ud800", "name": "n"}\n', 1, "lone surrogate"),
    ],
)
def test_bad_row_refuses_the_file_with_its_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"line {line}\b") as caught:
        rows(text)
    assert reason in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_refused_rows_are_named_up_to_a_screen_of_them() -> None:
    good, bad = "create,a,A", "change,b,B"
    with pytest.raises(UsageError) as few:
        rows(f"kind,source_session_id,name\n{good}\n{bad}\n{good}\n{bad}")
    reason = "kind must be create, delete or update, not 'change'"
    assert str(few.value) == f"line 3: {reason}\nline 5: {reason}; nothing was queued"
    with pytest.raises(UsageError) as many:
        imports.read_sources(io.StringIO("source_session_id,other\n" + ",x\n" * 25))
    lines = str(many.value).splitlines()
    assert (len(lines), lines[-1]) == (21, "and 5 more rows; nothing was added")


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3, character 5: not UTF-8"):
        from_file(tmp_path, b"source_session_id,name\ns-1,n\ns-2,\xff\n")


def test_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_text(tmp_path / "nothing")


def test_source_ids_are_read_from_both_kinds_of_file() -> None:
    for text in ("source_session_id\ns-1\ns-2\n", '{"source_session_id": "s-1"}\n{"source_session_id": "s-2"}\n'):
        assert [value for _, value in imports.read_sources(io.StringIO(text))] == ["s-1", "s-2"]
    with pytest.raises(UsageError, match="line 3"):
        imports.read_sources(io.StringIO("source_session_id\ns-1\n..\n"))


async def test_dry_run_predicts_the_result_of_each_row(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for name in ("same", "other"):
            harness.sandbox.create(source_session_id=name, name=name)
        await harness.one_pass()
        await harness.enqueue(create("queued"))
        asked = rows(
            "kind,source_session_id,name\ncreate,new,n\ncreate,same,same\ncreate,other,changed\ncreate,queued,n\n"
            "create,new,again\ndelete,new,\ndelete,nobody,\ndelete,same,\ncreate,same,same\n"
        )
        planned = await harness.database.read(lambda c: import_plan.plan(c, asked))
        assert [row["outcome"] for row in planned] == [
            "created", "there", "adopted", "adopted", "adopted", "deleted", "absent", "deleted", "created",
        ]  # fmt: skip
        assert [row["line"] for row in planned] == list(range(2, 11))


async def test_dry_run_predicts_updates(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.sandbox.create(source_session_id="s", name="n", parent_id="FOL1")
        harness.sandbox.create(source_session_id="t", name="n")
        await harness.one_pass()
        await harness.enqueue(create("queued"), {"kind": "delete", "source_session_id": "t"})
        updates = (
            {"source_session_id": "s", "name": "n"},
            {"source_session_id": "s", "name": "m"},
            {"source_session_id": "s", "name": "m"},
            {"source_session_id": "s", "name": "n"},
            {"id": "SES1", "parent_id": ""},
            {"source_session_id": "queued", "name": "m"},
            {"source_session_id": "t", "name": "m"},
            {"source_session_id": "no-session", "name": "m"},
        )
        asked = rows("".join(json.dumps({"kind": "update", **row}) + "\n" for row in updates))
        planned = await harness.database.read(lambda c: import_plan.plan(c, asked))
        assert [row["outcome"] for row in planned] == [
            "there", "updated", "there", "updated", "updated", "updated", "absent", "absent",
        ]  # fmt: skip
        assert planned[1]["note"] == "name is 'n' and not 'm'"
        assert planned[4]["note"] == "folder is 'FOL1' and not None"


@pytest.mark.sqlite
async def test_dry_run_predicts_rows_beside_a_queued_row_that_is_not_utf_8(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql(
            "INSERT INTO operations (kind, source_session_id, name) VALUES "
            "('create', 's-1', CAST(X'ff41' AS TEXT)), ('create', CAST(X'ff42' AS TEXT), 'n')"
        )
        asked = rows("source_session_id,name\ns-1,n\ns-2,n\n")
        planned = await harness.database.read(lambda c: import_plan.plan(c, asked))
        assert [row["outcome"] for row in planned] == ["adopted", "created"]


def test_empty_folder_is_kept_in_json_lines_of_an_update_alone() -> None:
    both = (
        '{"kind": "update", "id": "SES1", "parent_id": ""}\n'
        '{"kind": "create", "source_session_id": "s", "name": "n", "parent_id": ""}\n'
    )
    assert [row["parent_id"] for row in rows(both)] == ["", None]
    assert rows("kind,id,name,parent_id\nupdate,SES1,n,\n")[0]["parent_id"] is None


async def test_whole_file_is_queued_in_its_order(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        asked = rows("source_session_id,name\n" + "".join(f"s-{n},n\n" for n in range(2500)))
        await harness.database.write(lambda c: import_plan.enqueue_all(c, asked))
        queued = await harness.sql("SELECT source_session_id AS s FROM operations ORDER BY id")
        assert [row["s"] for row in queued] == [f"s-{n}" for n in range(2500)]
