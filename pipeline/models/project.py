"""A project: a git repository whose stories the server drives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from pipeline.roles import Role

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser


class ProjectState(models.TextChoices):
    PREPARING = "preparing", "being prepared"
    READY = "ready", "ready"
    REFUSED = "refused", "refused"


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> ProjectQuerySet:
        if getattr(user, "is_superuser", False):
            return self
        return self.filter(memberships__user_id=user.pk) if user.pk else self.none()


class Project(models.Model):
    name = models.CharField(
        max_length=63,
        unique=True,
        validators=[
            RegexValidator(
                r"^[a-z0-9][a-z0-9-]*$", "Lower-case letters, digits and dashes, such as web-shop."
            )
        ],
    )
    key = models.CharField(
        max_length=20, unique=True, editable=False, help_text="Random name of the control repository."
    )
    source = models.CharField(max_length=1000, help_text="A folder on this machine, or a URL.")
    source_kind = models.CharField(
        max_length=10, blank=True, editable=False, help_text="checkout, bare or remote"
    )
    base_branch = models.CharField(
        max_length=200,
        blank=True,
        help_text="Where finished stories land; empty = the repository's own branch.",
    )
    object_format = models.CharField(max_length=10, default="sha1", editable=False)
    state = models.CharField(
        max_length=10, choices=ProjectState.choices, default=ProjectState.PREPARING, editable=False
    )
    reason = models.TextField(
        blank=True, editable=False, help_text="Why it is refused or cannot be reached just now."
    )
    tip = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="The newest commit of the base branch that the server has seen.",
    )
    next_number = models.PositiveIntegerField(default=1, editable=False)
    unconfined_allowed = models.BooleanField(
        default=False, help_text="Agents may run without bubblewrap (edits only). For admins."
    )
    version = models.ForeignKey(
        "pipeline.ProjectVersion",
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        help_text="The project file that holds.",
    )
    file_error = models.TextField(
        blank=True,
        editable=False,
        help_text="What is wrong with the newest project file; the last good version holds.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class ProjectVersionState(models.TextChoices):
    PROPOSED = "proposed", "waits for an admin's approval"
    ACTIVE = "active", "active"
    REPLACED = "replaced", "replaced"
    REJECTED = "rejected", "rejected"


class ProjectVersion(models.Model):
    """One accepted reading of `.huskies/project.yaml`. Rows are never edited, but for their state."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="versions")
    blob = models.CharField(
        max_length=64, help_text="git's name of the file's content; `none` without a file"
    )
    commit = models.CharField(max_length=64)
    text = models.TextField(blank=True)
    data = models.JSONField(default=dict)
    gate_hash = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=ProjectVersionState.choices)
    needs = models.JSONField(default=list, help_text="What in it needs an admin's approval, as sentences.")
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project"], condition=models.Q(state="active"), name="one_active_version_per_project"
            ),
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(state="proposed"),
                name="one_proposed_version_per_project",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project_id}@{self.blob[:8]} ({self.state})"


class Membership(models.Model):
    """The role of a person in a project. Without a row one does not know that the project exists."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.VIEWER)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_role_per_person_and_project")
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.get_role_display()} of {self.project}"
