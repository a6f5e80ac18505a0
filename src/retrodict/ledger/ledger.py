"""The ledger as the other rooms use it: one transaction that holds a change and the entry that describes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, insert, select

from retrodict.core.clock import Clock
from retrodict.core.durations import SECOND
from retrodict.core.errors import (
    IntegrityError,
    InternalError,
    OpenBreakerError,
    RetryableError,
    ServerAwayError,
    check_reason,
)
from retrodict.core.identity import canonical_json
from retrodict.ledger.chain import GENESIS, Entry, entry_hash, read_entry
from retrodict.ledger.checkpoints import Checkpoint, append_line, count_lines, newest_signed, prepare_file, size_of
from retrodict.ledger.continuity import Continuity
from retrodict.ledger.ends import (
    ACCEPT,
    BEGIN,
    CLOCK_LEEWAY,
    RENEW,
    WITNESSES,
    ChainEnd,
    chain_end,
    key_in_force,
    keys_of,
    newest_field,
    sign_end,
    signed_ends,
    time_of,
)
from retrodict.ledger.heads import FolderHeads, HeadPlace
from retrodict.ledger.keys import Keys, S, SigningKey, adopt_key, key_faults, make_next_key, open_key
from retrodict.ledger.rows import foreign_row, read_rows, row_digest, rows_digest
from retrodict.ledger.schema import edges, entries, metadata
from retrodict.ledger.tree import EntryTree
from retrodict.ledger.witnesses import Witness, tell
from retrodict.stores.records.base import RecordStore

__all__ = ["Edge", "Ledger", "Transaction"]

# (where it came from, in which role): "dataset:flights@3" as "training data"
Edge = tuple[str, str]

# What the ledger itself puts into a payload.
_OWN = ("inputs", "records", "clock_behind_us")

# Made once: SQLAlchemy takes as long to make a statement as the database to execute it.
_INSERT_ENTRY, _INSERT_EDGES = insert(entries), insert(edges)

_log = logging.getLogger(__name__)

# Names looked up at once: below every engine's limit of variables in a statement.
_AT_ONCE = 500


class _Look(NamedTuple):
    """What was found in the file of checkpoints: by which key, from and up to which byte."""

    view: tuple[str | None, int]
    size: int
    newest: Checkpoint | None


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
        self._last: ChainEnd | None = None
        self.behind = 0  # of the clock, microseconds
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

    def vouch(self, table: Table, key: Mapping[str, Any]) -> None:
        """Let the next entry vouch for rows as they are now: all those with these values of columns.

        A later one for the same key takes its place: of rows that change, the last change counts.
        """
        columns = sorted(column.name for column in table.columns)
        rows = read_rows(self.connection, table.name, key, columns)
        self._records.append({"table": table.name, "key": dict(key), "columns": columns, "rows": len(rows),
                              "digest": rows_digest(rows)})  # fmt: skip

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
                "a payload must leave the ledger's own keys to it", where=f"ledger, {action}", got=reserved,
                remedy="Rename the keys of the payload",
            )  # fmt: skip
        if self._last is None:
            self.begin()
        return self._append(action, object_id, dict(payload or {}), inputs, actor)

    def begin(self) -> None:
        """Make the first entry of the chain if there is none."""
        self._last = chain_end(self.connection)
        if not self._last.sequence:
            self._append(BEGIN, "ledger:chain", {"public_key": self._public_key}, (), None)

    def _append(
        self, action: str, object_id: str, body: dict[str, Any], inputs: Sequence[Edge], actor: str | None
    ) -> Entry:
        assert self._last is not None
        sequence, previous, earliest = self._last
        time = max(now := self._clock.now(), earliest)
        if now < earliest:  # an entry is never before the one it follows; the trouble with the clock is on record
            body["clock_behind_us"] = self.behind = earliest - now
        if inputs:
            body["inputs"] = [list(edge) for edge in inputs]
        if self._records and action != BEGIN:
            body["records"], self._records = self._records, []
        fields = {"sequence": sequence + 1, "time": time, "actor": actor or self._actor, "action": action,
                  "object_id": object_id, "previous": previous}  # fmt: skip
        hash_ = entry_hash(**fields, payload=body)  # type: ignore[arg-type]  # one value each, by name
        self.connection.execute(_INSERT_ENTRY, {**fields, "payload": canonical_json(body).decode(), "hash": hash_})
        if inputs:
            self.connection.execute(
                _INSERT_EDGES,
                [{"sequence": sequence + 1, "position": i, "source": source, "role": role, "target": object_id}
                 for i, (source, role) in enumerate(inputs)],
            )  # fmt: skip
        self._last = ChainEnd(sequence + 1, hash_, time)
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
    def head(self) -> ChainEnd | None:
        """The last entry appended here, None if there was none."""
        return self._last


class Ledger:
    """The chain of one project.

    Promises: an entry is committed with the change it describes or not at all; appenders are serialised by the record
    store, so the chain has no forks; after every transaction that appended, the new end is signed and the checkpoint
    is durable outside the database before the call returns. Nothing is appended to an end that was not signed: what is
    signed over counts from then on. Reading and verifying need no private key.

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
    witnesses : sequence of Witness
        Other places that each checkpoint is told to; one that cannot be reached stops nothing.
    heads : HeadPlace, optional
        Where statements on open segments are; None: beside the checkpoints.
    """

    def __init__(
        self,
        records: RecordStore,
        clock: Clock,
        actor: str,
        *,
        key_path: Path,
        checkpoints: Path,
        witnesses: Sequence[Witness] = (),
        heads: HeadPlace | None = None,
    ) -> None:
        self.records, self.checkpoint_folder, self.witnesses = records, checkpoints, witnesses
        self.heads, self._key_path = heads or FolderHeads(checkpoints), key_path
        self.clock, self._clock, self._actor = clock, clock, actor
        self._told, self._looked = False, _Look((None, 0), 0, None)
        self.continuity = Continuity(records, lambda: self._signed_reach()[0])
        self._reach: tuple[int, Checkpoint | None, Keys] | None = None
        self._vouched: dict[str, tuple[int, tuple[Entry, ...]]] = {}
        self._signer: tuple[SigningKey, int] | None = None
        self._rows: dict[str, tuple[int, list[Row[Any]]]] = {}
        records.ensure(metadata)

    def now(self) -> int:
        """Time by the clock of the ledger, microseconds since 1970-01-01 UTC; never before that of its last entry."""
        with self.records.read() as connection:
            return max(self._clock.now(), time_of(chain_end(connection).time))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change records and append entries together; sign the new end of the chain once it is committed.

        Raises
        ------
        IntegrityError
            If the signing key is not the one that the chain names, or the chain does not end with what was signed last.
        ConfigurationError
            If checkpoints cannot be written. In both cases nothing is changed.
        BusyError
            If another transaction does not end in time.
        """
        with self._transaction(self._checked_key) as transaction:
            yield transaction
            transaction.finish()
            if transaction.head is not None:
                self._name_witnesses(transaction)

    @contextmanager
    def _transaction(self, key_of: Callable[[Connection], SigningKey]) -> Iterator[Transaction]:
        """Sign what is appended by a key, and make that known outside the records."""
        with self.records.write() as connection:
            # Looked up with the chain held: another process may have renewed the key a moment ago.
            key, after = key_of(connection), self._after(connection)
            transaction = Transaction(connection, self._clock, self._actor, key.public_key)
            yield transaction
            checkpoint = sign_end(connection, key, transaction.head, after)
        if transaction.behind > CLOCK_LEEWAY and not self._told:
            self._told = True
            _log.warning(
                "The last entry of the ledger is %.0f s ahead of the clock, and so are all that follow, until "
                "it is over: see 'retrodict audit verify'",
                transaction.behind / SECOND,
            )
        if checkpoint is not None:
            self._keep(checkpoint)

    def _key(self, connection: Connection) -> SigningKey:
        """Key that signs, once it is there and checkpoints can be written."""
        key = open_key(self._key_path, key_in_force(connection))
        prepare_file(self.checkpoint_folder)
        return key

    def _checked_key(self, connection: Connection) -> SigningKey:
        """Key that signs what goes on from the end that was signed last."""
        key = self._key(connection)
        self._check_end(connection)
        return key

    def _keep(self, checkpoint: Checkpoint) -> None:
        """Make a statement durable outside the records, and tell it to the witnesses."""
        try:
            append_line(self.checkpoint_folder, checkpoint)
        except OSError as error:  # what was committed stays, and the next transaction signs it too
            raise RetryableError(
                "the checkpoint of a change must be written; the change is stored, its checkpoint is not",
                where=f"checkpoint of entry {checkpoint.sequence}",
                got=error.strerror,
                remedy="Free space on the disk of the checkpoints; do not repeat the change",
            ) from error
        tell(self.witnesses, checkpoint)

    def _name_witnesses(self, transaction: Transaction) -> None:
        """Say in the chain which witnesses are told from now on, where they are others than before."""
        names = sorted(witness.name for witness in self.witnesses)
        if names != (newest_field(transaction.connection, WITNESSES, "witnesses") or []):
            transaction.append(WITNESSES, "ledger:chain", {"witnesses": names})

    def _after(self, connection: Connection) -> int:
        """Entry of the newest statement that stands in the file, or has to; 0 for none."""
        newest = self._newest_in_file(connection)
        ends = (end.after for end in signed_ends(connection) if end.is_valid())
        return max([newest.sequence if newest else 0, *ends])

    def _check_end(self, connection: Connection) -> None:
        """Refuse to go on from an end that nobody with the key signed, or from before one that somebody did."""
        end, signed = chain_end(connection), self.newest_checkpoint(connection)
        if not end.sequence and (count := count_lines(self.checkpoint_folder)):
            raise IntegrityError(
                "a ledger that has signed checkpoints must have entries",
                where="ledger",
                got=f"none, beside {count} lines of checkpoints",
                remedy="Restore a backup of the records; to begin anew, move the checkpoints away",
            )
        if (end.sequence, end.hash) != ((signed.sequence, signed.hash) if signed else (0, GENESIS)):
            raise IntegrityError(
                "the chain must end with the entry that was signed last",
                where="ledger",
                got=f"entry {end.sequence} at the end, signed up to entry {signed.sequence if signed else 0}",
                remedy="See 'retrodict audit verify'. Where you know why (a restored backup), go on with: "
                "retrodict audit accept --reason WHY",
            )

    def newest_checkpoint(self, connection: Connection) -> Checkpoint | None:
        """Newest end that was signed, by the records and by the file of checkpoints; None before the first entry."""
        key, newest = key_in_force(connection), self._newest_in_file(connection)
        signed = [end for end in signed_ends(connection) if end.public_key == key and end.is_valid()]
        return max([*signed, *([newest] if newest else [])], key=lambda end: end.sequence, default=None)

    def _newest_in_file(self, connection: Connection) -> Checkpoint | None:
        """Newest statement in the file by the key in force: nobody else's counts, least of all that of a retired one.

        Only what was added since the last look is read. What was signed before an end was accepted does not count.
        """
        ignored = int(newest_field(connection, ACCEPT, "checkpoint_bytes") or 0)
        view, size = (key_in_force(connection), ignored), size_of(self.checkpoint_folder)
        if view != self._looked.view or size < self._looked.size:
            self._looked = _Look(view, ignored, None)
        if view[0] is not None and size > self._looked.size:
            newest = newest_signed(self.checkpoint_folder, view[0], self._looked.size, self._looked.newest)
            self._looked = _Look(view, size, newest)
        return self._looked.newest

    def accept_end(self, reason: str) -> Entry:
        """Go on from an end of the chain that is not the one signed last, as somebody knows why.

        After a backup was restored, for instance. The entry stays a finding of ``audit verify``, with what was cut off.
        """
        check_reason(reason, "going on from an unsigned end must have a reason", where="ledger")
        with self._transaction(self._key) as tx:
            signed = self.newest_checkpoint(tx.connection)
            facts = {"reason": reason, "checkpoint_bytes": size_of(self.checkpoint_folder),
                     "signed": signed.sequence if signed else 0}  # fmt: skip
            return tx.append(ACCEPT, "ledger:chain", facts)

    def sign_end(self) -> None:
        """Sign the end of the chain if the process that made it died before it could; else do nothing.

        The next entry signs it too; a call that finds its entry made already has none to append.
        """
        with self.records.read() as connection:
            end, newest = chain_end(connection), self._newest_in_file(connection)
            if newest is not None and end.sequence <= newest.sequence:
                return
            self._check_end(connection)
            self._key(connection)
            stored = signed_ends(connection)
        for checkpoint in stored:  # the process that signed it died before it was in the file
            self._keep(checkpoint)

    def sign(self, unsigned: Callable[[int], S]) -> S:
        """Sign a statement by the key in force; begins an empty chain.

        While the records are away the key that was in force when they last answered signs: who writes a log must not
        wait for them.

        Parameters
        ----------
        unsigned : callable
            Gives the statement without key and signature by its time.
        """
        try:
            if not self.reach()[1]:
                with self.transaction() as tx:
                    tx.begin()
                self.reach()
            with self.records.read() as connection:
                self._signer = self._key(connection), time_of(chain_end(connection).time)
        except (ServerAwayError, OpenBreakerError):
            if self._signer is None:
                raise
        key, earliest = self._signer
        return key.sign(unsigned(max(self._clock.now(), earliest)))

    def secret(self, purpose: str) -> tuple[str, bytes]:
        """Name of the key in force and a secret made of it, for sealing what is made for this project alone.

        Both are empty where the key is not at hand: an auditor has none.
        """
        try:
            key = SigningKey(self._key_path)
            return (key.public_key[:16], key.secret(purpose)) if key.public_key == self.public_key else ("", b"")
        except IntegrityError:
            return "", b""

    def key_faults(self) -> dict[str, str]:
        """What is wrong with the file of the signing key, by the kind of the finding."""
        return key_faults(self._key_path, self.public_key) if self.public_key else {}

    @property
    def public_key(self) -> str:
        """Key in force, 64 hex digits; empty before the first entry."""
        _, keys = self.reach()
        return keys[-1][1] if keys else ""

    def reach(self) -> tuple[int, Keys]:
        """Last entry that a signature covers, and the keys of the chain; costs little unless records changed since."""
        signed, keys = self._signed_reach()
        return signed.sequence if signed else 0, keys

    def _signed_reach(self) -> tuple[Checkpoint | None, Keys]:
        counter = self.records.change_counter()
        if self._reach is None or self._reach[0] != counter:
            with self.records.read() as connection:
                self._reach = counter, self.newest_checkpoint(connection), keys_of(connection)
        return self._reach[1:]

    def vouched(self, prefix: str) -> tuple[Entry, ...]:
        """Entries on objects whose reference begins with a prefix, in order, as far as the signed end reaches.

        What is read by them is not read because somebody added or replaced a row: an entry counts that gives its own
        hash and is in the tree whose root was signed. Only what was appended since the last call is looked at.
        """
        signed, _ = self._signed_reach()
        end = signed.sequence if signed else 0
        last, vouched = self._vouched.get(prefix, (0, ()))
        if end < last:  # the records of another time
            last, vouched = 0, ()
        if end > last:
            after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            query = select(entries).where(entries.c.object_id >= prefix, entries.c.object_id < after)
            query = query.where(entries.c.sequence > last, entries.c.sequence <= end).order_by(entries.c.sequence)
            with self.records.read() as connection:
                items = [read_entry(dict(row)) for row in connection.execute(query).mappings()]
                intact = [entry for entry in items if entry is not None and entry.is_intact()]
                vouched += tuple(EntryTree(connection).holding(intact, signed) if signed else ())
            self._vouched[prefix] = end, vouched
        return vouched

    def read_vouched(self, table: Table, prefix: str) -> list[Row[Any]]:
        """All rows of a table, whose every row an entry vouches for (:meth:`Transaction.insert`).

        Parameters
        ----------
        table : sqlalchemy.Table
        prefix : str
            What the references begin with on which such entries are.

        Raises
        ------
        IntegrityError
            If a row was altered, removed or added by other hands: nothing may be decided by it.
        """
        counter = self.records.change_counter()
        if self._rows.get(table.name, (None, []))[0] == counter:
            return self._rows[table.name][1]
        with self.records.read() as connection:
            rows, end = list(connection.execute(select(table))), chain_end(connection).sequence
        vouched = {
            canonical_json(record["key"]): record
            for entry in self.vouched(prefix) if entry.sequence <= end
            for record in entry.payload.get("records", ()) if record["table"] == table.name
        }  # fmt: skip
        names = [column.name for column in table.primary_key.columns]
        for row in rows:
            values = row._asdict()
            record = vouched.pop(canonical_json({name: values[name] for name in names}), None)
            if record is None or row_digest(record["columns"], values) != record["digest"]:
                raise foreign_row(table, f"row {', '.join(str(values[name]) for name in names)}, which is not so")
        if vouched:
            raise foreign_row(table, f"{len(vouched)} rows fewer than were entered")
        self._rows[table.name] = counter, rows
        return rows

    def renew_key(self, reason: str, *, unendorsed: bool = False) -> Entry:
        """Go on with a new signing key, which the old one endorses.

        Checkpoints count by the key that was in force at their entry, so old ones stay valid. The entry is in the
        chain for everybody to see.

        Parameters
        ----------
        reason : str
            For the ledger.
        unendorsed : bool, default False
            Whether the old key is gone. The end is then gone on from whoever signed it, and ``audit verify`` finds a
            renewal that nobody endorsed, from now on.

        Raises
        ------
        IntegrityError
            If the old key cannot be read and is not said to be lost, or the chain does not end with what was signed.
        """
        check_reason(reason, "a new key must have a reason", where="ledger")
        facts: dict[str, Any] = {"reason": reason}

        def successor(connection: Connection) -> SigningKey:
            prepare_file(self.checkpoint_folder)
            old = None if unendorsed else self._checked_key(connection)
            key = make_next_key(self._key_path)
            facts["public_key"] = key.public_key
            if old is not None:
                facts["endorsement"] = old.endorse(key.public_key)
            return key

        with self._transaction(successor) as tx:
            if "endorsement" not in facts and (signed := self.newest_checkpoint(tx.connection)) is not None:
                facts["signed"] = signed.sequence
            entry = tx.append(RENEW, "ledger:chain", facts)
        # The new key is taken into its place once this is committed: until then it signs where it waits.
        adopt_key(self._key_path, facts["public_key"])
        return entry

    def entries(
        self, *, object_id: str | None = None, action: str | None = None, content: str | None = None
    ) -> list[Entry]:
        """Entries in order, all or those of one object or action, or those that name a SHA-256."""
        query = select(entries).order_by(entries.c.sequence)
        if object_id is not None:
            query = query.where(entries.c.object_id == object_id)
        if action is not None:
            query = query.where(entries.c.action == action)
        if content is not None:
            query = query.where(entries.c.payload.contains(content))
        with self.records.read() as connection:
            rows = connection.execute(query).mappings().all()
        listed = []
        for row in rows:
            if (entry := read_entry(dict(row))) is None:
                where = f"entry {row['sequence']}"
                raise IntegrityError("an entry must be readable", where=where, got="another one than was written",
                                     remedy="See 'retrodict audit verify'")  # fmt: skip
            listed.append(entry)
        return listed

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
