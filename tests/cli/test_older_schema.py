"""Commands that write bring an older schema to head first."""

from __future__ import annotations

from pathlib import Path

from syncd.mirror.db.sqlite import sync_engine
from tests.cli.conftest import Call
from tests.helpers.old_schema import upgrade


def test_import_into_an_older_schema_brings_it_to_head(syncd: Call) -> None:
    engine = sync_engine(Path("syncd.db"))
    with engine.begin() as connection:
        upgrade(connection, "0008")
    engine.dispose()
    queued = syncd("enqueue", "import", "-", given=b"source_session_id,name\na,A\n")
    assert (queued.code, queued.out) == (0, "queued 1 operation\n"), queued.err
