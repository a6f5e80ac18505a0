"""Where tables lie: what a folder and a bucket must offer so that everything above is one.

A place moves bytes and knows how its medium makes them durable and a name unique; it knows nothing of rows.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from retrodict.core.errors import ConfigurationError, RetrodictError, RetryableError
from retrodict.stores._durable import make_folder, read_file, sync_file, sync_folder, write_draft
from retrodict.stores._locks import FileLock

_logger = logging.getLogger(__name__)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_DENIED_WORDS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET", "HTTP status 403")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a table as the medium has it: path inside the table, bytes, time of its last change in µs."""

    path: str
    size: int
    time: int


class Place(Protocol):
    """What a medium offers; ``name`` is a table, paths are those inside it."""

    @property
    def filesystem(self) -> pafs.FileSystem:
        """File system of the data files."""

    def path(self, name: str, path: str) -> str:
        """Path of a data file in the file system."""

    def lock(self, name: str, *, where: str, timeout_s: float) -> AbstractContextManager[object]:
        """Hold other writers off, where the medium can."""

    def names(self) -> list[str]:
        """Folders that hold the entry 0 of a log."""

    def log(self, name: str) -> dict[str, object]:
        """File names of the log, each with something that changes when the file does."""

    def entries(self, name: str, files: Sequence[str]) -> list[bytes]:
        """Bytes of files of the log; FileNotFoundError if one is missing."""

    def commit(self, name: str, file: str, data: bytes) -> bool:
        """Put a whole entry under its name, durably, unless the name is taken (False)."""

    def prepare(self, name: str) -> None:
        """Make room for a table."""

    def settle(self, name: str, paths: Sequence[str]) -> None:
        """Make written data files durable."""

    def stored(self, name: str) -> list[Stored]:
        """All Parquet files of a table outside its log, and drafts of entries."""

    def sizes(self, name: str, paths: Sequence[str]) -> dict[str, int]:
        """Bytes of data files, as far as they exist."""

    def remove(self, name: str, paths: Iterable[str]) -> None:
        """Delete files; one that is gone is no error."""

    def checkpoint(self, name: str) -> None:
        """Sum the log up for other readers; failing is no harm."""


class Folder:
    """Tables in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.filesystem = pafs.LocalFileSystem()

    def path(self, name: str, path: str) -> str:
        return str(self._root / name / path)

    def lock(self, name: str, *, where: str, timeout_s: float) -> AbstractContextManager[object]:
        return FileLock(self._root / ".locks" / name, where=where, timeout_s=timeout_s)

    def names(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return [path.name for path in self._root.iterdir() if (path / "_delta_log" / f"{0:020d}.json").is_file()]

    def log(self, name: str) -> dict[str, object]:
        marks: dict[str, object] = {}
        try:
            with os.scandir(self._root / name / "_delta_log") as items:
                for item in items:
                    state = item.stat(follow_symlinks=item.is_file())
                    marks[item.name] = (state.st_size, state.st_mtime_ns, state.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return marks

    def entries(self, name: str, files: Sequence[str]) -> list[bytes]:
        return [read_file(self._root / name / "_delta_log" / file) for file in files]

    def commit(self, name: str, file: str, data: bytes) -> bool:
        folder = self._root / name / "_delta_log"
        make_folder(folder)
        draft = folder / f"_commit_{os.urandom(8).hex()}.json.tmp"
        try:
            write_draft(draft, data)
            # A link fails if the name exists, where a rename would replace another program's commit.
            os.link(draft, folder / file)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        try:
            sync_folder(folder)
        except OSError:
            (folder / file).unlink()
            raise
        return True

    def prepare(self, name: str) -> None:
        make_folder(self._root / name)

    def settle(self, name: str, paths: Sequence[str]) -> None:
        for path in paths:
            sync_file(self._root / name / path)
        sync_folder(self._root / name)

    def stored(self, name: str) -> list[Stored]:
        folder, files = self._root / name, []
        for pattern in ("*.parquet", "_delta_log/_commit_*.json.tmp"):
            for path in folder.glob(pattern):
                state = path.stat()
                files.append(Stored(str(path.relative_to(folder)), state.st_size, state.st_mtime_ns // 1_000))
        return files

    def sizes(self, name: str, paths: Sequence[str]) -> dict[str, int]:
        infos = self.filesystem.get_file_info([self.path(name, path) for path in paths])
        return {path: info.size for path, info in zip(paths, infos, strict=True) if info.is_file}

    def remove(self, name: str, paths: Iterable[str]) -> None:
        for path in paths:
            (self._root / name / path).unlink(missing_ok=True)
        if (self._root / name).is_dir():
            sync_folder(self._root / name)

    def checkpoint(self, name: str) -> None:
        checkpoint(str(self._root / name), name, {})


def checkpoint(uri: str, name: str, options: dict[str, str]) -> None:
    """Let the library sum the log up; this store itself reads entries only, so a failure costs others some time."""
    try:
        DeltaTable(uri, storage_options=options or None).create_checkpoint()
    except (DeltaError, OSError) as error:
        _logger.warning("table %s: no checkpoint for other readers (%s)", name, type(error).__name__)


@contextmanager
def mapping(where: str) -> Iterator[None]:
    """Raise the core error for what a medium answers in the block."""
    try:
        yield
    except OSError as error:
        if isinstance(error, RetrodictError):
            raise
        raise mapped(error, where) from error


def mapped(error: OSError, where: str) -> RetrodictError:
    """Core error for what a medium answered while something was written or read."""
    text = str(error)
    if error.errno in _FULL:
        return RetryableError(
            "the disk must have room for the data, and no limit on the size of files be in the way",
            where=where,
            got=f"disk full: {os.strerror(error.errno)}",
            remedy="Nothing was changed. Free some space, then try again",
        )
    if error.errno in _DENIED or any(word in text for word in _DENIED_WORDS):
        return ConfigurationError(
            "this process must have permission for the place of the tables, which must exist",
            where=where,
            got="permission denied",
            remedy="Nothing was changed. Check who may write there, and the credentials of a bucket",
        )
    return RetryableError(
        "the place of the tables must answer",
        where=where,
        got=error.strerror or type(error).__name__,
        remedy="Try again; if it stays, look at the medium",
    )
