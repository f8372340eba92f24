"""What may be asked of a running runner over its control socket."""

import os
from time import monotonic

from pipeline.processes.runner_control import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipeline.processes.runner_loop import Runner

_TO_THE_CHILD = ("interrupt", "message", "close_stdin")


def answer(runner: "Runner", request: dict[str, object]) -> dict[str, object]:
    """The fields of the answer to one request. Raises Refused with a sentence.

    stop {"grace": seconds, "reason": text}, lease {"seconds"}, status; to the running program's stdin:
    message {"text"}, interrupt (the text that its step names) and close_stdin. A message with an "id" is
    passed on once, however often it is sent; "interrupt": true puts the step's text before it, and
    "asked": true says that the program waits for it, so that no turn of its own follows.
    """
    do = request.get("do")
    if do == "status":
        return _status(runner)
    if do == "stop":
        runner.end_run(
            "stopped",
            str(request.get("reason") or "asked to stop")[:1000],
            _seconds(request, "grace", runner.limits.grace),
        )
        return {}
    if do == "lease":
        runner.lease_at = monotonic() + _seconds(request, "seconds", runner.limits.lease)
        return {}
    if do in _TO_THE_CHILD:
        _to_the_child(runner, str(do), request)
        return {}
    raise Refused(
        f"The runner does not know {do!r}. It knows stop, lease, status, {', '.join(_TO_THE_CHILD)}."
    )


def _to_the_child(runner: "Runner", do: str, request: dict[str, object]) -> None:
    child = runner.child
    if child is None or child.status is not None:
        raise Refused(f"The request {do} reached nobody: no program is running at this moment.")
    if do == "close_stdin":
        child.close_stdin()
        runner.feed()
        return
    text = request.get("text") if do == "message" else child.step.interrupt
    if not isinstance(text, str):
        raise Refused(f"The step {child.step.name} cannot take {do}: there is no text for it.")
    mark: dict[str, object] = {"id": str(request["id"])[:100]} if "id" in request else {}
    if mark and mark["id"] in runner.turns.heard:
        return
    before = child.step.interrupt if do == "message" and request.get("interrupt") is True else None
    refusal = child.say("".join([_line(one) for one in (before, text) if one is not None]))
    if refusal:
        raise Refused(f"The step {child.step.name} did not take the {do}: {refusal}.")
    runner.turns.heard |= {str(one) for one in mark.values()}
    if do == "message" and request.get("asked") is not True:
        runner.turns.told()
    runner.log.note(do, step=child.step.name, characters=len(text), **mark)
    runner.feed()


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _status(runner: "Runner") -> dict[str, object]:
    child = runner.child
    return {
        "pid": os.getpid(),
        "step": runner.step.name if runner.step else None,
        "child_pid": child.pid if child is not None and child.status is None else None,
        "main_started": runner.main_started,
        "stopping": runner.stop.reason if runner.stop else None,
        "log_size": runner.log.size,
        "dropped": runner.log.dropped,
        "lease": round(runner.lease_at - monotonic(), 3),
    }


def _seconds(request: dict[str, object], name: str, default: float) -> float:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2_000_000:
        raise Refused(f"{name} is {value!r}, and not a number of seconds between 0 and 2,000,000.")
    return float(value)
