"""Files for other tools: one for each view or table, all from one snapshot. `syncd export` calls `plan` and `export`.

::

    plan ──► temporary files ──► rename each ──► rename the manifest
             from one snapshot

A file is written under a temporary name. The files are renamed after all of them are complete. No system call renames
several files at once, so that a reader can meet new files beside old ones. The manifest `syncd-export.json` is renamed
last: its `exported_at` and `bytes` describe files that are in place. A file that it does not name is not overwritten.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from syncd.clock import utc_text
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
    known : Mapping[str, Any]
        The files of earlier exports in the directory, by name.
    """

    directory: Path
    format: Format
    names: Sequence[str] = catalog.EXPORTED_BY_DEFAULT
    since: int | None = None
    mode: int | None = None
    escape_formulas: bool = False
    known: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """Return the name of the file of a view or a table."""
        return f"{name}.{self.format}"


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
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=_directory_mode(mode))
        known = _read_manifest(directory / MANIFEST)
    except OSError as error:
        raise UsageError(f"cannot export to {directory}: {error.strerror}") from error
    found = Plan(directory, format, names, since, mode, escape_formulas, known)
    foreign = [name for name in map(found.file, names) if name not in known and os.path.lexists(directory / name)]
    if foreign:
        raise UsageError(
            f"{directory} contains {', '.join(foreign)}, which syncd did not write; "
            "move it away or export to another directory"
        )
    return found


def _directory_mode(mode: int | None) -> int:
    """Return the mode of a new directory: who may read its files may enter it."""
    readable = (mode or OWNER_ONLY) & 0o444
    return 0o700 | readable | readable >> 2


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the files of earlier exports by name."""
    try:
        files = json.loads(path.read_bytes())["files"]
        return {str(one["file"]): dict(one) for one in files}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is not a manifest of syncd; move it away or export to another directory") from error


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
        `since` is beyond the end of the change feed.
    SyncdError
        The disk is full, or the directory was removed. No file was put in place, unless the message says so.
    """
    snapshot = rows.freeze(connection)
    if plan.since is not None and plan.since > snapshot.last_seq:
        raise UsageError(
            f"--since {plan.since} is beyond the end of the change feed ({snapshot.last_seq}): the database is older "
            "than the reader, such as a restored backup; read it again from --since 0"
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
    try:
        files = _write_all(connection, plan, about, advance)
    except OSError as error:
        raise SyncdError(
            f"the export to {plan.directory} failed: {error.strerror}; the files of the last one are unchanged"
        ) from error
    return {**about, "files": files}


def _write_all(
    connection: Connection, plan: Plan, about: Mapping[str, Any], advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    files = []
    with temp_dir(plan.directory, "syncd-export") as unfinished:
        temporary, done = unfinished.joinpath, 0
        for name in plan.names:
            made, written = temporary(plan.file(name)), 0
            for written in _write(made, plan, name, about, rows.stream(connection, name, since=plan.since)):
                advance(done + written)
            done += written
            files.append({"file": plan.file(name), "rows": written, "bytes": made.stat().st_size})
        _write_manifest(temporary(MANIFEST), plan, about, files)
        _put_in_place(plan, [*map(plan.file, plan.names), MANIFEST], temporary)
    return files


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


def _write_manifest(path: Path, plan: Plan, about: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> None:
    """Name the files of this export, and those of earlier ones that are still in the directory."""
    written = {one["file"]: {**one, "exported_at": about["exported_at"]} for one in files}
    kept = {name: one for name, one in plan.known.items() if (plan.directory / name).is_file()}
    with _new_file(path) as file:
        file.write(json.dumps({**about, "files": list((kept | written).values())}, indent=2).encode() + b"\n")


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
