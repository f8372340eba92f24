"""What is done in the database before the parts start. All of it runs in a child: the parent must stay without a connection."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from agents.services import hosting
from huskies_site import loginlinks
from pipeline import conf, taskqueue
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.models import Act, Capacity, Host, Process
from pipeline.processes import confine, control, spawn
from pipeline.processes.identity import boot_id
from pipeline.processes.runfolder import write_durably
from pipeline.services import hosts

EPOCH = "epoch"


def set_up(drain: bool = False) -> dict[str, Any]:
    """Migrate, make the rows that must be there, begin a new epoch; with `drain` this host takes nothing new.

    Returns {"epoch", "restored": bool, "stopped": [keys], "closed": how many sessions of another time, "draining": bool,
    "link": path or null, "level", "level_reason"}.
    """
    call_command("migrate", interactive=False, verbosity=0)
    folder_epoch = read_epoch(conf.home())
    level = confine.level_available()
    with transaction.atomic():
        Capacity.objects.get_or_create(pk=1)
        capacity = Capacity.lock()
        # The folder runs ahead only when the database was put back from an older copy (rules.md, window 32).
        restored = folder_epoch > capacity.epoch or hosts.database_is_older()
        capacity.epoch = max(folder_epoch, capacity.epoch) + 1
        capacity.draining = False  # `down --agents` set it
        capacity.save(update_fields=["epoch", "draining"])
        Host.objects.update_or_create(
            name=conf.host(),
            defaults={"boot_id": boot_id(), "level": level.name, "level_reason": level.reason},
        )
        why = f"epoch {capacity.epoch}" + (
            ", after the database was put back from an older copy" if restored else ""
        )
        Act.objects.create(actor="server", verb="server.up", subject=f"host {conf.host()}", why=why)
    hosts.take_over_names()
    hosts.drain_at_start(drain, OPERATOR_ON_HOST)
    # Sessions first: what their runners still say meets rows that are over.
    closed = hosting.close_after_restore() if restored else 0
    stopped = stop_runners_of_another_time() if restored else []
    write_durably(str(conf.home()), EPOCH, str(capacity.epoch).encode())
    link = loginlinks.make_link(loginlinks.first_admin()) if loginlinks.nobody_can_log_in() else None
    return {
        "epoch": capacity.epoch, "restored": restored, "stopped": stopped, "closed": closed, "link": link,
        "draining": Host.objects.get(name=conf.host()).draining,
        "level": level.name, "level_reason": level.reason,
    }  # fmt: skip


def read_epoch(home: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int((home / EPOCH).read_text(encoding="ascii"))
    return 0


def stop_runners_of_another_time() -> list[str]:
    """After a restored backup: whatever still runs belongs to a story that the database tells differently. Its work is kept."""
    stopped = []
    for folder in sorted(conf.runs().iterdir()):
        if spawn.runner_alive(conf.runs(), folder.name):
            with contextlib.suppress(control.ControlUnavailable):
                control.ask(
                    conf.runs(),
                    folder.name,
                    {"do": "stop", "grace": 5.0, "reason": "the database was restored from an older copy"},
                )
                stopped.append(folder.name)
    return stopped


def beat_and_look() -> list[Any]:
    """As `beat`, and whether nothing runs on this host."""
    return [beat(), hosts.idle(conf.host())]


def beat() -> str | None:
    """Send a heartbeat through the queue; returns when the last one came back (ISO), or None if none ever did."""
    with transaction.atomic():
        taskqueue.enqueue("pipeline.tasks.heartbeat")
    seen = Host.objects.filter(name=conf.host()).values_list("queue_seen_at", flat=True).first()
    return seen.isoformat() if seen else None


def drain_and_stop_agents(grace: float = 5.0) -> list[str]:
    """`down --agents`: nothing new starts, and every running process is asked to stop. Returns the keys of those that were asked."""
    from pipeline.services import processes

    Capacity.objects.filter(pk=1).update(draining=True)
    rows = Process.objects.live().filter(host=conf.host())
    return [
        row.key
        for row in rows
        if processes.stop(row, grace=grace, reason=f"the server was stopped at {timezone.now():%H:%M:%S} UTC")
    ]
