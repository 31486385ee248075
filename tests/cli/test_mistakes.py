"""Mistakes of users: each gives an error message on stderr and the right exit code, and never a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Call

NO_DATABASE = [
    ["status"], ["operations", "list"], ["operations", "show", "1"], ["operations", "retry", "1"], ["sources", "list"],
    ["deletions", "list"], ["deletions", "approve", "1"], ["quarantine", "list"], ["quarantine", "replay"],
]  # fmt: skip

USAGE = [
    ["nonsense"], ["run", "--nonsense"], ["enqueue", "create", "--name", "N"], ["enqueue", "delete"],
    ["enqueue", "delete", "--id", "a", "--source-session-id", "b"], ["enqueue", "delete", "--id", ".."],
    ["enqueue", "delete", "--id", ""], ["enqueue", "create", "--source-session-id", "a\nb", "--name", "N"],
    ["enqueue", "create", "--source-session-id", "s", "--name", ""],
    ["enqueue", "create", "--source-session-id", "s", "--name", "\udcff"],
    ["enqueue", "create", "--source-session-id", "\udcff", "--name", "N"],
    ["enqueue", "import"], ["enqueue", "import", "none.csv"], ["enqueue", "import", "."], ["sources", "add"],
    ["sources", "add", "."], ["sources", "import", "none.csv"], ["sources", "list", "--state", "nonsense"],
    ["operations", "show", "x"], ["operations", "show", "0"], ["operations", "show", "9" * 30],
    ["operations", "retry"], ["operations", "list", "--limit", "0"], ["operations", "list", "--limit", "9" * 30],
    ["deletions", "approve", "-1"], ["config", "--env-file", "none.env"], ["config", "--env-file", "."],
    ["run"], ["once"], ["sandbox", "--port", "99999"], ["sandbox", "--page-size", "0"], ["sandbox", "--error-500", "2"],
    ["sandbox", "--broken-items", "{"],
    ["demo", "--sessions", "1"], ["demo", "--database", "kept.db"],
    ["migrate", "--sql", "--from", "9999"], ["migrate", "--sql", "--json"], ["migrate", "--from", "0001"],
]  # fmt: skip


@pytest.mark.parametrize("command", NO_DATABASE, ids=" ".join)
def test_command_that_reads_creates_no_database_and_names_the_command_that_does(
    syncd: Call, command: list[str]
) -> None:
    refused = syncd(*command)
    assert (refused.code, refused.out) == (3, "")
    assert "there is no database" in refused.err
    assert "syncd once" in refused.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [["status"], ["export", "out", "--format", "csv"], ["doctor"]], ids=" ".join)
def test_database_name_that_is_too_long_for_a_file_is_reported(
    syncd: Call, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("SYNCD_DATABASE_URL", f"sqlite+aiosqlite:///{'n' * 300}.db")
    monkeypatch.setenv("ALBERT_TOKEN", "t")
    monkeypatch.setenv("ALBERT_BASE_URL", "http://127.0.0.1:9")
    refused = syncd(*command)
    assert refused.code == (1 if command == ["doctor"] else 3)
    assert "File name too long" in refused.err + refused.out


def test_link_or_directory_at_the_path_of_the_database_is_named_in_the_error(syncd: Call) -> None:
    Path("syncd.db").symlink_to("unmounted.db")
    refused = syncd("migrate")
    assert refused.code == 3
    assert re.search(r"syncd\.db is a link to /.*/unmounted\.db, which does not exist", refused.err)
    assert not Path("unmounted.db").exists()
    Path("syncd.db").unlink()
    Path("syncd.db").mkdir()
    assert "syncd.db is a directory" in syncd("migrate").err
    assert "syncd.db is not a file" in syncd("sources", "list").err


@pytest.mark.parametrize("options", [[], ["--database", "n" * 300]], ids=["may not be replaced", "name is too long"])
def test_demo_whose_file_cannot_be_made_is_wrong_use(syncd: Call, options: list[str]) -> None:
    Path("syncd-demo.db-wal").mkdir()  # no user can unlink it, not even root
    refused = syncd("demo", *options)
    assert (refused.code, refused.out) == (2, "")
    assert "cannot be made" in refused.err
    assert "--database" in refused.err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_demo_in_a_folder_that_may_not_be_written_is_wrong_use(syncd: Call) -> None:
    Path("syncd-demo.db").touch()
    Path().chmod(0o500)
    refused = syncd("demo")
    Path().chmod(0o700)
    assert refused.code == 2
    assert "Permission denied" in refused.err


@pytest.mark.parametrize("command", USAGE, ids=ascii)
def test_wrong_use_exits_2_with_an_error_and_creates_nothing(syncd: Call, command: list[str]) -> None:
    Path("kept.db").write_text("mine")
    refused = syncd(*command)
    assert (refused.code, refused.out) == (2, "")
    assert "rror: " in refused.err
    assert "Traceback" not in refused.err
    assert [path.name for path in Path().iterdir()] == ["kept.db"]
    assert Path("kept.db").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"\xff\xfe", b"nonsense\nx\n", b"kind,kind\na,b\n", b"source_session_id,name\na\n",
        b"source_session_id,name\na,b,c\n", b'source_session_id,name\n"a,b\n', b"{nonsense}\n", b'{"a": 1}\n',
        b'{"source_session_id": 5, "name": "n"}\n', b'{"source_session_id": "s", "name": "\\ud800"}\n',
        b"source_session_id,name\n..,N\n", b"source_session_id,name\n,N\n", b"[1]\n",
        b'{"source_session_id": "s", "name": "N"}\n' + b"[" * 100_000 + b"\n",
    ],
    ids=ascii,
)  # fmt: skip
def test_invalid_import_file_is_refused_with_the_line(syncd: Call, content: bytes) -> None:
    refused = syncd("enqueue", "import", "-", given=content)
    assert (refused.code, refused.out) == (2, "")
    assert "line " in refused.err or "UTF-8" in refused.err
    assert not Path("syncd.db").exists()


def test_unknown_operation_and_pass_exit_1_and_name_it(syncd: Call) -> None:
    syncd("migrate")
    assert "there is no operation 7" in syncd("operations", "show", "7").err
    assert syncd("operations", "show", "7").code == 1
    assert syncd("operations", "retry", "7").code == 1
    approved = syncd("deletions", "approve", "7")
    assert (approved.code, approved.err) == (1, "error: there is no pass 7\n")


def test_database_that_is_a_folder_or_in_no_folder_exits_3(syncd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir()
    for path in ("folder", "none/syncd.db"):
        monkeypatch.setenv("SYNCD_DATABASE_URL", f"sqlite:///{path}")
        for command in (["migrate"], ["status"], ["sources", "add", "a"]):
            assert syncd(*command).code == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_database_that_may_not_be_written_exits_3(syncd: Call) -> None:
    syncd("migrate")
    Path("syncd.db").chmod(0o400)
    assert syncd("sources", "add", "a").code == 3
