"""What a trial run proves of an agent program. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from agents.models import Fitness
from agents.runtimes.base import Outcome, Runtime
from agents.runtimes.bounds import clip
from agents.services.preflight import Verdict
from pipeline.processes.confine import Level, is_confined

HEARD = ("started", "tool_start", "tool_end", "text", "usage", "ended")
"""The kinds of event that the pages, the watchdog and the ledger need of every run."""
TIMED_OUT = ("hung", "wall_limit")
SAID = 300  # characters of the program's own words

Event = tuple[str, Mapping[str, Any]]


def within(version: str, tested: str) -> bool:
    """Whether a version is one of those that were tested. A version that is no PEP 440 version counts by its numbers."""
    try:
        found = Version(version)
    except InvalidVersion:
        numbers = re.match(r"\d+(?:\.\d+)+", version)
        if numbers is None:
            return False
        found = Version(numbers[0])
    return SpecifierSet(tested).contains(found, prereleases=True)


def judge(
    runtime: Runtime,
    events: Sequence[Event],
    outcome: Outcome,
    report: Mapping[str, Any],
    exit: Mapping[str, Any],
    level: Level,
) -> Verdict:
    """The verdict of one run at a level of confinement: `events` of its log in order, `report` of the trial, `exit` of the runner."""
    found = report.get("found") or {}
    version = str(found.get("version") or "")[:60]
    odd = oddities(runtime, version, found)
    proved = {
        "flags": bool(report.get("asked")),
        "parser": not unheard(events) and outcome.kind == "done",
        "sandbox": bool(report.get("wrote") and report.get("tried")) and not breaches(report),
    }
    reason, remedy = fault(runtime, events, outcome, report, exit, shell=is_confined(level.name))
    state = Fitness.UNFIT if reason else Fitness.FIT
    if reason and not report:  # the trial itself did not begin: that says nothing of the program
        state = Fitness.UNKNOWN
    if state == Fitness.UNFIT and odd:
        remedy = f"{odd} {remedy}".strip()
    return Verdict(
        state=state,
        reason=reason,
        remedy=remedy,
        warning=" ".join(filter(None, [odd, confined(level)])) if state == Fitness.FIT else "",
        version=version,
        logged_in=found.get("logged_in"),
        proved=proved,
        seconds=report.get("seconds"),
    )


def fault(
    runtime: Runtime,
    events: Sequence[Event],
    outcome: Outcome,
    report: Mapping[str, Any],
    exit: Mapping[str, Any],
    *,
    shell: bool,
) -> tuple[str, str]:
    """(what is wrong, what to do), ("", "") if nothing is."""
    again = "Then check again: `./huskies runtime check`."
    install = f"Install a version that was tested ({runtime.tested or 'any'}). {again}"
    if not report:
        why = (
            exit.get("reason")
            or f"step {exit.get('step', '?')}: {exit.get('outcome', 'lost')}, exit {exit.get('code')}"
        )
        return (
            f"The check itself could not be made ({why}).",
            "It is tried again in some minutes; the server's log says more.",
        )
    if found := breaches(report):
        return (
            f"The sandbox did not hold: it {' and '.join(found)}.",
            "Use no agent with it here, and report it.",
        )
    if outcome.kind in TIMED_OUT:
        how = "It asked its provider nothing." if not report.get("asked") else "It had asked its provider."
        said = words(events)
        return (
            f"The program did not come to an end in time. {how}{said}",
            f"Start it by hand and see what it waits for. {again}",
        )
    if outcome.kind != "done":
        played = f" The stand-in could not go on: {report['problems'][0]}." if report.get("problems") else ""
        return (
            f"{outcome.reason}{played}",
            install,
        )
    if missing := unheard(events):
        return (
            f"Its output is not understood: nothing was heard of {', '.join(missing)}.",
            install,
        )
    undone = [] if report.get("wrote") else ["the file that it was told to write is not in its working copy"]
    undone += ["the command that it was told to run did not run"] if shell and not report.get("ran") else []
    if undone:
        return f"It said that it was done, but {' and '.join(undone)}.", install
    return "", ""


def oddities(runtime: Runtime, version: str, found: Mapping[str, Any]) -> str:
    """What is unusual about the version, "" if nothing."""
    if not runtime.tested:
        return ""
    if not version:
        return f"Its version is not known. {found.get('remedy') or ''}".strip()
    if not within(version, runtime.tested):
        return f"Version {version} is none of those that were tested ({runtime.tested})."
    return ""


def confined(level: Level) -> str:
    return (
        f"Without bubblewrap it is kept to edits only ({level.reason})" if not is_confined(level.name) else ""
    )


def breaches(report: Mapping[str, Any]) -> list[str]:
    did = []
    if report.get("read"):
        did.append("read a file of the server's")
    if report.get("planted"):
        did.append("wrote a file outside of its working copy")
    return did


def unheard(events: Sequence[Event]) -> list[str]:
    """The kinds of event that should have come and did not."""
    kinds = {kind for kind, _ in events}
    return [kind for kind in HEARD if kind not in kinds]


def words(events: Sequence[Event]) -> str:
    """The last words of the program that no parser understood: often why it waits."""
    said = [str(body.get("text") or "").strip() for kind, body in events if kind == "output"]
    last = " / ".join(line for line in said[-3:] if line)
    return f" It said: {clip(last, SAID)[0]}" if last else ""
