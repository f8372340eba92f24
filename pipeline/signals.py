"""How news travels up to apps that the pipeline has never heard of. All are sent inside the transaction; receivers only write rows."""

from django.dispatch import Signal

stage_changed = Signal()
"""sender=Story, story, verb: Verb, from_stage, actor, why."""
work_must_stop = Signal()
"""sender=Story, story, actor, why: whoever works on the story must stop."""
gate_verdict = Signal()
"""sender=GateRun, run: a gate run for coding is over and was not green."""
story_deleted = Signal()
"""sender=Story, story: its rows go in this transaction."""
project_file_active = Signal()
"""sender=Project, project, file: this version of the project file holds from now on."""
host_silent = Signal()
"""sender=Host, host, since: nothing is heard of the host; what runs there is kept for it."""
host_back = Signal()
"""sender=Host, host: it is heard of again."""
host_lost = Signal()
"""sender=Host, host, actor, why: the host was given up; what ran there is over."""
clock_set_back = Signal()
"""sender=None, by: a negative timedelta; what waits for a moment waits no longer than before."""
host_renamed = Signal()
"""sender=Host, old, new: names of one and the same machine."""
