"""What a limit or a budget is of: people give names, rows keep ids (a project may be renamed, an id is never given again)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib.auth.models import User

from agents.models import Agent
from agents.models.limit import Scope
from agents.states import Role
from pipeline.exceptions import BadInput, NotFound
from pipeline.models import Host, Project, Story
from pipeline.services.stories import find_story
from pipeline.texts import storable

MODEL_AT_MOST = 100  # characters, as in the column
EACH = {
    Scope.HOST: "each host",
    Scope.PROJECT: "each project",
    Scope.USER: "each person",
    Scope.ROLE: "each role",
    Scope.MODEL: "each model",
    Scope.AGENT: "each agent",
    Scope.REVIEW: "the reviews of each project",
    Scope.STORY: "each story",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """`id`: as rows keep it, "" = each; `label`: as sentences name it; `project`: whose operators may change it, None = the server's admins."""

    scope: str
    id: str
    label: str
    project: Project | None = None


def find(scope: str, name: str) -> Subject:
    """The subject of that name: a host, project, person, role, model, PROJECT/AGENT or PROJECT/NUMBER; "" = each. Raises BadInput, NotFound."""
    name = storable(name, "name").strip()
    if scope not in Scope.values:
        raise BadInput(f"{scope!r} is nothing that is limited; there are {', '.join(Scope.values)}.")
    if scope == Scope.SERVER:
        if name:
            raise BadInput(f"The server has one limit; leave {name!r} out.")
        return Subject(scope, "", "the server")
    if not name:
        return Subject(scope, "", EACH[Scope(scope)])
    return FINDERS[Scope(scope)](name)


def _host(name: str) -> Subject:
    row = Host.objects.filter(name=name).first()
    if row is None:
        raise NotFound(
            f"There is no host {name!r}. There are: {_some(Host.objects.values_list('name', flat=True))}."
        )
    return Subject(Scope.HOST, str(row.pk), f"host {row.name}")


def _project(name: str) -> Subject:
    row = _project_named(name)
    return Subject(Scope.PROJECT, str(row.pk), f"project {row.name}", row)


def _review(name: str) -> Subject:
    row = _project_named(name)
    return Subject(Scope.REVIEW, str(row.pk), f"the reviews of project {row.name}", row)


def _user(name: str) -> Subject:
    row = User.objects.filter(username=name).first()
    if row is None:
        raise NotFound(f"There is no user {name!r}. An admin of the server adds one with `user add`.")
    return Subject(Scope.USER, str(row.pk), f"person {row.get_username()}")


def _role(name: str) -> Subject:
    if name not in Role.values:
        raise BadInput(f"{name!r} is no role of agents; the roles are {', '.join(Role.values)}.")
    return Subject(Scope.ROLE, name, f"role {name}")


def _model(name: str) -> Subject:
    if len(name) > MODEL_AT_MOST or not name.isprintable() or " " in name:
        raise BadInput(
            f"A model is one word of at most {MODEL_AT_MOST} characters, as in the project file, such as sonnet."
        )
    return Subject(Scope.MODEL, name, f"model {name}")


def _agent(name: str) -> Subject:
    row = find_agent(name)
    return Subject(Scope.AGENT, str(row.pk), f"agent {row.project.name}/{row.name}", row.project)


def _story(name: str) -> Subject:
    row = find_story(name)
    return Subject(Scope.STORY, str(row.pk), f"story {row.label}", row.project)


FINDERS: dict[Scope, Callable[[str], Subject]] = {
    Scope.HOST: _host,
    Scope.PROJECT: _project,
    Scope.REVIEW: _review,
    Scope.USER: _user,
    Scope.ROLE: _role,
    Scope.MODEL: _model,
    Scope.AGENT: _agent,
    Scope.STORY: _story,
}


def find_agent(text: str, *, project: Project | None = None) -> Agent:
    """`coder-1` or `web/coder-1`. A bare name must fit one project only. Raises NotFound, BadInput."""
    first, slash, last = storable(text, "agent's name").strip().partition("/")
    rows = Agent.objects.select_related("project").filter(name=last if slash else first)
    if slash:
        rows = rows.filter(project__name=first)
    elif project is not None:
        rows = rows.filter(project=project)
    found = list(rows.order_by("project__name")[:10])
    if not found:
        raise NotFound(f"There is no agent {text!r}. `agent list` shows those there are.")
    if len(found) > 1:
        several = ", ".join(f"{row.project.name}/{row.name}" for row in found)
        raise BadInput(f"Agent {first} fits several projects: {several}. Name the one you mean.")
    return found[0]


def names(rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(scope, id) -> the name by which `find` finds it again; a subject that is gone keeps its id. One query for each scope that occurs."""
    wanted = list(rows)
    found = {(scope, pk): pk for scope, pk in wanted}
    for scope, look in NAMERS.items():
        pks = {pk for each, pk in wanted if each in scope and pk.isdecimal()}
        for key, name in look(pks) if pks else ():
            found |= {(each, str(key)): name for each in scope if (each, str(key)) in found}
    return found


Names = Callable[[set[str]], Iterable[tuple[int, str]]]
NAMERS: dict[tuple[str, ...], Names] = {
    (Scope.HOST,): lambda pks: Host.objects.filter(pk__in=pks).values_list("pk", "name"),
    (Scope.PROJECT, Scope.REVIEW): lambda pks: Project.objects.filter(pk__in=pks).values_list("pk", "name"),
    (Scope.USER,): lambda pks: User.objects.filter(pk__in=pks).values_list("pk", "username"),
    (Scope.AGENT,): lambda pks: (
        (row.pk, f"{row.project.name}/{row.name}")
        for row in Agent.objects.filter(pk__in=pks).select_related("project").only("name", "project__name")
    ),
    (Scope.STORY,): lambda pks: (
        (row.pk, row.label)
        for row in Story.objects.filter(pk__in=pks).select_related("project").only("number", "project__name")
    ),
}


def _project_named(name: str) -> Project:
    row = Project.objects.filter(name=name).first()
    if row is None:
        raise NotFound(
            f"There is no project {name!r}. There are: {_some(Project.objects.values_list('name', flat=True))}."
        )
    return row


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"
