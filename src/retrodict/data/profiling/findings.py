"""Findings: what in a profile deserves a look before anything is built on the table; read off the profile alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

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
    name, rows, lengths = column.name, column.rows, column.lengths
    if rows and not column.known:
        yield Finding("all_missing", (name,), f"{name} has no value at all")
    if not column.known:
        return
    where = " where it has one" if column.missing else ""
    missing = f"{name} is missing in {_share(column.missing, rows)} of the rows"
    sentinel, variants = _sentinel(column), column.case_variants
    padded, empty = (0, 0) if lengths is None else (lengths.padded, lengths.empty)
    skew, many = column.skew or 0.0, column.type == "string" and not column.unique and column.distinct > 1000
    hidden = column.hidden not in (None, "nearly all distinct")
    listed: tuple[tuple[str, Any, str, Literal["warning", "note"]], ...] = (
        ("constant", column.constant and rows > 1, f"{name} has one value only{where}", "warning"),
        ("mostly_missing", column.missing / rows > 0.5, missing, "warning"),
        ("infinite", column.infinities, f"{name} holds {column.infinities:,} infinite values", "warning"),
        ("two_nulls", column.nans and column.nulls, f"{name} holds NaN and null; both count as missing", "note"),
        ("sentinel", sentinel, f"{name}: {sentinel}", "warning"),
        ("case_variants", variants, f"{name}: case and blanks aside, {variants:,} of its texts equal another one",
         "warning"),
        ("padded", padded, f"{name} has blanks around {padded:,} texts", "warning"),
        ("empty_text", empty, f"{name} has {empty:,} empty texts beside its nulls", "note"),
        ("skewed", abs(skew) > _SKEWED, f"{name} is skewed: {skew:+.1f}", "note"),
        ("high_cardinality", many, f"{name} has {column.distinct:,} distinct texts", "note"),
        ("personal", hidden, f"{name}: values not shown, {column.hidden}", "note"),
    )  # fmt: skip
    yield from (Finding(kind, (name,), text, level) for kind, holds, text, level in listed if holds)


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
