"""What can be refused about agents and sessions: one name for each reason that a caller may tell apart."""

from __future__ import annotations

from pipeline.exceptions import AlreadyWorked, Refused, TransitionRefused


class MustWait(Refused):
    """No fitting agent is free.

    `line`: what it stands in line for, "" = nothing that others wait for too; `head` and `tail`: the sentence around its place.
    """

    def __init__(self, head: str = "", tail: str = "", line: str = "") -> None:
        self.head, self.tail, self.line = head, tail, line
        super().__init__(head + tail)

    def at(self, place: int) -> str:
        """The sentence with the story's place in line, first = 1."""
        return (
            f"{self.head}, {ordinal(place)} in line{self.tail}" if self.line and place > 1 else self.message
        )


class NoSuchAgent(Refused):
    """There is no such agent."""


class NoCoder(Refused):
    """The project has no coder."""


class ProjectUnusable(Refused):
    """The project cannot be worked on."""


class WrongStage(TransitionRefused):
    """An agent of this role does not work on a story in that stage."""


class AlreadyOnIt(AlreadyWorked):
    """This agent works on this story already."""


class RoleTaken(AlreadyWorked):
    """Another agent of this role works on this story already."""


class StoryHindered(TransitionRefused):
    """Something else must happen to the story first."""


class AgentBusy(Refused):
    """The agent cannot take the story now, and is not waited for."""


def ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    if 1 <= number <= len(words):
        return words[number - 1]
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if 10 <= number % 100 <= 20 else ends.get(number % 10, 'th')}"


class StillRunning(Refused):
    """It has not ended yet."""


class AlreadyAnswered(Refused):
    """The request is answered already."""


class CannotHear(Refused):
    """The agent takes no message now."""
