"""A profile: plain facts of a table and of each column, small whatever the size of the table.

Everything is in one immutable object with a JSON form, so that the page, the suggested checks and a program read the
same facts. Rejected: keeping the sketches in the JSON form. They would let two profiles be merged, and make one of
twenty columns a megabyte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from retrodict.core.display import Block, Facts, Grid, Shown, plain
from retrodict.data.profiling.findings import findings

__all__ = ["ColumnProfile", "Correlations", "Histogram", "Lengths", "Missing", "Order", "Profile", "ValueCount"]


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value (times as ISO 8601), how often it was counted, and its share of the values that are not missing."""

    value: str | int | float | bool
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in bins of equal width over the bulk of the values, and of what lies outside.

    Attributes
    ----------
    low, high : float
        Ends of the binned range: values, or microseconds since 1970-01-01 UTC of a time.
    counts : tuple of int
        Each bin has its left edge, the last one both.
    below, above : int
        Values outside.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0


class Lengths(msgspec.Struct, frozen=True, rename={"shortest": "least", "longest": "most"}):
    """Characters of texts: the fewest, on average, the most; texts that are empty, and with blanks around."""

    shortest: int
    mean: float
    longest: int
    empty: int = 0
    padded: int = 0


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """Facts of one column.

    Attributes
    ----------
    name : str
    type : str
        bool, date, float, int, string or time; else the type of Arrow, of which only missing values are counted.
    arrives : str
        Type of Arrow as it came.
    rows : int
    nulls, nans, infinities : int
        NaN is no null here; every check takes it for one.
    distinct : int
        Distinct values, missing ones left out.
    distinct_exact : bool
        Whether that is a count; else an estimate with a standard error of 0.8 %.
    unique : bool
        Whether it is known that no value is missing or repeats: a candidate for the key.
    order : str, optional
        "increasing" or "decreasing", with "strictly " before it if no neighbours are equal.
    minimum, maximum : number or str, optional
        Of finite values; times as ISO 8601; None for texts, since the first in the alphabet is a value of a person.
    mean, std, skew, kurtosis : float, optional
        Of finite values; skew and kurtosis (excess) as ``scipy.stats``, kurtosis 0 for a normal distribution.
    zeros, negatives : int, optional
    quantiles : mapping of str to number or str
        By share, like ``"0.25"``.
    quantile_error : int
        Most rows by which a quantile's rank may be off; 0: exact.
    histogram : Histogram, optional
    top : tuple of ValueCount
        Most frequent values; empty where there are too many or ``hidden`` says why.
    top_rows : int
        Values counted for ``top`` and ``shapes``: all of them, or those of a sample.
    singletons : int, optional
        Values that occur exactly once; None where not counted.
    case_variants : int
        Values that equal another one but for case and blanks around.
    lengths : Lengths, optional
    shapes : tuple of ValueCount
        Texts with letters as A and a, digits as 9; ``+`` after a letter stands for a run.
    hidden : str, optional
        Why no value is shown.
    """

    name: str
    type: str
    arrives: str
    rows: int
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    distinct: int = 0
    distinct_exact: bool = True
    unique: bool = False
    order: str | None = None
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    mean: float | None = None
    std: float | None = None
    skew: float | None = None
    kurtosis: float | None = None
    zeros: int | None = None
    negatives: int | None = None
    quantiles: Mapping[str, float | str] | None = None
    quantile_error: int = 0
    histogram: Histogram | None = None
    top: tuple[ValueCount, ...] = ()
    top_rows: int = 0
    singletons: int | None = None
    case_variants: int = 0
    lengths: Lengths | None = None
    shapes: tuple[ValueCount, ...] = ()
    hidden: str | None = None

    @property
    def missing(self) -> int:
        """Nulls and NaN."""
        return self.nulls + self.nans

    @property
    def known(self) -> int:
        """Values that are not missing."""
        return self.rows - self.missing

    @property
    def constant(self) -> bool:
        """Whether all values that are not missing are one and the same."""
        return self.known > 0 and self.distinct == 1 and self.distinct_exact


@dataclass(frozen=True, slots=True)
class Correlations:
    """How columns go together, from a sample of rows.

    Attributes
    ----------
    rows, seed : int
        Rows of the sample, drawn without replacement, and the seed they were drawn with.
    numbers : tuple of str
        Columns of ``pearson`` and ``spearman``: numbers and times that vary.
    pearson, spearman : tuple of tuple of float or None
        Square, over the rows where both are known; None where fewer than three are, or one of the two is constant.
    categories : tuple of str
        Columns of ``cramer``.
    cramer : tuple of tuple of float or None
        Cramér's V with the correction of Bergsma (2013), 0 to 1.
    """

    rows: int = 0
    seed: int = 0
    numbers: tuple[str, ...] = ()
    pearson: tuple[tuple[float | None, ...], ...] = ()
    spearman: tuple[tuple[float | None, ...], ...] = ()
    categories: tuple[str, ...] = ()
    cramer: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Where values are missing together, counted over all rows.

    Attributes
    ----------
    columns : tuple of str
        Columns with a missing value.
    patterns : tuple of (tuple of str, int)
        Which columns are missing together and in how many rows, the most frequent first; the empty one is a complete
        row.
    others : int
        Rows of patterns that are not listed.
    correlation : tuple of tuple of float or None
        Phi coefficient of "is missing" between ``columns``; None where a column is always missing.
    """

    columns: tuple[str, ...] = ()
    patterns: tuple[tuple[tuple[str, ...], int], ...] = ()
    others: int = 0
    correlation: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """In how many rows a time of one column is before, at or after that of another one, where both are known."""

    left: str
    right: str
    before: int
    equal: int
    after: int


@dataclass(frozen=True, slots=True, repr=False)
class Profile(Shown):
    """A readable profile of a table.

    Attributes
    ----------
    name : str
    origin : str
        Where the rows came from.
    rows : int
    columns : tuple of ColumnProfile
    duplicated : int, optional
        Rows that repeat an earlier one in all columns; None where there are too many rows to say.
    keys : tuple of tuple of str
        Columns that never repeat together and are never missing, checked over all rows; single ones first, pairs only
        if there is none.
    correlations : Correlations
    missing : Missing
    orders : tuple of Order
        Every pair of the first eight time columns.
    inferred : tuple of str
        Columns that arrived as text and all of whose values read as another type.
    zoneless : tuple of str
        Columns whose times carry no zone: read as UTC here, refused at ingest until the table declares their zone.
    """

    name: str
    origin: str
    rows: int
    columns: tuple[ColumnProfile, ...] = ()
    duplicated: int | None = None
    keys: tuple[tuple[str, ...], ...] = ()
    correlations: Correlations = Correlations()
    missing: Missing = Missing()
    orders: tuple[Order, ...] = ()
    inferred: tuple[str, ...] = ()
    zoneless: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ColumnProfile:
        """Facts of a column."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, with the findings."""
        facts = msgspec.json.decode(msgspec.json.encode(self))
        return {**facts, "findings": plain(findings(self))}

    def blocks(self) -> Sequence[Block | None]:
        """Counts, the columns, and what deserves a look."""
        names = ("column", "type", "missing>", "distinct>", "smallest?", "median?", "largest?", "most frequent?")
        marks = {"warning": "! ", "note": "  "}
        return [
            Facts({
                "rows": self.rows, "columns": len(self.columns), "from": self.origin, "repeated rows": self.duplicated,
                "candidate key": " or ".join(" + ".join(key) for key in self.keys[:3]) or "none found",
            }),
            Grid(names, list(map(_column_cells, self.columns))),
            "",
            *(f"{marks[finding.level]}{finding.text}" for finding in findings(self)),
        ]  # fmt: skip

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``; keys of a later version are left out."""
        return msgspec.convert(body, cls)


def _column_cells(column: ColumnProfile) -> Sequence[Any]:
    median = (column.quantiles or {}).get("0.5")
    if column.type == "int" and isinstance(median, float) and median.is_integer():
        median = int(median)
    frequent = ", ".join(str(value.value) for value in column.top[:3]) or None
    return (
        column.name, column.type, f"{column.missing / column.rows:.2%}" if column.missing else None,
        f"{'' if column.distinct_exact else '~'}{column.distinct:,}", column.minimum, median, column.maximum,
        frequent if column.hidden is None else "values not shown",
    )  # fmt: skip
