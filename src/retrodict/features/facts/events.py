"""Events of a source as arrays: read from a table or from rows of a stream, by the same rules.

What can never be visible (a null event time or known-at) and what the source's condition leaves out is dropped here,
so no engine has to think of it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.clock import to_micros
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.expressions import Expression, parse
from retrodict.core.kinds import kind_of
from retrodict.core.statistics.exact import Shifted
from retrodict.data.sources import Source
from retrodict.features.facts.columns import (
    FactColumn,
    Ints,
    Mask,
    compute,
    evaluate,
    is_known,
    numeric,
    pick,
    pick_times,
    present,
)
from retrodict.features.facts.kernels import FOREVER
from retrodict.features.facts.keys import key_columns
from retrodict.features.facts.ranges import identity_of
from retrodict.features.monoids import Channel, Lift
from retrodict.features.plan import ViewPlan

__all__ = [
    "FOREVER",
    "TIMELESS",
    "Events",
    "first_of_each",
    "in_force",
    "lift",
    "lifted_inputs",
    "read_events",
    "reads_times",
    "with_computed",
]

TIMELESS = -(1 << 62)
"""Both clocks of a fact without a time: before every request."""


# Factors of a lift (the value, the event time), and which part of their product it is.
_PRODUCTS: dict[Lift, tuple[str, int]] = {
    "double": ("v", 0), "square": ("vv", 0), "square_rest": ("vv", 1),
    "cube": ("vvv", 0), "cube_1": ("vvv", 1), "cube_2": ("vvv", 2), "cube_3": ("vvv", 3),
    "time": ("t", 0), "time_square": ("tt", 0), "time_square_rest": ("tt", 1),
    "moment": ("tv", 0), "moment_rest": ("tv", 1),
}  # fmt: skip
_GREATEST = 992  # exponent of a product up to which what splits its factors is a double


@dataclass(frozen=True)
class Events:
    """Events of one source, for one view.

    Attributes
    ----------
    table : pyarrow.Table
        Their rows.
    row : int64 array
        Position of each in what was read.
    event_time, known_at : int64 array
        Microseconds.
    sequence : int64 array or object array of str
        Event ids; positions if the source declares none.
    order : int64 array
        Rank of the event ids.
    inputs : dict of str to FactColumn
        Conditions and value columns by their text.
    alive : bool array
        Of a revised source: which rows say something, and do not only take their event away. Else all.
    """

    table: pa.Table
    row: Ints
    event_time: Ints
    known_at: Ints
    sequence: NDArray[Any]
    order: Ints
    inputs: dict[str, FactColumn]
    alive: Mask

    def keys(self, plan: ViewPlan) -> list[pa.Array[Any]]:
        """Key columns."""
        return key_columns(self.table, plan.keys, where=f"{plan.where}, source {plan.source.name!r}")

    def take(self, rows: Ints) -> Events:
        """Return some of the events."""
        inputs = {text: column.take(rows) for text, column in self.inputs.items()}
        clocks = self.event_time[rows], self.known_at[rows]
        table = self.table.take(rows)
        return Events(table, self.row[rows], *clocks, self.sequence[rows], self.order[rows], inputs, self.alive[rows])


def read_events(plan: ViewPlan, data: pa.Table | Sequence[Mapping[str, Any]], *, first_position: int = 0) -> Events:
    """Read what a view needs of a table, or of rows in which times are int microseconds or aware datetimes.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    data : pyarrow.Table or sequence of mapping
        The events; in rows a missing column is null.
    first_position : int, default 0
        Position of the first one, for sources without a sequence.
    """
    where = f"{plan.where}, source {plan.source.name!r}"
    rows = _known_columns(plan, data, where) if isinstance(data, pa.Table) else _plain_rows(data)
    table = rows if isinstance(rows, pa.Table) else _tabulate(plan, rows, where)
    table = with_computed(table, plan.computed, rows, where=where)
    _check_latest(plan, table)
    event_time, known_at, seen = _clocks(plan.source, table, where)
    alive = _alive(plan.source, rows, seen, where)
    if not plan.source.revised:
        seen, alive = alive, np.ones_like(alive)
    sequence, order = _sequence(plan.source, table, seen, where, first_position)
    inputs = lifted_inputs(plan.expressions, plan.values, rows, table, where=where)
    row = order if plan.source.sequence is None and not first_position else np.arange(table.num_rows)
    events = Events(table, row, event_time, known_at, sequence, order, inputs, alive)
    return events if seen.all() else events.take(np.flatnonzero(seen))


def with_computed(
    table: pa.Table,
    expressions: Mapping[str, Expression],
    rows: pa.Table | Sequence[Mapping[str, Any]],
    *,
    where: str,
) -> pa.Table:
    """Return the table with a column of each expression under its text; ``rows`` are those of the table."""
    for text, column in compute(expressions, rows, where=where).items():
        table = table.append_column(text, column)
    return table


def _alive(source: Source, rows: pa.Table | Sequence[Mapping[str, Any]], seen: Mask, where: str) -> Mask:
    """Rows that have a time, are kept by the source's condition, and delete nothing."""
    alive = seen.copy()
    if source.where is not None:
        alive &= evaluate({"where": parse(source.where)}, rows, where=where)["where"].true
    if source.deleted is not None:
        alive &= ~evaluate({"deleted": parse(source.deleted)}, rows, where=where)["deleted"].true
    return alive


def _known_columns(plan: ViewPlan, table: pa.Table, where: str) -> pa.Table:
    """What the view reads of a table, in the types that the engines know."""
    columns = table.schema.names
    in_type = {name for name in plan.source_columns if name in columns and is_known(table.schema.field(name).type)}
    return pa.table(
        {
            name: table.column(name) if name in in_type else pick(table, name, where=where)
            for name in plan.source_columns
        }
    )


def _check_latest(plan: ViewPlan, table: pa.Table) -> None:
    """Refuse a latest value that online state could not hold, wherever it is asked for."""
    for name in plan.latest:
        type_ = table.schema.field(name).type
        if kind_of(type_) in {"list", "other"}:
            raise DefinitionError(
                "a latest value must be a number, a boolean, text, a time or a date",
                where=f"{plan.where}, column {name!r}",
                got=str(type_),
                remedy="Take another column, or convert this one where the table is written",
            )


def _plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{k: to_micros(v) if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]


def _tabulate(plan: ViewPlan, rows: Sequence[Mapping[str, Any]], where: str) -> pa.Table:
    columns = {}
    for name in plan.source_columns:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise InputError(
                "the values of a column must be of one type",
                where=f"{where}, column {name!r}",
                got=sorted({type(row.get(name)).__name__ for row in rows}),
                remedy="Send every event with the types of the table",
            ) from error
    return pa.table(columns)


def lifted_inputs(
    expressions: Mapping[str, Expression],
    values: Sequence[str],
    rows: pa.Table | Sequence[Mapping[str, Any]],
    table: pa.Table,
    *,
    where: str,
) -> dict[str, FactColumn]:
    """Conditions and value columns, by text, ready to be lifted."""
    inputs = evaluate(expressions, rows, where=where)
    for name in values:
        inputs[name] = numeric(pick(table, name, where=where), where=f"{where}, column {name!r}")
    return inputs


def _clocks(source: Source, table: pa.Table, where: str) -> tuple[Ints, Ints, Mask]:
    if source.timeless:
        constant = np.full(table.num_rows, TIMELESS, dtype=np.int64)
        return constant, constant, np.ones(table.num_rows, dtype=np.bool_)
    first = source.event_time or source.known_at or ""
    event_time, seen = pick_times(table, first, where=where)
    if source.known_at is None:
        return event_time, event_time + source.delay_us if source.delay_us else event_time, seen.copy()
    known_at, valid = pick_times(table, source.known_at, where=where)
    return event_time, known_at, seen & valid


def _sequence(
    source: Source, table: pa.Table, seen: Mask, where: str, first_position: int
) -> tuple[NDArray[Any], Ints]:
    if source.sequence is None:
        positions = np.arange(first_position, first_position + table.num_rows)
        return positions, positions
    column = pick(table, source.sequence, where=where)
    if pa.types.is_timestamp(column.type):  # one event per key and time: the time itself is the id
        column = column.cast(pa.int64())
    kind = kind_of(column.type)
    missing = int((~present(column)[seen]).sum())
    if kind not in {"int", "text", "null"} or missing:
        raise InputError(
            "the sequence of an event must be a whole number or text, never null",
            where=f"{where}, column {source.sequence!r}",
            got=f"{missing} nulls" if missing else str(column.type),
            remedy="Name another sequence column, or leave it out to take the order of the rows",
        )
    if kind != "text":
        ids = numeric(column, where=where).values.astype(np.int64)
        return ids, ids
    # Code points order like UTF-8 bytes, so this rank is the same wherever it is taken.
    column = pc.fill_null(column.cast(pa.large_string()), "")
    ranks = pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64)
    return np.array(column.to_pylist(), dtype=object), ranks - 1


def first_of_each(codes: Ints, events: Events) -> Ints | None:
    """Events without redeliveries (same key, event time and sequence), or None if there are none.

    Of several deliveries the one known first counts: that does not depend on the order they arrive in.
    """
    order = events.order
    if (order[1:] > order[:-1]).all() or (np.diff(np.sort(order)) > 0).all():
        return None
    sort = np.lexsort((events.row, events.known_at, events.order, events.event_time, codes))
    columns = (codes[sort], events.event_time[sort], events.order[sort])
    fresh = np.ones(len(sort), dtype=np.bool_)
    fresh[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.sort(sort[fresh])


def in_force(codes: Ints, events: Events) -> tuple[Ints, Ints]:
    """Rows of a revised source that say something, and until when each is in force (inclusive).

    A row is visible to a decision at q if ``max(event_time, known_at) < q <= until``. Of revisions known at the same
    moment the one that comes last in the source counts.
    """
    sort = np.lexsort((events.row, events.known_at, events.order, codes))
    same = (codes[sort][1:] == codes[sort][:-1]) & (events.order[sort][1:] == events.order[sort][:-1])
    until = np.full(len(sort), FOREVER, dtype=np.int64)
    following = events.known_at[sort][1:]
    until[sort[:-1]] = np.where(same, following, FOREVER)
    events_in_force = np.flatnonzero(events.alive & (until > np.maximum(events.event_time, events.known_at)))
    return events_in_force, until[events_in_force]


def reads_times(channel: Channel) -> bool:
    """Whether what an event gives to a channel depends on when it happened."""
    return channel.lift in _PRODUCTS and "t" in _PRODUCTS[channel.lift][0]


def lift(channel: Channel, inputs: Mapping[str, FactColumn], times: Ints) -> Any:
    """One number per event: what it gives to a channel, the identity where it gives nothing; ``times`` are theirs.

    Products are sums of numbers without error: of doubles, and of :class:`Shifted` ones where a value of the column is
    so large or so small that a double could not hold some part of its product.
    """
    counts = np.ones(len(times), dtype=np.bool_)
    if channel.where is not None:
        counts = inputs[channel.where].true
    if channel.lift == "one" or channel.value is None:
        return counts.astype(np.int64)
    column = inputs[channel.value]
    counts = counts & column.valid
    if channel.beside is not None:
        counts &= inputs[channel.beside].valid
    if channel.lift == "present":
        return counts.astype(np.int64)
    if channel.lift == "true":
        return (counts & column.true).astype(np.int64)
    nothing = 0 if channel.monoid == "sum" else identity_of(column.values.dtype, largest=channel.monoid == "max")
    values = column.values
    if not counts.all():
        values = np.where(counts, values, np.array(nothing, dtype=values.dtype))
    if channel.lift == "value":
        return values
    factors, part = _PRODUCTS[channel.lift]
    columns = {"v": values.astype(np.float64)} if "v" in factors else {}
    if "t" in factors:
        columns["t"] = np.where(counts, times, 0).astype(np.float64)
    return columns[factors] if len(factors) == 1 else _multiplied(columns, factors, part)


def _multiplied(columns: Mapping[str, NDArray[np.float64]], factors: str, part: int) -> NDArray[np.float64] | Shifted:
    """One of the two numbers whose sum is the product of two factors, or of the four for three factors."""
    scaled = {name: np.frexp(values) for name, values in columns.items()}
    exponents: Ints = np.sum([scaled[name][1] for name in factors], axis=0, dtype=np.int64)
    filled = exponents[np.logical_and.reduce([values != 0.0 for values in columns.values()])]
    # The last bit of a product of doubles must be a double, too.
    if len(filled) and not (53 * len(factors) - 1074 <= filled.min() and filled.max() <= _GREATEST):
        return Shifted(_part([scaled[name][0] for name in factors], part), exponents)
    return _part([columns[name] for name in factors], part)


def _part(factors: Sequence[NDArray[np.float64]], part: int) -> NDArray[np.float64]:
    pair = _product(factors[0], factors[1])
    return pair[part] if len(factors) == 2 else _product(pair[part // 2], factors[2])[part % 2]


def _product(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """TwoProduct (Dekker 1971, with the splitting of Veltkamp): the rounded product, and its error."""
    product = first * second
    (top, low), (other, rest) = _split(first), _split(second)
    error = low * rest - (((product - top * other) - low * other) - top * rest)
    return product + 0.0, error + 0.0


def _split(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = values * 134_217_729.0  # 2**27 + 1
    top = wide - (wide - values)
    return top, values - top
