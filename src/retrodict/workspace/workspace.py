"""A workspace: one folder with ``retrodict.toml`` and a definitions module, and the stores they lead to.

Every room's functions take the workspace first; it is the only thing that is opened, and it opens nothing before it is
asked for. What people use is :class:`retrodict.Project`, which stands on top of the rooms and hands them this.
"""

from __future__ import annotations

import getpass
import os
import unicodedata
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from retrodict.core.breakers import Breaker
from retrodict.core.clock import Clock, SystemClock
from retrodict.core.config import Config, find_config, read_config
from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import ConfigurationError, InputError, RetrodictError, ServerAwayError, check_text
from retrodict.core.identity import UlidFactory
from retrodict.core.retries import Retry
from retrodict.workspace.definitions import Definitions, load_definitions

if TYPE_CHECKING:  # opening a project loads neither Arrow nor a database
    from retrodict.ledger.ledger import Ledger
    from retrodict.stores._guard import ServerGuard
    from retrodict.stores._locks import FileLock
    from retrodict.stores.keys.base import KeyStore
    from retrodict.stores.keys.cache import ExpiringKeys
    from retrodict.stores.objects.base import ObjectStore
    from retrodict.stores.records.base import RecordStore
    from retrodict.stores.streams.base import EventStreams, StreamStore
    from retrodict.stores.tables.base import TableStore

__all__ = ["Workspace"]

_LONGEST_ACTOR = 100
_SERVERS = ("read_timeout", "retries", "retry_strategy", "retry_base", "retry_cap")
_TOGETHER = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}
"""Scripts that one name may mix."""

S = TypeVar("S")


class Workspace:
    """An opened project folder: what every room is given first.

    Promises: opening costs nothing but reading two files; stores open on first use and are shared by threads; several
    processes may open one project at once, and where two would write the same thing the second waits or is told who
    holds it.

    Parameters
    ----------
    folder : path, default "."
        The project's folder, or any folder below it.
    clock : Clock, optional
        Where "now" comes from; the system's clock by default.
    actor : str, optional
        Who acts, as the ledger will say: by default the environment variable ``RETRODICT_ACTOR``, or the name of the
        operating-system user.

    Attributes
    ----------
    config : Config
    clock : Clock
    actor : str
    breakers : dict of str to Breaker
        By store on a server that was opened (``keys``, ``records``, ``events``, ``scores``, ``streams``, ``tables``),
        and by witness in a bucket (``witness 1``): whether it is called at the moment.

    Examples
    --------
    >>> workspace = Workspace("flights")  # doctest: +SKIP
    >>> workspace.tables.names()  # doctest: +SKIP
    ['flights', 'planes', 'weather']
    """

    def __init__(self, folder: str | Path = ".", *, clock: Clock | None = None, actor: str | None = None) -> None:
        path = folder if isinstance(folder, Path) else Path(check_text(folder, where="folder of the project"))
        self.config: Config = read_config(find_config(path))
        self.clock: Clock = clock or SystemClock()
        self.actor = _actor(actor)
        self.new_id = UlidFactory(self.clock)
        self.breakers: dict[str, Breaker] = {}
        self._endings: dict[str, Callable[[], None]] = {}

    @property
    def name(self) -> str:
        """Name of the project."""
        return str(self.config["project.name"])

    @property
    def root(self) -> Path:
        """Folder of the project."""
        return self.config.root

    @cached_property
    def definitions(self) -> Definitions:
        """What the definitions module says now."""
        definitions = load_definitions(self.config.path("project.definitions"))
        definitions.check()
        return definitions

    @cached_property
    def tables(self) -> TableStore:
        """Versioned tables."""
        from retrodict.ledger.table_versions import VersionSigner
        from retrodict.stores.urls import open_tables

        guard = VersionSigner(lambda: self.ledger)
        breaker = self._breaker("tables", self.config["stores.tables"])
        return self._open("stores.tables", partial(open_tables, guard=guard, breaker=breaker))

    @cached_property
    def records(self) -> RecordStore:
        """Ledger, runs, registry, deployments."""
        from retrodict.stores.urls import open_records

        return self._open("stores.records", partial(open_records, guard=self.guard("records")))

    @cached_property
    def keys(self) -> KeyStore:
        """Online feature state."""
        from retrodict.stores.urls import open_keys

        return self._open("stores.keys", partial(open_keys, guard=self.guard("keys")))

    @cached_property
    def sessions(self) -> KeyStore:
        """Sessions of callers: with the keys on a server, else in a store of their own beside them."""
        from retrodict.stores.urls import is_guarded, open_sessions

        return self.keys if is_guarded(self.config["stores.keys"]) else self._open("stores.keys", open_sessions)

    @cached_property
    def scores(self) -> ExpiringKeys | None:
        """Scores that processes share; None where they share none."""
        from retrodict.stores.urls import open_cache

        if not self.config["stores.scores"]:
            return None
        return self._open("stores.scores", partial(open_cache, guard=self.guard("scores", RetrodictError)))

    @cached_property
    def objects(self) -> ObjectStore:
        """Artifacts, named by content."""
        from retrodict.stores.urls import open_objects

        breaker = self._breaker("objects", self.config["stores.objects"])
        return self._open("stores.objects", partial(open_objects, breaker=breaker))

    @cached_property
    def streams(self) -> StreamStore:
        """Decisions out: the sealed log."""
        from retrodict.ledger.segments import named_segments, origin_of
        from retrodict.stores.urls import open_log

        def admitted(name: str) -> set[str] | None:
            return named_segments(self.ledger, name)

        def owner() -> str:
            return f"{self.name} {origin_of(self.ledger)}"

        opener = partial(open_log, admitted=admitted, owner=owner, guard=self.guard("streams"))
        return self._open("stores.streams", opener)

    @cached_property
    def events(self) -> EventStreams:
        """Events in."""
        from retrodict.stores.urls import open_streams

        return self._open("stores.events", partial(open_streams, guard=self.guard("events")))

    @cached_property
    def ledger(self) -> Ledger:
        """The chain of who did what."""
        from retrodict.ledger.heads import HeadPlace
        from retrodict.ledger.ledger import Ledger
        from retrodict.ledger.witnesses import open_witnesses

        return Ledger(
            self.records,
            self.clock,
            self.actor,
            key_path=self.config.path("ledger.key"),
            checkpoints=self.config.path("ledger.checkpoints"),
            witnesses=open_witnesses(self.config["ledger.witnesses"], self.root, self._breaker),
            heads=self.streams if isinstance(self.streams, HeadPlace) else None,
        )

    def lock(self, what: str, *, timeout_s: float = 60.0) -> FileLock:
        """Hold a piece of work alone, over all threads and processes of this machine; a context manager.

        Parameters
        ----------
        what : str
            What is held, as a path of names: ``"ingest/flights"``.
        timeout_s : float, default 60
            How long to wait for another holder, in seconds.

        Raises
        ------
        BusyError
            If another still holds it; the message names its process. The kernel lets go when a process ends.
        """
        from retrodict.stores._locks import FileLock

        return FileLock(self.root / "state" / "locks" / what, where=what, timeout_s=timeout_s)

    def guard(self, store: str, *on: type[Exception], url: str | None = None) -> ServerGuard:
        """What stands before a store that is on a server, by the settings; ``on``: which errors say that it is away.

        ``url`` is that of a server that is no store.
        """
        from retrodict.stores._guard import ServerGuard

        setting = {name: self.config[f"servers.{name}"] for name in _SERVERS}
        breaker = self._breaker(store, url or self.config[f"stores.{store}"], *on)
        pauses = {"strategy": setting["retry_strategy"], "base": setting["retry_base"], "cap": setting["retry_cap"]}
        retry = Retry((ServerAwayError,), setting["retries"], **pauses) if setting["retries"] else None
        return ServerGuard(breaker, retry, parse_duration(setting["read_timeout"]) / SECOND)

    def _breaker(self, name: str, url: str, *on: type[Exception]) -> Breaker:
        """The breaker before what a URL names; one for as long as this object lives."""
        from retrodict.stores._guard import AWAY
        from retrodict.stores.urls import is_guarded

        failures, recovery = self.config["servers.breaker_failures"], self.config["servers.breaker_recovery"]
        breaker = self.breakers.get(name) or Breaker(name, *(on or AWAY), failures=failures, recovery=recovery)
        if is_guarded(url):
            # A new dictionary: a server counts by the old one in another thread.
            self.breakers = {**self.breakers, name: breaker}
        return breaker

    def _open(self, key: str, opener: Callable[[str, Path], S]) -> S:
        try:
            return opener(self.config[key], self.root)
        except ConfigurationError as error:
            parts: dict[str, Any] = {} if error.got is None else {"got": error.got}
            raise ConfigurationError(error.rule, where=self.config.place(key), remedy=error.remedy, **parts) from error

    def at_close(self, what: str, job: Callable[[], None]) -> None:
        """Do a job when this is closed, such as waiting for what is still being written; one of each name is done."""
        self._endings[what] = job

    def close(self) -> None:
        """Close the stores that were opened; the next use opens them again."""
        while self._endings:
            self._endings.popitem()[1]()
        for name in ("records", "keys", "sessions", "events", "scores", "streams"):
            store = self.__dict__.pop(name, None)
            if hasattr(store, "close"):  # streams in files hold nothing open
                store.close()
        self.__dict__.pop("ledger", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_actor(name: str) -> str:
    """Name of somebody who acts, in one spelling: two that look alike must not be two people.

    Unicode's NFKC makes full-width letters and the like plain, and blanks are one each; what it leaves must be
    printable, at most 100 characters long, and of one script (a Cyrillic letter among Latin ones is refused).

    Raises
    ------
    InputError
        If it is none of that.
    """
    text = " ".join(unicodedata.normalize("NFKC", name).split())
    scripts = {unicodedata.name(letter, "?").partition(" ")[0] for letter in text if letter.isalpha()}
    for rule, broken in (
        (f"a name must have at most {_LONGEST_ACTOR} characters", len(text) > _LONGEST_ACTOR),
        ("a name must have printable characters only", not text.isprintable()),
        ("a name must have letters of one script", len(scripts) > 1 and not scripts <= _TOGETHER),
    ):
        if broken:
            got = f"{len(text)} characters" + (f" of {', '.join(sorted(scripts))}" if len(scripts) > 1 else "")
            raise InputError(
                rule, where="actor", got=got, remedy="Write it plainly, such as 'ana' or 'ana@bank.example'"
            )
    return text


def _actor(name_of_caller: str | None) -> str:
    """Who acts: what the caller says, what the environment says, or the user of the operating system."""
    for name in (name_of_caller, os.environ.get("RETRODICT_ACTOR")):
        if name is not None and check_text(name, where="actor").strip():
            return _check_actor(name)
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a container whose user has no name
        raise ConfigurationError(
            "who acts must have a name, and the operating system has none for this user",
            where="actor",
            remedy="Set the environment variable RETRODICT_ACTOR",
            got="no name",
        ) from error
