"""What the workers of one server tell each other: a piece of shared memory with a slot for each, written by one.

Counters live in the process that counts. A scrape that meets another worker each time would see them jump, so each
publishes its counts here, and whoever is asked answers with the sum of what is published. Published counts only grow: a
worker publishes its own before it answers, and one that replaces a killed worker goes on from its slot. Asking the
others over a socket was rejected: an answer about the server would wait for its slowest worker, or for a dead one.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import zlib
from contextlib import suppress
from typing import Any

import msgspec

from retrodict.core.errors import InternalError

__all__ = ["Board"]

_BUFFER = 1 << 20  # two per slot; memory is taken only as far as it is written
_HEAD = 64
_SLOT = _HEAD + 2 * _BUFFER
_SEQUENCE, _CONNECTIONS = 0, 8  # where they stand in a slot, eight bytes each
_NUMBER = struct.Struct("<q")
_LENGTH = struct.Struct("<II")  # bytes, and their CRC-32
_AWAY = 1 << 62  # connections of a worker that does not answer: nobody leaves one to it
_TRIES = 100


class Board:
    """Shared memory of a supervisor (the last slot) and its workers.

    Promises: a slot has one writer; what is read is what was once written as a whole, also while it is written anew,
    and also after its writer was killed in the middle.

    Parameters
    ----------
    workers : int
    descriptor : int, optional
        Of the memory, in a process that inherits it; None makes it.
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        self.workers, size = workers, (workers + 1) * _SLOT
        self.descriptor = _make(size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, size)
        if descriptor is None:
            for slot in range(workers):
                self.set_connections(slot, None)

    def write(self, slot: int, facts: dict[str, Any]) -> None:
        """Publish facts (anything that JSON holds) in the place of what the slot held."""
        data = msgspec.msgpack.encode(facts)
        if len(data) > _BUFFER - _LENGTH.size:
            raise InternalError("what a worker publishes must fit its slot", where=f"worker {slot}", got=len(data),
                                remedy="Report it; the counts stay as they were")  # fmt: skip
        sequence = self._number(slot, _SEQUENCE) + 1
        start = self._buffer(slot, sequence)
        self._memory[start + _LENGTH.size : start + _LENGTH.size + len(data)] = data
        _LENGTH.pack_into(self._memory, start, len(data), zlib.crc32(data))
        _NUMBER.pack_into(self._memory, slot * _SLOT + _SEQUENCE, sequence)

    def read(self, slot: int) -> dict[str, Any]:
        """Newest facts of a slot; nothing before the first."""
        for _ in range(_TRIES):  # again only if it was written twice meanwhile
            sequence = self._number(slot, _SEQUENCE)
            if not sequence:
                return {}
            start = self._buffer(slot, sequence)
            size, check = _LENGTH.unpack_from(self._memory, start)
            data = self._memory[start + _LENGTH.size : start + _LENGTH.size + min(size, _BUFFER)]
            if zlib.crc32(data) == check:
                facts: dict[str, Any] = msgspec.msgpack.decode(data)
                return facts
        raise InternalError("a slot must be readable", where=f"worker {slot}", got="bytes that change all the time",
                            remedy="Report it")  # fmt: skip

    def set_connections(self, slot: int, number: int | None) -> None:
        """Say how many connections a worker holds; None while it does not answer."""
        _NUMBER.pack_into(self._memory, slot * _SLOT + _CONNECTIONS, _AWAY if number is None else number)

    def fewest_connections(self) -> int:
        """Connections of the worker that holds the fewest of those that answer."""
        return min(self._number(slot, _CONNECTIONS) for slot in range(self.workers))

    def mean_connections(self) -> float:
        """Connections of those workers that answer, on average."""
        numbers = self._connections()
        return sum(numbers) / max(len(numbers), 1)

    def answering(self) -> int:
        """Workers that answer; 1 where none does yet."""
        return max(len(self._connections()), 1)

    def _connections(self) -> list[int]:
        numbers = [self._number(slot, _CONNECTIONS) for slot in range(self.workers)]
        return [number for number in numbers if number != _AWAY]

    def close(self) -> None:
        """Let go of the memory; a second call does nothing."""
        self._memory.close()
        with suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1

    def _number(self, slot: int, place: int) -> int:
        number: int = _NUMBER.unpack_from(self._memory, slot * _SLOT + place)[0]
        return number

    @staticmethod
    def _buffer(slot: int, sequence: int) -> int:
        return slot * _SLOT + _HEAD + (sequence & 1) * _BUFFER


def _make(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("retrodict-workers")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
