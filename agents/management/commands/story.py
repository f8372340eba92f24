"""`./huskies story VERB`: everything one can do with a story. It stands in this app because starting needs an agent."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from agents.commands import Shapes, WatchingCommand
from agents.services import pool
from pipeline import shapes
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import find_project, the_project
from pipeline.exceptions import BadInput
from pipeline.models import Story
from pipeline.models.story import Kind, QaMode
from pipeline.services import deleting, dependencies, stories
from pipeline.stages import Stage

PERFORMED = {
    "block": "nothing happens to it until someone unblocks it (needs a reason)",
    "unblock": "back to where it was, with all retries",
    "freeze": "keep it where it is, whatever happens",
    "unfreeze": "let it move again",
    "hold": "nothing starts by itself until someone starts it",
    "approve": "land it on the base branch",
    "approve-files": "accept its changes to the project file or the gate's script",
    "reject": "back to the coder with notes (needs a reason)",
    "send-back": "back to the coder with the reason",
    "retry-merge": "try to land it again",
    "park": "back to the backlog; its work is kept",
    "archive": "out of the flow; its work and history are kept",
    "restore": "from the archive back to the backlog",
    "reopen": "more work on a story that is done (needs a reason)",
}
NOT_RUNNING = "The server is not running, so it waits until it is: ./huskies up."


class Command(WatchingCommand):
    help = "Create, list, show, edit, start, stop, move and delete stories."

    def add_verbs(self) -> None:
        create = self.verb("create", self.create, "write a new story into the backlog")
        create.add_argument("title", nargs="?", default="")
        create.add_argument("--title", dest="named_title", default="", help="the same")
        create.add_argument("--project", help="its project; may be left out when there is only one")
        self.with_fields(create)
        edit = self.on_story(
            "edit", self.edit, "change what is given; a running session keeps what it began with"
        )
        edit.add_argument("--title")
        self.with_fields(edit)
        listed = self.verb("list", self.list, "the stories, without the archived ones")
        listed.add_argument("--project")
        listed.add_argument("--stage", choices=Stage.values)
        listed.add_argument("--all", action="store_true", help="the archived ones too")
        self.on_story("show", self.show, "one story, with its criteria and history")
        start = self.on_story("start", self.start, "give it to an agent now, or as soon as one is free")
        start.add_argument("--agent", help="the agent that should work on it")
        self.with_reason(self.on_story("stop", self.stop, "stop what runs on it, and hold it"))
        move = self.on_story("move", self.move, "walk the arrow that leads to a stage")
        move.add_argument("stage", choices=Stage.values)
        move.add_argument("--why", default="", help="the reason, which others will read")
        for name, help in PERFORMED.items():
            self.with_reason(self.on_story(name, self.perform, help))
        self.with_timeout(self.on_story("wait", self.wait, "block until nothing of it goes on by itself"))
        depends = self.on_story("depends", self.depends, "which stories must be done before it starts")
        depends.add_argument("on", help="their numbers, such as 3,4; none = it depends on nothing")
        priority = self.on_story("priority", self.priority, "higher goes first")
        priority.add_argument("priority", type=int)
        delete = self.on_story("delete", self.delete, "take it away for ever, with its work and history")
        delete.add_argument("--yes", action="store_true", help="you mean it")

    def with_fields(self, parser: ArgumentParser) -> None:
        """What a story is made of; what is not given stays as it is."""
        parser.add_argument("--kind", choices=Kind.values)
        parser.add_argument("--description", help="text, or - to read it from standard input")
        parser.add_argument(
            "--criterion", action="append", help="an acceptance criterion; may be given several times"
        )
        parser.add_argument("--agent", help="the agent that should work on it")
        parser.add_argument(
            "--any-agent-after", metavar="MINUTES", help="then any agent may take it all the same; or never"
        )
        parser.add_argument("--qa", choices=[mode for mode in QaMode.values if mode])
        parser.add_argument("--depends", metavar="3,4", help="the stories that must be done before it starts")
        parser.add_argument("--priority", type=int, help="higher goes first; 0 is usual")

    def on_story(self, name: str, run: Any, help: str) -> ArgumentParser:
        parser = self.verb(name, run, help)
        parser.add_argument("story", help="N or PROJECT/N")
        return parser

    def with_reason(self, parser: ArgumentParser) -> None:
        parser.add_argument("reason", nargs="?", default="", help="the reason, which others will read")
        parser.add_argument("--why", default="", help="the same")

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.create_story(
            the_project(options["project"]),
            title=options["named_title"] or options["title"],
            actor=OPERATOR_ON_HOST,
            **fields(options),
        )
        self.say(f"{story.label} is in the backlog: {story.title}")
        return shapes.story(story)

    def edit(self, options: dict[str, Any]) -> dict[str, Any]:
        values = fields(options) | ({"title": options["title"]} if options["title"] is not None else {})
        if not values:
            raise BadInput("Say what to change: --title, --description, --criterion, --agent, --priority ...")
        story = stories.edit_story(stories.find_story(options["story"]), actor=OPERATOR_ON_HOST, **values)
        self.say(f"{story.label} is changed: {', '.join(values)}.")
        return self.fresh(story)

    def list(self, options: dict[str, Any]) -> Shapes:
        rows = Story.objects.select_related("project").order_by("project__name", "number")
        if options["project"]:
            rows = rows.filter(project=find_project(options["project"]))
        if options["stage"]:
            rows = rows.filter(stage=options["stage"])
        elif not options["all"]:
            rows = rows.exclude(stage=Stage.ARCHIVED)
        found = shapes.stories(list(rows))
        self.table(
            ["STORY", "STAGE", "AGENT", "TITLE", "WAITS FOR"],
            [
                [
                    f"{s['project']}/{s['number']}",
                    s["stage"],
                    s["agent"],
                    s["title"][:60],
                    s["waiting_for"] or "",
                ]
                for s in found
            ],
            "There are no stories. Write one with `story create TITLE`.",
        )
        return found

    def show(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.find_story(options["story"])
        shape = shapes.story(story)
        self.say(f"{story.label} {story.title}")
        self.say(
            f"  {story.get_kind_display()}, in {story.get_stage_display()}"
            + (", frozen" if story.frozen else "")
        )
        for name in ("waiting_for", "agent", "session", "commit", "cost_usd"):
            if shape[name] is not None:
                self.say(f"  {name.replace('_', ' ')}: {shape[name]}")
        if story.description:
            self.say(f"\n{story.description}\n")
        for criterion in story.criteria.all():
            self.say(f"  [{'x' if criterion.done else ' '}] {criterion.text}")
        if story.plan:
            self.say(f"\nThe agent's plan:\n\n{story.plan}\n")
        for change in story.changes.all():
            way = f" {change.from_stage} -> {change.to_stage}" if change.from_stage != change.to_stage else ""
            self.say(
                f"  {change.at:%Y-%m-%d %H:%M:%S}  {change.verb}{way} by {change.actor}"
                + (f": {change.why}" if change.why else "")
            )
        return shape | {"plan": story.plan}

    def start(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.find_story(options["story"])
        started = pool.start_story(story, actor=OPERATOR_ON_HOST, agent_name=options["agent"])
        shape = self.fresh(story)
        if started.session is not None:
            self.say(
                f"{story.label} is worked on by {started.session.agent.name}, session {started.session.pk}."
            )
        else:
            self.say(f"queued: {started.queued}")
        if not pool.server_is_running():
            # To stderr: it is no part of the answer, and the exit code stays 0 because the start is kept.
            self.stderr.write(NOT_RUNNING)
        return {**shape, "queued": started.queued or None}

    def stop(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.find_story(options["story"])
        pool.stop_story(story, actor=OPERATOR_ON_HOST, why=options["reason"] or options["why"])
        self.say(f"{story.label} is being stopped, and held until someone starts it.")
        return self.fresh(story)

    def move(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.find_story(options["story"])
        if story.stage == Stage.BACKLOG and options["stage"] == Stage.CODING:
            return self.start({**options, "agent": None})  # that arrow needs an agent
        story = stories.move_to(story, options["stage"], actor=OPERATOR_ON_HOST, why=options["why"])
        return self.said(story)

    def perform(self, options: dict[str, Any]) -> dict[str, Any]:
        name = options["verb"].replace("-", "_")
        story = stories.find_story(options["story"])
        return self.said(
            stories.perform(story, name, actor=OPERATOR_ON_HOST, why=options["reason"] or options["why"])
        )

    def wait(self, options: dict[str, Any]) -> dict[str, Any]:
        return self.wait_for(stories.find_story(options["story"]), options)

    def depends(self, options: dict[str, Any]) -> dict[str, Any]:
        story, numbers = stories.find_story(options["story"]), numbers_of(options["on"])
        dependencies.set_dependencies(story, numbers, actor=OPERATOR_ON_HOST)
        on = ", ".join(f"#{number}" for number in numbers)
        self.say(f"{story.label} depends on {on or 'nothing'}.")
        return self.fresh(story)

    def priority(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.edit_story(
            stories.find_story(options["story"]), actor=OPERATOR_ON_HOST, priority=options["priority"]
        )
        self.say(f"{story.label} has priority {options['priority']}.")
        return self.fresh(story)

    def delete(self, options: dict[str, Any]) -> dict[str, Any]:
        story = stories.find_story(options["story"])
        if not options["yes"]:
            raise BadInput(
                f"Story {story.label} would go for ever, with its history, its sessions' output and every commit that has not landed. "
                "Say --yes if you mean it; `story archive` keeps everything."
            )
        label = story.label
        gone = deleting.delete_story(story, actor=OPERATOR_ON_HOST)
        self.say(
            f"{label} is deleted." if gone else f"{label} is being deleted: it goes once nothing of it runs."
        )
        return {"story": label, "deleted": gone}

    def said(self, story: Story) -> dict[str, Any]:
        shape = self.fresh(story)
        waits = f"; {shape['waiting_for']}" if shape["waiting_for"] else ""
        self.say(f"{story.label} is in {shape['stage']}{', frozen' if shape['frozen'] else ''}{waits}.")
        return shape

    def fresh(self, story: Story) -> dict[str, Any]:
        return shapes.story(Story.objects.select_related("project").get(pk=story.pk))


def fields(options: dict[str, Any]) -> dict[str, Any]:
    """The given ones of a story's fields, as the services call them."""
    description = sys.stdin.read() if options["description"] == "-" else options["description"]
    values = {
        "kind": options["kind"],
        "description": description,
        "criteria": options["criterion"],
        "preferred_agent": options["agent"],
        "qa": options["qa"],
        "depends_on": numbers_of(options["depends"]) if options["depends"] is not None else None,
        "priority": options["priority"],
    }
    given = {name: value for name, value in values.items() if value is not None}
    minutes = options["any_agent_after"]
    if minutes is not None:
        if minutes != "never" and not minutes.isdecimal():
            raise BadInput(f"{minutes!r} is no number of minutes; write one, such as 30, or never.")
        given["any_agent_after"] = None if minutes == "never" else int(minutes[:9])
    return given


def numbers_of(text: str) -> list[int]:
    """`3,4` or `#3 #4` as numbers; `none` or nothing = no number. Raises BadInput."""
    words = [word.lstrip("#") for word in text.replace(",", " ").split() if word != "none"]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise BadInput(f"{text!r} names no stories; write their numbers, such as 3,4, or none.")
    return [int(word) for word in words]
