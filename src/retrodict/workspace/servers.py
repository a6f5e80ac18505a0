"""Whether a server of a project runs on this machine: each holds a lock, which ends with it, also after ``kill -9``.

A lock on a range (of an open file) was chosen over ``flock``: it can be asked about without being taken, so that two
who look at once do not take each other for a server, and it is enough that they may read.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrodict.stores._durable import closing, make_folder, open_file
from retrodict.stores._locks import lock_range
from retrodict.workspace.workspace import Workspace

__all__ = ["announce_server", "is_served", "server_url"]


def server_url(workspace: Workspace) -> str:
    """Address at which a server of this project answers, by its configuration."""
    host = workspace.config["serving.host"]
    # What a server listens on is not always what a caller can connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    scheme = "https" if workspace.config["serving.certificate"] else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{workspace.config['serving.port']}"


def _path(workspace: Workspace) -> Path:
    return workspace.root / "state" / "serving.lock"


@contextmanager
def announce_server(workspace: Workspace) -> Iterator[None]:
    """Be known as a server of the project for as long as the block, or the process, lasts."""
    make_folder(_path(workspace).parent)
    with closing(open_file(_path(workspace), os.O_RDONLY | os.O_CREAT)) as descriptor:
        lock_range(descriptor, fcntl.F_OFD_SETLK, fcntl.F_RDLCK)
        yield


def is_served(workspace: Workspace) -> bool:
    """Whether a server of the project runs, on this machine or one that shares its folder's locks."""
    try:
        with closing(open_file(_path(workspace))) as descriptor:
            return lock_range(descriptor, fcntl.F_OFD_GETLK, fcntl.F_WRLCK) != fcntl.F_UNLCK
    except OSError:  # no server has ever run here
        return False
