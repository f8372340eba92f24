"""The verbs around a project's people and limits."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from pipeline import events
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, NotFound
from pipeline.models import Capacity, Membership, Project
from pipeline.roles import Role
from pipeline.services.stories import check_may
from pipeline.texts import storable


def set_role(project: Project, user_name: str, role: int, *, actor: Actor) -> None:
    """Give a person a role in a project, or none (0). Open pages of theirs look at their rights at once."""
    check_may(actor, "member.edit", project)
    user = User.objects.filter(username=storable(user_name, "user name")).first()
    if user is None:
        raise NotFound(
            f"There is no user {user_name!r}. An admin of the server adds one with `user add` or in the admin."
        )
    if role and role not in Role.values:
        raise BadInput(f"{role} is no role; the roles are {', '.join(Role.labels)}.")
    with transaction.atomic():
        if role:
            Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
        else:
            Membership.objects.filter(project=project, user=user).delete()
        events.record(
            project.pk, "access", text=f"{actor.name}: {user_name} is {Role(role).label if role else 'out'}"
        )


def edit_project(project: Project, *, actor: Actor, **values: Any) -> None:
    """Change a limit or what is allowed; what runs goes on and counts until it ends."""
    check_may(actor, "project.edit", project)
    with transaction.atomic():
        Capacity.lock()
        Project.objects.filter(pk=project.pk).update(**values)
        events.record(project.pk, "project", text=f"{actor.name} changed {', '.join(values)}")
