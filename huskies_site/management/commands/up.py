"""`./huskies up`: everything on this machine, as one foreground command."""

from __future__ import annotations

import gc
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from huskies_site import environment, loginlinks
from huskies_site.stack import forks, members, parts, preflight, startup
from huskies_site.stack.keeper import Keeper, Part
from pipeline import conf, datafolder

DRAIN_LOOK_SECONDS = 2.0
SET_UP_SECONDS = 600.0  # migrations of a large database


class Command(BaseCommand):
    help = "Start web, workers and supervisor, print the address and how to log in, and keep them running until Ctrl-C."
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        parser = self.create_parser(argv[0], argv[1])
        parser.add_argument(
            "--drain",
            action="store_true",
            help="finish what runs, take nothing new, and end once nothing runs",
        )
        options = parser.parse_args(argv[2:])
        try:
            code = start(drain=options.drain)
        except (preflight.CannotStart, datafolder.FolderUnusable, CommandError) as error:
            sys.stderr.write(f"huskies: {error}\n")
            code = 1
        except KeyboardInterrupt:
            code = 130
        sys.exit(code)

    def handle(self, *args: Any, **options: Any) -> None:
        raise CommandError("`up` is a program of its own: call it as ./huskies up.")


def start(*, drain: bool = False) -> int:
    """Check, set up, run until stopped, or with `drain` until nothing runs; the exit code. Raises CannotStart, FolderUnusable."""
    preflight.require_git()
    home = conf.home()
    datafolder.prepare(home)
    if settings.DATABASES["default"]["ENGINE"] == "huskies_site.sqlite":
        preflight.require_local_disk(home.resolve(), os.fsdecode(Path("/proc/mounts").read_bytes()))
    if not os.environ.get("HUSKIES_SECRET_KEY", "").strip() and datafolder.make_secret_key(home):
        # Settings were read before there was a key, and parts of Django keep what they read.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    try:
        lock = preflight.take_lock(home, loginlinks.address())
    except preflight.CannotStart as error:
        hint = " To drain the one that runs: ./huskies host drain." if drain else ""
        raise preflight.CannotStart(f"{error}{hint}") from error
    for name, count in members.end_leftovers(home).items():
        say(f"ended {count} {'process' if count == 1 else 'processes'} of {name} that an earlier start left")
    listener = preflight.listen(*settings.HUSKIES_BIND)
    settings.HUSKIES_BIND = listener.getsockname()[:2]
    preflight.say_holder(lock, loginlinks.address())
    if warning := preflight.systemd_warning():
        say(warning)
    parts.preload()
    # The collector would write into every page that the parts share; a collection now would leave holes for them to fill.
    gc.freeze()
    try:
        ready = forks.in_child(partial(startup.set_up, drain), SET_UP_SECONDS)
    except forks.ErrandFailed as error:
        raise preflight.CannotStart(
            f"The database cannot be set up ({error}). Look at DATABASE_URL, and that its server is up."
        ) from error
    greet(ready)
    keeper = Keeper(
        home,
        [
            Part("web", partial(parts.web, listener), keep=(listener.fileno(),)),
            Part("workers", parts.workers),
            Part("supervisor", parts.supervise),
        ],
        say,
        heartbeat=DRAIN_LOOK_SECONDS
        if drain
        else environment.integer("HUSKIES_HEARTBEAT_S", 10, low=1, high=3600),
        until_idle=drain,
    )
    code = keeper.run()
    say("Stopped.")
    return code


def greet(ready: dict[str, Any]) -> None:
    if ready["restored"]:
        say(
            "The database is older than the data folder: it was restored from a copy. "
            f"{ready['closed']} sessions of it ended as lost, and {len(ready['stopped'])} running processes of the time after it were asked "
            "to stop; their work is kept. See ./huskies doctor."
        )
    if ready["draining"]:
        say(
            f"Host {conf.host()} is draining: it finishes what runs and starts nothing new. ./huskies host resume ends that."
        )
    if ready["level"] == "none":
        say(
            f"Agents cannot be confined here: {ready['level_reason']} They need an admin's leave to run without."
        )
    say(f"huskies is at {loginlinks.address()} with its data in {conf.home()}")
    if ready["link"]:
        say(f"Log in as the first admin, once and within an hour: {loginlinks.address()}{ready['link']}")
    say("Another link to log in: ./huskies login-link. Ctrl-C stops the server and never the agents.")


def say(text: str) -> None:
    """One line an event. A terminal that went away is no reason to end."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
