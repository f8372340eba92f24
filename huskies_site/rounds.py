"""The doctor's rounds: one healer or checker a turn in the supervisor's loop, so that none of them holds it up, and all in about a minute."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from django.utils import timezone

from huskies_site import doctoring
from pipeline import conf
from pipeline.doctor import Checker, Lie, heal
from pipeline.processes.runfolder import write_durably

logger = logging.getLogger("huskies.doctor")

FILE = "doctor.json"
TURN_SECONDS = 2.0
SLOW_SECONDS = 1.0


@dataclass
class Rounds:
    """`found` of this round and `before` of the last: what stands in both lasts, and is told."""

    waiting: list[tuple[str, Any]] = field(default_factory=list)
    found: set[Lie] = field(default_factory=set)
    before: set[tuple[str, str]] | None = None
    told: set[tuple[str, str]] = field(default_factory=set)

    def turn(self) -> None:
        """The sweep: one step; at the end of a round the result is written for the page."""
        if not self.waiting:
            self.waiting = [
                *(("heal", h) for h in doctoring.healers()),
                *(("look", c) for c in doctoring.checkers()),
            ]
        what, step = self.waiting.pop(0)
        began = time.monotonic()
        if what == "heal":
            for healed in heal([step]):
                logger.warning("Healed: %s", healed, extra={"action": "healed"})
        else:
            self.look(step)
        took = time.monotonic() - began
        if took > SLOW_SECONDS:
            logger.info(
                "The doctor's step %s took %.1f s.",
                getattr(step, "__name__", step),
                took,
                extra={"action": "doctor_slow"},
            )
        if not self.waiting:
            self.close()

    def look(self, checker: Checker) -> None:
        name = getattr(checker, "__name__", "a look")
        try:
            self.found.update(checker())
        except Exception as error:
            logger.exception(
                "The doctor could not look by %s.",
                name,
                extra={"action": "look_failed"},
            )
            self.found.add(
                Lie(
                    "R0",
                    name,
                    f"it could not be looked at: {type(error).__name__}. The log says more.",
                )
            )

    def close(self) -> None:
        found, before = self.found, self.before
        # First: a result that cannot be written must not stay in the next one.
        self.before, self.found = {(lie.rule, lie.subject) for lie in found}, set()
        if before is None:
            return
        lasting = sorted(lie for lie in found if (lie.rule, lie.subject) in before)
        for lie in lasting:
            if (lie.rule, lie.subject) not in self.told:
                logger.error("%s", lie, extra={"action": "lie", "rule": lie.rule})
        self.told = {(lie.rule, lie.subject) for lie in lasting}
        result = {
            "at": timezone.now().isoformat(timespec="seconds"),
            "host": conf.host(),
            "lies": [asdict(lie) for lie in lasting],
        }
        write_durably(str(conf.home()), FILE, json.dumps(result).encode())


rounds = Rounds()


def last() -> dict[str, Any] | None:
    """{"at": ISO, "host", "lies": [{"rule", "subject", "sentence"}]} of this host's last whole round, None before it."""
    try:
        said = json.loads((conf.home() / FILE).read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def register() -> None:
    from pipeline import sweeps

    sweeps.register("doctor", TURN_SECONDS, rounds.turn)
