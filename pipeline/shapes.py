"""What scripts read: the one place that says how a story looks as JSON. Commands, API and tools share it.

Agents, sessions and costs are known to the app above, which adds its answer to `enrichers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from pipeline.models import Dependency, Host, Process, Story

Enricher = Callable[[Sequence[Story]], dict[int, dict[str, Any]]]
"""Stories -> for each one's id, values of ENRICHED."""
ENRICHED: dict[str, Any] = {"agent": None, "session": None, "cost_usd": "0.000000"}

enrichers: list[Enricher] = []


def money(amount: Decimal) -> str:
    """Dollars as a decimal string with six places: never a float."""
    return f"{amount:.6f}"


def story(row: Story) -> dict[str, Any]:
    return stories([row])[0]


def stories(rows: Sequence[Story]) -> list[dict[str, Any]]:
    """Each as {"project", "number", "kind", "title", "stage", "frozen", "priority", "depends_on", "waiting_for", "agent", "session", "commit",
    "cost_usd"}.

    A constant number of queries. `depends_on`: numbers of its project; `waiting_for`: why nothing happens just now, or null; `commit`: the
    landed one, or null.
    """
    more = [enrich(rows) for enrich in [depends_on, *enrichers]]
    return [_story(row, [values.get(row.pk, {}) for values in more]) for row in rows]


def depends_on(rows: Sequence[Story]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {row.pk: {"depends_on": []} for row in rows}
    edges = Dependency.objects.filter(story__in=list(found)).order_by("number")
    for story_id, number in edges.values_list("story_id", "number"):
        found[story_id]["depends_on"].append(number)
    return found


def _story(row: Story, more: list[dict[str, Any]]) -> dict[str, Any]:
    added = dict(ENRICHED)
    for values in more:
        added |= values
    return {
        "project": row.project.name,
        "number": row.number,
        "kind": row.kind,
        "title": row.title,
        "stage": row.stage,
        "frozen": row.frozen,
        "priority": row.priority,
        "depends_on": added["depends_on"],
        "waiting_for": row.held_for or row.needs_approval or row.waiting_for or row.reason or None,
        "agent": added["agent"],
        "session": added["session"],
        "commit": row.landed or None,
        "cost_usd": added["cost_usd"],
    }


def host(row: Host) -> dict[str, Any]:
    """{"name", "state": in use, draining, silent or lost, "seen_at": ISO or null, "processes": how many are not over, "confinement"}."""
    state = "draining" if row.draining else "in use"
    state = "lost" if row.lost_at else "silent" if row.suspect_since else state
    return {
        "name": row.name,
        "state": state,
        "seen_at": row.seen_at.isoformat(timespec="seconds") if row.seen_at else None,
        "processes": Process.objects.filter(host=row.name).unhandled().count(),
        "confinement": row.level or None,
    }
