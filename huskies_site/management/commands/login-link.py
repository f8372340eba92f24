"""`./huskies login-link [NAME]`: a link that logs a person in once."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandParser

from huskies_site import loginlinks
from huskies_site.stack.preflight import lock_holder
from pipeline import conf
from pipeline.commands import run_as_sentence, translated
from pipeline.exceptions import NotFound


class Command(BaseCommand):
    help = "Print a link that logs a person in once, within an hour (default: the first admin)."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="the person's user name")
        parser.add_argument("--json", action="store_true", dest="as_json")

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)

    def handle(self, *args: Any, **options: Any) -> None:
        user = translated(lambda: find_user(options["name"]) if options["name"] else loginlinks.first_admin())
        holder = None if settings.HUSKIES_URL else lock_holder(conf.home())
        # The server that runs may have been started with another HUSKIES_BIND than this shell has.
        url = (holder[1] if holder else loginlinks.address()) + loginlinks.make_link(user)
        answer = {"user": user.get_username(), "url": url, "valid_seconds": loginlinks.VALID_SECONDS}
        self.stdout.write(json.dumps(answer) if options["as_json"] else url)


def find_user(name: str) -> User:
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise NotFound(f"There is no active user {name!r}. Add one with `user add {name}`.")
    return user
