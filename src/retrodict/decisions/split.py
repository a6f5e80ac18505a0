"""Which version decides for which unit in a rollout: a share for the new one, the same units every time.

A unit's place is a salted hash, so it depends on nothing that a process remembers. The new version has the places from
0 up to its share: to raise the share adds units and takes none away. It is compared with as many units of the old one,
those with the highest places, at the same time. A random draw per request was rejected: one customer would get both
versions, and nobody could say later which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from retrodict.decisions.assignment import bucket
from retrodict.decisions.records import DecisionRecord, Value
from retrodict.decisions.requests import DecisionRequest
from retrodict.decisions.servant import Note, ReadyCase, Servant
from retrodict.decisions.variants import UnitCondition, names_of_units

__all__ = ["CANARY", "CONTROL", "TrafficSplit", "SplitServant"]

CANARY, CONTROL = "canary", "control"


class TrafficSplit:
    """Arms of the rollout that a deployment names, by its ``split``.

    Parameters
    ----------
    state : mapping
        With ``rollout``, ``unit`` (names of entities or context), ``seed``, ``share``, ``control`` (shares from 0 to
        1), and ``where``, an expression over the request that must be true, or None.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.condition = UnitCondition(f"rollout {state.get('rollout', '')}".strip(), state)
        self.seed, self.reads = state["seed"], names_of_units(state)
        self.share, self.control = state["share"], state["control"]

    def arm(self, values: Mapping[str, Value]) -> str:
        """``canary``, ``control``, or nothing: of units of neither, and of what is not taken in.

        Parameters
        ----------
        values : mapping of str to value
            Entities and context of a request, as its schema gives them.
        """
        unit = self.condition.unit(values)
        if unit is None:
            return ""
        place = bucket(self.seed, unit)
        return CANARY if place < self.share else CONTROL if place >= 1 - self.control else ""


class SplitServant(Servant):
    """Servant of what decides, which leaves a share of the units to another one.

    Parameters
    ----------
    candidate : Servant
        Of the new version.
    split : TrafficSplit
    others
        As for :class:`Servant`.
    """

    candidate: Servant
    split: TrafficSplit

    def lead(self, candidate: Servant, split: TrafficSplit) -> None:
        """Take the new version in."""
        self.candidate, self.split = candidate, split
        self.conditions = [*self.conditions, split.condition]
        self.reads |= split.reads
        self.views |= candidate.views
        self.reads |= candidate.reads
        self.on_server = self.on_server or candidate.on_server
        self.asks_model = self.asks_model or candidate.asks_model
        self.waits = self.waits or candidate.waits

    def halt(self, reason: str | None) -> None:
        """As :meth:`Servant.halt`, both."""
        super().halt(reason)
        self.candidate.halt(reason)

    def prepare(
        self, requests: Sequence[DecisionRequest], *, at: int, deadline: int, note: Note | None = None
    ) -> list[ReadyCase]:
        """As :meth:`Servant.prepare`, each request by the servant that will decide it."""
        places: dict[bool, list[int]] = {True: [], False: []}
        for place, request in enumerate(requests):
            columns = self._columns(request)
            places[columns is not None and self.split.arm(columns) == CANARY].append(place)
        prepared = [ReadyCase()] * len(requests)
        for is_candidate, members in places.items():
            prepare = self.candidate.prepare if is_candidate else super().prepare
            if members:
                noting = None if note is None else partial(_note_of, members, note)
                cases = prepare([requests[place] for place in members], at=at, deadline=deadline, note=noting)
                for place, case in zip(members, cases, strict=True):
                    prepared[place] = case
        return prepared

    def decide(self, request: DecisionRequest, **times: Any) -> DecisionRecord:
        """As :meth:`Servant.decide`; the record names the arm."""
        entities, context = values = self.schema.check(request)
        arm = self.split.arm({**context, **entities})
        if arm == CANARY:  # which has kinds of its own
            return self.candidate.decide(request, **times, arm=arm)
        return super().decide(request, **times, arm=arm, checked=values)

    def explain(self, record: DecisionRecord) -> DecisionRecord:
        """As :meth:`Servant.explain`, by the one that has decided."""
        return self.candidate.explain(record) if record.arm == CANARY else super().explain(record)

    def measure(self) -> None:
        """As :meth:`Servant.measure`, of both; requests are scored as the slower one needs it."""
        super().measure()
        self.candidate.measure()
        speeds = [speed for speed in (self.speed, self.candidate.speed) if speed is not None]
        self.speed = max(speeds, key=lambda speed: speed.alone_us, default=None)

    def warm(self, at: int) -> None:
        """As :meth:`Servant.warm`, both."""
        super().warm(at)
        self.candidate.warm(at)


def _note_of(members: Sequence[int], note: Note, place: int, case: ReadyCase) -> None:
    note(members[place], case)
