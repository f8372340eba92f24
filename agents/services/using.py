"""How much of each limit and budget is used: the bars of pages and the columns of commands. A look, not a claim: nothing is locked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import QuerySet, Sum
from django.utils import timezone

from agents.models import Agent, Budget, Limit, Session, Spend
from agents.models.limit import Period, Scope
from agents.services import choosing, subjects
from pipeline.models import Host, Project
from pipeline.services import projects

OF_A_PROJECT = (Scope.PROJECT, Scope.REVIEW, Scope.AGENT)


@dataclass(frozen=True, slots=True)
class Use:
    """A limit with its use. `name` "" = each subject (then `used` is the busiest one's, named in `note`); `where`: whose operators may change it.

    `fixed`: it stands in the project file; `unset`: no row, the setting holds.
    """

    scope: str
    name: str
    most: int
    used: int
    note: str = ""
    where: Project | None = None
    fixed: bool = False
    unset: bool = False

    @property
    def label(self) -> str:
        if self.name:
            kind = {Scope.REVIEW: "reviews of", Scope.USER: "person"}.get(Scope(self.scope), self.scope)
            return f"{kind} {self.name}"
        return "the whole server" if self.scope == Scope.SERVER else subjects.EACH[Scope(self.scope)]

    @property
    def full(self) -> bool:
        return self.used >= self.most


@dataclass(frozen=True, slots=True)
class Spent:
    """A budget with what was spent in its period; None = not limited. Of "each" the biggest spender, named in `note`."""

    scope: str
    name: str
    period: str
    usd: Decimal | None
    tokens: int | None
    spent_usd: Decimal
    spent_tokens: int
    note: str = ""
    where: Project | None = None

    @property
    def label(self) -> str:
        if self.name:
            return f"{'person' if self.scope == Scope.USER else self.scope} {self.name}"
        return "the whole server" if self.scope == Scope.SERVER else subjects.EACH[Scope(self.scope)]

    @property
    def full(self) -> bool:
        return (self.usd is not None and self.spent_usd >= self.usd) or (
            self.tokens is not None and self.spent_tokens >= self.tokens
        )


def limits(project: Project | None = None) -> list[Use]:
    """Every limit with its use; of a project: the server's, its own, and those of each. The server's comes first, set or not."""
    rows = list(Limit.objects.all())
    counts = _counts(project)
    names = subjects.names([(row.scope, row.subject) for row in rows] + [key for key in counts if key[1]])
    own = _of_project(project) if project else set()
    found = [] if any(row.scope == Scope.SERVER for row in rows) else [_server_default(counts)]
    for row in sorted(rows, key=lambda row: (list(Scope).index(Scope(row.scope)), row.subject)):
        key = (row.scope, row.subject)
        if project and row.scope in (Scope.USER, Scope.HOST):
            continue  # who works on this server, and where, is its admins' business
        if project and row.subject and row.scope in OF_A_PROJECT and key not in own:
            continue
        used, note = counts[key], ""
        if not row.subject and row.scope != Scope.SERVER:
            named = {each.subject for each in rows if each.scope == row.scope and each.subject}
            used, note = _busiest(counts, row.scope, named, names, own if project else None)
        name = names.get(key, row.subject) if row.subject else ""
        found.append(Use(row.scope, name, row.most, used, note, where=project if key in own else None))
    if project:
        most = projects.active_file(project).max_coders
        if most is not None:
            coders = Session.objects.live().filter(project=project, role="coder").count()
            found.append(Use(Scope.ROLE, "coder", most, coders, "max_coders of the project file", fixed=True))
    return found


def budgets(project: Project | None = None) -> list[Spent]:
    """Every budget with what was spent in its period; of a project: the server's, its own, its stories' and those of each."""
    found = []
    rows = list(Budget.objects.all())
    names = subjects.names([(row.scope, row.subject) for row in rows])
    stories = set()
    if project:
        wanted = [row.subject for row in rows if row.scope == Scope.STORY and row.subject.isdecimal()]
        stories = {str(pk) for pk in project.stories.filter(pk__in=wanted).values_list("pk", flat=True)}
    for row in sorted(rows, key=lambda row: (list(Scope).index(Scope(row.scope)), row.subject)):
        own = bool(project) and (
            (row.scope == Scope.PROJECT and row.subject == str(project.pk if project else ""))
            or (row.scope == Scope.STORY and row.subject in stories)
        )
        if project and (row.scope == Scope.USER or (row.subject and not own)):
            continue
        usd, tokens, note = _spent(row, project)
        name = names.get((row.scope, row.subject), row.subject) if row.subject else ""
        found.append(
            Spent(
                row.scope,
                name,
                row.period,
                row.usd,
                row.tokens,
                usd,
                tokens,
                note,
                where=project if own else None,
            )
        )
    return found


def _counts(project: Project | None) -> Counter[tuple[str, str]]:
    """(scope, subject) -> how many live; people and hosts by id, roles and models by name; stories that await a person by project."""
    hosts = dict(Host.objects.values_list("name", "pk"))
    found: Counter[tuple[str, str]] = Counter()
    rows = Session.objects.live().values_list(
        "host", "project_id", "started_by_id", "role", "model", "agent_id"
    )
    for host, project_id, user, role, model, agent in rows:
        of = {
            Scope.SERVER: "",
            Scope.PROJECT: project_id,
            Scope.ROLE: role,
            Scope.MODEL: model,
            Scope.AGENT: agent,
        }
        of |= {Scope.HOST: hosts.get(host, host), Scope.USER: user}
        found.update((scope, str(subject)) for scope, subject in of.items() if subject not in (None, ""))
        found[(Scope.SERVER, "")] += 1
    ids = [project.pk] if project else Project.objects.values_list("pk", flat=True)
    found.update({(Scope.REVIEW, str(pk)): count for pk, count in choosing.awaiting_review(ids).items()})
    return found


def _of_project(project: Project) -> set[tuple[str, str]]:
    agents = Agent.objects.filter(project=project).values_list("pk", flat=True)
    own = {(Scope.AGENT, str(pk)) for pk in agents}
    return {*own, (Scope.PROJECT, str(project.pk)), (Scope.REVIEW, str(project.pk))}


def _server_default(counts: Counter[tuple[str, str]]) -> Use:
    return Use(
        Scope.SERVER,
        "",
        settings.HUSKIES_SERVER_LIMIT,
        counts[(Scope.SERVER, "")],
        "HUSKIES_SERVER_LIMIT",
        unset=True,
    )


def _busiest(
    counts: Counter[tuple[str, str]],
    scope: str,
    named: set[str],
    names: dict[tuple[str, str], str],
    own: set[tuple[str, str]] | None,
) -> tuple[int, str]:
    """The most that one subject without a limit of its own uses, and who."""
    most, who = 0, ""
    for key, count in counts.items():
        hidden = own is not None and scope in OF_A_PROJECT and key not in own
        if key[0] == scope and key[1] not in named and not hidden and count > most:
            most, who = count, names.get(key, key[1])
    return most, f"the busiest: {who}" if who else ""


def _spent(row: Budget, project: Project | None) -> tuple[Decimal, int, str]:
    """(US dollars, tokens, note) of the budget's subject in its period."""
    rows = Spend.objects.all()
    if row.period == Period.DAY:
        rows = rows.filter(day=timezone.now().date())
    field = {Scope.PROJECT: "project_id", Scope.USER: "user_id", Scope.STORY: "story_id"}.get(
        Scope(row.scope)
    )
    if field is None:
        return (*_sums(rows), "")
    if row.subject:
        return (*_sums(rows.filter(**{field: row.subject})), "")
    if project:
        rows = rows.filter(project=project)
        if row.scope == Scope.PROJECT:
            return (*_sums(rows), f"project {project.name}")
    own = Budget.objects.filter(scope=row.scope, period=row.period).exclude(subject="")
    rows = rows.exclude(**{f"{field}__in": list(own.values_list("subject", flat=True))}).exclude(
        **{field: None}
    )
    top = (
        rows.values(field).annotate(usd_sum=Sum("usd"), tokens_sum=Sum("tokens")).order_by("-usd_sum").first()
    )
    if top is None:
        return Decimal(0), 0, ""
    key = (row.scope, str(top[field]))
    return top["usd_sum"], top["tokens_sum"], f"the most: {subjects.names([key])[key]}"


def _sums(rows: QuerySet[Spend]) -> tuple[Decimal, int]:
    found: dict[str, Any] = rows.aggregate(usd_sum=Sum("usd"), tokens_sum=Sum("tokens"))
    return found["usd_sum"] or Decimal(0), found["tokens_sum"] or 0
