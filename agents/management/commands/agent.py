"""`./huskies agent list|start|stop|wait|output|assign|pause|resume`. An agent is NAME or PROJECT/NAME, a story N or PROJECT/N."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from agents import shapes
from agents.commands import Shapes, WatchingCommand
from agents.models import Agent, Session
from agents.services import pool, roster
from agents.services.subjects import find_agent
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import find_project
from pipeline.exceptions import NotFound
from pipeline.services.stories import find_story


class Command(WatchingCommand):
    help = "The agents that the project files name: what each does, and what one can do with each."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list, "every agent, with its state and story")
        listed.add_argument("--project")
        listed.add_argument(
            "--all", action="store_true", help="those that are no longer in a project file too"
        )
        start = self.on_agent("start", self.start, "give it a story now; a coder's waits if it is busy")
        start.add_argument("story", help="N or PROJECT/N")
        stop = self.on_agent("stop", self.stop, "end what it runs; the work is kept and the story held")
        stop.add_argument("--why", default="", help="the reason, which others will read")
        self.with_timeout(self.on_agent("wait", self.wait, "block until its session ends; says how it went"))
        self.with_output(self.on_agent("output", self.output, "what it said in its session, or its last one"))
        assign = self.on_agent("assign", self.assign, "the story is this coder's: another one on it stops")
        assign.add_argument("story", help="N or PROJECT/N")
        pause = self.on_agent("pause", self.pause, "it takes nothing new until it is resumed")
        pause.add_argument("--why", default="", help="the reason, which others will read")
        self.on_agent("resume", self.resume, "it takes stories again")

    def on_agent(self, name: str, run: Any, help: str) -> ArgumentParser:
        parser = self.verb(name, run, help)
        parser.add_argument("agent", help="NAME or PROJECT/NAME")
        return parser

    def list(self, options: dict[str, Any]) -> Shapes:
        rows = Agent.objects.select_related("project").order_by("project__name", "position")
        if options["project"]:
            rows = rows.filter(project=find_project(options["project"]))
        if not options["all"]:
            rows = rows.filter(configured=True)
        found = shapes.agents(rows)
        self.table(
            ["AGENT", "PROJECT", "ROLE", "RUNTIME", "MODEL", "STATE", "STORY", "WHY"],
            [
                [
                    a["name"],
                    a["project"],
                    a["role"],
                    a["runtime"],
                    a["model"],
                    a["state"],
                    a["story"],
                    a["why"] or "",
                ]
                for a in found
            ],
            "There are no agents. They come with a project: `project add PATH_OR_URL`.",
        )
        return found

    def start(self, options: dict[str, Any]) -> dict[str, Any]:
        agent = find_agent(options["agent"])
        story = find_story(options["story"], project=agent.project)
        return self.begun(
            agent, pool.start_story(story, actor=OPERATOR_ON_HOST, agent_name=agent.name), story.label
        )

    def assign(self, options: dict[str, Any]) -> dict[str, Any]:
        agent = find_agent(options["agent"])
        story = find_story(options["story"], project=agent.project)
        return self.begun(agent, roster.assign(story, agent.name, actor=OPERATOR_ON_HOST), story.label)

    def begun(self, agent: Agent, started: pool.Started, story: str) -> dict[str, Any]:
        if started.session is not None:
            self.say(f"{story} is worked on by {agent.name}, session {started.session.pk}.")
        else:
            self.say(f"queued: {started.queued}")
        if not pool.server_is_running():
            self.stderr.write("The server is not running, so it waits until it is: ./huskies up.")
        return {**self.shape(agent), "queued": started.queued or None}

    def stop(self, options: dict[str, Any]) -> dict[str, Any]:
        agent = find_agent(options["agent"])
        session = roster.stop_agent(agent, actor=OPERATOR_ON_HOST, why=options["why"])
        self.say(f"{agent.name} is being stopped (session {session.pk}); its work is kept.")
        return self.shape(agent)

    def wait(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.wait_for(self.session(find_agent(options["agent"])), options)

    def output(self, options: dict[str, Any]) -> Shapes | None:
        return self.show_output(self.session(find_agent(options["agent"])), options)

    def pause(self, options: dict[str, Any]) -> dict[str, Any]:
        agent = roster.pause_agent(find_agent(options["agent"]), actor=OPERATOR_ON_HOST, why=options["why"])
        self.say(f"{agent.name} is paused: it takes nothing new. What it runs goes on.")
        return self.shape(agent)

    def resume(self, options: dict[str, Any]) -> dict[str, Any]:
        agent = roster.resume_agent(find_agent(options["agent"]), actor=OPERATOR_ON_HOST)
        self.say(f"{agent.name} takes stories again.")
        return self.shape(agent)

    def session(self, agent: Agent) -> Session:
        """Its live session, else its last one."""
        rows = Session.objects.filter(agent=agent).select_related("story__project", "agent")
        session = roster.running(agent) or rows.order_by("-id").first()
        if session is None:
            raise NotFound(f"Agent {roster.label(agent)} has not worked yet, so there is no session of it.")
        return session

    def shape(self, agent: Agent) -> dict[str, Any]:
        return shapes.agents(Agent.objects.filter(pk=agent.pk))[0]
