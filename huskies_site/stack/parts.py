"""What each part of the process set does in its child."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import signal
import socket
from typing import Any

from django.db import connections

from huskies_site.stack import forks
from pipeline import conf

SUPERVISOR_LOCK = "supervisor.lock"
PRELOADED = (
    "huskies_site.urls",
    "huskies_site.asgi",
    "django_q.cluster",
    "pipeline.broker",
    "pipeline.supervisor",
    "pipeline.tasks",
    "agents.tasks",
    "django.contrib.auth.backends",
    "django.contrib.sessions.backends.db",
    "django.db.migrations.executor",
    "django.template.loader",
    "twisted.internet.defer",
    "twisted.web.http",
    "encodings.idna",
)
"""What the parts would each import for themselves; none of it opens a connection, starts a thread or installs a reactor."""


def preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    from django.urls import get_resolver

    _ = get_resolver().url_patterns


def web(listener: socket.socket) -> int:
    """Daphne on a socket that is already listening."""
    from daphne import server as daphne_server
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint

    from huskies_site.asgi import application

    # Daphne takes sockets only by a description in words, which knows no IPv6 for a descriptor.
    adopt: Any = AdoptedStreamServerEndpoint
    daphne_server.serverFromString = lambda reactor, _: adopt(reactor, listener.fileno(), listener.family)
    server = daphne_server.Server(
        application, endpoints=["the socket of up"], server_name="huskies", verbosity=0
    )
    server.run()
    return 0


def workers() -> int:
    """django-q2's cluster: its main process is this one, and all its children die with it."""
    forks.die_together()
    keep_connections()
    from django_q.cluster import Cluster

    from pipeline.processes.starting import fork_server

    fork_server.start()  # one for all that this process forks
    logging.getLogger("django-q").setLevel(logging.WARNING)
    cluster: Any = Cluster()
    cluster.start()
    sentinel = cluster.sentinel
    sentinel.join()
    return 0 if cluster.has_stopped else 1


def supervise() -> int:
    """The supervisor of this host, of which there is one: the lock says so."""
    from pipeline.supervisor import Supervisor

    lock = os.open(conf.home() / SUPERVISOR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadySupervised(
            f"Another supervisor already follows the processes of {conf.home()} on this host; this one ends."
        ) from None
    keep_connections()
    supervisor = Supervisor()

    def stop(*_: object) -> None:
        supervisor.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        supervisor.run()
    finally:
        os.close(lock)
    return 0


def keep_connections() -> None:
    """Each thread of this part keeps its connection to the database, and lets go of it after an error that made it useless. Web opens
    one for each request: its threads come and go. (Opening one takes 1 ms on SQLite, whose statements are then prepared anew.)"""
    connections.settings["default"]["CONN_MAX_AGE"] = None


class AlreadySupervised(Exception):
    """Another supervisor runs on this host."""
