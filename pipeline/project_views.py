"""Pages of a project: adding it, its settings, its file, its people."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pipeline.exceptions import BadInput, NotAllowed, Refused
from pipeline.forms import MemberForm, ProjectForm, ProjectSettingsForm, faults
from pipeline.git.command import GitError
from pipeline.live.topics import newest
from pipeline.models import Membership, ProjectVersion
from pipeline.roles import may
from pipeline.services import members, projectfiles, projects
from pipeline.services.stories import check_may
from pipeline.views import actor, project_for, refused, rights, unreadable


@require_http_methods(["GET", "POST"])
def project_add(request: HttpRequest) -> HttpResponse:
    """Register a repository; for superusers."""
    if not may(request.user, "project.add", None):
        return refused(
            request, NotAllowed("Only an admin of the whole server adds projects; ask one."), reverse("home")
        )
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            project = projects.add_project(
                values["source"],
                name=values["name"] or None,
                base_branch=values["base_branch"] or None,
                actor=actor(request),
            )
        except Refused as error:
            return refused(request, error, reverse("project-add"))
        return redirect("project", project.name)
    return render(
        request, "pipeline/project_add.html", {"form": form}, status=400 if request.method == "POST" else 200
    )


@require_http_methods(["GET", "POST"])
def project(request: HttpRequest, name: str) -> HttpResponse:
    """A project's settings: where it stands, its file, its agents, its people."""
    row = project_for(request, name)
    form = ProjectSettingsForm(instance=row)
    if request.method == "POST":
        form = ProjectSettingsForm(request.POST, instance=row)
        if form.is_valid():
            try:
                members.edit_project(row, actor=actor(request), **form.cleaned_data)
            except Refused as error:
                return refused(request, error, reverse("project", args=[name]))
            return redirect("project", name)
    active = projects.active_version(row)
    context = {
        **rights(request, row),
        "form": form,
        "member_form": MemberForm(),
        "version": active,
        "proposed": projects.proposed_version(row),
        "file": projects.active_file(row),
        "members": Membership.objects.filter(project=row).select_related("user").order_by("user__username"),
        "gate": projects.active_file(row).gate,
        "agents": row.agents.filter(configured=True) if hasattr(row, "agents") else [],
        "cursor": newest(f"project:{row.pk}"),
    }
    return render(request, "pipeline/project.html", context)


@require_GET
def project_propose(request: HttpRequest, name: str) -> HttpResponse:
    """A project file that would fit the repository, to be copied and committed."""
    row = project_for(request, name)
    try:
        text = projectfiles.proposal(row)
    except Refused as error:
        return refused(request, error, reverse("project", args=[name]))
    except GitError:
        return refused(request, unreadable(row), reverse("project", args=[name]))
    return render(request, "pipeline/propose.html", {**rights(request, row), "text": text})


@require_POST
def project_refresh(request: HttpRequest, name: str) -> HttpResponse:
    row = project_for(request, name)
    try:
        projects.refresh(row, actor=actor(request))
    except Refused as error:
        return refused(request, error, reverse("project", args=[name]))
    return redirect("project", name)


@require_POST
def version_decide(request: HttpRequest, name: str, pk: int, answer: str) -> HttpResponse:
    """An admin approves or rejects a version of the project file."""
    row = project_for(request, name)
    version = get_object_or_404(ProjectVersion, pk=pk, project=row)
    decide = {"approve": projects.approve_version, "reject": projects.reject_version}[answer]
    try:
        decide(version, actor=actor(request))
    except Refused as error:
        return refused(request, error, reverse("project", args=[name]))
    return redirect("project", name)


@require_POST
def member_set(request: HttpRequest, name: str) -> HttpResponse:
    row, form = project_for(request, name), MemberForm(request.POST)
    back = reverse("project", args=[name])
    try:
        check_may(actor(request), "member.edit", row)
        if not form.is_valid():
            raise BadInput(f"The role was not set. {faults(form)}")
        members.set_role(row, form.cleaned_data["user"], form.cleaned_data["role"], actor=actor(request))
    except Refused as error:
        return refused(request, error, back)
    return redirect(back)
