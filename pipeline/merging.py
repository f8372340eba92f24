"""The merge queue's decisions, from values alone: what an answer of a chore means, and the landed commit's message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipeline.models import Story

AUTHOR = {"name": "huskies", "email": "server@huskies.invalid"}
RETRY_SECONDS = 15.0
PATIENT_SECONDS = 60.0  # after so many tries a person is not about to clean up this minute
TRIES_BEFORE_PATIENCE = 40

busy: list[Callable[[int], set[int]]] = []
"""Floors above add here which stories of a project somebody works on: the merge queue leaves them alone meanwhile."""
trailers: list[Callable[[Story], list[tuple[str, str]]]] = []
"""Floors above add here who worked on a story, as trailers of its commit."""

# Facts about the work itself: it cannot land as it is, whoever waits.
_OF_THE_WORK = {"conflict", "empty", "unrelated", "submodules", "lfs", "hostile_name"}


@dataclass(frozen=True, slots=True)
class Next:
    """`gate` the candidate; `landed`; `fail` the merge; `wait` and try the same again; `again`: merge anew; `land`; `probe`."""

    step: Literal["gate", "landed", "fail", "wait", "again", "land", "probe"]
    reason: str = ""
    files: tuple[str, ...] = ()


def after_candidate(answer: Mapping[str, Any]) -> Next:
    """What follows from the answer of the chore `candidate`."""
    if "result" in answer:
        return Next("gate")
    if "refused" not in answer:
        return Next("wait", str(answer.get("failed", "")))
    refused = answer["refused"]
    kind, reason = str(refused.get("kind")), str(refused.get("message"))
    if kind == "empty":
        return Next("fail", f"Nothing to land. {reason}")
    if kind in _OF_THE_WORK:
        return Next("fail", reason, _paths(refused.get("files", [])))
    return Next("wait", reason)


def after_land(answer: Mapping[str, Any]) -> Next:
    """What follows from the answer of the chore `land`. Without an answer nobody knows whether it landed: look."""
    if "result" in answer:
        return Next("landed")
    if "refused" not in answer:
        return Next("probe", str(answer.get("failed", "")))
    refused = answer["refused"]
    if refused.get("kind") in ("moved", "overtaken"):
        return Next("again", str(refused.get("message")))
    return Next("wait", str(refused.get("message")), _paths(refused.get("files", [])))


def after_probe(answer: Mapping[str, Any], *, expected: str) -> Next:
    """What follows from the answer of the chore `probe`: it landed, or the same push goes again, or the branch has moved."""
    if "result" in answer:
        result = answer["result"]
        if result.get("reachable"):
            return Next("landed")
        return Next("land") if result.get("tip") == expected else Next("again", "The branch moved meanwhile.")
    if "refused" in answer:
        return Next("wait", str(answer["refused"].get("message")))
    return Next("probe", str(answer.get("failed", "")))


def wait_seconds(tries: int) -> float:
    """How long until the next try of a landing that something outside stands in the way of."""
    return RETRY_SECONDS if tries < TRIES_BEFORE_PATIENCE else PATIENT_SECONDS


def commit_message(
    *, title: str, number: int, project: str, criteria: Sequence[str], trailers: Sequence[tuple[str, str]]
) -> str:
    """`<title> (#<number>)`, the criteria as a list, then the trailers as the last paragraph (git-interpret-trailers)."""
    parts = [f"{_line(title)} (#{number})"]
    if criteria:
        parts.append("\n".join(f"- {_line(text)}" for text in criteria))
    lines = [("Story", f"{project}/{number}"), *trailers]
    parts.append("\n".join(f"{name}: {_line(value)}" for name, value in lines))
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()


def _paths(files: Sequence[Any]) -> tuple[str, ...]:
    """Chores name files as texts, or as objects with a `path`."""
    return tuple(dict.fromkeys(str(each["path"] if isinstance(each, dict) else each) for each in files))
