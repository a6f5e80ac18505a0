"""Whether an entry may be missing: who reads the entries that count does not notice one that is gone or was altered.

One pass over the hashes of all stored rows after some entry; later looks read only what is new.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from retrodict.ledger.chain import Entry, row_hashes
from retrodict.ledger.checkpoints import Checkpoint
from retrodict.ledger.schema import entries
from retrodict.stores.records.base import RecordStore

__all__ = ["Continuity"]

_AT_ONCE = 250


class Continuity:
    """The chain from an entry on, as one process has seen it so far.

    Parameters
    ----------
    records : RecordStore
    signed : callable
        Newest end of the chain that was signed.
    """

    def __init__(self, records: RecordStore, signed: Callable[[], Checkpoint | None]) -> None:
        self._records, self._signed = records, signed
        self._stretch = (0, 0, "")  # its first entry, its last one, the hash of that

    def holds(self, entry: Entry) -> bool:
        """Whether all that follows an entry, up to the signed end, is there and as it was appended."""
        signed = self._signed()
        if signed is None:
            return False
        first, last, end = self._stretch
        if not first <= entry.sequence <= last <= signed.sequence:
            first, last, end = entry.sequence, entry.sequence, entry.hash
        digest = bytes.fromhex(end)
        query = select(entries).where(entries.c.sequence > last, entries.c.sequence <= signed.sequence)
        query = query.order_by(entries.c.sequence).execution_options(yield_per=_AT_ONCE)
        try:
            with self._records.read() as connection:
                for rows in connection.execute(query).partitions() if last < signed.sequence else ():
                    digest = row_hashes([tuple(row) for row in rows], digest)[-32:]
        except (TypeError, ValueError):  # a column holds what no entry has
            return False
        if digest.hex() != signed.hash:
            return False
        self._stretch = first, signed.sequence, signed.hash
        return True
