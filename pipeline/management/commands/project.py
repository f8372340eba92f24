"""`project add|init|list|refresh|approve|reject|accept-history`: the repositories whose stories the server drives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import Run, VerbCommand, find_project
from pipeline.models import Process, Project
from pipeline.models.process import ProcessState
from pipeline.models.project import ProjectState
from pipeline.projectfile import CONTENTS_WANTED, PROJECT_FILE, propose, registered_sections
from pipeline.services import foreground, projects

WAIT_SECONDS = 600.0
MOST_FILE_BYTES = 256 * 1024
SKIPPED_FOLDERS = {".git", "node_modules", ".venv", "venv", "target", "__pycache__"}


class Command(VerbCommand):
    help = (
        "Add a git repository as a project, propose its project file, list the projects, look again, approve."
    )

    def add_verbs(self) -> None:
        add = self.verb("add", self.add, "register a repository: a folder of this machine, or a URL")
        add.add_argument("source", metavar="PATH_OR_URL")
        add.add_argument("--name", help="its name here; default: from the last part of the address")
        add.add_argument(
            "--base", metavar="BRANCH", help="where finished stories land; default: the repository's own"
        )
        add.add_argument(
            "--approve", action="store_true", help="approve its project file at once: you have read it"
        )
        init = self.verb("init", self.init, f"propose a {PROJECT_FILE} for the files in a folder")
        init.add_argument("path", metavar="PATH", nargs="?", default=".")
        init.add_argument(
            "--write", action="store_true", help="write it there; an existing file is never overwritten"
        )
        self.verb("list", self.list, "all projects")
        self.on_project("refresh", self.refresh, "look at the repository again")
        self.on_project("approve", self.approve, "approve the project file that waits")
        self.on_project("reject", self.reject, "reject the project file that waits")
        self.on_project("accept-history", self.accept_history, "accept that the base branch was rewritten")

    def on_project(self, name: str, run: Run, help: str) -> None:
        self.verb(name, run, help).add_argument("name", metavar="NAME")

    def add(self, options: dict[str, Any]) -> dict[str, Any]:
        source = options["source"]
        project = projects.add_project(
            # A relative path is the caller's, not the server's.
            str(Path(source).absolute()) if Path(source).exists() else source,
            actor=OPERATOR_ON_HOST,
            name=options["name"],
            base_branch=options["base"],
        )
        process = Process.objects.filter(project=project, kind="fetch").latest("pk")
        self.see_through(project, process)
        version = projects.proposed_version(project)
        if version is not None and options["approve"]:
            projects.approve_version(version, actor=OPERATOR_ON_HOST)
        return self.tell(project)

    def init(self, options: dict[str, Any]) -> dict[str, Any]:
        folder = Path(options["path"])
        if not folder.is_dir():
            raise CommandError(f"{folder} is no folder; name the top folder of your repository.")
        paths, contents = look_around(folder)
        text = propose(paths, contents, sections=registered_sections())
        target = folder / PROJECT_FILE
        if options["write"]:
            try:
                target.parent.mkdir(exist_ok=True)
                with target.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError as error:
                raise CommandError(f"{target} is there already and was left as it is.") from error
            except OSError as error:
                raise CommandError(f"{target} cannot be written: {error.strerror}.") from error
        if options["write"]:
            self.say(f"Wrote {target}. Read it, change what does not fit, commit it to the base branch.")
        else:
            self.say(text.rstrip("\n"))
        return {"path": PROJECT_FILE, "written": bool(options["write"]), "text": text}

    def list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [as_json(project) for project in Project.objects.order_by("name")]
        self.table(
            ["PROJECT", "STATE", "BASE", "REPOSITORY"],
            [[row["name"], row["state"], row["base_branch"] or None, row["source"]] for row in rows],
            "There are no projects yet. `project add PATH_OR_URL` adds one.",
        )
        for row in rows:
            for line in (row["reason"], row["file"]["error"], *row["file"]["needs_approval"]):
                if line:
                    self.say(f"{row['name']}: {line}")
        return rows

    def refresh(self, options: dict[str, Any]) -> dict[str, Any]:
        project = find_project(options["name"])
        self.see_through(project, projects.refresh(project, actor=OPERATOR_ON_HOST))
        return self.tell(project)

    def approve(self, options: dict[str, Any]) -> dict[str, Any]:
        project = find_project(options["name"])
        version = projects.proposed_version(project)
        if version is None:
            raise CommandError(f"No version of project {project.name}'s file waits for an approval.")
        projects.approve_version(version, actor=OPERATOR_ON_HOST)
        return self.tell(project)

    def reject(self, options: dict[str, Any]) -> dict[str, Any]:
        project = find_project(options["name"])
        version = projects.proposed_version(project)
        if version is None:
            raise CommandError(f"No version of project {project.name}'s file waits for an approval.")
        projects.reject_version(version, actor=OPERATOR_ON_HOST)
        return self.tell(project)

    def accept_history(self, options: dict[str, Any]) -> dict[str, Any]:
        project = find_project(options["name"])
        projects.accept_history(project, actor=OPERATOR_ON_HOST)
        return self.tell(project)

    def see_through(self, project: Project, process: Process) -> None:
        """Until the repository was looked at, with its retries; Ctrl-C leaves it to the server."""
        while True:
            if not foreground.see_through(process, seconds=WAIT_SECONDS):
                raise CommandError(
                    f"Project {project.name} is still being fetched; it goes on by itself. `project list` shows how it stands."
                )
            rows = Process.objects.filter(project=project, kind="fetch").exclude(state=ProcessState.HANDLED)
            following = rows.order_by("pk").first()
            if following is None:
                return
            process = following

    def tell(self, project: Project) -> dict[str, Any]:
        project.refresh_from_db()
        if project.state == ProjectState.REFUSED:
            raise CommandError(f"Project {project.name} was refused. {project.reason}")
        row = as_json(project)
        self.say(f"Project {project.name} is {row['state']}: {row['base_branch']} at {row['tip'][:12]}.")
        for line in (row["reason"], row["file"]["error"]):
            if line:
                self.say(line)
        if row["file"]["needs_approval"]:
            self.say(f"Its project file waits for an approval (`project approve {project.name}`):")
            self.say("\n".join(f"    {line}" for line in row["file"]["needs_approval"]))
        return row


def as_json(project: Project) -> dict[str, Any]:
    """A project as scripts read it."""
    active, proposed = projects.active_version(project), projects.proposed_version(project)
    return {
        "name": project.name,
        "state": project.state,
        "reason": project.reason,
        "source": project.source,
        "kind": project.source_kind,
        "base_branch": project.base_branch,
        "tip": project.tip,
        "file": {
            "active": active.blob if active else None,
            "proposed": proposed.blob if proposed else None,
            "needs_approval": proposed.needs if proposed else [],
            "error": project.file_error,
        },
    }


def look_around(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Paths of two levels, and the texts of the files that a proposal is guessed from."""
    paths: list[str] = []
    contents: dict[str, str] = {}
    for path in sorted(
        [*folder.iterdir(), *(inner for sub in subfolders(folder) for inner in sub.iterdir())]
    ):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            continue
        paths.append(name)
        if path.name in CONTENTS_WANTED and path.is_file() and path.stat().st_size <= MOST_FILE_BYTES:
            contents[name] = path.read_text(encoding="utf-8", errors="replace")
    return paths, contents


def subfolders(folder: Path) -> list[Path]:
    """The folders right in a folder that hold sources; no links, nothing that cannot be read."""
    return [
        each
        for each in folder.iterdir()
        if each.is_dir() and not each.is_symlink() and each.name not in SKIPPED_FOLDERS
    ]
