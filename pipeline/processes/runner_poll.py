"""The one place where the runner sleeps: poll over the descriptors that somebody watches."""

import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Poll:
    """Descriptors and who handles them. A handler is called with the descriptor, also when the other end is
    gone.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, handler: "Callable[[int], None]", events: int = READ) -> None:
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Nothing when it is not watched. Before or after the descriptor is closed, but before its number
        is used again.
        """
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def wait(self, until: float) -> None:
        """Sleep until something happens, at most until then (monotonic seconds), and have it handled."""
        wait = until - monotonic()
        # One millisecond more than the whole ones: waking just before the deadline would make a second,
        # empty turn.
        for fd, _ in self._poll.poll(int(wait * 1000) + 1 if wait > 0 else 0):
            handler = self._handlers.get(fd)  # an earlier handler of this turn may have given it up
            if handler is not None:
                handler(fd)
