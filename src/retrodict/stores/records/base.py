"""Contract of the record stores: small facts that change together, in transactions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, MetaData

__all__ = ["RecordStore"]


class RecordStore(Protocol):
    """Relational records through SQLAlchemy Core; each room declares its own tables.

    Promises
    --------
    * *Durable*: once ``write()`` has ended without an error its changes survive ``kill -9`` and a loss of power.
    * *Atomic*: an exception inside ``write()`` leaves nothing behind.
    * *Serialised writers*: at most one ``write()`` block runs at a time over all threads and processes, from its first
      statement; a second one waits up to the store's time limit and then gets BusyError. So what a block reads cannot
      change under it: read, decide, write is safe.
    * *Readers never wait* for writers and see one consistent state, that at the beginning of the ``read()`` block, for
      all of it. Writing in such a block is refused.
    * *Errors*: ``write()`` blocks do not nest (InternalError); damage is an IntegrityError, and so is whatever fails
      in a block while tables are not as their rooms declare them. A broken constraint of a room's own comes through as
      SQLAlchemy's own error, since only the room knows what it means.
    * *Threads and processes*: the store may be shared by threads; every process opens its own (never across fork).
    """

    def ensure(self, metadata: MetaData) -> None:
        """Create the tables of a room that do not exist yet; safe to call from many processes at once."""

    def write(self) -> AbstractContextManager[Connection]:
        """Open a writing transaction: committed at the end of the block, rolled back on an exception.

        Raises
        ------
        BusyError
            If another block holds the store for longer than its time limit.
        """

    def read(self) -> AbstractContextManager[Connection]:
        """Open a reading transaction on the state at its beginning; writing in it is refused."""

    def faults(self, schema: Iterable[MetaData] | None = None) -> list[str]:
        """What is wrong with the store itself, in words.

        Pages and indexes that disagree; columns, constraints, indexes and triggers of the tables that were ensured, and
        of those in ``schema``, that are others than declared. With a schema also whatever else there is.
        """

    def change_counter(self) -> int:
        """Return a number that differs after any commit, of this process or another; cheap enough to poll every 50 ms.

        It is no count and no version: compare it only with earlier numbers of the same object.
        """

    def close(self) -> None:
        """Release connections; the store cannot be used afterwards. A second call does nothing."""
