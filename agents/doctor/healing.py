"""What of sessions the server mends by itself; as in `pipeline.doctor.healing`."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from agents.doctor.sessions import FOLLOWED_WITHIN, slots_held_for_nothing
from agents.doctor.work import RECENT
from agents.models import Session
from agents.services import deciding, saving, sessions
from agents.services.booking import SUMS
from agents.states import State
from pipeline import conf, moves
from pipeline import git as gits
from pipeline.actors import SERVER
from pipeline.doctor import Healed
from pipeline.doctor.history import missing
from pipeline.git import GitError
from pipeline.git.control import move_ref
from pipeline.models import Host, Project
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.services import processes


def held_slots() -> Iterator[Healed]:
    """R4: a session whose process is over, and whose work nobody saves: its work is saved, then it ends as any other."""
    for pk in slots_held_for_nothing().filter(host=conf.host()).values_list("pk", flat=True):
        with transaction.atomic():
            session = Session.objects.select_related("story", "project", "agent").filter(pk=pk).locked()
            if not slots_held_for_nothing().filter(pk=pk).exists():
                continue
            told = session.told or {
                "kind": "lost",
                "reason": "Its process was over, and nothing followed from that.",
                "detail": "server",
            }
            Session.objects.filter(pk=pk).update(told=told)
            session.told = told
            sessions.walk(session, State.STOPPING)
            if conf.copy_path(session.key).exists():
                Session.objects.filter(pk=pk).update(saving=saving.prepare_intake(session, tries=0))
                done = "its work is being saved"
            else:
                deciding.conclude(session, None)
                done = "it ended"
            moves.note(
                session.story,
                "heal",
                actor=SERVER,
                why=f"session {pk} held its place although its process was over; {done}",
            )
        yield Healed("R4", f"session {pk}", f"its process was over, and it held its place; {done}.")


def lives_after_the_end() -> Iterator[Healed]:
    """R4: the process of an ended session is stopped, or never begins."""
    late = timezone.now() - FOLLOWED_WITHIN
    rows = Session.objects.filter(state=State.ENDED, ended_at__lt=late, process__host=conf.host())
    for session in rows.filter(
        process__state__in=[ProcessState.PREPARED, ProcessState.RUNNING]
    ).select_related("process"):
        process = session.process
        if process is None:
            continue
        if process.state == ProcessState.PREPARED:
            done = processes.reclaim(process, "its session is over")
        else:
            done = processes.stop(process, reason="its session is over")
        if done:
            yield Healed(
                "R4",
                f"session {session.pk}",
                f"it was over, and its process {process.key} was not. The process was ended.",
            )


def lost_refs() -> Iterator[Healed]:
    """R7: saved work that is in the repository gets its ref back before anything can collect it."""
    for project in Project.objects.filter(state=ProjectState.READY):
        control = conf.control_path(project.key)
        try:
            refs = gits.list_refs(control, "refs/huskies/sessions/")
            rows = project.sessions.exclude(saved="").values_list("pk", "key", "saved")
            gone = [
                (pk, gits.session_ref(key), commit)
                for pk, key, commit in rows
                if gits.session_ref(key) not in refs
            ]
            absent = missing(control, [commit for _, _, commit in gone])
            for pk, ref, commit in gone:
                if commit not in absent:
                    move_ref(control, ref, commit, None)
                    yield Healed(
                        "R7", f"session {pk}", f"no ref held its work {commit[:12]}; {ref} was made again."
                    )
        except (GitError, OSError):
            continue  # the checker tells it


def sums() -> Iterator[Healed]:
    """The ledger is right: a session's sums are made from its rows again."""
    summed = {f"{name}_sum": Sum(f"ledger__{name}", default=0) for name in SUMS}
    for row in Session.objects.filter(state=State.ENDED).annotate(**summed).order_by("-pk")[:RECENT]:
        right = {name: getattr(row, f"{name}_sum") for name in SUMS}
        if any(getattr(row, name) != value for name, value in right.items()):
            seen = {name: getattr(row, name) for name in SUMS}
            if Session.objects.filter(pk=row.pk, state=State.ENDED, **seen).update(**right):
                yield Healed(
                    "R8",
                    f"session {row.pk}",
                    f"its sums (${seen['cost_usd']}) were not those of its requests (${right['cost_usd']}).",
                )


def forgotten_suspects() -> Iterator[Healed]:
    """A session is suspect only while its host is."""
    silent = Host.objects.exclude(suspect_since=None).values("name")
    rows = Session.objects.exclude(suspect_since=None).exclude(host__in=silent)
    for pk in list(rows.values_list("pk", flat=True)):
        if rows.filter(pk=pk).update(suspect_since=None):
            yield Healed(
                "R4",
                f"session {pk}",
                "it was marked as silent, and its host is heard of. The mark was taken away.",
            )
