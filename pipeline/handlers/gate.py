"""Kind `gate`: run the project's gate on a clean copy of a committed tree, confined, without any credential."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import conf, kinds, logevents
from pipeline.exceptions import Refused
from pipeline.gates import Judgement, judge, tail
from pipeline.gates.verdict import GATE_STEP
from pipeline.git.control import pin_base
from pipeline.logevents import NewEvent
from pipeline.models import GateRun, Process
from pipeline.models.gate import GateState, Verdict
from pipeline.models.process import ProcessState
from pipeline.processes import confine, sidecars
from pipeline.processes.copies import CHECKOUT_TIMEOUT, copy_steps
from pipeline.projectfile import ProjectFile
from pipeline.services import gates, processes, projectfiles

LOG_BYTES = 10_000_000  # the first and the last half are kept
OPEN_FILES = 8192
PROCESSES = 8192  # of the user on this host, not of the gate alone: a stop for fork bombs, no budget
LAST_EVENTS = 4000


class GateHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        run = run_of(process)
        if run is None or run.state == GateState.OVER or run.reason:
            raise Refused("Its gate run is over or was cancelled.")
        project = run.story.project
        file = projectfiles.active_file(project)
        level = confine.level_available()
        if file.gate is None:
            raise Refused(f"Project {project.name} has no gate any more.")
        if level.name == "none" and not projectfiles.unconfined_allowed(project):
            raise Refused(f"A gate cannot be confined on this host: {level.reason}")
        if level.name == "none" and not file.gate.network.is_on:
            raise Refused(f"{gates.NETWORK_UNKEPT} {level.reason}")
        control, way = conf.control_path(project.key), way_out(process.key, file)
        pin_base(control, process.key, run.commit)
        return {
            "version": 1,
            "key": process.key,
            "marker": {"HUSKIES_SESSION": process.key},
            "helpers": [] if way is None else [sidecars.sidecar(folder=way, allow=file.gate.network.rules())],
            "steps": steps(process.key, run, file, control=control, level=level.name),
            "limits": {
                "log_bytes": min(file.gate.output_limit, LOG_BYTES),
                "on_cap": "keep_ends",
                "grace": 5.0,
                "wall": min(sum(timeouts(file).values()) + 2 * CHECKOUT_TIMEOUT, 2_000_000.0),
                "nofile": OPEN_FILES,
                "nproc": PROCESSES,
                "nice": confine.NICE,
            },
        }

    def stored(self, process: Process, events: Sequence[NewEvent], first_seq: int) -> None:
        if first_seq == 1 and events:
            gates.began(process)

    def ended(self, process: Process) -> None:
        run, lost = run_of(process), process.state == ProcessState.LOST
        run = run and gates.locked(run)
        processes.finish(process)
        processes.prepare("discard", project=process.project, request={"copy": process.key, "private": True})
        if run is None or run.state == GateState.OVER:
            return
        if run.reason:  # written by `cancel`, and now its process is verified dead
            gates.conclude(run, Verdict.SKIPPED, run.reason, output_of(process))
            return
        file = projectfiles.active_file(run.story.project)
        said: Judgement = judge(process.exit, lost=lost, timeouts=timeouts(file))
        if said.kind == "again":
            gates.try_again(run, said.reason)
        else:
            verdict = Verdict.PASSED if said.kind == "passed" else Verdict.FAILED
            gates.conclude(run, verdict, said.reason, output_of(process))


def run_of(process: Process) -> GateRun | None:
    """The gate run that a process works for; None when another process does, or it is gone."""
    rows = GateRun.objects.select_related("story__project").filter(
        pk=process.request.get("gate_run"), process=process
    )
    return rows.first()


def way_out(key: str, file: ProjectFile) -> Path | None:
    """Where the socket of the gate's sidecar is, if its network is a list of hosts."""
    return conf.session_path(key) / "net" if file.gate and file.gate.network.mode == "allow" else None


def steps(key: str, run: GateRun, file: ProjectFile, *, control: Path, level: str) -> list[dict[str, Any]]:
    """The copy from the control repository (never from an agent's copy), the components' setup, then the gate."""
    if file.gate is None:
        return []
    copy, own = conf.copy_path(key), conf.session_path(key)
    home, tmp, network, way = own / "home", own / "tmp", file.gate.network, way_out(key, file)
    helped = {} if way is None else {"helped": True}
    place: dict[str, Any] = {
        "level": level,
        "writable": [copy, home, tmp],
        "readable": [control / "objects"],
        "hidden": [conf.home()],
        "network": network.is_on,
        "way_out": way,
        "cwd": copy,
    }
    environment = confine.allowed_environment(home, tmp, {"CI": "true"})
    if not network.is_on:
        environment = confine.through_way_out(environment, alone=True, proxy=way is not None)
    return [
        {"name": "folders", "files": [["mkdir", str(each)] for each in (copy.parent, home, tmp)]},
        *copy_steps(
            control, copy, branch=None, commit=run.commit, object_format=run.story.project.object_format
        ),
        *(
            step | helped
            for step in projectfiles.setup_steps(file, copy=copy, environment=environment, place=place)
        ),
        {
            "name": GATE_STEP,
            "main": True,
            "argv": confine.confined(file.gate.argv, **place),
            "cwd": str(copy),
            "env": {**environment, **file.gate.env},
            "timeout": file.gate.timeout.total_seconds(),
            **helped,
        },
    ]


def timeouts(file: ProjectFile) -> dict[str, float]:
    """Seconds by step name, of the steps that are the project's own."""
    named = {
        f"setup of {component.name}, command {number}": (
            component.timeout or file.setup_timeout
        ).total_seconds()
        for component in file.components
        for number, _ in enumerate(component.setup, 1)
    }
    if file.gate is not None:
        named[GATE_STEP] = file.gate.timeout.total_seconds()
    return named


def output_of(process: Process) -> str:
    """The end of what the gate printed, stdout and stderr as they came."""
    lines = islice(logevents.backwards(process.pk, ("line",)), LAST_EVENTS)
    return tail(str(event.body.get("text", "")) for event in lines)
