"""What the pipeline's own kinds of process do when they start and end, and its sweeps."""

from __future__ import annotations


def register() -> None:
    """Called once when the app is ready."""
    from pipeline import kinds, sweeps
    from pipeline.handlers import candidate, discard, fetch, gate, land, probe, prune, repack
    from pipeline.services import deleting, gates, hosts, merges, projects

    kinds.register("fetch", fetch.FetchHandler())
    kinds.register("gate", gate.GateHandler())
    kinds.register("candidate", candidate.CandidateHandler())
    kinds.register("land", land.LandHandler())
    kinds.register("probe", probe.ProbeHandler())
    kinds.register("discard", discard.DiscardHandler())
    kinds.register("repack", repack.RepackHandler())
    sweeps.register("gates", 2.0, gates.sweep)
    sweeps.register("merges", 2.0, merges.advance_all)
    sweeps.register("hosts", 5.0, hosts.watch.look)
    sweeps.register("deletes", 2.0, deleting.sweep)
    sweeps.register("refresh", 60.0, projects.refresh_all)
    sweeps.register("prune", 600.0, prune.prune)
    sweeps.register("repack", 3600.0, repack.repack_all)
    projects.connect()
    merges.connect()
