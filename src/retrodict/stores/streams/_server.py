"""What the stores of streams on a server share: names with a prefix, and the one append that a writer has under way."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from retrodict.core.errors import ConfigurationError, InputError
from retrodict.stores._ownership import Closing, check_usable
from retrodict.stores.streams._names import check_range, check_stream
from retrodict.stores.streams.base import EventStreams, EventWriter

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ServerStreams(Closing, EventStreams):
    """Streams whose names on the server begin with a prefix; ``divider`` is in no name of ours, so no two share one."""

    divider: ClassVar[str]
    longest: ClassVar[int]

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                "the prefix of streams must be up to 64 letters, digits, '_' and '-'",
                where="streams",
                got=prefix,
                remedy="Write it like 'shop'",
            )
        self._prefix = prefix

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        name, where = self._place(stream)
        check_range(stream, start, limit)
        return self._read(name, where, start, limit)

    def end(self, stream: str) -> int:
        return self._bounds(*self._place(stream))[1]

    def names(self, prefix: str = "") -> list[str]:
        begin = self._prefix + self.divider
        names = (name[len(begin) :].replace(self.divider, "/") for name in self._listed() if name.startswith(begin))
        return sorted(name for name in names if name.startswith(prefix))

    def _place(self, stream: str) -> tuple[str, str]:
        """Name of a stream on the server, and what errors call it."""
        name = f"{self._prefix}/{check_stream(stream)}".replace("/", self.divider)
        if len(name) > self.longest:
            raise InputError(
                f"the name of a stream with its prefix must have at most {self.longest} characters on this store",
                where="stream",
                got=len(name),
                remedy="Shorten the name or the prefix",
            )
        return name, f"stream {stream}"

    def _read(self, name: str, where: str, start: int, limit: int | None) -> Iterator[tuple[int, bytes]]:
        raise NotImplementedError

    def _bounds(self, name: str, where: str) -> tuple[int, int]:
        """First offset that is there, and the offset after the last one."""
        raise NotImplementedError

    def _listed(self) -> Iterable[str]:
        """Names on the server, of others too."""
        raise NotImplementedError


class ServerWriter(Closing, EventWriter):
    """Writer of one stream. Threads may share it, forked children may not.

    Records of other writers may come between those of one append. An append that raised stays under way, and the same
    call takes it up where it was interrupted.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._pid, self._mutex, self._closed = os.getpid(), threading.Lock(), False
        self._unfinished: Any = None

    def append(self, records: Sequence[bytes]) -> int:
        with self._mutex:
            check_usable("a stream writer", where=self._where, owner=self._pid, closed=self._closed)
            if not records:
                return self._end()
            batch = list(records)
            if self._unfinished is None or self._unfinished.records != batch:
                self._unfinished = self._begin(batch)
            first = self._finish(self._unfinished)
            self._unfinished = None
            return first

    def close(self) -> None:
        with self._mutex:
            self._closed = True

    def _end(self) -> int:
        raise NotImplementedError

    def _begin(self, records: list[bytes]) -> Any:
        """A new append; it has its ``records``."""
        raise NotImplementedError

    def _finish(self, append: Any) -> int:
        """Offset of its first record, once all are acknowledged."""
        raise NotImplementedError
