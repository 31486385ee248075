"""Directories of exports and backups: the readers of the files can enter them, whatever the umask is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.directories import make_directory


@pytest.fixture(params=[0o077, 0o022, 0o027])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("files", "directory"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)])
@pytest.mark.usefixtures("umask")
def test_readers_of_the_files_can_enter_a_new_directory(tmp_path: Path, files: int, directory: int) -> None:
    make_directory(tmp_path / "a" / "b", files=files, mode=0o700)
    assert mode(tmp_path / "a" / "b") == directory
    assert mode(tmp_path / "a") & directory == directory


def test_new_directory_without_a_mode_has_the_one_of_the_umask_too(tmp_path: Path, umask: int) -> None:
    make_directory(tmp_path / "a", files=0o640)
    assert mode(tmp_path / "a") == 0o777 & ~umask | 0o750


def test_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    make_directory(tmp_path / "a", files=0o644)
    assert mode(tmp_path / "a") == 0o700


def test_name_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "a", files=0o600)
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "a" / "b", files=0o600)


def test_removed_working_directory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "a").rmdir()
    with pytest.raises(FileNotFoundError):
        make_directory(Path("b"), files=0o600)
