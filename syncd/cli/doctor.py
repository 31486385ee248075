"""`syncd doctor`: what is wrong with the installation, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncd import settings as settings_module
from syncd.cli.common import as_json_option, env_file_option, print_json, run
from syncd.cli.surroundings import Finding, check_clock, check_folder, check_network
from syncd.errors import DatabaseUnusableError, SettingsError, SyncdError
from syncd.logs import safe_text
from syncd.status.health import DOCTOR, assess
from syncd.status.problem_codes import ProblemCode

if TYPE_CHECKING:
    from syncd.mirror.db.backends import Backend
    from syncd.mirror.schema.concerns import Durability
    from syncd.settings import Settings

BUSY_TIMEOUT = 5.0
"""Seconds that doctor waits for a database."""


@click.command(short_help="Check the installation and say how to fix it.")
@env_file_option
@as_json_option
@click.pass_context
def doctor(context: click.Context, env_files: tuple[Path, ...], *, as_json: bool) -> None:
    """Check settings, database, schema, credentials, one real API call and SQLite, and say how to fix each.

    The running daemon reports the problems of the mirror. If none answers, doctor judges the database
    alone, as syncd status does.

    It changes nothing. Exits 0 if nothing is bad, 1 if something must be fixed, 2 if the settings are wrong.
    """
    try:
        loaded = settings_module.load(os.environ, env_files, credentials=True)
    except SettingsError as error:
        findings = [
            Finding("settings", "bad", problem, "syncd config shows the settings in force and their origins")
            for problem in error.problems
        ]
        _show(findings, as_json=as_json)
        context.exit(2)
    findings = [Finding("settings", "ok", "they are valid"), *run(lambda: _check(loaded.settings))]
    _show(findings, as_json=as_json)
    context.exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)


async def _check(settings: Settings) -> list[Finding]:
    from syncd.opening import database_backend

    backend = database_backend(settings)
    database_findings = await _database(settings, backend)
    albert_findings, tenant_id = await _albert(settings)
    surroundings = [*(() if backend.file is None else check_folder(backend.file)), *check_network(settings, os.environ)]
    can_be_read = database_findings[0].verdict == "ok"
    identity_findings = await _identity(settings, backend, tenant_id) if can_be_read else []
    document, daemon_findings = await _ask_daemon(settings)
    mirror_findings = await _mirror(settings, backend) if document is None and can_be_read else []
    return [
        _sqlite(backend), *database_findings, *identity_findings, *surroundings, *daemon_findings, *mirror_findings,
        *albert_findings,
    ]  # fmt: skip


async def _identity(settings: Settings, backend: Backend, tenant_id: str | None) -> list[Finding]:
    """Compare the tenant of the settings, and of the token, with the database; report the mark of a move."""
    from syncd.mirror.db.database import Database
    from syncd.mirror.store import identity
    from syncd.rules.identity import same_tenant
    from syncd.tenant import named_identity

    async with Database(backend.url, busy_timeout=BUSY_TIMEOUT) as database:
        stored = await database.read(identity.read)
    named = named_identity(settings)
    named = replace(named, tenant_id=tenant_id or named.tenant_id)
    findings = []
    if stored.moved_to is not None:
        fix = "point SYNCD_DATABASE_URL there; to use this database again: syncd migrate-store --unmark"
        findings.append(Finding("moved", "bad", f"the content was moved to {stored.moved_to}", fix))
    if not same_tenant(stored.pinned, named):
        fix = "fix ALBERT_BASE_URL or the credentials, or run: syncd tenant accept"
        detail = f"the database mirrors {stored.pinned}, but the settings name {named}"
        return [*findings, Finding("tenant", "bad", detail, fix)]
    return [*findings, Finding("tenant", "ok", f"the settings name {named}")]


def _sqlite(backend: Backend) -> Finding:
    """Check the SQLite library; a mirror on a server does not use it."""
    from syncd.mirror.schema.concerns import Durability, sqlite_durability

    durability = sqlite_durability()
    return _of("sqlite", durability if backend.file is not None else Durability(durability.version))


def _of(check: str, durability: Durability) -> Finding:
    if durability.problem is None:
        return Finding(check, "ok", durability.version)
    return Finding(check, "warning", f"{durability.version}: {durability.problem}", durability.fix)


async def _database(settings: Settings, backend: Backend) -> list[Finding]:
    """Check the database, and the connections to a server."""
    from syncd.mirror.db.database import Database
    from syncd.mirror.schema.concerns import durability

    absent = _not_created_yet(settings, backend)
    if absent is not None:
        return [absent]
    findings = [await _try("database", lambda: _use_database(backend))]
    if findings[0].verdict == "ok" and backend.file is None:
        async with Database(backend.url, busy_timeout=BUSY_TIMEOUT) as database:
            findings.append(_of("server", await database.read(durability)))
        findings.append(await _try("sessions", backend.check_connections))
    return findings


def _not_created_yet(settings: Settings, backend: Backend) -> Finding | None:
    """Check a SQLite file that does not exist: before the first start that is normal, if it can be created."""
    from syncd.mirror.db.file_access import folder_refusal

    file = backend.file
    try:
        if file is None or backend.exists() or os.path.lexists(file):
            return None
    except DatabaseUnusableError as error:
        return Finding("database", "bad", str(error))
    file = file.absolute()
    if not file.parent.is_dir():
        fix = "create the folder; SYNCD_DATABASE_URL names it"
        return Finding("database", "bad", f"{file} cannot be created: there is no folder {file.parent}", fix)
    if not os.access(file.parent, os.W_OK | os.X_OK):
        reason, fix = folder_refusal(file.parent)
        return Finding("database", "bad", f"{file} cannot be created: {reason}", fix)
    if not settings.syncd_auto_migrate:
        return Finding("database", "bad", f"there is none yet: {file}", "syncd migrate creates it")
    fix = "syncd once and syncd run create it; if there should be one, fix SYNCD_DATABASE_URL"
    return Finding("database", "warning", f"there is none yet: {file}", fix)


async def _try(
    check: str, work: Callable[[], Awaitable[str]], hint: Callable[[Exception], str | None] = lambda _: None
) -> Finding:
    try:
        return Finding(check, "ok", await work())
    except SyncdError as error:
        return Finding(check, "bad", str(error), hint(error))
    except Exception as error:  # noqa: BLE001 - doctor reports whatever is wrong
        return Finding(check, "bad", f"{type(error).__name__}: {error}", hint(error))


async def _use_database(backend: Backend) -> str:
    """Check the schema, the rights and the file; return what was checked, without the password."""
    from syncd.mirror.db.database import Database
    from syncd.mirror.schema import migrate
    from syncd.mirror.schema.concerns import require_intact
    from syncd.mirror.schema.privileges import require_rights
    from syncd.mirror.schema.revisions import HEAD

    backend.require_exists()
    backend.create()  # it exists: this checks that this user may read and write it
    async with Database(backend.url, busy_timeout=BUSY_TIMEOUT) as database:
        await database.read(migrate.require_head)
        await database.write(require_rights)
        await database.read(require_intact)
    return f"{backend.url.render_as_string(hide_password=True)}, schema {HEAD}"


async def _ask_daemon(settings: Settings) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the document of the running daemon (None if there is no answer), and the findings about it."""
    import anyio.to_thread

    from syncd.cli.asking import SilentError, ask_status

    try:
        document = await anyio.to_thread.run_sync(ask_status, settings)
    except SilentError as error:
        return None, [Finding("daemon", "bad", f"{ProblemCode.DAEMON_SILENT.value}: {error}")]
    return document, [_no_daemon(settings)] if document is None else _daemon(document)


def _no_daemon(settings: Settings) -> Finding:
    if settings.syncd_status_port == 0:
        return Finding("daemon", "ok", "SYNCD_STATUS_PORT is 0: a running daemon cannot be asked")
    place = f"{settings.syncd_status_host}:{settings.syncd_status_port}"
    fix = "if syncd run should be running, start it; with syncd once alone there is nothing to do"
    return Finding("daemon", "warning", f"no daemon with this database answers on {place}", fix)


def _daemon(document: dict[str, Any]) -> list[Finding]:
    """Return what the running daemon reports."""
    name = f"syncd {document['daemon']['version']} on {document['daemon']['host']}"
    if document["healthy"]:
        return [Finding("daemon", "ok", f"{name} is healthy")]
    if document["starting"] and not document["problems"]:
        return [Finding("daemon", "ok", f"{name} is starting: the first pass is under way")]
    return [_of_problem("daemon", problem) for problem in document["problems"]]


async def _mirror(settings: Settings, backend: Backend) -> list[Finding]:
    """Return the problems that `syncd status` reports from the database alone.

    The mark of a move and the tenant are checked by `_identity`. A mirror without any pass is new, and is not a
    problem.
    """
    from syncd.clock import SystemClock
    from syncd.mirror.db.database import Database
    from syncd.mirror.read import views

    async with Database(backend.url, busy_timeout=BUSY_TIMEOUT) as database:
        overview = await database.read(views.overview)
    health = assess(overview, pass_interval=settings.syncd_pass_interval, now=SystemClock().now())
    of_others = {ProblemCode.DATABASE_MOVED} | (set() if overview["passes"] else {ProblemCode.NO_COMPLETE_PASS})
    problems = [problem for problem in health.problems if problem.code not in of_others]
    return [_of_problem("mirror", problem.as_dict()) for problem in problems]


def _of_problem(check: str, problem: dict[str, Any]) -> Finding:
    command = problem["command"]
    return Finding(check, "bad", f"{problem['code']}: {problem['text']}", None if command == DOCTOR else command)


async def _albert(settings: Settings) -> tuple[list[Finding], str | None]:
    """Request one page, and compare the clocks; return the tenant of the token, too, if it names one."""
    from syncd.albert import AlbertException, ChatSessionCollection
    from syncd.albert_session import CurrentSettings, open_session
    from syncd.clock import SystemClock
    from syncd.records.fields import SESSIONS
    from syncd.records.parse import read_page

    async def list_one_page() -> str:
        page = read_page(await albert.list_raw(start_key=None), SESSIONS)
        return f"{settings.albert_base_url} answers a listing with {len(page.rows)} sessions on its first page"

    async with open_session(CurrentSettings(settings), SystemClock()) as session:
        albert = ChatSessionCollection(session=session)
        finding, tenant_id = await _try("albert", list_one_page, _albert_hint), None
        with suppress(AlbertException):
            tenant_id = await session.authenticate() if finding.verdict == "ok" else None
        return [finding, *check_clock(session.server_date, SystemClock().now())], tenant_id


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
        if finding.verdict != "ok" and finding.fix:
            click.echo(f"{'':18} → {finding.fix}")
