"""Files for other tools: one for each view or table, all from one snapshot. `syncd export` calls `plan` and `export`.

::

    plan ──► lock ──► temporary files ──► manifest names new files ──► rename each ──► rename the manifest
                      from one snapshot

A file is written under a temporary name. The files are renamed after all of them are complete. No system call renames
several files at once, so that a reader can meet new files beside old ones. The manifest `syncd-export.json` is renamed
last: its `exported_at` and `bytes` describe files that are in place. A file that it does not name is not overwritten.

Files of a new name are added to the manifest of the last export before they are renamed. A kill between two renames
leaves only files that the manifest names, and the next export can replace them. The lock on the directory keeps a
second export from reading the manifest meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from syncd.clock import utc_text
from syncd.directories import make_directory
from syncd.errors import SyncdError, UsageError
from syncd.files.formats import Csv, Format, JsonLines, Parquet, Writer, arrow
from syncd.mirror.read import catalog, rows
from syncd.temp_dirs import temp_dir
from syncd.version import program_version

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection

MANIFEST = "syncd-export.json"
OWNER_ONLY = 0o600
"""The mode of new files, as of the mirror itself, unless the user names another."""


@dataclass(frozen=True)
class Plan:
    """What an export is to write, checked before the database is opened.

    Parameters
    ----------
    names : Sequence[str]
        The views and tables: of `catalog.EXPORTED`.
    since : int | None
        Only the changes with a higher `seq`; `names` is then `chat_session_changes` alone.
    mode : int | None
        The mode of all files; None keeps that of a replaced file.
    escape_formulas : bool
        Put an apostrophe before a cell that a spreadsheet would read as a formula (CSV only).
    """

    directory: Path
    format: Format
    names: Sequence[str] = catalog.EXPORTED_BY_DEFAULT
    since: int | None = None
    mode: int | None = None
    escape_formulas: bool = False

    def file(self, name: str) -> str:
        """Return the name of the file of a view or a table."""
        return f"{name}.{self.format}"


@dataclass(frozen=True)
class _Manifest:
    """What `syncd-export.json` contains: keys about the last complete export, and the files in the directory by name.

    `about` is empty if no export was complete.
    """

    about: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    def encode(self) -> bytes:
        return json.dumps({**self.about, "files": list(self.files.values())}, indent=2).encode() + b"\n"


def plan(
    directory: Path,
    format: Format,
    *,
    only: Sequence[str] = (),
    since: int | None = None,
    mode: int | None = None,
    escape_formulas: bool = False,
) -> Plan:
    """Check that an export is possible, and create its directory.

    Parameters
    ----------
    only : Sequence[str]
        Views and tables to export; none means all of `catalog.EXPORTED_BY_DEFAULT`.

    Raises
    ------
    UsageError
        The options contradict each other, the library for the format is missing, or the directory cannot be used or
        contains foreign files of the same names.
    """
    if escape_formulas and format != "csv":
        raise UsageError("--escape-formulas is for --format csv: only there a cell can be read as a formula")
    if since is not None and set(only) - {catalog.CHANGES}:
        raise UsageError(f"--since exports {catalog.CHANGES}; leave --only out")
    if format == "parquet":
        arrow()
    names = (catalog.CHANGES,) if since is not None else tuple(only) or catalog.EXPORTED_BY_DEFAULT
    export_plan = Plan(directory, format, names, since, mode, escape_formulas)
    try:
        make_directory(directory, files=mode or OWNER_ONLY, mode=0o700)
        _require_own_files(export_plan)
    except OSError as error:
        raise UsageError(f"cannot export to {directory}: {error.strerror}") from error
    return export_plan


def _require_own_files(plan: Plan) -> _Manifest:
    """Return the manifest of the directory, which names all files that the export would replace.

    Raises
    ------
    UsageError
        A file is foreign, or the manifest is.
    OSError
        The manifest cannot be read.
    """
    manifest = _read_manifest(plan.directory / MANIFEST)
    files = [file for file in map(plan.file, plan.names) if file not in manifest.files]
    foreign = [file for file in files if os.path.lexists(plan.directory / file)]
    if foreign:
        raise UsageError(
            f"{plan.directory} contains {', '.join(foreign)}, which syncd did not write; "
            "move it away or export to another directory"
        )
    return manifest


def _read_manifest(path: Path) -> _Manifest:
    try:
        about = dict(json.loads(path.read_bytes()))
        return _Manifest(about, {str(entry["file"]): dict(entry) for entry in about.pop("files")})
    except FileNotFoundError:
        return _Manifest({}, {})
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is not a manifest of syncd; move it away or export to another directory") from error


@contextmanager
def _only_export(directory: Path) -> Iterator[None]:
    """Lock the directory against other exports. A file system without locks lets them in.

    Raises
    ------
    SyncdError
        Another export holds the lock.
    OSError
        The directory was removed, or cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SyncdError(
            f"another export is writing to {directory}; run the command again when it has ended, "
            "or export to another directory"
        ) from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


def export(
    connection: Connection, plan: Plan, *, now: datetime, begin: Callable[[int], None], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write every file from one snapshot, and rename all of them into place.

    Parameters
    ----------
    begin : Callable[[int], None]
        Called with the number of all rows before the first is written.
    advance : Callable[[int], None]
        Called with the number of rows written so far.

    Returns
    -------
    dict[str, Any]
        `exported_at`, `version` (of syncd), `origin` (the Albert that is mirrored; None if unknown),
        `last_complete_pass_at` and `last_seq` of the snapshot, and `files`: name, rows and bytes of each. With `since`
        also `since`; the next export continues at `last_seq`.

    Raises
    ------
    UsageError
        `since` is beyond the end of the change feed. Or the directory contains foreign files since `plan`.
    SyncdError
        Another export is writing to the directory, the disk is full, or the directory was removed. No file was put in
        place, unless the message says so.
    """
    with ExitStack() as stack:
        with _reported(plan):
            stack.enter_context(_only_export(plan.directory))
            earlier = _require_own_files(plan)
        snapshot = rows.freeze(connection)
        if plan.since is not None and plan.since > snapshot.last_seq:
            raise UsageError(
                f"--since {plan.since} is beyond the end of the change feed ({snapshot.last_seq}): the database is "
                "older than the reader, such as a restored backup; read it again from --since 0"
            )
        begin(sum(rows.count(connection, name, since=plan.since) for name in plan.names))
        about = {
            "exported_at": utc_text(now),
            "version": program_version(),
            "origin": snapshot.origin,
            "last_complete_pass_at": snapshot.last_complete_pass_at,
            "last_seq": snapshot.last_seq,
            **({} if plan.since is None else {"since": plan.since}),
        }
        with _reported(plan):
            files = _write_all(connection, plan, about, earlier, advance)
    return {**about, "files": files}


@contextmanager
def _reported(plan: Plan) -> Iterator[None]:
    """Raise an OSError as a SyncdError. It is raised before the first file is in place."""
    try:
        yield
    except OSError as error:
        raise SyncdError(
            f"the export to {plan.directory} failed: {error.strerror}; the files of the last one are unchanged"
        ) from error


def _write_all(
    connection: Connection, plan: Plan, about: Mapping[str, Any], earlier: _Manifest, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    with temp_dir(plan.directory, "syncd-export") as unfinished:
        temporary, done = unfinished.joinpath, 0
        for name in plan.names:
            path, written = temporary(plan.file(name)), 0
            with closing(rows.stream(connection, name, since=plan.since)) as chunks:  # before the connection
                for written in _write(path, plan, name, about, chunks):
                    advance(done + written)
            done += written
            files.append({"file": plan.file(name), "rows": written, "bytes": path.stat().st_size})
        named = {entry["file"]: {**entry, "exported_at": about["exported_at"]} for entry in files}
        kept = {file: entry for file, entry in earlier.files.items() if (plan.directory / file).is_file()}
        _write_manifest(temporary(MANIFEST), _Manifest(about, kept | named))
        if named.keys() - earlier.files.keys():
            both = _Manifest(earlier.about or dict.fromkeys(about), {**named, **earlier.files})
            _announce(plan, both, temporary(f"announced-{MANIFEST}"))
        _put_in_place(plan, [*map(plan.file, plan.names), MANIFEST], temporary)
    return files


def _announce(plan: Plan, manifest: _Manifest, temporary: Path) -> None:
    """Replace the manifest by one that also names the new files, so that a kill leaves no file without an entry."""
    _write_manifest(temporary, manifest)
    temporary.chmod(_mode(plan.directory / MANIFEST, plan.mode))
    temporary.replace(plan.directory / MANIFEST)


def _put_in_place(plan: Plan, files: Sequence[str], temporary: Callable[[str], Path]) -> None:
    """Rename all files, the manifest last.

    Raises
    ------
    OSError
        The first file could not be renamed.
    SyncdError
        A later file could not be renamed.
    """
    directory = plan.directory
    for number, file in enumerate(files):
        try:
            temporary(file).chmod(_mode(directory / file, plan.mode))
            temporary(file).replace(directory / file)
        except OSError as error:
            if number == 0:
                raise
            raise SyncdError(
                f"the export to {directory} failed at {file}: {error.strerror}; "
                f"{number} of {len(files)} files are new, the others are those of the last one"
            ) from error


def _mode(replaced: Path, mode: int | None) -> int:
    """Return the mode of a finished file: the one that was asked for, or that of the file that it replaces."""
    if mode is not None:
        return mode
    try:
        return stat.S_IMODE(replaced.stat().st_mode)
    except FileNotFoundError:
        return OWNER_ONLY


def _write_manifest(path: Path, manifest: _Manifest) -> None:
    with _new_file(path) as file:
        file.write(manifest.encode())


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Create a file for its owner only, and write it to the disk before it is closed."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with open(os.open(path, flags, OWNER_ONLY), "wb", buffering=1 << 18) as file:  # noqa: PTH123 - of a descriptor
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(
    path: Path, plan: Plan, name: str, about: Mapping[str, Any], chunks: Iterable[Sequence[Sequence[Any]]]
) -> Iterator[int]:
    """Write one file; yield the number of its rows after each chunk."""
    written = 0
    with ExitStack() as stack:
        file = stack.enter_context(_new_file(path))
        writer = _writer(plan, file, name, about)
        for chunk in chunks:
            writer.write(chunk)
            written += len(chunk)
            yield written
        writer.finish()


def _writer(plan: Plan, file: IO[bytes], name: str, about: Mapping[str, Any]) -> Writer:
    columns = catalog.columns(name)
    if plan.format == "parquet":
        return Parquet(file, columns, {f"syncd.{key}": str(value) for key, value in about.items() if value is not None})
    if plan.format == "csv":
        return Csv(file, columns, escape_formulas=plan.escape_formulas)
    return JsonLines(file, columns)
