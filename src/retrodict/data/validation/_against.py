"""A batch judged by earlier versions or another table: stability, drift, correlations that turn.

What is compared with is what was published: a batch that was halted never enters the history, so one bad day cannot
teach the next one that bad is normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retrodict.core.expressions import parse
from retrodict.core.kinds import ExpressionKind
from retrodict.core.statistics import drift
from retrodict.core.statistics.profiles import CategoryProfile, NumericProfile
from retrodict.data.checks import Check
from retrodict.data.context import Context
from retrodict.data.measures import Measure, polars_measure
from retrodict.data.validation._others import NothingEarlierError, Unknown

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_FEWEST_VERSIONS = 5
_FEWEST_ROWS = 100
_MAD_TO_STD = 1.4826  # of a normal distribution
_FLOOR = 0.01
_LEVEL = 0.01
_CORRELATION = Measure("correlation", ("_x", "_y"))


Judged = tuple[float, str]  # the number, and why it does not pass; empty if it does


def measure_key(measure: Measure) -> str:
    """Text under which a version keeps a number of its batch."""
    columns = ", ".join(measure.columns)
    return f"{measure.name}({columns})" + (f" where {measure.where}" if measure.where is not None else "")


def against_versions(check: Check, measure: Measure, value: float, context: Context) -> Judged:
    """Judge a number by the same number of earlier published versions.

    Raises
    ------
    Unknown
        If there are too few versions that kept it.
    """
    key = measure_key(measure)
    earlier = [numbers[key] for numbers in context.measured() if key in numbers]
    if check.option("against") == "previous":
        if not earlier:
            raise NothingEarlierError("no earlier version has this number")
        before, within = earlier[-1], check.option("within")
        change = abs(value - before) / abs(before) if before else math.inf if value != before else 0.0
        return value, "" if change <= within else f"{value:g} after {before:g}, a change of {change:.3g}"
    if len(earlier) < _FEWEST_VERSIONS:
        raise NothingEarlierError(f"{len(earlier)} earlier versions have this number, {_FEWEST_VERSIONS} are needed")
    centre = float(np.median(earlier))
    spread = _MAD_TO_STD * float(np.median(np.abs(np.array(earlier) - centre)))
    limit = check.option("deviations") * max(spread, _FLOOR * abs(centre))
    if abs(value - centre) <= limit:
        return value, ""
    return value, f"{value:g}, more than {limit:.3g} from the median {centre:g} of {len(earlier)} versions"


def against_reference(
    check: Check,
    frame: pl.LazyFrame,
    context: Context,
    *,
    kinds: Mapping[str, ExpressionKind | None],
    table: str,
) -> Judged:
    """Judge drift of a column or a label, or the sign of a correlation, by reference rows.

    Raises
    ------
    Unknown
        If there is no reference, or it has no value to compare with.
    """
    where = f"table {table}, check {check.title}"
    other = pl.scan_pyarrow_dataset(_reference(check, context, table))
    missing = sorted(set(check.reads) - set(other.collect_schema().names()))
    if missing:
        raise _lacking(check, f"the reference has no column {missing[0]!r}")
    sides = [_narrowed(side, check, kinds, where) for side in (other, frame)]
    if check.rule == "correlation_flip":
        before, now = (side.select(polars_measure(_CORRELATION, {"_x", "_y"})).collect().item() for side in sides)
        needed = "a correlation has at least two rows and no constant column"
        if now is None:
            raise Unknown(needed)
        if before is None:
            raise _lacking(check, f"{needed}, and the reference has none")
        least = check.option("at_least")
        turned = before * now < 0 and min(abs(before), abs(now)) >= least
        return now, f"correlation {now:.3g} after {before:.3g}" if turned else ""
    reference, current = (side.select("_x").collect(engine="streaming").get_column("_x") for side in sides)
    return _drifted(check, reference, current)


def _reference(check: Check, context: Context, table: str) -> ds.Dataset:
    ref = str(check.option("against"))
    if ref == "previous":
        dataset = context.previous()
    elif "@" in ref:
        dataset = context.table(ref)
    else:
        dataset = context.table(f"{table}@{ref}")
    if dataset is None:
        raise _lacking(
            check, "there is no version to compare with" if ref == "previous" else f"there is no reference {ref}"
        )
    return dataset


def _lacking(check: Check, why: str) -> Unknown:
    """What is lacking on the side of the reference; of an earlier version, no later batch can mend it."""
    return NothingEarlierError(why) if check.option("against") == "previous" else Unknown(why)


def _narrowed(side: pl.LazyFrame, check: Check, kinds: Mapping[str, ExpressionKind | None], where: str) -> pl.LazyFrame:
    """Only what is compared, as ``_x`` and ``_y``, of the rows that the check is about."""
    floating = {name for name, kind in side.collect_schema().items() if kind.is_float()}
    if check.filter is not None:
        side = side.filter(check.filter.to_polars(kinds=kinds, floating=floating))
    compared = {"_x": pl.col(check.option("column", check.columns[0]))}
    if check.rule != "drift":
        label = parse(check.option("label"), where=where).to_polars(kinds=kinds, floating=floating)
        compared["_y" if check.rule == "correlation_flip" else "_x"] = label
    kind = {"correlation_flip": pl.Float64, "label_drift": pl.String}.get(check.rule)
    return side.select(**{name: part if kind is None else part.cast(kind) for name, part in compared.items()})


def _drifted(check: Check, reference: pl.Series, current: pl.Series) -> Judged:
    if len(current) < _FEWEST_ROWS:
        raise Unknown(f"the batch has {len(current)} rows, {_FEWEST_ROWS} are needed")
    if len(reference) < _FEWEST_ROWS:
        raise _lacking(check, f"the reference has {len(reference)} rows, {_FEWEST_ROWS} are needed")
    profile: NumericProfile | CategoryProfile
    if reference.dtype.is_numeric() or reference.dtype.is_temporal():
        if reference.dtype.is_temporal():
            reference, current = reference.to_physical(), current.to_physical()
        before, now = reference.cast(float).to_numpy(), current.cast(float).to_numpy()
        profile = NumericProfile.of(before)
        counts = profile.count(before), profile.count(now)
    else:
        texts = [side.cast(str).to_list() for side in (reference, current)]
        profile = CategoryProfile.of(texts[0])
        counts = profile.count(texts[0]), profile.count(texts[1])
    value = float(_METRICS[check.option("metric")](*counts))
    n, m, bins = len(reference), len(current), len(profile.labels)
    noise = drift.psi_critical(n, m, bins, alpha=_LEVEL)
    shift = float(drift.psi(*counts))
    if value <= check.option("at_most") or shift <= noise:
        return value, ""
    return value, f"{check.option('metric')} {value:.3g}, psi {shift:.3g} above its noise floor {noise:.3g}"


_METRICS: Mapping[str, Any] = {
    "psi": drift.psi,
    "js_distance_bits": drift.js_distance_bits,
    "hellinger": drift.hellinger_distance,
    "total_variation": drift.total_variation,
}
