"""What agent programs obey in a repository: nobody's agent can change it unseen, and no agent obeys what nobody approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import guarded as agents_guarded
from agents.services import pool
from pipeline.models import GateRun
from pipeline.projectfile import guarded
from pipeline.services.stories import perform
from tests import factories
from tests.e2e.shop import Shop, write
from tests.factories import ALICE, git

pytestmark = [pytest.mark.needs_bubblewrap]

HOOKS = '{"hooks": "planted"}'
PLUMB = (
    f"blob=$(echo '{HOOKS}' | git hash-object -w --stdin) && "
    "git update-index --add --cacheinfo 100644,$blob,.claude/settings.json && "
    "mkdir web && echo x > web/.mcp.json && touch broken && git add web broken && git commit -qm trap && "
    "git update-index --skip-worktree .claude/settings.json"
)
"""An agent that cannot write the one file commits it all the same; the other is not at the top, where it could not."""


def run(command: str) -> dict[str, Any]:
    return {"run": command}


def seen(shop: Shop, name: str) -> str:
    return Path(shop.repo, name).read_text()


def test_a_planted_settings_file_is_not_there_for_the_next_session_and_waits_for_an_admin(shop: Shop) -> None:
    look = "(ls -A .claude; ls -A web; git status --porcelain; git log -1 --format=%s) > seen.txt 2>&1; rm broken"
    story = shop.start(shop.open(), [run(PLUMB)], [run(look), write("other.txt")])
    shop.server.until(lambda: shop.fresh(story).needs_approval, what="a wait for an approval")
    story = shop.fresh(story)
    assert (
        "what programs obey that are started in the repository (.claude/settings.json, web/.mcp.json)"
        in story.needs_approval
    )
    first, second = shop.sessions(story)
    assert second.began_at_commit == first.saved
    shop.server.idle()
    assert shop.fresh(story).stage == "merge" and not story.merges.exists()
    perform(story, "approve_files", actor=ALICE)
    shop.server.until(lambda: shop.fresh(story).stage == "done", what="the landing")
    # To git they were as committed: the second session neither saw them nor lost them.
    assert sorted(git("ls-files", cwd=shop.repo).split()) == [
        ".claude/settings.json", ".huskies/project.yaml", "README.md", "check.sh", "other.txt", "seen.txt", "web/.mcp.json",
    ]  # fmt: skip
    assert seen(shop, "seen.txt") == "?? seen.txt\ntrap\n"


def test_what_an_admin_approved_is_there_and_read_only(shop: Shop) -> None:
    tries = (
        "cat .claude/settings.json > seen.txt; (echo x > .claude/settings.json; rm -r .claude; mv .claude .other; "
        "mkdir .gemini/commands; echo x > .env; ln -s /tmp .qwen/link) 2>&1 "
        "| grep -c 'ead-only\\|busy\\|directory' >> seen.txt; true"
    )
    project = shop.open(files={".claude/settings.json": HOOKS})
    story = shop.start(project, [run(tries)])
    shop.server.until(lambda: shop.fresh(story).stage == "done", what="the landing")
    assert seen(shop, "seen.txt") == HOOKS + "6\n"
    assert git("show", "--stat", "--format=", "HEAD", cwd=shop.repo).split()[0] == "seen.txt"


def test_an_agent_merges_what_the_base_changed_of_them(shop: Shop) -> None:
    project = shop.open(files={".claude/settings.json": HOOKS})
    story = shop.start(
        project,
        [run("touch broken"), write("README.md", "mine\n")],
        [
            run(
                "git add -A && git commit -qm mine && git merge -q --no-edit -X ours main > merged.txt 2>&1; rm broken"
            )
        ],
    )
    first = shop.until_ended(shop.sessions(story)[0])
    assert first.outcome == "done"
    (shop.repo / ".claude/settings.json").write_text("of the base")
    git("commit", "-qam", "settings", cwd=shop.repo)
    project.refresh_from_db()
    from pipeline.services import projects

    projects.refresh(project, actor=ALICE)
    shop.server.until(lambda: shop.fresh(story).stage in ("done", "blocked", "merge"), what="its end")
    shop.server.idle()
    assert seen(shop, ".claude/settings.json") == "of the base"


def test_setup_may_make_them_before_the_agent_begins(shop: Shop) -> None:
    setup = [{"name": "web", "setup": "echo SECRET=1 > .env"}]
    project = shop.open(files={".gitignore": ".env\n"}, components=setup)
    story = shop.start(project, [run("cat .env > seen.txt; echo x > .env; true")])
    shop.server.until(lambda: shop.fresh(story).stage == "done", what="the landing")
    assert seen(shop, "seen.txt") == "SECRET=1\n"


@pytest.mark.parametrize(
    ("path", "is_guarded"),
    [
        (".claude/settings.json", True),
        (".claude", True),
        ("web/.Claude/agents/x.md", True),
        (".env", True),
        ("deploy/.env", True),
        (".mcp.json", True),
        ("opencode.jsonc", True),
        (".env.example", False),
        ("claude/x", False),
        ("CLAUDE.md", False),
        ("docs/env", False),
    ],
)
def test_they_are_known_wherever_they_stand(path: str, is_guarded: bool) -> None:
    assert guarded([path]) == ([path] if is_guarded else [])
    assert set(agents_guarded.GUARDED) >= {
        ".claude",
        ".codex",
        ".mcp.json",
        ".gemini",
        ".qwen",
        ".opencode",
        ".env",
    }


def test_the_gate_does_not_care(shop: Shop) -> None:
    """A gate's copy is a clean one of the committed tree: nothing is reserved or held back there."""
    project = shop.open(
        files={
            ".claude/settings.json": HOOKS,
            "check.sh": "test -f .claude/settings.json && test ! -e .qwen\n",
        }
    )
    story = shop.start(project, [write("a.txt")])
    shop.server.until(lambda: shop.fresh(story).stage == "done", what="the landing")
    assert {one.verdict for one in GateRun.objects.all()} == {"passed"}


# ------------------------------------------------------------------------------- the rung of the ladder


def wanted(shop: Shop, **entry: Any) -> tuple[Any, str]:
    """The session of an agent with this entry, or what its story waits for."""
    project = shop.open()
    agent = project.agents.get(name="coder-1")
    agent.entry |= entry
    agent.save()
    started = pool.start_story(factories.story(project), actor=ALICE)
    return started.session, started.queued


@pytest.mark.parametrize(
    ("entry", "allowed", "level", "why"),
    [
        ({}, False, "bubblewrap", ""),
        ({}, True, "bubblewrap", ""),
        ({"network": "off"}, False, "bubblewrap+network", ""),
        ({"network": {"allow": ["pypi.org"]}}, False, "bubblewrap+network", ""),
        ({"sandbox": "bubblewrap"}, True, "bubblewrap", ""),
        ({"sandbox": "limits"}, False, "", "an admin has not allowed project shop"),
        ({"sandbox": "limits"}, True, "limits", ""),
        ({"sandbox": "none"}, True, "none", ""),
        ({"sandbox": "none", "network": "off"}, True, "", "can only be kept within bubblewrap"),
    ],
)
def test_an_agent_runs_at_the_strongest_level_unless_an_admin_allows_less(
    shop: Shop, settings: Any, entry: dict[str, Any], allowed: bool, level: str, why: str
) -> None:
    settings.HUSKIES_UNCONFINED = allowed
    session, queued = wanted(shop, **entry)
    assert (session.sandbox if session else "") == level
    assert why in queued


@pytest.mark.parametrize(
    ("entry", "allowed", "level", "why"),
    [
        ({}, False, "", "bubblewrap is not installed"),
        ({}, True, "limits", ""),
        ({"sandbox": "none"}, True, "none", ""),
        ({"network": "off"}, True, "", "`network: off` can only be kept within bubblewrap"),
    ],
)
def test_without_bubblewrap_an_admins_leave_is_needed_and_processes_are_limited(
    shop: Shop,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    entry: dict[str, Any],
    allowed: bool,
    level: str,
    why: str,
) -> None:
    from pipeline.processes import confine

    settings.HUSKIES_UNCONFINED = allowed
    monkeypatch.setattr(
        confine, "level_available", lambda: confine.Level("none", "bubblewrap is not installed.")
    )
    session, queued = wanted(shop, **entry)
    assert (session.sandbox if session else "") == level
    assert why in queued
