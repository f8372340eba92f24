"""Forms of the agents app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from agents.models.credential import CredentialKind
from agents.models.limit import Period, Scope
from pipeline.models import Project


class CredentialForm(forms.Form):
    name = forms.CharField(max_length=63)
    kind = forms.ChoiceField(choices=CredentialKind.choices)
    value = forms.CharField(
        required=False, max_length=20_000, widget=forms.PasswordInput(attrs={"autocomplete": "off"})
    )
    base_urls = forms.CharField(
        required=False,
        max_length=2000,
        label="Addresses it may be sent to",
        help_text="Separated by spaces; empty = the provider's own.",
    )
    replace = forms.BooleanField(required=False, label="Replace the one of that name, if there is one")


class SubjectForm(forms.Form):
    """What is limited: a scope and a name in it. On a project's page a bare agent or number is one of the project's, and empty is the project.

    `names`: what may be named on the server's page, `own`: on a project's besides itself.
    """

    names = own = ""
    scope = forms.ChoiceField(label="Of")
    subject = forms.CharField(required=False, max_length=200, label="Name")
    why = forms.CharField(required=False, max_length=500, label="Why, for the history")

    def __init__(self, *args: Any, scopes: Sequence[str], project: Project | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_id = f"{type(self).__name__}-%s"  # two of them stand on one page
        self.project = project
        field = self.fields["scope"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101
        field.choices = [(scope, Scope(scope).label) for scope in scopes]
        if project is not None:
            self.fields["subject"].help_text = f"{self.own}; empty for the project."
        else:
            self.fields["subject"].help_text = f"{self.names}; empty = each of them, or the whole server."

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        if self.project is not None and "subject" in values:
            values["subject"] = self._within(self.project, values.get("scope", ""), values["subject"].strip())
        return values

    def _within(self, project: Project, scope: str, name: str) -> str:
        """The full name of one of the project's own things: its page changes nothing else, and nothing that was not meant."""
        if scope in (Scope.PROJECT, Scope.REVIEW):
            if name not in ("", project.name):
                raise forms.ValidationError({"subject": f"Leave it empty for the project, {project.name}."})
            return project.name
        own = name.removeprefix(f"{project.name}/").lstrip("#")
        if not own or "/" in own:
            raise forms.ValidationError({"subject": f"Name one of this project. {self.own}."})
        return f"{project.name}/{own}"


class LimitForm(SubjectForm):
    field_order = ("scope", "subject", "most", "why")
    names = "A host, project, person, role, model or PROJECT/AGENT"
    own = "An agent's name"
    most = forms.IntegerField(required=False, min_value=0, label="At most", help_text="0 = nothing starts.")


class BudgetForm(SubjectForm):
    field_order = ("scope", "subject", "period", "usd", "tokens", "why")
    names = "A project, person or PROJECT/NUMBER"
    own = "A story's number"
    period = forms.ChoiceField(choices=Period.choices)
    usd = forms.DecimalField(
        required=False,
        min_value=0,
        max_digits=14,
        decimal_places=6,
        label="US dollars",
        help_text="Empty = no limit.",
    )
    tokens = forms.IntegerField(required=False, min_value=0, help_text="Empty = no limit.")
