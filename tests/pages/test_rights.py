"""Who may see and do what: every address of the site stands in one table, and the table is tried with every role."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from huskies_site.loginlinks import make_link
from pipeline.roles import Role
from tests.pages.conftest import Town

PUBLIC = {"login", "login-link", "health"}
ANYONE = {"home", "logout", "password", "next-steps", "all-agents", "runtimes", "prices"}
# name -> method, what the address is made of, the smallest role that may
IN_A_PROJECT: dict[str, tuple[str, str, Role]] = {
    "board": ("get", "name", Role.VIEWER),
    "archived": ("get", "name", Role.VIEWER),
    "story-create": ("post", "name", Role.DEVELOPER),
    "project": ("get", "name", Role.VIEWER),
    "project-propose": ("get", "name", Role.VIEWER),
    "project-refresh": ("post", "name", Role.OPERATOR),
    "member-set": ("post", "name", Role.ADMIN),
    "version-approve": ("post", "name version", Role.ADMIN),
    "version-reject": ("post", "name version", Role.ADMIN),
    "story": ("get", "name number", Role.VIEWER),
    "story-edit": ("post", "name number", Role.DEVELOPER),
    "story-diff": ("get", "name number", Role.VIEWER),
    "story-do": ("post", "name number verb", Role.DEVELOPER),
    "criterion-tick": ("post", "name number criterion", Role.DEVELOPER),
    "story-delete": ("post", "name number", Role.OPERATOR),
    "story-assign": ("post", "name number", Role.DEVELOPER),
    "story-start": ("post", "name number", Role.DEVELOPER),
    "story-stop": ("post", "name number", Role.DEVELOPER),
    "agents": ("get", "name", Role.VIEWER),
    "agent-do": ("post", "name agent act", Role.OPERATOR),
    "project-limits": ("get", "name", Role.VIEWER),
    "project-limit-set": ("post", "name", Role.OPERATOR),
    "project-spend": ("get", "name", Role.OPERATOR),
    "session": ("get", "session", Role.VIEWER),
    "session-message": ("post", "session", Role.DEVELOPER),
    "session-interrupt": ("post", "session", Role.DEVELOPER),
    "session-answer": ("post", "session asked", Role.OPERATOR),
    "gate-run": ("get", "gate", Role.VIEWER),
}
SUPERUSERS = {
    "demo": "post",
    "project-add": "get",
    "credentials": "get",
    "hosts": "get",
    "host-do": "post",
    "doctor": "get",
    "limits": "get",
    "limit-set": "post",
    "spend": "get",
    "pause-lift": "post",
    "runtime-check": "post",
}
POSTED = {
    "title": "New",
    "kind": "story",
    "user": "viewer",
    "role": "10",
    "why": "because",
    "scope": "project",
    "most": "3",
    "decide": "allow",
    "text": "Make it red.",
}


def names() -> set[str]:
    def walk(patterns: list[URLPattern | URLResolver]) -> set[str]:
        found: set[str] = set()
        for one in patterns:
            if isinstance(one, URLResolver):
                found |= set() if one.namespace == "admin" else walk(one.url_patterns)
            else:
                assert one.name, f"{one.pattern} has no name"
                found.add(one.name)
        return found

    return walk(get_resolver().url_patterns)


def address(town: Town, name: str) -> str:
    parts = {
        "name": town.web.name,
        "number": town.story.number,
        "verb": "archive",
        "agent": town.session.agent.name,
        "act": "pause",
        "criterion": town.criterion.pk,
        "version": town.proposed.pk,
        "session": town.session.pk,
        "asked": town.asked.pk,
        "gate": town.gate.pk,
    }
    return reverse(name, args=[parts[word] for word in IN_A_PROJECT[name][1].split()])


def ask(user: User | None, method: str, url: str, *, csrf: bool = False) -> int:
    client = Client(enforce_csrf_checks=csrf)
    if user is not None:
        client.force_login(user)
    answer = client.post(url, POSTED) if method == "post" else client.get(url)
    return int(answer.status_code)


def test_every_address_stands_in_the_table() -> None:
    assert names() == PUBLIC | ANYONE | set(IN_A_PROJECT) | set(SUPERUSERS)


def test_without_a_login_every_page_leads_to_the_login_page(town: Town) -> None:
    urls = [("get", reverse(name)) for name in ANYONE] + [
        (how, reverse(name)) for name, how in SUPERUSERS.items()
    ]
    urls += [(IN_A_PROJECT[name][0], address(town, name)) for name in IN_A_PROJECT] + [
        ("get", "/admin/pipeline/story/")
    ]
    for method, url in urls:
        client = Client()
        answer = client.post(url, POSTED) if method == "post" else client.get(url)
        assert answer.status_code == 302 and "/login/" in answer["Location"], url


@pytest.mark.parametrize("name", sorted(IN_A_PROJECT))
@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_exactly_what_the_table_says(town: Town, name: str, role: Role) -> None:
    method, _, needed = IN_A_PROJECT[name]
    status = ask(town.people[role.label], method, address(town, name))
    if role >= needed:
        assert status != 403 and status < 500, status
    else:
        assert status == 403


@pytest.mark.parametrize("name", sorted(IN_A_PROJECT))
def test_another_projects_things_are_not_there(town: Town, name: str) -> None:
    assert ask(town.people["stranger"], IN_A_PROJECT[name][0], address(town, name)) == 404


def test_only_superusers_touch_what_belongs_to_the_whole_server(town: Town) -> None:
    for name, method in SUPERUSERS.items():
        assert ask(town.people["admin"], method, reverse(name)) == 403, name
    assert ask(town.people["root"], "get", reverse("credentials")) == 200
    assert ask(town.people["root"], "get", reverse("project-add")) == 200


def test_every_post_needs_its_token(town: Town) -> None:
    urls = [address(town, name) for name, row in IN_A_PROJECT.items() if row[0] == "post"]
    for url in [
        *urls,
        reverse("demo"),
        reverse("logout"),
        reverse("credentials"),
        reverse("project-add"),
        reverse("project", args=["web"]),
    ]:
        assert ask(town.people["root"], "post", url, csrf=True) == 403, url


def test_a_foreign_host_name_is_refused(town: Town) -> None:
    assert Client().get("/login/", headers={"host": "evil.example"}).status_code == 400


def test_a_login_link_works_once_and_only_by_its_button(town: Town) -> None:
    link, client = make_link(town.people["viewer"]), Client()
    assert client.get(link).status_code == 200 and "_auth_user_id" not in client.session
    assert client.post(link).status_code == 302 and client.session["_auth_user_id"] == str(
        town.people["viewer"].pk
    )
    late = Client()
    assert late.post(link).status_code == 410 and "_auth_user_id" not in late.session
    assert Client().get("/login-link/forged/").status_code == 410


def test_every_admin_list_and_row_opens(town: Town) -> None:
    from django.contrib import admin

    client = Client()
    client.force_login(town.people["root"])
    for model in admin.site._registry:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert client.get(base).status_code == 200, base
        row = model._default_manager.first()
        if row is not None:
            assert client.get(f"{base}{row.pk}/change/").status_code == 200, base


def test_the_rows_of_services_cannot_be_changed_in_the_admin(town: Town) -> None:
    client = Client()
    client.force_login(town.people["root"])
    for model, row in (
        ("pipeline/story", town.story),
        ("agents/session", town.session),
        ("pipeline/gaterun", town.gate),
    ):
        assert client.post(f"/admin/{model}/{row.pk}/change/", {"stage": "done"}).status_code == 403
        assert client.post(f"/admin/{model}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
