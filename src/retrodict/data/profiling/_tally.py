"""Facts of one column: what one query of the engine counts, what sketches keep block by block, and both as a profile.

Some thousand values are counted one by one; beyond that the number of distinct ones is sketched, and the most frequent
are read from a sample of rows. Rejected: heavy hitters by Misra and Gries over the whole stream. They cost more than
all else together on columns of measurements, which have none. Rejected: the quantiles and distinct counts of DuckDB's
SUMMARIZE and of Polars. They state no error, and two chunkings of the same rows differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.statistics.distinct import DistinctSketch, hash_values
from retrodict.core.statistics.moments import Moments
from retrodict.core.statistics.quantiles import QuantileSketch
from retrodict.data.profiling._texts import count_shapes, personal
from retrodict.data.profiling.profile import ColumnProfile, Histogram, Lengths, ValueCount

TYPES = ("bool", "date", "float", "int", "string", "time")  # that a table can declare
NUMERIC = ("int", "float", "time", "date")
_SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_COUNTED = 20_000  # distinct values that are counted one by one
_EXACT = 1 << 18  # values of exact quantiles
_BINS = 32

Numbers = NDArray[Any]
Column = TypeVar("Column", pl.Expr, pl.Series)


def as_numbers(column: Column, kind: str) -> Column:
    """Values as numbers, those of other kinds as they are: times and days as microseconds since 1970-01-01 UTC."""
    if kind in ("time", "date"):
        return column.dt.epoch("us")
    return column.cast(pl.Float64).fill_nan(None) if kind == "float" else column


def facts_of(name: str, kind: str) -> dict[str, pl.Expr]:
    """What a query over all rows counts of a column, in whatever order the engine reads them."""
    column = pl.col(name)
    facts = {"nulls": column.null_count()}
    if kind == "float":
        facts |= {"nans": column.is_nan().sum(), "infinities": column.is_infinite().sum()}
    if kind in NUMERIC:
        numbers = as_numbers(column, kind)
        finite = pl.when(numbers.is_finite()).then(numbers) if kind == "float" else numbers
        facts |= {"minimum": finite.min(), "maximum": finite.max()}
        if kind in ("int", "float"):
            facts |= {"zeros": (finite == 0).sum(), "negatives": (finite < 0).sum()}
    if kind == "string":
        sizes = column.str.len_chars()
        facts |= {"shortest": sizes.min(), "mean": sizes.mean(), "longest": sizes.max(), "empty": (sizes == 0).sum(),
                  "padded": (column != column.str.strip_chars()).sum()}  # fmt: skip
    return facts


class ColumnTally:
    """Sketches of one column's values, fed block by block with ``add``, and its bins, fed with ``place``."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.moments = Moments()
        self.counts: pl.DataFrame | None = None
        self._sketch: DistinctSketch | None = None
        self._values, self._quantiles = list[Numbers](), QuantileSketch(k=4096)
        self._orders = ["strictly increasing", "increasing", "strictly decreasing", "decreasing"]
        self._last = np.empty(0)
        self._edges: Numbers | None = None
        self._bins = np.zeros(0, dtype=np.int64)  # below the first edge, between two, above the last

    def add(self, column: pa.Array) -> None:
        """Count a block in the first pass."""
        if self.kind not in TYPES:
            return
        values = self._known(column)
        if not len(values):
            return
        self._add_values(values)
        if self.kind in NUMERIC:
            numbers = values.to_numpy()
            self._add_order(numbers)
            finite = numbers[np.isfinite(numbers)]
            self.moments = self.moments.merge(Moments.of(finite))
            self._values.append(finite)
            if self._quantiles.count or sum(map(len, self._values)) > _EXACT:
                self._quantiles = self._quantiles.merge(QuantileSketch.of(np.concatenate(self._values), k=4096))
                self._values = []

    def _add_order(self, values: Numbers) -> None:
        """Strike the orders that neighbours break; as blocks, since a query would hold whole columns."""
        if self._orders:
            neighbours = np.concatenate([self._last.astype(values.dtype), values])
            before, after, self._last = neighbours[:-1], neighbours[1:], values[-1:]
            tests = {"strictly increasing": after > before, "increasing": after >= before,
                     "strictly decreasing": after < before, "decreasing": after <= before}  # fmt: skip
            self._orders = [name for name in self._orders if tests[name].all()]

    @property
    def order(self) -> str | None:
        """The strictest order that all neighbours keep."""
        return self._orders[0] if self._orders else None

    def _known(self, column: pa.Array) -> pl.Series:
        return as_numbers(pl.Series("value", column), self.kind).drop_nulls()

    def _add_values(self, values: pl.Series) -> None:
        if self._sketch is not None:
            # Many values: sorting their hashes takes a third of the time of DistinctSketch.of.
            self._sketch = self._sketch.merge(DistinctSketch(hashes=np.unique(hash_values(_raw(values)))))
            return
        counts = values.value_counts(name="count")
        if self.counts is not None:
            counts = pl.concat([self.counts, counts]).group_by("value").agg(pl.col("count").sum())
        self.counts = counts
        if counts.height > _COUNTED:
            self._sketch, self.counts = DistinctSketch.of(_raw(counts.get_column("value"))), None

    @property
    def distinct(self) -> tuple[int, bool]:
        """Distinct values, and whether that is a count."""
        if self._sketch is not None:
            return self._sketch.count, self._sketch.exact
        return 0 if self.counts is None else self.counts.height, True

    @property
    def quantile_error(self) -> int:
        """Most rows by which the rank of a quantile may be off."""
        return 0 if self._values else self._quantiles.rank_error

    def at(self, shares: Any) -> list[float]:
        """Quantiles."""
        if self._values:
            return [float(x) for x in np.quantile(np.concatenate(self._values).astype(np.float64), shares)]
        return [float(x) for x in self._quantiles.quantiles(shares)]

    def frame(self, low: float | None, high: float | None) -> bool:
        """Fix the range of the histogram after the first pass; False if there is nothing to place.

        The bulk lies within three interquartile ranges of the middle half (Tukey's far fences), never beyond the
        smallest and largest value. Whole numbers get bins of whole width.
        """
        if low is None or high is None or low == high:
            return False
        first, third = self.at((0.25, 0.75))
        if first == third:
            first, third = self.at((0.05, 0.95))
        spread = 3 * (third - first)
        low, high = float(low), float(high)
        if spread:
            low, high = max(low, first - spread), min(high, third + spread)
        bins = _BINS
        if self.kind != "float" and high - low < 2**52:
            size = int(high) - int(low) + 1
            width = -(-size // _BINS)
            bins = -(-size // width)
            low = float(np.floor(low)) - 0.5
            high = low + width * bins
        edges = np.linspace(low, high, bins + 1) if np.isfinite(high - low) else np.zeros(2)
        if not (np.diff(edges) > 0).all():
            return False  # neighbours so close that a double has nothing between them
        self._edges, self._bins = edges, np.zeros(bins + 2, dtype=np.int64)
        return True

    def place(self, column: pa.Array) -> None:
        """Second pass: count values into the bins."""
        if self._edges is None:
            return
        values, low, high = self._known(column).to_numpy(), self._edges[0], self._edges[-1]
        inside = np.histogram(values, len(self._edges) - 1, (low, high))[0]
        self._bins += np.concatenate([[(values < low).sum()], inside, [(values > high).sum()]])

    @property
    def histogram(self) -> Histogram | None:
        """Counts of the second pass; None where there was nothing to place."""
        if self._edges is None:
            return None
        below, *counts, above = self._bins.tolist()
        return Histogram(float(self._edges[0]), float(self._edges[-1]), tuple(counts), below, above)


def _raw(values: pl.Series) -> Any:
    return values.to_arrow() if values.dtype == pl.String else values.to_numpy()


def column_profile(
    tally: ColumnTally, counted: Mapping[str, Any], sample: pl.Series, *, rows: int, arrives: pa.DataType, unique: bool,
    top: int,
) -> ColumnProfile:  # fmt: skip
    """Profile of a column, from its tally after the first pass, results of ``facts_of``, and its sampled values."""
    facts = {name: counted[name] for name in ("nulls", "nans", "infinities", "zeros", "negatives") if name in counted}
    size = rows - counted["nulls"] - counted.get("nans", 0)
    distinct, exact = (size, True) if unique else tally.distinct
    facts |= {"distinct": min(distinct, size), "distinct_exact": exact, "unique": unique}
    if counted.get("minimum") is not None:
        facts |= _number_facts(tally, counted, size)
    facts |= _value_facts(tally, counted, sample, facts["distinct"], size, top)
    return ColumnProfile(tally.name, tally.kind, str(arrives), rows, **facts)


def _readable(value: Any, kind: str) -> Any:
    if kind not in ("date", "time"):
        return value
    text = format_time(int(value))
    return text[:10] if kind == "date" else text


def _number_facts(tally: ColumnTally, counted: Mapping[str, Any], size: int) -> dict[str, Any]:
    low, high = counted["minimum"], counted["maximum"]
    facts: dict[str, Any] = {
        "minimum": _readable(low, tally.kind), "maximum": _readable(high, tally.kind),
        "quantiles": {str(s): _readable(v, tally.kind) for s, v in zip(_SHARES, tally.at(_SHARES), strict=True)},
        "quantile_error": tally.quantile_error,
    }  # fmt: skip
    if size >= 3 and low != high:
        facts["order"] = tally.order
    if tally.kind in ("int", "float"):
        of = tally.moments
        values = {"mean": of.mean, "std": of.std(), "skew": of.skew(), "kurtosis": of.kurtosis()}
        facts |= {name: value if value is None or np.isfinite(value) else None for name, value in values.items()}
    return facts


def _value_facts(
    tally: ColumnTally, counted: Mapping[str, Any], sample: pl.Series, distinct: int, size: int, top: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    counts = tally.counts
    if counts is not None:
        facts["singletons"] = int((counts.get_column("count") == 1).sum())
    elif distinct:
        counts = as_numbers(sample.alias("value"), tally.kind).drop_nulls().value_counts(name="count")
    if counts is None or not counts.height:
        return facts
    facts["top_rows"] = int(counts.get_column("count").sum())
    if tally.kind == "string":
        facts |= _text_facts(tally, counted, sample.drop_nulls(), distinct, size, top)
    if not facts.get("hidden"):
        facts["top"] = _top(counts, facts["top_rows"], distinct, tally.kind, top)
    return facts


def _text_facts(
    tally: ColumnTally, counted: Mapping[str, Any], texts: pl.Series, distinct: int, size: int, top: int
) -> dict[str, Any]:
    names = ("shortest", "mean", "longest", "empty", "padded")
    facts: dict[str, Any] = {"lengths": Lengths(*(counted[name] for name in names))}
    if tally.counts is not None:
        folded = tally.counts.get_column("value").str.strip_chars().str.to_lowercase().n_unique()
        facts["case_variants"] = tally.counts.height - folded
    facts["hidden"] = personal(tally.name, texts, distinct_share=distinct / size, distinct=distinct)
    if facts["hidden"] in (None, "nearly all distinct") and len(texts):
        shapes = count_shapes(texts)[:top]
        facts["shapes"] = tuple(ValueCount(text, count, count / len(texts)) for text, count in shapes)
    return facts


def _top(counts: pl.DataFrame, total: int, distinct: int, kind: str, size: int) -> tuple[ValueCount, ...]:
    values = []
    for value, count in counts.sort("count", "value", descending=[True, False]).head(size).iter_rows():
        rare = count == 1 if kind == "string" else count / total < 0.005
        if (distinct > 20 and rare) or (isinstance(value, float) and not np.isfinite(value)):
            continue  # a text that occurs once may be a person's; a measurement is no category
        values.append(ValueCount(_readable(value, kind), int(count), count / total))
    return tuple(values)
