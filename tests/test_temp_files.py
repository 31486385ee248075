"""Files in the making: each maker's own, and cleared away by the next when their maker is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.temp_files import temp_names

KILLED = """
import os, pathlib, signal, sys
from syncd.temp_files import temp_names
with temp_names(pathlib.Path(sys.argv[1]), sys.argv[2]) as name:
    name("a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), kind], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_maker_left_is_removed_by_the_next_of_its_kind(tmp_path: Path) -> None:
    killed(tmp_path, "syncd-export")
    killed(tmp_path, "syncd-export")
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".tmp"}
    assert len(list(tmp_path.iterdir())) == 2
    with temp_names(tmp_path, "syncd-backup"):
        pass
    assert len(list(tmp_path.iterdir())) == 2
    with temp_names(tmp_path, "syncd-export") as name:
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
        name("a").touch()
    assert not list(tmp_path.iterdir())


def test_two_makers_at_once_have_names_of_their_own_and_leave_each_other_alone(tmp_path: Path) -> None:
    with temp_names(tmp_path, "syncd-export") as first:
        first("a").write_text("first")
        with temp_names(tmp_path, "syncd-export") as second:
            second("a").write_text("second")
        assert first("a").read_text() == "first"
    assert not list(tmp_path.iterdir())


def test_failure_leaves_nothing_and_is_raised(tmp_path: Path) -> None:
    def fail() -> None:
        with temp_names(tmp_path, "syncd-export") as name:
            name("a").write_text("half")
            name("a").with_name(f"{name('a').name}-journal").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_files_of_others_and_links_are_left_alone(tmp_path: Path) -> None:
    mark = "0123456789abcdef"
    others = [".syncd-export.lock", f".syncd-export.{mark}.a.tmp", f"syncd-export.{mark}.lock", "syncd.db.lock"]
    for other in others:
        (tmp_path / other).touch()
    (tmp_path / f".syncd-export.{mark}.lock").symlink_to(tmp_path / "syncd.db.lock")
    with temp_names(tmp_path, "syncd-export"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*others, f".syncd-export.{mark}.lock"}


def test_lock_that_another_removed_before_it_was_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    lost: list[Path] = []

    def made_and_lost(path: Path, *arguments: int) -> int:
        descriptor = real(path, *arguments)
        if not lost:
            lost.append(path)
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", made_and_lost)
    with temp_names(tmp_path, "syncd-export"):
        assert lost == list(tmp_path.iterdir())
