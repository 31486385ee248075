"""Output on streams that are not UTF-8: what they cannot show is escaped, and no command fails for it."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers import fork_server
from tests.helpers.programs import environment

pytestmark = pytest.mark.timeout(120)
NAME = "Zäh … 粘度 🧪"
STREAMS = {
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "the C locale": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "ascii"),
    "the C locale with coercion": ({"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"}, "utf-8"),
}


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    return fork_server.run_blocking(arguments, environment=environment(folder, **more), folder=folder)


@pytest.mark.parametrize("stream", STREAMS)
def test_tables_and_logs_escape_characters_that_the_stream_cannot_encode(tmp_path: Path, stream: str) -> None:
    more, encoding = STREAMS[stream]
    assert run(tmp_path, "enqueue", "create", "--source-session-id", NAME, "--name", NAME).returncode == 0
    outputs = []
    for command in (["operations", "list"], ["operations", "show", "1"], ["sources", "list"], ["doctor"], ["--help"]):
        done = run(tmp_path, *command, **more)
        assert done.returncode == (2 if command == ["doctor"] else 0)
        outputs += [done.stdout, done.stderr]
    settings = {"ALBERT_TOKEN": "t", "ALBERT_BASE_URL": "http://127.0.0.1:9", "SYNCD_RETRY_MAX": "0"}
    once = run(tmp_path, "once", SYNCD_LOG_FORMAT="console", SYNCD_LOG_LEVEL="debug", **settings, **more)
    assert once.returncode == 1
    outputs += [once.stdout, once.stderr]
    for output in outputs:
        assert b"Traceback" not in output
        output.decode(encoding)
    shown = NAME.encode(encoding, "backslashreplace")
    assert shown in outputs[0]  # the table
    assert shown in outputs[2]


def test_columns_of_a_table_are_aligned_with_escapes(tmp_path: Path) -> None:
    for name in ("粘度", "plain"):
        run(tmp_path, "sources", "add", name)
    done = run(tmp_path, "sources", "list", PYTHONIOENCODING="latin-1")
    places = {line.index("unresolved") for line in done.stdout.decode("latin-1").splitlines()[1:]}
    assert len(places) == 1


def test_file_name_that_is_not_utf_8_is_escaped_where_it_is_printed_or_recorded(tmp_path: Path) -> None:
    name = "b\udcff.db"
    assert run(tmp_path, "enqueue", "delete", "--id", "SES1").returncode == 0
    printed = {
        "backup": run(tmp_path, "backup", name),
        "export": run(tmp_path, "export", "e\udcff", "--format", "csv"),
        "restore": run(tmp_path, "restore", name),
    }
    shown = {"backup": rb"b\udcff.db: ", "export": rb"e\udcff/operations.csv ", "restore": rb"restored b\udcff.db to "}
    for command, done in printed.items():
        assert (done.returncode, shown[command] in done.stdout) == (0, True), done.stderr
    with closing(sqlite3.connect(tmp_path / "syncd.db")) as connection:
        (detail,) = connection.execute("SELECT detail FROM operator_actions").fetchone()
    assert detail.startswith(r"b\udcff.db, schema ")
