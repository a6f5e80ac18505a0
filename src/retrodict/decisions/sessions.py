"""What a caller was decided lately, for the rules: in the store of keys, so that all threads and replicas share it.

The rules run inside the one atomic update that counts the decision and notes its choice. Each decision of a session so
sees the one before it, and of calls at the same time none is lost. To take a number first and note the choice
later was rejected: it costs two updates, and in between the last choice is not that of the number before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import TypeVar

import msgspec

from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import IntegrityError, RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.decisions.assignment import unit_text
from retrodict.decisions.compiled import PolicyDecision
from retrodict.decisions.definitions import Session
from retrodict.decisions.records import Value
from retrodict.stores.urls import is_guarded
from retrodict.workspace import Workspace

__all__ = ["Choice", "SessionState", "Sessions"]

_PREFIX = b"\0sessions\0"
_PARTS = 256  # of all sessions, by the first byte of their names: one is swept at a time


class SessionState(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of one session; times are microseconds since 1970-01-01 UTC.

    Attributes
    ----------
    began, seen : int
        Moments of its first and its newest decision.
    touched : int
        When that was, by the clock of the machine: the moments may be simulated.
    ttl : int
        Microseconds that it lives on without a decision.
    count : int
    last : list of str
        The newest decisions, oldest first.
    """

    began: int
    seen: int
    touched: int
    ttl: int
    count: int = 0
    last: list[str] = []

    def values(self, at: int) -> dict[str, Value]:
        """What a record has of it, for the decision that comes next."""
        last = self.last[-1] if self.last else None
        return {"count": self.count, "last": last, "age_s": max(0, at - self.began) / SECOND}


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(SessionState)

Choice = TypeVar("Choice", bound=PolicyDecision | None)


class Sessions:
    """Sessions of one policy; threads may share it.

    Promises: decisions of one session come one after the other, over threads, processes and machines that share the
    store, each with the number of those before it; ``kill -9`` loses none that :meth:`decide` returned. A session ends
    when ``ttl`` has passed since its last decision, by the moments of decisions; entries that have ended are removed.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Its name: revisions of a policy, and the arms of its rollout, share their sessions.
    session : Session
    """

    def __init__(self, workspace: Workspace, policy: str, session: Session) -> None:
        self._policy, self._by, self._last = policy, session.by, session.last
        self._ttl, self._clock = parse_duration(session.ttl), workspace.clock
        self._keys, self.on_server = workspace.sessions, is_guarded(workspace.config["stores.keys"])
        self._pause = max(self._ttl // _PARTS, SECOND)
        self._next_sweep, self._part = self._clock.now() + self._pause, -1

    def name(self, values: Mapping[str, Value]) -> bytes | None:
        """Key of the session of a request, from which nobody reads its unit; None where a part of that is missing."""
        unit = unit_text([values.get(name) for name in self._by])
        if unit is None:
            return None
        return _PREFIX + blake2b(canonical_json([self._policy, *self._by, unit]), digest_size=16).digest()

    def decide(
        self, name: bytes, at: int, choose: Callable[[Mapping[str, Value]], Choice]
    ) -> tuple[Choice, dict[str, Value]]:
        """Choose as the next decision of a session; what was chosen, and what the session was before.

        ``choose`` may be called several times; of one that chooses nothing nothing is kept.

        Raises
        ------
        RetrodictError
            If the store cannot be asked, or holds what is no session.
        """
        results: list[tuple[Choice, dict[str, Value]]] = []

        def change(stored: list[bytes | None]) -> dict[bytes, bytes | None]:
            state = self._current(stored[0], at) or SessionState(at, at, 0, 0)
            values = state.values(at)
            decision = choose(values)
            results.append((decision, values))
            if decision is None:
                return {}
            last = [*state.last, decision.decision][-self._last :] if self._last else []
            seen, touched = max(state.seen, at), self._clock.now()
            return {name: _encode(SessionState(state.began, seen, touched, self._ttl, state.count + 1, last))}

        self._keys.update([name], change, durable=False)
        if self._clock.now() >= self._next_sweep:
            with suppress(RetrodictError):  # the decision stands; the next one sweeps
                self._sweep(name, at)
        return results[-1]  # what was chosen before was by a state that others changed meanwhile

    def find(self, name: bytes) -> SessionState | None:
        """What is kept of a session, which may have ended; None where nothing is."""
        (stored,) = self._keys.get_many([name])
        return None if stored is None else _decoded(stored)

    def drop(self, name: bytes) -> None:
        """Forget a session: the next decision begins a new one."""
        self._keys.put_many({name: None}, durable=False)

    def _current(self, stored: bytes | None, at: int) -> SessionState | None:
        """Session that a decision belongs to; one of a simulated moment far before it belongs to no other."""
        state = None if stored is None else _decoded(stored)
        return state if state is not None and abs(at - state.seen) < self._ttl else None

    def _sweep(self, name: bytes, at: int) -> None:
        """Remove what has ended of one part of all sessions, of whatever policies; the parts take turns."""
        now = self._clock.now()
        self._next_sweep = now + self._pause
        self._part = (self._part + 1) % _PARTS if self._part >= 0 else name[len(_PREFIX)]

        def has_ended(value: bytes | None) -> bool:
            try:
                state = None if value is None else _decoded(value)
            except IntegrityError:  # it is kept until somebody drops it, and keeps none of the others
                return False
            return state is not None and at - state.seen >= state.ttl and now - state.touched >= state.ttl

        ended = [key for key, value in self._keys.scan(_PREFIX + bytes([self._part])) if has_ended(value)]
        if ended:

            def change(stored: list[bytes | None]) -> dict[bytes, bytes | None]:
                return {key: None for key, value in zip(ended, stored, strict=True) if has_ended(value)}

            self._keys.update(ended, change, durable=False)


def _decoded(data: bytes) -> SessionState:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            "what is kept of a session must be one", where="sessions", got=type(error).__name__,
            remedy="Drop it with: retrodict policies session POLICY NAME=VALUE --drop",
        ) from error  # fmt: skip
