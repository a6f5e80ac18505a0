"""Which versions of tables are ours: those that entries of the ledger name, and those that are about to be entered.

A version is written before the entry that describes it, and the process may die in between. So whoever writes one signs
first what its log entry will be. A version that neither an entry nor such a statement names was put there by other
hands: it is a finding of ``verify``, and no read shows it. Signing inside the log entry was rejected: it would say that
the entry is ours, but not which one of several is of this number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from retrodict.core.errors import IntegrityError
from retrodict.ledger.chain import Entry
from retrodict.ledger.keys import Keys, Signed
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.schema import versions

__all__ = ["ADOPT", "NamedVersions", "SignedVersion", "VersionSigner", "announced_by", "is_named", "select_versions"]

ADOPT = "dataset.adopt"

_LOG_PATH = re.compile(r"([^/]+)/_delta_log/(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class SignedVersion(Signed):
    """Statement that a process with the key was about to write a version whose log entry has this SHA-256."""

    name: str
    version: int
    digest: str
    time: int
    public_key: str
    signature: str

    @property
    def statement(self) -> dict[str, Any]:
        """What the signature is over."""
        about = {"table": self.name, "version": self.version, "digest": self.digest}
        return {"retrodict": "version", **about, "time": self.time}


def select_versions(connection: Connection, name: str | None = None, start: int = 0) -> list[SignedVersion]:
    """Statements on the versions of a table, or of all, from one on."""
    query = select(versions).where(versions.c.version >= start)
    query = query if name is None else query.where(versions.c.name == name)
    return [SignedVersion(**row) for row in connection.execute(query).mappings()]


def announced_by(statements: Iterable[SignedVersion], keys: Keys) -> dict[int, set[str]]:
    """SHA-256 of the log entries that valid statements on one table announce, by version."""
    announced: dict[int, set[str]] = {}
    for one in statements:
        if one.is_valid(keys):
            announced.setdefault(one.version, set()).add(one.digest)
    return announced


def is_named(version: int, digest: str, entered: Mapping[int, str], announced: Mapping[int, Collection[str]]) -> bool:
    """Whether a version is the one that the chain names, or, where it names none, one that was announced."""
    return digest == entered[version] if version in entered else digest in announced.get(version, ())


@dataclass(slots=True)
class NamedVersions:
    """SHA-256 of the log entries that the chain names, by table and version."""

    digests: dict[str, dict[int, str]] = field(default_factory=dict)

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in what further entries name; one that adopts a table says all there is to say of it until then."""
        for entry in entries:
            if entry.action == ADOPT:
                self.digests.pop(entry.object_id.removeprefix("dataset:"), None)
            files = entry.payload.get("files")
            for path, sha in files.items() if isinstance(files, dict) else ():
                if match := _LOG_PATH.fullmatch(path):
                    self.digests.setdefault(match[1], {})[int(match[2])] = sha

    def of(self, name: str) -> dict[int, str]:
        """Versions of one table."""
        return self.digests.get(name, {})


class VersionSigner:
    """Vouches for versions by the ledger of a project: a :class:`~retrodict.stores.tables.base.VersionGuard`.

    Costs little where nothing was committed to the records since the last look: what changed is looked up by the name
    of the table, never in the whole chain.

    Parameters
    ----------
    ledger : callable
        Gives the ledger; asked at each look, since a workspace may have closed the one it had.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._looks: dict[str, tuple[int, list[str], int]] = {}
        self._named: dict[str, tuple[int, NamedVersions]] = {}

    def announce(self, name: str, version: int, digest: str) -> None:
        """Sign that a version with this log entry is about to be written."""
        ledger = self._ledger()
        statement = ledger.sign(lambda time: SignedVersion(name, version, digest, time, "", ""))
        with ledger.records.write() as connection:
            connection.execute(insert(versions).values(**asdict(statement)))

    def admitted(self, name: str, digests: Sequence[str]) -> int:
        """Count the leading versions that an entry or a signed statement names."""
        ledger = self._ledger()
        counter, shas = ledger.records.change_counter(), list(digests)
        look = self._looks.get(name)
        if look is None or look[:2] != (counter, shas):
            look = self._looks[name] = counter, shas, self._count(ledger, name, shas)
        return look[2]

    def _count(self, ledger: Ledger, name: str, digests: list[str]) -> int:
        _, keys = ledger.reach()
        if not keys:  # no entry yet: the project has written nothing
            return len(digests)
        entered, announced = self._of(ledger, name), {}
        start = next((version for version, sha in enumerate(digests) if entered.get(version) != sha), None)
        if start is not None:  # what is entered needs no statement, whose signature would have to be looked at
            with ledger.records.read() as connection:
                announced = announced_by(select_versions(connection, name, start), keys)
        strange = (v for v, sha in enumerate(digests) if not is_named(v, sha, entered, announced))
        count = next(strange, len(digests))
        # Also where the entry of a version is not in the chain yet: another one in its place is not ours.
        if count <= max(entered, default=-1) or (count < len(digests) and count in announced):
            raise IntegrityError(
                "the log of the table must hold every version that the ledger names, as it was written",
                where=f"table {name}, version {count}",
                got="another entry" if count < len(digests) else "none",
                remedy="See 'retrodict audit verify', and restore the table's folder _delta_log from a copy",
            )
        return count

    def _of(self, ledger: Ledger, name: str) -> dict[int, str]:
        """Versions of a table that entries name; those on what lies beside a table (``t__quarantine``) are on ``t``."""
        group = f"dataset:{name.partition('__')[0]}"
        entries = ledger.vouched(group)
        seen, entered = self._named.get(group, (0, NamedVersions()))
        if seen > len(entries):
            seen, entered = 0, NamedVersions()
        entered.add(entries[seen:])
        self._named[group] = len(entries), entered
        return entered.of(name)
