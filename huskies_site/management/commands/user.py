"""`./huskies user add|list`: people, and their roles in projects."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from huskies_site import loginlinks
from pipeline.commands import VerbCommand, find_project
from pipeline.exceptions import BadInput
from pipeline.models import Membership
from pipeline.roles import Role

ROLES = {role.label: role for role in Role}


class Command(VerbCommand):
    help = "Add people, and give them roles in projects."

    def add_verbs(self) -> None:
        add = self.verb("add", self.add, "add a person (or give one a role), and print a link to log in once")
        add.add_argument("name")
        add.add_argument("--superuser", action="store_true", help="admin of everything")
        add.add_argument("--project", help="the project for --role")
        add.add_argument("--role", choices=list(ROLES), help="what they may do there (default: viewer)")
        self.verb("list", self.list, "the people and their roles")

    def add(self, options: dict[str, Any]) -> dict[str, Any]:
        if options["role"] and not options["project"]:
            raise BadInput("A role is held in a project: name it with --project.")
        project = find_project(options["project"]) if options["project"] else None
        with transaction.atomic():
            user = User.objects.filter(username=options["name"]).first()
            if user is None:
                user = User(username=options["name"])
                user.set_unusable_password()
                try:
                    user.full_clean()
                except ValidationError as error:
                    raise BadInput(
                        f"A user {options['name']!r} cannot be added: {' '.join(error.messages)}"
                    ) from error
                user.save()
            if options["superuser"]:
                user.is_superuser = user.is_staff = True
                user.save(update_fields=["is_superuser", "is_staff"])
            if project is not None:
                role = ROLES[options["role"] or Role.VIEWER.label]
                Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
        link = loginlinks.address() + loginlinks.make_link(user)
        self.say(f"{user.username} can log in once, within an hour, at {link}")
        return {**shape(user), "link": link}

    def list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = [shape(user) for user in User.objects.order_by("username")]
        self.table(
            ["USER", "ADMIN OF ALL", "ROLES"],
            [
                [
                    u["name"],
                    "yes" if u["superuser"] else "",
                    ", ".join(f"{p}: {r}" for p, r in u["roles"].items()),
                ]
                for u in found
            ],
            "There is nobody yet. Add people with `user add NAME`.",
        )
        return found


def shape(user: User) -> dict[str, Any]:
    rows = Membership.objects.filter(user=user).select_related("project").order_by("project__name")
    roles = {row.project.name: Role(row.role).label for row in rows}
    return {"name": user.username, "superuser": user.is_superuser, "active": user.is_active, "roles": roles}
