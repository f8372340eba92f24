"""The machines that run children: heard of, silent (suspect), given up (lost), draining.

A host says every few seconds that it lives. Others judge its silence by how long they saw no new beat on their own monotonic clock: no two
clocks are compared, so a set clock or a sleep only delays. What runs on a silent host keeps its slot and claim, because it may well go on;
the host finds it again by identity. Given up, its work is begun anew elsewhere, and what it still writes meets rows that are over.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from pipeline import clock, conf, signals
from pipeline.actors import SERVER, Actor
from pipeline.exceptions import NotAllowed, NotFound, Refused
from pipeline.models import Act, Capacity, Host, Process
from pipeline.models.process import ProcessState
from pipeline.prepared import Select
from pipeline.processes import identity as identities
from pipeline.roles import may

logger = logging.getLogger("huskies.hosts")

BEAT_FILE = "beat"
SUSPECT_SECONDS = 30.0
SEEN_SECONDS = 10.0
UP_DRAIN = "up --drain"
BACKGROUND = ("fetch", "discard", "probe", "repack", "snapshot")
"""Small processes that come by themselves: nobody waits for their end before a machine is switched off."""


NAMED: Select[Host] = Select(lambda name: Host.objects.filter(name=name), str)


def refusal(host_name: str) -> str:
    """Why the host takes nothing new, "" if it does."""
    host = NAMED.first(host_name)
    if host is None:
        return ""
    if host.lost_at is not None:
        return f"host {host.name} was given up as lost; it takes work again once it is heard of"
    if host.suspect_since is not None:
        return f"nothing is heard of host {host.name} since {host.suspect_since:%H:%M:%S} UTC; its work is kept for it"
    if host.draining:
        return f"host {host.name} is draining: it finishes what runs and starts nothing new"
    return ""


# -- the heartbeat ---------------------------------------------------------------------------------------------------


def beat() -> None:
    """This host's supervisor lives. A host that was silent or given up is back; a wall clock that was set since the last beat is noticed."""
    now, name = timezone.now(), conf.host()
    before, boot = _last_beat(), clock.boot_seconds()
    said: dict[str, Any] = {
        "host": name,
        "boot_id": identities.boot_id(),
        "boot": boot,
        "at": now.isoformat(),
        "offset": now.timestamp() - boot,
    }
    values = {"seen_at": now, "boot_id": said["boot_id"], "supervisor_pid": os.getpid()}
    with transaction.atomic():
        if before and before["boot_id"] == said["boot_id"]:
            by = timedelta(seconds=said["offset"] - before["offset"])
            if abs(by) > clock.STEP:
                clock.stepped(by, name)
        heard = Host.objects.filter(name=name, suspect_since=None, lost_at=None).update(**values)
        if not heard:
            # Locked: whoever just gives it up is waited for, and then told of too.
            _back(Host.objects.select_for_update().get_or_create(name=name)[0], values)
    _write_beat(said)


def _back(host: Host, values: dict[str, Any]) -> None:
    if host.suspect_since or host.lost_at:
        since = host.suspect_since or host.lost_at
        why = f"Nothing was heard of it since {since:%Y-%m-%d %H:%M:%S} UTC. "
        why += (
            "What it still ran was begun anew elsewhere; it is stopped, and its work kept."
            if host.lost_at
            else "What runs there goes on."
        )
        Act.objects.create(actor=SERVER.name, verb="host.back", subject=f"host {host.name}", why=why)
    Host.objects.filter(pk=host.pk).update(suspect_since=None, lost_at=None, **values)
    signals.host_back.send(sender=Host, host=host)


def database_is_older() -> bool:
    """Whether the database has not seen the last beat that this data folder remembers: it was put back from an older copy.

    Both are written by each beat, the database first; so a copy that is restored is noticed unless it was made after the last beat.
    """
    said = _last_beat()
    if said is None:
        return False
    seen = Host.objects.filter(name=said["host"]).values_list("seen_at", flat=True).first()
    return seen is None or seen < datetime.fromisoformat(said["at"])


def _last_beat() -> dict[str, Any] | None:
    try:
        said = json.loads((conf.home() / BEAT_FILE).read_text())
        return {
            "host": str(said["host"]),
            "boot_id": str(said["boot_id"]),
            "at": str(said["at"]),
            "boot": float(said["boot"]),
            "offset": float(said["offset"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_beat(said: dict[str, Any]) -> None:
    part = conf.home() / f"{BEAT_FILE}.part"
    try:
        part.write_text(json.dumps(said))
        part.replace(conf.home() / BEAT_FILE)
    except OSError as error:  # a full disk is told by those who need more of it
        logger.warning("The heartbeat could not be written: %s", error, extra={"action": "beat_not_written"})


def silent_for(host: Host) -> float | None:
    """Seconds since the host was heard of, None = never. Of this host by the boot clock, where its last beat left it."""
    if host.seen_at is None:
        return None
    if host.name == conf.host():
        said = _last_beat()
        if said and said["at"] == host.seen_at.isoformat():
            return (
                clock.boot_seconds() - said["boot"]
                if said["boot_id"] == identities.boot_id()
                else float("inf")
            )
    # A beat dated ahead of now says nothing about its age.
    return abs((timezone.now() - host.seen_at).total_seconds())


def runs_here(within: float = SEEN_SECONDS) -> bool:
    """Whether this host's supervisor was heard of within so many seconds."""
    host = Host.objects.filter(name=conf.host()).first()
    silent = silent_for(host) if host else None
    return silent is not None and silent < within


# -- silence ---------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """How long this process has seen no new beat of each other host. `seconds`: its clock; a sleeping watcher counts nothing."""

    seconds: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[datetime | None, float]] = field(default_factory=dict)

    def look(self) -> None:
        """The sweep: mark the silent, give up the lost. Idempotent."""
        now = self.seconds()
        for host in Host.objects.exclude(name=conf.host()).filter(lost_at=None):
            known = self._seen.get(host.name)
            if known is None or known[0] != host.seen_at:
                self._seen[host.name] = (host.seen_at, now)
                continue
            silent = now - known[1]
            if silent >= SUSPECT_SECONDS and host.suspect_since is None:
                suspect(host, since=host.seen_at)
            if silent >= settings.HUSKIES_HOST_LOST_AFTER:
                why = f"Nothing was heard of it for {silent:.0f} s."
                try:
                    give_up(host.name, actor=SERVER, why=why, unheard=host.seen_at)
                except Refused as refused:
                    logger.info("%s", refused.message, extra={"action": "host_not_given_up"})
        for name in Host.objects.exclude(lost_at=None).values_list("name", flat=True):
            conclude_lost(name)


watch = Watch()


def suspect(host: Host, *, since: datetime | None = None) -> bool:
    """Nothing is heard of it: what runs there is kept for it, and it takes nothing new. False when that is known already."""
    with transaction.atomic():
        Capacity.lock()  # no claim for that host slips in between
        rows = Host.objects.filter(pk=host.pk, suspect_since=None, lost_at=None, seen_at=host.seen_at)
        if not rows.update(suspect_since=since or timezone.now()):
            return False
        why = (
            "Its sessions keep their places; nothing starts in their stead until it is heard of or given up."
        )
        Act.objects.create(actor=SERVER.name, verb="host.suspect", subject=f"host {host.name}", why=why)
        signals.host_silent.send(sender=Host, host=host, since=since or timezone.now())
    logger.warning("Nothing is heard of host %s.", host.name, extra={"action": "host_suspect"})
    return True


def give_up(name: str, *, actor: Actor, why: str = "", unheard: datetime | None = None) -> Host:
    """The host is lost: its sessions end as that, charged to nobody, and their stories wait for an agent again.

    Raises NotAllowed, NotFound, Refused (it is heard of, or was given up before). `unheard`: only if this was its last beat.
    """
    _check(actor)
    with transaction.atomic():
        Capacity.lock()
        host = _locked(name)
        if host.lost_at is not None:
            raise Refused(f"Host {name} was given up already, at {host.lost_at:%Y-%m-%d %H:%M:%S} UTC.")
        heard = host.seen_at != unheard if unheard else _heard_of(host)
        if heard:
            raise Refused(
                f"Host {name} is heard of, so it is not lost. Drain it, or stop its stories, to take work from it."
            )
        now = timezone.now()
        Host.objects.filter(pk=host.pk).update(lost_at=now, suspect_since=host.suspect_since or now)
        Act.objects.create(actor=actor.name, verb="host.lost", subject=f"host {name}", why=why)
        # Processes first, as whoever handles an end locks them; then stories, then sessions.
        said = {
            "version": 1,
            "outcome": "lost",
            "reason": f"host {name} was given up",
            "code": None,
            "signal": None,
        }
        for process in (
            Process.objects.filter(host=name).unhandled().select_for_update(of=("self",), no_key=True)
        ):
            Process.objects.filter(pk=process.pk).update(
                state=ProcessState.LOST,
                ended_at=now,
                exit={**said, "key": process.key, "log_size": process.offset},
            )
        signals.host_lost.send(sender=Host, host=host, actor=actor, why=why)
    logger.warning("Host %s was given up by %s. %s", name, actor.name, why, extra={"action": "host_lost"})
    conclude_lost(name)
    return Host.objects.get(name=name)


def conclude_lost(name: str) -> None:
    """What follows from the end of each process of a host that was given up; its own supervisor is not there to do it. Idempotent."""
    from pipeline.services import processes

    for pk in (
        Process.objects.unhandled().filter(host=name, state=ProcessState.LOST).values_list("pk", flat=True)
    ):
        try:
            processes.handle_end(pk)
        except Exception:
            logger.exception(
                "The end of process %s of host %s could not be handled.",
                pk,
                name,
                extra={"action": "handler_failed"},
            )


def _heard_of(host: Host) -> bool:
    silent = silent_for(host)
    return silent is not None and silent < SUSPECT_SECONDS and host.suspect_since is None


# -- drain -----------------------------------------------------------------------------------------------------------


def drain(name: str, *, actor: Actor, why: str = "") -> Host:
    """The host finishes what runs and takes nothing new. Raises NotAllowed, NotFound, Refused."""
    return _set_draining(name, True, actor, why)


def resume(name: str, *, actor: Actor, why: str = "") -> Host:
    """The host takes work again. Raises NotAllowed, NotFound, Refused."""
    return _set_draining(name, False, actor, why)


def _set_draining(name: str, draining: bool, actor: Actor, why: str) -> Host:
    _check(actor)
    with transaction.atomic():
        Capacity.lock()
        host = _locked(name)
        if host.draining == draining:
            raise Refused(
                f"Host {name} is draining already."
                if draining
                else f"Host {name} is not draining, so it takes work."
            )
        Host.objects.filter(pk=host.pk).update(draining=draining)
        verb = "host.drain" if draining else "host.resume"
        Act.objects.create(actor=actor.name, verb=verb, subject=f"host {name}", why=why)
    host.draining = draining
    return host


def drain_at_start(wanted: bool, actor: Actor) -> None:
    """`up --drain` drains this host; the next plain `up` ends that drain, and never one that a person asked for by name."""
    name = conf.host()
    row = Host.objects.get(name=name)
    if wanted and not row.draining:
        drain(name, actor=actor, why=UP_DRAIN)
    elif not wanted and row.draining:
        last = Act.objects.filter(verb="host.drain", subject=f"host {name}").last()
        if last is not None and last.why == UP_DRAIN:
            resume(name, actor=actor, why="a plain `up` after `up --drain`")


def idle(name: str) -> bool:
    """Whether nothing of the server's work runs on the host, nor is about to."""
    return not Process.objects.filter(host=name).unhandled().exclude(kind__in=BACKGROUND).exists()


def take_over_names() -> list[str]:
    """On SQLite there is one machine: what stands under another name is this one's, from before it was renamed. Returns those names."""
    if connection.vendor != "sqlite":
        return []
    with transaction.atomic():
        others = list(
            Host.objects.exclude(name=conf.host()).filter(lost_at=None).values_list("name", flat=True)
        )
        for name in others:
            Process.objects.filter(host=name).update(host=conf.host())
            signals.host_renamed.send(sender=Host, old=name, new=conf.host())
            Host.objects.filter(name=name).update(lost_at=timezone.now())
            why = f"It is called {conf.host()} now, and finds what ran under the old name by identity."
            Act.objects.create(actor=SERVER.name, verb="host.rename", subject=f"host {name}", why=why)
    return others


def _locked(name: str) -> Host:
    host = Host.objects.select_for_update().filter(name=name).first()
    if host is None:
        known = ", ".join(Host.objects.order_by("name").values_list("name", flat=True)) or "none"
        raise NotFound(f"There is no host {name!r}. There are: {known}.")
    return host


def _check(actor: Actor) -> None:
    if actor.user is not None and not may(actor.user, "host.edit", None):
        raise NotAllowed("Only an admin of the whole server drains hosts or gives them up.")
