"""The only door to django-q2. Enqueue inside the transaction: the ORM broker's row commits with the data."""

from __future__ import annotations

from django.conf import settings
from django_q.models import OrmQ
from django_q.tasks import async_task


def enqueue(function: str, *args: int | str) -> None:
    """Queue `module.function(*args)`. It may run twice, late, or never: it begins by claiming, and a sweep does what it missed."""
    if getattr(settings, "HUSKIES_NO_QUEUE", False):
        return  # tests that drive the sweeps themselves
    async_task(function, *args, save=False)


def length() -> int:
    """How many tasks wait or are under way."""
    return int(OrmQ.objects.count())
