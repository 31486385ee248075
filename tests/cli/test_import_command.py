"""`syncd enqueue import`: the place of each row in a dry run."""

from __future__ import annotations

import json

from tests.cli.conftest import Call

ROWS = [{"source_session_id": f"s-{n}", "name": "n"} for n in (1, 2)]


def test_dry_run_numbers_the_items_of_a_json_array(syncd: Call) -> None:
    array = json.dumps(ROWS).encode()
    table = syncd("enqueue", "import", "-", "--dry-run", given=array).out.splitlines()
    assert [line.split()[:4] for line in table] == [
        ["LINE", "ITEM", "KIND", "SOURCE_SESSION_ID"],
        ["1", "1", "create", "s-1"],
        ["1", "2", "create", "s-2"],
    ]
    planned = syncd("enqueue", "import", "-", "--dry-run", "--json", given=array).data["rows"]
    assert [(row["line"], row["item"]) for row in planned] == [(1, 1), (1, 2)]


def test_dry_run_of_json_lines_and_csv_shows_lines_alone(syncd: Call) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    for given in (lines, b"source_session_id,name\ns-1,n\ns-2,n\n"):
        table = syncd("enqueue", "import", "-", "--dry-run", given=given).out.splitlines()
        assert table[0].split()[:2] == ["LINE", "KIND"]


def test_id_of_white_space_is_refused_as_an_argument(syncd: Call) -> None:
    for command in (("enqueue", "create", "--source-session-id", " ", "--name", "n"), ("sources", "add", " ")):
        refused = syncd(*command)
        assert (refused.code, "' ' contains only white space" in refused.err) == (2, True)
