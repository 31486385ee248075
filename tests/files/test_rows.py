"""The forms of files that other programs write: read when unambiguous, and otherwise refused with the cause."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.errors import UsageError
from syncd.files import imports
from syncd.files.open_text import open_text
from syncd.files.rows import read_rows
from syncd.records.operation_kinds import IMPORT_COLUMNS

THREE = [("create", "r-1", "One"), ("create", "r-2", "Two"), ("create", "r-3", "Three")]
CSV = "kind,source_session_id,name\ncreate,r-1,One\ncreate,r-2,Two\ncreate,r-3,Three\n"
OBJECTS = [dict(zip(("kind", "source_session_id", "name"), row, strict=True)) for row in THREE]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
FORMS = {
    "commas": CSV,
    "semicolons": CSV.replace(",", ";"),
    "tabs": CSV.replace(",", "\t"),
    "Windows line ends": CSV.replace("\n", "\r\n"),
    "old Mac line ends": CSV.replace("\n", "\r"),
    "rows of empty cells": f"{CSV},,\n,,\n \t, ,\n,,,,,\n",
    "empty lines around": f"\n\r\n{CSV.replace('create,r-2', chr(10) + 'create,r-2')}\n\n",
    "columns without a name at the end": CSV.replace("\n", ",,\n"),
    "sep=;": f"sep=;\n{CSV.replace(',', ';')}",
    "sep=,": f"SEP=,\r\n{CSV}",
    "sep=;;;": f"sep=;;;\r\n{CSV.replace(',', ';')}",
    "sep=|": f"sep=|\n{CSV.replace(',', '|')}",
    "spaces around the names of columns": CSV.replace("kind,source_session_id", "kind , source_session_id"),
    "quoted cells": CSV.replace("One", '"One"').replace("kind", '"kind"'),
    "no column kind": CSV.replace("kind,", "").replace("create,", ""),
    "JSON Lines": "\n".join(map(json.dumps, OBJECTS)),
    "JSON Lines with empty lines": "\n \n".join(map(json.dumps, [*OBJECTS])) + "\n\n",
    "JSON array on one line": json.dumps(OBJECTS),
    "JSON array on many lines": json.dumps(OBJECTS, indent=2),
    "JSON array after empty lines": f"\n\n  {json.dumps(OBJECTS)}\n\n",
}


def read(folder: Path, content: bytes) -> list[dict[str, Any]]:
    file = folder / "rows"
    file.write_bytes(content)
    return imports.read_operations(open_text(file))


def three(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(row["kind"], row["source_session_id"], row["name"]) for row in rows]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_form_is_read(tmp_path: Path, form: str, encoding: str) -> None:
    assert three(read(tmp_path, FORMS[form].encode(encoding))) == THREE


@pytest.mark.parametrize("form", FORMS)
def test_source_ids_are_read_from_each_form(tmp_path: Path, form: str) -> None:
    file = tmp_path / "rows"
    file.write_text(FORMS[form], newline="")
    assert [value for _, value in imports.read_sources(open_text(file))] == ["r-1", "r-2", "r-3"]


def test_other_columns_are_ignored_in_files_of_source_ids_with_any_delimiter(tmp_path: Path) -> None:
    for delimiter in (",", ";", "\t"):
        file = tmp_path / "rows"
        file.write_text("Customer No.,source_session_id,x\n1,s-1,a\n,,\n2,s-2,b\n".replace(",", delimiter))
        assert imports.read_sources(open_text(file)) == [("line 2", "s-1"), ("line 4", "s-2")]


LINES = {
    "CSV": (FORMS["empty lines around"], [4, 6, 7]),
    "sep": (f"\nsep=;\n{CSV.replace(',', ';')}", [4, 5, 6]),
    "quoted": (CSV.replace("One", '"One\nand\nmore"'), [2, 5, 6]),
    "JSON Lines": (f"\n{FORMS['JSON Lines with empty lines']}", [2, 4, 6]),
    "JSON array": (f"\n{FORMS['JSON array on many lines']}", [3, 8, 13]),
    "JSON array on one line": (FORMS["JSON array on one line"], [1, 1, 1]),
}


@pytest.mark.parametrize("form", LINES)
def test_line_of_each_row_is_where_it_begins(tmp_path: Path, form: str) -> None:
    text, lines = LINES[form]
    assert [row["line"] for row in read(tmp_path, text.encode())] == lines


def test_place_in_an_array_has_the_number_of_the_item(tmp_path: Path) -> None:
    rows = read(tmp_path, FORMS["JSON array on one line"].encode())
    assert [row["place"] for row in rows] == ["line 1, item 1", "line 1, item 2", "line 1, item 3"]
    assert [row["item"] for row in rows] == [1, 2, 3]
    assert [row["item"] for row in read(tmp_path, CSV.encode())] == [None] * 3


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029\ufeff"), min_size=1)


@given(
    rows=st.lists(st.tuples(texts.map("s".__add__), texts), min_size=1),
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(ENCODINGS[:3]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_that_a_csv_writer_wrote_come_back(
    rows: list[tuple[str, str]], delimiter: str, quoting: Any, encoding: str, end: str
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("source_session_id", "name"), *rows])
    stream = io.TextIOWrapper(io.BytesIO(out.getvalue().encode(encoding)), encoding=encoding, newline="")
    parsed = read_rows(stream, IMPORT_COLUMNS)
    assert [(row.values["source_session_id"], row.values["name"] or "") for row in parsed] == [
        (source_id, name if name.strip() else "") for source_id, name in rows
    ]


def test_long_cell_is_read_in_each_form_and_the_limit_of_the_csv_module_stays(tmp_path: Path) -> None:
    limit, row = csv.field_size_limit(), {"source_session_id": "a", "name": "x" * 200_000}
    for content in (f"source_session_id,name\na,{row['name']}\n", json.dumps(row), json.dumps([row])):
        file = tmp_path / "rows"
        file.write_text(content)
        assert [parsed.values for parsed in read_rows(open_text(file), tuple(row))] == [row]
    with pytest.raises(UsageError, match="line 2: not CSV: unexpected end of data"):
        read(tmp_path, f'source_session_id,name\na,"{row["name"]}'.encode())
    assert csv.field_size_limit() == limit


def _workbook() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return out.getvalue()


REFUSED: dict[str, tuple[bytes, str]] = {
    "xlsx": (_workbook(), "it is an Excel workbook (.xlsx) or another ZIP file; save the sheet as CSV UTF-8"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "it is an Excel workbook (.xls)"),
    "gzip": (gzip.compress(CSV.encode()), "it is compressed; unpack it first"),
    "Parquet": (b"PAR1" + bytes(20), "it is a Parquet file"),
    "SQLite": (b"SQLite format 3\0" + bytes(84), "it is a SQLite database"),
    "PDF": (b"%PDF-1.7\n", "it is a PDF"),
    "HTML": (b"\n<table><tr><td>kind</td></tr></table>", "line 2: the file is HTML or XML"),
    "latin-1": (CSV.replace("Two", "Zw\u00f6lf").encode("latin-1"), "line 3, character 14: not UTF-8 text"),
    "cut UTF-16": (CSV.encode("utf-16")[:-1], "the UTF-16 text is cut"),
    "cut UTF-32": (CSV.encode("utf-32-be")[:-1], "the UTF-32 text is cut"),
    "half a surrogate pair": (CSV.encode("utf-16").replace(b"T\0w\0", b"\0\xd8w\0"), "line 3, character 12: not"),
    "pipes": (CSV.replace(",", "|").encode(), "unknown: 'kind|source_session_id|name'"),
    "an unknown column after semicolons": (b"source_session_id;colour\na;b\n", "unknown: 'colour'"),
    "another case": (b"source_session_id;Name\na;b\n", "unknown: 'Name' (did you mean name?)"),
    "the name on the wire": (b"sourceSessionId,name\na,b\n", "(did you mean source_session_id?)"),
    "a column without a name": (b"source_session_id,,name\na,,b\n", "unknown: a cell without a name"),
    "a cell too many": (b"source_session_id;name\na;b;c\n", "line 2, cell 3: there are only 2 columns; a cell that "),
    "a cell too many after empty ones": (b"source_session_id,name\na,b,,c\n", "line 2, cell 4: there are only 2 col"),
    "a cell too few": (b"source_session_id,name\na\n", "line 2: it has 1 of 2 cells; name is missing"),
    "a column twice": (b"name,source_session_id,name\na,b,c\n", "line 1: the column name is named twice"),
    "an object on many lines": (b'{\n"source_session_id": "a"}\n', "each object is on one line, or all are in one"),
    "bad JSON Lines": (b'{"name": "a" "b"}\n', "line 1, column 14: not JSON: Expecting ',' delimiter"),
    "bad JSON in an array": (b'[{"name": "a",\n"b"}]', "line 2, column 4: not JSON: Expecting ':' delimiter"),
    "an array that is cut": (b'\n[{"source_session_id": "a", "name": "b"}\n', "line 3: not JSON: the array does not"),
    "text after an array": (b'[{"source_session_id": "a", "name": "b"}] x', "line 1: not JSON: the array does not"),
    "a comma at the end": (b'[{"source_session_id": "a", "name": "b"},\n]', "line 2, column 1: not JSON"),
    "a number as an id": (b'[\n{"source_session_id": 7}]', "line 2, item 1: source_session_id must be text"),
    "a bad second item": (b'[{"source_session_id": "a", "name": "b"}, {"name": "c"}]', "line 1, item 2: a create"),
    "an unknown key in an array": (b'[{"Name": "a"}]', "unknown key 'Name' (did you mean name?)"),
    "a key twice in an array": (b'[{"name": "a", "name": "b"}]', "line 1, item 1: the key 'name' is there twice"),
    "a key twice in a line": (b'{"name": "a", "id": "b", "id": "c"}\n', "line 1: the key 'id' is there twice"),
    "an array of texts": (b'["a"]', "line 1, item 1: not an object"),
    "a deep array": (b"[" * 100_000, "line 1, item 1: not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_form_that_is_not_read_is_refused_with_the_cause(tmp_path: Path, form: str) -> None:
    content, reason = REFUSED[form]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    assert reason in str(caught.value)


def test_empty_array_and_rows_of_empty_cells_alone_are_no_operations(tmp_path: Path) -> None:
    for content in (b"[]", b" [ \n ] \n", b"source_session_id,name\n,\n,\n"):
        assert read(tmp_path, content) == []


def test_cell_of_white_space_is_an_empty_cell(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "kind,source_session_id,id,name,parent_id\ndelete, \t,SES1,\u00a0, \n".encode())
    assert (row["source_session_id"], row["session_id"], row["name"], row["parent_id"]) == (None, "SES1", None, None)
    with pytest.raises(UsageError, match="line 2: a create needs source_session_id and name"):
        read(tmp_path, b"source_session_id,name\n  ,N\n")
    file = tmp_path / "ids"
    file.write_text("source_session_id,other\n  ,x\n")
    with pytest.raises(UsageError, match="line 2: there is no source_session_id"):
        imports.read_sources(open_text(file))


def test_id_of_white_space_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: source_session_id: ' ' contains only white space"):
        read(tmp_path, b'{"source_session_id": " ", "name": "n"}')
    with pytest.raises(UsageError, match="line 1: id: ' ' contains only white space"):
        read(tmp_path, b'{"kind": "delete", "id": " "}')
    with pytest.raises(UsageError, match="line 1: ' ' contains only white space"):
        imports.read_sources(io.StringIO('{"source_session_id": " "}'))
