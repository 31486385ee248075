"""The checks of `syncd doctor` on what surrounds syncd: the disk, the folder, proxies, the base URL, the clock."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from syncd.cli.surroundings import Finding, check_clock, check_folder, check_network
from syncd.settings import load

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def network(**environment: str) -> dict[str, Finding]:
    settings = load({"ALBERT_TOKEN": "t", **environment}, (), credentials=True).settings
    return {finding.check: finding for finding in check_network(settings, environment)}


def test_path_of_the_api_in_the_base_url_is_bad_and_the_right_url_is_named() -> None:
    finding = network(ALBERT_BASE_URL="https://albert.test/prefix/api/v3")["base URL"]
    assert (finding.verdict, finding.fix) == ("bad", "set ALBERT_BASE_URL=https://albert.test/prefix")
    assert network(ALBERT_BASE_URL="https://albert.test/prefix") == {}


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_proxy_variable_that_is_ignored_is_a_warning_unless_a_proxy_is_set(name: str) -> None:
    assert network(**{name: "http://proxy.test:3128"})["proxy"].verdict == "warning"
    assert "proxy" not in network(**{name: "http://proxy.test:3128", "SYNCD_PROXY": "http://proxy.test:3128"})


@pytest.mark.parametrize("seconds", [-61, 61, 86_400])
def test_clock_that_differs_from_that_of_albert_by_more_than_a_minute_is_a_warning(seconds: float) -> None:
    (finding,) = check_clock(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW)
    assert finding.verdict == "warning"
    assert ("behind" if seconds > 0 else "ahead of") in finding.detail


@pytest.mark.parametrize("date", [None, "yesterday", "", "Mon, 01 Jan 99999999999 00:00:00 GMT"])
def test_answer_without_a_readable_date_causes_no_report_about_the_clock(date: str | None) -> None:
    assert list(check_clock(date, NOW)) == []


def test_clock_that_agrees_is_ok() -> None:
    assert [finding.verdict for finding in check_clock(format_datetime(NOW, usegmt=True), NOW)] == ["ok"]


@pytest.mark.parametrize("free_files", [5, 1000])
@pytest.mark.parametrize("free_blocks", [5, 1 << 40])
def test_little_space_and_few_inodes_are_a_warning_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_blocks: int, free_files: int
) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[4:8] = [free_blocks, 1000, free_files, free_files]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    findings = {finding.check: (finding.verdict, finding.detail) for finding in check_folder(tmp_path / "syncd.db")}
    space, inodes = findings["disk"], findings.get("inodes")
    assert space[0] == ("warning" if free_blocks == 5 else "ok")
    assert "MB are free" in space[1]
    assert inodes == (("warning", f"only 5 files can still be created in {tmp_path}") if free_files == 5 else None)


def test_file_system_without_a_limit_of_inodes_is_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[5:8] = [0, 0, 0]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert [finding.check for finding in check_folder(tmp_path / "syncd.db")] == ["disk"]


def test_folder_that_cannot_be_written_to_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    folder, _ = check_folder(tmp_path / "syncd.db")
    assert (folder.check, folder.verdict) == ("folder", "bad")
