"""Addresses of projects and of their artifacts, and the runs that this process has open for MLflow."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from retrodict.core.errors import InputError
from retrodict.learning.runs.tracker import OpenRun
from retrodict.workspace import Workspace

__all__ = ["OPEN", "artifact_address", "read_address", "workspace_of"]

_RUNS = "/-/runs/"
_WORKSPACES: dict[Path, Workspace] = {}
_LOCK = threading.Lock()

OPEN: dict[str, OpenRun] = {}
"""Runs that go on in this process, by ULID: MLflow's calls name a run, and may come from any thread."""


def workspace_of(address: str) -> Workspace:
    """Project of an address, ``retrodict:///path/to/project``; opened once in a process."""
    root, _ = read_address(address)
    with _LOCK:
        if root not in _WORKSPACES:
            _WORKSPACES[root] = Workspace(root)
        return _WORKSPACES[root]


def artifact_address(root: Path, run: str, folder: str = "") -> str:
    """Address of the artifacts of a run, or of one folder of them."""
    return f"retrodict://{root}{_RUNS}{run}/{folder}".rstrip("/")


def read_address(address: str) -> tuple[Path, tuple[str, str] | None]:
    """Folder of the project, and run and folder where the address is of artifacts."""
    parts = urlsplit(address)
    path, inside, rest = unquote(parts.path).partition(_RUNS)
    if parts.scheme != "retrodict" or parts.netloc or not path:
        raise InputError("an address of a project must read retrodict:///path/to/project", where="MLflow",
                         got=address, remedy="Write three slashes before the path")  # fmt: skip
    run, _, folder = rest.partition("/")
    return Path(path).resolve(), (run, folder) if inside else None
