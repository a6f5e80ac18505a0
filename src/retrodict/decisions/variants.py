"""Which variant of which experiment a unit gets: the same one every time, in every process and every service.

A unit's place is that of :func:`~retrodict.decisions.assignment.bucket` with the experiment's seed. Each variant has a
range of places as wide as its weight, of which the experiment takes its share from the beginning (as the coverage of
GrowthBook's kits): to raise the share moves nobody from one variant to another.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.core.errors import InputError
from retrodict.core.expressions import parse
from retrodict.core.log_lines import OnceASecond
from retrodict.decisions.assignment import bucket, unit_text
from retrodict.decisions.records import Value

__all__ = ["UnitCondition", "VariantAssigner", "choose_variant", "names_of_units"]

_log = logging.getLogger(__name__)
_log.addFilter(OnceASecond())


def choose_variant(place: float, weights: Mapping[str, float], share: float = 1.0) -> str | None:
    """Variant at a place from 0 to 1; None where the share does not reach.

    Parameters
    ----------
    place : float
    weights : mapping of str to float
        In order; they add up to 1.
    share : float, default 1
        Part of every variant's range that is in the experiment.

    Examples
    --------
    >>> [choose_variant(place, {"a": 0.5, "b": 0.5}, share=0.5) for place in (0.1, 0.3, 0.6)]
    ['a', None, 'b']
    """
    start = 0.0
    for name, weight in weights.items():
        if start <= place < start + weight * share:
            return name
        start += weight
    return None


def names_of_units(state: Mapping[str, Any]) -> frozenset[str]:
    """Values of a request that a rollout or an experiment reads: its unit, and which units it takes in."""
    where = state.get("where")
    return frozenset([*state["unit"], *(() if where is None else parse(where).columns)])


class UnitCondition:
    """Which units a rollout or an experiment takes in: those that requests name and for which its ``where`` is true.

    Where it cannot be evaluated it takes nobody in: who gets which version is no reason to refuse a decision.

    Parameters
    ----------
    label : str
        What takes them in, for the log and metrics.
    state : mapping
        With ``unit`` and ``where``, an expression over the request or None.
    """

    def __init__(self, label: str, state: Mapping[str, Any]) -> None:
        self.label, self._unit = label, tuple(state["unit"])
        self._where = None if state.get("where") is None else parse(state["where"]).to_row()

    def unit(self, values: Mapping[str, Value]) -> str | None:
        """Unit of a request, as a text; None where it is not taken in."""
        try:
            unit = unit_text([values.get(name) for name in self._unit])
            return unit if self._where is None or self._where(dict(values)) is True else None
        except InputError as error:
            _log.warning("%s takes nobody in whose request its condition does not fit: %s", self.label, str(error))
            return None

    def fault(self, values: Mapping[str, Value]) -> InputError | None:
        """Why ``where`` cannot be evaluated for the values of a request; None where it can."""
        try:
            _ = self._where is not None and self._where(dict(values))
        except InputError as error:
            return error
        return None


class VariantAssigner:
    """Variants of requests in the experiments that a deployment names.

    Parameters
    ----------
    experiments : sequence of mapping
        ``Deployment.experiments``: of each ``name``, ``unit``, ``seed``, ``variants``, ``share``, ``layer``, ``slot``
        and ``where``.
    """

    def __init__(self, experiments: Sequence[Mapping[str, Any]]) -> None:
        self._experiments = [(state, UnitCondition(f"experiment {state['name']}", state)) for state in experiments]
        self.conditions = [condition for _, condition in self._experiments]

    def assign(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Experiment to variant, of those that take the unit of a request in.

        Parameters
        ----------
        values : mapping of str to value
            Entities and context of the request, as its schema gives them.
        """
        variants = {}
        for state, condition in self._experiments:
            unit = condition.unit(values)
            if unit is None:
                continue
            low, high = state["slot"]
            if state["layer"] is not None and not low <= bucket(f"layer {state['layer']}", unit) < high:
                continue
            variant = choose_variant(bucket(state["seed"], unit), state["variants"], state["share"])
            if variant is not None:
                variants[state["name"]] = variant
        return variants
