"""From the decision log to one row a unit: variant, first decision, and sums of every metric. All in one query.

Exposure is a decision with a variant. A metric of an outcome counts decisions whose outcome has had its time
(``label.maturity``), late or early ones alike: to count those that happen to be known already would count bad news
first. A unit that was seen in two variants counts in neither, and is counted.

Where weights changed, a unit counts as it was first: in the period of its first decision, with the decisions of that
period. Its chance of each variant was that of the weights then, whatever it was moved to later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import parse
from retrodict.evaluation.reference import feature_column
from retrodict.features.labels import Outcome
from retrodict.outcomes import outcomes
from retrodict.outcomes.status import Outcomes
from retrodict.rollout.experiments.definitions import Experiment, UnitMetric
from retrodict.rollout.experiments.runs import ExperimentRun
from retrodict.stores.sql import query, quote, quote_text
from retrodict.workspace import Workspace

__all__ = ["UnitRows", "aggregate", "history_rows", "propensities", "read_units"]

Floats = NDArray[np.float64]
_RECORD = {"decision": "decision", "score": "score", "label": "label", "fallback": "fallback",
           "micros": "record__micros"}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class UnitRows:
    """Units of an experiment; all arrays are aligned.

    Attributes
    ----------
    variant : ndarray of str, shape (units,)
    first : ndarray of int64, shape (units,)
        Moment of the first decision.
    sums : dict
        Metric name to numerators and denominators; a unit with a denominator of 0 does not count.
    segments : dict
        Name to the value at the first decision, as text.
    before : ndarray of float64, shape (units,), optional
        The primary metric in the pre-period; the mean of all where a unit had no decision.
    period : ndarray of int64, shape (units,)
        Number of the weights under which a unit was first decided about; what came under later ones does not count.
    crossed, void, pending : int
        Units seen in several variants; decisions without an outcome though it had its time; those whose time is not
        over.
    strata : ndarray of str, shape (units,), optional
        ``name=value`` of all strata at the first decision.
    outcome : ndarray of int64, shape (units,), optional
        What became of a unit's first decision: 1 where its outcome is known, 2 where that did not come though it was
        due, 0 where it is not. One decision tells of one unit; any of many would be missing in every arm sooner or
        later.
    """

    variant: NDArray[np.str_]
    first: NDArray[np.int64]
    sums: dict[str, tuple[Floats, Floats]]
    segments: dict[str, NDArray[np.str_]]
    before: Floats | None
    period: NDArray[np.int64]
    crossed: int
    void: int
    pending: int
    strata: NDArray[np.str_] | None = None
    outcome: NDArray[np.int64] | None = None


def read_units(workspace: Workspace, experiment: Experiment, run: ExperimentRun, *, now: int) -> UnitRows:
    """Units of a run with what is known of them at a time.

    Parameters
    ----------
    workspace : Workspace
    experiment : Experiment
    run : ExperimentRun
    now : int
        As of when, microseconds since 1970-01-01 UTC.
    """
    joined = outcomes(workspace, experiment.policy.name, now=now, start=run.since, end=run.until)
    return aggregate(workspace, experiment, joined, run)


def aggregate(workspace: Workspace, experiment: Experiment, joined: Outcomes, run: ExperimentRun) -> UnitRows:
    """The same of decisions that are there."""
    table = _table(joined, _variant_of(experiment), [revision for revision, _ in run.periods])
    return _aggregate(workspace, experiment, table, joined, run.since, joined.now)


def _variant_of(experiment: Experiment) -> str:
    return f"list_filter(record__variants, lambda v: v.experiment = {quote_text(experiment.name)})[1].variant"


def propensities(rows: UnitRows, run: ExperimentRun) -> Floats:
    """Probability that every unit had of the variant it got, by the weights of its period."""
    weight = np.zeros(rows.variant.size)
    for place, (_, weights) in enumerate(run.periods):
        for name, value in weights.items():
            weight[(rows.period == place) & (rows.variant == name)] = value
    return weight


def history_rows(workspace: Workspace, experiment: Experiment, *, start: int, now: int) -> UnitRows:
    """The same of all decisions of the policy from a time on, as one variant: what a plan is made from."""
    joined = outcomes(workspace, experiment.policy.name, now=now, start=start)
    table = _table(joined, quote_text("all"))
    return _aggregate(workspace, experiment, table, joined, start, now, cohort=experiment.where)


def _table(joined: Outcomes, variant: str, revisions: Sequence[int] = ()) -> pa.Table:
    """Decisions with their outcomes, the variant of each by an expression, and the period of weights by revision."""
    table = joined.decisions.append_column("label", pa.array(joined.label, from_pandas=True))
    names = query(f"SELECT ({variant}) AS variant FROM rows", rows=table).column(0).combine_chunks().dictionary_encode()
    table = table.append_column("variant", names)
    table = table.append_column("record__variant", names.indices)  # numbers are grouped in half the time of texts
    period = np.searchsorted(np.asarray(revisions[1:]), table.column("revision").to_numpy(), side="right")
    table = table.append_column("record__period", pa.array(period, pa.int64()))
    state = np.select([joined.status == "known", joined.status == "void"], [1, 2])
    return table.append_column("record__state", pa.array(state, pa.int64()))


def _aggregate(
    workspace: Workspace, experiment: Experiment, table: pa.Table, joined: Outcomes, since: int, now: int,
    cohort: str | None = None,
) -> UnitRows:  # fmt: skip
    label = experiment.policy.model.label
    matured = now - label.maturity - isinstance(label, Outcome)
    groups = dict.fromkeys((*experiment.segments, *experiment.strata))
    names = {*experiment.unit, *groups, *(name for m in experiment.metrics for name in m.columns),
             *(() if cohort is None else parse(cohort).columns)}  # fmt: skip
    seen = _seen(experiment, table, sorted(names), cohort)
    units = ", ".join(map(quote, experiment.unit))
    sums = []
    for place, metric in enumerate(experiment.metrics):
        value, per, counts = _value(metric)
        cutoff = matured if "label" in metric.columns else now
        counts += f" AND time < {cutoff}" + (" AND record__state = 1" if "label" in metric.columns else "")
        if metric.within is not None:
            width = parse_duration(metric.within)
            counts += f" AND time < first + {width} AND first + {width} <= {cutoff}"
        sums += [f"coalesce(sum({value}) FILTER ({counts}), 0) AS n{place}",
                 f"coalesce(sum({per}) FILTER ({counts}), 0) AS d{place}"]  # fmt: skip
    more = "".join(f", CAST(arg_min({quote(name)}, time) AS VARCHAR) AS s{i}"
                   for i, name in enumerate(groups))  # fmt: skip
    if any(metric.within is not None for metric in experiment.metrics):
        seen = f"SELECT *, min(time) OVER (PARTITION BY {units}) AS first FROM ({seen})"
    rows = query(
        f"SELECT {units}, min(record__variant) AS arm, min(record__variant) = max(record__variant) AS once, "
        f"min(time * 4 + record__state) AS began, min(period) AS period{more}, {', '.join(sums)} FROM ({seen}) "
        f"GROUP BY {units} ORDER BY {units}",
        rows=table,
    )
    before = _before(workspace, experiment, rows, since)
    one = np.asarray(rows.column("once").to_numpy(), dtype=np.bool_)
    has_variant, times = table.column("variant").is_valid().to_numpy(), np.asarray(table.column("time").to_numpy())

    began = np.asarray(rows.column("began").to_numpy(), dtype=np.int64)[one]
    first, state = began // 4, began % 4

    def column(name: str) -> Floats:
        values: Floats = np.asarray(rows.column(name).to_numpy(), dtype=np.float64)[one]
        return values

    texts_of = {name: _texts(rows.column(f"s{i}").fill_null("unknown"))[one] for i, name in enumerate(groups)}
    strata = [np.char.add(f"{name}=", texts_of[name]) for name in experiment.strata]
    return UnitRows(
        variant=_texts(table.column("variant").chunk(0).dictionary.take(rows.column("arm")))[one],
        first=first,
        sums={metric.name: (column(f"n{i}"), column(f"d{i}")) for i, metric in enumerate(experiment.metrics)},
        segments={name: texts_of[name] for name in experiment.segments},
        strata=reduce(lambda left, right: np.char.add(np.char.add(left, ", "), right), strata) if strata else None,
        before=None if before is None else before[one],
        period=np.asarray(rows.column("period").to_numpy(), dtype=np.int64)[one],
        crossed=int((~one).sum()),
        void=int((has_variant & (joined.status == "void")).sum()),
        pending=int((has_variant & (times >= matured)).sum()),
        outcome=np.where(first < matured, state, 0),
    )  # fmt: skip


def _texts(column: pa.ChunkedArray) -> NDArray[np.str_]:
    codes = column.combine_chunks().dictionary_encode()
    texts: NDArray[np.str_] = np.array(codes.dictionary.to_pylist() or [""], dtype=np.str_)[codes.indices.to_numpy()]
    return texts


def _seen(experiment: Experiment, table: pa.Table, names: Sequence[str], cohort: str | None = None) -> str:
    """Query of the decisions that have a variant, with every name that is read.

    ``cohort`` is the experiment's ``where`` for decisions that nobody gave a variant by it; else the variant says that
    the request was taken in, as its server evaluated that.
    """
    places = dict(_RECORD)
    for column in table.column_names:
        for prefix in ("entity__", "context__"):
            if column.startswith(prefix):
                places[column.removeprefix(prefix)] = column
    for name in names:
        if name not in places and feature_column(name) in table.column_names:
            places[name] = feature_column(name)
    if not table.num_rows:  # no decision says which names there are
        places |= {name: "NULL" for name in names if name not in places}
    for name in names:
        check_known(name, places, "a metric, segment or unit must name what decisions have",
                    where=f"experiment {experiment.name}", what="name", error=DefinitionError)  # fmt: skip
    expression = None if cohort is None else parse(cohort)
    times = {name for name in expression.columns if expression.column_kind(name) == "time"} if expression else ()
    columns = "".join(f", {_selected(places[name], is_time=name in times)} AS {quote(name)}" for name in names)
    fits = [f"{quote(name)} IS NOT NULL" for name in ("variant", *experiment.unit)]
    fits += [f"{quote(name)} <> ''" for name in experiment.unit if _is_text(table, places[name])]
    if expression is not None:
        fits.append(f"({expression.to_sql()})")
    rows = f"SELECT time, record__state, record__period AS period, variant, record__variant{columns} FROM rows"
    several = np.any(np.asarray(table.column("record__period")) != 0)  # else there is no other to look for
    first = f" QUALIFY period = min(period) OVER (PARTITION BY {', '.join(map(quote, experiment.unit))})"
    return f"SELECT * FROM ({rows}) WHERE {' AND '.join(fits)}{first if several else ''}"


def _selected(place: str, *, is_time: bool) -> str:
    if place == "NULL":
        return place
    return f"make_timestamp(CAST({quote(place)} AS BIGINT))" if is_time else quote(place)  # records have microseconds


def _is_text(table: pa.Table, place: str) -> bool:
    kind = table.schema.field(place).type if place in table.column_names else pa.null()
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _value(metric: UnitMetric) -> tuple[str, str, str]:
    """SQL of what is summed, of what that is divided by, and of when a decision counts."""
    value = f"CAST(({parse(metric.of).to_sql()}) AS DOUBLE)"
    if metric.per is None:
        return value, "1.0", f"WHERE ({value}) IS NOT NULL"
    per = f"CAST(({parse(metric.per).to_sql()}) AS DOUBLE)"
    return value, per, f"WHERE ({value}) IS NOT NULL AND ({per}) IS NOT NULL"


def _before(workspace: Workspace, experiment: Experiment, rows: pa.Table, since: int) -> Floats | None:
    """The primary metric of every unit in the pre-period; None where there is none to look at.

    Nothing of it may depend on the variant, or it would take off a part of the effect: outcomes count as they were
    known at the start, and decisions under a variant of an earlier run do not.
    """
    if experiment.pre_period is None or not rows.num_rows:
        return None
    earlier = outcomes(
        workspace, experiment.policy.name, now=since, start=since - parse_duration(experiment.pre_period)
    )
    if not len(earlier):
        return None
    metric = experiment.primary
    value, per, counts = _value(metric)
    counts += " AND record__state = 1" if "label" in metric.columns else ""
    past = _table(earlier, f"CASE WHEN ({_variant_of(experiment)}) IS NULL THEN 'all' END")
    seen = _seen(experiment, past, sorted({*experiment.unit, *metric.columns}))
    units = ", ".join(map(quote, experiment.unit))
    ratios = query(
        f"WITH seen AS ({seen}), past AS (SELECT {units}, sum({value}) FILTER ({counts}) / "
        f"nullif(sum({per}) FILTER ({counts}), 0) AS ratio FROM seen GROUP BY ALL) "
        f"SELECT ratio FROM units LEFT JOIN past USING ({units}) ORDER BY {units}",
        rows=past, units=rows.select(list(experiment.unit)),
    ).column(0).to_numpy()  # fmt: skip
    values = np.asarray(ratios, dtype=np.float64)
    seen_before = ~np.isnan(values)
    if not seen_before.any():
        return None
    filled: Floats = np.where(seen_before, values, values[seen_before].mean())
    return filled
