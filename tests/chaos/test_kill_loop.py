"""A real `up` with several agents at work, and members of it killed at instants that a seed draws."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline.processes.identity import Identity
from tests import databases, factories
from tests.chaos.conftest import Driver
from tests.chaos.stack import AGENT_PARTS, SERVER_PARTS, Stack
from tests.e2e.shop import CHECK, Step, project_file, script, wait_for, write
from tests.factories import git

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("kill loop")]

STORIES = 3
AGENTS = 3


class Loop:
    """Stories whose agents say numbered lines, each after a word from the test: so that rounds of kills find them at work."""

    def __init__(self, driver: Driver, folder: Path, rounds: int, database: str) -> None:
        """`database`: its URL, "" for SQLite."""
        self.driver, self.rounds, self.database = driver, rounds, database
        self.home, self.repo = folder / "data", folder / "shop"
        factories.repository(self.repo, {".huskies/project.yaml": project_file(AGENTS), "check.sh": CHECK})
        descriptions = [script(self.turn(number)) for number in range(1, STORIES + 1)]
        self.ask("prepare", descriptions=descriptions)
        self.stack = Stack(self.home, database)

    def turn(self, number: int) -> list[Step]:
        steps: list[Step] = []
        for round_ in range(self.rounds):
            steps += [wait_for(f".git/go{round_}"), *({"say": line} for line in self.lines(number, round_))]
        return [*steps, write(f"{number}.txt")]

    def lines(self, number: int, round_: int) -> list[str]:
        return [f"story {number} round {round_} line {line}" for line in range(20)]

    def all_lines(self, number: int) -> list[str]:
        return [line for round_ in range(self.rounds) for line in self.lines(number, round_)]

    def ask(self, plan: str, **more: Any) -> dict[str, Any]:
        name = urlsplit(self.database).path.removeprefix("/")
        status, said = self.driver.job(plan, self.home, self.repo, database=name, **more)
        assert status == 0
        return said

    def release(self, upto: int) -> None:
        """Let every agent that has a copy go on to the end of this round."""
        for copy in (self.home / "copies").iterdir():
            with suppress(FileNotFoundError):  # not made yet, or deleted in this moment
                for round_ in range(upto + 1):
                    (copy / ".git" / f"go{round_}").touch()

    def run(self, victims: list[str], chance: random.Random) -> None:
        self.stack.start()
        self.ask("start")
        self.stack.until(lambda: len(self.stack.runners()) == AGENTS, "all agents at work", seconds=40)
        for round_, victim in enumerate(victims):
            before, wanted = self.stack.logged(), chance.randrange(1, 4000)
            print(f"round {round_}: {victim} is killed {wanted} bytes on")
            self.release(round_)
            # Nothing more may come: then the instant is the end of the round's words.
            reached = partial(self.reached, before + wanted, round_)
            self.stack.until(reached, f"the instant of round {round_}", seconds=30)
            alive = self.at_work()
            self.stack.kill(victim, chance)
            if set(victims) <= set(SERVER_PARTS) and round_ + 1 < self.rounds:
                assert self.at_work() >= alive, f"the death of {victim} took an agent with it"
            self.stack.mend()
        self.finish()

    def at_work(self) -> set[Identity]:
        return {*self.stack.runners(), *self.stack.agents()}

    def reached(self, size: int, round_: int) -> bool:
        """The logs are so long, or every agent waits for the next round."""
        self.release(round_)
        if self.stack.logged() >= size:
            return True
        last = f"round {round_} line 19".encode()
        logs = [self.home / "runs" / copy.name / "log" for copy in (self.home / "copies").iterdir()]
        return all(last in log.read_bytes() for log in logs if log.exists())

    def finish(self) -> None:
        def over() -> bool:
            self.release(self.rounds - 1)
            return set(self.stack.stages()) <= {"done", "blocked"}

        self.stack.until(over, "all stories done or blocked", seconds=90)
        self.stack.until(lambda: not any((self.home / "copies").iterdir()), "all copies deleted", seconds=30)
        self.stack.stop()

    def seen(self) -> dict[str, Any]:
        """What is left behind: nothing that lies, no process, no held slot."""
        seen = self.ask("look", doctor=True)
        print([(s["story"], s["outcome"], len(s["said"])) for s in seen["sessions"]])
        assert (seen["lies"], seen["strays"]) == ([], []), seen
        assert [s for s in seen["sessions"] if s["state"] != "ended"] == []
        for session in seen["sessions"]:
            assert session["said"] == session["logged"], "no line of a runner's log is lost or doubled"
        landed = git("log", "--format=%s", "main", cwd=self.repo).splitlines()
        done = [story["number"] for story in seen["stories"] if story["stage"] == "done"]
        assert sorted(landed) == sorted(["first", *(f"Add a button (#{number})" for number in done)])
        return seen


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def loop(driver: Driver, tmp_path: Path) -> Iterator[Callable[[int], Loop]]:
    """Makes a loop of so many rounds, with a data folder and a database of its own."""
    with ExitStack() as ends:

        def make(rounds: int) -> Loop:
            database = ends.enter_context(databases.own_database())
            made = Loop(driver, tmp_path / secrets.token_hex(4), rounds, database)
            ends.callback(made.stack.stop)
            return made

        yield make


def draw(parts: tuple[str, ...], rounds: int, chance: random.Random) -> list[str]:
    """Each of them as often as the others, in any order."""
    drawn = (list(parts) * (rounds // len(parts) + 1))[:rounds]
    chance.shuffle(drawn)
    return drawn


def test_the_death_of_server_parts_costs_no_agent_anything(
    loop: Callable[[int], Loop], seed: int, long: bool
) -> None:
    chance = random.Random(seed)
    victims = draw(SERVER_PARTS, 60 if long else 6, chance)
    one = loop(len(victims))
    one.run(victims, chance)
    seen = one.seen()
    assert [(s["stage"], s["retries"], s["crashes"]) for s in seen["stories"]] == [("done", 0, 0)] * STORIES
    # One session each, from its first line to its last: the same agent process went on through all of it.
    assert [(s["story"], s["outcome"]) for s in seen["sessions"]] == [
        (n, "done") for n in range(1, STORIES + 1)
    ]
    for session in seen["sessions"]:
        assert session["said"] == one.all_lines(session["story"])


def test_the_death_of_agents_and_runners_is_followed_by_another_session(
    loop: Callable[[int], Loop], seed: int, long: bool
) -> None:
    chance = random.Random(seed)
    # Short loops: in a long one the crash cap would soon have blocked every story.
    for _ in range(8 if long else 1):
        victims = draw((*AGENT_PARTS, "all of the server", "supervisor"), 5, chance)
        one = loop(len(victims))
        one.run(victims, chance)
        examine(one)


def examine(loop: Loop) -> None:
    seen = loop.seen()
    for story in seen["stories"]:
        ended = [s for s in seen["sessions"] if s["story"] == story["number"]]
        assert story["retries"] == 0
        if story["stage"] == "done":
            assert ended[-1]["outcome"] == "done" and ended[-1]["said"] == loop.all_lines(story["number"])
        else:
            assert "sessions ended before their work was done" in story["reason"]
        assert {s["outcome"] for s in ended} <= {"done", "crashed", "lost", "not_started"}
        for session in ended:
            assert session["said"] == loop.all_lines(story["number"])[: len(session["said"])]
