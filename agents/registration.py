"""What the agents app adds to the pipeline's registries when it is ready."""

from __future__ import annotations


def register() -> None:
    from agents import cards, receivers, shapes
    from agents.agentfile import SECTION, AgentsParser
    from agents.runtimes import RUNTIMES
    from agents.services import assigning, hosting, looking, saving, sessions, snapshots, watching
    from pipeline import kinds, merging, sweeps
    from pipeline.live import topics
    from pipeline.projectfile import register_section
    from pipeline.services import deleting

    register_section(SECTION, AgentsParser({name: runtime.keys for name, runtime in RUNTIMES.items()}))
    kinds.register("agent", sessions.AgentHandler())
    kinds.register("intake", saving.IntakeHandler())
    kinds.register("snapshot", snapshots.SnapshotHandler())
    sweeps.register("assign", 2.0, assigning.auto_assign)
    sweeps.register("sessions", 2.0, sessions.sweep)
    sweeps.register("watchdog", 2.0, watching.sweep)
    sweeps.register("late-work", 5.0, hosting.save_late_work)
    merging.busy.append(looking.masters)
    merging.trailers.append(receivers.agent_trailers)
    topics.card_context.append(cards.of_stories)
    deleting.busy.append(receivers.works_on)
    receivers.connect()
    hosting.connect()
    shapes.register()
