"""Parity: what the online store gave each decision, against what the tables say was known at that moment.

The offline engine recomputes every feature value of every logged decision; two values are equal when their bits are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from retrodict.decisions.facts import newest_versions, same_value, typed_column
from retrodict.decisions.log import read_decisions
from retrodict.decisions.records import DecisionRecord
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import ModelArtifact
from retrodict.registry.feature_sets import feature_set_of
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
    for name in features.columns:
        pairs = [
            (record.features.get(name), value)
            for record, value in zip(records, again.column(name).to_pylist(), strict=True)
        ]
        wrong = [place for place, pair in enumerate(pairs) if not same_value(*pair)]
        report.values += len(records)
        if wrong:
            report.mismatches += len(wrong)
            report.by_feature[name] = report.by_feature.get(name, 0) + len(wrong)
        for place in wrong[: max(0, _EXAMPLES - len(report.examples))]:
            before, now = pairs[place]
            example = {"decision": records[place].id, "feature": name, "logged": before, "recomputed": now}
            report.examples.append(example)
