"""Proof of parity: training frame, online state and the naive oracle give the same values, or the differences.

Random request times almost never hit an edge, and the edges are where engines differ. So half of the probes stand on
one: an event's time plus a window, its known-at, the end of an age, whole hours and days, each exactly and one
microsecond beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import InputError
from retrodict.features.columns import Ints, pick, times
from retrodict.features.events import read_events
from retrodict.features.offline import Tables, training_frame
from retrodict.features.online import OnlineFeatures
from retrodict.features.plan import FeatureSet, ViewPlan

__all__ = ["Mismatch", "Report", "verify"]

_SHOWN = 20


@dataclass(frozen=True)
class Mismatch:
    """One value on which the engines differ.

    Attributes
    ----------
    feature : str
        Full name.
    at : int
        Time of the request, microseconds.
    request : dict
        Entity columns of the request.
    values : dict of str to value
        By engine: ``offline``, ``oracle``, ``online``.
    events : list of (event time, known at, sequence, row)
        Visible events of the key, newest twenty: what the right value is made of.
    """

    feature: str
    at: int
    request: dict[str, Any]
    values: dict[str, Any]
    events: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Report:
    """Outcome of a verification.

    Attributes
    ----------
    checked : int
        Values compared.
    probes : int
        Requests asked.
    skipped : int
        Requests that online state said it cannot answer (beyond its horizon).
    mismatches : list of Mismatch
        Every difference.
    """

    checked: int
    probes: int
    skipped: int
    mismatches: list[Mismatch]

    @property
    def verdict(self) -> str:
        """``equal``, ``different`` or ``not evaluable`` (nothing was compared)."""
        if self.mismatches:
            return "different"
        return "equal" if self.checked else "not evaluable"


def verify(
    features: FeatureSet,
    sources: Tables,
    spine: pa.Table,
    at: str,
    *,
    online: OnlineFeatures | None = None,
    samples: int = 200,
    seed: int = 0,
) -> Report:
    """Compare the engines on random and on boundary-aligned requests.

    Parameters
    ----------
    features : FeatureSet
        What to verify.
    sources : callable or mapping of str to pyarrow.Table
        Rows of each source by name.
    spine : pyarrow.Table
        Requests to draw from; boundary probes take its other columns.
    at : str
        Its time column.
    online : OnlineFeatures, optional
        Compare it, too; its state holds the same events.
    samples : int, default 200
        Random probes, and as many boundary-aligned ones per view.
    seed : int, default 0
        Which probes are drawn.
    """
    if not spine.num_rows:
        return Report(0, 0, 0, [])
    random = np.random.default_rng(seed)
    tables = {name: sources(name) if callable(sources) else sources[name] for name in features.sources}
    drawn = spine.take(pa.array(random.integers(0, spine.num_rows, samples)))
    probes = [drawn, *(_edges(plan, tables[plan.source.name], spine, at, random, samples) for plan in features.views)]
    asked = pa.concat_tables(probes)
    frame = training_frame(asked, at, features, tables)
    return _compare(features, asked, frame, at, tables, online)


def _edges(
    plan: ViewPlan, table: pa.Table, spine: pa.Table, at: str, random: np.random.Generator, samples: int
) -> pa.Table:
    """Rows of the spine moved to the key of an event, and to a time at which that event enters or leaves."""
    events = read_events(plan, table)
    rows = spine.take(pa.array(random.integers(0, spine.num_rows, samples)))
    if plan.source.timeless or not len(events.row):
        return rows
    chosen = random.integers(0, len(events.row), samples)
    happened, known = events.event_time[chosen], events.known_at[chosen]
    edges = [happened, known, happened // HOUR * HOUR, happened // HOUR * HOUR + HOUR, happened // DAY * DAY + DAY]
    edges += [happened + window.length_us for window in plan.windows]
    edges += [
        (happened + window.hop_us - 1) // window.hop_us * window.hop_us + window.length_us
        for window in plan.windows
        if window.hop_us
    ]
    edges += [happened + output.max_age for output in plan.outputs if output.max_age is not None]
    which = random.integers(0, len(edges), samples)
    moment = np.choose(which, edges) if len(edges) < 32 else np.array([edges[w][i] for i, w in enumerate(which)])
    moment = moment + random.integers(-1, 2, samples)
    for key, request_key in zip(plan.keys, plan.request_keys, strict=True):
        values = pick(events.table, key, where=plan.where).take(pa.array(chosen))
        rows = _replaced(rows, request_key, values)
    return _replaced(rows, at, pa.array(moment))


def _replaced(rows: pa.Table, name: str, values: pa.Array[Any]) -> pa.Table:
    place = rows.column_names.index(name)
    type_ = rows.schema.field(name).type
    try:
        return rows.set_column(place, rows.schema.field(name), values.cast(type_))
    except pa.ArrowInvalid as error:
        raise InputError(
            "key columns of spine and source hold the same values",
            where=f"spine, column {name!r}",
            got=(str(type_), str(values.type)),
        ) from error


def _compare(
    features: FeatureSet,
    asked: pa.Table,
    frame: pa.Table,
    at: str,
    tables: Mapping[str, pa.Table],
    online: OnlineFeatures | None,
) -> Report:
    from retrodict.testing.oracle import Oracle, plain

    moments: Ints = times(pick(asked, at, where="spine"), where="spine")[0]
    requests = [{name: plain(value) for name, value in row.items()} for row in asked.to_pylist()]
    offline = {name: [plain(value) for value in frame.column(name).to_pylist()] for name in features.columns}
    rows = {}
    for name in features.sources:
        wanted = {column for plan in features.views if plan.source.name == name for column in plan.source_columns}
        rows[name] = _instants(tables[name].select(sorted(wanted))).to_pylist()
    oracles = [(plan, Oracle(plan.view, rows[plan.source.name])) for plan in features.views]
    checked = skipped = 0
    found: list[Mismatch] = []
    for i, (request, moment) in enumerate(zip(requests, moments.tolist(), strict=True)):
        values = {name: {"offline": offline[name][i]} for name in features.columns}
        explained: dict[str, Callable[[], list[tuple[Any, ...]]]] = {}
        for plan, oracle in oracles:
            for name, value in oracle.values(request, moment).items():
                values[f"{plan.name}__{name}"]["oracle"] = value
                explained[f"{plan.name}__{name}"] = lambda o=oracle, r=request, m=moment: o.explain(r, m)  # type: ignore[misc]  # lambda defaults
        if online is not None:
            skipped += _ask(online, request, moment, values)
        checked += sum(len(by_engine) > 1 for by_engine in values.values())
        entity = {key: request[key] for key in features.request_keys}
        found += [
            Mismatch(name, moment, entity, by_engine, sorted(explained[name]())[-_SHOWN:] if name in explained else [])
            for name, by_engine in values.items()
            if not _same(list(by_engine.values()))
        ]
    return Report(checked, len(requests), skipped, found)


def _instants(table: pa.Table) -> pa.Table:
    """Times as microseconds: a hundred thousand datetime objects take longer to make than the oracle to judge."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            whole = table.column(place).cast(pa.timestamp("us", field.type.tz), safe=False).cast(pa.int64())
            table = table.set_column(place, field.name, whole)
    return table


def _ask(online: OnlineFeatures, request: Mapping[str, Any], moment: int, values: dict[str, dict[str, Any]]) -> int:
    """Add the online values; returns 1 if some view says that the request is too old for it."""
    row = online.read(request, {}, moment)
    late = {view for view, status in row.statuses.items() if status == "beyond_horizon"}
    if late and online.features.derived:
        return 1  # a derived value may rest on a view that cannot answer
    for name, value in row.values.items():
        if name.split("__")[0] not in late:
            values[name]["online"] = value
    return int(bool(late))


def _same(values: Sequence[Any]) -> bool:
    """Equal, and null only together with null."""
    first = values[0]
    return all((value is None) == (first is None) and value == first for value in values[1:])
