"""The commands on a database without a daemon: their output and their effects."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncd.cli import COMMANDS, SENTENCES, cli, sentence
from syncd.cli.common import operating_system_user, read, write
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.read import views
from syncd.mirror.schema.revisions import HEAD
from syncd.settings import Settings, load
from tests.cli.conftest import Call
from tests.helpers.postgres_server import free_port


def sql(statement: str) -> list[Any]:
    with closing(sqlite3.connect("syncd.db", isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(syncd: Call, command: str) -> None:
    shown = syncd(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: syncd {command} ")
    group = cli.commands.get(command) or cli.get_command(None, command)  # type: ignore[arg-type]
    for name in getattr(group, "commands", {}):
        assert syncd(command, name, "--help").code == 0


def test_list_of_commands_has_complete_sentences(syncd: Call) -> None:
    for group in ([], ["enqueue"], ["sources"], ["operations"], ["deletions"], ["quarantine"]):
        shown = syncd(*group, "--help").out
        assert "..." not in shown.partition("Commands:")[2], shown


def test_list_of_commands_has_the_first_sentence_of_each_help_text(syncd: Call) -> None:
    listed = " ".join(syncd("--help").out.split())
    for name in COMMANDS:
        said = sentence(cli.get_command(None, name))  # type: ignore[arg-type]
        assert f" {name} {said}" in listed
        assert SENTENCES.get(name, said) == said


def test_enqueue_makes_the_database_and_prints_the_operation(syncd: Call) -> None:
    created = syncd("enqueue", "create", "--source-session-id", "s", "--name", "N", "--parent-id", "P", "--json")
    assert (created.code, created.data) == (0, {"id": 1})
    deleted = syncd("enqueue", "delete", "--id", "CHS1", "--requested-by", "me")
    assert (deleted.code, deleted.out, deleted.err) == (0, "2\n", "")
    assert sql("SELECT kind, source_session_id, session_id, name, parent_id, requested_by, state FROM operations") == [
        ("create", "s", None, "N", "P", None, "pending"),
        ("delete", None, "CHS1", None, None, "me", "pending"),
    ]
    assert Path("syncd.db").stat().st_mode & 0o777 == 0o600


def test_enqueue_update_renames_moves_and_moves_out_of_the_folder(syncd: Call) -> None:
    assert syncd("enqueue", "update", "--id", "SES1", "--name", "N").out == "1\n"
    assert syncd("enqueue", "update", "--source-session-id", "s", "--parent-id", "FOL1", "--json").data == {"id": 2}
    assert syncd("enqueue", "update", "--id", "SES1", "--parent-id", "").code == 0
    assert sql("SELECT kind, source_session_id, session_id, name, parent_id FROM operations ORDER BY id") == [
        ("update", None, "SES1", "N", None),
        ("update", "s", None, None, "FOL1"),
        ("update", None, "SES1", None, ""),
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--id", "SES1"], "an update needs name or parent_id, or both"),
        (["--name", "N"], "an update needs id or source_session_id, exactly one of them"),
        (["--id", "SES1", "--source-session-id", "s", "--name", "N"], "exactly one of them"),
        (["--id", "SES1", "--name", ""], "name must not be empty"),
        (["--id", "..", "--name", "N"], "id: '..' cannot be an id"),
    ],
)
def test_update_with_invalid_options_is_a_usage_error(syncd: Call, options: list[str], problem: str) -> None:
    refused = syncd("enqueue", "update", *options)
    assert (refused.code, refused.out) == (2, "")
    assert problem in refused.err
    assert not Path("syncd.db").exists()


def test_import_reads_csv_and_json_lines_from_a_file_and_from_standard_input(syncd: Call) -> None:
    Path("rows.csv").write_text("source_session_id,name\na,A\n", encoding="utf-8-sig")
    assert syncd("enqueue", "import", "rows.csv").out == "queued 1 operation\n"
    lines = b'{"kind": "delete", "source_session_id": "b"}\n\n{"source_session_id": "c", "name": "C"}\n'
    assert syncd("enqueue", "import", "-", "--json", given=lines).data == {"queued": 2}
    assert sql("SELECT kind, source_session_id FROM operations ORDER BY id") == [
        ("create", "a"),
        ("delete", "b"),
        ("create", "c"),
    ]


def test_import_with_one_bad_row_is_refused_whole_with_its_line_and_reason(syncd: Call) -> None:
    Path("rows.csv").write_text("kind,source_session_id,name\ncreate,a,A\nchange,b,B\ncreate,c,C\n")
    refused = syncd("enqueue", "import", "rows.csv")
    assert refused.code == 2
    assert refused.err == "error: line 3: kind must be create, delete or update, not 'change'; nothing was queued\n"
    assert not Path("syncd.db").exists()


def test_dry_run_predicts_the_result_of_each_row_and_queues_nothing(syncd: Call) -> None:
    shown = syncd("enqueue", "import", "-", "--dry-run", "--json", given=b"source_session_id,name\na,A\na,A\n")
    assert shown.data["totals"] == {"created": 1, "there": 1}
    table = syncd("enqueue", "import", "-", "--dry-run", given=b"source_session_id,name\na,A\n")
    assert "LINE" in table.out
    said, warned = table.err.splitlines()
    assert said == "dry run, nothing was queued: 1 created"
    assert "no pass is complete yet" in warned
    assert not Path("syncd.db").exists()
    syncd("migrate")
    at = "2026-01-01T00:00:00.000000Z"
    sql(f"INSERT INTO passes (state, started_at, finished_at) VALUES ('complete', '{at}', '{at}')")
    again = syncd("enqueue", "import", "-", "--dry-run", given=b"source_session_id,name\na,A\n")
    assert again.err == "dry run, nothing was queued: 1 created\n"
    assert sql("SELECT * FROM operations") == []


def test_dry_run_works_beside_a_writer_and_changes_no_byte(syncd: Call) -> None:
    syncd("enqueue", "create", "--source-session-id", "a", "--name", "A")
    before = Path("syncd.db").read_bytes()
    with closing(sqlite3.connect("syncd.db", isolation_level=None)) as daemon:
        daemon.execute("BEGIN IMMEDIATE")
        shown = syncd("enqueue", "import", "-", "--dry-run", "--json", given=b"source_session_id,name\na,A\nb,B\n")
        daemon.execute("ROLLBACK")
    assert shown.data["totals"] == {"there": 1, "created": 1}
    assert Path("syncd.db").read_bytes() == before


def test_dry_run_makes_no_mirror_of_an_empty_file(syncd: Call) -> None:
    Path("syncd.db").touch()
    assert syncd("enqueue", "import", "-", "--dry-run", given=b"source_session_id,name\na,A\n").code == 0
    assert Path("syncd.db").read_bytes() == b""


def test_sources_are_added_once_imported_and_listed(syncd: Call) -> None:
    assert syncd("sources", "add", "a", "b", "a").out == "added 2, known already 1\n"
    assert syncd("sources", "import", "-", "--json", given=b"source_session_id\nb\nc\n").data == {
        "added": 1,
        "known": 1,
    }
    assert [row["source_session_id"] for row in syncd("sources", "list", "--json").data] == ["a", "b", "c"]
    others = b'customer,source_session_id,customer\nx,b,"1, 2"\n', b'{"n": 1, "source_session_id": "c", "n": 2}\n'
    assert [syncd("sources", "import", "-", given=given).out for given in others] == ["added 0, known already 1\n"] * 2
    refused = syncd("sources", "import", "-", given=b"customer\nx\n")
    assert (refused.code, refused.err.startswith("error: line 1: ")) == (2, True)
    assert syncd("sources", "list", "--state", "linked").out == "no source ids\n"
    assert len(syncd("sources", "list", "--limit", "2", "--json").data) == 2


def test_operations_are_listed_shown_cancelled_and_retried(syncd: Call) -> None:
    for _ in range(2):
        syncd("enqueue", "create", "--source-session-id", "s", "--name", "line\nbreak \x1b[31m")
    listed = syncd("operations", "list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", "2", "1"]
    assert [row["blocked_by"] for row in syncd("operations", "list", "--json").data] == [1, None]
    shown = syncd("operations", "show", "1")
    assert "line\\nbreak \\x1b[31m" in shown.out
    assert "blocked_by" not in shown.out
    assert "blocked_by         1\n" in syncd("operations", "show", "2").out
    assert syncd("operations", "show", "2", "--json").data["blocked_by"] == 1
    sql("UPDATE operations SET state = 'dead', finished_at = '2026-01-01T00:00:00.000000Z' WHERE id = 1")
    assert syncd("operations", "retry", "1").out == "operation 1 is pending again\n"
    refused = syncd("operations", "cancel", "1", "9", "--json")
    assert refused.code == 1
    assert refused.data == [{"id": 1, "error": None}, {"id": 9, "error": "there is no operation 9"}]
    assert refused.err == "error: there is no operation 9\n"
    assert syncd("operations", "cancel", "1").err == "error: operation 1 is cancelled, not dead, pending or unknown\n"


def test_status_of_an_empty_mirror_reports_that_no_pass_is_complete(syncd: Call) -> None:
    assert syncd("migrate").out == f"the schema was empty and is {HEAD} now\n"
    assert syncd("migrate", "--json").data == {"before": HEAD, "after": HEAD}
    shown = syncd("status")
    assert shown.code == 1
    assert "no pass has been complete yet" in shown.out


def test_status_reads_the_same_without_sqlalchemy(syncd: Call) -> None:
    syncd("enqueue", "create", "--source-session-id", "s", "--name", "N")
    syncd("sources", "add", "x")
    sql(
        "INSERT INTO passes (state, started_at, finished_at, seen) VALUES "
        "('complete', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:01.500000Z', 3)"
    )
    long, short = read(load({}).settings, views.overview), views.overview_of("sqlite+aiosqlite:///syncd.db")
    assert short is not None
    for overview in (long, short):
        assert overview["freshness"].pop("age_seconds") > 0
    assert short == long


def test_database_that_the_bare_driver_cannot_read_has_no_overview(tmp_path: Path) -> None:
    assert views.overview_of(f"sqlite+aiosqlite:///{tmp_path}/none.db") is None
    (tmp_path / "text.db").write_text("no database")
    assert views.overview_of(f"sqlite+aiosqlite:///{tmp_path}/text.db") is None
    assert views.overview_of(f"postgresql+asyncpg://stranger@127.0.0.1:{free_port()}/none") is None


def test_status_reads_the_same_of_postgresql_without_sqlalchemy(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCD_DATABASE_URL", postgres_url)
    add = "INSERT INTO passes (state, started_at, finished_at, seen) VALUES ('complete', now(), now(), 3)"
    write(load(dict(os.environ)).settings, lambda connection: connection.exec_driver_sql(add))
    long, short = read(load(dict(os.environ)).settings, views.overview), views.overview_of(postgres_url)
    assert short is not None
    for overview in (long, short):
        assert overview["freshness"].pop("age_seconds") >= 0
    assert short == long
    assert views.overview_of(f"{postgres_url}?prepared_statement_cache_size=0") is None


def test_config_shows_each_setting_with_its_origin_and_without_secrets(
    syncd: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCD_DATABASE_URL", "postgresql://reader:canary@db/syncd")
    monkeypatch.setenv("SYNCD_ENV_FILE", "first.env:my.env")
    Path("canary-token").write_text("canary-from-file")
    Path("first.env").write_text("SYNCD_LEASE=1\nSYNCD_PROXY=http://u:canary@proxy:3128\n")
    Path("my.env").write_text("ALBERT_TOKEN_FILE=canary-token\nSYNCD_LEASE=1.5m\n")
    shown = syncd("config", "--json")
    by_name = {row["setting"]: row for row in shown.data}
    assert by_name["SYNCD_LEASE"] == {"setting": "SYNCD_LEASE", "value": 90, "from": "my.env:2"}
    assert by_name["ALBERT_TOKEN"]["value"] == "********"
    assert by_name["ALBERT_TOKEN"]["from"] == "my.env:1: ALBERT_TOKEN_FILE=canary-token"
    assert by_name["SYNCD_DATABASE_URL"]["value"] == "postgresql+asyncpg://reader:***@db/syncd"
    assert by_name["SYNCD_PROXY"] == {
        "setting": "SYNCD_PROXY", "value": "http://u:***@proxy:3128", "from": "first.env:2",
    }  # fmt: skip
    assert by_name["SYNCD_RETRY_MAX"]["from"] == "default"
    assert set(by_name) == {name.upper() for name in Settings.model_fields}
    assert "canary-from-file" not in shown.out
    table = syncd("config").out
    assert ":canary@" not in table
    assert "SYNCD_AUTO_MIGRATE             true " in table
    assert "SYNCD_PASS_INTERVAL            300 " in table


def test_every_settings_problem_is_one_line_on_standard_error(syncd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my.env").write_text(
        "ALBERT_BASEURL=http://127.0.0.1:9\nSYNCD_PASS_INTERVAL=soon\nSYNCD_STATUS_HOST='a\nb'\n"
        "SYNCD_DATABASE_URL=postgresql+asyncpg://syncd:pa55@word@db.example.com/syncd\n"
    )
    monkeypatch.setenv("SYNCD_LEASE", "0")
    refused = syncd("once", "--env-file", "my.env")
    assert (refused.code, refused.out) == (2, "")
    lines = refused.err.splitlines()
    assert [re.split("[= (]", line.removeprefix("error: "))[0] for line in lines] == [
        "ALBERT_BASEURL", "SYNCD_STATUS_HOST", "SYNCD_DATABASE_URL", "SYNCD_PASS_INTERVAL", "SYNCD_LEASE", "no",
    ]  # fmt: skip
    assert "word" not in refused.err.replace("password", "")
    assert not Path("syncd.db").exists()


def test_quarantine_and_deletions_of_a_new_mirror_are_empty(syncd: Call) -> None:
    syncd("migrate")
    assert syncd("quarantine", "list").out == "nothing is in quarantine\n"
    assert syncd("quarantine", "replay", "--json").data == {"resolved": 0, "left": 0}


def test_items_are_accepted_by_a_person_and_listed_as_accepted(syncd: Call, tmp_path: Path) -> None:
    syncd("migrate")
    with closing(sqlite3.connect(tmp_path / "syncd.db")) as db, db:
        db.execute(
            "INSERT INTO quarantine (reason, payload, seen_at, fingerprint) "
            "VALUES ('no readable id', '{}', '2026-06-01T12:00:00.000000Z', 'f')"
        )
    refused = syncd("quarantine", "accept", "1", "2")
    assert (refused.code, refused.out) == (1, "")
    assert "there is no quarantine item 2; nothing was accepted; see: syncd quarantine list" in refused.err
    assert syncd("quarantine", "accept").code == 2
    assert syncd("quarantine", "accept", "1", "1", "--by", "alice", "--json").data == {"accepted": [1]}
    assert syncd("quarantine", "accept", "1").out == "accepted: 1\n"
    (item,) = syncd("quarantine", "list", "--json").data
    assert item["accepted_at"] is not None
    with closing(sqlite3.connect(tmp_path / "syncd.db")) as db:
        assert db.execute("SELECT by, subject FROM operator_actions").fetchall() == [("alice", "quarantine item 1")]
        assert db.execute("SELECT quarantined_items FROM mirror_freshness").fetchall() == [(0,)]
    assert syncd("deletions", "list", "--json").data == []


def test_sessions_of_a_held_pass_are_shown_before_a_decision(syncd: Call) -> None:
    syncd("migrate")
    at = "2026-01-01T00:00:00.000000Z"
    sql(f"INSERT INTO passes (state, started_at, finished_at, missing, hold_id) VALUES ('held', '{at}', '{at}', 1, 1)")
    sql(
        "INSERT INTO holds (pass_id, last_pass_id, state, reason, detail, opened_at, updated_at) "
        f"VALUES (1, 1, 'open', 'too_many_gone', 'too many', '{at}', '{at}')"
    )
    sql(
        "INSERT INTO sessions (key, id, name, source_session_id, extra, version, change, valid_from, first_seen_at) "
        f"VALUES (1, 'SES1', 'line\nbreak', 's-1', '{{}}', 1, 'created', '{at}', '{at}')"
    )
    sql("INSERT INTO hold_sessions (hold_id, session_key) VALUES (1, 1)")
    (row,) = syncd("deletions", "list", "--json").data
    assert (row["id"], row["state"], row["missing"], row["reason"]) == (1, "open", 1, "too_many_gone")
    assert "line\\nbreak" in syncd("deletions", "show", "1").out
    assert [row["id"] for row in syncd("deletions", "show", "1", "--json").data] == ["SES1"]
    rejected = syncd("deletions", "reject", "1", "--by", "alice", "--json")
    assert rejected.data == {"pass": 1, "decision": "rejected", "by": "alice", "sessions": 1}
    assert syncd("deletions", "list").out == "nothing is held\n"
    (row,) = syncd("deletions", "list", "--all", "--json").data
    assert (row["state"], row["decided_by"]) == ("rejected", "alice")
    assert "SES1" in syncd("deletions", "show", "1").out
    again = syncd("deletions", "reject", "1")
    assert (again.code, again.out, again.err) == (1, "", "error: pass 1 is rejected already\n")
    sql("UPDATE holds SET state = 'closed'")
    refused = syncd("deletions", "show", "1")
    assert (refused.code, refused.out) == (1, "")
    assert "syncd deletions list" in refused.err
    assert syncd("deletions", "approve", "2").err == "error: there is no pass 2\n"


def test_decision_is_recorded_by_default_for_the_user_of_the_operating_system(syncd: Call) -> None:
    syncd("migrate")
    at = "2026-01-01T00:00:00.000000Z"
    sql(f"INSERT INTO passes (state, started_at, finished_at, hold_id) VALUES ('held', '{at}', '{at}', 1)")
    sql(
        "INSERT INTO holds (pass_id, last_pass_id, state, reason, detail, opened_at, updated_at) "
        f"VALUES (1, 1, 'open', 'too_many_gone', 'too many', '{at}', '{at}')"
    )
    assert syncd("deletions", "approve", "1", "--json").data["by"] == operating_system_user()


def test_json_is_ascii_so_that_no_value_can_break_a_line_or_a_terminal(syncd: Call) -> None:
    syncd("enqueue", "create", "--source-session-id", "s", "--name", "\u2028\u202e\x1b")
    shown = syncd("operations", "list", "--json").out
    assert shown.isascii()
    assert json.loads(shown)[0]["name"] == "\u2028\u202e\x1b"


CASES = {
    "blank-rows.csv": b"kind,source_session_id,name,parent_id\r\ncreate,r-1,One,\r\ncreate,r-2,Two,FOL1\r\n"
    b"create,r-3,Three,\r\n,,,\r\n,,,\r\n",
    "semicolons.csv": b"kind;source_session_id;name\ncreate;r-1;One\ncreate;r-2;Two\ncreate;r-3;Three\n",
    "utf16.csv": "kind,source_session_id,name\ncreate,r-1,One\ncreate,r-2,Two\ncreate,r-3,Three\n".encode("utf-16"),
    "array.json": json.dumps(
        [{"kind": "create", "source_session_id": f"r-{n}", "name": "N"} for n in (1, 2, 3)]
    ).encode(),
}


@pytest.mark.parametrize("from_stdin", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_import_of_each_form_queues_the_same_three_creates(syncd: Call, name: str, *, from_stdin: bool) -> None:
    Path(name).write_bytes(CASES[name])
    arguments = ["-"] if from_stdin else [name]
    given = CASES[name] if from_stdin else b""
    dry = syncd("enqueue", "import", *arguments, "--dry-run", "--json", given=given).data
    assert (dry["totals"], dry["lookalikes"]) == ({"created": 3}, [])
    assert not Path("syncd.db").exists()
    assert syncd("enqueue", "import", *arguments, given=given).out == "queued 3 operations\n"
    listed = syncd("operations", "list", "--json").data
    assert sorted(row["source_session_id"] for row in listed) == ["r-1", "r-2", "r-3"]
    assert syncd("sources", "import", *arguments, given=given).out == "added 0, known already 3\n"


def test_dry_run_reports_ids_that_look_the_same(syncd: Call) -> None:
    syncd("sources", "add", "known-1")
    text = (
        'kind,source_session_id,name\ncreate,r-1,One\ncreate,"r-1 ",One again\ncreate,R\u200b-1,x\ncreate,KNOWN-1,y\n'
    )
    planned = syncd("enqueue", "import", "-", "--dry-run", given=text.encode())
    assert planned.code == 0
    assert [line for line in planned.out.splitlines() if line.startswith("lookalike")] == [
        "lookalike: line 3: source_session_id 'r-1 ' differs from 'r-1' (line 2) only in white space",
        (
            "lookalike: line 4: source_session_id 'R\\u200b-1' differs from 'r-1' (line 2) "
            "only in invisible characters and case"
        ),
        "lookalike: line 5: source_session_id 'KNOWN-1' differs from 'known-1' (mirror) only in case",
    ]
    as_json = syncd("enqueue", "import", "-", "--dry-run", "--json", given=text.encode()).data
    assert as_json["lookalikes"][2] == {
        "place": "line 5", "column": "source_session_id", "value": "KNOWN-1", "resembles": "known-1",
        "resembles_in": "mirror", "differs_in": ["case"],
    }  # fmt: skip
    added = syncd("sources", "import", "-", given=text.encode())
    assert "lookalike: line 5: source_session_id 'KNOWN-1' differs from 'known-1' (mirror) only in case" in added.err
    assert added.out == "added 4, known already 0\n"
    queued = syncd("enqueue", "import", "-", given=text.encode())
    assert "lookalike: line 4: source_session_id 'R\\u200b-1' differs from 'r-1' (line 2)" in queued.err
    assert queued.out == "queued 4 operations\n"
