"""A project in rows, with agents of every role, on a real control repository; its children are played: no child is ever started.

A child's life is what the supervisor stores of it: who it is, batches of its log, its exit. Those go through the same functions as in
earnest (`Supervisor.store`, `processes.handle_end`), so that only the programs themselves are missing.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase

from agents.models import Agent, Session
from agents.runtimes.base import LaunchRefused
from agents.services import assigning
from agents.services import sessions as session_services
from pipeline import conf, kinds
from pipeline.actors import Actor
from pipeline.exceptions import Refused
from pipeline.following import Batch, Followed
from pipeline.git.control import create_control, move_ref
from pipeline.git.merging import commit_tree
from pipeline.git.reading import is_ancestor, tree_of
from pipeline.models import Host, Membership, Merge, Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.processes.identity import Identity
from pipeline.processes.logfile import NOTE, STDOUT, Record
from pipeline.roles import Role
from pipeline.services import deleting, gates, merges, processes, projectfiles
from pipeline.supervisor import Overtaken, Supervisor
from tests import factories

FILE = """\
default_qa: server
max_retries: 2
agents:
  - {name: coder-1, role: coder, runtime: scripted, model: large, script: [{say: hi}]}
  - {name: coder-2, role: coder, runtime: scripted, model: small, script: [{say: hi}]}
  - {name: qa-1, role: qa, runtime: scripted, model: large, script: [{say: hi}]}
  - {name: mergemaster-1, role: mergemaster, runtime: scripted, script: [{say: hi}]}
  - {name: other-1, role: other, runtime: scripted, script: [{say: hi}]}
gate:
  command: sh check.sh
"""
NAMES = ("coder-1", "coder-2", "qa-1", "mergemaster-1", "other-1")
WORKS = 6
"""Commits that sessions leave, each with a tree of its own."""
AUTHOR = {"name": "huskies", "email": "server@huskies.invalid"}


class Clock:
    """The wall clock of a run; every look is a millisecond later, so that order is what it seems."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Repository:
    """Made once: a first commit with the project file, and the works that sessions will have left."""

    def __init__(self, folder: Path) -> None:
        files = {".huskies/project.yaml": FILE, "check.sh": "true\n"}
        source = factories.repository(folder / "source", files)
        self.first = factories.git("rev-parse", "HEAD", cwd=source)
        self.works = []
        for number in range(WORKS):
            factories.git("checkout", "-q", self.first, cwd=source)
            self.works.append(factories.commit_files(source, {"work.txt": f"{number}\n"}, f"work {number}"))
        self.control = conf.control_path(conf.new_key())
        create_control(self.control, branch="main")
        for number, commit in enumerate(self.works):
            factories.git("push", "-q", str(self.control), f"{commit}:refs/heads/kept-{number}", cwd=source)

    @property
    def key(self) -> str:
        return self.control.name.removesuffix(".git")

    def reset(self) -> None:
        """The base where it was; stories' branches of an earlier run stay, and the next move of each finds them."""
        (self.control / "refs/heads/main").write_text(f"{self.first}\n")


class World:
    def __init__(self, repository: Repository, clock: Clock) -> None:
        self.repository, self.clock = repository, clock
        repository.reset()
        factories.capacity(4)
        Host.objects.update_or_create(name=conf.host(), defaults={"seen_at": clock()})
        self.project = Project.objects.create(
            name="web", key=repository.key, source="/nowhere", source_kind="bare", state="ready",
            base_branch="main", tip=repository.first, unconfined_allowed=True,
        )  # fmt: skip
        version = projectfiles.take_file(self.project, text=FILE, blob="1" * 40, commit=repository.first)
        if version is not None and version.state == "proposed":
            projectfiles.approve_version(version, actor=factories.ALICE)
        self.project.refresh_from_db()
        self.actors = [factories.ALICE, self.person("anna"), self.person("ben")]
        self.supervisor = Supervisor()
        self.works = 0

    def person(self, name: str) -> Actor:
        user = User.objects.create(username=name)  # nobody logs in: a password's hash takes half a second
        Membership.objects.create(project=self.project, user=user, role=Role.ADMIN)
        return Actor.of(user)

    # -- what there is, by a number that may be too large ---------------------------------------------------------------

    def story(self, pick: int) -> Story | None:
        pks = list(Story.objects.order_by("pk").values_list("pk", flat=True))
        return Story.objects.select_related("project").get(pk=pks[pick % len(pks)]) if pks else None

    def agent(self, pick: int) -> Agent:
        return Agent.objects.select_related("project").get(name=NAMES[pick % len(NAMES)])

    def process(self, pick: int, *of_kinds: str) -> Process | None:
        rows = Process.objects.live().order_by("pk")
        if of_kinds:
            rows = rows.filter(kind__in=of_kinds)
        pks = list(rows.values_list("pk", flat=True))
        return (
            Process.objects.select_related("project", "story").get(pk=pks[pick % len(pks)]) if pks else None
        )

    # -- one child's life ------------------------------------------------------------------------------------------------

    def launch(self, process: Process) -> bool:
        """The order is made, and a runner that does not exist took it."""
        try:
            kinds.handler_of(process).spec(process)
        except (Refused, LaunchRefused) as error:
            return not processes.reclaim(process, str(error))
        processes.adopt(process, Identity(pid=2**22 - 1, start_time=process.pk, boot_id="model"))
        process.refresh_from_db()
        return process.state == ProcessState.RUNNING

    def not_launched(self, process: Process) -> None:
        processes.reclaim(process, "the fork failed")

    def log(self, process: Process, *lines: tuple[int, dict[str, Any]]) -> None:
        """A batch of its log: (stream, JSON) of each line."""
        end = process.offset
        records = []
        for stream, body in lines:
            now, data = self.clock(), json.dumps(body).encode()
            end += len(data) + 40
            records.append(
                Record(stream, 0, int(now.timestamp() * 1e9), int(now.timestamp() * 1e9), data, end)
            )
        batch = Batch(Followed(process, conf.runs() / process.key), process.offset, records, end, more=False)
        batch.new = kinds.handler_of(process).records(process, records)
        try:
            with transaction.atomic():
                self.supervisor.store(batch)
        except Overtaken:
            return
        process.refresh_from_db()

    def begin(self, process: Process) -> None:
        """The main step begins; an agent's copy is there."""
        conf.copy_path(process.key).mkdir(parents=True, exist_ok=True)
        self.log(process, (NOTE, {"note": "step-start", "step": process.kind, "main": True}))

    def says(self, process: Process, outcome: str, until: int | None = None) -> None:
        """The agent's last words: what it thinks of its own end."""
        self.log(
            process,
            (STDOUT, {"kind": "started", "body": {}}),
            (
                STDOUT,
                {"kind": "usage", "body": {"request": f"r-{process.pk}", "model": "scripted", "output": 10}},
            ),
            (STDOUT, {"kind": "ended", "body": {"outcome": outcome, "text": "as played", "until": until}}),
        )

    def end(self, process: Process, *, lost: bool = False, twice: bool = False, **said: Any) -> None:
        """The runner is dead; `said`: what its exit record says."""
        record = {
            "version": 1, "key": process.key, "outcome": "exited", "code": 0, "signal": None, "verified": True,
            "main_started": process.main_started, "step": process.kind, "log_size": process.offset, **said,
        }  # fmt: skip
        if lost:
            record |= {"outcome": "lost", "code": None}
        state = ProcessState.LOST if lost else ProcessState.EXITED
        Process.objects.filter(pk=process.pk, state=ProcessState.RUNNING).update(
            state=state, exit=record, ended_at=self.clock()
        )
        for _ in range(1 + twice):
            with TestCase.captureOnCommitCallbacks(execute=True):
                processes.handle_end(process.pk)

    # -- a child's life in one go -------------------------------------------------------------------------------------------

    def play(self, process: Process, how: str = "good") -> None:
        """A chore or a gate from where it is to its end: good, refused, or lost."""
        if process.state == ProcessState.PREPARED and not self.launch(process):
            return
        if how == "lost":
            self.end(process, lost=True)
            return
        self.begin(process)
        if process.kind == "gate":
            self.end(process, code=0 if how == "good" else 1)
            return
        answer = self.answer(process) if how == "good" else self.refusal(process)
        if process.kind == "land" and "result" in answer:
            move_ref(self.repository.control, "refs/heads/main", answer["result"]["tip"], self.base())
        self.log(process, (STDOUT, answer))
        self.end(process)

    def base(self) -> str:
        return (self.repository.control / "refs/heads/main").read_text().strip()

    def answer(self, process: Process) -> dict[str, Any]:
        control = self.repository.control
        if process.kind == "intake":
            return self.intake(process, changed=True)
        if process.kind in ("candidate", "land", "probe"):
            merge = Merge.objects.select_related("project", "story").get(pk=process.request["merge"])
            if process.kind == "candidate":
                base, tree = self.base(), tree_of(control, merge.tip)
                made = commit_tree(
                    control, tree, [base], f"#{merge.story.number}", author=AUTHOR, date=1_800_000_000
                )
                return {"result": {"base": base, "candidate": made, "tree": tree}}
            if process.kind == "probe":
                base = self.base()
                return {"result": {"tip": base, "reachable": is_ancestor(control, merge.candidate, base)}}
            if self.base() != merge.expected:
                return {"refused": {"kind": "moved", "message": "The branch has moved."}}
            return {"result": {"tip": merge.candidate}}
        return {"result": {}}

    def refusal(self, process: Process) -> dict[str, Any]:
        kind = {"candidate": "conflict", "land": "dirty"}.get(process.kind, "hostile")
        return {"refused": {"kind": kind, "message": f"The {process.kind} is refused, as played."}}

    def intake(self, process: Process, *, changed: bool) -> dict[str, Any]:
        session = Session.objects.get(pk=process.request["session"])
        self.works += changed
        tip = (
            self.repository.works[self.works % WORKS] if changed else session.began_at_commit or session.base
        )
        return {
            "result": {
                "tip": tip,
                "changed": changed,
                "commits": int(changed),
                "files": ["work.txt"] * changed,
            }
        }

    # -- what the server does by itself -----------------------------------------------------------------------------------

    def sweeps(self) -> None:
        for sweep in (
            gates.sweep,
            session_services.sweep,
            merges.advance_all,
            deleting.sweep,
            assigning.auto_assign,
        ):
            with TestCase.captureOnCommitCallbacks(execute=True):
                sweep()
