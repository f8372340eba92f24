"""Forms of the agents app."""

from django import forms

from agents.models.credential import CredentialKind


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
