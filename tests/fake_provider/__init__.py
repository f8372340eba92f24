"""A scripted stand-in for the model providers, so that the real agent programs run without network and key.

One HTTP server on loopback speaks Anthropic's Messages, OpenAI's Responses and Gemini's protocol, and plays a script of turns per scenario:

    with FakeProvider({"scenarios": {"job-7": {"turns": [{"run": "echo hi > a.txt"}, "Done."]}}}) as fake:
        ...run the program with ANTHROPIC_BASE_URL=fake.url("job-7")...
        assert fake.left("job-7") == 0 and not fake.problems

Every scenario has its own URL, so any number of sessions can run at once. See `script` for the form.
"""

from tests.fake_provider.script import ScriptError
from tests.fake_provider.server import FakeProvider

__all__ = ["FakeProvider", "ScriptError"]
