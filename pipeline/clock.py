"""The clocks. The wall clock dates rows for people; how long something lasts is asked of the kernel, which nobody sets.

Tests that set the wall clock replace `django.utils.timezone.now`, through which the house asks for it.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.db.models import F, Q
from django.utils import timezone

from pipeline import signals
from pipeline.models import Act, Merge, Story

STEP = timedelta(seconds=10)
"""Below this the wall clock was only steered (NTP)."""
AHEAD = timedelta(minutes=5)
"""A row dated further ahead was written under a clock that was set back since, or by a host whose clock is wrong."""


def boot_seconds() -> float:
    """Seconds since this machine started, sleep included: elapsed time that no set clock changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def before(field: str, moment: datetime) -> Q:
    """Rows dated before a moment; those dated far ahead of now count too, since nobody knows how old they are."""
    return Q(**{f"{field}__lt": moment}) | Q(**{f"{field}__gt": timezone.now() + AHEAD})


def stepped(by: timedelta, host: str) -> None:
    """Somebody set this host's wall clock, by so much; inside the caller's transaction.

    Set back, every wait keeps its length: it would last that much longer, and too early a try costs one refusal, too late
    a one a day. Set ahead, waits end early, which is as harmless.
    """
    if by < timedelta(0):
        now = timezone.now()
        Story.objects.filter(not_before__gt=now).update(not_before=F("not_before") + by)
        Merge.objects.filter(next_try__gt=now).update(next_try=F("next_try") + by)
        signals.clock_set_back.send(sender=None, by=by)
    how = "back" if by < timedelta(0) else "ahead"
    why = f"The wall clock was set {how} by {abs(by).total_seconds():.0f} s. Waits keep their length or end early; nothing else follows from it."
    Act.objects.create(actor="server", verb="clock.set", subject=f"host {host}", why=why)
