"""What Codex writes into its own record and tells too late or not at all: the tokens of each request, and its newest conversation."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.runtimes.followed import Json, Records
else:  # beside the client, which is run as a file
    from followed import Json, Records


class CodexRecords(Records):
    """A request's tokens stand there once it is answered; the app server tells them when the tools that it called are done."""

    wanted = (b'"token_usage_record"',)

    def __init__(self) -> None:
        super().__init__(os.path.join(os.environ["CODEX_HOME"], "sessions"))  # noqa: PTH118
        self.begin()

    def newest(self) -> str:
        """The id of the conversation that was carried over; empty where there is none. Its file is rollout-TIME-ID.jsonl."""
        names = sorted(os.path.basename(path) for path in self.files)  # noqa: PTH119
        return names[-1].removesuffix(self.ending)[-36:] if names else ""

    def news(self) -> list[Json]:
        found: list[Json] = []
        for line in self.lines():
            one = line.get("payload")
            if line.get("type") == "token_usage_record" and isinstance(one, dict):
                said = {"request": one.get("response_id"), "thread": one.get("thread_id")}
                found.append({**said, "usage": one.get("usage")})
        return found
