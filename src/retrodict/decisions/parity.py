"""Parity: what the online store gave each decision, against what the tables say was known at that moment.

The offline engine recomputes every feature value of every logged decision; two values are equal when their bits are.
Not compared is what the tables cannot say: a view that was asked beyond its horizon, and a key with an event that had
come by the stream and is in no table. Taking the stream's events in here was rejected: a training frame has them not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from retrodict.core.errors import IntegrityError
from retrodict.decisions.facts import newest_versions, same_value, typed_column
from retrodict.decisions.log import read_decisions
from retrodict.decisions.records import DecisionRecord, Value
from retrodict.features.offline import training_frame
from retrodict.features.online.stream.feeder import stream_of, streamed_rows
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.models.artifact import ModelArtifact
from retrodict.registry.feature_sets import feature_set_of
from retrodict.stores.sql import query, quote
from retrodict.workspace import Workspace

__all__ = ["ParityReport", "check_parity"]

_AT = "_decide_at"
_EXAMPLES = 5


@dataclass(slots=True)
class ParityReport:
    """Comparison of logged with recomputed feature values.

    Attributes
    ----------
    decisions, values, mismatches : int
    not_compared : int
        Decisions without features: a fallback answered before they were read.
    beyond_horizon : int
        Decisions of which some values were not compared, since online state could not look back so far.
    streamed : dict of str to int
        By table, decisions of which some values differ and were not compared, since an event of their key had come by
        the stream and is not in the table.
    by_feature : dict of str to int
        Mismatches per feature, without those that have none.
    examples : list of dict
        Decision, feature, logged and recomputed value of the first few mismatches.
    versions : dict of str to int
        Table versions that were read.
    """

    decisions: int = 0
    values: int = 0
    mismatches: int = 0
    not_compared: int = 0
    beyond_horizon: int = 0
    streamed: dict[str, int] = field(default_factory=dict)
    by_feature: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__}


def check_parity(
    workspace: Workspace, policy: str, *, start: int | None = None, end: int | None = None
) -> ParityReport:
    """Recompute the features of every logged decision of a policy and compare.

    Parameters
    ----------
    workspace : Workspace
    policy : str
    start, end : int, optional
        Decisions with ``start <= time < end``, microseconds since 1970-01-01 UTC.
    """
    report = ParityReport()
    groups: dict[tuple[str, str], list[DecisionRecord]] = {}
    for logged in read_decisions(workspace, policy=policy, start=start, end=end):
        record = logged.record
        if record.features and record.artifact and not record.masked:  # what is masked cannot be computed again
            groups.setdefault((record.model_code, record.artifact), []).append(record)
        else:
            report.not_compared += 1
    for (code, artifact), records in groups.items():
        model = ModelArtifact.load(workspace.objects, artifact)
        features = feature_set_of(workspace, code, model.name, model.inputs.names)
        kinds = model.metadata["request"]
        _compare(workspace, features, {**kinds["entities"], **kinds["context"]}, records, report)
    return report


def _compare(
    workspace: Workspace,
    features: FeatureSet,
    kinds: dict[str, str],
    records: list[DecisionRecord],
    report: ParityReport,
) -> None:
    columns = {
        name: typed_column([{**r.context, **r.entities}.get(name) for r in records], kind)
        for name, kind in kinds.items()
    }
    columns[_AT] = typed_column([r.time for r in records], "time")
    report.versions |= newest_versions(workspace, features)
    tables = {
        name: workspace.tables.read(source.table.name, report.versions[source.table.name])
        for name, source in features.sources.items()
    }
    again = training_frame(pa.table(columns), _AT, features, tables)
    report.decisions += len(records)
    silent = [{view for view, doubt in r.views.items() if doubt["status"] == "beyond_horizon"} for r in records]
    report.beyond_horizon += sum(map(bool, silent))
    plans = {output.column: [plan] for plan in features.views for output in plan.outputs}
    streams = {plan.name: _Streamed(workspace, plan, tables) for plan in features.views}
    unlike: dict[str, set[int]] = {}
    for name in features.columns:
        views = plans.get(name, features.views)  # a derived one may rest on any of them
        pairs = [
            (record.features.get(name), value)
            for record, value in zip(records, again.column(name).to_pylist(), strict=True)
        ]
        places = [place for place, views_ in enumerate(silent) if not any(plan.name in views_ for plan in views)]
        wrong = [place for place in places if not same_value(*pairs[place])]
        report.values += len(places)
        for plan in views:
            late = {place for place in wrong if streams[plan.name].has_more(records[place])}
            unlike.setdefault(plan.source.table.name, set()).update(late)
            wrong, report.values = [place for place in wrong if place not in late], report.values - len(late)
        if wrong:
            report.mismatches += len(wrong)
            report.by_feature[name] = report.by_feature.get(name, 0) + len(wrong)
        for place in wrong[: max(0, _EXAMPLES - len(report.examples))]:
            before, now = pairs[place]
            example = {"decision": records[place].id, "feature": name, "logged": before, "recomputed": now}
            report.examples.append(example)
    for table, places_ in unlike.items():
        if places_:
            report.streamed[table] = report.streamed.get(table, 0) + len(places_)


class _Streamed:
    """Events of a view that came by the stream and are not in its table."""

    def __init__(self, workspace: Workspace, plan: ViewPlan, tables: Mapping[str, pa.Table]) -> None:
        self._workspace, self._plan, self._rows = workspace, plan, tables[plan.source.name]

    @cached_property
    def _first(self) -> dict[tuple[Value, ...], int]:
        """By key, place in the stream of the first event that the table lacks."""
        plan, streams = self._plan, self._workspace.events
        total = streams.end(stream_of(plan.source.table.name))
        try:
            events = streamed_rows(streams, plan.source, plan.source_columns, self._rows.schema, total)
        except IntegrityError:
            return {}  # the stream does not go back so far any more: nobody can say what came by it
        identity = [*plan.keys, plan.source.sequence] if plan.source.sequence else plan.source_columns
        same = " AND ".join(f"t.{quote(name)} IS NOT DISTINCT FROM e.{quote(name)}" for name in identity)
        keys = ", ".join(quote(name) for name in plan.keys)
        places = events.append_column("_place", pa.array(range(events.num_rows), pa.int64()))
        rows = query(
            f"SELECT {keys}{', ' if keys else ''}min(_place) AS _place FROM events e WHERE NOT EXISTS "
            f"(SELECT 1 FROM rows t WHERE {same}) GROUP BY ALL HAVING count(*) > 0", events=places, rows=self._rows,
        )  # fmt: skip
        return {tuple(row[key] for key in plan.keys): row["_place"] for row in rows.to_pylist()}

    def has_more(self, record: DecisionRecord) -> bool:
        """Whether the state of a decision had such an event of its key."""
        records = record.reads.get(self._plan.name, (None, None, None))[2] or 0
        values = {**record.context, **record.entities}
        key = tuple(values.get(name) for name in self._plan.request_keys)
        return records > 0 and self._first.get(key, records) < records
