"""The chore `fetch`: look at the project's own repository and bring its base branch into the control
repository.

The first fetch makes the control repository and sets its base branch; later ones only note what they saw at
`refs/huskies/upstream/<base>`. Request: `source`, `source_kind` (path, url), `control`, and optionally
`base_branch` and `object_format`."""

from pathlib import Path
from typing import Any

from pipeline.git import names, source
from pipeline.git.control import RefMoved, create_control, move_ref, object_format, read_ref, shallow_boundary
from pipeline.git.reading import is_ancestor, show_file, special_paths
from pipeline.git.refusals import Refused, listed

PROJECT_FILE = ".huskies/project.yaml"
PROJECT_FILE_BYTES = 256 * 1024


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `tip`, `base` (the control repository's own base), `base_branch`, `rewritten`, `layout`,
    `source`, `object_format`, `shallow`, `branches`, `taken_branches`, `project_file`, `project_file_blob`,
    `project_file_problem`."""
    control = names.check_folder(request["control"])
    found = source.open_source(request["source"], request["source_kind"])
    heads = source.read_heads(found)
    base = source.choose_base(found, heads, request.get("base_branch"))
    form = "sha256" if len(heads.branches[base]) == 64 else "sha1"
    wanted = request.get("object_format") or (object_format(control) if control.exists() else form)
    if wanted != form:
        message = f"The repository {found.address} has object format {form}; the project was registered with"
        raise Refused("object_format_changed", f"{message} {wanted}.")
    create_control(control, branch=base, object_format=form)
    print(f"Fetching {base} from {found.address}", flush=True)
    tip = source.fetch_base(control, found, base)
    check_carriable(control, tip, f"The repository {found.address}")
    if read_ref(control, names.branch_ref(base)) is None:
        try:
            move_ref(control, names.branch_ref(base), tip, None, reason="huskies: registered")
        except RefMoved:
            pass  # another fetch was first; what it set is as good
    ours = read_ref(control, names.branch_ref(base)) or tip
    return {
        "tip": tip,
        "base": ours,
        "base_branch": base,
        "rewritten": ours != tip and not is_ancestor(control, ours, tip),
        "source": found.address,
        "layout": found.layout,
        "object_format": form,
        "shallow": bool(shallow_boundary(control)),
        "branches": sorted(heads.branches)[:500],
        "taken_branches": sorted(name for name in heads.branches if name.startswith("huskies/"))[:500],
        **read_project_file(control, tip),
    }


def check_carriable(control: Path, tip: str, subject: str) -> None:
    """Refused `submodules` or `lfs`: a private working copy could not be filled."""
    links, lfs = special_paths(control, tip)
    if links:
        message = (
            f"{subject} cannot be used: it has submodules, which huskies does not fill: {listed(links)}."
        )
        raise Refused("submodules", message, files=links[:50])
    if lfs:
        message = (
            f"{subject} cannot be used: it asks for Git LFS, which huskies does not fetch: {listed(lfs)}."
        )
        raise Refused("lfs", message, files=lfs[:50])


def read_project_file(control: Path, commit: str) -> dict[str, Any]:
    """The project file's text at a commit, None when it has none or none that can be read (then with a
    `problem`)."""
    file = show_file(control, commit, PROJECT_FILE, max_bytes=PROJECT_FILE_BYTES)
    answer: dict[str, Any] = {"project_file": None, "project_file_blob": None, "project_file_problem": ""}
    if file is None:
        return answer
    answer["project_file_blob"] = file.blob
    if not file.mode.startswith("100"):
        answer["project_file_problem"] = f"{PROJECT_FILE} is a symbolic link: make it a plain file."
    elif file.cut:
        answer["project_file_problem"] = (
            f"{PROJECT_FILE} is larger than {PROJECT_FILE_BYTES // 1024} KiB: shorten it."
        )
    else:
        try:
            answer["project_file"] = file.data.decode()
        except UnicodeDecodeError as error:
            answer["project_file_problem"] = (
                f"{PROJECT_FILE} is not UTF-8 (byte {error.start}): save it as UTF-8."
            )
    return answer
