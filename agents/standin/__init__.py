"""A scripted stand-in for the model providers, so that the real agent programs run without network and key.

One HTTP server on loopback speaks the providers' dialects (one file each), and plays a script of turns per scenario:

    with StandIn({"scenarios": {"job-7": {"turns": [{"run": "echo hi > a.txt"}, "Done."]}}}) as provider:
        ...run the program with ANTHROPIC_BASE_URL=provider.url("job-7")...
        assert provider.left("job-7") == 0 and not provider.problems

Every scenario has its own URL, so any number of sessions can run at once. See `script` for the form. The pre-flight
runs it beside the program that it tries; the tests play every fault with it. Standard library only, loopback only.
"""

from agents.standin.script import ScriptError
from agents.standin.server import StandIn

__all__ = ["ScriptError", "StandIn"]
