"""The code of a project as one content-addressed object: what a run, a deployment and a decision point at.

All Python files of the project's folder are kept as text in one JSON object. A commit id alone was rejected: it says
nothing about uncommitted lines, and a project need not be under version control at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrodict.core.errors import DefinitionError, IntegrityError
from retrodict.core.identity import canonical_json, short
from retrodict.workspace.definitions import SKIPPED, Definitions, load_definitions
from retrodict.workspace.workspace import Workspace

_GIT_S = 10

__all__ = ["capture_code", "check_code", "commit_of", "definitions_of", "materialise_code", "python_files"]


def capture_code(workspace: Workspace) -> str:
    """Keep the project's Python files and return the SHA-256 of the object.

    Left out are folders that begin with a dot and those called ``__pycache__``, ``venv``, ``state``, ``build``,
    ``dist`` and ``node_modules``; links to folders are not followed.

    Raises
    ------
    DefinitionError
        If a file is not UTF-8, or the definitions module, or one that it imports, is not among the files: it lies in a
        folder that is left out, a linked one or an archive.
    """
    files = {path.relative_to(workspace.root).as_posix(): _read(path) for path in python_files(workspace.root)}
    main = Path(workspace.config["project.definitions"]).as_posix()
    if main not in files:
        raise DefinitionError(
            "the definitions module must be among the Python files of the project that are kept",
            where="retrodict.toml, key 'project.definitions'",
            got=main,
            remedy="Move it to the project's folder",
        )
    imports = load_definitions(workspace.config.path("project.definitions")).files
    imported = {os.path.relpath(file, workspace.root) for file in imports}
    if missing := sorted(file for file in imported - files.keys() if not file.startswith("..")):
        raise DefinitionError(
            "what the definitions import must be among the Python files of the project that are kept",
            where=main,
            got=missing[0],
            remedy="Move it out of the folder that is left out, the archive or the linked folder, or install it",
        )
    return workspace.objects.put(canonical_json({"definitions": main, "files": files}))


def check_code(workspace: Workspace, digest: str) -> str:
    """Digest as it is; refuse definitions that run in the project's folder only, as when they open a file beside them.

    Raises
    ------
    DefinitionError
        If the definitions do not run from the Python files that were kept.
    """
    try:
        definitions_of(workspace, digest)
    except DefinitionError as error:
        raise DefinitionError(
            "the definitions must run from the project's Python files alone: no other file is kept with a version",
            where=workspace.config["project.definitions"],
            got=str(error.__cause__ or error),
            remedy="Write the values into the module, or into a .py file of the project that it imports",
        ) from error
    return digest


def commit_of(root: Path) -> dict[str, Any] | None:
    """Commit that the files of a folder are of: for people; what ran is the code object. None without git or commits.

    Returns
    -------
    dict or None
        ``commit``, ``branch`` (empty where detached), ``dirty``: whether anything in the folder differs from it.
    """

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking must write nothing
        answer = subprocess.run(command, capture_output=True, check=True, timeout=_GIT_S, env=environment)  # noqa: S603  # fixed words
        return answer.stdout.decode().strip()

    try:
        commit = ask("rev-parse", "HEAD")
        dirty = bool(ask("status", "--porcelain", "--", "."))
        return {"commit": commit, "branch": ask("branch", "--show-current"), "dirty": dirty}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def python_files(root: Path) -> Iterator[Path]:
    """Python files of a project that are kept, in order of their paths."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED and not f.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # as it is: read_text would change line ends
    except UnicodeDecodeError as error:
        raise DefinitionError(
            "a Python file of the project must be UTF-8", where=path.name, got=error.reason, remedy="Save it as UTF-8"
        ) from error


def materialise_code(workspace: Workspace, digest: str) -> Path:
    """Write the files of a code object into a folder under the project's state; return the definitions module's path.

    Written once per digest, by rename, so that processes may race. A copy that somebody edited since, or put a file
    into, is written anew: what runs is what the digest names.
    """
    body = json.loads(workspace.objects.get(digest))
    target = workspace.root / "state" / "code" / digest
    if not _is_intact(target, body["files"]):
        target.parent.mkdir(parents=True, exist_ok=True)
        # One at a time: a second writer would rename away what the first has just put there.
        with target.parent.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_intact(target, body["files"]):
                _replace(target, body["files"], digest)
    main: Path = target / body["definitions"]
    return main


def _replace(target: Path, files: dict[str, str], digest: str) -> None:
    """Put a fresh copy in place of a missing or edited one, by rename."""
    import shutil
    import tempfile

    scratch = Path(tempfile.mkdtemp(prefix=f"{short(digest)}.", dir=target.parent))
    try:
        _write(scratch, files, digest)
        if target.is_dir():
            target.rename(scratch / ".edited")  # goes with the scratch folder
        (scratch / ".files").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_intact(target: Path, files: dict[str, str]) -> bool:
    """Whether a copy has these regular files and no other thing: a link to a folder would be a package of its name."""
    present = {path.relative_to(target).as_posix(): path.lstat().st_mode for path in target.rglob("*")}
    names = {name for name, mode in present.items() if not stat.S_ISDIR(mode)}
    regular = all(stat.S_ISREG(present[name]) for name in names)
    return names == files.keys() and regular and all(
        (target / name).read_bytes() == text.encode() for name, text in files.items()
    )  # fmt: skip


def _write(scratch: Path, files: dict[str, str], digest: str) -> None:
    folder = (scratch / ".files").resolve()
    folder.mkdir()
    for name, text in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise IntegrityError(
                "a code object must hold paths inside its folder",
                where=f"object {short(digest)}",
                got=name,
                remedy="Restore the object store from a copy",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def definitions_of(workspace: Workspace, digest: str) -> Definitions:
    """Definitions as a code object has them, whatever the project's files say by now."""
    return load_definitions(materialise_code(workspace, digest))
