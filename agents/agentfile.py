"""The `agents:` section of the project file: who works on the stories.

`AgentsParser` is registered with `pipeline.projectfile` when the app is ready; the pipeline knows no agents.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from agents.permissionfile import Permissions, permissions
from pipeline.projectfile import Claim, ProjectFile, Section, fields
from pipeline.projectfile.network import ON, Network, network
from pipeline.projectfile.parse import model_name, refuse_repeated_names
from pipeline.projectfile.schema import command_label
from pipeline.projectfile.values import Table, Value

SECTION: Final = "agents"
ROLES: Final = ("coder", "qa", "mergemaster", "other")
DEFAULT_RUNTIME: Final = "claude-code"
WIRES: Final = ("responses", "chat")
SANDBOXES: Final = ("none", "limits", "bubblewrap")
INACTIVITY_TIMEOUT: Final = timedelta(seconds=300)
RUNTIME_KEYS: Final = ("command", "args", "script", "mode", "auth_method", "wire_api")
"""Keys that only some runtimes have a use for.

With the others they would silently do nothing, and are refused.
"""

_name = fields.text(
    pattern=r"[a-z0-9][a-z0-9-]{0,62}", expected="a name of lower-case letters, digits and dashes"
)
_credential = fields.text(pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", expected="the name of a credential")
_tool = fields.text(
    pattern=r"[A-Za-z][\w.-]*(\*|\([^,\n]*\))?", expected="the name of a tool, such as Edit or Bash(git:*)"
)
_word = fields.text(pattern=r"[A-Za-z0-9][\w.:/#-]{0,99}", expected="a name without spaces, such as yolo")
_tools = fields.many(_tool, expected="a list of names of tools")
_long_text = fields.text(lines=True)
_turns = fields.integer(1, 100_000)
_time = fields.duration(timedelta(seconds=1), timedelta(seconds=1), timedelta(days=7))
_memory = fields.size(64 * 2**20, 2**50)
_disk = fields.size(2**20, 2**50)
_session_time = fields.duration(timedelta(minutes=1), timedelta(seconds=1), timedelta(days=7))


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One agent as the file describes it. None = the runtime's own default, or no limit."""

    name: str
    role: str
    description: str = ""
    runtime: str = DEFAULT_RUNTIME
    model: str | None = None
    prompt: str | None = None
    system_prompt: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    disallowed_tools: tuple[str, ...] = ()
    max_turns: int | None = None
    max_tool_turns: int | None = None
    max_budget_usd: Decimal | None = None
    inactivity_timeout: timedelta = INACTIVITY_TIMEOUT
    max_session_time: timedelta | None = None
    max_memory: int | None = None
    max_disk: int | None = None
    credential: str | None = None
    base_url: str | None = None
    command: fields.Command | None = None
    args: tuple[str, ...] = ()
    script: Any = None
    mode: str | None = None
    auth_method: str | None = None
    wire_api: str | None = None
    permissions: Permissions | None = None
    network: Network = ON
    sandbox: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON data: times in seconds, the budget as a decimal string."""
        return {
            "name": self.name,
            "role": self.role,
            "description": self.description,
            "runtime": self.runtime,
            "model": self.model,
            "prompt": self.prompt,
            "system_prompt": self.system_prompt,
            "allowed_tools": None if self.allowed_tools is None else list(self.allowed_tools),
            "disallowed_tools": list(self.disallowed_tools),
            "max_turns": self.max_turns,
            "max_tool_turns": self.max_tool_turns,
            "max_budget_usd": None if self.max_budget_usd is None else str(self.max_budget_usd),
            "inactivity_timeout": self.inactivity_timeout.total_seconds(),
            "max_session_time": self.max_session_time.total_seconds() if self.max_session_time else None,
            "max_memory": self.max_memory,
            "max_disk": self.max_disk,
            "credential": self.credential,
            "base_url": self.base_url,
            "command": list(self.command) if isinstance(self.command, tuple) else self.command,
            "args": list(self.args),
            "script": self.script,
            "mode": self.mode,
            "auth_method": self.auth_method,
            "wire_api": self.wire_api,
            "permissions": self.permissions.to_json() if self.permissions else None,
            "network": self.network.to_json(),
            "sandbox": self.sandbox,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AgentEntry:
        """The reverse of `to_json`; keys that an older version did not store get their defaults."""
        kept = {key: data[key] for key in cls.__dataclass_fields__ if data.get(key) is not None}
        for key in ("allowed_tools", "disallowed_tools", "args"):
            if key in kept:
                kept[key] = tuple(kept[key])
        for key in ("inactivity_timeout", "max_session_time"):
            if key in kept:
                kept[key] = timedelta(seconds=kept[key])
        if "max_budget_usd" in kept:
            kept["max_budget_usd"] = Decimal(kept["max_budget_usd"])
        if "permissions" in kept:
            kept["permissions"] = Permissions.from_json(kept["permissions"])
        if "network" in kept:
            kept["network"] = Network.from_json(kept["network"])
        if isinstance(kept.get("command"), list):
            kept["command"] = tuple(kept["command"])
        return cls(**kept)

    def claims(self) -> Iterator[Claim]:
        """The program, script, credential and base URL that an admin must have seen."""
        where = f"agents.{self.name}"
        if self.command is not None or self.args:
            command = self.command if self.command is not None else ()
            label = " ".join([command_label(command) if command else self.runtime, *self.args])
            # A mode says what the program does without asking.
            what = [self.runtime, command, self.args, *([self.mode] if self.mode else [])]
            label += f" (mode {self.mode})" if self.mode else ""
            yield Claim("command", f"{where}.command", json.dumps(what), label)
        if self.script is not None:
            # A scripted agent's steps may run commands.
            script = json.dumps(self.script, sort_keys=True, ensure_ascii=False)
            yield Claim("command", f"{where}.script", json.dumps(["script", script]), script)
        elif self.runtime != DEFAULT_RUNTIME and self.command is None:
            yield Claim("command", f"{where}.runtime", json.dumps(["runtime", self.runtime]), self.runtime)
        if self.credential is not None:
            yield Claim("credential", f"{where}.credential", self.credential, self.credential)
        if self.permissions is not None:
            if not self.permissions.asks:
                yield Claim("command", f"{where}.permissions", "permissions free", "to act without asking")
            yield from self.permissions.claims(f"{where}.permissions")
        if self.base_url is not None:
            # Which key goes where is what matters: a known address with another credential is a new thing.
            label = f"{self.base_url} with {self.credential or 'no named credential'}"
            yield Claim("base_url", f"{where}.base_url", json.dumps([self.base_url, self.credential]), label)


@dataclass(frozen=True, slots=True)
class AgentsSection:
    """All agents of a project, in the order of the file."""

    agents: tuple[AgentEntry, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        return [agent.to_json() for agent in self.agents]

    def claims(self) -> Iterator[Claim]:
        for agent in self.agents:
            yield from agent.claims()

    def loosened(self, before: Section) -> Iterator[tuple[str, str]]:
        """An agent that was to ask, and no longer is by its own entry; that reaches more of the network; that is confined less."""
        old = {agent.name: agent for agent in (before.agents if isinstance(before, AgentsSection) else ())}
        asked = {
            name for name, agent in old.items() if agent.permissions is not None and agent.permissions.asks
        }
        for agent in self.agents:
            was = old.get(agent.name)
            if was is not None and agent.network.wider_than(was.network):
                where = f"agents.{agent.name}.network"
                yield (
                    where,
                    f"`{where}` changes from {was.network.label} to {agent.network.label}: the agent would reach more.",
                )
            if agent.sandbox in ("none", "limits") and (was is None or was.sandbox != agent.sandbox):
                where = f"agents.{agent.name}.sandbox"
                yield where, f"`{where}` becomes {agent.sandbox}: the agent would run without bubblewrap."
            if agent.name in asked and (agent.permissions is None or not agent.permissions.asks):
                where = f"agents.{agent.name}.permissions"
                yield where, f"`{where}` no longer asks: the agent would act without anybody's answer."


DEFAULT_AGENTS: Final = AgentsSection(
    (
        AgentEntry("coder-1", "coder", "Works on stories."),
        AgentEntry("coder-2", "coder", "Works on stories."),
        AgentEntry("qa", "qa", "Looks at finished work."),
    )
)


class AgentsParser:
    """Reads `agents:`. `runtimes` maps each runtime's name to those of RUNTIME_KEYS that it has a use for."""

    def __init__(self, runtimes: Mapping[str, Collection[str]]) -> None:
        self.runtimes = runtimes

    def default(self) -> AgentsSection:
        """Two coders and one for QA, on Claude Code."""
        return DEFAULT_AGENTS

    def parse(self, value: Value) -> AgentsSection | None:
        """The agents; an empty list is a project without any."""
        agents = fields.many(fields.table(self._agent), expected="a list of agents", single=False)(value)
        refuse_repeated_names(value)
        return None if agents is None else AgentsSection(agents)

    def from_json(self, data: Any) -> AgentsSection:
        """The reverse of `AgentsSection.to_json`."""
        return AgentsSection(tuple(AgentEntry.from_json(agent) for agent in data))

    def proposal(self) -> str:
        """The default agents as YAML."""
        lines = [
            "# The agents. role: coder, qa, mergemaster or other (guessed from the name when left out).",
            "# An agent also has: model, prompt, max_turns, max_budget_usd, credential, base_url and more.",
            "agents:",
        ]
        for agent in DEFAULT_AGENTS.agents:
            lines += [f"  - name: {agent.name}", f"    role: {agent.role}", f"    runtime: {agent.runtime}"]
        return "\n".join(lines) + "\n"

    def _agent(self, table: Table) -> AgentEntry:
        value = table.require("name")
        name = (_name(value) if value else None) or ""
        table.forbid(
            "env",
            "An agent's environment is not set in the project file: the server allow-lists it, and keys come "
            "from a credential; name one with `credential`.",
        )
        for key in ("api_key", "token", "password", "secret"):
            table.forbid(
                key,
                f"`{key}` does not belong in the project file, which everybody with the repository can read; "
                "replace that secret, add it on the server as a credential, and name it with `credential`.",
            )
        role = table.read("role", fields.one_of(ROLES), guess_role(name))
        runtime = table.read("runtime", fields.one_of(tuple(self.runtimes)), DEFAULT_RUNTIME)
        command = self._for_runtime(table, "command", runtime)
        args = self._for_runtime(table, "args", runtime)
        script = self._for_runtime(table, "script", runtime)
        mode = self._for_runtime(table, "mode", runtime)
        auth_method = self._for_runtime(table, "auth_method", runtime)
        wire_api = self._for_runtime(table, "wire_api", runtime)
        return AgentEntry(
            name=name,
            role=role,
            runtime=runtime,
            description=table.read("description", fields.text(lines=True), ""),
            model=table.read("model", model_name, None),
            prompt=table.read("prompt", _long_text, None),
            system_prompt=table.read("system_prompt", _long_text, None),
            allowed_tools=table.read("allowed_tools", _tools, None),
            disallowed_tools=table.read("disallowed_tools", _tools, ()),
            max_turns=table.read("max_turns", _turns, None),
            max_tool_turns=table.read("max_tool_turns", _turns, None),
            max_budget_usd=table.read("max_budget_usd", fields.money(1_000_000), None),
            inactivity_timeout=table.read("inactivity_timeout", _time, INACTIVITY_TIMEOUT),
            max_session_time=table.read("max_session_time", _session_time, None),
            max_memory=table.read("max_memory", _memory, None),
            max_disk=table.read("max_disk", _disk, None),
            credential=table.read("credential", _credential, None),
            base_url=table.read("base_url", base_url, None),
            command=fields.command(command) if command else None,
            args=(_arguments(args) if args else None) or (),
            script=_script(script) if script else None,
            mode=_word(mode) if mode else None,
            auth_method=_word(auth_method) if auth_method else None,
            wire_api=fields.one_of(WIRES)(wire_api) if wire_api else None,
            permissions=table.read("permissions", permissions, None),
            network=table.read("network", network, ON),
            sandbox=table.read("sandbox", fields.one_of(SANDBOXES), None),
        )

    def _for_runtime(self, table: Table, key: str, runtime: str) -> Value | None:
        """The key's value if the runtime has a use for it."""
        value = table.get(key)
        if value is None or key in self.runtimes.get(runtime, ()):
            return value
        takers = [name for name, keys in self.runtimes.items() if key in keys]
        step = f"it is for the runtime {' or '.join(takers)}" if takers else "remove it"
        value.refuse(f"`{value.path}` means nothing to the runtime {runtime}: {step}.")
        return None


def agents_of(file: ProjectFile) -> tuple[AgentEntry, ...]:
    """The agents of a project file that was read with this section, the default ones otherwise."""
    section = file.sections.get(SECTION, DEFAULT_AGENTS)
    return section.agents if isinstance(section, AgentsSection) else DEFAULT_AGENTS.agents


def guess_role(name: str) -> str:
    """The role that a name stands for.

    `coder…`, `qa…`, `merge…`, anything else is `other` (as in the seed).
    """
    for start, role in (("coder", "coder"), ("qa", "qa"), ("merge", "mergemaster")):
        if name.startswith(start):
            return role
    return "other"


def base_url(value: Value) -> str | None:
    """An address that a credential may be sent to: https, or http to this machine; without user or password.

    The refused text is not repeated: it may hold a password.
    """
    written = fields.text()(value)
    if written is None:
        return None
    fault = url_fault(written)
    if fault:
        value.refuse(f"`{value.path}` {fault}.")
        return None
    return written.rstrip("/")


def url_fault(url: str) -> str | None:
    """What is wrong with a base URL, as a predicate without its full stop; None if it may be used."""
    if not url.isascii() or any(character.isspace() or character in '\\"<>^`{|}' for character in url):
        return "holds characters that do not belong in an address; write it in plain ASCII"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not an address; write it as https://host/path"
    if "@" in parts.netloc:
        return "holds a user name or password; leave it out and name a `credential`"
    if not host or port == 0:
        return "is not an address; write it as https://host/path"
    if "?" in url or "#" in url:
        return "has a query or fragment; end it with the path"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "must start with https:// (http:// is allowed to this machine only: localhost, 127.0.0.1, [::1])"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_arguments = fields.many(fields.text(lines=True), expected="a list of arguments", single=False)


def _script(value: Value) -> Any:
    data = fields.plain(value)
    if not isinstance(data, (list, dict)):
        value.refuse_as_not("a list of steps or a mapping")
        return None
    return data
