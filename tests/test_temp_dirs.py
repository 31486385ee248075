"""Directories for unfinished files: private to each maker, and removed by the next maker after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from syncd.temp_dirs import temp_dir

KILLED = """
import os, pathlib, signal, sys
from syncd.temp_dirs import temp_dir
with temp_dir(pathlib.Path(sys.argv[1]), sys.argv[2]) as directory:
    (directory / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), kind], check=False)
    assert done.returncode == -signal.SIGKILL


def test_directory_of_a_killed_maker_is_removed_by_the_next_of_its_kind(tmp_path: Path) -> None:
    killed(tmp_path, "syncd-export")
    (abandoned,) = tmp_path.iterdir()
    assert (abandoned / "a").read_text() == "half"
    with temp_dir(tmp_path, "syncd-backup"):
        assert abandoned.exists()
    with temp_dir(tmp_path, "syncd-export") as directory:
        assert list(tmp_path.iterdir()) == [directory]
    assert not list(tmp_path.iterdir())


def test_two_makers_at_the_same_time_have_directories_of_their_own(tmp_path: Path) -> None:
    with temp_dir(tmp_path, "syncd-export") as first:
        (first / "a").write_text("first")
        with temp_dir(tmp_path, "syncd-export") as second:
            (second / "a").write_text("second")
        assert (first / "a").read_text() == "first"
    assert not list(tmp_path.iterdir())


def test_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    with temp_dir(tmp_path, "syncd-export") as directory:
        assert directory.stat().st_mode & 0o777 == 0o700


def test_failure_leaves_nothing_and_is_raised(tmp_path: Path) -> None:
    def fail() -> None:
        with temp_dir(tmp_path, "syncd-export") as directory:
            (directory / "a").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_files_and_links_of_others_are_not_touched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / ".syncd-export.file.tmp").touch()
    (tmp_path / ".syncd-export.link.tmp").symlink_to(elsewhere)
    (tmp_path / "syncd-export.x.tmp").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with temp_dir(tmp_path, "syncd-export"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (elsewhere / "kept").exists()


def test_directory_that_another_maker_removed_before_it_was_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    lost: list[Path] = []

    def removed_once(path: Path, *arguments: Any, **options: Any) -> int:
        descriptor = real(path, *arguments, **options)
        if not lost:
            lost.append(path)
            path.rmdir()
        return descriptor

    monkeypatch.setattr(os, "open", removed_once)
    with temp_dir(tmp_path, "syncd-export") as directory:
        assert directory != lost[0]
        assert list(tmp_path.iterdir()) == [directory]
