"""Proof of parity: training frame, online state, stream and the naive oracle give the same values, or the differences.

The oracle and the stream get the events of the keys that are asked and nothing else; the training frame gets as many
events of other keys beside them as it takes in a second or two. So the proof is done in seconds on tables of any size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.core.identity import digest
from retrodict.features.facts.columns import Ints, as_table, pick, spine_times
from retrodict.features.offline.frame import Tables, training_frame
from retrodict.features.online import OnlineFeatures
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.features.verify.oracle import Oracle, plain
from retrodict.features.verify.probes import Nearby, Probes, draw_probes
from retrodict.features.verify.rehearsal import rehearsed

__all__ = ["Mismatch", "Report", "verify"]

_SHOWN = 20
_WHOLE = 1_000_000
_DESCRIBED = 5
_EXACTLY_DISTINCT = 4_096
_DECAYED, _SKETCHED = 1e-11, 0.05
_YEAR_9999 = 253_402_300_800_000_000

Event = tuple[Any, ...]


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
        Entity columns of the request. They may say who somebody is, so no text of this object shows them.
    values : dict of str to value
        By engine: ``offline``, ``oracle``, ``online``, ``stream``; times as microseconds.
    events : list of (event time, known at, sequence, row)
        Visible events of the key, newest twenty: what the right value is made of. Empty for a derived feature.
    """

    feature: str
    at: int
    request: dict[str, Any] = field(repr=False)
    values: dict[str, Any]
    events: list[Event]

    @property
    def key(self) -> str:
        """Twelve hex digits that tell one key from another."""
        return digest(repr(tuple(self.request.values())).encode())[:12]

    def describe(self, *, show_keys: bool = False) -> str:
        """Readable text: feature, time, key, the value by engine, and the events behind it."""
        key = ", ".join(f"{name}={value!r}" for name, value in self.request.items()) if show_keys else f"key {self.key}"
        lines = [f"{self.feature} at {_time(self.at)}, {key}"]
        lines += [f"    {engine}: {value!r}" for engine, value in self.values.items()]
        lines += [
            f"    event of {_time(happened)}, known {_time(known_at)}, id {sequence!r}, row {row}"
            for happened, known_at, sequence, row in self.events
        ]
        return "\n".join(lines)


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
        Requests not compared with online state: before its horizon, or after the newest fact it has.
    mismatches : list of Mismatch
        Every difference.
    compared : dict of str to int
        By engine: values compared with the training frame's.
    boundaries : dict of str to int
        By sort of edge: requests that stand on one. A sort that the features or the data do not have is missing.
    left_out : int
        Requests that were drawn and not asked, because their keys have too many events for the oracle.
    """

    checked: int
    probes: int
    skipped: int
    mismatches: list[Mismatch]
    compared: dict[str, int] = field(default_factory=dict)
    boundaries: dict[str, int] = field(default_factory=dict)
    left_out: int = 0

    @property
    def verdict(self) -> str:
        """``equal``, ``different`` or ``not evaluable`` (nothing was compared)."""
        if self.mismatches:
            return "different"
        return "equal" if self.checked else "not evaluable"

    def describe(self, *, show_keys: bool = False) -> str:
        """Readable text: the verdict, what was compared, and the first five mismatches.

        Parameters
        ----------
        show_keys : bool, default False
            Show the keys of the requests, which may be personal, and not digests of them.
        """
        compared = ", ".join(f"{engine} {count}" for engine, count in self.compared.items()) or "nothing"
        edges = ", ".join(f"{sort} {count}" for sort, count in self.boundaries.items()) or "none"
        lines = [
            f"{self.verdict}: {self.probes} requests, {self.checked} values, {len(self.mismatches)} different",
            f"compared with the training frame: {compared}",
            f"requests on edges: {edges}",
        ]
        for why, requests in (
            ("not compared with online state, before its horizon or after its newest fact", self.skipped),
            ("not asked, their keys have too many events for the oracle", self.left_out),
        ):
            lines += [f"{why}: {requests} requests"] if requests else []
        lines += [mismatch.describe(show_keys=show_keys) for mismatch in self.mismatches[:_DESCRIBED]]
        if len(self.mismatches) > _DESCRIBED:
            lines.append(f"and {len(self.mismatches) - _DESCRIBED} more")
        return "\n".join(lines)


def verify(
    features: FeatureSet,
    sources: Tables,
    spine: pa.Table,
    at: str,
    *,
    online: OnlineFeatures | None = None,
    stream: bool = False,
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
        Compare it, too, up to the newest fact of its state, which holds the same events until then.
    stream : bool, default False
        Whether to put the events of the asked keys through a stream into a temporary state, shuffled and with
        redeliveries, and compare what that answers.
    samples : int, default 200
        Random probes, and as many boundary-aligned ones per view.
    seed : int, default 0
        Which probes are drawn, and in which order the stream delivers.

    Returns
    -------
    Report
    """
    spine = _read(spine, {at, *features.request_keys, *features.request_columns}, "spine")
    if not spine.num_rows:
        return Report(0, 0, 0, [])
    rows = {name: sources(name) if callable(sources) else sources[name] for name in features.sources}
    tables = {name: _read(table, _columns_of(features, name), f"source {name!r}") for name, table in rows.items()}
    present = None if online is None else _present(online)
    probes = draw_probes(features, tables, spine, at, samples=samples, seed=seed, present=present)
    if not probes.requests.num_rows:
        return Report(0, 0, 0, [], left_out=probes.left_out)
    moments = spine_times(probes.requests, at)
    judge = _Judge(features, probes, moments, tables)
    with ExitStack() as stack:
        engines = {} if online is None else {"online": online}
        if stream:
            random = np.random.default_rng(seed)
            fed = rehearsed(features, judge.by_source(), int(moments.min()), random)
            engines["stream"] = stack.enter_context(fed)
        frame = training_frame(probes.requests, at, features, judge.among_others(np.random.default_rng(seed)))
        return _compare(judge, frame, engines)


def _read(rows: Any, columns: Collection[str], where: str) -> pa.Table:
    """Rows with these columns as the engines read them: no probe can stand on what they cut off of a finer time."""
    table = as_table(rows, where=where)
    for place, name in enumerate(table.column_names):
        if name in columns:
            table = table.set_column(place, name, pick(table, name, where=where))
    return table


def _columns_of(features: FeatureSet, source: str) -> set[str]:
    """Columns of a source that some view reads."""
    return {column for plan in features.views if plan.source.name == source for column in plan.source_columns}


def _present(online: OnlineFeatures) -> tuple[int, int] | None:
    """Times at which every view of a state answers for certain; None if there are none."""
    reaches = online.reach().values()
    first = max((first for first, _ in reaches), default=0)
    last = min((last for _, last in reaches), default=-1)
    return (first, last) if first <= last else None


class _Judge:
    """Requests, and of every view the events of their keys: all that the oracle and the stream look at."""

    def __init__(self, features: FeatureSet, probes: Probes, moments: Ints, tables: Mapping[str, pa.Table]) -> None:
        self.features, self.probes, self.moments = features, probes, moments.tolist()
        self.requests = _instants(probes.requests).to_pylist()
        self._tables = tables
        self._nearby = {plan.name: Nearby(plan, tables[plan.source.name], probes.requests) for plan in features.views}

    def oracle(self, plan: ViewPlan, place: int) -> Oracle:
        """Oracle of a view for one of the requests."""
        nearby = self._nearby[plan.name]
        rows = pa.array(nearby.rows(place, self.moments[place]))
        return Oracle(plan.view, _instants(nearby.events.take(rows)).to_pylist())

    def events(self, plan: ViewPlan, place: int) -> list[Event]:
        """Visible events of a request, newest twenty, by their rows in the source's table."""
        nearby, moment = self._nearby[plan.name], self.moments[place]
        rows = nearby.positions[nearby.rows(place, moment)]
        events = []
        for happened, known_at, sequence, row in sorted(self.oracle(plan, place).explain(self.requests[place], moment)):
            position = int(rows[row])
            events.append((happened, known_at, position if plan.source.sequence is None else sequence, position))
        return events[-_SHOWN:]

    def by_source(self) -> dict[str, pa.Table]:
        """Events of each source that some view looks at, in the order of the source, times as microseconds."""
        return {name: _instants(self._rows(name, self._wanted(name))) for name in self.features.sources}

    def among_others(self, random: np.random.Generator) -> dict[str, pa.Table]:
        """Whole sources; of one with more than a million rows these events among a million others."""
        tables = {}
        for name in self.features.sources:
            table = self._tables[name]
            if table.num_rows > _WHOLE:
                others = random.integers(0, table.num_rows, _WHOLE)
                table = self._rows(name, np.union1d(self._wanted(name), others))
            tables[name] = table
        return tables

    def _wanted(self, source: str) -> Ints:
        positions = [self._nearby[plan.name].positions for plan in self.features.views if plan.source.name == source]
        return np.unique(np.concatenate(positions))

    def _rows(self, source: str, rows: Ints) -> pa.Table:
        return self._tables[source].select(sorted(_columns_of(self.features, source))).take(pa.array(rows))


def _compare(judge: _Judge, frame: pa.Table, engines: Mapping[str, OnlineFeatures]) -> Report:
    features = judge.features
    offline = {
        name: [plain(value) for value in column]
        for name, column in _instants(frame.select(list(features.columns))).to_pydict().items()
    }
    ops = {output.column: output.op for plan in features.views for output in plan.outputs}
    plans = {output.column: plan for plan in features.views for output in plan.outputs}
    # The rows of a source may be ahead of the stream that feeds the state: what has not come yet is no difference.
    reach = {"online": engines["online"].reach()} if "online" in engines else {}
    compared: Counter[str] = Counter()
    checked, skipped, mismatches = 0, 0, []
    for i, (request, moment) in enumerate(zip(judge.requests, judge.moments, strict=True)):
        values = {name: {"offline": offline[name][i]} for name in features.columns}
        for plan in features.views:
            for name, value in judge.oracle(plan, i).values(request, moment).items():
                values[f"{plan.name}__{name}"]["oracle"] = value
        question = request, moment, values
        skipped += max(
            (_ask(name, engine, reach.get(name, {}), *question) for name, engine in engines.items()), default=0
        )
        for name, by_engine in values.items():
            compared.update([engine for engine in by_engine if engine != "offline"])
            checked += len(by_engine) > 1
            if not _agree(ops.get(name, ""), by_engine):
                entity = {key: request[key] for key in features.request_keys}
                events = judge.events(plans[name], i) if name in plans else []
                mismatches.append(Mismatch(name, moment, entity, by_engine, events))
    probes = judge.probes
    return Report(checked, len(judge.requests), skipped, mismatches, dict(compared), probes.boundaries, probes.left_out)


def _instants(table: pa.Table) -> pa.Table:
    """Times as microseconds: a hundred thousand datetime objects take longer than the oracle."""
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(place, column.name, table.column(place).cast(pa.int64()))
    return table


def _ask(
    name: str,
    engine: OnlineFeatures,
    reach: Mapping[str, tuple[int, int]],
    request: Mapping[str, Any],
    moment: int,
    values: dict[str, dict[str, Any]],
) -> int:
    """Add the values of online state; returns 1 if some view is asked before its horizon or after its newest fact."""
    row = engine.read(request, {}, moment)
    silent = {view for view, status in row.statuses.items() if status == "beyond_horizon"}
    silent |= {view for view, (_, latest) in reach.items() if moment > latest}
    if silent and engine.features.derived:
        return 1  # a derived value may rest on a view that cannot answer
    for feature, value in row.values.items():
        if feature.split("__")[0] not in silent:
            values[feature][name] = value
    return int(bool(silent))


def _agree(op: str, by_engine: Mapping[str, Any]) -> bool:
    reference = by_engine["offline"]
    return all(
        _near(op, reference, value) if engine == "oracle" else _same(reference, value)
        for engine, value in by_engine.items()
    )


def _near(op: str, value: Any, reference: Any) -> bool:
    """Equal to the oracle's value, but for what the definition leaves open: the last digits of 2**x, a sketch."""
    if value is None or reference is None or not op.startswith(("decayed", "approx")):
        return _same(value, reference)
    if op.startswith("decayed"):
        return math.isclose(value, reference, rel_tol=_DECAYED)
    return value == reference if reference <= _EXACTLY_DISTINCT else math.isclose(value, reference, rel_tol=_SKETCHED)


def _same(first: Any, second: Any) -> bool:
    """Equal to the bit, and null only together with null; the entries of maps in the same order; NaN equals nothing."""
    if isinstance(first, float) and isinstance(second, float):
        return first == second and math.copysign(1.0, first) == math.copysign(1.0, second)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(map(_same, first.values(), second.values()))
    return (first is None) == (second is None) and bool(first == second)


def _time(moment: float) -> str:
    """ISO 8601 text; facts without a time have been there always."""
    return format_time(int(moment)) if abs(moment) < _YEAR_9999 else "always"
