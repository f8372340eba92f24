"""What stands in a tool call and in the counts of a turn, as the Agent Client Protocol writes them; pure, and tolerant of anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .bounds import bounded, clip, mapping, number, readable, text
from .ledger import COUNTS, Counts


def counts_of(usage: Mapping[str, int]) -> Counts:
    """The counts of a turn. Whether cached and thought tokens stand within the others is told by the total alone."""
    given, output, read, write, thought, total = (
        number(usage.get(name))
        for name in (
            "inputTokens",
            "outputTokens",
            "cachedReadTokens",
            "cachedWriteTokens",
            "thoughtTokens",
            "totalTokens",
        )
    )
    beyond = total - given - output
    if read + write and beyond < read + write:
        given = max(0, given - read - write)
    else:
        beyond -= read + write
    if thought and beyond >= thought:
        output += thought
    counts = {"input": given, "output": output, "cache_read": read, "cache_write": write, "thinking": thought}
    return dict.fromkeys(COUNTS, 0) | counts


def _contents(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = call.get("content")
    return [mapping(one) for one in found[:64]] if isinstance(found, list) else []


def paths_of(call: Mapping[str, Any]) -> list[str]:
    """The files that a call is about, each once."""
    places = call.get("locations")
    named = [mapping(one).get("path") for one in places[:64]] if isinstance(places, list) else []
    named += [one.get("path") for one in _contents(call) if one.get("type") == "diff"]
    return list(dict.fromkeys(clip(one, 500)[0] for one in named if isinstance(one, str) and one))


def _said_in(call: Mapping[str, Any]) -> str:
    return "\n".join(
        said for one in _contents(call) if (said := text(mapping(one.get("content")).get("text")))
    )


def _diffs(call: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "file_path": text(one.get("path")),
            "old_string": text(one.get("oldText")),
            "new_string": text(one.get("newText")),
        }
        for one in _contents(call)
        if one.get("type") == "diff"
    ]


def details_of(call: Mapping[str, Any]) -> str:
    """What a call is given, for people: its input, else its change, else its words."""
    given = call.get("rawInput")
    if given:
        return readable(bounded(given, 4000))
    diffs = _diffs(call)
    return json.dumps(bounded(diffs, 4000), indent=1, ensure_ascii=False) if diffs else _said_in(call)


def output_of(call: Mapping[str, Any]) -> str:
    """What came of a call; a change to a file was told when it began."""
    said, raw = _said_in(call), call.get("rawOutput")
    return said or (readable(bounded(raw, 8000)) if raw and not _diffs(call) else "")


def input_of(tool: str, title: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """What a person judges: the program's own input where it tells it, the change to a file, the command."""
    given = dict(mapping(call.get("rawInput")))
    for diff in _diffs(call)[:1]:
        given = {**diff, **given}
    if tool == "execute" and not given:
        given["command"] = title
    if (paths := paths_of(call)) and "file_path" not in given:
        given["paths"] = paths
    return dict(mapping(bounded(given, 4000)))
