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
    any_agent_after = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=1_000_000,
        label="Any agent after",
        help_text="Minutes of waiting for the named one; empty = never.",
    )
    depends_on = forms.CharField(
        required=False, max_length=2000, label="Depends on", help_text="Numbers of stories, such as 3, 4."
    )
    priority = forms.IntegerField(
        required=False, min_value=-1000, max_value=1000, initial=0, help_text="Higher goes first."
    )

    @classmethod
    def of(cls, story: Story) -> StoryForm:
        lines = "\n".join(story.criteria.values_list("text", flat=True))
        names = ("title", "description", "kind", "qa", "preferred_agent", "any_agent_after", "priority")
        on = ", ".join(str(number) for number in story.dependencies.values_list("number", flat=True))
        values = {name: getattr(story, name) for name in names}
        return cls(initial={**values, "criteria": lines, "depends_on": on})

    def clean_depends_on(self) -> list[int]:
        words = [word.lstrip("#") for word in self.cleaned_data["depends_on"].replace(",", " ").split()]
        if not all(word.isdecimal() and len(word) < 10 for word in words):
            raise forms.ValidationError("Write the numbers of stories, such as 3, 4.")
        return [int(word) for word in words]

    def clean_priority(self) -> int:
        return self.cleaned_data["priority"] or 0

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


def faults(form: forms.BaseForm) -> str:
    """What is wrong with a form, as a sentence for each field."""
    return " ".join(f"{form[name].label}: {' '.join(map(str, texts))}" for name, texts in form.errors.items())
