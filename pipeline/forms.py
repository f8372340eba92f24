"""Forms: they read what people wrote; services decide."""

from __future__ import annotations

from typing import Any

from django import forms

from pipeline.models import Project, Story
from pipeline.models.story import Kind, QaMode
from pipeline.roles import Role


class StoryForm(forms.Form):
    title = forms.CharField(
        max_length=200, widget=forms.TextInput(attrs={"placeholder": "What should be true afterwards?"})
    )
    description = forms.CharField(
        required=False, max_length=100_000, widget=forms.Textarea(attrs={"rows": 5})
    )
    criteria = forms.CharField(
        required=False,
        label="Acceptance criteria, one a line",
        widget=forms.Textarea(attrs={"rows": 3}),
        max_length=100_000,
    )
    kind = forms.ChoiceField(choices=Kind.choices)
    qa = forms.ChoiceField(choices=QaMode.choices, required=False, label="QA")
    preferred_agent = forms.CharField(
        required=False, max_length=63, label="Agent", help_text="A name; empty = any."
    )

    @classmethod
    def of(cls, story: Story) -> StoryForm:
        lines = "\n".join(story.criteria.values_list("text", flat=True))
        names = ("title", "description", "kind", "qa", "preferred_agent")
        return cls(initial={**{name: getattr(story, name) for name in names}, "criteria": lines})

    def values(self) -> dict[str, Any]:
        values = dict(self.cleaned_data)
        values["criteria"] = values["criteria"].splitlines()
        return values


class ProjectForm(forms.Form):
    source = forms.CharField(
        max_length=1000,
        label="Repository",
        widget=forms.TextInput(attrs={"placeholder": "/home/me/web-shop or https://host/team/web-shop.git"}),
    )
    name = forms.CharField(
        required=False,
        max_length=63,
        help_text="Lower-case letters, digits, dashes; empty = the repository's own.",
    )
    base_branch = forms.CharField(
        required=False, max_length=200, help_text="Where finished stories land; empty = the repository's own."
    )


class ProjectSettingsForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Project
        fields = ["unconfined_allowed"]


class MemberForm(forms.Form):
    user = forms.CharField(max_length=150, label="User name")
    role = forms.TypedChoiceField(choices=[(0, "no access"), *Role.choices], coerce=int)
