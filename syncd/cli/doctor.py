"""`syncd doctor`: what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncd import settings as settings_module
from syncd.cli.common import as_json_option, env_file_option, print_json, run
from syncd.errors import DatabaseUnusableError, SettingsError, SyncdError
from syncd.logs import safe_text

if TYPE_CHECKING:
    import sqlalchemy as sa

    from syncd.settings import Settings

GOOD_SQLITE = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""The releases that mended a bug: two connections that write and checkpoint at once corrupt a WAL database."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok`, `warning` or `bad`, and how to mend it."""

    check: str
    verdict: str
    detail: str
    mend: str | None = None


@click.command(short_help="Check the installation and say how to mend it.")
@env_file_option
@as_json_option
@click.pass_context
def doctor(context: click.Context, env_files: tuple[Path, ...], *, as_json: bool) -> None:
    """Check settings, database, schema, credentials, one real API call and SQLite, and say how to mend each.

    It changes nothing. Exits 0 when all is well, 1 when something must be mended, 2 when it is the settings.
    """
    try:
        loaded = settings_module.load(os.environ, env_files, credentials=True)
    except SettingsError as error:
        findings = [Finding("settings", "bad", problem, "see config/syncd.env") for problem in error.problems]
        _show(findings, as_json=as_json)
        context.exit(2)
    findings = [Finding("settings", "ok", "they make sense"), sqlite_version()]
    findings += run(lambda: _look(loaded.settings))
    _show(findings, as_json=as_json)
    context.exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)


def sqlite_version() -> Finding:
    """Judge the SQLite that runs."""
    found = sqlite3.sqlite_version_info
    good = found >= GOOD_SQLITE[0] or any(found[:2] == fixed[:2] and found >= fixed for fixed in GOOD_SQLITE)
    if good:
        return Finding("sqlite", "ok", sqlite3.sqlite_version)
    return Finding(
        "sqlite",
        "warning",
        f"{sqlite3.sqlite_version} can corrupt a WAL database when two connections write and checkpoint at once",
        "use SQLite 3.51.3 or newer (the image has it); until then, one writer besides the daemon at a time",
    )


async def _look(settings: Settings) -> list[Finding]:
    from syncd.opening import database_url

    url = database_url(settings)
    findings = [_not_made_yet(settings) or await _try("database", lambda: _database(settings))]
    if url.get_backend_name() == "postgresql" and findings[0].verdict == "ok":
        findings.append(await _sessions(url))
    return [*findings, *await _albert(settings)]


def _not_made_yet(settings: Settings) -> Finding | None:
    """Judge a SQLite file that is not there: on the first day that is as it should be, if it can be made."""
    from syncd.opening import database_url, is_there

    url = database_url(settings)
    try:
        if url.get_backend_name() != "sqlite" or is_there(url) or os.path.lexists(url.database or ""):
            return None
    except DatabaseUnusableError as error:
        return Finding("database", "bad", str(error))
    file = Path(url.database or "").absolute()
    if not os.access(file.parent, os.W_OK | os.X_OK):
        mend = "make the folder, or give it to this user; SYNCD_DATABASE_URL says where it is"
        return Finding("database", "bad", f"{file} cannot be made: {file.parent} is no folder to write to", mend)
    if not settings.syncd_auto_migrate:
        return Finding("database", "bad", f"there is none yet: {file}", "syncd migrate makes it")
    mend = "syncd once and syncd run make it; if there should be one, mend SYNCD_DATABASE_URL"
    return Finding("database", "warning", f"there is none yet: {file}", mend)


async def _try(
    check: str, look: Callable[[], Awaitable[str]], hint: Callable[[Exception], str | None] = lambda _: None
) -> Finding:
    try:
        return Finding(check, "ok", await look())
    except SyncdError as error:
        return Finding(check, "bad", str(error), hint(error))
    except Exception as error:  # noqa: BLE001 - a doctor reports what it finds
        return Finding(check, "bad", f"{type(error).__name__}: {error}", hint(error))


async def _database(settings: Settings) -> str:
    from syncd.mirror.db.database import Database
    from syncd.mirror.schema import migrate
    from syncd.mirror.schema.privileges import require_rights
    from syncd.mirror.schema.revisions import HEAD
    from syncd.opening import database_url, require_file

    url = database_url(settings)
    if url.get_backend_name() == "sqlite":
        require_file(url)
        if not os.access(url.database or "", os.W_OK):
            raise SyncdError(f"{url.database} cannot be written by this user; mend its owner or mode")
    async with Database(url, busy_timeout=5) as database:
        await database.read(migrate.require_head)
        if database.dialect == "postgresql":
            await database.write(require_rights)
        else:
            verdict = await database.read(lambda c: c.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            if verdict != "ok":
                raise SyncdError(f"the database is damaged ({verdict}); restore a backup")
    return f"{url.render_as_string(hide_password=True)}, schema {HEAD}"


async def _sessions(url: sa.URL) -> Finding:
    """Tell whether connections are sessions of their own, which LISTEN and the leader's lock need."""
    from syncd.mirror.db import leader, postgresql

    if postgresql.is_pooled(url):
        detail = (
            "a connection may change its session, says the URL: the queue is polled every second, LISTEN is not used"
        )
        return Finding("sessions", "ok", detail)
    try:
        shared = await leader.shares_sessions(url)
    except Exception as error:  # noqa: BLE001 - a doctor reports what it finds
        return Finding("sessions", "bad", str(postgresql.classify_error(error) or error))
    if shared:
        return Finding("sessions", "bad", "two connections at the same time are one session", postgresql.POOLING)
    return Finding("sessions", "ok", "each connection is one of its own")


async def _albert(settings: Settings) -> list[Finding]:
    from syncd.albert import ChatSessionCollection
    from syncd.app import open_session
    from syncd.clock import SystemClock
    from syncd.records.fields import SESSIONS
    from syncd.records.parse import read_page

    async def list_one_page() -> str:
        page = read_page(await albert.list_raw(start_key=None), SESSIONS)
        return f"{settings.albert_base_url} answers a listing with {len(page.rows)} sessions on its first page"

    async with open_session(settings, SystemClock()) as session:
        albert = ChatSessionCollection(session=session)
        return [await _try("albert", list_one_page, _albert_hint)]


def _albert_hint(error: Exception) -> str:
    """Return which settings to check after an error of the API call."""
    from syncd.albert import errors

    if isinstance(error, errors.AlbertAuthError | errors.UnauthorizedError | errors.ForbiddenError):
        return "check ALBERT_TOKEN, or ALBERT_CLIENT_ID and ALBERT_CLIENT_SECRET, and that they belong to this server"
    if isinstance(error, errors.AlbertTransportError):
        return "check the host in ALBERT_BASE_URL, the network and its firewall, SYNCD_PROXY and SYNCD_CA_FILE"
    if isinstance(error, errors.AlbertResponseError | errors.RedirectError | errors.NotFoundError):
        return "check ALBERT_BASE_URL; another server, a proxy or a gateway may have answered instead of Albert"
    return "Albert was reached and answered with an error; if it lasts, contact its operator"


def _show(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        click.echo(f"{finding.verdict:8} {finding.check:9} {safe_text(finding.detail)}")
        if finding.verdict != "ok" and finding.mend:
            click.echo(f"{'':18} → {finding.mend}")
