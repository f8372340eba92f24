"""A small server that a test kills at a named instant: loaded once, then forked for each job, each with a data folder and database of its own.

Reads jobs as lines of JSON on stdin and answers each with a line on stdout: {"status": the wait status of the fork, "said": what it said}.
A job is {"home", "repo", "plan"}, on PostgreSQL {"database": its name}, and, to be killed: {"crash": the point} for an instant of the server's own,
{"victims": [[a kind of process, the point], ...]} for an instant of the first child of that kind, then of the next, and {"alone": false} if the
server shall die with the last of them.
With {"pause": true} it is stopped there instead, and {"plan": "resume"} lets it go on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from agents.models import Session  # noqa: E402
from agents.services import pool  # noqa: E402
from huskies_site import doctoring  # noqa: E402
from pipeline import conf, datafolder, merging  # noqa: E402
from pipeline.git.control import list_refs  # noqa: E402
from pipeline.models import Process, Project, Story  # noqa: E402
from pipeline.models.process import ProcessState  # noqa: E402
from pipeline.processes import copies  # noqa: E402
from pipeline.processes.identity import marked_processes  # noqa: E402
from pipeline.processes.logfile import STDOUT, read_records  # noqa: E402
from pipeline.processes.runfolder import MARKER  # noqa: E402
from pipeline.services import deleting, processes, projects  # noqa: E402
from tests import factories  # noqa: E402
from tests.factories import ALICE  # noqa: E402
from tests.logs import events, events_of_all  # noqa: E402
from tests.serving import Server  # noqa: E402

Job = dict[str, Any]
PATIENCE = 40.0  # seconds


class CrashingServer(Server):
    """One child after the other, the first of each (kind, point), is told to die there; without `alone` the server dies with the last."""

    def __init__(self, victims: Sequence[Sequence[str]] = (), alone: bool = True) -> None:
        super().__init__()
        self.victims, self.alone = list(victims), alone

    def step(self) -> None:
        victim = None
        if self.victims:
            kind, point = self.victims[0]
            victim = Process.objects.filter(state=ProcessState.PREPARED, kind=kind).first()
        if victim is not None:
            del self.victims[0]
            os.environ["HUSKIES_CRASH"] = point
            processes.launch(victim.pk)
            del os.environ["HUSKIES_CRASH"]
            if not self.alone and not self.victims:
                os.kill(os.getpid(), signal.SIGKILL)
        super().step()
        if Process.objects.filter(state=ProcessState.PREPARED).exists():
            processes.ring()


def use(home: str, database: str) -> None:
    settings.HUSKIES_HOME = Path(home)
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    merging.RETRY_SECONDS = 0.1
    settings.DATABASES["default"]["NAME"] = connections["default"].settings_dict["NAME"] = (
        database or f"{home}/huskies.sqlite3"
    )


def prepare(job: Job) -> Job:
    """The first state of every test: a project that is ready, with one story in the backlog."""
    datafolder.prepare(conf.home())
    call_command("migrate", verbosity=0, interactive=False)
    factories.capacity()
    server = Server()
    project = projects.add_project(job["repo"], actor=ALICE)
    server.until(lambda: not Process.objects.unhandled().exists(), what="the first look", seconds=PATIENCE)
    version = projects.proposed_version(project)
    assert version is not None
    projects.approve_version(version, actor=ALICE)
    for description in job["descriptions"]:
        factories.story(project, description=description)
    server.close()
    connections.close_all()
    return {}


def work(job: Job) -> Job:
    """Start the story if nobody has, and see it through; `stop`: stop it on its way first."""
    Project.objects.update(source=job["repo"])
    server = CrashingServer(job.get("victims", ()), job.get("alone", True))
    copies.SMALL_ENTRIES = job.get("small", copies.SMALL_ENTRIES)
    if job.get("crash"):
        os.environ["HUSKIES_CRASH"] = job["crash"]
    if "description" in job:
        Story.objects.update(description=job["description"])
    story = Story.objects.get()
    if story.stage == "backlog":
        pool.start_story(story, actor=ALICE)
    if job.get("stop"):
        stop(server, story)
    server.until(lambda: Story.objects.get().stage == "done", what="a story that is done", seconds=PATIENCE)
    server.until(lambda: not Process.objects.unhandled().exists(), what="an idle server", seconds=PATIENCE)
    server.close()
    return facts()


def start(job: Job) -> Job:
    """Start every story, as people do with a server that runs: what follows is queued."""
    settings.HUSKIES_NO_QUEUE = False
    for story in Story.objects.filter(stage="backlog"):
        pool.start_story(story, actor=ALICE)
    return {}


def look(job: Job) -> Job:
    """Every story and session as they stand, and what doctor finds."""
    sessions = Session.objects.select_related("process").order_by("pk")
    return {
        "stories": list(
            Story.objects.order_by("number").values("number", "stage", "retries", "crashes", "reason")
        ),
        "sessions": [
            {
                "story": session.story.number,
                "state": session.state,
                "outcome": session.outcome,
                "reason": session.reason,
                "key": session.key,
                "runner": session.process.pid if session.process else None,
                "said": said_by(session),
                "logged": logged_by(session),
            }
            for session in sessions
        ],
        **(
            {"lies": [str(lie) for lie in doctoring.lies(0)], "strays": strays()} if job.get("doctor") else {}
        ),
    }


def said_by(session: Session) -> list[str]:
    return [event.body["text"] for event in events(session.process, "text")]


def logged_by(session: Session) -> list[str]:
    """The same from the bytes of its runner's log."""
    if session.process is None or not (conf.runs() / session.key / "log").exists():
        return []
    records, _ = read_records(conf.runs() / session.key / "log", 0, 1 << 30)
    lines = [
        json.loads(record.data) for record in records if record.stream == STDOUT and record.data[:1] == b"{"
    ]
    return [line["body"]["text"] for line in lines if line["kind"] == "text"]


def strays() -> list[str]:
    keys = set(Process.objects.values_list("key", flat=True))
    return [f"{one.pid} {one.value}" for one in marked_processes(MARKER) if one.value in keys]


def stop(server: Server, story: Story) -> None:
    if not story.held_for:
        server.until(lambda: bool(events_of_all("text")), what="the agent's first words", seconds=PATIENCE)
        pool.stop_story(Story.objects.get(), actor=ALICE)
    over = Session.objects.filter(state="ended", outcome="stopped")
    server.until(over.exists, what="a session that is stopped", seconds=PATIENCE)
    assert Story.objects.get().held_for == "stopped by alice"
    pool.start_story(Story.objects.get(), actor=ALICE)


def delete(job: Job) -> Job:
    """Delete the story while its agent works, if nobody has, and see that through."""
    Project.objects.update(source=job["repo"])
    server = CrashingServer()
    story = Story.objects.first()
    if story is not None and not story.deleting:
        Story.objects.update(description=job["description"])
        if story.stage == "backlog":
            pool.start_story(Story.objects.get(), actor=ALICE)
        server.until(lambda: bool(events_of_all("text")), what="the agent's first words", seconds=PATIENCE)
        if job.get("crash"):
            os.environ["HUSKIES_CRASH"] = job["crash"]
        deleting.delete_story(Story.objects.get(), actor=ALICE)
    server.until(lambda: not Story.objects.exists(), what="a story that is gone", seconds=PATIENCE)
    server.until(lambda: not Process.objects.unhandled().exists(), what="an idle server", seconds=PATIENCE)
    server.close()
    control = conf.control_path(Project.objects.get().key)
    keys = set(Process.objects.values_list("key", flat=True))
    return {
        "sessions": Session.objects.count(),
        "lies": [str(lie) for lie in doctoring.lies(0)],
        "strays": [
            f"{one.pid} {one.value}" for one in marked_processes(MARKER) if (conf.runs() / one.value).exists()
        ],
        "refs": sorted(
            ref
            for prefix in ("refs/huskies/", "refs/heads/")
            for ref in list_refs(control, prefix)
            if "upstream" not in ref
        ),
        "folders": sorted(
            str(path.relative_to(conf.home()))
            for name in ("copies", "trash", "sessions", "runs")
            for path in (conf.home() / name).glob("*")
            if name != "runs" or path.name not in keys
        ),
    }


def facts() -> Job:
    story = Story.objects.get()
    return {
        "stage": story.stage,
        "landed": story.landed,
        "retries": story.retries,
        "outcomes": list(Session.objects.order_by("pk").values_list("outcome", flat=True)),
        "kinds": sorted(set(Process.objects.values_list("kind", flat=True))),
        "killed": sorted(each.kind for each in Process.objects.all() if was_killed(each)),
        "conversations": len(set(Session.objects.values_list("conversation", flat=True))),
        "cut": len(events_of_all("cut")),
        "lies": [str(lie) for lie in doctoring.lies(0)],
        "strays": strays(),
        "copies": sorted(path.name for path in (conf.home() / "copies").iterdir()),
        "trash": sorted(path.name for path in (conf.home() / "trash").iterdir()),
    }


def was_killed(process: Process) -> bool:
    """Whether its runner or its child was; of a session's last step, that saves, the intake that follows tells."""
    ended = process.exit or {}
    return ended.get("outcome") in ("lost", "not_launched") or ended.get("signal") == signal.SIGKILL


def run(job: Job) -> Job:
    use(job["home"], job.get("database", ""))
    from tests.chaos import shortages

    plans = {
        **shortages.PLANS,
        "prepare": prepare,
        "work": work,
        "start": start,
        "look": look,
        "delete": delete,
    }
    return plans[job["plan"]](job)


def main() -> None:
    paused: list[tuple[int, int]] = []
    for line in sys.stdin:
        job = json.loads(line)
        if job["plan"] == "resume":
            pid, reading = paused.pop()
            os.kill(pid, signal.SIGCONT)
            print(json.dumps(end_of(pid, reading)), flush=True)
            continue
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            if job.get("pause"):
                os.environ["HUSKIES_CRASH_SIGNAL"] = "SIGSTOP"
            try:
                said = run(job)
            except BaseException:
                said = {"error": traceback.format_exc()}
            with os.fdopen(writing, "w", encoding="utf-8") as out:
                json.dump(said, out)
            os._exit(0)
        os.close(writing)
        if job.get("pause") and os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]):
            paused.append((pid, reading))
            print(json.dumps({"status": -signal.SIGSTOP, "said": {}}), flush=True)
            continue
        print(json.dumps(end_of(pid, reading)), flush=True)


def end_of(pid: int, reading: int) -> Job:
    """What a fork said, and how it ended."""
    with os.fdopen(reading, encoding="utf-8") as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), "said": json.loads(text) if text else {}}


if __name__ == "__main__":
    main()
