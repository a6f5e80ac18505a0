"""Tallies of one column, fed block by block: its facts, in bounded memory.

Some thousand values are counted one by one; beyond that the number of distinct ones is sketched, and the most frequent
are read from a sample of rows. Rejected: heavy hitters by Misra and Gries over the whole stream. They cost more than
all else together on columns of measurements, which have none. Rejected: DuckDB's SUMMARIZE. Its quantiles state no
error, and two chunkings of the same rows differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.statistics.distinct import DistinctSketch, hash_values
from retrodict.core.statistics.moments import Moments
from retrodict.core.statistics.quantiles import QuantileSketch
from retrodict.data.profiling._texts import count_shapes, personal
from retrodict.data.profiling.profile import ColumnProfile, Histogram, Lengths, ValueCount

_SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_COUNTED = 20_000  # distinct values that are counted one by one
_EXACT = 1 << 18  # values of exact quantiles
_HASHED = 1 << 24  # rows up to which a key is looked for: 128 MB of hashes for a column that never repeats
_BINS = 32
_DAY = 86_400_000_000

Numbers = NDArray[Any]


def numbers_of(column: pa.Array, kind: str) -> Numbers:
    """Values without nulls as numbers: times and days as microseconds since 1970-01-01 UTC."""
    values = column.drop_null()
    if kind == "time":
        return np.asarray(values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64()))
    if kind == "date":
        return np.asarray(values.cast(pa.date32()).cast(pa.int32())).astype(np.int64) * _DAY
    return np.asarray(values.cast(pa.float64()) if kind == "float" else values)


class ColumnTally:
    """Facts of one column, gathered in two passes: ``add`` every block, then ``place`` every block."""

    def __init__(self, name: str, arrives: pa.DataType, kind: str) -> None:
        self.name, self.kind, self._arrives = name, kind, arrives
        self.rows = self.nulls = self.nans = self.infinities = 0
        self._numeric = kind in ("int", "float", "time", "date")
        self._counts: pl.DataFrame | None = None
        self._sketch: DistinctSketch | None = None
        self._hashes: list[NDArray[np.uint64]] | None = [] if kind in ("int", "time", "date", "string") else None
        self._moments, self._values, self._quantiles = Moments(), list[Numbers](), QuantileSketch(k=4096)
        self._low: Any = None
        self._high: Any = None
        self._last: Any = None
        self._orders = ["strictly increasing", "increasing", "strictly decreasing", "decreasing"]
        self._zeros = self._negatives = 0
        self._shortest: int | None = None
        self._letters = self._longest = self._empty = self._padded = 0
        self._bins: NDArray[np.int64] | None = None
        self._range = (0.0, 0.0)
        self._below = self._above = 0

    def add(self, column: pa.Array) -> pa.Array:
        """Count a block in the first pass; returns which values are missing."""
        self.rows += len(column)
        self.nulls += column.null_count
        missing = column.is_null(nan_is_null=self.kind == "float")
        if self._numeric:
            self._add_numbers(numbers_of(column, self.kind))
        elif self.kind == "string":
            text = column.drop_null().cast(pa.large_string())
            self._add_lengths(text)
            self._add_values(pl.Series("value", text), text)
        elif self.kind == "bool":
            self._add_values(pl.Series("value", column.drop_null()), None)
        if column.null_count:
            self._hashes = None
        return missing

    def _add_numbers(self, values: Numbers) -> None:
        if self.kind == "float" and (nans := np.isnan(values)).any():
            self.nans, values = self.nans + int(nans.sum()), values[~nans]
        self._add_values(pl.Series("value", values), values)
        self._add_order(values)
        if self.kind == "float" and not (finite := np.isfinite(values)).all():
            self.infinities += int((~finite).sum())
            values = values[finite]
        if not values.size:
            return
        low, high = values.min().item(), values.max().item()
        self._low = low if self._low is None else min(low, self._low)
        self._high = high if self._high is None else max(high, self._high)
        if self.kind in ("int", "float"):
            self._moments = self._moments.merge(Moments.of(values))
            self._zeros += int((values == 0).sum())
            self._negatives += int((values < 0).sum())
        self._values.append(values)
        if self._quantiles.count or sum(map(len, self._values)) > _EXACT:
            self._quantiles = self._quantiles.merge(QuantileSketch.of(np.concatenate(self._values), k=4096))
            self._values = []

    def _add_values(self, series: pl.Series, raw: Any) -> None:
        if not len(series):
            return
        if self._hashes is not None:
            hashes = np.sort(series.hash().to_numpy())
            repeats = self.rows > _HASHED or bool((hashes[1:] == hashes[:-1]).any())
            self._hashes = None if repeats else [*self._hashes, hashes]
        if self._sketch is not None:
            # Many values: sorting their hashes takes a third of the time of DistinctSketch.of.
            self._sketch = self._sketch.merge(DistinctSketch(hashes=np.unique(hash_values(raw))))
            return
        counts = series.value_counts(name="count")
        if self._counts is not None:
            counts = pl.concat([self._counts, counts]).group_by("value").agg(pl.col("count").sum())
        self._counts = counts
        if counts.height > _COUNTED:
            keys = counts.get_column("value")
            self._sketch = DistinctSketch.of(keys.to_arrow() if self.kind == "string" else keys.to_numpy())
            self._counts = None

    def _add_order(self, values: Numbers) -> None:
        if not self._orders or not values.size:
            return
        if self._last is not None:
            values = np.concatenate([[self._last], values])
        before, after, self._last = values[:-1], values[1:], values[-1]
        tests = {
            "strictly increasing": after > before, "increasing": after >= before,
            "strictly decreasing": after < before, "decreasing": after <= before,
        }  # fmt: skip
        self._orders = [name for name in self._orders if tests[name].all()]

    def _add_lengths(self, text: pa.Array) -> None:
        if not len(text):
            return
        sizes = np.asarray(pc.utf8_length(text))
        smallest = int(sizes.min())
        self._shortest = smallest if self._shortest is None else min(self._shortest, smallest)
        self._letters += int(sizes.sum())
        self._longest = max(self._longest, int(sizes.max()))
        self._empty += int((sizes == 0).sum())
        self._padded += pc.not_equal(text, pc.utf8_trim_whitespace(text)).true_count

    def frame(self) -> bool:
        """Fix the range of the histogram after the first pass; False if there is nothing to place.

        The bulk lies within three interquartile ranges of the middle half (Tukey's far fences), never beyond the
        smallest and largest value. Whole numbers get bins of whole width.
        """
        if not self._numeric or self._low is None or self._low == self._high:
            return False
        first, third = self._at((0.25, 0.75))
        if first == third:
            first, third = self._at((0.05, 0.95))
        spread = 3 * (third - first)
        low, high = float(self._low), float(self._high)
        if spread:
            low, high = max(low, first - spread), min(high, third + spread)
        bins = _BINS
        if self.kind != "float" and high - low < 2**52:
            size = int(high) - int(low) + 1
            width = -(-size // _BINS)
            bins = -(-size // width)
            low = float(np.floor(low)) - 0.5
            high = low + width * bins
        if not np.isfinite(high - low) or not (np.diff(np.linspace(low, high, bins + 1)) > 0).all():
            return False  # neighbours so close that a double has nothing between them
        self._range, self._bins = (low, high), np.zeros(bins, dtype=np.int64)
        return True

    def place(self, column: pa.Array) -> None:
        """Second pass: count values into the bins."""
        if self._bins is None:
            return
        values = numbers_of(column, self.kind)
        low, high = self._range
        self._below += int((values < low).sum())
        self._above += int((values > high).sum())
        inside = values[(values >= low) & (values <= high)] if self._below or self._above or self.nans else values
        self._bins += np.histogram(inside, len(self._bins), (low, high))[0]

    @property
    def histogram(self) -> Histogram | None:
        """Counts of the second pass; None where there was nothing to place."""
        if self._bins is None:
            return None
        return Histogram(*self._range, tuple(self._bins.tolist()), self._below, self._above)

    def _at(self, shares: Any) -> list[float]:
        if self._values:
            return [float(x) for x in np.quantile(np.concatenate(self._values).astype(np.float64), shares)]
        return [float(x) for x in self._quantiles.quantiles(shares)]

    def _unique(self) -> bool:
        if self._hashes is None or self.rows < 2 or self.nulls or self.nans:
            return False
        hashes = np.sort(np.concatenate(self._hashes))
        return len(hashes) == self.rows and not bool((hashes[1:] == hashes[:-1]).any())

    def _readable(self, value: Any) -> Any:
        if self.kind == "date":
            return format_time(int(value))[:10]
        return format_time(int(value)) if self.kind == "time" else value

    def finish(self, sample: pa.Array, *, top: int) -> ColumnProfile:
        """Facts of the column.

        Parameters
        ----------
        sample : pyarrow.Array
            Its values in the sampled rows.
        top : int
            Top values and shapes at most.
        """
        size = self.rows - self.nulls - self.nans
        unique = self._unique()
        distinct, exact = size, True
        if not unique and self._sketch is not None:
            distinct, exact = min(self._sketch.count, size), self._sketch.exact
        elif not unique:
            distinct = 0 if self._counts is None else self._counts.height
        facts: dict[str, Any] = {
            "rows": self.rows, "nulls": self.nulls, "nans": self.nans, "infinities": self.infinities,
            "distinct": distinct, "distinct_exact": exact, "unique": unique,
        }  # fmt: skip
        if self._low is not None:
            facts |= self._number_facts(size)
        facts |= self._value_facts(sample, size, distinct, top)
        return ColumnProfile(self.name, self.kind, str(self._arrives), **facts)

    def _number_facts(self, size: int) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "minimum": self._readable(self._low),
            "maximum": self._readable(self._high),
            "quantiles": {str(s): self._readable(v) for s, v in zip(_SHARES, self._at(_SHARES), strict=True)},
            "quantile_error": 0 if self._values else self._quantiles.rank_error,
        }
        if size >= 3 and self._low != self._high and self._orders:
            facts["order"] = self._orders[0]
        if self.kind in ("int", "float"):
            moments = self._moments
            values = {
                "mean": moments.mean,
                "std": moments.std(),
                "skew": moments.skew(),
                "kurtosis": moments.kurtosis(),
            }
            facts |= {name: value if value is None or np.isfinite(value) else None for name, value in values.items()}
            facts |= {"zeros": self._zeros, "negatives": self._negatives}
        return facts

    def _value_facts(self, sample: pa.Array, size: int, distinct: int, top: int) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        counts = self._counts
        if counts is not None:
            facts["singletons"] = int((counts.get_column("count") == 1).sum())
        elif self._sketch is not None:
            values = pl.Series("value", numbers_of(sample, self.kind) if self._numeric else sample.drop_null())
            counts = (values.drop_nans() if self.kind == "float" else values).value_counts(name="count")
        if counts is None or not counts.height:
            return facts
        facts["top_rows"] = int(counts.get_column("count").sum())
        if self.kind == "string":
            facts |= self._text_facts(sample, size, distinct, top)
        if not facts.get("hidden"):
            facts["top"] = self._top(counts, facts["top_rows"], distinct, top)
        return facts

    def _text_facts(self, sample: pa.Array, size: int, distinct: int, top: int) -> dict[str, Any]:
        lengths = Lengths(self._shortest or 0, self._letters / size, self._longest, self._empty, self._padded)
        facts: dict[str, Any] = {"lengths": lengths}
        if self._counts is not None:
            folded = self._counts.get_column("value").str.strip_chars().str.to_lowercase().n_unique()
            facts["case_variants"] = self._counts.height - folded
        texts = pl.Series("value", sample.drop_null().cast(pa.large_string()))
        facts["hidden"] = personal(self.name, texts, distinct_share=distinct / size, distinct=distinct)
        if facts["hidden"] in (None, "nearly all distinct") and len(texts):
            shapes = count_shapes(texts)[:top]
            facts["shapes"] = tuple(ValueCount(text, count, count / len(texts)) for text, count in shapes)
        return facts

    def _top(self, counts: pl.DataFrame, total: int, distinct: int, size: int) -> tuple[ValueCount, ...]:
        values = []
        for value, count in counts.sort("count", "value", descending=[True, False]).head(size).iter_rows():
            rare = count == 1 if self.kind == "string" else count / total < 0.005
            if (distinct > 20 and rare) or (isinstance(value, float) and not np.isfinite(value)):
                continue  # a text that occurs once may be a person's; a measurement is no category
            values.append(ValueCount(self._readable(value), int(count), count / total))
        return tuple(values)
