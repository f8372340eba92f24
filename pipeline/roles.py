"""Who may do what: one table of verb by role, used by views, sockets, admin and commands.

Roles are ordered: viewer < developer < operator < admin; each may do what the smaller ones may. A superuser is admin everywhere. The
management commands run on the server's own machine and act as admin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

    from pipeline.models import Project


class Role(models.IntegerChoices):
    VIEWER = 10, "viewer"
    DEVELOPER = 20, "developer"
    OPERATOR = 30, "operator"
    ADMIN = 40, "admin"


MAY: dict[str, Role] = {
    "see": Role.VIEWER,
    "story.create": Role.DEVELOPER,
    "story.edit": Role.DEVELOPER,
    "story.start": Role.DEVELOPER,
    "story.stop": Role.DEVELOPER,
    "story.hold": Role.DEVELOPER,
    "story.approve": Role.DEVELOPER,
    "story.reject": Role.DEVELOPER,
    "story.park": Role.DEVELOPER,
    "story.archive": Role.DEVELOPER,
    "story.restore": Role.DEVELOPER,
    "story.reopen": Role.DEVELOPER,
    "story.block": Role.DEVELOPER,
    "story.unblock": Role.DEVELOPER,
    "story.send_back": Role.DEVELOPER,
    "story.retry_merge": Role.DEVELOPER,
    "story.freeze": Role.OPERATOR,
    "story.delete": Role.OPERATOR,
    "story.approve_files": Role.ADMIN,
    "session.stop": Role.DEVELOPER,
    "session.message": Role.DEVELOPER,
    "session.answer": Role.OPERATOR,
    "project.refresh": Role.OPERATOR,
    "project.approve_file": Role.ADMIN,
    "project.edit": Role.ADMIN,
    "project.add": Role.ADMIN,
    "demo.start": Role.ADMIN,
    "credential.edit": Role.ADMIN,
    "host.edit": Role.ADMIN,
    "runtime.check": Role.ADMIN,
    "member.edit": Role.ADMIN,
    "agent.pause": Role.OPERATOR,
    "agent.assign": Role.DEVELOPER,
    "limit.edit": Role.OPERATOR,
    "budget.edit": Role.OPERATOR,
    # What each person and agent spends. A story's and a session's own cost stands on its page, for all who see it.
    "spend.see": Role.OPERATOR,
}

OWN: dict[str, Role] = {"session.answer": Role.DEVELOPER}
"""What a smaller role may do where the work is its own: it started the story."""


def role_in(user: AbstractBaseUser | AnonymousUser, project: Project | None) -> Role | None:
    """The person's role, read from the database at each call; None = knows nothing of the project."""
    if not user.is_authenticated or not user.is_active:
        return None
    if getattr(user, "is_superuser", False):
        return Role.ADMIN
    if project is None:
        return None
    value = project.memberships.filter(user_id=user.pk).values_list("role", flat=True).first()
    return Role(value) if value else None


def may(
    user: AbstractBaseUser | AnonymousUser, verb: str, project: Project | None, *, own: bool = False
) -> bool:
    """Whether the person may do the verb there; `own`: on what they started. An unknown verb is a programming error (KeyError)."""
    return allows(role_in(user, project), verb, own=own)


def allows(role: Role | None, verb: str, *, own: bool = False) -> bool:
    """As `may`, for who has asked for the role already."""
    needed = min(MAY[verb], OWN.get(verb, MAY[verb])) if own else MAY[verb]
    return role is not None and role >= needed
