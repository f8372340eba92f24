"""What the commands of people share: verbs, `--json`, and errors as one sentence on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, handle_default_options
from django.db import OperationalError, ProgrammingError, connections

from pipeline import conf
from pipeline.datafolder import SECRET_KEY
from pipeline.exceptions import NotFound, Refused
from pipeline.models import Project
from pipeline.texts import storable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NO_TABLE = re.compile(r"no such table|unable to open database file|relation .* does not exist", re.I)

Run = Callable[[dict[str, Any]], Any]


class VerbCommand(BaseCommand, ABC):
    """A command whose first word is a verb, and whose answer is also JSON.

    A subclass calls `verb` in `add_verbs`; the verb's function gets the options and returns the JSON data, after it
    said what people read with `say`, which is silent under `--json`.
    """

    requires_system_checks: tuple[str, ...] = ()
    as_json = False

    @abstractmethod
    def add_verbs(self) -> None:
        """Call `verb` for each."""

    def add_arguments(self, parser: CommandParser) -> None:
        self._verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
        self.add_verbs()

    def verb(self, name: str, run: Run, help: str) -> ArgumentParser:
        parser: ArgumentParser = self._verbs.add_parser(name, help=help, description=help)
        parser.add_argument(
            "--json", action="store_true", dest="as_json", help="answer with JSON on standard output"
        )
        parser.set_defaults(run=run)
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json = bool(options.get("as_json"))
        answer = translated(lambda: options["run"](words_of(options)))
        if self.as_json and answer is not None:
            self.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False))

    def say(self, text: str) -> None:
        if not self.as_json:
            self.stdout.write(plain(text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], none: str) -> None:
        """Columns for people; `none` is said when there are no rows."""
        say_table(self.say, head, rows, none)

    def run_from_argv(self, argv: list[str]) -> None:
        run_as_sentence(self, argv)


def say_table(
    say: Callable[[str], object], head: Sequence[str], rows: Sequence[Sequence[object]], none: str
) -> None:
    """Columns for people, a line at a time; `none` is said when there are no rows."""
    if not rows:
        say(none)
        return
    cells = [list(head), *([plain(str(cell if cell is not None else "-")) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_as_sentence(command: Any, argv: list[str]) -> None:
    """As Django's, but an error is its sentence alone, and a reader that went away is no error."""
    command._called_from_command_line = True
    parser = command.create_parser(argv[0], argv[1])
    options = parser.parse_args(argv[2:])
    handle_default_options(options)
    words = vars(options)
    try:
        require_home()
        translated(lambda: words_of(words))
        command.execute(*words.pop("args", ()), **words)
    except CommandError as error:
        if options.traceback:
            raise
        sys.stderr.write(f"huskies: {plain(str(error))}\n")
        sys.exit(error.returncode)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        connections.close_all()


def words_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options, when the database can take every word of them. Raises BadInput."""
    for name, value in options.items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str):
                storable(word, f"value of {name.replace('_', ' ')}")
    return options


def require_home() -> None:
    """A command before the first `up` would sign and store with a key that nobody knows afterwards."""
    if settings.SECRET_KEY != _read_key() and not os.environ.get("HUSKIES_SECRET_KEY", "").strip():
        raise CommandError(
            f"There is no huskies at {conf.home()} yet. Start it once with `./huskies up` (HUSKIES_HOME names the folder)."
        )


def _read_key() -> str | None:
    try:
        return (conf.home() / SECRET_KEY).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def translated(call: Callable[[], Any]) -> Any:
    """A refusal, or a database that is not set up, as the sentence of a CommandError."""
    try:
        return call()
    except Refused as refused:
        raise CommandError(refused.message) from refused
    except (OperationalError, ProgrammingError) as error:
        if NO_TABLE.search(str(error)):
            raise CommandError(
                f"The database of {conf.home()} is not set up. Start the server once with `./huskies up`."
            ) from error
        raise CommandError(
            f"The database cannot be used: {error}. Look at DATABASE_URL and whether it is up."
        ) from error


def plain(text: str) -> str:
    """Text that cannot steer a terminal: control characters are shown as what they are not."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def find_project(name: str) -> Project:
    project = Project.objects.filter(name=name).first()
    if project is None:
        known = ", ".join(Project.objects.order_by("name").values_list("name", flat=True)[:20])
        raise NotFound(
            f"There is no project {name!r}. "
            + (f"There are: {known}." if known else "Add one with `project add`.")
        )
    return project


def the_project(name: str | None) -> Project:
    """The project of that name; without one, the only project there is. Raises NotFound."""
    if name:
        return find_project(name)
    projects = list(Project.objects.order_by("name")[:2])
    if len(projects) == 1:
        return projects[0]
    raise NotFound(
        "Name the project with --project."
        if projects
        else "There is no project yet; add one with `project add`."
    )
