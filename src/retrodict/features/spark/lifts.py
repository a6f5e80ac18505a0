"""Lifted events as SQL: what each event gives to a channel, doubles as whole numbers of a unit that their bucket fixes.

Squares and cubes are taken without error, as sums of doubles (TwoProduct with Veltkamp's split, Dekker 1971): both
engines compute in IEEE doubles, step by step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["INFINITY", "Lift", "exponent", "lift_stages"]

INFINITY = "CAST('infinity' AS DOUBLE)"

_BINADES = 8  # in one bucket; 53 bits of a double, these, and one either way for the logarithm's last bit: 62 bits
_SPLIT = "134217729e0"
_MOST = repr(sys.float_info.max)
_STEP = 1000  # a factor of 2**1100 is no double: two steps


@dataclass(frozen=True)
class Lift:
    """What one channel takes of an event: the lift's name, the columns of its value and of its condition."""

    name: str
    value: str | None
    where: str | None


def exponent(bucket: int) -> int:
    """Exponent of the power of two in whose units the numbers of a bucket are counted."""
    return _BINADES * bucket - 53


def _bucket(number: str) -> str:
    """SQL of the bucket of a finite double; null for zero, which adds nothing."""
    return f"CASE WHEN {number} <> 0e0 THEN CAST(floor(log2(abs({number})) / {_BINADES}e0) AS INT) END"


def _scaled(number: str, bucket: int) -> str:
    """SQL of a double of this bucket as a whole number of its units: products with powers of two, so exact."""
    power = -exponent(bucket)
    steps = [power] if power <= _STEP else [_STEP, power - _STEP]
    return f"CAST({' * '.join([number, *(_double(2.0**step) for step in steps)])} AS BIGINT)"


def _double(value: float) -> str:
    text = repr(value)
    return text if "e" in text else text + "e0"


def lift_stages(
    lifts: Sequence[Lift],
    floating: Sequence[int],
    buckets: Mapping[int, Sequence[int]] | None,
    relations: tuple[str, str],
) -> list[tuple[str, str]]:
    """Named queries that add ``f_<i>`` per channel, and for sums of doubles bucket ``b_<i>`` and digits ``m_<i>``.

    Parameters
    ----------
    lifts : sequence of Lift
        One per channel.
    floating : sequence of int
        Channels that sum doubles.
    buckets : mapping of int to sequence of int, optional
        Their buckets. None: not known yet, and no digits wanted.
    relations : tuple of str
        What to start from, and the name of the last query.
    """
    before, result = relations
    levels = _moments(lifts)
    levels.append({f"f_{i}": _lifted(lift) for i, lift in enumerate(lifts)})
    levels.append({f"b_{i}": _bucket(f"f_{i}") for i in floating})
    levels.append({f"m_{i}": _digits(i, known) for i, known in (buckets or {}).items()})
    filled = [level for level in levels if level]
    stages = []
    for place, level in enumerate(filled, start=1 - len(filled)):
        name = f"{result}{-place}" if place else result
        columns = ", ".join(f"{sql} AS {column}" for column, sql in level.items())
        stages.append((name, f"SELECT *, {columns} FROM {before}"))
        before = name
    return stages or [(result, f"SELECT * FROM {before}")]


def _digits(channel: int, known: Sequence[int]) -> str:
    arms = "".join(f" WHEN {bucket} THEN {_scaled(f'f_{channel}', bucket)}" for bucket in known)
    return f"CASE b_{channel}{arms} END" if known else "CAST(NULL AS BIGINT)"


def _lifted(lift: Lift) -> str:
    match lift.name:
        case "one":
            found = "1"
        case "present":
            found = f"CASE WHEN {lift.value} IS NOT NULL THEN 1 END"
        case "true":
            found = f"CASE WHEN {lift.value} THEN 1 END"
        case "value":
            found = str(lift.value)
        case moment:
            found = f"{lift.value}_{moment}"
    return found if lift.where is None else f"CASE WHEN {lift.where} THEN {found} END"


def _moments(lifts: Sequence[Lift]) -> list[dict[str, str]]:
    """Squares and cubes of the values that are asked for, level by level."""
    levels: list[dict[str, str]] = [{} for _ in range(8)]
    for x in dict.fromkeys(lift.value for lift in lifts if lift.name.startswith(("square", "cube"))):
        levels[0][f"{x}_x"] = f"CAST({x} AS DOUBLE)"
        _two_product(levels[1:], (f"{x}_x", f"{x}_x"), (f"{x}_square", f"{x}_square_rest"))
    for x in dict.fromkeys(lift.value for lift in lifts if lift.name.startswith("cube")):
        _two_product(levels[4:], (f"{x}_square", f"{x}_x"), (f"{x}_cube", f"{x}_cube_1"))
        _two_product(levels[4:], (f"{x}_square_rest", f"{x}_x"), (f"{x}_cube_2", f"{x}_cube_3"))
    return levels


def _two_product(levels: list[dict[str, str]], factors: tuple[str, str], results: tuple[str, str]) -> None:
    """The product rounded, and what rounding took away; operation by operation as ``features.facts.events`` does it."""
    (a, b), (product, rest) = factors, results
    wide_product = f"{product}_wide"
    for factor in dict.fromkeys(factors):
        wide = f"({_SPLIT} * {factor})"
        levels[0][f"{product}_of_{factor}_h"] = f"{wide} - ({wide} - {factor})"
        levels[1][f"{product}_of_{factor}_l"] = f"{factor} - {product}_of_{factor}_h"
    levels[0][wide_product] = f"{a} * {b}"
    levels[1][product] = f"CASE WHEN {a} IS NOT NULL THEN GREATEST(LEAST({wide_product}, {_MOST}), -{_MOST}) END"
    (ah, al), (bh, bl) = ((f"{product}_of_{x}_h", f"{product}_of_{x}_l") for x in factors)
    error = f"({al} * {bl} - ((({wide_product} - {ah} * {bh}) - {al} * {bh}) - {ah} * {bl}))"
    finite = f"abs({wide_product}) < {INFINITY} AND abs({error}) < {INFINITY}"
    levels[2][rest] = f"CASE WHEN {finite} THEN {error} WHEN {a} IS NOT NULL THEN 0e0 END"
