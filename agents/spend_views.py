"""Pages of money: what was spent, summed by anything and looked into, also as a file; and the table of prices behind it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from agents import prices
from agents.services import ledger
from pipeline.exceptions import NotAllowed, Refused
from pipeline.models import Project
from pipeline.roles import may
from pipeline.views import project_for, refused, rights


@require_GET
def project_spend(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    if not may(request.user, "spend.see", project):
        said = f"Only operators and admins of project {name} see who spent what; a story's page says what it cost."
        return refused(request, NotAllowed(said), reverse("board", args=[name]))
    return _page(request, project, rights(request, project), reverse("project-spend", args=[name]))


@require_GET
def spend(request: HttpRequest) -> HttpResponse:
    if not may(request.user, "spend.see", None):
        said = "Only an admin of the whole server sees what all its projects spend."
        return refused(request, NotAllowed(said), reverse("home"))
    return _page(request, None, {}, reverse("spend"))


def _page(request: HttpRequest, project: Project | None, more: dict[str, Any], url: str) -> HttpResponse:
    """`?by=` and `?period=` choose; `?story=`, `?agent=` and so on look into one; `?csv=1` is the same as a file, with all its lines."""
    now = timezone.now()
    try:
        by = ledger.by_of(request.GET.get("by", "project" if project is None else "story"))
        period = request.GET.get("period", "week")
        only = {name: request.GET[name] for name in ledger.BY if request.GET.get(name)}
        asked = ledger.Asked(by, since=ledger.since(period, now), project=project, only=only)
        if request.GET.get("csv"):
            answer = HttpResponse(
                ledger.as_csv(by, ledger.lines(asked)), content_type="text/csv; charset=utf-8"
            )
            answer["Content-Disposition"] = f'attachment; filename="spending-by-{by}.csv"'
            return answer
        found = ledger.lines(asked, ledger.LINES + 1)
        whole, periods = ledger.total(asked), ledger.periods(asked, now)
    except Refused as error:
        return refused(request, error, url)

    def link(**changes: Any) -> str:
        return f"{url}?{urlencode({'by': by, 'period': period, **only, **changes})}"

    context = {
        **more,
        "by": by,
        "only": only,
        "lines": [{"line": line, "into": into(by, line, link)} for line in found[: ledger.LINES]],
        "cut": len(found) > ledger.LINES,
        "total": whole,
        "periods": [(name, line, name == period, link(period=name)) for name, line in periods.items()],
        "choices": [
            (name, name == by, link(by=name)) for name in ledger.BY if project is None or name != "project"
        ],
        "csv": link(csv=1),
        "back": f"{url}?{urlencode({'by': by, 'period': period})}",
        "unpriced": prices.counted_as() if whole.unpriced_usd else "",
    }
    return render(request, "agents/spend.html", context)


def into(by: str, line: ledger.Line, link: Any) -> str:
    """Where a line is looked into: a session on its own page, "" where there is nothing more."""
    if not line.only:
        return ""
    return (
        reverse("session", args=[line.only["session"]])
        if by == "session"
        else link(by=ledger.NEXT[by], **line.only)
    )


@require_GET
def prices_page(request: HttpRequest) -> HttpResponse:
    """The table that counts now, with where each price comes from."""
    table = prices.current()
    return render(
        request,
        "agents/prices.html",
        {
            "prices": sorted(table.models.items(), key=lambda pair: (pair[1].source, pair[0])),
            "sources": table.sources.values(),
            "dearest": table.dearest,
            "problem": table.problem if request.user.is_superuser else "",
            "own": prices.own_file() if request.user.is_superuser else "",
        },
    )
