"""What the programs for any model behind OpenAI's Chat Completions share: they take a key alone, and are followed."""

from __future__ import annotations

import sys
from pathlib import Path

from .base import Found, Launch, LaunchRefused, ProgramMissing, Trial
from .programs import OneTurn, find_command, key_of, look, model_of, needs_bubblewrap, own_login

FOLLOWER = Path(__file__).with_name("followed.py")
PATIENCE = 120.0
"""Seconds that it may wait for a provider that refuses: a story waits better, without holding an agent."""
ADD_KEY = "Add a credential: ./huskies credential add NAME."


class OpenModels(OneTurn):
    """`word` names the program on the PATH and in `followed`, `variable` in the environment; `title` is for people."""

    keys: tuple[str, ...] = ()
    trial = Trial("/v1")
    title: str
    word: str
    variable: str
    install: str
    provider: str
    default_model: str

    def checked(self, launch: Launch) -> tuple[list[str], str, str]:
        """(the program's command, the model, the key or "none"); raises `LaunchRefused` for what it cannot be given."""
        program = self.start()
        if program is None:
            raise ProgramMissing(f"{self.title} is not found on this host. {self.install}")
        needs_bubblewrap(launch, f"{self.title} runs a shell, which could read the server's own files")
        if own_login(launch):
            raise LaunchRefused(
                f"{self.title} is lent no log-in of the host's: it takes an API key. Name such a credential."
            )
        # It does not start without a key, also where none is wanted.
        key = key_of(launch, self.title, ADD_KEY, self.provider) or "none"
        return program, model_of(launch, self.default_model), key

    def followed(self, launch: Launch, model: str, program: list[str]) -> list[str]:
        patience = float(launch.agent_config.get("provider_patience", PATIENCE))
        return [sys.executable, "-I", "-S", str(FOLLOWER), self.word, model, str(patience), *program]

    def start(self) -> list[str] | None:
        return find_command(self.variable, self.word)

    def program(self) -> Path | None:
        command = self.start()
        return None if command is None else Path(command[-1])

    def find(self) -> Found:
        return look(self.start(), self.variable, self.install, None, ADD_KEY)
