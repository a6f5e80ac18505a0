"""The end of the chain in one state of the records: which entry it is, whose keys count, and what signed it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from retrodict.core.durations import MINUTE
from retrodict.ledger.chain import GENESIS
from retrodict.ledger.checkpoints import Checkpoint
from retrodict.ledger.keys import Keys, SigningKey
from retrodict.ledger.schema import ends, entries
from retrodict.ledger.tree import EntryTree

__all__ = ["ACCEPT", "BEGIN", "CLOCK_LEEWAY", "KEY_ACTIONS", "RENEW", "WITNESSES", "ChainEnd", "ahead", "chain_end",
           "field_of", "key_in_force", "newest_field", "keys_of", "sign_end", "signed_ends", "time_of"]  # fmt: skip

# The first entry of every chain names the key whose checkpoints count; a later one may name its successor. An end that
# is not the one signed last may be gone on from for a reason, which is an entry too.
BEGIN, RENEW, ACCEPT, WITNESSES = "ledger.begin", "ledger.key", "ledger.accept", "ledger.witnesses"
KEY_ACTIONS = (BEGIN, RENEW)

CLOCK_LEEWAY = 5 * MINUTE
"""How far two clocks may be apart, microseconds, before it is said."""


class ChainEnd(NamedTuple):
    """Last entry of a chain; 0, genesis and no time of an empty one."""

    sequence: int
    hash: str
    time: int


def chain_end(connection: Connection) -> ChainEnd:
    """Last entry of the chain."""
    query = select(entries.c.sequence, entries.c.hash, entries.c.time).order_by(entries.c.sequence.desc()).limit(1)
    row = connection.execute(query).first()
    return ChainEnd(0, GENESIS, 0) if row is None else ChainEnd(*row)


def ahead(connection: Connection, now: int) -> tuple[int, int, int] | None:
    """First and last entry that a clock has not reached, and by how many microseconds; None without one."""
    time, sequence = entries.c.time, entries.c.sequence
    query = select(func.min(sequence), func.max(sequence), func.min(time))
    first, last, earliest = connection.execute(query.where(time.between(now + CLOCK_LEEWAY, 2**62))).one()
    return None if first is None else (first, last, earliest - now)


def sign_end(connection: Connection, key: SigningKey, end: ChainEnd | None, after: int) -> Checkpoint | None:
    """Sign what a transaction appended, and note it with it."""
    if end is None:
        return None
    tree = EntryTree(connection)
    tree.grow(end.sequence, before=next((one for one in signed_ends(connection) if one.root), None))
    log = connection.execute(select(entries.c.hash).where(entries.c.sequence == 1)).scalar_one()
    root = tree.root(end.sequence).hex()
    checkpoint = key.sign(Checkpoint(end.sequence, end.time, end.hash, "", "", root, log, after))
    connection.execute(delete(ends))
    connection.execute(insert(ends).values(**asdict(checkpoint)))
    return checkpoint


def signed_ends(connection: Connection) -> list[Checkpoint]:
    """Statement on the end of the chain that stands in the records; none before the first entry, or if it is none."""
    rows = [Checkpoint.read(row) for row in connection.execute(select(ends)).mappings()]
    return [one for one in rows if one is not None]


def keys_of(connection: Connection) -> Keys:
    """Public keys that the chain names, oldest first; none if it is empty."""
    query = select(entries.c.time, entries.c.payload).where(entries.c.action.in_(KEY_ACTIONS))
    rows = connection.execute(query.order_by(entries.c.sequence)).all()
    keys = [(time_of(time), str(field_of(payload, "public_key") or "none at all")) for time, payload in rows]
    # A chain that does not begin as ours do was tampered with: no key fits it.
    return keys if keys or not chain_end(connection).sequence else [(0, "none at all")]


def time_of(value: object) -> int:
    """Time of an entry; 0 where somebody wrote something else there."""
    return value if isinstance(value, int) else 0


def field_of(payload: object, name: str) -> Any:
    """Value in a stored payload; None where there is none that can be read."""
    try:
        return json.loads(str(payload))[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def newest_field(connection: Connection, action: str, name: str) -> Any:
    """Value in the payload of the last entry of an action; None where there is none that can be read."""
    query = select(entries.c.payload).where(entries.c.action == action).order_by(entries.c.sequence.desc()).limit(1)
    return field_of(connection.execute(query).scalar(), name)


def key_in_force(connection: Connection) -> str | None:
    """Public key that the chain names last; None for an empty chain."""
    keys = keys_of(connection)
    return keys[-1][1] if keys else None
