"""What agents wait for people for: their requests, keys that a provider refused, and programs that do not work."""

from __future__ import annotations

from django.urls import reverse

from agents.models import Agent, Credential, Fitness, RuntimeCheck
from agents.services import logins, permissions
from pipeline.models import Project
from pipeline.needs import SHOWN, Button, Need


def of_project(project: Project) -> list[Need]:
    return [*_requests(project), *_credentials(project), *_runtimes(project)]


def _requests(project: Project) -> list[Need]:
    found = []
    for row in permissions.waiting(project)[:SHOWN]:
        page = reverse("session", args=[row.session_id])
        url = reverse("session-answer", args=[row.session_id, row.pk])
        by = row.session.started_by_id
        buttons = (
            Button("Allow", url, "session.answer", by, "allow"),
            Button("Deny", url, "session.answer", by, "deny"),
            Button("Look", page, link=True),
        )
        who = f"{row.session.agent.name} on #{row.session.story.number} asks"
        why = f"Denied at {row.deadline:%H:%M:%S} UTC if nobody answers."
        found.append(Need("asks", page, f"{who}: {permissions.label(row)}", why, buttons))
    return found


def _credentials(project: Project) -> list[Need]:
    """Those that the project's agents use and that a provider refused; limits end by themselves."""
    refused = list(Credential.objects.filter(paused_until=None).exclude(paused_for=""))
    if not refused:
        return []
    used = Agent.objects.filter(project=project, configured=True).values_list("runtime", "entry")
    names = {logins.name_for(runtime, entry) for runtime, entry in used}
    rows = [row for row in refused if row.name in names]
    page = reverse("credentials")
    button = Button("Credentials", page, "credential.edit", link=True)
    return [Need("key", page, f"Credential {row.name}", row.paused_for, (button,)) for row in rows]


def _runtimes(project: Project) -> list[Need]:
    """Those that the project's agents use and that are not fit on a host."""
    used = Agent.objects.filter(project=project, configured=True).values_list("runtime", flat=True)
    page = reverse("runtimes")
    rows = RuntimeCheck.objects.filter(runtime__in=list(used), state=Fitness.UNFIT)
    button = Button("Runtimes", page, link=True)
    return [Need("program", page, f"{row.runtime} on {row.host}", row.sentence, (button,)) for row in rows]
