"""`syncd export`: all of one moment, whole or not at all, read back with the tools that people would use."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa
from pyarrow import parquet

from syncd.errors import SyncdError, UsageError
from syncd.files import formats
from syncd.files.exports import MANIFEST, export, plan
from syncd.files.formats import Format
from syncd.mirror.read import catalog, rows
from syncd.sandbox import Habits
from tests.helpers.harness import Harness, open_harness
from tests.helpers.sample_history import HOSTILE, make_history, moment

pytestmark = pytest.mark.both_databases

FORMATS: tuple[Format, ...] = get_args(Format)
NAMES = catalog.EXPORTED_BY_DEFAULT
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def ignore(_: int) -> None:
    pass


async def write(harness: Harness, folder: Path, format: Format, **options: Any) -> dict[str, Any]:
    planned = plan(folder, format, **options)
    return await harness.database.read(lambda c: export(c, planned, now=NOW, begin=ignore, advance=ignore))


def read_back(folder: Path, name: str, format: Format) -> list[dict[str, Any]]:
    path = folder / f"{name}.{format}"
    if format == "parquet":
        return parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]
    text = path.read_bytes().decode()
    if format == "jsonl":
        return [json.loads(line) for line in text.split("\n")[:-1]]
    return list(csv.DictReader(text.splitlines(keepends=True)))


@pytest.mark.parametrize("format", FORMATS)
async def test_export_contains_the_rows_of_the_views(tmp_path: Path, format: Format) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25, extra_fields=True)) as harness:
        await make_history(harness)
        summary = await write(harness, tmp_path / "out", format)
        for name in NAMES:
            exported = read_back(tmp_path / "out", name, format)
            expected = await harness.sql(f"SELECT {', '.join(catalog.EXPORTED[name])} FROM {name}")
            assert len(exported) == len(expected) > 0 or name in {"chat_folders", "quarantine"}, name
            assert sorted(map(comparable, exported), key=repr) == sorted(map(comparable, expected), key=repr), name
        assert {file["file"]: file["rows"] for file in summary["files"]} == {
            f"{name}.{format}": len(read_back(tmp_path / "out", name, format)) for name in NAMES
        }
        assert HOSTILE in {row["name"] for row in read_back(tmp_path / "out", "chat_sessions", format)}


def comparable(row: dict[str, Any]) -> dict[str, str]:
    """Make rows of any format alike: a CSV has no null, no number and no time."""

    def one(name: str, value: Any) -> str:
        if value in (None, ""):
            return ""
        if name == "extra":
            return json.dumps(value if isinstance(value, dict) else json.loads(value), sort_keys=True)
        if name.endswith(("_at", "_since", "_from", "_to")) or name == "not_before":
            return f"{moment(value):%Y-%m-%dT%H:%M:%S.%fZ}"
        return str(value)

    return {name: one(name, value) for name, value in row.items()}


async def test_duckdb_counts_the_same_in_each_format(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=60, habits=Habits(page_size=25, extra_fields=True)) as harness:
        await make_history(harness)
        (live,) = await harness.sql("SELECT count(*) AS n, count(DISTINCT name) AS names FROM chat_sessions")
        for kind in FORMATS:
            await write(harness, tmp_path / "out", kind)
            reader = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[kind]
            file = tmp_path / "out" / f"chat_sessions.{kind}"
            with duckdb.connect() as duck:
                query = f"SELECT count(*), count(DISTINCT name), count(created_at) FROM {reader}('{file}')"
                assert duck.sql(query).fetchall() == [(live["n"], live["names"], live["n"])], kind


async def test_parquet_has_times_as_timestamps_and_extra_as_text(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        await write(harness, tmp_path / "out", "parquet")
        kinds = {
            field.name: field.type for field in parquet.read_schema(tmp_path / "out" / "chat_sessions_all.parquet")
        }
        for name in ("created_at", "updated_at", "last_message_at", "first_seen_at", "missing_since", "deleted_at"):
            assert kinds[name] == pa.timestamp("us", tz="UTC"), name
        assert kinds["extra"] == pa.string()
        assert parquet.read_schema(tmp_path / "out" / "passes.parquet").field("seen").type == pa.int64()


async def test_empty_mirror_exports_files_with_columns_and_no_rows(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for kind in FORMATS:
            await write(harness, tmp_path / "out", kind)
            assert all(read_back(tmp_path / "out", name, kind) == [] for name in NAMES)
        header = (tmp_path / "out" / "operations.csv").read_bytes()
        assert header == ",".join(catalog.OPERATION_COLUMNS).encode() + b"\r\n"
        assert parquet.read_schema(tmp_path / "out" / "operations.parquet").names == list(catalog.OPERATION_COLUMNS)


async def test_second_export_replaces_the_first_and_keeps_other_formats_known(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        kinds: tuple[Format, ...] = ("csv", "jsonl", "csv")
        for kind in kinds:
            await write(harness, tmp_path / "out", kind)
        files = {file["file"] for file in json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]}
        assert files == {f"{name}.{kind}" for name in NAMES for kind in kinds}
        assert {path.name for path in (tmp_path / "out").iterdir()} == files | {MANIFEST}


def test_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "passes.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"passes\.csv, which syncd did not write"):
        plan(tmp_path, "csv")
    assert (tmp_path / "passes.csv").read_text() == "mine"
    plan(tmp_path, "jsonl")  # its files are no obstacle


def test_dangling_link_in_the_place_of_a_file_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "passes.csv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="did not write"):
        plan(tmp_path, "csv")


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3}', '{"files": [1]}'])
def test_manifest_of_somebody_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UsageError, match="is not a manifest of syncd"):
        plan(tmp_path, "csv")


@pytest.mark.parametrize("format", FORMATS)
async def test_full_disk_leaves_the_last_export_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        await write(harness, tmp_path / "out", format)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        calls: list[int] = []

        def fsync(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(SyncdError, match="No space left on device"):
            await write(harness, tmp_path / "out", format)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


async def test_failed_export_ends_its_query_before_the_connection_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, stream = [], rows.stream

    def watched(connection: sa.Connection, name: str, *, since: int | None) -> Iterator[Sequence[Any]]:
        try:
            yield from stream(connection, name, since=since)
        finally:
            ended.append(not connection.closed)

    def full(_writer: object, _chunk: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rows, "stream", watched)
    monkeypatch.setattr(formats.JsonLines, "write", full)
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        with pytest.raises(SyncdError, match="No space left on device"):
            await write(harness, tmp_path / "out", "jsonl")
        assert ended == [True]


async def test_failed_rename_reports_how_many_files_are_new(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        out = tmp_path / "out"
        await write(harness, out, "csv")
        (out / "chat_session_history.csv").unlink()
        (out / "chat_session_history.csv").mkdir()
        manifest = (out / MANIFEST).read_bytes()
        with pytest.raises(SyncdError, match=r"at chat_session_history\.csv: Is a directory; [1-8] of 9 files are new"):
            await write(harness, out, "csv")
        assert (out / MANIFEST).read_bytes() == manifest  # it speaks of what was there before
        assert {path.name for path in out.iterdir()} == {*(f"{name}.csv" for name in NAMES), MANIFEST}


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await write(harness, tmp_path / "out", "csv")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o600}


async def test_csv_escapes_formulas_only_on_request(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=12, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
        await write(harness, tmp_path / "as_is", "csv")
        await write(harness, tmp_path / "safe", "csv", escape_formulas=True)
        names = [
            {row["id"]: row["name"] for row in read_back(tmp_path / folder, "chat_sessions", "csv")}
            for folder in ("as_is", "safe")
        ]
        assert names[0]["SES1"] == HOSTILE
        assert names[1]["SES1"] == f"'{HOSTILE}"
        assert names[0].items() - names[1].items() == {("SES1", HOSTILE)}


def test_escaping_formulas_is_for_csv_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--format csv"):
        plan(tmp_path, "jsonl", escape_formulas=True)


def test_missing_pyarrow_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"-m pip install 'syncd\[parquet\]'") as refused:
        plan(tmp_path / "out", "parquet")
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


async def test_rows_are_read_in_chunks_and_written_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(formats, "ROWS_OF_A_GROUP", 20)
    async with open_harness(tmp_path, sessions=35) as harness:
        await harness.one_pass()

        def work(connection: sa.Connection) -> list[int]:
            return [len(chunk) for chunk in rows.stream(connection, "chat_sessions")]

        assert await harness.database.read(work) == [10, 10, 10, 5]
        await write(harness, tmp_path / "out", "parquet")
        file = parquet.ParquetFile(tmp_path / "out" / "chat_sessions.parquet")
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [20, 15]


async def test_parquet_footer_and_manifest_name_version_origin_and_moment(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.one_pass()
        await harness.sql("INSERT INTO mirror_identity (id, origin) VALUES (1, 'https://albert.example')")
        summary = await write(harness, tmp_path / "out", "parquet")
        footer = parquet.read_schema(tmp_path / "out" / "chat_sessions.parquet").metadata
        expected = {
            "exported_at": "2026-06-01T00:00:00.000000Z", "version": version("syncd"),
            "origin": "https://albert.example", "last_complete_pass_at": "2026-06-01T12:00:00.000000Z", "last_seq": 5,
        }  # fmt: skip
        assert {name: footer[f"syncd.{name}".encode()].decode() for name in expected} == {
            name: str(value) for name, value in expected.items()
        }
        manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
        assert {name: manifest[name] for name in expected} == expected
        assert {name: summary[name] for name in expected} == expected


async def test_export_since_a_seq_has_the_later_changes_in_their_order(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=12, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
        everything = await write(harness, tmp_path / "out", "jsonl", since=0)
        first = read_back(tmp_path / "out", "chat_session_changes", "jsonl")
        assert [row["seq"] for row in first] == sorted(row["seq"] for row in first)
        assert len(first) == len(await harness.sql("SELECT session_id FROM chat_session_history"))
        harness.sandbox.update("SES9", name="later")
        await harness.one_pass()
        summary = await write(harness, tmp_path / "out", "jsonl", since=everything["last_seq"])
        assert [file["file"] for file in summary["files"]] == ["chat_session_changes.jsonl"]
        (later,) = read_back(tmp_path / "out", "chat_session_changes", "jsonl")
        assert (later["session_id"], later["name"], later["seq"]) == ("SES9", "later", summary["last_seq"])
        assert json.loads((tmp_path / "out" / MANIFEST).read_text())["since"] == everything["last_seq"]
        with pytest.raises(UsageError, match="older than the reader"):
            await write(harness, tmp_path / "out", "jsonl", since=summary["last_seq"] + 1)


def test_since_is_for_the_change_feed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --only out"):
        plan(tmp_path, "csv", only=("chat_sessions",), since=0)


@pytest.mark.parametrize("name", [*catalog.VIEWS, *catalog.TABLES])
async def test_each_view_and_table_can_be_exported_alone(tmp_path: Path, name: str) -> None:
    async with open_harness(tmp_path, sessions=12, habits=Habits(page_size=25)) as harness:
        await make_history(harness)
        await write(harness, tmp_path / "out", "parquet", only=(name,))
        assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.parquet", MANIFEST}
        assert parquet.read_schema(tmp_path / "out" / f"{name}.parquet").names == list(catalog.EXPORTED[name])


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_mode_is_that_of_the_option_then_that_of_the_replaced_file(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=3) as harness:
        await harness.one_pass()
        out = tmp_path / "out"
        await write(harness, out, "csv", mode=0o640)
        assert modes(out) == {0o640}
        await write(harness, out, "csv")
        assert modes(out) == {0o640}
        await write(harness, out, "csv", mode=0o600)
        assert modes(out) == {0o600}


async def test_readers_of_the_files_can_enter_a_new_directory_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        plan(tmp_path / "parent" / "group", "csv", mode=0o640)
        plan(tmp_path / "owner", "csv")
    finally:
        os.umask(before)
    permissions = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert permissions == {"parent": 0o750, "group": 0o750, "owner": 0o700}


@pytest.mark.sqlite
async def test_text_that_is_not_utf8_is_exported_with_a_replacement(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES (CAST(X'6180' AS TEXT))")
        for kind in FORMATS:
            await write(harness, tmp_path / "out", kind)
            (row,) = read_back(tmp_path / "out", "source_sessions", kind)
            assert row["source_session_id"] == "a\ufffd", kind
