"""Outcomes of the rows of a spine: each is a feature of the moment at which it matures."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError, InputError
from retrodict.features.catalogue import check_schema
from retrodict.features.facts.columns import Ints, pick, times
from retrodict.features.labels import Outcome
from retrodict.features.offline.frame import Tables, training_frame
from retrodict.features.plan import FeatureSet, ViewPlan, column_name
from retrodict.stores.sql import query

__all__ = ["check_outcome", "outcome_frame", "outcome_labels"]

_AT = "_outcome_at"
TIME = pa.timestamp("us", "UTC")


class _OutcomePlan(ViewPlan):
    """Plan of an outcome's view, which errors call by the outcome's name."""

    @property
    def where(self) -> str:
        return f"outcome {self.name!r}"


def check_outcome(outcome: Outcome, schema: pa.Schema) -> None:
    """Check that the table of an outcome's source has what it reads, in types that its aggregate takes.

    Raises
    ------
    DefinitionError
        That names outcome, feature and column, with the nearest names of an unknown one.
    """
    check_schema(_OutcomePlan(outcome.view), schema)


def outcome_frame(spine: pa.Table, at: str, outcome: Outcome, sources: Tables, *, as_of: int) -> pa.Table:
    """Add an outcome to the rows of a spine, and when it became known.

    Parameters
    ----------
    spine : pyarrow.Table
        One row per decision: its time and the entity's keys.
    at : str
        The time column.
    outcome : Outcome
        What to compute.
    sources : callable or mapping of str to pyarrow.Table or EventSource
        Rows of the outcome's source, by the source's name.
    as_of : int
        Present time in microseconds: what matures later is null, and so is its ``known_at``.

    Returns
    -------
    pyarrow.Table
        The spine, row for row, with the columns ``<name>`` (the aggregate) and ``<name>_known_at``.
    """
    for name in (outcome.name, f"{outcome.name}_known_at"):
        if name in spine.column_names:
            raise InputError("a spine has no column with an outcome's name", where="spine", got=name)
    values, known = _values(spine, at, outcome, sources)
    matured = pa.array(np.asarray(known <= as_of))
    spine = spine.append_column(outcome.name, pc.if_else(matured, values, None))
    return spine.append_column(f"{outcome.name}_known_at", pc.if_else(matured, pa.array(known, TIME), None))


def outcome_labels(spine: pa.Table, at: str, outcome: Outcome, sources: Tables) -> pa.Table:
    """Yes or no of the rows of a spine, and from when on that is known.

    Parameters
    ----------
    spine : pyarrow.Table
        One row per decision: its time and the entity's keys.
    at : str
        The time column.
    outcome : Outcome
        One with an expression.
    sources : callable or mapping of str to pyarrow.Table or EventSource
        Rows of the outcome's source, by the source's name.

    Returns
    -------
    pyarrow.Table
        ``label`` (bool; null: there is none) and ``known_at``, row for row. What has not matured yet has a
        ``known_at`` in the future: whoever reads a label looks at that first.

    Raises
    ------
    DefinitionError
        If the expression does not fit the type of the aggregate.
    """
    values, known = _values(spine, at, outcome, sources)
    try:
        told = query(f"SELECT {outcome.parsed.to_sql()} AS label FROM told", told=pa.table({outcome.value: values}))
    except duckdb.Error as error:
        raise _misfit(outcome, values.type) from error
    label = told.column("label")
    if not (pa.types.is_boolean(label.type) or pa.types.is_null(label.type)):
        raise _misfit(outcome, values.type)
    return pa.table({"label": label.cast(pa.bool_()), "known_at": pa.array(known, TIME)})


def _misfit(outcome: Outcome, type_: pa.DataType) -> DefinitionError:
    # DuckDB's own words may hold values of the data: only the type is passed on.
    return DefinitionError(
        f"the expression {outcome.parsed.text!r} is true or false of what the aggregate gives",
        where=f"outcome {outcome.name!r}",
        got={outcome.value: str(type_)},
        remedy="Compare it with a value of that type",
    )


def _values(spine: pa.Table, at: str, outcome: Outcome, sources: Tables) -> tuple[pa.Array, Ints]:
    """Aggregate of each row as it is known when it has matured, and that moment."""
    moments, present = times(pick(spine, at, where="spine"), where=f"spine, column {at!r}")
    if not present.all():
        raise InputError("every row of a spine has its time", where=f"spine, column {at!r}")
    known = moments + outcome.maturity
    asked = {key: pick(spine, key, where=f"outcome {outcome.name!r}, spine") for key in outcome.entity.keys}
    frame = training_frame(pa.table({**asked, _AT: pa.array(known, TIME)}), _AT, FeatureSet([outcome.view]), sources)
    return pick(frame, column_name(outcome.name, outcome.value), where="outcome"), known
