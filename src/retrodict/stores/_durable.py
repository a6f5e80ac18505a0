"""Bytes and names that survive a loss of power: one place that knows which call makes what durable.

A file's bytes need a sync of the file, its name needs a sync of the folder. Both are easy to forget, so the embedded
stores go through these few functions. Libraries that write files for us (Delta's log) are synced by name afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# macOS has no fdatasync; a full sync is the safe stand-in.
sync_data = getattr(os, "fdatasync", os.fsync)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Descriptor of a regular file; OSError for anything else, which could make its reader wait, or read, for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def read_file(path: Path) -> bytes:
    """Bytes of a regular file."""
    with os.fdopen(open_file(path), "rb") as stream:
        return stream.read()


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable."""
    with closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
        os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file that somebody else wrote durable."""
    with closing(os.open(path, os.O_RDONLY)) as descriptor:
        os.fsync(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each new name durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_all(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """Write all bytes at a position; the operating system may take them in pieces."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        position += written
        rest = rest[written:]


def write_draft(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file durably; its name is not."""
    with closing(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)) as descriptor:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)


def place_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put a whole file under its name, durably: a reader sees all of it or no such name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        write_draft(draft, data, mode=mode)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
