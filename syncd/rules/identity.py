"""Whether the settings name the tenant that a database mirrors. Pure; `syncd.tenant` and the commands call it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """An Albert tenant, as far as it is known.

    Parameters
    ----------
    origin : str | None
        Scheme, host, port and path in the form of `syncd.urls.origin`; None if it is not known.
    tenant_id : str | None
        The tenant id that the credentials name; None if it is not known.
    """

    origin: str | None = None
    tenant_id: str | None = None

    def __str__(self) -> str:
        tenant = "" if self.tenant_id is None else f"tenant {self.tenant_id}"
        return f"{self.origin} ({tenant})" if self.origin and tenant else self.origin or tenant or "no known tenant"


def same_tenant(pinned: Identity, named: Identity) -> bool:
    """Whether two identities can be the same tenant: an unknown part matches everything.

    The case of a tenant id does not count: Albert's official SDK sends ids in upper case, whatever the user wrote.
    """
    origins = {pinned.origin, named.origin} - {None}
    tenants = {each.upper() for each in (pinned.tenant_id, named.tenant_id) if each is not None}
    return len(origins) <= 1 and len(tenants) <= 1


def matches(pinned: Identity, named: Identity) -> bool | None:
    """Whether the settings name the pinned tenant; None if they leave out a part that is pinned."""
    if not same_tenant(pinned, named):
        return False
    left_out = (pinned.origin and not named.origin) or (pinned.tenant_id and not named.tenant_id)
    return None if left_out else True


def combined(pinned: Identity, named: Identity) -> Identity:
    """Return the pinned identity with its unknown parts taken from the settings."""
    return Identity(pinned.origin or named.origin, pinned.tenant_id or named.tenant_id)


def mismatch_message(pinned: Identity, named: Identity) -> str:
    """Return a message: the tenant of the database, that of the settings, and what to do."""
    return (
        f"the database mirrors {pinned}, but the settings name {named}; nothing was written or sent. "
        "Fix ALBERT_BASE_URL or the credentials, use another database, "
        "or change the tenant of this database with: syncd tenant accept"
    )
