"""A key store over a dict, for tests that need hundreds of stores and none of what a store is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

__all__ = ["LendingKeys", "MemoryKeys"]


class MemoryKeys:
    """The contract of :class:`~retrodict.stores.keys.base.KeyStore` in one process, gone with it.

    A change function is called twice, as a store may do, so one that is not pure shows.
    """

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys."""
        return [self.items.get(key) for key in keys]

    def put_many(self, items: Mapping[bytes, bytes | None], *, durable: bool = True) -> None:  # noqa: ARG002 - contract
        """Store all items; None removes."""
        for key, value in items.items():
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = bytes(value)

    def update(
        self,
        keys: Sequence[bytes],
        change: Callable[[list[bytes | None]], Mapping[bytes, bytes | None]],
        *,
        durable: bool = True,
    ) -> None:
        """Store what the function makes of the values."""
        change(self.get_many(keys))
        self.put_many(change(self.get_many(keys)), durable=durable)

    def scan(self, prefix: bytes, *, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Pairs under a prefix in key order."""
        pairs = self.items.items()
        return iter(sorted((k, v) for k, v in pairs if k.startswith(prefix) and k >= (start or b"")))

    def close(self) -> None:
        """Nothing to release."""


class LendingKeys(MemoryKeys):
    """The same with :class:`~retrodict.stores.keys.base.SnapshotReads`: what is used after its time shows, as noise."""

    def __init__(self) -> None:
        super().__init__()
        self._revision, self._seen = 0, dict[bytes, bytes]()

    def get_revised(self, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """How often something else was there, and the values."""
        if self._seen != self.items:
            self._revision, self._seen = self._revision + 1, dict(self.items)
        return self._revision, self.get_many(keys)

    @contextmanager
    def reading(self) -> Iterator[Callable[[bytes], memoryview | None]]:
        """Lend values, and overwrite them when the context ends."""
        state, lent = dict(self.items), list[bytearray]()

        def get(key: bytes) -> memoryview | None:
            if key not in state:
                return None
            lent.append(bytearray(state[key]))
            return memoryview(lent[-1]).toreadonly()

        yield get
        for block in lent:
            block[:] = b"\xa5" * len(block)
