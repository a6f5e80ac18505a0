"""Contract of the key stores: the newest value per key, read in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from retrodict.core.errors import InputError

__all__ = ["KeyStore", "SnapshotReads", "check_keys"]

_MAX_KEY = 511


class KeyStore(Protocol):
    """Byte strings by byte-string key (at most 511 bytes), for online features, caches and idempotency.

    Promises
    --------
    * *Snapshot reads*: one ``get_many`` sees one state; never half of a ``update`` or ``put_many``.
    * *Atomic writes*: a ``put_many`` or ``update`` is applied whole or not at all, also after ``kill -9``.
    * *Read, decide, write*: ``update`` runs its function on values that nobody changes before the result is stored;
      the function may run more than once (a server twin retries), so it is pure.
    * *Durability*: with ``durable=True`` (the default) a write survives a loss of power once the call returns; with
      ``durable=False`` it survives ``kill -9`` of the process and may lose its tail, never its consistency, at a loss
      of power.
    * *Processes and threads*: many readers in many processes beside one writer; writers are serialised. Every process
      opens its own (never across fork); within one process the same store may be opened any number of times.
    * *Keys* have 1 to 511 bytes: another length is an InputError, for a read as well, and nothing is stored.
    * *Order*: ``scan`` goes by key, bytewise.
    """

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none; one round trip whatever the number of keys."""

    def put_many(self, items: Mapping[bytes, bytes | None], *, durable: bool = True) -> None:
        """Store all items at once; a value of None removes the key.

        Raises
        ------
        InputError
            If a key is empty or longer than 511 bytes; nothing is stored then.
        ConfigurationError
            If the store is full; nothing is stored then.
        RetryableError
            If a server cannot be reached or does not answer in time; the message says if it may have been stored.
        """

    def update(
        self,
        keys: Sequence[bytes],
        change: Callable[[list[bytes | None]], Mapping[bytes, bytes | None]],
        *,
        durable: bool = True,
    ) -> None:
        """Give the values of ``keys`` to ``change`` and store what it returns (any keys), as one transaction.

        An exception of ``change`` stores nothing and comes through. ``change`` does not use the store itself. It runs
        again whenever a value it was given has changed meanwhile.

        Raises
        ------
        RetryableError
            If others change the values faster than ``change`` decides, for longer than a server's ``timeout_s``.
        """

    def scan(self, prefix: bytes, *, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) pairs under a prefix in key order, from ``start`` on if given, of one state.

        The state is the one at the first step of the iteration.

        Raises
        ------
        IntegrityError
            If a key on a server has lost its value, because something else wrote under the store's prefix.
        """

    def close(self) -> None:
        """Release the store; it cannot be used afterwards. A second call does nothing."""


@runtime_checkable
class SnapshotReads(Protocol):
    """What an embedded key store can do and a server cannot: read again and again of one state, and copy nothing."""

    def reading(self) -> AbstractContextManager[Callable[[bytes], memoryview | None]]:
        """Give a function from key to value, None where there is none.

        Values are read-only and lie in the store itself: none may be used after the context has ended.
        """

    def get_revised(self, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """Number of the state that is read, and the values of ``get_many``.

        As long as an opened store gives the same number, nobody has written to it, in this process or another.
        """


def check_keys(keys: Collection[bytes]) -> None:
    """Refuse a key of another length than 1 to 511 bytes."""
    if not all(0 < size <= _MAX_KEY for size in set(map(len, keys))):
        raise InputError(
            f"a key must have 1 to {_MAX_KEY} bytes",
            where="keys",
            got=f"{next(len(key) for key in keys if not 0 < len(key) <= _MAX_KEY)} bytes",
            remedy="Hash the part of the key that has no bound",
        )
