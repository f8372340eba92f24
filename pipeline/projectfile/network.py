"""What of the network a child may reach: `network: on`, `off`, or `allow: [hosts]`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

from pipeline.projectfile import fields
from pipeline.projectfile.values import Table, Value

_NAME = re.compile(
    r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_EXPECTED = "a host such as pypi.org, *.example.com, example.com:8080, 10.0.0.7 or 10.0.0.0/8"


@dataclass(frozen=True, slots=True)
class Network:
    """`hosts` as written, in lower case; only with `allow`."""

    mode: Literal["on", "off", "allow"] = "on"
    hosts: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        return self.mode == "on"

    @property
    def label(self) -> str:
        """As a person reads it: `on`, `off`, `only pypi.org, *.example.com`."""
        return f"only {', '.join(self.hosts)}" if self.mode == "allow" else self.mode

    def rules(self, *more: str) -> list[dict[str, Any]] | None:
        """What the sidecar takes (`sidecar_reach.Reach`), with `more` hosts; None where nothing is listed."""
        return [_rule(host) for host in (*self.hosts, *more)] if self.mode == "allow" else None

    def wider_than(self, other: Network) -> bool:
        """Whether it lets through what the other does not."""
        if other.is_on or self.mode == "off":
            return False
        return self.is_on or bool(set(self.hosts) - set(other.hosts))

    def to_json(self) -> Any:
        return {"allow": list(self.hosts)} if self.mode == "allow" else self.mode

    @classmethod
    def from_json(cls, data: Any) -> Network:
        """The reverse of `to_json`; on for what an older version did not store."""
        if isinstance(data, dict):
            return cls("allow", tuple(data.get("allow", ())))
        return OFF if data == "off" else ON


ON: Final = Network()
OFF: Final = Network("off")


def network(value: Value) -> Network | None:
    """Reads the key."""
    if isinstance(value.node, yaml.MappingNode):
        return fields.table(_allowed)(value)
    if value.scalar not in ("on", "off"):
        value.refuse_as_not("on, off, or a mapping with the key allow and a list of hosts")
        return None
    return ON if value.scalar == "on" else OFF


def _allowed(table: Table) -> Network:
    hosts = table.require("allow")
    read = fields.many(_host, expected="a list of hosts")
    return Network("allow", (read(hosts) if hosts else None) or ())


def _host(value: Value) -> str | None:
    written = (value.scalar or "").lower().rstrip(".")
    if len(written) > 253 or not written.isascii() or _split(written) is None:
        value.refuse_as_not(_EXPECTED)
        return None
    return written


def _rule(host: str) -> dict[str, Any]:
    name, port = _split(host) or (host, None)
    return {"host": name, "port": port}


def _split(written: str) -> tuple[str, int | None] | None:
    """The host or network without brackets, and its port; None for what is neither."""
    name, colon, digits = written.rpartition(":")
    port: int | None = None
    if colon and "]" not in digits and (":" not in name or name.endswith("]")):
        if not digits.isdigit() or not 0 < int(digits) < 65536:
            return None
        port = int(digits)
    else:
        name = written
    bare = name.strip("[]")
    try:
        ipaddress.ip_network(bare, strict=False)
    except ValueError:
        # What is written like an address and is none is no name either.
        numbers = bare.rpartition(".")[2].isdigit() or "/" in bare or ":" in bare
        return None if numbers or not _NAME.fullmatch(bare) else (bare, port)
    return bare, port
