"""How a session gets to its provider and to the network, and what the agent sees of its key.

Wherever the provider's address is known, the agent holds a token of this session alone, and a sidecar beside the runner puts the key
in its place (pipeline/processes/sidecar.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.utils.crypto import salted_hmac

from agents.models import Session
from agents.models.credential import CredentialKind
from agents.runtimes import RUNTIMES, get_runtime
from agents.runtimes.base import Credential, LaunchRefused, Runtime
from agents.services import logins
from pipeline.processes import confine, sidecars
from pipeline.projectfile.network import Network

READABLE_LOGIN = "the program's own log-in is readable by the agent"
READABLE_KEY = "the key is readable by the agent: without a `base_url` the server does not know where it goes"
TOKEN_ONLY = "the agent holds a token of this session, the key stays with the server"  # noqa: S105
NO_KEY = "no key"


@dataclass(frozen=True, slots=True)
class Way:
    """`credential` is what the program gets. `folder`: where the sidecar's socket is, for a child without a network."""

    network: Network
    credential: Credential | None
    helpers: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """A child's environment, with the way out that it has."""
        if self.network.is_on and not self.helpers:
            return env
        return confine.through_way_out(env, alone=not self.network.is_on, proxy=self.network.mode == "allow")


def network_of(session: Session) -> Network:
    return Network.from_json(session.entry.get("network"))


def token_of(session: Session) -> str:
    """What the agent holds in the key's place. Made of the session's random key, so that it need not be stored."""
    return "hsk-" + salted_hmac("huskies.session-token", session.key, algorithm="sha256").hexdigest()


def way_of(session: Session, own: Path) -> Way:
    """`own`: the session's private folder. Raises LaunchRefused for what cannot be kept."""
    runtime, network = get_runtime(session.runtime), network_of(session)
    opened = logins.opened(session)
    url = provider_url(session, runtime)
    if not network.is_on and not confine.is_confined(session.sandbox):
        raise LaunchRefused(
            f"`network: {network.mode}` of {session.agent.name} needs bubblewrap on this host. Install it, or set `network: on`."
        )
    hosts: list[str] = []
    if not network.is_on and opened is not None and opened.kind == "host_login":
        if network.mode == "off":
            raise LaunchRefused(
                f"{session.agent.name} has `network: off` and the host's own log-in, whose program talks to its provider by itself. "
                "Give it a credential that is a key or a token, or `network: {allow: [hosts]}`."
            )
        hosts = [host for host in (urlsplit(runtime.provider).hostname,) if host]
    behind = bool(
        url and opened is not None and opened.kind != "host_login" and (opened.value or not network.is_on)
    )
    rules = network.rules(*hosts)
    if not behind and rules is None:
        return Way(network, opened)
    folder = None if network.is_on else own / "net"
    port = sidecars.free_port() if folder is None else None
    token = token_of(session)
    helper = sidecars.sidecar(
        port=port,
        folder=folder,
        allow=rules,
        base_url=url if behind else "",
        key=opened.value if behind and opened is not None else "",
        token=token,
    )
    if behind and opened is not None:
        here = f"http://127.0.0.1:{port or confine.PORT_INSIDE}{urlsplit(url).path}"
        opened = Credential(opened.kind, token, here)
    return Way(network, opened, [helper], folder)


def provider_url(session: Session, runtime: Runtime) -> str:
    """The base URL that the session's requests go to, as its runtime wants it; "" where nobody but the program knows."""
    named = session.entry.get("base_url")
    if named:
        return str(named)
    trial = runtime.trial
    return runtime.provider + (trial.path if trial is not None else "") if runtime.provider else ""


def confinement_note(session: Session) -> str:
    """The session's rung of the ladder, and what of the network it reaches, for people."""
    network = network_of(session)
    said = {
        "bubblewrap": "confined by bubblewrap",
        "bubblewrap+network": f"confined by bubblewrap, network {network.label}",
        "limits": "not confined: edits only, processes and files limited",
        "none": "not confined: edits only",
    }
    return said.get(session.sandbox, "not begun")


def key_note(session: Session) -> str:
    """What the agent sees of its key, for people."""
    credential = session.credential
    if credential is None:
        return NO_KEY
    if credential.kind == CredentialKind.HOST_LOGIN:
        return READABLE_LOGIN
    runtime = RUNTIMES.get(session.runtime)
    return TOKEN_ONLY if runtime is not None and provider_url(session, runtime) else READABLE_KEY


def key_is_readable(session: Session) -> bool:
    return key_note(session) in (READABLE_KEY, READABLE_LOGIN)
