"""Environment files: what syncd, Docker and systemd read from the same line. The table in the docs is held to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncd.settings.env_files import read_env_file
from syncd.settings.values import stripped
from tests.settings.env_file_readers import DOCKER, SYSTEMD, read_by_docker, read_by_systemd
from tests.settings.helpers import SECRET, env_file, problems

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(.*A.*)` \| (.*) \| (.*) \| (.*) \|$", re.MULTILINE)
SHOWN = {"␍": "\r", "␠": " ", "[BOM]": "\ufeff"}
"""How the table shows characters that a page cannot."""


def rows() -> list[tuple[str, str, str, str]]:
    table = PAGE.read_text(encoding="utf-8").partition("## Environment files")[2].partition("\n## ")[0]
    matches = ROW.findall(table)
    assert len(matches) >= 12
    return matches


def written(folder: Path, line: str) -> Path:
    """Write the file that a row of the table shows."""
    for shown, meant in SHOWN.items():
        line = line.replace(shown, meant)
    file = folder / "lines.env"
    file.write_bytes(f"{line}\n".encode())
    return file


def as_in_the_table(value: str | None) -> str:
    if value is None:
        return "not set"
    return "`" + re.sub("^ | $", "␠", value.replace("\r", "␍").replace("\ufeff", "[BOM]")) + "`"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_row_says_what_syncd_reads(tmp_path: Path, row: tuple[str, str, str, str]) -> None:
    line, expected, *_ = row
    refusals: list[str] = []
    values = {
        variable.name: stripped(variable.value)
        for variable in read_env_file(written(tmp_path, line), "--env-file", refusals)
    }
    assert ("refused" if refusals else as_in_the_table(values.get("A"))) == expected


@pytest.mark.skipif(DOCKER is None, reason="needs the docker command")
@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_row_says_what_docker_reads(tmp_path: Path, row: tuple[str, str, str, str]) -> None:
    line, _, expected, _ = row
    values = read_by_docker(tmp_path, written(tmp_path, line))
    assert ("refused" if values is None else as_in_the_table(values.get("A"))) == expected


@pytest.mark.skipif(not SYSTEMD.exists(), reason="needs systemd")
@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_row_says_what_systemd_reads(tmp_path: Path, row: tuple[str, str, str, str]) -> None:
    line, _, _, expected = row
    assert as_in_the_table(read_by_systemd(tmp_path, written(tmp_path, line)).get("A")) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SYNCD_LEASE=5\nnot a setting\n", 2),
        (f'ALBERT_TOKEN="{SECRET}\n', 1),
        ("SYNCD_LEASE\n", 1),
        ("SYNCD_LEASE: 5\n", 1),
        ("\n\n# a comment\n\nSYNCD_LEASE=5 x\n\n\n  SYNCD_RETRY_MAX\n", 8),
    ],
)
def test_line_that_sets_nothing_is_reported_with_its_number_and_without_its_text(
    tmp_path: Path, text: str, line: int
) -> None:
    file = env_file(tmp_path, text)
    (problem, *_) = problems({}, file)
    assert problem.startswith(f"{file}:{line}: not NAME=value")
    assert SECRET not in problem


def test_line_number_counts_empty_lines_comments_and_values_of_several_lines(tmp_path: Path) -> None:
    file = env_file(tmp_path, "\r\n# one\r\n\r\nA=1\r\nB='x\ny'\n\n  C=3\n")
    places = {variable.name: variable.origin for variable in read_env_file(file, "--env-file", [])}
    assert places == {"A": f"{file}:4", "B": f"{file}:5", "C": f"{file}:8"}


@pytest.mark.parametrize("name", ['"SYNCD_LEASE"', "\u200bSYNCD_LEASE"])
def test_name_with_a_character_that_no_name_has_is_a_problem(tmp_path: Path, name: str) -> None:
    file = env_file(tmp_path, f"{name}=7\n")
    (problem,) = problems({}, file)
    assert problem.startswith(f"{file}:1: ")
    assert problem.endswith(" is not a name; write SYNCD_LEASE=...")
