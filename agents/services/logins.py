"""Which credential a session logs in with, and why one cannot be used just now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from agents.models import Agent, Credential, Session
from agents.models.credential import CredentialKind
from agents.runtimes import RUNTIMES, base, get_runtime
from agents.runtimes.base import LaunchRefused
from agents.sealing import unseal
from agents.services.credentials import allowed
from pipeline import conf


def name_for(runtime: str, entry: Mapping[str, Any]) -> str:
    """The credential that an entry names. One that names neither a credential nor an address takes what has its runtime's name; "" = none."""
    if entry.get("credential"):
        return str(entry["credential"])
    known = RUNTIMES.get(runtime)
    return runtime if known is not None and known.provider and not entry.get("base_url") else ""


def for_agent(agent: Agent) -> Credential | None:
    """None when it takes none, or one that is not there (see `hindrance`)."""
    name = name_for(agent.runtime, agent.entry)
    return Credential.objects.filter(name=name).first() if name else None


def hindrance(agent: Agent, now: datetime, logged_out: Collection[str] = ()) -> str:
    """Why the agent's credential keeps it from starting, "" if it does not. `logged_out`: the runtimes without a log-in on this host."""
    name = name_for(agent.runtime, agent.entry)
    if not name:
        return ""
    credential = Credential.objects.filter(name=name).first()
    if credential is None and not agent.entry.get("credential"):
        return ""  # its program says best what it lacks
    if credential is None:
        return f"there is no credential {name!r}; an admin adds it with `credential add {name}` or on the credentials page"
    if credential.paused_for and (credential.paused_until is None or credential.paused_until > now):
        until = (
            f" It is tried again at {credential.paused_until:%H:%M} UTC." if credential.paused_until else ""
        )
        return f"credential {name} is paused: {credential.paused_for}{until}"
    if credential.kind == CredentialKind.HOST_LOGIN and agent.runtime in logged_out:
        return (
            f"{agent.runtime} is not logged in on {conf.host()}, and its credential {name} is the host's own log-in: log in there, or "
            "name another credential. It is looked at again each minute"
        )
    return ""


def opened(session: Session) -> base.Credential | None:
    """The decrypted credential for a launch; raises LaunchRefused when it may not be sent to the agent's base URL."""
    address = session.entry.get("base_url")
    credential = session.credential
    if credential is None:
        return base.Credential("api_key", "", address) if address else None
    if not allowed(credential, address, get_runtime(session.runtime).provider):
        raise LaunchRefused(
            f"Credential {credential.name} may not be sent to {address or 'the provider'}: it names other addresses. An admin can add this one."
        )
    value = unseal(credential.sealed) if credential.sealed else ""
    return base.Credential(credential.kind, value, address)  # type: ignore[arg-type]


def secrets_of(credential: Credential | None) -> list[str]:
    """What must never be stored or shown of a session's output."""
    return [unseal(credential.sealed)] if credential is not None and credential.sealed else []
