"""The table of aggregates: which monoids each one is made of, and how their totals become its value.

An aggregate is not a class with code of its own in every engine. It is a row here: the *channels* it needs, each an
event lifted to a number and merged by a monoid, and one finish over the merged totals. The engines know only the
monoids (``sum`` with its inverse; ``min`` and ``max`` without, so never subtracted), so an aggregate made of known
monoids is one more row, in batch, stream and request at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["AGGREGATES", "AggregateKind", "Channel", "Lift", "Monoid"]

Monoid = Literal["sum", "min", "max"]
Lift = Literal["one", "present", "true", "value"]


@dataclass(frozen=True)
class Channel:
    """One number per event and the monoid that merges it.

    Parameters
    ----------
    monoid : {"sum", "min", "max"}
        How numbers merge. Identity: 0 for ``sum``, nothing for the others.
    lift : {"one", "present", "true", "value"}
        ``one``: every event gives 1. ``present``: 1 if the value is not null. ``true``: 1 if it is true. ``value``: the
        value itself, the identity if it is null.
    value : str, optional
        Column or condition it reads.
    where : str, optional
        Condition; an event for which it is not true gives the identity.
    """

    monoid: Monoid
    lift: Lift
    value: str | None
    where: str | None


@dataclass(frozen=True)
class AggregateKind:
    """How one aggregate is computed.

    Parameters
    ----------
    channels : tuple of (monoid, lift)
        What it needs.
    finish : callable
        Value from the totals, in the order of the channels. Written with operators only, so that the same code takes
        Python numbers and NumPy arrays. The last total is the number of events the value is made of.
    empty_is_null : bool
        Whether the value is null where that number is 0.
    rounded : bool
        Whether the first total is wanted as the nearest double rather than as a whole number.
    """

    channels: tuple[tuple[Monoid, Lift], ...]
    finish: Callable[..., Any]
    empty_is_null: bool = True
    rounded: bool = False


def _first(total: Any, *_: Any) -> Any:
    return total


def _ratio(total: Any, count: Any) -> Any:
    return total / count


AGGREGATES: dict[str, AggregateKind] = {
    "count": AggregateKind((("sum", "one"),), _first, empty_is_null=False),
    "sum": AggregateKind((("sum", "value"), ("sum", "present")), _first),
    "mean": AggregateKind((("sum", "value"), ("sum", "present")), _ratio, rounded=True),
    "share": AggregateKind((("sum", "true"), ("sum", "present")), _ratio),
    "min": AggregateKind((("min", "value"), ("sum", "present")), _first),
    "max": AggregateKind((("max", "value"), ("sum", "present")), _first),
}
