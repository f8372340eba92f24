"""What the demo's repository holds, and its three stories with the scripts that the stand-in agents play."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent, indent


@dataclass(frozen=True, slots=True)
class DemoStory:
    title: str
    kind: str
    description: str
    criteria: tuple[str, ...]


def _text(text: str) -> str:
    return dedent(text).lstrip("\n")


BASIC = _text(
    '''
    """The four basic operations."""


    def add(a, b):
        return a + b


    def subtract(a, b):
        return b - a


    def multiply(a, b):
        return a * b


    def divide(a, b):
        return a / b
    '''
)
MENDED = BASIC.replace("return b - a", "return a - b")

FILES: dict[str, str] = {
    "README.md": _text(
        """
        # A small calculator

        Made by the demo of huskies. One of its tests fails: `subtract` has its operands the wrong way round.

        Run the tests with `script/test`.
        """
    ),
    "calculator/__init__.py": "",
    "calculator/basic.py": BASIC,
    "tests/__init__.py": "",
    "tests/test_basic.py": _text(
        """
        import unittest

        from calculator import basic


        class Basic(unittest.TestCase):
            def test_add(self):
                self.assertEqual(basic.add(2, 3), 5)

            def test_subtract(self):
                self.assertEqual(basic.subtract(5, 3), 2)

            def test_divide(self):
                self.assertEqual(basic.divide(6, 3), 2)
        """
    ),
    "script/test": "#!/bin/sh\nexec python3 -B -m unittest discover --verbose\n",
    ".gitignore": "__pycache__/\n",
    ".huskies/project.yaml": _text(
        """
        # How huskies works on this repository.
        default_qa: server
        gate:
          command: script/test
          timeout: 2m
        # Both are stand-ins that play the script in a story's description: no AI, no key, no network.
        agents:
          - name: coder-1
            role: coder
            runtime: scripted
            description: A scripted stand-in, not an AI.
          - name: coder-2
            role: coder
            runtime: scripted
            description: A scripted stand-in, not an AI.
        """
    ),
}


def _write(path: str, content: str) -> str:
    return f"- write:\n    path: {path}\n    content: |\n{indent(content, ' ' * 6)}"


def _story(title: str, kind: str, about: str, script: str, *criteria: str) -> DemoStory:
    note = "The agent of this demo is a stand-in that plays the script below. It is no AI, and needs no key and no network."
    return DemoStory(title, kind, f"{about}\n\n{note}\n\n```script\n{script.strip()}\n```", criteria)


def _turn(*steps: str) -> str:
    """A script of one turn, with a moment between its steps, so that one can watch."""
    return "\n- sleep: 1\n".join(step.strip("\n") for step in steps)


POWER = '"""Powers."""\n\n\ndef power(base, exponent):\n    return base**exponent\n'
POWER_WRONG = POWER.replace("**", "*")
POWER_TEST = _text(
    """
    import unittest

    from calculator.powers import power


    class Powers(unittest.TestCase):
        def test_power(self):
            self.assertEqual(power(2, 5), 32)
    """
)
MEAN = '"""Averages."""\n\n\ndef mean(numbers):\n    numbers = list(numbers)\n    return sum(numbers) / len(numbers)\n'
MEAN_TEST = _text(
    """
    import unittest

    from calculator.averages import mean


    class Averages(unittest.TestCase):
        def test_mean(self):
            self.assertEqual(mean([1, 2, 6]), 3)
    """
)
NEGATIVE_TEST = _text(
    """
    import unittest

    from calculator.basic import subtract


    class Negative(unittest.TestCase):
        def test_result_below_zero(self):
            self.assertEqual(subtract(3, 5), -2)
    """
)
ON_THE_WAY = "say: The tests of this branch are red because subtract is wrong. I mend that on the way, or the gate would stay red."


def _two_turns(first: str, second: str) -> str:
    return f"turns:\n{_as_turn(first)}\n{_as_turn(second)}"


def _as_turn(steps: str) -> str:
    return "  -\n" + indent(steps, "    ")


STORIES: tuple[DemoStory, ...] = (
    _story(
        "Mend subtract",
        "bug",
        "`subtract(5, 3)` gives -2. It should give 2.",
        _turn(
            "- say: I run the tests first, to see the failure.",
            "- run: script/test",
            "- say: subtract has its operands the wrong way round.",
            _write("calculator/basic.py", MENDED),
            _write("tests/test_negative.py", NEGATIVE_TEST),
            "- run: script/test",
            "- commit: Mend subtract",
        ),
        "subtract(5, 3) is 2",
        "A result below zero is tested",
    ),
    _story(
        "Add power",
        "story",
        "Add `power(base, exponent)`. Its first attempt is wrong on purpose: the gate turns red, and the agent is started again with the failure.",
        _two_turns(
            _turn(
                "- say: I add power in a module of its own, with a test.",
                _write("calculator/powers.py", POWER_WRONG),
                _write("tests/test_powers.py", POWER_TEST),
                f"- {ON_THE_WAY}",
                _write("calculator/basic.py", MENDED),
                "- commit: Add power",
            ),
            _turn(
                "- say: The gate says that power(2, 5) is not 32. I multiplied where I should have raised.",
                _write("calculator/powers.py", POWER),
                "- run: script/test",
                "- commit: Raise instead of multiplying",
            ),
        ),
        "power(2, 5) is 32",
    ),
    _story(
        "Add mean",
        "story",
        "Add `mean(numbers)`. There are two coders, so this story waits until one of them is free.",
        _turn(
            "- say: I add mean in a module of its own, with a test.",
            _write("calculator/averages.py", MEAN),
            _write("tests/test_averages.py", MEAN_TEST),
            f"- {ON_THE_WAY}",
            _write("calculator/basic.py", MENDED),
            "- run: script/test",
            "- commit: Add mean",
        ),
        "mean([1, 2, 6]) is 3",
    ),
)
