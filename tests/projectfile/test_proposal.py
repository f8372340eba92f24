from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.agentfile import DEFAULT_AGENTS, agents_of
from pipeline.projectfile import CONTENTS_WANTED, ProjectFile, SectionParser, parse, propose

NPM_TEST = json.dumps({"scripts": {"test": "vitest"}})
VENV = "python3 -m venv .venv && echo '*' > .venv/.gitignore"
PIP = ".venv/bin/python -m pip install"

KINDS: dict[str, tuple[Iterable[str], Mapping[str, str], str | None, dict[str, tuple[str, ...]]]] = {
    "a script of its own": (["script/test", "go.mod"], {}, "./script/test", {}),
    "huskies itself": (
        ["huskies", "pyproject.toml", "tests/x.py"],
        {"pyproject.toml": "[project]\n[tool.pytest.ini_options]\n"},
        "./huskies test",
        {".": (VENV, f"{PIP} -e . pytest")},
    ),
    "make": (["Makefile"], {"Makefile": "all: x\n\ntest: x\n\techo\n"}, "make test", {}),
    "make with a check": (["Makefile"], {"Makefile": "check:\n\techo\n"}, "make check", {}),
    "make without a test, Python": (
        ["Makefile", "requirements.txt", "conftest.py"],
        {"Makefile": "test := x\nall:\n", "requirements.txt": "django\npytest\n"},
        ".venv/bin/python -m pytest",
        {".": (VENV, f"{PIP} -r requirements.txt")},
    ),
    "npm": (
        ["package.json", "package-lock.json"],
        {"package.json": NPM_TEST},
        "npm test",
        {".": ("npm ci",)},
    ),
    "pnpm": (
        ["package.json", "pnpm-lock.yaml"],
        {"package.json": NPM_TEST, ".gitignore": "node_modules/\n"},
        "pnpm test",
        {".": ("pnpm install --frozen-lockfile",)},
    ),
    "yarn": (
        ["package.json", "yarn.lock"],
        {"package.json": NPM_TEST},
        "yarn test",
        {".": ("yarn install --frozen-lockfile",)},
    ),
    "npm without a test": (
        ["package.json"],
        {"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'},
        None,
        {".": ("npm install --no-package-lock",)},
    ),
    "a broken package.json": (
        ["package.json"],
        {"package.json": "[" * 100_000},
        None,
        {".": ("npm install --no-package-lock",)},
    ),
    "uv": (
        ["pyproject.toml", "uv.lock"],
        {"pyproject.toml": "[project]\n[dependency-groups]\ndev = ['pytest']\n"},
        "uv run python -m pytest",
        {".": ("uv sync",)},
    ),
    "plain Python with unittest": (["manage.py", "app/x.py"], {}, "python3 manage.py test", {}),
    "setup.py with unittest": (
        ["setup.py", "tests/test_x.py"],
        {"setup.py": "setup()"},
        ".venv/bin/python -m unittest discover",
        {".": (VENV, f"{PIP} -e .")},
    ),
    "Rust": (["Cargo.toml", "Cargo.lock", "src/lib.rs"], {}, "cargo test --locked", {}),
    "Go": (["go.mod", "main.go"], {}, "go test ./...", {}),
    "Maven with its wrapper": (["pom.xml", "mvnw"], {}, "./mvnw --batch-mode verify", {}),
    "Ruby": (["Rakefile", "Gemfile"], {}, "bundle exec rake", {".": ("bundle install",)}),
    "two folders": (
        ["api/go.mod", "web/package.json", "docs/a.md"],
        {"web/package.json": NPM_TEST},
        "(cd api && go test ./...) && (cd web && npm test)",
        {"web": ("npm install --no-package-lock",)},
    ),
    "a folder with an unsafe name": (["a b/go.mod", "$(id)/go.mod", "-x/go.mod"], {}, None, {}),
    "a folder called huskies": (["huskies/__init__.py"], {}, None, {}),
    "nothing known": (["README.md", "a.txt"], {}, None, {}),
    "empty": ([], {}, None, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_proposal_fits_the_repository(kind: str, sections: Mapping[str, SectionParser]) -> None:
    paths, contents, command, setups = KINDS[kind]
    file = parse(propose(paths, contents, sections=sections), sections=sections)
    assert (file.gate.command if file.gate else None) == command
    assert {component.path: component.setup for component in file.components} == setups
    assert [agent.name for agent in agents_of(file)] == [agent.name for agent in DEFAULT_AGENTS.agents]


def test_proposal_is_explained_by_comments(sections: Mapping[str, SectionParser]) -> None:
    text = propose(["package.json"], {"package.json": NPM_TEST}, sections=sections)
    assert "(guessed from package.json)" in text
    assert "Let git ignore node_modules" in text
    assert "# The agents." in text
    assert "people accept the work" in propose([], {}, sections=sections)
    assert max(len(line) for line in text.splitlines()) <= 110


def test_proposal_of_an_unknown_repository_changes_nothing_but_words(
    sections: Mapping[str, SectionParser],
) -> None:
    file = parse(propose([], {}), sections={})
    assert file == ProjectFile.default()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(
        st.sampled_from([*CONTENTS_WANTED, "go.mod", "script/test"]) | st.text(max_size=12), max_size=8
    ),
    content=st.text(max_size=80)
    | st.sampled_from([NPM_TEST, "test:\n", "pytest", '{"scripts": {"test": 5}}', "[]"]),
    folder=st.sampled_from(["", "web/"]) | st.text(max_size=6).map(lambda name: f"{name}/"),
)
def test_proposal_for_any_repository_is_readable(
    paths: list[str], content: str, folder: str, sections: Mapping[str, SectionParser]
) -> None:
    names = [folder + path for path in paths]
    parse(propose(names, dict.fromkeys(names, content), sections=sections), sections=sections)
