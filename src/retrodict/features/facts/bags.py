"""Bags: functions of all events of a window, of many windows at once.

One million rows of a training frame and one request run the same code: windows come as a ragged structure (the events
of the first window, then those of the second, and so on), and a request is a structure of one window. So the two
cannot differ. Nothing runs per event in Python; the work is one sort of (window, value) per function, where values are
replaced by their ranks first, so that text, dates and floats are sorted alike, as whole numbers.

A function per window (``np.quantile`` of every slice) was rejected: a call costs more than the few events of a typical
window. Sketches (KLL, t-digest) were rejected for the quantile: the events are there, and the exact answer is as cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError
from retrodict.core.kinds import kind_of
from retrodict.core.statistics.distinct import LIMIT, DistinctSketch
from retrodict.core.statistics.exact import exact_sum, round_limbs, scale_for, split_limbs, to_float
from retrodict.features.facts.columns import FactColumn, Ints, Mask, known_type, list_numbers, numeric, plain, present
from retrodict.features.monoids import BAGS
from retrodict.features.plan import Bag

__all__ = ["Ragged", "Values", "check_types", "compute", "decay"]

Floats = NDArray[np.float64]

_FEW, _LIMBS = 256, 8  # below, and beyond, sums of slices are cheaper than limbs
_NUMBERS = frozenset({"bool", "int", "float", "time", "null"})
_LABELS = frozenset({"bool", "int", "text", "null"})
_KINDS = {"numbers": _NUMBERS, "anything": _NUMBERS | {"text", "date"}, "lists": frozenset({"list", "null"})}
_WORDS = {
    "numbers": "numbers, booleans or times",
    "anything": "numbers, booleans, times, dates or text",
    "lists": "lists of numbers",
}
_REMEDIES = {
    "numbers": "Use agg.last, agg.last_k, agg.distinct or agg.histogram for text",
    "anything": "Turn the column into text or numbers where the table is read",
    "lists": "Name a column of lists, or use agg.sum and agg.mean for numbers",
}


class Values:
    """A column as bags read it: values, where there is one, and their ranks.

    Ranks are made once, of the whole column, when first needed: give it only the rows that windows can hold.

    Parameters
    ----------
    column : pyarrow.Array
        Values, of any type but dictionaries; NaN and infinities are null.

    Attributes
    ----------
    array : pyarrow.Array
        The values, those that are no number as null.
    kind : str
        Word for their type.
    """

    def __init__(self, column: pa.Array[Any]) -> None:
        self.array = plain(known_type(column, where="bag"))
        self.kind = kind_of(column.type)
        self._vectors: dict[int, tuple[Floats, Mask]] = {}

    def vectors(self, size: int) -> tuple[Floats, Mask]:
        """The lists of that many finite numbers as rows of a matrix, and where there is one."""
        if size not in self._vectors:
            rows, complete = np.zeros((len(self.array), size)), self.valid.copy()
            if self.kind == "list":
                complete &= pc.fill_null(pc.equal(pc.list_value_length(self.array), size), False).to_numpy(False)
                numbers = list_numbers(self.array.filter(pa.array(complete)), where="bag")
                rows[complete] = numbers.reshape(-1, size) + 0.0
                complete &= np.isfinite(rows).all(axis=1)
            self._vectors[size] = rows, complete
        return self._vectors[size]

    @cached_property
    def valid(self) -> Mask:
        """Where there is a value."""
        return present(self.array)

    @cached_property
    def numbers(self) -> NDArray[Any]:
        """The values as int64 or float64, 0 where there is none."""
        array = self.array.cast(pa.int32()) if self.kind == "date" else self.array
        column: FactColumn = numeric(array, where="bag")
        return column.values

    @cached_property
    def ranks(self) -> tuple[Ints, pa.Array[Any]]:
        """Rank of each value among the different ones (0 where there is none), and those in ascending order."""
        return self._text_ranks() if self.kind == "text" else self._number_ranks()

    def _text_ranks(self) -> tuple[Ints, pa.Array[Any]]:
        coded: Any = self.array.dictionary_encode()
        # Bytes of UTF-8 are in the order of code points.
        order = pc.sort_indices(coded.dictionary)
        ranks = _inverse(order.to_numpy())
        codes = np.asarray(pc.fill_null(coded.indices, 0).to_numpy()).astype(np.int64)
        return ranks[codes] if len(ranks) else codes, coded.dictionary.take(order)

    def _number_ranks(self) -> tuple[Ints, pa.Array[Any]]:
        rows = np.flatnonzero(self.valid)
        _, first, codes = np.unique(self.numbers[rows], return_index=True, return_inverse=True)
        ranks = np.zeros(len(self.array), dtype=np.int64)
        ranks[rows] = codes
        return ranks, self.array.take(pa.array(rows[first]))

    @cached_property
    def labels(self) -> tuple[Ints, pa.Array[Any]]:
        """The same of the values as text, in the order of code points."""
        ranks, different = self.ranks
        if self.kind == "text":
            return ranks, different.cast(pa.string())
        texts = different.cast(pa.string())
        order = pc.sort_indices(texts)
        places = _inverse(order.to_numpy())
        return places[ranks] if len(places) else ranks, texts.take(order)


@dataclass(frozen=True)
class Ragged:
    """Visible events of many windows, one window after the other, each in the total order of the events.

    Attributes
    ----------
    at : int64 array, shape (windows,)
        Time of each decision, in microseconds.
    sizes : int64 array, shape (windows,)
        How many events each window holds; may be 0.
    rows : int64 array, shape (sum of sizes,)
        Which events they are: rows of ``event_time`` and of the columns.
    event_time : int64 array
        Event time of every event, in microseconds.

    Examples
    --------
    >>> happened = np.array([10, 20, 30])
    >>> two = Ragged(np.array([25, 40]), np.array([2, 3]), np.array([0, 1, 0, 1, 2]), happened)
    >>> compute(Bag("last", "x"), two, Values(pa.array([1.5, 2.5, None]))).to_pylist()
    [2.5, 2.5]
    """

    at: Ints
    sizes: Ints
    rows: Ints
    event_time: Ints

    @cached_property
    def ends(self) -> Ints:
        """Place after the last event of each window."""
        return np.cumsum(self.sizes)

    @cached_property
    def begins(self) -> Ints:
        """Place of the first event of each window."""
        return self.ends - self.sizes

    @cached_property
    def window(self) -> Ints:
        """Window of each place."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def keep(self, events: Mask) -> Ragged:
        """Keep the places whose event the mask, over all events, holds."""
        if events.all():
            return self
        mask = events[self.rows]
        counts = np.concatenate([[0], np.cumsum(mask)])
        return replace(self, sizes=counts[self.ends] - counts[self.begins], rows=self.rows[mask])


def check_types(bag: Bag, value: Values | None, second: Values | None, *, where: str) -> None:
    """Refuse columns of a type that a bag does not take: DefinitionError."""
    takes, op = BAGS[bag.op].takes, bag.op.removesuffix("_by")
    if value is not None and bag.op == "histogram" and value.kind not in _LABELS:
        raise _refused("a histogram is of text, whole numbers or booleans", bag.value, value, where, _cast(bag.value))
    if value is not None and value.kind not in _KINDS[takes]:
        raise _refused(f"{op} reads {_WORDS[takes]}", bag.value, value, where, _REMEDIES[takes])
    if second is not None and BAGS[bag.op].ordered:
        if second.kind not in _KINDS["anything"]:
            raise _refused(f"{op} is ordered by {_WORDS['anything']}", bag.second, second, where, _REMEDIES["anything"])
    elif second is not None and second.kind not in _LABELS:
        raise _refused("groups are text, whole numbers or booleans", bag.second, second, where, _cast(bag.second))


def _cast(column: str | None) -> str:
    return f"Round or cast {column!r} where the table is read"


def _refused(rule: str, column: str | None, got: Values, where: str, remedy: str) -> DefinitionError:
    return DefinitionError(rule, where=f"{where}, column {column!r}", got=str(got.array.type), remedy=remedy)


def compute(bag: Bag, ragged: Ragged, value: Values | None = None, second: Values | None = None) -> pa.Array[Any]:
    """Value of a bag for every window.

    Parameters
    ----------
    bag : Bag
        The function; its ``where`` is the caller's: hand in only events for which it is true (:meth:`Ragged.keep`).
    ragged : Ragged
        The windows.
    value, second : Values, optional
        The columns it reads, one value per event.

    Returns
    -------
    pyarrow.Array, shape (windows,)
        Null where nothing is left, 0 for the counts of different values and of sessions.
    """
    for column in (value, second):
        if column is not None:
            ragged = ragged.keep(column.valid)
    return _FUNCTIONS[bag.op](bag, ragged, value, second)


def decay(age_us: Ints, half_life_us: int) -> Floats:
    """``2**(-age / half_life)``, the same bits on every machine and for any length of the array.

    Libraries differ in the last bit of ``exp2``, and vectorised loops from scalar ones. Here the age is split into
    whole half-lives and a rest in ``[-1/2, 1/2]`` of one, whose power is a polynomial (Taylor's, to ``2**-54``) of IEEE
    products and sums; the error is below two units in the last place.

    Parameters
    ----------
    age_us : int64 array
        Ages in microseconds, 0 or more.
    half_life_us : int
        Half-life in microseconds.

    Returns
    -------
    float64 array

    Examples
    --------
    >>> decay(np.array([0, 10, 20]), 10).tolist()
    [1.0, 0.5, 0.25]
    """
    halvings, rest = np.divmod(age_us, half_life_us)
    up = rest > half_life_us - rest
    part = (rest - np.where(up, half_life_us, 0)).astype(np.float64) / np.float64(half_life_us)
    power = np.full(len(age_us), _TAYLOR[-1])
    for coefficient in _TAYLOR[-2::-1]:
        power = power * part
        power = power + coefficient
    # Beyond 1,200 half-lives every weight is 0 anyway, and an exponent of C fits.
    return np.asarray(np.ldexp(power, -np.minimum(halvings + up, 1_200).astype(np.int32)))


# (-ln 2)**k / k!
_TAYLOR = (
    1.0,
    -0.6931471805599453,
    0.24022650695910072,
    -0.05550410866482158,
    0.009618129107628477,
    -0.0013333558146428443,
    0.0001540353039338161,
    -1.5252733804059841e-05,
    1.321548679014431e-06,
    -1.01780860092397e-07,
    7.054911620801123e-09,
    -4.4455382718708116e-10,
    2.5678435993488206e-11,
    -1.3691488853904128e-12,
    6.778726354822545e-14,
)


def _inverse(order: NDArray[Any]) -> Ints:
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


def _sorted(ragged: Ragged, ranks: Ints, size: int) -> Ints:
    """Ranks of the events, ascending within each window."""
    base = ragged.window * size
    keys = base + ranks[ragged.rows]
    keys.sort()
    return keys - base


def _fresh(ragged: Ragged, ranks: Ints) -> Mask:
    """Where, among ranks sorted within windows, another window or rank begins."""
    fresh = np.ones(len(ranks), dtype=np.bool_)
    fresh[1:] = (ranks[1:] != ranks[:-1]) | (ragged.window[1:] != ragged.window[:-1])
    return fresh


def _runs(starts: Ints, sizes: Ints) -> Ints:
    """All places of runs, one run after the other."""
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))


def _offsets(sizes: Ints) -> pa.Array[Any]:
    return pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())


def _sizes(bag: Bag, ragged: Ragged) -> Ints:
    """How many values each window gives: one, or of a list ``k`` at most."""
    return np.minimum(ragged.sizes, bag.k if BAGS[bag.op].gives == "values" else 1)


def _packed(bag: Bag, values: pa.Array[Any], places: Ints, sizes: Ints) -> pa.Array[Any]:
    """Values at places, ``sizes`` of them for each window: a list, or the only one of at most one."""
    empty = sizes == 0
    if BAGS[bag.op].gives == "values":
        return pa.ListArray.from_arrays(_offsets(sizes), values.take(pa.array(places)), mask=pa.array(empty))
    one = np.zeros(len(sizes), dtype=np.int64)
    one[~empty] = places
    return values.take(pa.array(one, mask=empty))


def _first_k(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    sizes = _sizes(bag, ragged)
    places = _runs(ragged.begins if bag.op in {"first", "first_k"} else ragged.ends - sizes, sizes)
    return _packed(bag, value.array, ragged.rows[places], sizes)


def _top_k(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    ranks, different = value.ranks
    ordered = _sorted(ragged, ranks, len(different))
    sizes = _sizes(bag, ragged)
    if bag.op == "bottom_k":
        places = _runs(ragged.begins, sizes)
    else:
        # The greatest first: each run of the k last backwards.
        last = np.repeat(2 * ragged.ends - sizes - 1, sizes)
        places = last - _runs(ragged.ends - sizes, sizes)
    return _packed(bag, different, ordered[places], sizes)


def _ranked(bag: Bag, ragged: Ragged, value: Values | None, second: Values | None) -> pa.Array[Any]:
    assert value is not None
    assert second is not None
    (ranks, different), rows = second.ranks, ragged.rows[::-1]
    place = ranks[rows] if bag.op in {"argmin", "bottom_k_by"} else len(different) - 1 - ranks[rows]
    # Backwards and stable, so that of equal ones the newest comes first.
    order = np.argsort(ragged.window[::-1] * len(different) + place, kind="stable")
    sizes = _sizes(bag, ragged)
    return _packed(bag, value.array, rows[order[_runs(ragged.begins, sizes)]], sizes)


def _summed(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    rows, complete = value.vectors(bag.k)
    ragged = ragged.keep(complete)
    begins = ragged.begins[ragged.sizes > 0]
    # One element of all events, then the next: runs of the same windows, once per element.
    starts = np.arange(bag.k if len(begins) else 0)[:, None] * len(ragged.rows) + begins
    totals = _grouped(bag.op.removesuffix("_list"), rows[ragged.rows].T.ravel(), starts.ravel())
    totals = totals.reshape(starts.shape).T.ravel()
    items = pa.array(totals, mask=~np.isfinite(totals))
    empty = ragged.sizes == 0
    return pa.ListArray.from_arrays(_offsets(np.where(empty, 0, bag.k)), items, mask=pa.array(empty))


def _counted(ragged: Ragged, ranked: tuple[Ints, pa.Array[Any]]) -> tuple[Ints, Ints, Ints]:
    """Different ranks of each window, ascending: their windows, the ranks, and how many events have each."""
    ordered = _sorted(ragged, ranked[0], len(ranked[1]))
    starts = np.flatnonzero(_fresh(ragged, ordered))
    return ragged.window[starts], ordered[starts], np.diff(np.append(starts, len(ordered)))


def _mode(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    windows, ranks, counts = _counted(ragged, value.ranks)
    # Stable: of equal counts the smaller value stays before the greater.
    frequent = np.lexsort((-counts, windows))[np.flatnonzero(np.diff(windows, prepend=-1))]
    return _packed(bag, value.ranks[1], ranks[frequent], _sizes(bag, ragged))


def _distinct(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    counts = np.bincount(_counted(ragged, value.ranks)[0], minlength=len(ragged.sizes)).astype(np.int64)
    if bag.op == "approx_distinct":
        # A sketch of fewer different values is exact.
        for window in np.flatnonzero(counts > LIMIT):
            rows = ragged.rows[ragged.begins[window] : ragged.ends[window]]
            counts[window] = DistinctSketch.of(value.array.take(pa.array(rows))).count
    return pa.array(counts)


def _quantile(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    assert value is not None
    ranks, different = value.ranks
    numbers = Values(different).numbers.astype(np.float64)
    filled = np.flatnonzero(ragged.sizes)
    ordered, begins, last = _sorted(ragged, ranks, len(different)), ragged.begins[filled], ragged.sizes[filled] - 1
    place = last * bag.q
    below = np.floor(place).astype(np.int64)
    low, high = (numbers[ordered[begins + at]] for at in (below, np.minimum(below + 1, last)))
    quantiles = np.zeros(len(ragged.sizes))
    with np.errstate(over="ignore", invalid="ignore"):
        between = low + (high - low) * (place - below)
    # Two neighbours may be further apart than doubles reach.
    weighted = low * (1 - (place - below)) + high * (place - below)
    quantiles[filled] = np.where(np.isfinite(between), between, weighted)
    return pa.array(quantiles, mask=ragged.sizes == 0)


def _histogram(_: Bag, ragged: Ragged, value: Values | None, __: Values | None) -> pa.Array[Any]:
    assert value is not None
    windows, ranks, counts = _counted(ragged, value.labels)
    return _maps(ragged, windows, value.labels[1].take(pa.array(ranks)), pa.array(counts, pa.int64()))


def _by(bag: Bag, ragged: Ragged, value: Values | None, second: Values | None) -> pa.Array[Any]:
    assert second is not None
    if value is None:
        return _histogram(bag, ragged, second, None)
    ranks, texts = second.labels
    order = np.argsort(ragged.window * len(texts) + ranks[ragged.rows], kind="stable")
    rows = ragged.rows[order]
    starts = np.flatnonzero(_fresh(ragged, ranks[rows]))
    totals = _grouped(bag.group_op, value.numbers[rows], starts)
    items = pa.array(totals, mask=~np.isfinite(totals))
    return _maps(ragged, ragged.window[starts], texts.take(pa.array(ranks[rows[starts]])), items)


def _grouped(op: str, values: NDArray[Any], starts: Ints) -> Floats:
    if not len(starts):
        return np.zeros(0)
    if op in {"min", "max"}:
        merge = np.minimum if op == "min" else np.maximum
        return merge.reduceat(values, starts).astype(np.float64)
    sums = _exact_sums(values, starts)
    if op != "mean":
        return sums
    ends = np.append(starts[1:], len(values))
    means = sums / (ends - starts)
    for run in np.flatnonzero(np.isinf(sums)).tolist():  # the mean is no farther out than the values
        numbers = values[starts[run] : ends[run]].tolist()
        means[run] = to_float(sum(map(Fraction, numbers), Fraction(0)) / len(numbers))
    return means


def _exact_sums(values: NDArray[Any], starts: Ints) -> Floats:
    """Exact sum of each run of values that is not empty, rounded once."""
    if len(values) >= _FEW:
        scale = scale_for(values)
        if scale.limbs <= _LIMBS:
            return round_limbs(np.add.reduceat(split_limbs(values, scale), starts, axis=0), scale)
    numbers = values.tolist()
    add: Callable[[list[Any]], Any] = sum if values.dtype == np.int64 else exact_sum
    bounds = [*starts.tolist(), len(numbers)]
    return np.array([float(add(numbers[a:b])) for a, b in pairwise(bounds)])


def _maps(ragged: Ragged, windows: Ints, keys: pa.Array[Any], items: pa.Array[Any]) -> pa.Array[Any]:
    sizes = np.bincount(windows, minlength=len(ragged.sizes))
    return pa.MapArray.from_arrays(_offsets(sizes), keys, items, mask=pa.array(sizes == 0))


def _time_since_last(_: Bag, ragged: Ragged, __: Values | None, ___: Values | None) -> pa.Array[Any]:
    empty = ragged.sizes == 0
    seconds = np.zeros(len(empty))
    newest = ragged.event_time[ragged.rows[ragged.ends[~empty] - 1]]
    seconds[~empty] = (ragged.at[~empty] - newest) / 1e6
    return pa.array(seconds, mask=empty)


def _session(bag: Bag, ragged: Ragged, _: Values | None, __: Values | None) -> pa.Array[Any]:
    times, filled = ragged.event_time[ragged.rows], np.flatnonzero(ragged.sizes)
    starts = np.ones(len(times), dtype=np.bool_)
    starts[1:] = (np.diff(times) > bag.gap_us) | (np.diff(ragged.window) > 0)
    if bag.op == "session_count":
        return pa.array(np.bincount(ragged.window[starts], minlength=len(ragged.sizes)).astype(np.int64))
    last = ragged.ends[filled] - 1
    current = ragged.at[filled] - times[last] <= bag.gap_us  # else the last session is over
    filled, last = filled[current], last[current]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(times)), 0))[last]
    events, begins = np.zeros(len(ragged.sizes), dtype=np.int64), np.zeros(len(ragged.sizes), dtype=np.int64)
    events[filled], begins[filled] = last - first + 1, times[first]
    if bag.op == "session_events":
        return pa.array(events)
    return pa.array((ragged.at - begins) / 1e6, mask=events == 0)


def _decayed(bag: Bag, ragged: Ragged, value: Values | None, _: Values | None) -> pa.Array[Any]:
    weights = decay(ragged.at[ragged.window] - ragged.event_time[ragged.rows], bag.half_life_us)
    if value is not None:
        weights = weights * value.numbers[ragged.rows].astype(np.float64)
    filled = np.flatnonzero(ragged.sizes)
    sums = np.zeros(len(ragged.sizes))
    if len(filled):
        sums[filled] = _exact_sums(weights, ragged.begins[filled])
    return pa.array(sums, mask=(ragged.sizes == 0) | np.isinf(sums))


_Function = Callable[[Bag, Ragged, Values | None, Values | None], "pa.Array[Any]"]
_FUNCTIONS: dict[str, _Function] = {
    "approx_distinct": _distinct,
    "argmax": _ranked,
    "argmin": _ranked,
    "bottom_k": _top_k,
    "bottom_k_by": _ranked,
    "by": _by,
    "decayed_count": _decayed,
    "decayed_sum": _decayed,
    "distinct": _distinct,
    "first": _first_k,
    "first_k": _first_k,
    "histogram": _histogram,
    "last": _first_k,
    "last_k": _first_k,
    "mean_list": _summed,
    "mode": _mode,
    "quantile": _quantile,
    "session_count": _session,
    "session_events": _session,
    "session_seconds": _session,
    "sum_list": _summed,
    "time_since_last": _time_since_last,
    "top_k": _top_k,
    "top_k_by": _ranked,
}
