"""What can be refused. A docstring is its exception's default message; edges translate (404, 403, 409, CommandError)."""

from __future__ import annotations

import inspect


class Refused(Exception):
    """This cannot be done now."""

    def __init__(self, message: str = "") -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.message)


class BadInput(Refused):
    """What was given cannot be used."""


class NotFound(Refused):
    """There is no such thing."""


class NotAllowed(Refused):
    """Your role does not allow this."""


class TransitionRefused(Refused):
    """The story cannot move that way."""


class StaleFence(TransitionRefused):
    """Something newer has happened to the story; this result is too late and changes nothing."""


class AlreadyWorked(Refused):
    """The story is already being worked on."""


class AlreadyWaiting(Refused):
    """The story already waits for an agent."""


class NothingRunning(Refused):
    """Nothing runs on the story."""
