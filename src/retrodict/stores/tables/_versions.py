"""The line of versions of each table in a place: what is there, and one more, or none.

A commit puts the next entry under a name that nobody has taken. In a folder a lock keeps other writers of this store
off meanwhile, so that they wait instead of working in vain; in a bucket, and against other programs, whoever comes
second reads again what is there now and tries the next number.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from retrodict.core.errors import BusyError, InputError, IntegrityError, RetryableError, check_known
from retrodict.core.identity import digest
from retrodict.stores.tables._log import Log, damaged_log, parse
from retrodict.stores.tables._places import Place, mapped, mapping
from retrodict.stores.tables.base import VersionGuard

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}(\.[a-z0-9_]{1,100}){0,3}")
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
_CHECKPOINT_INTERVAL = 100


class Versions:
    """Versions of all tables of a place."""

    def __init__(self, place: Place, timeout_s: float, guard: VersionGuard | None = None) -> None:
        self.place, self._timeout_s, self._guard = place, timeout_s, guard
        self._known: dict[str, tuple[list[object], Log]] = {}

    def names(self, *, every: bool = False) -> list[str]:
        """Tables that have at least one version, sorted; with ``every``, also where the guard vouches for none."""
        with mapping("tables"):
            names = sorted(name for name in self.place.names() if _NAME.fullmatch(name))
        return names if every or self._guard is None else [name for name in names if self._is_shown(name)]

    def _is_shown(self, name: str) -> bool:
        try:
            return self.log(name).newest is not None
        except IntegrityError:  # reading it will say what is wrong
            return True

    def lock(self, name: str) -> AbstractContextManager[object]:
        """Other writers wait while this is held."""
        check_name(name)
        with mapping(f"table {name}"):
            return self.place.lock(name, where=f"table {name}", timeout_s=self._timeout_s)

    def log(self, name: str) -> Log:
        """Entries of a table as they are now, as far as the guard vouches for them; empty if there are none."""
        log = self.everything(name)
        if self._guard is None:
            return log
        count = self._guard.admitted(name, [commit.digest for commit in log.commits])
        return log if count == len(log.commits) else Log(name).extended(log.commits[:count])

    def everything(self, name: str) -> Log:
        """Entries of a table as they are now, whoever put them there."""
        check_name(name)
        with mapping(f"table {name}"):
            files = self.place.log(name)
            versions = {int(match[1]): file for file in files if (match := _ENTRY.fullmatch(file))}
            if not versions:
                return Log(name)
            last = max(versions)
            # A checkpoint says no more than the entries; one beyond them says that the last entries are gone.
            beyond = any((match := _CHECKPOINT.fullmatch(file)) and int(match[1]) > last for file in files)
            if beyond or len(versions) <= last:
                raise damaged_log(name)
            names = [versions[version] for version in range(last + 1)]
            marks = [files[file] for file in names]
            earlier, log = self._known.get(name, ([], Log(name)))
            if marks[: len(earlier)] != earlier:
                log = Log(name)
            first = len(log.commits)
            entries = self.place.entries(name, names[first:])
        log = log.extended([parse(name, first + place, data) for place, data in enumerate(entries)])
        self._known[name] = (marks, log)
        return log

    def found(self, name: str) -> Log:
        """Entries of a table that exists; NotFoundError names near ones."""
        log = self.log(name)
        if log.newest is None:
            others = set(self.names()) - {name}  # it may have come into being since
            check_known(name, others, "the table must exist", where="tables", what="table")
        return log

    def commit(self, log: Log, build: Callable[[Log], bytes], undo: Callable[[], None] = lambda: None) -> int:
        """Put the entry that ``build`` makes from a log after it, or after what is there by then.

        ``build`` raises when what is there no longer fits; ``undo`` is called if no version was made for certain.
        """
        name, data, version = log.table, b"", len(log.commits)
        end, turn = time.monotonic() + self._timeout_s, 0
        try:
            while True:
                self._check_ours(name)
                if log.newest is not None:
                    _check_writable(log)
                data, version = build(log), len(log.commits)
                if self._guard is not None:
                    self._guard.announce(name, version, digest(data))
                if self._put(name, version, data):
                    break
                turn += 1
                self._pause(name, turn, end)
                log = self.log(name)
        except BaseException:
            if self._is_there(name, version, data) is False:
                undo()
            raise
        if version and version % _CHECKPOINT_INTERVAL == 0:
            self.place.checkpoint(name)
        return version

    def _check_ours(self, name: str) -> None:
        """Refuse to write on top of a version that nobody vouches for: the next one would hold its rows."""
        if self._guard is None:
            return
        count = len(self.everything(name).commits)
        first = len(self.log(name).commits)
        if first < count:
            raise IntegrityError(
                "every version of the table must be one that the ledger names",
                where=f"table {name}",
                got=f"version {first} by other hands",
                remedy=f"See 'retrodict audit verify'. Take its entries from version {first} on out of _delta_log, or, "
                f"if you know whose they are: retrodict audit adopt {name} --reason WHY",
            )

    def _pause(self, name: str, turn: int, end: float) -> None:
        if time.monotonic() > end:
            raise BusyError(
                f"a commit must get through between those of others, and the wait of {self._timeout_s:g} s is over",
                where=f"table {name}",
                got=f"{turn} commits of others",
                remedy="Try again, with fewer writers or larger writes",
            )
        time.sleep(random.uniform(0, 0.02 * min(turn, 10)))  # noqa: S311 - only spreads writers out

    def _put(self, name: str, version: int, data: bytes) -> bool:
        try:
            if self.place.commit(name, f"{version:020d}.json", data):
                return True
        except OSError as error:
            exists = self._is_there(name, version, data)
            if exists is None:
                raise RetryableError(
                    "the place of the tables must answer after a commit",
                    where=f"table {name}",
                    got="no answer: the version may have been made or not",
                    remedy=f"Look whether the history holds version {version} before trying again",
                ) from error
            if not exists:
                raise mapped(error, f"table {name}") from error
            return True
        # The name may be taken by our own first try, whose answer got lost on the way.
        return bool(self._is_there(name, version, data))

    def _is_there(self, name: str, version: int, data: bytes) -> bool | None:
        """Whether our entry is; None if nobody can say."""
        try:
            (stored,) = self.place.entries(name, [f"{version:020d}.json"])
        except FileNotFoundError:
            return False
        except (OSError, RetryableError):
            return None
        return stored == data


def check_name(name: str) -> None:
    """Refuse what could leave the store or clash on some disk."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "the name of a table must be lower-case letters, digits and '_', in parts divided by '.', a letter first",
            where="tables",
            got=name,
            remedy="Rename it like 'flights'",
        )


def _check_writable(log: Log) -> None:
    state = log.snapshot()
    if state.protocol.get("minWriterVersion", 0) > 2:
        raise InputError(
            "the table must ask writers for no more than Delta's protocol 2 (no constraints, no generated columns)",
            where=f"table {log.table}",
            got=f"writer version {state.protocol['minWriterVersion']}",
            remedy="Copy it through another writer into a table of this store",
        )
