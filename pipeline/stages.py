"""The stages of a story, in the order of the board."""

from __future__ import annotations

from django.db import models


class Stage(models.TextChoices):
    BACKLOG = "backlog", "Backlog"
    CODING = "coding", "Coding"
    QA = "qa", "QA"
    MERGE = "merge", "Merge"
    MERGE_FAILURE = "merge_failure", "Merge failure"
    BLOCKED = "blocked", "Blocked"
    DONE = "done", "Done"
    ARCHIVED = "archived", "Archived"


ACTIVE = (Stage.CODING, Stage.QA, Stage.MERGE)
"""Stages in which the server or an agent works on a story by itself."""
NEEDS_A_PERSON = (Stage.MERGE_FAILURE, Stage.BLOCKED)
OVER = (Stage.DONE, Stage.ARCHIVED)
