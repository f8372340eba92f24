"""Pages of limits and budgets, with their use: of a project for its operators, of the whole server for its admins."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from agents.agent_views import acts_of, cursors_of
from agents.forms import BudgetForm, LimitForm
from agents.models import Budget, Limit
from agents.models.limit import COUNTED, PAID, Scope
from agents.services import limiting, subjects, using
from pipeline.exceptions import BadInput, NotAllowed, Refused
from pipeline.forms import faults
from pipeline.models import Project
from pipeline.roles import may
from pipeline.services.stories import check_may
from pipeline.views import actor, project_for, refused, rights

PROJECT_LIMITS = (Scope.PROJECT, Scope.AGENT, Scope.REVIEW)
PROJECT_BUDGETS = (Scope.PROJECT, Scope.STORY)


@require_GET
def project_limits(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    context = {
        **rights(request, project),
        "may_edit": may(request.user, "limit.edit", project),
        "action": reverse("project-limit-set", args=[name]),
        "cursors": cursors_of([project]),
    }
    return _page(request, project, context)


@require_GET
def server_limits(request: HttpRequest) -> HttpResponse:
    if not may(request.user, "limit.edit", None):
        return refused(
            request,
            NotAllowed("Only an admin of the whole server sees and changes its limits."),
            reverse("home"),
        )
    cursors = cursors_of(list(Project.objects.order_by("name")))
    return _page(request, None, {"may_edit": True, "action": reverse("limit-set"), "cursors": cursors})


def _page(request: HttpRequest, project: Project | None, more: dict[str, Any]) -> HttpResponse:
    context = {
        **more,
        "limits": using.limits(project),
        "budgets": using.budgets(project),
        "limit_form": LimitForm(scopes=PROJECT_LIMITS if project else COUNTED, project=project),
        "budget_form": BudgetForm(scopes=PROJECT_BUDGETS if project else PAID, project=project),
        "acts": acts_of([project] if project else [], everything=project is None),
    }
    part = request.GET.get("part")
    return render(request, "agents/limits_part.html" if part else "agents/limits.html", context)


@require_POST
def project_limit_set(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    return _set(request, project, reverse("project-limits", args=[name]))


@require_POST
def server_limit_set(request: HttpRequest) -> HttpResponse:
    return _set(request, None, reverse("limits"))


def _set(request: HttpRequest, project: Project | None, back: str) -> HttpResponse:
    """Set or take away (`clear`) one limit, or one budget (it has a `period`). A project's page names its own things only."""
    of_money = "period" in request.POST
    noun, kind = ("budget", BudgetForm) if of_money else ("limit", LimitForm)
    scopes = (PROJECT_BUDGETS if of_money else PROJECT_LIMITS) if project else (PAID if of_money else COUNTED)
    form = kind(request.POST, scopes=scopes, project=project)
    try:
        check_may(actor(request), f"{noun}.edit", project)
        if not form.is_valid():
            raise BadInput(f"The {noun} was not changed. {faults(form)}")
        values = form.cleaned_data
        scope, subject, why = values["scope"], values["subject"], values["why"]
        clear = "clear" in request.POST
        if of_money:
            usd, tokens = (None, None) if clear else (values["usd"], values["tokens"])
            row: Budget | Limit | None = limiting.set_budget(
                scope, subject, values["period"], usd, tokens, actor=actor(request), why=why
            )
        else:
            most = None if clear else values["most"]
            if most is None and not clear:
                raise BadInput("Give the limit a number; 0 means that nothing starts.")
            row = limiting.set_limit(scope, subject, most, actor=actor(request), why=why)
    except Refused as error:
        return refused(request, error, back)
    done = f"The {noun} of {subjects.find(scope, subject).label} is {'set' if row else 'taken away'}."
    messages.success(request, f"{done} What runs goes on, and counts until it ends.")
    return redirect(back)
