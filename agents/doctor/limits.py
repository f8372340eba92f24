"""R1: at most one, and never more than a limit: unless it was lowered since, which kills nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db.models import Count

from agents.models import Limit, Session
from agents.models.limit import Scope, applying
from agents.services import subjects
from agents.states import Role
from pipeline.doctor import Lie
from pipeline.models import Act, Host


def at_most_one() -> Iterator[Lie]:
    """One live session per agent, and per story and role."""
    live = Session.objects.live().order_by()
    by_agent = live.values_list("project__name", "agent__name").annotate(count=Count("pk"))
    for project, agent, count in by_agent.filter(count__gt=1):
        yield Lie("R1", f"agent {project}/{agent}", f"{count} sessions of it are live.")
    by_story = live.exclude(role=Role.OTHER).values_list("project__name", "story__number", "role")
    for project, number, role, count in by_story.annotate(count=Count("pk")).filter(count__gt=1):
        yield Lie("R1", f"story {project}/{number}", f"{count} live sessions of role {role} are on it.")


def limits() -> Iterator[Lie]:
    """Of every scope. The newest live session was claimed when the others lived: with the limit of that time it had no place."""
    hosts = dict(Host.objects.values_list("name", "pk"))
    claimed: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    columns = ("host", "project_id", "started_by_id", "role", "model", "agent_id", "created_at")
    for host, project, user, role, model, agent, at in (
        Session.objects.live().order_by().values_list(*columns)
    ):
        of = {Scope.HOST: hosts.get(host, host), Scope.PROJECT: project, Scope.USER: user, Scope.ROLE: role}
        of |= {Scope.MODEL: model, Scope.AGENT: agent}
        claimed[(Scope.SERVER, "")].append(at)
        for scope, subject in of.items():
            if subject not in (None, ""):
                claimed[(scope, str(subject))].append(at)
    rows = {(row.scope, row.subject): row.most for row in Limit.objects.all()}
    rows.setdefault((Scope.SERVER, ""), settings.HUSKIES_SERVER_LIMIT)
    over = {
        key: most
        for key in claimed
        if (most := applying(rows, *key)) is not None and len(claimed[key]) > most
    }
    names = subjects.names(list(over))
    for key, most in sorted(over.items()):
        if lowered_since(max(claimed[key])):
            continue
        what = "the server" if key[0] == Scope.SERVER else f"{key[0]} {names.get(key, key[1])}"
        yield Lie(
            "R1",
            what,
            f"{len(claimed[key])} sessions are live, its limit is {most}, and no limit was lowered since the newest began.",
        )


def lowered_since(moment: datetime) -> bool:
    """Whether a limit was set, or the server started with other settings, after a moment."""
    return Act.objects.filter(verb__in=["limit.set", "limit.clear", "server.up"], at__gte=moment).exists()
