"""The runner's order for a session: its copy, its components' setup, then the agent, confined; beside them its sidecar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from django.utils import timezone

from agents import conf as agents_conf
from agents import guarded as agents_guarded
from agents.models import Session
from agents.permissionfile import Permissions
from agents.runtimes import get_runtime
from agents.runtimes.base import Command, Decision, GitIdentity, Launch, LaunchRefused
from agents.services import (
    allowances,
    conversations,
    permissions,
    plans,
    prompting,
    reaching,
    saving,
    spending,
    telling,
)
from pipeline import conf
from pipeline.git.control import pin_base
from pipeline.git.reading import changed_files, merge_base, paths_changed
from pipeline.processes import confine, copies
from pipeline.projectfile import ProjectFile, guarded
from pipeline.services import projects


def agent_spec(session: Session) -> dict[str, Any]:
    """Raises LaunchRefused when the session cannot be launched as its agent is configured."""
    project = session.project
    own = conf.session_path(session.key)
    file, policy = projects.active_file(project), permissions.policy_of(project, session.entry)
    way = reaching.way_of(session, own)
    command, carried = _command(session, way, file, policy)
    pin_base(conf.control_path(project.key), session.key, session.base)
    entry, room = session.entry, agents_conf.WAIT_ROOM_SECONDS if policy.asks else 0.0
    limits = {
        **confine.limits_of(session.sandbox),
        "log_bytes": min(file.output_limit, agents_conf.AGENT_LOG_BYTES),
        "on_cap": "stop",
        "grace": agents_conf.STOP_GRACE_SECONDS,
        # The inactivity that the entry allows is the watchdog's, which knows of running tools; this holds without a server too.
        "silence": max(float(entry.get("inactivity_timeout") or 300.0), agents_conf.TOOL_SILENCE_SECONDS),
        # While it waits for people its time does not run; the watchdog counts that.
        "wall": float(entry.get("max_session_time") or agents_conf.SESSION_WALL_SECONDS) + room,
    }
    return {
        "version": 1,
        "key": session.key,
        "marker": {"HUSKIES_SESSION": session.key},
        "helpers": way.helpers,
        "steps": _steps(session, way, command, carried, file),
        "limits": limits,
    }


def _command(
    session: Session, way: reaching.Way, file: ProjectFile, policy: Permissions
) -> tuple[Command, list[Any]]:
    """What the agent's runtime wants to run, and the file operations that bring its conversation; the session learns its prompt."""
    project, story = session.project, session.story
    runtime = get_runtime(session.runtime)
    copy, own = conf.copy_path(session.key), conf.session_path(session.key)
    launch = Launch(
        session_key=session.key,
        copy=copy,
        home=own / "home",
        tmp=own / "tmp",
        config=own / "config",
        prompt="",
        resume=session.resumed,
        conversation=session.conversation,
        model=session.model or None,
        agent_config=allowances.for_program(
            prompting.filled_entry(session, copy), spending.left(session, timezone.now())
        )
        | {"permissions": policy.mode},
        # A runtime asks one thing: whether what it starts may run what it likes.
        level="bubblewrap" if confine.is_confined(session.sandbox) else "none",
        credential=way.credential,
        story_number=story.number,
        base_branch=project.base_branch,
        story_text=story.description,
        git_identity=GitIdentity(f"huskies {session.agent.name}", f"{session.agent.name}@huskies.invalid"),
    )
    if policy.asks and runtime.answer({"id": "?"}, Decision(allow=False)) is None:
        raise LaunchRefused(
            f"`permissions` wants {session.agent.name} to ask before it acts, and {session.runtime} cannot ask. "
            "Give the agent another runtime, or `permissions: free` in its entry."
        )
    resume = conversations.to_resume(story, session.agent, session=session)
    previous, note, carried = resume.session, resume.why, []
    if previous is not None:
        carried = runtime.carry(conf.session_path(previous.key) / "config", launch)
        if not carried:  # then it begins anew in this very session
            note = f"cold: the conversation of session {previous.pk} is not on this host"
            previous = None
    said = [telling.spoken(message) for message in telling.for_prompt(session)]
    prompt = prompting.prompt_for(session, previous=previous, copy=copy, file=file, said=said)
    warm = previous is not None
    Session.objects.filter(pk=session.pk).update(prompt=prompt, resumed=warm, resume_note=note)
    return runtime.command(replace(launch, prompt=prompt, resume=warm)), carried


def _steps(
    session: Session, way: reaching.Way, command: Command, carried: list[Any], file: ProjectFile
) -> list[dict[str, Any]]:
    project, story = session.project, session.story
    control, copy, own = (
        conf.control_path(project.key),
        conf.copy_path(session.key),
        conf.session_path(session.key),
    )
    folders = [own / "home", own / "tmp", own / "config"]
    place: dict[str, Any] = {
        "level": session.sandbox,
        "hidden": conf.hidden(),
        "network": way.network.is_on,
        "way_out": way.folder,
        "cwd": copy,
        "writable": [copy, *folders, *command.writable],
        "readable": [control / "objects", *command.readable],
    }
    steps: list[dict[str, Any]] = [
        {
            "name": "folders",
            "files": [
                ["mkdir", str(copy.parent)],
                ["mkdir", str(own)],
                *([["mkdir", str(f)] for f in folders]),
                *carried,
                *command.files,
            ],
        },
        *copies.copy_steps(
            control,
            copy,
            branch=story.branch,
            commit=session.base,
            object_format=project.object_format,
            resume_from=session.began_at_commit or None,
            base_branch=project.base_branch,
            base_tip=project.tip or None,
            plan=plans.brought(session),
        ),
    ]
    unapproved = _unapproved(session, control)
    steps += copies.hold_back_steps(copy, unapproved)
    helped = {"helped": True} if way.helpers else {}
    protected: list[Path] = []
    if confine.is_confined(session.sandbox):  # without confinement nothing of the repository is run
        environment = way.environment(confine.allowed_environment(own / "home", own / "tmp", {}))
        for step in projects.setup_steps(file, copy=copy, environment=environment, place=place):
            steps.append(step | helped)
        # What the setup made is there by now, and kept as it is.
        open_ones = {copy / path for path in (*unapproved, *_moving(session, control))}
        protected = [
            one
            for one in agents_guarded.places(copy)
            if not any(other == one or one in other.parents for other in open_ones)
        ]
        steps.append(
            {"name": "guard", "files": [["reserve", str(one)] for one in agents_guarded.reserved(protected)]}
        )
    steps.append(
        {
            "name": "agent",
            "main": True,
            "optional": True,  # its work is saved however it ended
            "argv": confine.confined(command.argv, **place, guarded=protected),
            "cwd": str(conf.home() if confine.is_confined(session.sandbox) else copy),
            "env": way.environment(command.env),
            "stdin": command.stdin,
            "keep_stdin": command.keep_stdin,
            "interrupt": command.interrupt,
            "turn_begins": dict(command.turn_begins),
            "turn_ends": dict(command.turn_ends),
            **helped,
        }
    )
    return [*steps, saving.last_step(session)]


def _unapproved(session: Session, control: Path) -> list[str]:
    """What the commit that the copy begins with changed of the paths that agent programs obey, unless an admin approved that very commit."""
    start, story = session.began_at_commit, session.story
    if not start or start == session.base or start == story.files_approved:
        return []
    base = merge_base(control, session.project.tip or session.base, start) or session.base
    # What it deleted is not there to be obeyed.
    return guarded(one.path for one in changed_files(control, base, start) if one.status != "D")


def _moving(session: Session, control: Path) -> list[str]:
    """Such paths that the base branch changed since: an agent that merges the base in must be able to write them."""
    tip = session.project.tip
    return guarded(paths_changed(control, session.base, tip)) if tip and tip != session.base else []
