"""The state machine: everything that people, children and the server can do to a project, in any order, with the witness after each step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection, transaction
from django.test import TestCase
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.models import Budget, Credential, Limit, RuntimeCheck, Session
from agents.services import assigning, limiting, pool, roster
from agents.services import sessions as session_services
from agents.states import Role
from pipeline import conf
from pipeline.exceptions import Refused
from pipeline.models import Capacity, Host, Process, Story
from pipeline.models.process import ProcessState
from pipeline.processes.logfile import STDOUT
from pipeline.services import deleting, dependencies, hosts, processes
from pipeline.services.stories import create_story, edit_story, perform
from pipeline.stages import Stage
from pipeline.transitions import VERBS
from tests import factories
from tests.model.invariants import Witness, said_why, strays
from tests.model.world import NAMES, Clock, Repository, World

STORIES_AT_MOST = 5
PICK = st.integers(0, 20)
PERSON = st.integers(0, 2)
ACTS = ("freeze", "unfreeze", "hold", "approve_files")
VERB = st.sampled_from([*sorted(v.name for v in VERBS.values() if v.may and v.name != "start"), *ACTS])
AGENT_ENDS = st.sampled_from(
    ["done"] * 6 + ["crashed", "killed", "hung", "rate_limited", "overloaded", "auth", "bad_model", "context_full", "stopped", "lost"]
)  # fmt: skip
WORK_ENDS = st.sampled_from(["changed", "changed", "changed", "same", "refused", "lost"])
CHORE_ENDS = st.sampled_from(["good", "good", "good", "refused", "lost"])
SCOPES = st.sampled_from(
    [("server", ""), ("host", "here"), ("project", "web"), ("user", ""), ("user", "anna"), ("role", "coder"),
     ("role", ""), ("model", "large"), ("agent", "web/coder-1"), ("agent", ""), ("review", "web")]
)  # fmt: skip


Moves = Callable[..., None]
MENU: dict[str, dict[str, st.SearchStrategy[Any]]] = {}
WEIGHTED: list[str] = []


def move(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Moves], Moves]:
    """One of the things that may happen, `weight` times as often as the rarest.

    Rules of hypothesis's own would be switched off by the half in each run, and most runs would come to nothing.
    """

    def enter(method: Moves) -> Moves:
        MENU[method.__name__] = arguments
        WEIGHTED.extend([method.__name__] * weight)
        return method

    return enter


class Model(RuleBasedStateMachine):
    """`repository` and `clock` are set by the test that runs it; `quick`: all of the doctor's rules only in the end."""

    repository: Repository
    clock: Clock
    quick = True

    def __init__(self) -> None:
        super().__init__()
        self.around = contextlib.ExitStack()
        self.around.enter_context(transaction.atomic())
        self.around.enter_context(connection.execute_wrapper(self.count))
        self.writes = self.looked_at = 0
        self.broken = False
        self.world = World(self.repository, self.clock)
        self.witness = Witness(self.world.project, self.quick)
        for place in range(3):
            self.write(place, "", "", 0)
            self.start(place, place, None)

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.come_to_rest()
        finally:
            transaction.set_rollback(True)
            self.around.close()

    def count(self, execute: Callable[..., Any], sql: str, *more: Any) -> Any:
        self.writes += sql.startswith(("INSERT", "UPDATE", "DELETE"))
        return execute(sql, *more)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """A refusal is an answer; whatever it leaves behind is judged like everything else."""
        with TestCase.captureOnCommitCallbacks(execute=True), contextlib.suppress(Refused):
            yield

    def on(self, pick: int, act: Callable[[Story], object]) -> None:
        story = self.world.story(pick)
        if story is not None:
            with self.refusing():
                act(story)

    # -- people -----------------------------------------------------------------------------------------------------------

    @move(
        2,
        who=PERSON,
        qa=st.sampled_from(["", "human", "agent"]),
        wish=st.sampled_from(["", *NAMES]),
        urgent=st.integers(-1, 1),
    )
    def write(self, who: int, qa: str, wish: str, urgent: int) -> None:
        if Story.objects.count() >= STORIES_AT_MOST:
            return
        with self.refusing():
            story = create_story(
                self.world.project,
                title="A button",
                actor=self.world.actors[who],
                qa=qa,
                preferred_agent=wish,
            )
            Story.objects.filter(pk=story.pk).update(priority=urgent)

    @move(6, pick=PICK, who=PERSON, name=st.sampled_from([None, None, *NAMES, "nobody"]))
    def start(self, pick: int, who: int, name: str | None) -> None:
        actor = self.world.actors[who]
        self.on(pick, lambda story: pool.start_story(story, actor=actor, agent_name=name))

    @move(2, pick=PICK, who=PERSON)
    def stop(self, pick: int, who: int) -> None:
        self.on(pick, lambda story: pool.stop_story(story, actor=self.world.actors[who]))

    @move(2, agent=PICK, who=PERSON, do=st.sampled_from(["stop", "pause", "resume"]))
    def agents(self, agent: int, who: int, do: str) -> None:
        verb = {"stop": roster.stop_agent, "pause": roster.pause_agent, "resume": roster.resume_agent}[do]
        with self.refusing():
            verb(self.world.agent(agent), actor=self.world.actors[who])

    @move(2, pick=PICK, who=PERSON, name=st.sampled_from(NAMES))
    def assign(self, pick: int, who: int, name: str) -> None:
        self.on(pick, lambda story: roster.assign(story, name, actor=self.world.actors[who]))

    @move(6, pick=PICK, who=PERSON, verb=VERB)
    def verb(self, pick: int, who: int, verb: str) -> None:
        self.on(pick, lambda story: perform(story, verb, actor=self.world.actors[who], why="as played"))

    @move(
        1,
        pick=PICK,
        who=PERSON,
        wish=st.sampled_from(["", *NAMES, "nobody"]),
        qa=st.sampled_from(["", "human", "agent"]),
    )
    def edit(self, pick: int, who: int, wish: str, qa: str) -> None:
        actor = self.world.actors[who]
        self.on(
            pick, lambda story: edit_story(story, actor=actor, preferred_agent=wish, qa=qa, title="Other")
        )

    @move(1, pick=PICK, other=PICK, who=PERSON)
    def depend(self, pick: int, other: int, who: int) -> None:
        on = self.world.story(other)
        if on is not None:
            actor = self.world.actors[who]
            numbers = [] if pick == other else [on.number]
            self.on(pick, lambda story: dependencies.set_dependencies(story, numbers, actor=actor))

    @move(1, pick=PICK, who=PERSON)
    def delete(self, pick: int, who: int) -> None:
        self.on(pick, lambda story: deleting.delete_story(story, actor=self.world.actors[who]))

    @move(2, scope=SCOPES, most=st.sampled_from([None, 0, 1, 1, 2, 3]))
    def limit(self, scope: tuple[str, str], most: int | None) -> None:
        kind, subject = scope
        name = conf.host() if kind == "host" else subject
        with self.refusing():
            limiting.set_limit(kind, name, most, actor=factories.ALICE)

    @move(1, on=st.booleans())
    def drain(self, on: bool) -> None:
        Capacity.objects.update(draining=on)

    # -- children ----------------------------------------------------------------------------------------------------------

    @move(24, pick=PICK, agent=AGENT_ENDS, work=WORK_ENDS, chore=CHORE_ENDS, twice=st.booleans())
    def a_child_goes_on(self, pick: int, agent: str, work: str, chore: str, twice: bool) -> None:
        process = self.world.process(pick)
        if process is None:
            return
        if process.kind == "agent":
            self.agent_goes_on(process, agent, twice)
        elif process.kind == "intake":
            self.work_is_taken_in(process, work)
        else:
            self.world.play(process, chore)

    def agent_goes_on(self, process: Process, how: str, twice: bool) -> None:
        """One step of its life: launched, begun, over."""
        if process.state == ProcessState.PREPARED:
            self.world.not_launched(process) if how == "lost" else self.world.launch(process)
        elif how == "lost":
            self.world.end(process, lost=True, twice=twice)
        elif process.main_started:
            self.agent_ends(process, how, twice)
        elif how == "crashed":
            self.world.end(process, outcome="step_failed", step="copy", code=128, twice=twice)
        else:
            self.world.begin(process)

    def agent_ends(self, process: Process, how: str, twice: bool) -> None:
        world = self.world
        if how in ("killed", "hung", "stopped"):
            kind = {"killed": "exited", "hung": "silence"}.get(how, how)
            world.end(process, outcome=kind, code=None, signal=9 if how == "killed" else None, twice=twice)
            return
        until = int(self.clock().timestamp()) + 90 if how == "rate_limited" else None
        world.says(process, how, until)
        world.end(process, code=1 if how == "crashed" else 0, twice=twice)

    def work_is_taken_in(self, process: Process, how: str) -> None:
        if how != "same":
            self.world.play(process, "good" if how == "changed" else how)
        elif process.state == ProcessState.RUNNING or self.world.launch(process):
            self.world.log(process, (STDOUT, self.world.intake(process, changed=False)))
            self.world.end(process)

    @move(2, do=st.sampled_from(["silent", "lost", "heard of", "heard of"]))
    def the_host_is(self, do: str) -> None:
        """Silent: its sessions keep their places. Given up: they end, and what they still do is stale. Heard of: it takes work again."""
        with self.refusing():
            if do == "silent":
                hosts.suspect(Host.objects.get(name=conf.host()))
            elif do == "lost":
                hosts.give_up(conf.host(), actor=factories.ALICE)
            else:
                hosts.beat()

    @move(1, pick=PICK)
    def copy_is_removed_by_hand(self, pick: int) -> None:
        process = self.world.process(pick, "agent")
        if process is not None and conf.copy_path(process.key).exists():
            conf.copy_path(process.key).rmdir()

    @move(2)
    def everything_ends_well(self) -> None:
        for pk in list(Process.objects.live().order_by("pk").values_list("pk", flat=True)):
            process = Process.objects.live().select_related("project", "story").filter(pk=pk).first()
            if process is not None:  # the end of another one may have ended it
                self.ends_well(process)

    def ends_well(self, process: Process) -> None:
        world = self.world
        if process.kind != "agent":
            world.play(process)
            return
        if process.state == ProcessState.PREPARED and not world.launch(process):
            return
        if not process.main_started:
            world.begin(process)
        asked = Session.objects.filter(process=process).exclude(stop_requested_at=None).exists()
        world.says(process, "done")
        world.end(process, **({"outcome": "stopped", "code": None} if asked else {}))

    # -- the server ----------------------------------------------------------------------------------------------------------

    @move(4)
    def assigns(self) -> None:
        before = set(Session.objects.values_list("pk", flat=True))
        hindered = set(
            Story.objects.exclude(
                frozen=False, held_for="", deleting="", stage__in=[Stage.CODING, Stage.QA]
            ).values_list("pk", flat=True)
        )
        promotable = set(
            Story.objects.filter(stage=Stage.BACKLOG, frozen=False, held_for="").values_list("pk", flat=True)
        )
        with TestCase.captureOnCommitCallbacks(execute=True):
            assigning.auto_assign()
        for new in Session.objects.exclude(pk__in=before):
            assert new.story_id not in hindered - promotable, f"{new}: nobody asked for it"
        said_why()

    @move(2)
    def sweeps(self) -> None:
        self.world.sweeps()

    @move(2, pick=PICK)
    def queue_delivers_an_old_task(self, pick: int) -> None:
        """Late, twice, or after all is over: a task begins by looking."""
        pks = list(Process.objects.order_by("pk").values_list("pk", flat=True))
        if pks:
            process = Process.objects.get(pk=pks[pick % len(pks)])
            if process.state != ProcessState.PREPARED:
                processes.launch(process.pk)
            with TestCase.captureOnCommitCallbacks(execute=True):
                processes.handle_end(process.pk)
        for pk in Session.objects.values_list("pk", flat=True):
            session_services.carry_out_stop(pk)

    @move(3, seconds=st.sampled_from([1, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock.forward(seconds)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(WEIGHTED))
        arguments = data.draw(st.fixed_dictionaries(MENU[name]))
        note(f"{name} {arguments}")
        self.broken = True  # until it went well
        getattr(self, name)(**arguments)
        self.broken = False

    @invariant()
    def nothing_lies(self) -> None:
        if self.writes != self.looked_at:  # what did nothing broke nothing
            self.broken = True
            self.witness.look()
            self.broken = False
            self.looked_at = self.writes

    # -- and in the end --------------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """With every hindrance taken away and every child ending well, no story is left that waits for something that never comes."""
        Capacity.objects.update(draining=False)
        Limit.objects.all().delete()
        Budget.objects.all().delete()
        RuntimeCheck.objects.all().delete()
        Credential.objects.update(paused_for="", paused_until=None)
        factories.capacity(10)
        self.world.project.agents.update(paused_for="", paused_by="")
        Story.objects.update(needs_approval="")
        hosts.beat()
        for _ in range(60):
            self.everything_ends_well()
            self.world.sweeps()
            self.clock.forward(600)
            if not self.restless() and not Process.objects.live().exists():
                break
        self.witness.look(quick=False)
        said_why()
        stuck = [f"{s.label} in {s.stage}: {s.waiting_for or 'no reason'}" for s in self.restless()]
        assert not stuck, stuck
        assert not Session.objects.live().exclude(role=Role.OTHER).exists() and not strays()

    def restless(self) -> list[Story]:
        """Those that the server should be able to bring on by itself."""
        rows = Story.objects.filter(frozen=False, held_for="", stage__in=[Stage.CODING, Stage.MERGE])
        waiting = [story for story in rows.select_related("project") if not unmet(story)]
        return waiting + list(Story.objects.exclude(deleting=""))


def unmet(story: Story) -> bool:
    return bool(dependencies.unmet([story.pk]).get(story.pk))
