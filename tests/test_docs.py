"""The docs name what exists."""

import re
from dataclasses import fields
from pathlib import Path

from django.core.management import get_commands

from agents.agentfile import AgentEntry
from pipeline.projectfile.schema import Component, Gate, ProjectFile
from pipeline.transitions import VERBS

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_the_fault_table_names_exists():
    known = set()
    for path in (ROOT / "tests").rglob("*.py"):
        known |= set(re.findall(r"def (test_\w+)", path.read_text()))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "tests/FAULTS.md").read_text()))
    assert len(named) > 20
    assert named - known == set()


def test_every_command_of_ours_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    ours = [name for name, app in get_commands().items() if app in ("huskies_site", "pipeline", "agents")]
    assert [name for name in ours if f"`{name}" not in readme] == []


def test_every_setting_of_ours_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    settings = (ROOT / "huskies_site/settings.py").read_text()
    named = set(re.findall(r'env\.\w+\("(\w+)"', settings))
    assert [name for name in named if name not in readme] == []


def test_every_key_of_the_project_file_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    keys = {field.name for kind in (ProjectFile, Gate, Component, AgentEntry) for field in fields(kind)}
    assert [name for name in keys - {"sections"} if f"`{name}`" not in readme] == []


def test_every_room_that_the_architecture_names_exists():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = re.findall(r"`((?:pipeline|agents|huskies_site)/[\w/.]*)`", text)
    assert len(rooms) > 15
    assert [room for room in rooms if not (ROOT / room).exists()] == []


def test_every_stage_of_the_walk_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for verb in VERBS.values():
        for stage in verb.sources:
            assert f"| {stage.replace('_', ' ')} |" in readme or stage == "archived"
