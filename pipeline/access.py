"""A change of a person's access is news for the sockets of their projects: they look at their rights before the next frame."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_save

from pipeline import events
from pipeline.models import Project


def connect() -> None:
    user_logged_out.connect(logged_out, dispatch_uid="pipeline.access.out")
    post_save.connect(changed, sender=get_user_model(), dispatch_uid="pipeline.access.user")


def logged_out(sender: Any, *, user: Any, **_: Any) -> None:
    if user is not None:
        tell(user)


def changed(sender: Any, *, instance: Any, created: bool, update_fields: Any = None, **_: Any) -> None:
    """A new password, a locked account, another flag; a mere log-in changes nothing."""
    if not created and set(update_fields or ()) != {"last_login"}:
        tell(instance)


def tell(user: Any) -> None:
    with transaction.atomic():
        for project_id in Project.objects.visible_to(user).order_by("pk").values_list("pk", flat=True):
            events.record(project_id, "access")
