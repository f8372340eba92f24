"""What is in the messages of the Agent Client Protocol, for the `acp` runtime's client (acp_agent)."""

import json
from typing import TYPE_CHECKING

from acp.exceptions import RequestError

if TYPE_CHECKING:
    from agents.runtimes.client_wire import Json, items, smaller
else:  # beside the client, which is run as a file
    from client_wire import Json, items, smaller

# The server itself remembers what is allowed for a session, and means that very call; a program's "always" is often far more.
ALLOW = {"once": ("allow_once",), "session": ("allow_once", "allow_always")}
DENY = ("reject_once", "reject_always")
CANCELLED: Json = {"outcome": {"outcome": "cancelled"}}


def words_of(error: RequestError) -> str:
    """What an error of the protocol says; its details are an object, a text or nothing."""
    said, data = str(error), error.data
    if isinstance(data, dict) and isinstance(data.get("details"), str):
        data = data["details"]
    if data not in (None, {}, ""):
        said += ": " + (data if isinstance(data, str) else json.dumps(smaller(data)))
    return said[:4000]


def options_of(state: Json, category: str) -> list[Json]:
    """The settings of this category that one chooses a value for."""
    found = items(state.get("configOptions"))
    return [
        one
        for one in found
        if category in (one.get("category"), one.get("id")) and one.get("type") != "boolean"
    ]


def value_named(offered: list[Json], key: str, wanted: str) -> str:
    """The value that is meant by `wanted`, which may be the name that people see; `wanted` itself where none is: not all are listed."""
    named = [one[key] for one in offered if one.get("name") == wanted and isinstance(one.get(key), str)]
    return str(next(iter(named), wanted)) if all(one.get(key) != wanted for one in offered) else wanted


def option_for(options: list[Json], decision: Json) -> str | None:
    """The id of the option that says so, none that allows more than was meant; None where the program offers none."""
    scope = "session" if decision.get("scope") == "session" else "once"
    for kind in ALLOW[scope] if decision.get("allow") is True else DENY:
        for option in options:
            if option.get("kind") == kind and isinstance(option.get("optionId"), str):
                return str(option["optionId"])
    return None


def answer_of(options: list[Json], decision: Json | None) -> tuple[Json, bool]:
    """The answer to a request for a permission, and whether it allows what was asked."""
    chosen = option_for(options, decision) if decision is not None else None
    if decision is None or chosen is None:
        return CANCELLED, False
    return {"outcome": {"outcome": "selected", "optionId": chosen}}, decision.get("allow") is True
