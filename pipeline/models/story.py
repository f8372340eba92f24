"""A story: a piece of work on its way through the stages."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from django.db.models import Q

from pipeline.models.project import Project
from pipeline.prepared import Select
from pipeline.stages import Stage


class Kind(models.TextChoices):
    STORY = "story", "story"
    BUG = "bug", "bug"
    SPIKE = "spike", "spike"
    REFACTOR = "refactor", "refactor"
    EPIC = "epic", "epic"


class QaMode(models.TextChoices):
    PROJECT = "", "as the project says"
    SERVER = "server", "server: green gates suffice"
    HUMAN = "human", "human: a person approves"
    AGENT = "agent", "agent: a qa agent looks"


class StoryQuerySet(models.QuerySet["Story"]):
    def annotate_criteria(self) -> StoryQuerySet:
        """With `criteria_all` and `criteria_done`, for cards."""
        done = models.Count("criteria", filter=Q(criteria__done=True))
        return self.annotate(criteria_all=models.Count("criteria"), criteria_done=done)

    def unhindered(self) -> StoryQuerySet:
        return self.filter(frozen=False, held_for="")


class Story(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="stories")
    number = models.PositiveIntegerField(editable=False)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.STORY)
    title = models.CharField(
        max_length=200,
        validators=[
            RegexValidator(r"^[^\x00-\x1f\x7f]+$", "A title is one line without control characters.")
        ],
    )
    description = models.TextField(blank=True, validators=[MaxLengthValidator(100_000)])
    qa = models.CharField("QA", max_length=10, choices=QaMode.choices, blank=True, default="")
    preferred_agent = models.CharField(
        max_length=63, blank=True, help_text="The name of the agent that should work on it; empty = any."
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    priority = models.SmallIntegerField(
        default=0, help_text="Higher goes first; each ageing period waited counts as one more."
    )
    any_agent_after = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Minutes after which any agent may take it although it names one; empty = never.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    stage = models.CharField(max_length=20, choices=Stage.choices, default=Stage.BACKLOG, editable=False)
    stage_at = models.DateTimeField(auto_now_add=True)
    blocked_in = models.CharField(
        max_length=20, blank=True, editable=False, help_text="The stage to which unblock leads back."
    )
    reason = models.TextField(
        blank=True, editable=False, help_text="Why it is blocked or failed to merge, and what to do."
    )
    held_for = models.CharField(
        max_length=300,
        blank=True,
        editable=False,
        help_text="Why nothing starts by itself: stopped or held by a person.",
    )
    frozen = models.BooleanField(default=False, editable=False)
    waiting_for = models.TextField(
        blank=True, editable=False, help_text="What the story waits for just now; empty = nothing."
    )
    waiting_since = models.DateTimeField(
        null=True, editable=False, help_text="Since when it waits for an agent; empty = it does not."
    )
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        help_text="The person who pressed start; the agents' time is counted as theirs.",
    )
    deleting = models.CharField(
        max_length=150,
        blank=True,
        editable=False,
        help_text="Who deleted it; it goes once nothing of it runs.",
    )
    not_before = models.DateTimeField(
        null=True, editable=False, help_text="A provider asked us to wait until then."
    )
    needs_approval = models.TextField(
        blank=True,
        editable=False,
        help_text="Changes to the project file or gate script that wait for an admin.",
    )
    files_approved = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="The commit whose such changes an admin approved.",
    )

    fence = models.PositiveBigIntegerField(
        default=0,
        editable=False,
        help_text="Grows with each session, gate run, merge, stop and move by a person.",
    )
    retries = models.PositiveIntegerField(default=0, editable=False)
    crashes = models.PositiveIntegerField(default=0, editable=False)
    idle_sessions = models.PositiveIntegerField(
        default=0, editable=False, help_text="Sessions in a row without any change or new file read."
    )
    idle_total = models.PositiveIntegerField(
        default=0, editable=False, help_text="Sessions without any change since a person started it."
    )
    base = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="The commit of the base branch on which the work began.",
    )
    tip = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="The newest commit of the story's work in the control repository.",
    )
    next_prompt = models.TextField(
        blank=True,
        editable=False,
        help_text="What the next session is told: a gate's failure, a person's notes.",
    )
    next_kind = models.CharField(
        max_length=10,
        blank=True,
        editable=False,
        help_text="gate, nothing, continue or notes: what next_prompt is.",
    )
    plan = models.TextField(
        blank=True, editable=False, help_text="The coder's plan, as its last session left it."
    )
    landed = models.CharField(
        max_length=64, blank=True, editable=False, help_text="The commit on the base branch."
    )

    objects = StoryQuerySet.as_manager()

    class Meta:
        ordering = ["project_id", "number"]
        verbose_name_plural = "stories"
        constraints = [
            models.UniqueConstraint(
                fields=["project", "number"], name="story_number_is_unique_in_its_project"
            ),
            models.CheckConstraint(condition=Q(stage__in=Stage.values), name="stage_is_a_known_stage"),
            models.CheckConstraint(
                condition=~Q(stage=Stage.DONE) | ~Q(landed=""), name="done_names_its_commit"
            ),
            models.CheckConstraint(
                condition=~Q(stage__in=[Stage.BLOCKED, Stage.MERGE_FAILURE]) | ~Q(reason=""),
                name="stuck_stories_have_a_reason",
            ),
        ]
        indexes = [models.Index(fields=["project", "stage", "number"], name="story_board")]

    def __str__(self) -> str:
        return f"{self.project.name}/{self.number} {self.title}"

    @property
    def label(self) -> str:
        """`project/7`: how people and commands name it."""
        return f"{self.project.name}/{self.number}"

    @property
    def branch(self) -> str:
        """Made of the number alone: never of a person's words (names are hostile)."""
        return f"huskies/story-{self.number}"


class Criterion(models.Model):
    """One acceptance criterion, which people and agents can tick."""

    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="criteria")
    position = models.PositiveIntegerField()
    text = models.CharField(max_length=1000)
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ["position"]
        verbose_name_plural = "criteria"
        constraints = [models.UniqueConstraint(fields=["story", "position"], name="criteria_have_an_order")]

    def __str__(self) -> str:
        return self.text


class Dependency(models.Model):
    """A story waits for another of its project to be done or archived. `on` is empty once that one was deleted: a person decides."""

    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="dependencies")
    on = models.ForeignKey(Story, on_delete=models.SET_NULL, null=True, related_name="dependents")
    number = models.PositiveIntegerField(help_text="The number of the story waited for, kept when it goes.")

    class Meta:
        ordering = ["number"]
        verbose_name_plural = "dependencies"
        constraints = [
            models.UniqueConstraint(fields=["story", "number"], name="a_dependency_is_named_once"),
            models.CheckConstraint(condition=~Q(story=models.F("on")), name="no_story_waits_for_itself"),
        ]

    def __str__(self) -> str:
        return f"{self.story_id} waits for #{self.number}"


def lock_story(pk: int) -> None:
    """Lock the row until the transaction ends: before what belongs to the story, after its project. Of one that is gone nothing is locked."""
    LOCK(pk)


LOCK: Select[tuple[int]] = Select(
    lambda pk: Story.objects.select_for_update(no_key=True).filter(pk=pk).values_list("pk"), int
)


class StageChange(models.Model):
    """One act in a story's life: who, what, from, to, why, when. Rows are never edited. `from_stage` = `to_stage`: an act without a move."""

    story = models.ForeignKey(Story, on_delete=models.CASCADE, related_name="changes")
    verb = models.CharField(max_length=30)
    from_stage = models.CharField(max_length=20, blank=True)
    to_stage = models.CharField(max_length=20)
    actor = models.CharField(max_length=150, help_text="A person's name, or `server`.")
    why = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.verb}: {self.from_stage} -> {self.to_stage} by {self.actor}"
