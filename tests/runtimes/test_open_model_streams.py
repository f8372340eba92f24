"""What Qwen Code's and opencode's streams have in common, from recordings of the real programs."""

import pytest

from agents.runtimes.opencode_stream import OpencodeParser
from agents.runtimes.qwen_stream import QwenParser
from tests.runtimes.records import bodies, ended, fed, sample

PARSERS = {"qwen-code": QwenParser, "opencode": OpencodeParser}
FAILURES = {
    "refused_key": "auth",
    "rate_limit": "rate_limited",
    "overloaded": "overloaded",
    "quota": "billing",
    "unknown_model": "bad_model",
    "bad_request": "config",
}
CASES = [*((program, *failure) for program in PARSERS for failure in FAILURES.items())]
CASES.append(("qwen-code", "too_long", "context_full"))


@pytest.mark.parametrize(("program", "name", "kind"), CASES)
def test_failures_have_their_names_and_say_what_it_said(program: str, name: str, kind: str) -> None:
    parser = PARSERS[program]()
    events = fed(parser, sample(f"{program}/{name}"))
    outcome = parser.outcome(ended(1))
    assert (outcome.kind, "It said: " in outcome.reason) == (kind, True)
    assert bodies(events, "ended")[-1]["error"] is True


@pytest.mark.parametrize("program", PARSERS)
def test_a_stream_that_broke_and_was_tried_again_is_no_failure(program: str) -> None:
    parser = PARSERS[program]()
    events = fed(parser, sample(f"{program}/broken_stream"))
    assert (parser.outcome(ended()).kind, len(bodies(events, "retry"))) == ("done", 1)
