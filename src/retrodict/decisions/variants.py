"""Which variant of which experiment a unit gets: the same one every time, in every process and every service.

A unit's place is that of :func:`~retrodict.decisions.assignment.bucket` with the experiment's seed. Each variant has a
range of places as wide as its weight, of which the experiment takes its share from the beginning (as the coverage of
GrowthBook's kits): to raise the share moves nobody from one variant to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.core.expressions import parse
from retrodict.decisions.assignment import bucket, unit_text
from retrodict.decisions.records import Value

__all__ = ["VariantAssigner", "choose_variant", "names_of_units"]


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


class VariantAssigner:
    """Variants of requests in the experiments that a deployment names.

    Parameters
    ----------
    experiments : sequence of mapping
        ``Deployment.experiments``: of each ``name``, ``unit``, ``seed``, ``variants``, ``share``, ``layer``, ``slot``
        and ``where``.
    """

    def __init__(self, experiments: Sequence[Mapping[str, Any]]) -> None:
        self._experiments = [
            (state, None if state["where"] is None else parse(state["where"]).to_row()) for state in experiments
        ]

    def assign(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Experiment to variant, of those that take the unit of a request in.

        Parameters
        ----------
        values : mapping of str to value
            Entities and context of the request, as its schema gives them.
        """
        variants = {}
        for state, where in self._experiments:
            unit = unit_text([values.get(name) for name in state["unit"]])
            if unit is None or (where is not None and where(dict(values)) is not True):
                continue
            low, high = state["slot"]
            if state["layer"] is not None and not low <= bucket(f"layer {state['layer']}", unit) < high:
                continue
            variant = choose_variant(bucket(state["seed"], unit), state["variants"], state["share"])
            if variant is not None:
                variants[state["name"]] = variant
        return variants
