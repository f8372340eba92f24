"""All checkers of both apps together, and what this host has of the programs that are needed."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass

from django.db import DatabaseError, connection

from agents.doctor import all_of_agents, healers_of_agents
from agents.runtimes import RUNTIMES
from agents.runtimes.bounds import line_of
from pipeline import conf
from pipeline.doctor import Checker, Healer, Lie, all_of_pipeline, examine, healers_of_pipeline, lasting
from pipeline.git import MINIMUM_VERSION
from pipeline.git import version as git_version
from pipeline.models import Capacity, Host
from pipeline.processes.confine import level_available
from pipeline.services import foreground


def checkers() -> list[Checker]:
    return [*all_of_pipeline(), *all_of_agents()]


def healers() -> list[Healer]:
    return [*healers_of_pipeline(), *healers_of_agents()]


def lies(seconds: float = 3.0) -> list[Lie]:
    """Those that last; with 0 seconds those of this moment (nothing may be under way then)."""
    return lasting(checkers(), seconds) if seconds else examine(checkers())


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing of this host. `remedy`: what to do, empty if nothing; `needed`: the server does not work without it."""

    name: str
    found: str
    remedy: str = ""
    needed: bool = False


def environment() -> list[Piece]:
    level = level_available()
    pieces = [
        Piece("python", platform.python_version(), needed=True),
        _git(),
        Piece("confinement", level.name, level.reason if level.name == "none" else ""),
        _database(),
        _server(),
    ]
    for name, runtime in RUNTIMES.items():
        found = runtime.find()
        if found.path is None:
            pieces.append(Piece(name, "not found", found.remedy))
            continue
        login = {True: ", logged in", False: ", not logged in", None: ""}[found.logged_in]
        pieces.append(Piece(name, f"{found.version or 'found'}{login} ({runtime.label})", found.remedy))
    return pieces


def _database() -> Piece:
    where = str(connection.settings_dict["NAME"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT sqlite_version()" if connection.vendor == "sqlite" else "SHOW server_version"
            )
            version = str(cursor.fetchone()[0])
        known = Capacity.objects.filter(pk=1).exists()
    except DatabaseError as error:
        remedy = f"Start the server once with `./huskies up`, or mend DATABASE_URL ({line_of(str(error))})."
        return Piece("database", f"{connection.vendor}, {where}: cannot be used", remedy, needed=True)
    remedy = "" if known else "Start the server once with `./huskies up`."
    return Piece("database", f"{connection.display_name} {version}, {where}", remedy, needed=True)


def _server() -> Piece:
    start = "Start it with `./huskies up`."
    try:
        row = Host.objects.filter(name=conf.host()).first()
        running = foreground.server_is_running()
    except DatabaseError:
        return Piece("server", "not known without the database", start)
    if not running:
        seen = f", last seen {row.seen_at:%Y-%m-%d %H:%M:%S} UTC" if row and row.seen_at else ""
        return Piece("server", f"not running on {conf.host()}{seen}", start)
    return Piece("server", f"running on {conf.host()}")


def _git() -> Piece:
    wanted = ".".join(map(str, MINIMUM_VERSION))
    if shutil.which("git") is None:
        return Piece("git", "not found", "Install it: apt-get install git.", needed=True)
    found = git_version()
    remedy = "" if found >= MINIMUM_VERSION else f"Install {wanted} or newer."
    return Piece("git", ".".join(map(str, found)), remedy, needed=True)
