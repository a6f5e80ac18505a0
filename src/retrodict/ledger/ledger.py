"""The ledger as the other rooms use it: one transaction that holds a change and the entry that describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from retrodict.core.clock import Clock
from retrodict.core.errors import InternalError
from retrodict.core.identity import canonical_json, digest
from retrodict.ledger.chain import GENESIS, Entry, entry_hash
from retrodict.ledger.checkpoints import Signer, make_next_key, newest_signed
from retrodict.ledger.schema import edges, entries, metadata
from retrodict.stores.records.base import RecordStore

__all__ = ["Edge", "Ledger", "Transaction"]

# (where it came from, in which role): "dataset:flights@3" as "training data"
Edge = tuple[str, str]

# The first entry of every chain names the key whose checkpoints count; a later one may name its successor.
_BEGIN, _RENEW = "ledger.begin", "ledger.key"
KEY_ACTIONS = (_BEGIN, _RENEW)

# What the ledger itself puts into a payload.
_OWN = ("inputs", "records")

# Names looked up at once: below every engine's limit of variables in a statement.
_AT_ONCE = 500


class Transaction:
    """A writing transaction on the records in which entries can be appended; made by :meth:`Ledger.transaction`.

    Attributes
    ----------
    connection : sqlalchemy.Connection
        For the change itself.
    """

    def __init__(self, connection: Connection, clock: Clock, actor: str, public_key: str) -> None:
        self.connection = connection
        self._clock, self._actor, self._public_key = clock, actor, public_key
        self._last: tuple[int, str] | None = None
        self._records: list[dict[str, Any]] = []

    def insert(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert a row that never changes afterwards; the next entry of this transaction vouches for it.

        ``audit verify`` then finds a row that was altered, removed or added by other hands. All rows of the table
        must be inserted this way.

        Parameters
        ----------
        table : sqlalchemy.Table
            With a primary key.
        row : mapping of column name to value
        """
        self.connection.execute(insert(table).values(**row))
        key = {column.name: row[column.name] for column in table.primary_key.columns}
        columns = sorted(row)
        self._records.append({"table": table.name, "key": key, "columns": columns, "digest": row_digest(columns, row)})

    def has(self, action: str, object_id: str) -> bool:
        """Whether the chain holds an entry of this action on this object; nobody can append one in between."""
        query = select(entries.c.sequence).where(entries.c.object_id == object_id, entries.c.action == action)
        return self.connection.execute(query.limit(1)).first() is not None

    def append(
        self,
        action: str,
        object_id: str,
        payload: dict[str, Any] | None = None,
        *,
        inputs: Sequence[Edge] = (),
        actor: str | None = None,
    ) -> Entry:
        """Append one entry, and one lineage edge per input, in this transaction.

        Parameters
        ----------
        action : str
            What was done, as ``noun.verb``.
        object_id : str
            Reference of what it was done to.
        payload : dict, optional
            Plain facts. ``"objects"`` (a list of SHA-256 in the object store) and ``"files"`` (table path to SHA-256)
            are content that ``audit verify`` will check; the keys ``"inputs"`` and ``"records"`` are the ledger's.
        inputs : sequence of (reference, role)
            What the object was made from.
        actor : str, optional
            Who did it, if not the actor of the ledger.

        Returns
        -------
        Entry
        """
        reserved = [name for name in _OWN if name in (payload or {})]
        if reserved:
            raise InternalError(
                "a payload must leave the ledger's own keys to it",
                where=f"ledger, {action}",
                got=reserved,
                remedy="Rename the keys of the payload",
            )
        if self._last is None:
            self._last = self._begin()
        return self._append(action, object_id, dict(payload or {}), inputs, actor)

    def _begin(self) -> tuple[int, str]:
        """End of the chain, whose first entry is made if there is none."""
        sequence, previous = _head(self.connection)
        if sequence:
            return sequence, previous
        self._last = (0, GENESIS)
        begun = self._append(_BEGIN, "ledger:chain", {"public_key": self._public_key}, (), None)
        return begun.sequence, begun.hash

    def _append(
        self, action: str, object_id: str, body: dict[str, Any], inputs: Sequence[Edge], actor: str | None
    ) -> Entry:
        assert self._last is not None
        sequence, previous = self._last
        if inputs:
            body["inputs"] = [list(edge) for edge in inputs]
        if self._records and action != _BEGIN:
            body["records"], self._records = self._records, []
        fields = {"sequence": sequence + 1, "time": self._clock.now(), "actor": actor or self._actor, "action": action,
                  "object_id": object_id, "previous": previous}  # fmt: skip
        hash_ = entry_hash(**fields, payload=body)  # type: ignore[arg-type]  # one value each, by name
        self.connection.execute(insert(entries).values(**fields, payload=canonical_json(body).decode(), hash=hash_))
        if inputs:
            self.connection.execute(
                insert(edges),
                [{"sequence": sequence + 1, "position": i, "source": source, "role": role, "target": object_id}
                 for i, (source, role) in enumerate(inputs)],
            )  # fmt: skip
        self._last = (sequence + 1, hash_)
        return Entry(**fields, payload=body, hash=hash_)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Refuse to commit rows that no entry vouches for."""
        if self._records:
            tables = sorted({record["table"] for record in self._records})
            raise InternalError(
                "an entry must follow the rows it vouches for",
                where="ledger",
                got=tables,
                remedy="Write the rows before the entry",
            )

    @property
    def head(self) -> tuple[int, str] | None:
        """Sequence and hash of the last entry appended here, None if there was none."""
        return self._last


class Ledger:
    """The chain of one project.

    Promises: an entry is committed with the change it describes or not at all; appenders are serialised by the record
    store, so the chain has no forks; after every transaction that appended, the new end is signed and the checkpoint
    is durable outside the database before the call returns. Reading and verifying need no private key.

    Parameters
    ----------
    records : RecordStore
        Where the chain is.
    clock : Clock
        Where the time of an entry comes from.
    actor : str
        Who acts.
    key_path : Path
        The key that signs checkpoints, made with the first entry.
    checkpoints : Path
        Folder of the signed checkpoints.
    """

    def __init__(self, records: RecordStore, clock: Clock, actor: str, *, key_path: Path, checkpoints: Path) -> None:
        self.records, self.checkpoint_folder = records, checkpoints
        self._clock, self._actor, self._key_path = clock, actor, key_path
        records.ensure(metadata)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change records and append entries together; sign the new end of the chain once it is committed.

        Raises
        ------
        IntegrityError
            If the signing key is not the one that the chain names.
        ConfigurationError
            If checkpoints cannot be written. In both cases nothing is changed.
        BusyError
            If another transaction does not end in time.
        """
        with self.records.write() as connection:
            # Looked up with the chain held: another process may have renewed the key a moment ago.
            signer = self._signer(_key_in_force(connection))
            transaction = Transaction(connection, self._clock, self._actor, signer.public_key)
            yield transaction
            transaction.finish()
        if transaction.head is not None:
            signer.sign(transaction.head[0], self._clock.now(), transaction.head[1])

    def sign_end(self) -> None:
        """Sign the end of the chain if the process that made it died before it could; else do nothing.

        The next entry signs it too; a call that finds its entry made already has none to append.
        """
        with self.records.read() as connection:
            sequence, hash_ = _head(connection)
            expected = _key_in_force(connection)
        if sequence > newest_signed(self.checkpoint_folder):
            self._signer(expected).sign(sequence, self._clock.now(), hash_)

    def _signer(self, expected: str | None) -> Signer:
        signer = Signer(self._key_path, self.checkpoint_folder, expected=expected)
        signer.prepare()
        return signer

    def renew_key(self, reason: str) -> Entry:
        """Go on with a new signing key, because the old one was lost or should no longer be used.

        Checkpoints count by the key that was in force at their entry, so old ones stay valid. The entry is in the
        chain for everybody to see: a renewal that nobody knows of is an alarm.

        Parameters
        ----------
        reason : str
            For the ledger.
        """
        with self.records.write() as connection:
            public_key = make_next_key(self._key_path)
            transaction = Transaction(connection, self._clock, self._actor, public_key)
            entry = transaction.append(_RENEW, "ledger:chain", {"public_key": public_key, "reason": reason})
        self._signer(public_key).sign(entry.sequence, self._clock.now(), entry.hash)
        return entry

    def entries(self, *, object_id: str | None = None, action: str | None = None) -> list[Entry]:
        """Entries in order, all or those of one object or action."""
        query = select(entries).order_by(entries.c.sequence)
        if object_id is not None:
            query = query.where(entries.c.object_id == object_id)
        if action is not None:
            query = query.where(entries.c.action == action)
        with self.records.read() as connection:
            rows = connection.execute(query).mappings()
            return [Entry(**{**row, "payload": json.loads(row["payload"])}) for row in rows]

    def upstream(self, object_id: str) -> list[tuple[str, str, str]]:
        """(target, role, source) of everything an object was made from, walked to the roots, nearest first."""
        return self._walk(object_id, edges.c.target, edges.c.source)

    def downstream(self, object_id: str) -> list[tuple[str, str, str]]:
        """(target, role, source) of everything that was made from an object, walked to the leaves."""
        return self._walk(object_id, edges.c.source, edges.c.target)

    def _walk(self, start: str, column: Any, neighbour: Any) -> list[tuple[str, str, str]]:
        links: dict[tuple[str, str, str], None] = {}
        with self.records.read() as connection:
            seen, frontier = {start}, [start]
            query = select(edges.c.target, edges.c.role, edges.c.source, neighbour.label("next"))
            query = query.order_by(edges.c.sequence, edges.c.position)
            while frontier:
                now, frontier = frontier[:_AT_ONCE], frontier[_AT_ONCE:]
                for target, role, source, following in connection.execute(query.where(column.in_(now))):
                    links[target, role, source] = None
                    if following not in seen:
                        seen.add(following)
                        frontier.append(following)
        return list(links)


def _head(connection: Connection) -> tuple[int, str]:
    last = connection.execute(select(func.max(entries.c.sequence))).scalar()
    if last is None:
        return 0, GENESIS
    return int(last), str(connection.execute(select(entries.c.hash).where(entries.c.sequence == last)).scalar_one())


def _key_in_force(connection: Connection) -> str | None:
    """Public key that the chain names last; None for an empty chain."""
    query = select(entries.c.payload).where(entries.c.action.in_(KEY_ACTIONS)).order_by(entries.c.sequence.desc())
    payload = connection.execute(query.limit(1)).scalar()
    if payload is None and _head(connection)[0] == 0:
        return None
    try:
        return str(json.loads(str(payload))["public_key"])
    except (ValueError, TypeError, KeyError):
        # A chain that does not begin as ours do was tampered with: no key fits it.
        return "none at all"


def row_digest(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    """SHA-256 of the named columns of a row of plain values."""
    return digest(canonical_json({name: row[name] for name in columns}))
