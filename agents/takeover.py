"""How a person goes on by hand with what an agent began: where its work lies, and the command that takes up its conversation."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from agents.models import Session
from pipeline import conf

BY_HAND: dict[str, tuple[str, tuple[str, ...]]] = {
    "claude-code": ("CLAUDE_CONFIG_DIR", ("claude", "--resume", "{conversation}")),
    "codex": ("CODEX_HOME", ("codex", "resume", "--last")),
    "gemini-cli": ("GEMINI_CLI_HOME", ("gemini", "--resume", "{conversation}")),
    "qwen-code": ("QWEN_HOME", ("qwen", "--resume", "{conversation}")),
}
"""Runtime -> the variable that names where its conversations lie, and its command. Others have none that a person could take up."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """`path`: the working copy while there is one. `commands`: lines for a shell on `host`, each word quoted; `note`: what to do first."""

    host: str
    branch: str
    path: Path | None
    commands: list[str] = field(default_factory=list)
    note: str = ""


def of(session: Session) -> TakeOver:
    story, project = session.story, session.project
    copy, config = conf.copy_path(session.key), conf.session_path(session.key) / "config"
    here = session.host == conf.host()
    live = session.state != "ended"
    path = copy if live and (copy.exists() or not here) else None
    commands = []
    if path is not None:
        commands.append(shlex.join(["cd", str(path)]))
    elif session.saved:
        control = str(conf.control_path(project.key))
        commands.append(shlex.join(["git", "fetch", control, f"refs/huskies/sessions/{session.key}"]))
        commands.append(shlex.join(["git", "switch", "-c", story.branch, "FETCH_HEAD"]))
    if (known := BY_HAND.get(session.runtime)) is not None and (
        path is not None or config.exists() or not here
    ):
        variable, words = known
        command = [word.format(conversation=session.conversation) for word in words]
        commands.append(f"{variable}={shlex.quote(str(config))} {shlex.join(command)}")
    return TakeOver(session.host, story.branch, path, commands, _note(session, path))


def _note(session: Session, path: Path | None) -> str:
    if path is not None:
        return (
            "The agent still works there: hold the story first, or two write into one copy. What you commit there is taken in when "
            "its session ends."
        )
    if session.saved:
        return "Its working copy is put away. In a checkout of the project these lines bring its work and its conversation back."
    return "It left no work behind."
