"""`.huskies/project.yaml`.

Reading it, what needs an approval, and proposing one. Knows no agents, no database.
"""

from pipeline.projectfile.gatefiles import gate_paths, touched
from pipeline.projectfile.guarded import guarded, register_guarded
from pipeline.projectfile.parse import parse
from pipeline.projectfile.problems import PROJECT_FILE, Problem, ProjectFileError
from pipeline.projectfile.proposal import CONTENTS_WANTED, propose
from pipeline.projectfile.risk import Reason, approvals_needed
from pipeline.projectfile.schema import Component, Gate, ProjectFile, gate_hash
from pipeline.projectfile.sections import Claim, Section, SectionParser, register_section, registered_sections

__all__ = [
    "CONTENTS_WANTED",
    "PROJECT_FILE",
    "Claim",
    "Component",
    "Gate",
    "Problem",
    "ProjectFile",
    "ProjectFileError",
    "Reason",
    "Section",
    "SectionParser",
    "approvals_needed",
    "gate_hash",
    "gate_paths",
    "guarded",
    "parse",
    "propose",
    "register_guarded",
    "register_section",
    "registered_sections",
    "touched",
]
