"""What the agents app adds to the pipeline's registries when it is ready."""

from __future__ import annotations


def register() -> None:
    from agents import cards, needs, receivers, shapes
    from agents.agentfile import SECTION, AgentsParser
    from agents.guarded import GUARDED
    from agents.permissionfile import SECTION as PERMISSIONS
    from agents.permissionfile import PermissionsParser
    from agents.runtimes import RUNTIMES
    from agents.services import (
        assigning,
        filling,
        hosting,
        looking,
        permissions,
        preflight,
        preflight_run,
        saving,
        sessions,
        snapshots,
        telling,
        watching,
    )
    from pipeline import kinds, merging, sweeps
    from pipeline import needs as pipeline_needs
    from pipeline.live import topics
    from pipeline.projectfile import register_guarded, register_section
    from pipeline.services import deleting

    register_section(SECTION, AgentsParser({name: runtime.keys for name, runtime in RUNTIMES.items()}))
    register_section(PERMISSIONS, PermissionsParser())
    register_guarded(GUARDED)
    kinds.register("agent", sessions.AgentHandler())
    kinds.register("intake", saving.IntakeHandler())
    kinds.register("snapshot", snapshots.SnapshotHandler())
    kinds.register(preflight.KIND, preflight_run.PreflightHandler())
    sweeps.register("assign", 2.0, assigning.auto_assign)
    sweeps.register("sessions", 2.0, sessions.sweep)
    sweeps.register("watchdog", 2.0, watching.sweep)
    sweeps.register("disk", 2.0, filling.sweep)
    sweeps.register("preflight", 2.0, preflight.sweep)
    sweeps.register("late-work", 5.0, hosting.save_late_work)
    merging.busy.append(looking.masters)
    merging.trailers.append(receivers.agent_trailers)
    topics.card_context.append(cards.of_stories)
    pipeline_needs.providers.append(needs.of_project)
    sweeps.register("requests", 2.0, permissions.sweep)
    sweeps.register("telling", 2.0, telling.sweep)
    deleting.busy.append(receivers.works_on)
    receivers.connect()
    hosting.connect()
    shapes.register()
