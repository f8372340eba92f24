"""Filters for hostile text: what agents, repositories and people wrote."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import nh3
from django import template
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

register = template.Library()
ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_].*?\x1b\\|[@-Z\\-_])", re.S
)
_markdown = MarkdownIt("commonmark", {"html": False, "linkify": False}).disable("image")
TAGS = {
    "p",
    "br",
    "hr",
    "em",
    "strong",
    "code",
    "pre",
    "ul",
    "ol",
    "li",
    "blockquote",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "a",
}


@register.filter
def safe_text(value: Any) -> str:
    """Text whose terminal codes are gone and whose other control and direction characters are visible. Still escaped by the template."""
    text = ANSI.sub("", str(value))
    return "".join(
        c if c in "\n\t" or not unicodedata.category(c).startswith("C") else f"\\u{{{ord(c):x}}}"
        for c in text.replace("\r\n", "\n")
    )


@register.filter
def safe_names(values: Any) -> str:
    """Several hostile texts, with commas between. Still escaped by the template, once."""
    return ", ".join(safe_text(value) for value in values)


@register.filter
def markdown(value: Any) -> SafeString:
    """CommonMark without HTML and pictures; links to http(s) only, without a referrer."""
    html = _markdown.render(safe_text(value))
    clean = nh3.clean(
        html,
        tags=TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe(clean)  # noqa: S308


@register.filter
def money(value: Any) -> str:
    amount = Decimal(value or 0)
    return f"${amount:.2f}" if amount >= Decimal("0.01") or not amount else f"${amount:.4f}"


@register.filter
def seconds(value: timedelta | None) -> str:
    """A duration as people say it."""
    if value is None:
        return ""
    total = value.total_seconds()
    return f"{total:.1f} s" if total < 60 else f"{int(total // 60)} min {int(total % 60)} s"


@register.filter
def ago(value: datetime | None) -> str:
    """How long since then, in the largest unit that says enough."""
    if value is None:
        return ""
    minutes = max(0, int((timezone.now() - value).total_seconds() // 60))
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


@register.filter
def period(value: str) -> str:
    return "a day" if value == "day" else "in all"


@register.filter
def plain_number(value: Any) -> str:
    """A number as browsers read it, whatever the language of the page."""
    text = f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@register.filter
def count(value: Any) -> str:
    """A large number in three digits: 950, 12.3 k, 4 M."""
    amount, unit = Decimal(value or 0), ""
    for larger in ("k", "M", "G", "T"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, f" {larger}"
    return f"{amount:.3g}".rstrip(".") + unit if "e" not in f"{amount:.3g}" else f"{amount:.0f}{unit}"


@register.filter
def as_json(value: Any) -> str:
    """JSON for an attribute. Still escaped by the template."""
    return json.dumps(value)


@register.filter
def short(value: Any) -> str:
    return str(value)[:10]


@register.filter
def first_of(body: dict[str, Any], names: str) -> str:
    """The first of several keys that an event's body has; the body itself when it has none of them."""
    for name in names.split(","):
        if body.get(name):
            return str(body[name])
    return str(body)
