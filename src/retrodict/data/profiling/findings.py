"""Findings: what in a profile deserves a look before anything is built on the table; read off the profile alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from retrodict.data.profiling.profile import ColumnProfile, Profile

__all__ = ["Finding", "findings"]

_NUMBERS = (-99999, -9999, -999, -99, 999, 9999, 99999, 999999, 9999999, 99999999, 999999999)
_DAYS = ("0001-01-01", "1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1970-01-01", "2099-12-31", "9999-12-31")
_WORDS = frozenset(("-", "--", ".", "?", "n/a", "na", "nan", "none", "null", "nil", "tbd", "undefined", "unknown"))
_RELATED = 0.95
_SKEWED = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at.

    Attributes
    ----------
    kind : str
        One word for programs, like ``"constant"``.
    columns : tuple of str
        Empty: the table.
    text : str
        One sentence without values of texts.
    level : {"warning", "note"}
    """

    kind: str
    columns: tuple[str, ...]
    text: str
    level: Literal["warning", "note"] = "warning"


def findings(profile: Profile) -> list[Finding]:
    """Warnings first, then notes; within each, in the order of the columns.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from retrodict.data.profiling import profile
    >>> [finding.text for finding in findings(profile(pa.table({"id": [1, 2], "unit": ["km", "km"]})))]
    ['unit has one value only']
    """
    listed = [*_of_table(profile)]
    for column in profile.columns:
        listed += _of_column(column)
    listed += _of_pairs(profile)
    return sorted(listed, key=lambda finding: finding.level != "warning")


def _of_table(profile: Profile) -> Iterator[Finding]:
    if not profile.rows:
        yield Finding("empty", (), "There is no row")
        return
    if profile.duplicated:
        yield Finding(
            "duplicated",
            (),
            f"{profile.duplicated:,} rows repeat an earlier one ({_share(profile.duplicated, profile.rows)})",
        )
    for name in profile.zoneless:
        yield Finding(
            "zoneless", (name,), f"{name} holds times without a zone, read here as UTC; declare it as time(Zone/City)"
        )
    if profile.inferred:
        yield Finding("inferred", profile.inferred, f"Read from text: {', '.join(profile.inferred)}", "note")
    if profile.rows > 1 and not profile.keys:
        yield Finding("no_key", (), "No column, pair or triple of columns was found that never repeats", "note")


def _of_column(column: ColumnProfile) -> Iterator[Finding]:
    name, rows = (column.name,), column.rows
    if not rows:
        return
    if not column.known:
        yield Finding("all_missing", name, f"{column.name} has no value at all")
        return
    if column.constant and rows > 1:
        where = " where it has one" if column.missing else ""
        yield Finding("constant", name, f"{column.name} has one value only{where}")
    if column.missing / rows > 0.5:
        yield Finding("mostly_missing", name, f"{column.name} is missing in {_share(column.missing, rows)} of the rows")
    if column.infinities:
        yield Finding("infinite", name, f"{column.name} holds {column.infinities:,} infinite values")
    if column.nans and column.nulls:
        yield Finding("two_nulls", name, f"{column.name} holds NaN and null; both count as missing", "note")
    yield from _of_values(column)
    if column.skew is not None and abs(column.skew) > _SKEWED:
        yield Finding("skewed", name, f"{column.name} is skewed: {column.skew:+.1f}", "note")
    if column.type == "string" and not column.unique and column.distinct > 1000:
        yield Finding("high_cardinality", name, f"{column.name} has {column.distinct:,} distinct texts", "note")
    if column.hidden is not None and column.hidden != "nearly all distinct":
        yield Finding("personal", name, f"{column.name}: values not shown, {column.hidden}", "note")


def _of_values(column: ColumnProfile) -> Iterator[Finding]:
    name = (column.name,)
    if (text := _sentinel(column)) is not None:
        yield Finding("sentinel", name, f"{column.name}: {text}")
    if column.case_variants:
        yield Finding(
            "case_variants",
            name,
            f"{column.name}: case and blanks aside, {column.case_variants:,} of its texts equal another one",
        )
    if column.lengths is not None:
        if column.lengths.padded:
            yield Finding("padded", name, f"{column.name} has blanks around {column.lengths.padded:,} texts")
        if column.lengths.empty:
            yield Finding(
                "empty_text", name, f"{column.name} has {column.lengths.empty:,} empty texts beside its nulls", "note"
            )


def _sentinel(column: ColumnProfile) -> str | None:
    """A value that stands for "missing" in disguise: at an end, away from all others; or a word for nothing."""
    if column.type in ("int", "float") and column.quantiles:
        first, middle, last = (float(column.quantiles[share]) for share in ("0.25", "0.5", "0.75"))
        spread = max(last - first, abs(middle) / 100, 1e-12)
        for end in (column.minimum, column.maximum):
            if end in _NUMBERS and abs(float(end) - middle) > 5 * spread:
                return f"{end:g} at the end of the range looks like a stand-in for missing"
        for value in column.top:
            if value.value in _NUMBERS and abs(float(value.value) - middle) > 5 * spread and value.share > 0.001:
                return f"{value.value:g} ({value.share:.2%} of the values) looks like a stand-in for missing"
    if column.type in ("time", "date"):
        for end in (column.minimum, column.maximum):
            if str(end)[:10] in _DAYS:
                return f"{str(end)[:10]} at the end of the range looks like a stand-in for missing"
    if column.type == "string":
        shares = [value.share for value in column.top if str(value.value).strip().lower() in _WORDS]
        if shares:
            return f"{sum(shares):.2%} of the texts are a word for missing"
    return None


def _of_pairs(profile: Profile) -> Iterator[Finding]:
    related = profile.correlations
    for names, matrices, verb in (
        (related.numbers, (("Pearson", related.pearson), ("Spearman", related.spearman)), "go together"),
        (related.categories, (("Cramér's V", related.cramer),), "say nearly the same"),
    ):
        for i, j in combinations(range(len(names)), 2):
            values = [(word, matrix[i][j]) for word, matrix in matrices]
            strong = [(word, value) for word, value in values if value is not None and abs(value) > _RELATED]
            if strong:
                word, value = strong[0]
                text = f"{names[i]} and {names[j]} {verb}: {word} {value:.3f}"
                # Times of one row follow one another: that is worth a line, not an alarm.
                times = all(profile[name].type in ("date", "time") for name in (names[i], names[j]))
                yield Finding("correlated", (names[i], names[j]), text, "note" if times else "warning")
    for order in profile.orders:
        rows = order.before + order.equal + order.after
        few = min(order.before, order.after)
        if rows >= 100 and 0 < few <= rows / 1000:
            early, late = (order.left, order.right) if order.before > order.after else (order.right, order.left)
            yield Finding(
                "order", (early, late), f"{early} is after {late} in {few:,} of {rows:,} rows, and never else"
            )


def _share(part: int, total: int) -> str:
    share = part / total
    return f"{share:.1%}" if share >= 0.001 else "under 0.1 %"
