"""The turns of a program that takes lines from its stdin: it lives until that ends, so the runner closes it when a
turn is over and nothing more was said.
"""

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.processes.runner_child import Child
    from pipeline.processes.runner_log import Log
    from pipeline.processes.runner_spec import Step

TOLD_SECONDS = 2.0  # in which a program that was told something begins its next turn, if it needs one


class Turns:
    """Times in monotonic seconds. `heard`: ids of the messages that were passed on."""

    def __init__(self) -> None:
        self.heard: set[str] = set()
        self.close_at: float | None = None  # when stdin is closed, unless another turn begins
        self._told = False  # something was passed on since the turn began

    def follow(self, step: "Step", log: "Log") -> None:
        """A step's program begins."""
        self.begin()
        log.mark(step.turn_begins, self.begin)
        log.mark(step.turn_ends, self.end)

    def told(self) -> None:
        """The turn that is under way takes it up, or another one follows."""
        self._told = True
        if self.close_at is not None:
            self.close_at = monotonic() + TOLD_SECONDS

    def begin(self) -> None:
        self._told, self.close_at = False, None

    def end(self) -> None:
        """What the program has not read yet is still a turn, whether its stdin is closed or not."""
        self.close_at = monotonic() + (TOLD_SECONDS if self._told else 0.0)
        self._told = False

    def close_when_over(self, child: "Child", feed: "Callable[[], None]") -> None:
        if self.close_at is not None and self.close_at <= monotonic():
            self.close_at = None
            child.close_stdin()
            feed()
