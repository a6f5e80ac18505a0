"""Keys in a memory-mapped B+ tree: the embedded twin of a key-value server.

LMDB was chosen for readers that take no lock and copy nothing on the way: one entity of fifty features is read in
about two microseconds, from any number of processes beside the one writer.

How durable a write is: the environment is opened without ``metasync``. A commit then syncs its pages and leaves the
page that points at them to the operating system, which may lose the newest writes at a loss of power and never the
consistency. A durable write syncs that page too. The faster ``sync=False`` is only for what can be made again: at a
loss of power the pointer may reach the disk before the pages do, and LMDB does not notice.

LMDB has one writer at a time, and deciding what to write often costs more than writing it. So an update decides on a
snapshot, without the lock, and takes it only to look whether what it read still stands, and to store: processes that
change different keys decide at the same time.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from retrodict.core.errors import (
    ConfigurationError,
    IntegrityError,
    InternalError,
    RetrodictError,
    RetryableError,
)
from retrodict.stores._durable import closing, make_folder
from retrodict.stores._ownership import check_usable
from retrodict.stores.keys.base import KeyStore, SnapshotReads, check_keys

__all__ = ["LmdbKeys"]

_READERS = 1022
_READER_TABLE = 1 << 16  # bytes of the lock file for so many readers
_SPARE = 32
_PAGE_HEAD, _NODE_HEAD = 16, 8  # bytes before the places of a page's items, and before each key
_FEW = 3  # items of a page that is filled whole
_UNLOCKED = 3  # times an update decides without the lock before it holds the others up

Change = Callable[[list[bytes | None]], Mapping[bytes, bytes | None]]


class _Shared:
    """One environment per folder and process: LMDB's file locks break when a process opens the same files twice."""

    def __init__(self, path: Path, map_size: int, synced: bool) -> None:
        make_folder(path)
        self.path, self.users = path, 0
        self.deciding: set[int] = set()  # threads inside a write, to refuse a nested one instead of hanging
        for file in (path / "lock.mdb", path / "data.mdb"):
            if os.path.lexists(file) and not file.is_file():  # opening a FIFO would wait for ever
                raise IntegrityError("a key store must be of regular files", where=str(file), got="something else",
                                     remedy="Take it away; online state is built anew from tables")  # fmt: skip
        _reserve(path, path / "lock.mdb", _READER_TABLE)
        try:
            self.env = lmdb.open(
                str(path), map_size=map_size, metasync=False, sync=synced, max_readers=_READERS, max_spare_txns=_SPARE
            )
        except lmdb.Error as error:
            raise _translated(error, path) from error
        self.page: int = self.env.stat()["psize"]
        data = path / "data.mdb"
        self.file = _file(data)
        needed = (self.env.info()["last_pgno"] + 1) * self.page
        self.short = data.stat().st_size < needed
        try:
            _reserve(path, data, needed)
        except RetrodictError:
            self.env.close()
            raise
        self.env.reader_check()  # slots of readers that died would keep old pages alive
        self._data = str(data)

    def stands(self) -> bool:
        return _file(self._data) == self.file


def _reserve(path: Path, file: Path, size: int) -> None:
    """Have the bytes of a mapped file on disk: a process that touches one that is not, or beyond the end, is killed."""
    try:
        with closing(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)) as descriptor:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        raise _refused(path, error) from error


def _file(file: Path | str) -> tuple[int, int] | None:
    """What a name stands for; None for nothing."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


_OPEN: dict[Path, _Shared] = {}
_OPEN_LOCK = threading.Lock()
_INHERITED: list[_Shared] = []
_STORES: weakref.WeakSet[LmdbKeys] = weakref.WeakSet()


def _after_fork() -> None:
    # Closing an inherited environment would clear the parent's reader slots, so it is only put out of reach.
    global _OPEN_LOCK  # noqa: PLW0603 - the parent may have held the old one at the moment of the fork
    _INHERITED.extend(_OPEN.values())
    for store in list(_STORES):
        store._refuse(_across_fork)  # noqa: SLF001 - same module
    _OPEN.clear()
    _OPEN_LOCK = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _refused(path: Path, error: Exception) -> RetryableError:
    return RetryableError(
        "the disk must take the pages of the key store; nothing of this write was stored",
        where=f"key store {path.name}", got=type(error).__name__, remedy="Make room on the disk, and try again",
    )  # fmt: skip


def _translated(error: lmdb.Error, path: Path) -> RetrodictError:
    """Our error for one of LMDB's; texts of LMDB hold no keys or values."""
    where = f"key store {path.name}"
    if isinstance(error, lmdb.MapFullError):
        return ConfigurationError(
            "the key store must stay below its map_size; nothing of this write was stored",
            where=where,
            remedy="Open it with a larger map_size (it costs address space, not disk)",
            got="a full map",
        )
    if isinstance(error, lmdb.MapResizedError):
        return RetryableError(
            "the map must be as large as the key store, which another process has enlarged",
            where=where,
            remedy="Close it and open it again",
            got="a smaller map",
        )
    if isinstance(error, lmdb.ReadersFullError):
        return RetryableError(
            f"at most {_READERS} reads must run at once",
            where=where,
            remedy="Try again, or end long scans",
            got="one more",
        )
    if isinstance(error, lmdb.CorruptedError | lmdb.InvalidError | lmdb.PageNotFoundError | lmdb.VersionMismatchError
                  | lmdb.PanicError):  # fmt: skip
        return IntegrityError(
            f"the file must be an intact key store ({error})",
            where=where,
            remedy="Restore or rebuild it",
            got="a damaged one",
        )
    if isinstance(error, lmdb.DiskError) or (type(error) is lmdb.Error and getattr(error, "code", 0) > 0):
        return _refused(path, error)  # LMDB's own codes are negative, the system's are not
    return InternalError(
        "LMDB must take the call", where=where, got=type(error).__name__, remedy="Report it with the version of lmdb"
    )


class LmdbKeys(KeyStore, SnapshotReads):
    """Embedded twin of :class:`~retrodict.stores.keys.base.KeyStore`.

    Objects of one folder within a process share one environment, so opening it again is cheap. It is not carried
    across ``fork``: a child of a process that has it open cannot use it (start workers with *spawn*, or open it after
    the fork). A write waits without limit for the writer before it; LMDB lets go of a writer that was killed. A scan
    that is left standing keeps the pages of its state from being used again: finish it or close it.

    Parameters
    ----------
    path : Path
        Folder of the store.
    map_size : int, default 16 GiB
        Most bytes it may ever hold: address space, not disk. Opening with a larger one enlarges the store.
    synced : bool, default True
        False for what is made again after a loss of power, which may then damage the store: a write that need not be
        durable waits for no disk, and survives ``kill -9`` all the same.

    Raises
    ------
    IntegrityError
        If the folder holds something that is no key store.
    RetryableError
        If the disk has no room for the pages that are mapped.

    Examples
    --------
    >>> import tempfile
    >>> keys = LmdbKeys(Path(tempfile.mkdtemp()))
    >>> keys.put_many({b"a": b"1", b"b": b"2"})
    >>> keys.get_many([b"b", b"c"])
    [b'2', None]
    >>> keys.close()
    """

    def __init__(self, path: Path, *, map_size: int = 16 << 30, synced: bool = True) -> None:
        self._path = Path(os.path.realpath(path))  # which a link to itself does not end
        self._refusal: Callable[[Path], None] | None = None
        with _OPEN_LOCK:
            if any(shared.path == self._path for shared in _INHERITED):
                _across_fork(self._path)
            shared = _OPEN.get(self._path)
            if shared is None or not shared.stands():
                shared = _OPEN[self._path] = _Shared(self._path, map_size, synced)
            shared.users += 1
        self._shared = shared
        # Reads call this with no check before it: a closed or inherited store gets a function that raises.
        self._begin: Callable[..., lmdb.Transaction[Any]] = shared.env.begin
        _STORES.add(self)

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self._path

    def check_length(self) -> None:
        """IntegrityError if its file was cut off before it was opened.

        Or its last pages were free and never written: only for a store that can be made again.
        """
        if self._shared.short:
            raise IntegrityError("the file must be as long as its pages", where=f"key store {self._path.name}",
                                 got="a shorter one", remedy="Rebuild it")  # fmt: skip

    def stands(self) -> bool:
        """Whether its folder still holds the file that is open; about a microsecond."""
        return self._shared.stands()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.get_revised(keys)[1]

    def get_revised(self, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        try:
            with self._begin() as txn:
                get, revision = txn.get, txn.id()  # of a read: the number of the newest commit that it sees
                values = [get(key) for key in keys]
        except lmdb.BadValsizeError:
            check_keys(keys)  # says which
            raise
        except lmdb.Error as error:
            raise _translated(error, self._path) from error
        if None in values:
            check_keys(keys)  # LMDB answers "not there" to a key that is too long; a hit needs no check
        return revision, values

    @contextmanager
    def reading(self) -> Iterator[Callable[[bytes], memoryview | None]]:
        try:
            with self._begin(buffers=True) as txn:
                yield txn.get
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    def put_many(self, items: Mapping[bytes, bytes | None], *, durable: bool = True) -> None:
        with self._writing(durable) as txn:
            _apply(txn, items, self._shared.page)

    def update(self, keys: Sequence[bytes], change: Change, *, durable: bool = True) -> None:
        check_keys(keys)
        for _ in range(_UNLOCKED):
            values, seen = self._snapshot(keys)
            with self._deciding():
                items = change(list(values))
            with self._writing(durable) as txn:
                # Nobody wrote since, or somebody wrote something else.
                if txn.id() == seen + 1 or [txn.get(key) for key in keys] == values:
                    _apply(txn, items, self._shared.page)
                    return
        with self._writing(durable) as txn:
            _apply(txn, change([txn.get(key) for key in keys]), self._shared.page)

    def _snapshot(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], int]:
        """Values of some keys, and the number of the transaction that wrote the newest of all."""
        try:
            with self._begin() as txn:
                return [txn.get(key) for key in keys], txn.id()
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    def scan(self, prefix: bytes, *, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        if self._refusal:
            self._refusal(self._path)
        return self._scan(prefix, prefix if start is None else max(prefix, start))

    def _scan(self, prefix: bytes, begin: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._begin() as txn, txn.cursor() as cursor:
                if not (cursor.set_range(begin) if begin else cursor.first()):
                    return
                for key, value in cursor:
                    if not key.startswith(prefix):
                        return
                    yield key, value
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    def close(self) -> None:
        if self._refusal:
            return
        self._refuse(_closed)
        with _OPEN_LOCK:
            self._shared.users -= 1
            if self._shared.users == 0:
                if _OPEN.get(self._path) is self._shared:
                    del _OPEN[self._path]
                self._shared.env.sync(True)
                self._shared.env.close()

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[lmdb.Transaction[bytes]]:
        if self._refusal:
            self._refusal(self._path)
        if threading.get_ident() in self._shared.deciding:
            raise InternalError(
                "the change function of an update must not write, which may wait for itself forever",
                where=f"key store {self._path.name}",
                remedy="Return the items from the function instead",
                got="a write inside it",
            )
        try:
            with self._shared.env.begin(write=True) as txn, self._deciding():
                yield txn
            if durable:
                self._shared.env.sync(True)
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Note that this thread is inside a write."""
        self._shared.deciding.add(threading.get_ident())
        try:
            yield
        finally:
            self._shared.deciding.discard(threading.get_ident())

    def _refuse(self, refusal: Callable[[Path], None]) -> None:
        def begin(*, buffers: bool = False) -> lmdb.Transaction[Any]:  # noqa: ARG001 - as the function it replaces
            refusal(self._path)
            raise AssertionError  # a refusal raises

        self._refusal, self._begin = refusal, begin


def _apply(txn: lmdb.Transaction[bytes], items: Mapping[bytes, bytes | None], page: int) -> None:
    check_keys(items)
    removed = [key for key, value in items.items() if value is None]
    for key in removed:
        txn.delete(key)
    stored = sorted((key, value) for key, value in items.items() if value is not None)
    with txn.cursor() as cursor:
        cursor.putmulti(_openings(stored, cursor, page))
        cursor.putmulti(stored)


def _openings(items: list[tuple[bytes, bytes]], cursor: lmdb.Cursor, page: int) -> list[tuple[bytes, bytes]]:
    """First keys of the pages that items in order are to fill, each with a value that takes half of a page.

    LMDB leaves pages half empty behind items that come in order before a key that is there. Of such halves it leaves
    one on each page, and what is put next goes where they are. A tenth stays free, since values grow: a full page would
    soon be two half empty ones. Where the store has a key between those of a page, it has pages.
    """
    room, pages, used = page - _PAGE_HEAD, list[list[bytes]](), 0
    half = room // 2 - 2
    for key, value in items:
        size = _NODE_HEAD + len(key) + len(value)
        size = ((size if size <= half else _NODE_HEAD + len(key) + 8) + 3) & ~1  # longer values have pages of their own
        if not pages or used + size > (room if len(pages[-1]) < _FEW else room * 9 // 10):
            pages.append([])
            used = 0
        pages[-1].append(key)
        used += size
    return [
        (keys[0], bytes(half - _NODE_HEAD - len(keys[0])))
        for keys in pages
        if len(keys) > 1 and (not cursor.set_range(keys[0]) or bytes(cursor.key()) > keys[-1])
    ]


def _closed(path: Path) -> None:
    check_usable("a key store", where=f"key store {path.name}", owner=os.getpid(), closed=True)


def _across_fork(path: Path) -> None:
    check_usable("a key store", where=f"key store {path.name}", owner=os.getppid(), closed=False)
