"""The pre-flight: whether each agent program that is used here is fit, before any story suffers.

A check is a real run of the program (preflight_run) against the stand-in for its provider, judged by preflight_judging. It is made when
the server starts, when the program's file, our drivers or the sandbox change, and when a person asks; what was unfit is looked at again.
`RuntimeCheck` is the one place that says what is unfit on a host: a check writes it, and so does the breaker for a session that could not
begin. The claim reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from agents import runtimes
from agents.models import Agent, Credential, Fitness, RuntimeCheck
from agents.models.credential import CredentialKind
from agents.runtimes import RUNTIMES, UnknownRuntime, get_runtime
from agents.runtimes.base import LaunchRefused, Runtime
from agents.services import breaker, logins
from pipeline import conf, events
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import NotFound
from pipeline.models import Act, Process, Project
from pipeline.models.process import ProcessState
from pipeline.prepared import Select
from pipeline.processes import confine
from pipeline.services import processes
from pipeline.services.stories import check_may

logger = logging.getLogger("huskies.preflight")

KIND = "preflight"
RECHECK = timedelta(minutes=10)
"""What was found unfit or could not be found out is looked at again after so long."""
LOGIN_RECHECK = timedelta(minutes=1)
"""How often a program that is not logged in is looked at again, while an agent needs that."""
PAGE = "Look at /runtimes/."


@dataclass(frozen=True)
class Verdict:
    """What a check found. `reason` is a sentence in the program's words where it has any, `remedy` what to do."""

    state: Fitness
    reason: str = ""
    remedy: str = ""
    warning: str = ""
    version: str = ""
    logged_in: bool | None = None
    proved: dict[str, bool] = field(default_factory=dict)
    seconds: float | None = None


# -- what the claim asks -----------------------------------------------------------------------------------------------


ODD: Select[tuple[Any, ...]] = Select(
    lambda host: RuntimeCheck.objects.filter(
        ~Q(state=Fitness.FIT) | Q(logged_in=False), host=host
    ).values_list("runtime", "state", "reason", "remedy", "logged_in", "process__state"),
    str,
)


def look(host: str) -> tuple[dict[str, str], set[str]]:
    """(runtime -> why nothing starts with it on the host, the runtimes that are not logged in there)."""
    unfit: dict[str, str] = {}
    logged_out: set[str] = set()
    for name, state, reason, remedy, logged_in, process in ODD(host):
        if logged_in is False:
            logged_out.add(name)
        if state == Fitness.UNFIT:
            unfit[name] = " ".join(filter(None, (f"{name} is unfit on {host}: {reason}", remedy, PAGE)))
        elif state == Fitness.UNKNOWN and process not in (None, ProcessState.HANDLED):
            unfit[name] = f"{name} is being checked on {host}; it goes on within seconds"
    return unfit, logged_out


def missing_command(agent: Agent) -> str:
    """Why the program that the agent's own entry names cannot be started here, "" if nothing is known against it."""
    command = agent.entry.get("command")
    if not isinstance(command, list) or not command:
        return ""  # a line for the shell is known only to the shell
    program = str(command[0])
    if "/" in program and not program.startswith("/"):
        return ""  # it lies in the repository
    if shutil.which(program, path=os.pathsep.join(str(entry) for entry in confine.path_entries())):
        return ""
    return f"the command {program!r} of {agent.name} is not found on {conf.host()}: install it, or correct the agent's `command`"


def under_way(row: RuntimeCheck) -> bool:
    return row.process is not None and row.process.state != ProcessState.HANDLED


# -- when a check is made ----------------------------------------------------------------------------------------------


@cache
def drivers() -> str:
    """What tells our own version of the drivers from another one."""
    folders = (Path(runtimes.__file__).parent, Path(__file__).parent)
    files = sorted(path for folder in folders for path in folder.glob("*.py"))
    seen = [f"{path.name} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()


def fingerprint(runtime: Runtime) -> str:
    """Of the program's file and of all else that a check depends on. Cheap: starts nothing."""
    program = runtime.program()
    parts = [drivers(), runtime.tested, confine.level_available().name, str(program)]
    if program is not None:
        real = Path(os.path.realpath(program))
        try:
            seen = real.stat()
            parts += [str(real), str(seen.st_mtime_ns), str(seen.st_size), str(seen.st_ino)]
        except OSError as problem:
            parts.append(str(problem.strerror))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def used() -> list[str]:
    """The runtimes of all configured agents, by name."""
    names = Agent.objects.filter(configured=True).order_by().values_list("runtime", flat=True).distinct()
    return sorted(name for name in names if name in RUNTIMES)


_looked: set[str] = set()
"""The runtimes that this process has begun a check of: at the server's start, each is checked once."""


def sweep() -> None:
    """Begin what is due, one at a time: the programs of node alone keep a core busy for seconds."""
    if not settings.HUSKIES_PREFLIGHT:
        return
    mine = Process.objects.unhandled().filter(kind=KIND, host=conf.host())
    if mine.exists():
        return
    forget_scratch()
    rows = {row.runtime: row for row in RuntimeCheck.objects.filter(host=conf.host())}
    now = timezone.now()
    for name in used():
        row = rows.get(name)
        if name not in _looked or row is None or _due(row, now):
            _looked.add(name)
            forget_processes()
            if under_way(check(name, actor=SERVER)):
                return


def _due(row: RuntimeCheck, now: datetime) -> bool:
    if row.fingerprint != fingerprint(get_runtime(row.runtime)):
        return True
    age = now - row.checked_at if row.checked_at else RECHECK
    if row.state == Fitness.FIT:
        return row.logged_in is False and age >= LOGIN_RECHECK and logs_in_here(row.runtime) > 0
    # A session that could not begin knows more than the trial did: it waits for a change, or for a person.
    return age >= RECHECK and not row.told_by_session


def logs_in_here(name: str) -> int:
    """How many agents log in to the runtime with the host's own log-in."""
    own = set(Credential.objects.filter(kind=CredentialKind.HOST_LOGIN).values_list("name", flat=True))
    entries = Agent.objects.filter(configured=True, runtime=name).values_list("entry", flat=True)
    return sum(logins.name_for(name, entry) in own for entry in entries)


# -- a check -----------------------------------------------------------------------------------------------------------


def check(name: str, *, actor: Actor) -> RuntimeCheck:
    """Begin a check of a runtime on this host; its row has the process, or the verdict where none is needed. Raises NotAllowed, NotFound.

    One at a time of each: asked again while it runs, the one that runs answers.
    """
    check_may(actor, "runtime.check", None)
    try:
        runtime = get_runtime(name)
    except UnknownRuntime as unknown:
        raise NotFound(str(unknown)) from None
    mark, verdict = fingerprint(runtime), at_a_glance(runtime)
    with transaction.atomic():
        row = locked(conf.host(), name)
        if under_way(row):
            return row
        if actor.user is not None:
            Act.objects.create(
                actor=actor.name, verb="runtime.check", subject=f"runtime {name} on {row.host}"
            )
        if verdict is not None:
            return conclude(row, verdict, mark)
        row.process = processes.prepare(KIND, project=None, request={"runtime": name, "fingerprint": mark})
        row.save(update_fields=["process"])
    return row


def locked(host: str, name: str) -> RuntimeCheck:
    """The row, made if it is not there, and held by the caller's transaction."""
    RuntimeCheck.objects.get_or_create(host=host, runtime=name)
    rows = RuntimeCheck.objects.select_for_update(of=("self",)).select_related("process")
    return rows.get(host=host, runtime=name)


def at_a_glance(runtime: Runtime) -> Verdict | None:
    """The verdict where nothing needs to be started for it: the program is missing, or there is none to try."""
    from agents.services import preflight_run

    if runtime.program() is None:
        found = runtime.find()
        return Verdict(Fitness.UNFIT, f"The program of {runtime.label} is not found.", found.remedy)
    if runtime.trial is not None:
        try:
            preflight_run.command_of(runtime, conf.new_key())
        except LaunchRefused as refused:
            return Verdict(Fitness.UNFIT, str(refused))
        return None
    if runtime.name == "command" and not confine.is_confined(confine.level_available().name):
        return Verdict(Fitness.UNFIT, "It runs within bubblewrap only.", confine.level_available().reason)
    own = "command" in runtime.keys
    return Verdict(
        Fitness.FIT, warning="Each agent names its own program, so none is tried here." if own else ""
    )


def conclude(row: RuntimeCheck, verdict: Verdict, mark: str) -> RuntimeCheck:
    """Write the verdict down and tell whom it concerns. The caller holds the row."""
    before, why = row.state, row.reason
    # What is known to be unfit stays so until it is known to be fit.
    if verdict.state != Fitness.UNKNOWN or before != Fitness.UNFIT:
        row.state, row.warning = verdict.state, verdict.warning
        row.reason, row.remedy = (text.replace("\0", "\u2400") for text in (verdict.reason, verdict.remedy))
        row.version, row.logged_in, row.proved = verdict.version, verdict.logged_in, verdict.proved
    row.seconds, row.fingerprint, row.checked_at = verdict.seconds, mark, timezone.now()
    row.told_by_session = False
    row.path = str(get_runtime(row.runtime).program() or "")[:1000]
    row.save()
    subject = f"runtime {row.runtime} on {row.host}"
    if before == Fitness.UNFIT and row.state == Fitness.FIT:
        breaker.runtime_goes_on(row, "runtime.fit", f"a check found it fit; before: {why}", SERVER)
    elif row.state != before or (row.state == Fitness.UNFIT and row.reason != why):
        if row.state == Fitness.UNFIT:
            Act.objects.create(actor=SERVER.name, verb="runtime.pause", subject=subject, why=row.sentence)
            logger.error(
                "%s is not fit: %s", subject, json.dumps(row.sentence), extra={"action": "runtime_unfit"}
            )
        tell(row.runtime, f"{subject} is {row.get_state_display()}" + (row.reason and f": {row.reason}"))
    return row


def tell(name: str, text: str) -> None:
    """News for every project with an agent of the runtime; a claim looks again."""
    users: Iterable[Any] = Project.objects.filter(agents__runtime=name, agents__configured=True)
    for project_id in users.order_by("pk").values_list("pk", flat=True).distinct():  # type: ignore[attr-defined]
        events.record(project_id, "limits", text=text)


# -- what is left of checks -----------------------------------------------------------------------------------------------


def scratch(key: str) -> Path:
    """The folder of one check: copy, home, tmp, config, the canary and the report."""
    return conf.home() / "preflight" / key


def forget_scratch() -> None:
    """What checks left that are over. The caller knows that none of this host is under way."""
    folder = conf.home() / "preflight"
    if folder.is_dir():
        for each in folder.iterdir():
            shutil.rmtree(each, ignore_errors=True)


def forget_processes() -> None:
    """The logs of this host's checks that another one took the place of."""
    shown = RuntimeCheck.objects.exclude(process=None).values_list("process", flat=True)
    over = Process.objects.filter(kind=KIND, host=conf.host(), state=ProcessState.HANDLED)
    for process in over.exclude(pk__in=list(shown)):
        shutil.rmtree(conf.runs() / process.key, ignore_errors=True)  # first: a row without it is found again
        process.delete()
