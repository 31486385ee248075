"""Commands that write bring an older schema to head first, unless a daemon works on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.mirror.db.daemon_lock import daemon_lock
from syncd.mirror.db.sqlite import sync_engine
from tests.cli.conftest import Call
from tests.helpers.old_schema import upgrade


def make_older() -> None:
    engine = sync_engine(Path("syncd.db"))
    with engine.begin() as connection:
        upgrade(connection, "0008")
    engine.dispose()


def test_import_into_an_older_schema_brings_it_to_head(syncd: Call) -> None:
    make_older()
    queued = syncd("enqueue", "import", "-", given=b"source_session_id,name\na,A\n")
    assert (queued.code, queued.out) == (0, "queued 1 operation\n"), queued.err


@pytest.mark.parametrize("command", [("migrate",), ("enqueue", "delete", "--id", "SES1"), ("sources", "add", "s-1")])
def test_schema_is_not_changed_under_a_daemon_of_an_older_release(syncd: Call, command: tuple[str, ...]) -> None:
    make_older()
    with daemon_lock(Path("syncd.db"), "run"):
        refused = syncd(*command)
        assert (refused.code, refused.out) == (3, "")
        assert "syncd.db is held by syncd run, process " in refused.err
    assert syncd(*command).code == 0
