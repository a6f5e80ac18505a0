"""Whether what is decided on still looks like what the model learned from: features, scores, and the label rate.

Counts of the period go against the counts of the training rows, which the model version carries; an index counts as
drift only above the threshold and above its own noise floor, with the false-discovery rate held over all features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.core.identity import short
from retrodict.core.statistics.drift import DriftVerdict, judge, judge_features
from retrodict.evaluation.metrics import Metric
from retrodict.evaluation.reference import FeatureReference, Reference
from retrodict.stores.objects.base import ObjectStore

__all__ = ["SCORE", "DriftReport", "FeatureDrift", "RateChange", "drift", "read_reference"]

SCORE = "score"


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """Verdict on one feature, and the counts behind it, for plots; ``labels`` names the bins."""

    verdict: DriftVerdict
    labels: tuple[str, ...] = ()
    reference: tuple[int, ...] = ()
    current: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json`` and plots."""
        bins = {"labels": list(self.labels), "reference": list(self.reference), "current": list(self.current)}
        return {**self.verdict.to_dict(), "bins": bins}


@dataclass(frozen=True, slots=True)
class RateChange:
    """Label rate of the decisions against the rate of the model's test rows.

    Changed means that the reference lies outside the 95 % interval of the current rate; ``reference`` is None where
    the model version does not say it.
    """

    status: Literal["changed", "unchanged", "not evaluable"]
    reason: str
    reference: float | None
    current: float | None


@dataclass(frozen=True, slots=True)
class DriftReport(Record):
    """Drift of one period's decisions.

    Attributes
    ----------
    model : str or None
        ``name@version`` whose training rows are the reference: the version in force when the report was made.
    reason : str or None
        Why nothing is evaluable; None when there are verdicts.
    decisions : int
        Decisions that were looked at: those that a model scored.
    left_out : int
        Decisions that a fallback made without a score; their features may never have been read.
    other_models : dict of str to int
        Decisions of other versions among those looked at; they are judged against the same reference.
    features : dict of str to FeatureDrift
    score : FeatureDrift or None
        The same for the model's output; None where the reference has no profile of it.
    label_rate : RateChange or None
    """

    model: str | None
    reason: str | None
    decisions: int
    left_out: int
    other_models: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, FeatureDrift] = field(default_factory=dict)
    score: FeatureDrift | None = None
    label_rate: RateChange | None = None

    @property
    def drifted(self) -> list[str]:
        """Features that drifted, the largest index first."""
        indexes = {
            name: feature.verdict.psi or 0.0
            for name, feature in self.features.items()
            if feature.verdict.status == "drift"
        }
        return sorted(indexes, key=lambda name: (-indexes[name], name))

    @property
    def psi(self) -> float | None:
        """Largest index of the features that drifted, 0.0 if none did, None if none is evaluable."""
        if all(feature.verdict.status == "not evaluable" for feature in self.features.values()):
            return None
        worst = self.drifted[:1]
        return (self.features[worst[0]].verdict.psi or 0.0) if worst else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json`` and plots."""
        return {**Record.to_dict(self), "psi": self.psi, "drifted": self.drifted}


def read_reference(objects: ObjectStore, metadata: Mapping[str, Any]) -> Reference | None:
    """Profiles of the training rows of a model version; None if its metadata names none.

    Raises
    ------
    IntegrityError
        If it names them and the object is gone or is no profiles.
    """
    digest = metadata.get("profiles")
    if digest is None:
        return None
    try:
        return Reference.from_json(objects.get(digest))
    except NotFoundError as error:
        raise IntegrityError("the training profiles of a model version must be stored",
                             where=f"object {short(digest)}", got="no such object",
                             remedy="Restore the object store from a backup") from error  # fmt: skip
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise IntegrityError("the object must hold training profiles", where=f"object {short(digest)}",
                             got=type(error).__name__,
                             remedy="Train the model again") from error  # fmt: skip


def drift(
    decisions: pa.Table,
    reference: Reference | None,
    *,
    model: str | None,
    label_rate: Metric | None = None,
    reference_rate: float | None = None,
    threshold: float = 0.25,
) -> DriftReport:
    """Judge the decisions of one period against the training rows of a model version.

    The false-discovery rate over the features is held at 0.01; fewer than 100 decisions are not evaluable.

    Parameters
    ----------
    decisions : pyarrow.Table
        Rows of :func:`~retrodict.decisions.log.decisions_table`.
    reference : Reference or None
        None: nothing is evaluable, and the report says so.
    model : str or None
        Whose reference it is.
    label_rate : Metric, optional
        Label rate of the decisions.
    reference_rate : float, optional
        Label rate of the model's test rows.
    threshold : float, default 0.25
        Smallest index that counts as drift.
    """
    looked_at = decisions.filter(
        pc.or_kleene(pc.is_valid(decisions.column(SCORE)), pc.is_null(decisions.column("fallback")))
    )
    left_out = decisions.num_rows - looked_at.num_rows
    change = None if label_rate is None else _rate_change(label_rate, reference_rate)
    if model is None or reference is None:
        why = "no model version is in force" if model is None else "the model version carries no training profiles"
        return DriftReport(model, why, looked_at.num_rows, left_out, label_rate=change)
    counts, unread = _count(looked_at, {name: profile for name, profile in reference.features.items() if name != SCORE})
    verdicts = judge_features({n: (ref.counts, now) for n, (ref, now) in counts.items()}, threshold=threshold)
    features = {name: _feature(verdicts[name], *counts[name]) for name in counts}
    features.update({name: FeatureDrift(DriftVerdict("not evaluable", reason)) for name, reason in unread.items()})
    versions, times = np.unique(looked_at.column("model").to_numpy().astype(str), return_counts=True)
    return DriftReport(
        model=model,
        reason=None,
        decisions=looked_at.num_rows,
        left_out=left_out,
        other_models={str(v): int(n) for v, n in zip(versions, times, strict=True) if v != model},
        features=dict(sorted(features.items())),
        score=_score_drift(looked_at, reference.features.get(SCORE), threshold),
        label_rate=change,
    )


_Counted = dict[str, tuple[FeatureReference, NDArray[np.int64]]]


def _count(decisions: pa.Table, references: Mapping[str, FeatureReference]) -> tuple[_Counted, dict[str, str]]:
    """Count every feature that can be counted, and say why the others cannot."""
    counts: _Counted = {}
    unread = {}
    for name, reference in references.items():
        if name not in decisions.column_names:
            unread[name] = "the decision log holds no such value"
            continue
        try:
            counts[name] = (reference, reference.profile.count(decisions.column(name).combine_chunks()))
        except InputError:
            unread[name] = (
                f"the log holds {decisions.schema.field(name).type}, the reference is {reference.profile.kind}"
            )
    return counts, unread


def _feature(verdict: DriftVerdict, reference: FeatureReference, current: NDArray[np.int64]) -> FeatureDrift:
    counts = tuple(reference.counts.tolist()), tuple(current.tolist())
    return FeatureDrift(verdict, reference.profile.labels, *counts)


def _score_drift(decisions: pa.Table, reference: FeatureReference | None, threshold: float) -> FeatureDrift | None:
    if reference is None:
        return None
    current = reference.profile.count(decisions.column(SCORE).drop_null().combine_chunks())
    return _feature(judge(reference.counts, current, threshold=threshold), reference, current)


def _rate_change(current: Metric, reference: float | None) -> RateChange:
    if current.value is None or current.low is None or current.high is None:
        return RateChange("not evaluable", current.reason or "no interval", reference, current.value)
    if reference is None:
        return RateChange("not evaluable", "the model version does not say its rate", None, current.value)
    changed = not current.low <= reference <= current.high
    side = "outside" if changed else "inside"
    reason = (
        f"{reference:.4g} of the test rows lies {side} {current.low:.4g} to {current.high:.4g} of {current.n} outcomes"
    )
    return RateChange("changed" if changed else "unchanged", reason, reference, current.value)
