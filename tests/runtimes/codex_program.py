"""A program in the place of `codex app-server`: it plays a script, {"turns": [steps, ...]}.

A step is a message to send, {"await": METHOD} (what comes is answered; with "refused" by an error), or {"exit": CODE}. A turn without
{"open": true} as its last step is completed. What it is told is written into the file `told.txt`.
"""

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = json.loads(sys.argv[1])


def send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def heard() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    with Path("told.txt").open("a") as told:
        told.write(line)
    return message


def answer(message: dict[str, Any], number: int, *, refused: bool = False) -> None:
    if refused:
        send(id=message["id"], error={"code": -32600, "message": "no active turn to steer"})
    elif "id" in message and "method" in message:
        result = {"thread": {"id": "t1"}, "model": "m-1", "turn": {"id": f"turn-{number}"}}
        send(id=message["id"], result=result)


def play(steps: list[dict[str, Any]], number: int) -> None:
    for step in steps:
        if "exit" in step:
            sys.exit(step["exit"])
        if "await" in step:
            while (message := heard()).get("method") != step["await"] and message.get("id") != step["await"]:
                answer(message, number)
            answer(message, number, refused=step.get("refused", False))
        elif "open" not in step:
            send(**step)
    if not steps or "open" not in steps[-1]:
        turn = {"id": f"turn-{number}", "status": "completed"}
        send(method="turn/completed", params={"threadId": "t1", "turn": turn})


number = 0
while True:
    message = heard()
    number += message.get("method") == "turn/start"
    answer(message, number)
    if message.get("method") == "turn/start":
        play(SCRIPT["turns"][number - 1], number)
