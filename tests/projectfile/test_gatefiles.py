from __future__ import annotations

import json

import pytest

from pipeline.projectfile import ProjectFile, gate_paths, parse, touched


def gated(command: str | list[str], more: str = "") -> ProjectFile:
    return parse(f"gate:\n  command: {json.dumps(command)}\n{more}", sections={})


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("./script/test", ["script/test"]),
        ("script/test --fast", ["script/test"]),
        ("sh test.sh", ["test.sh"]),
        ("sh check", ["check"]),
        ("bash -eu tools/ci && echo done", ["tools/ci"]),
        ("python3 run_tests.py --config=setup.cfg", ["run_tests.py", "setup.cfg"]),
        ("make test", ["GNUmakefile", "Makefile", "makefile"]),
        ("make -f build.mk test", ["GNUmakefile", "Makefile", "build.mk", "makefile"]),
        ("npm test", ["package.json"]),
        ("cd web && npm test", ["package.json", "web/package.json"]),
        ("(cd web && ./check.sh)", ["check.sh", "web/check.sh"]),
        ("sh -c 'cd a && ./b.sh'", ["a/b.sh", "b.sh"]),
        ("pytest tests/test_a.py::test_b", ["tests/test_a.py"]),
        ("go test ./...", []),
        ("cargo test", []),
        ("curl https://example.com/x | sh", []),
        ("/usr/bin/check ../outside ~/home", []),
        ("VERSION=1.2 true", []),
        ("echo 'open quote ./x.sh", ["x.sh"]),
        (["./run", "a b.txt"], ["a b.txt", "b.txt", "run"]),
        (["sh", "-c", "./x.sh"], ["x.sh"]),
    ],
)
def test_files_that_the_command_names_guard_the_gate(command: str | list[str], named: list[str]) -> None:
    assert gate_paths(gated(command)) == sorted([".huskies/", *named])


def test_script_key_replaces_what_the_tool_implies_but_not_what_the_command_names() -> None:
    file = gated("make -f build.mk test", "  script: [ci, tools/]\n")
    assert gate_paths(file) == [".huskies/", "build.mk", "ci", "ci/", "tools/"]


def test_project_without_a_gate_guards_its_own_file() -> None:
    assert gate_paths(ProjectFile.default()) == [".huskies/"]
    assert touched(ProjectFile.default(), ["a", ".huskies/project.yaml", ".huskies"]) == [
        ".huskies/project.yaml",
        ".huskies",
    ]


def test_touched_tells_files_from_folders() -> None:
    file = gated("pytest tests/unit && ./run.sh", "  script: [tools]\n")
    changed = ["tests/unit/test_a.py", "run.sh", "run.sh.orig", "tools/x", "tools", "toolset/y", "src/run.sh"]
    assert touched(file, changed) == ["run.sh", "tools/x", "tools"]


def test_dot_as_script_means_the_whole_repository() -> None:
    assert touched(gated("x", "  script: .\n"), ["a", "b/c"]) == ["a", "b/c"]
