"""Outcomes of the rows of a spine: each is a feature of the moment at which it matures.

``known_until`` is the newest fact in the tables: an event that is not in them yet must not be read as one that did not
happen, so nothing that matures later counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.features.catalogue import check_schema
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.facts.columns import Ints, pick, spine_times, times
from retrodict.features.labels import Outcome
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.frame import Tables, training_frame
from retrodict.features.plan import FeatureSet, ViewPlan, column_name
from retrodict.stores.sql import query
from retrodict.workspace import Workspace

__all__ = [
    "add_outcomes",
    "check_outcome",
    "choose_outcomes",
    "known_until",
    "outcome_frame",
    "outcome_labels",
    "outcome_types",
]

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


def outcome_frame(
    spine: pa.Table, at: str, outcome: Outcome, sources: Tables, *, as_of: int, as_label: bool = False
) -> pa.Table:
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
    as_label : bool, default False
        Whether the expression of the outcome is wanted and not its aggregate.

    Returns
    -------
    pyarrow.Table
        The spine, row for row, with the columns ``<name>`` (what is wanted) and ``<name>_known_at``.
    """
    for name in (outcome.name, f"{outcome.name}_known_at"):
        if name in spine.column_names:
            raise InputError(
                "a spine must have no column with an outcome's name",
                where="spine",
                got=name,
                remedy="Rename the column or the outcome",
            )
    values, known_at = _values(spine, at, outcome, sources)
    values = _judgements(outcome, values) if as_label else values
    matured = pa.array(np.asarray(known_at <= as_of))
    spine = spine.append_column(outcome.name, pc.if_else(matured, values, None))
    return spine.append_column(f"{outcome.name}_known_at", pc.if_else(matured, pa.array(known_at, TIME), None))


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
    values, known_at = _values(spine, at, outcome, sources)
    return pa.table({"label": _judgements(outcome, values), "known_at": pa.array(known_at, TIME)})


def _judgements(outcome: Outcome, values: pa.Array[Any]) -> pa.ChunkedArray[Any]:
    """What the expression of an outcome says of values of its aggregate."""
    rows = pa.table({outcome.value: values})
    try:
        label = query(f"SELECT {outcome.parsed.to_sql()} AS label FROM told", told=rows).column("label")
    except duckdb.Error as error:
        raise _misfit(outcome, values.type) from error
    if not (pa.types.is_boolean(label.type) or pa.types.is_null(label.type)):
        raise _misfit(outcome, values.type)
    return label.cast(pa.bool_())


def _misfit(outcome: Outcome, type_: pa.DataType) -> DefinitionError:
    # DuckDB's own words may hold values of the data: only the type is passed on.
    return DefinitionError(
        f"the expression {outcome.parsed.text!r} must be true or false of what the aggregate gives",
        where=f"outcome {outcome.name!r}",
        got={outcome.value: str(type_)},
        remedy="Compare it with a value of that type",
    )


def _values(spine: pa.Table, at: str, outcome: Outcome, sources: Tables) -> tuple[pa.Array, Ints]:
    """Aggregate of each row as it is known when it has matured, and that moment."""
    known_at = spine_times(spine, at) + outcome.maturity
    keys = {key: pick(spine, key, where=f"outcome {outcome.name!r}, spine") for key in outcome.entity.keys}
    frame = training_frame(pa.table({**keys, _AT: pa.array(known_at, TIME)}), _AT, FeatureSet([outcome.view]), sources)
    return pick(frame, column_name(outcome.name, outcome.value), where="outcome"), known_at


# outcomes of a project ------------------------------------------------------------------------------------------------


def choose_outcomes(workspace: Workspace, defined: Iterable[Outcome], names: Sequence[str]) -> list[Outcome]:
    """Outcomes by name, checked against the tables of their sources.

    Parameters
    ----------
    workspace : Workspace
    defined : iterable of Outcome
        Those to choose from: of the definitions, and the labels of models.
    names : sequence of str

    Raises
    ------
    InputError
        If a name is unknown, or a table holds no rows yet.
    DefinitionError
        As :func:`check_outcome`.
    """
    by_name = {outcome.name: outcome for outcome in defined}
    for name in names:
        rule = "the outcome must be defined"
        check_known(name, by_name, rule, where="outcomes", what="outcome", error=InputError)
        table = by_name[name].source.table.name
        newest_versions(workspace.tables, [table], where=f"outcome {name!r}")
        check_outcome(by_name[name], workspace.tables.schema(table))
    return [by_name[name] for name in names]


def outcome_types(workspace: Workspace, outcomes: Iterable[Outcome]) -> dict[str, pa.DataType]:
    """Types of the entity keys of outcomes, as which a spine's columns of text are read."""
    types: dict[str, pa.DataType] = {}
    for outcome in outcomes:
        schema = workspace.tables.schema(outcome.source.table.name)
        types |= {key: schema.field(key).type for key in outcome.entity.keys}
    return types


def known_until(workspace: Workspace, outcomes: Iterable[Outcome]) -> int | None:
    """Time until which the tables of all outcomes are known, in microseconds, at most now; None if one is empty.

    That of a table is its newest fact: what it does not hold yet must not count as something that did not happen.
    """
    newest = [_newest_fact(workspace, outcome) for outcome in outcomes]
    moments = [moment for moment in newest if moment is not None]
    return min([workspace.clock.now(), *moments]) if len(moments) == len(newest) else None


def _newest_fact(workspace: Workspace, outcome: Outcome) -> int | None:
    source = outcome.source
    clock = source.known_at or source.event_time
    newest = []
    for batch in workspace.tables.batches(source.table.name, columns=[str(clock)]):
        moments, present = times(batch.column(0), where=f"source {source.name!r}, column {clock!r}")
        newest += [int(moments[present].max())] if present.any() else []
    return max(newest) + (0 if source.known_at else source.delay_us) if newest else None


def add_outcomes(
    workspace: Workspace, outcomes: Sequence[Outcome], at: str, pieces: Iterable[pa.Table], as_of: int | None
) -> Iterator[pa.Table]:
    """Pieces of a frame with two columns per outcome: its value, and when that became known; null if not matured.

    Parameters
    ----------
    workspace : Workspace
    outcomes : sequence of Outcome
        One that is the label of a model gives its yes or no, another one the value of its aggregate.
    at : str
        Time column of the frame.
    pieces : iterable of pyarrow.Table
    as_of : int, optional
        Outcomes that matured by then count, in microseconds. None: none does.
    """
    indexes = EventIndexes.of(workspace)
    sets = [FeatureSet([outcome.view]) for outcome in outcomes]
    versions = [newest_versions(workspace.tables, features.tables, where="outcomes") for features in sets]
    until = -1 if as_of is None else as_of
    for piece in pieces:
        frame = piece
        for outcome, features, pinned in zip(outcomes, sets, versions, strict=True):
            make = partial(outcome_frame, frame, at, outcome, as_of=until, as_label=outcome.labels)
            frame = indexes.gather(make, features, pinned)
        yield frame
