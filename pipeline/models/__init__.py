"""What the pipeline remembers: one noun per file."""

from pipeline.models.event import Event, EventCounter
from pipeline.models.gate import GateRun
from pipeline.models.merge import Merge
from pipeline.models.process import LogPart, Process
from pipeline.models.project import Membership, Project, ProjectVersion
from pipeline.models.server import Act, Capacity, Host
from pipeline.models.story import Criterion, Dependency, StageChange, Story

__all__ = [
    "Act",
    "Capacity",
    "Criterion",
    "Dependency",
    "Event",
    "EventCounter",
    "GateRun",
    "Host",
    "LogPart",
    "Membership",
    "Merge",
    "Process",
    "Project",
    "ProjectVersion",
    "StageChange",
    "Story",
]
