"""The commands that are killed: each with its mirror, and the conditions after a kill and another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tests.kills.case import Case

LONG_AGO = "2020-01-01T00:00:00.000000Z"
OTHER_TENANT = "https://other.example"


class Stage:
    """`once` on the template of this name."""

    template = "work queued"
    claims = True
    """Whether a killed command leaves operations that it had claimed."""
    more: Mapping[str, str] = MappingProxyType({})
    """Environment variables for its commands."""

    def words(self, _case: Case) -> list[str]:
        """Return the command."""
        return ["once"]

    async def prepare(self, case: Case) -> None:
        """Change the mirror before the command runs."""

    async def torn(self, _case: Case) -> list[str]:
        """Return what is wrong after the kill: transactions that were applied in part."""
        return []

    async def wrong(self, case: Case) -> list[str]:
        """Return what is wrong after the command has run to its end."""
        return await case.differences()


class FirstCycle(Stage):
    """`once` without a mirror."""

    template = "no file"


class Daemon(Stage):
    """`run` until it has done all its work. It looks at blocked operations again once in a lease of a second."""

    more = MappingProxyType({"PLACE": "", "QUIET_SECONDS": "2"})

    def words(self, _case: Case) -> list[str]:
        return ["run"]


class FirstDaemon(Daemon):
    """The same without a mirror."""

    template = "no file"


class Prune(Stage):
    """`prune` of a mirror whose operations, first pass and earlier versions are old."""

    template = "work done"
    claims = False

    def words(self, _case: Case) -> list[str]:
        return ["prune", "--older-than", "1d", "--history", "--by", "alice"]

    async def prepare(self, case: Case) -> None:
        await case.sql(f"UPDATE operations SET finished_at = '{LONG_AGO}'")
        await case.sql(f"UPDATE passes SET started_at = '{LONG_AGO}', finished_at = '{LONG_AGO}'")
        await case.sql(f"UPDATE session_versions SET valid_from = '{LONG_AGO}', valid_to = '{LONG_AGO}'")

    async def torn(self, case: Case) -> list[str]:
        left = [await case.count(table) for table in ("operations", "passes", "session_versions")]
        recorded = await case.count("operator_actions WHERE action = 'prune' AND by = 'alice'") > 0
        begun = 0 in left or left[1] == 1
        return [] if recorded is begun else [f"recorded: {recorded}; operations, passes and versions: {left}"]

    async def wrong(self, case: Case) -> list[str]:
        left = [await case.count(table) for table in ("operations", "passes", "session_versions")]
        current, sessions = await case.count("chat_session_history"), await case.count("chat_sessions_all")
        wrong = [] if (left, current) == ([0, 1, 0], sessions) else [f"left {left}, {current} of {sessions} versions"]
        return [*wrong, *await self.torn(case)]


class AcceptTenant(Stage):
    """`tenant accept` of a mirror of another tenant, whose queue and running pass are not for the new one."""

    claims = False
    more = MappingProxyType({"ALBERT_TOKEN": ""})  # nothing shows that the two are the same tenant

    def words(self, _case: Case) -> list[str]:
        return ["tenant", "accept", "--by", "alice"]

    async def prepare(self, case: Case) -> None:
        await case.sql(f"INSERT INTO mirror_identity (id, origin) VALUES (1, '{OTHER_TENANT}')")
        await case.sql(f"INSERT INTO passes (started_at, page_key) VALUES ('{LONG_AGO}', 'a key')")

    async def torn(self, case: Case) -> list[str]:
        facts = {
            "accepted": await case.sql("SELECT origin FROM mirror_identity") == [(case.sandbox.url,)],
            "on hold": await case.count("operations WHERE on_hold_at IS NULL") == 0,
            "ended": await case.count("passes WHERE state = 'running'") == 0,
            "recorded": await case.count("operator_actions WHERE action = 'accept' AND by = 'alice'") > 0,
        }
        return [] if len(set(facts.values())) == 1 else [f"applied in part: {facts}"]

    async def wrong(self, case: Case) -> list[str]:
        origins = await case.sql("SELECT origin FROM mirror_identity")
        return [*await self.torn(case), *([] if origins == [(case.sandbox.url,)] else [f"mirrors {origins}"])]


class MoveStore(Stage):
    """`migrate-store` of a mirror with work in its queue, which is done in the target."""

    claims = False

    def words(self, case: Case) -> list[str]:
        return ["migrate-store", "--to", case.mirrors.url(case.folder / "target")]

    async def prepare(self, case: Case) -> None:
        await case.mirrors.make_empty(case.folder / "target")

    async def wrong(self, case: Case) -> list[str]:
        refused = await case.syncd(["once"])
        target = replace(case, folder=case.folder / "target")
        done = await target.syncd(["once"])
        codes = (refused.returncode, done.returncode)
        return [*await target.differences(), *([] if codes == (3, 0) else [f"source and target ended with {codes}"])]


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "no file": FirstCycle(),
        "work queued": Stage(),
        "run without a mirror": FirstDaemon(),
        "run": Daemon(),
        "prune": Prune(),
        "tenant accept": AcceptTenant(),
        "migrate-store": MoveStore(),
    }
)
