"""What the agents app adds to the pipeline's registries when it is ready."""

from __future__ import annotations


def register() -> None:
    from agents import receivers, shapes
    from agents.agentfile import RUNTIME_KEYS, SECTION, AgentsParser
    from agents.runtimes import RUNTIMES
    from agents.services import pool, sessions
    from pipeline import kinds, merging, sweeps
    from pipeline.projectfile import register_section

    wanted = {
        name: [key for key in RUNTIME_KEYS if key in getattr(runtime, "keys", ())]
        for name, runtime in RUNTIMES.items()
    }
    wanted["scripted"] = ["script"]
    register_section(SECTION, AgentsParser(wanted))
    kinds.register("agent", sessions.AgentHandler())
    kinds.register("intake", sessions.IntakeHandler())
    sweeps.register("assign", 2.0, pool.auto_assign_all)
    sweeps.register("sessions", 2.0, sessions.sweep)
    merging.trailers.append(receivers.agent_trailers)
    receivers.connect()
    shapes.register()
