"""Whether what is decided on still looks like what the model learned from: features, scores, and the label rate.

Counts of the period go against the counts of the training rows, which the model version carries; an index counts as
drift only above the threshold and above its own noise floor, with the false-discovery rate held over all features.
Rows near in time are alike, so that floor is what spans as long as the period differ by among the training rows; where
those hold the season of the period in earlier years, the period is compared with that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.core.identity import short
from retrodict.core.statistics.drift import DriftVerdict, judge, judge_features
from retrodict.core.statistics.intervals import difference_interval, wilson_interval
from retrodict.core.statistics.noise import block_scatter
from retrodict.evaluation.metrics import Metric
from retrodict.evaluation.reference import BlockCounts, FeatureReference, Reference, count_labels, count_spans
from retrodict.stores.objects.base import ObjectStore

__all__ = ["SCORE", "DriftReport", "FeatureDrift", "LabelRates", "RateChange", "drift", "read_reference"]

SCORE = "score"
_PIECES = (1, 2, 4, 8)
_LEAST_FREEDOM = 6
Span: TypeAlias = tuple[int, int]


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
class LabelRates:
    """What a change of the label rate is judged from.

    Attributes
    ----------
    current : Metric
        Label rate of the decisions.
    times, labels : ndarray of int64 and of float, shape (known,)
        Moments of the decisions with a known outcome, ascending, and the outcomes.
    reference : float or None
        Label rate of the model's test rows.
    rows : int or None
        Number of test rows; None: that of the reference's scores.
    """

    current: Metric
    times: NDArray[np.int64]
    labels: NDArray[np.float64]
    reference: float | None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class RateChange:
    """Label rate of the decisions against the rate of the model's test rows.

    Changed means that the 95 % interval of ``current - reference`` does not hold 0: both rates are estimates, and
    outcomes near in time are alike. ``reference`` is None where the model version does not say it, ``low`` and
    ``high`` where the change is not evaluable.
    """

    status: Literal["changed", "unchanged", "not evaluable"]
    reason: str
    reference: float | None
    current: float | None
    low: float | None = None
    high: float | None = None


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
    not_asked : dict of str to int
        By feature, decisions of versions that did not read it: not counted for it, as they say nothing about it.
    seasonal : bool
        Whether features were compared with the training rows of the same season of earlier years, and not with all.
    """

    model: str | None
    reason: str | None
    decisions: int
    left_out: int
    other_models: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, FeatureDrift] = field(default_factory=dict)
    score: FeatureDrift | None = None
    label_rate: RateChange | None = None
    seasonal: bool = False
    not_asked: Mapping[str, int] = field(default_factory=dict)

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
    span: Span | None = None,
    label_rate: LabelRates | None = None,
    threshold: float = 0.25,
) -> DriftReport:
    """Judge the decisions of one period against the training rows of a model version.

    The false-discovery rate over the features is held at 0.01; fewer than 100 decisions are not evaluable.

    Parameters
    ----------
    decisions : pyarrow.Table
        Rows of :func:`~retrodict.decisions.log.decisions_table`, in order of time.
    reference : Reference or None
        None: nothing is evaluable, and the report says so.
    model : str or None
        Whose reference it is.
    span : (int, int), optional
        The period, ``start <= time < end``, in microseconds since 1970-01-01 UTC. Without it decisions are taken as
        independent of each other.
    label_rate : LabelRates, optional
    threshold : float, default 0.25
        Smallest index that counts as drift.
    """
    looked_at = decisions.filter(
        pc.or_kleene(pc.is_valid(decisions.column(SCORE)), pc.is_null(decisions.column("fallback")))
    )
    left_out = decisions.num_rows - looked_at.num_rows
    change = None if label_rate is None else _rate_change(label_rate, reference, span)
    if model is None or reference is None:
        why = "no model version is in force" if model is None else "the model version carries no training profiles"
        return DriftReport(model, why, looked_at.num_rows, left_out, label_rate=change)
    references = {name: profile for name, profile in reference.features.items() if name != SCORE}
    seasons = {} if span is None else {n: part for n, r in references.items() if (part := r.season(sum(span) // 2))}
    counts, unread = _count(looked_at, references | seasons, span)
    verdicts = judge_features({name: (c.reference, c.current) for name, c in counts.items()}, threshold=threshold)
    features = {name: counts[name].drift(verdicts[name]) for name in counts}
    features.update({name: FeatureDrift(DriftVerdict("not evaluable", reason)) for name, reason in unread.items()})
    versions, times = np.unique(looked_at.column("model").to_numpy().astype(str), return_counts=True)
    return DriftReport(
        model=model,
        reason=None,
        decisions=looked_at.num_rows,
        left_out=left_out,
        other_models={str(v): int(n) for v, n in zip(versions, times, strict=True) if v != model},
        features=dict(sorted(features.items())),
        score=_score_drift(looked_at, reference.features.get(SCORE), span, threshold),
        label_rate=change,
        seasonal=bool(seasons),
        not_asked={name: missing for name in features if (missing := len(looked_at) - len(_asked(looked_at, name)))},
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counts of both sides, shape (blocks, bins); one block where rows are taken as independent."""

    labels: tuple[str, ...]
    reference: NDArray[np.int64]
    current: NDArray[np.int64]

    @classmethod
    def of(cls, reference: FeatureReference, column: pa.Array, times: NDArray[np.int64], span: Span | None) -> _Counted:
        profile = reference.profile
        if span is None:
            return cls(profile.labels, reference.counts[None], profile.count(column)[None])
        before, pieces = reference_blocks(reference.blocks, reference.counts, span)
        return cls(profile.labels, before, count_spans(profile.count, column, times, _edges(span, pieces)))

    def drift(self, verdict: DriftVerdict) -> FeatureDrift:
        """Verdict with the counts of all blocks together."""
        return FeatureDrift(verdict, self.labels, *(tuple(c.sum(0).tolist()) for c in (self.reference, self.current)))


def reference_blocks(
    blocks: BlockCounts | None, counts: NDArray[np.int64], span: Span
) -> tuple[NDArray[np.int64], int]:
    """Reference counts by block, and the number of blocks of the same length that the period is cut into.

    The longest that leave the noise six degrees of freedom: blocks as long as the period hold all dependence there is
    within it, shorter ones take the rows of neighbouring blocks as independent.
    """
    for pieces in _PIECES:
        before = counts[None]
        if blocks is not None:
            before = blocks.pooled((span[1] - span[0]) / pieces)
        if len(before) + pieces - 2 >= _LEAST_FREEDOM:
            break
    return before, pieces


def _edges(span: Span, pieces: int) -> list[int]:
    return [span[0] + (span[1] - span[0]) * piece // pieces for piece in range(pieces + 1)]


def _count(
    decisions: pa.Table, references: Mapping[str, FeatureReference], span: Span | None
) -> tuple[dict[str, _Counted], dict[str, str]]:
    """Count every feature that can be counted, and say why the others cannot."""
    counts = {}
    unread = {}
    for name, reference in references.items():
        if name not in decisions.column_names:
            unread[name] = "the decision log holds no such value"
            continue
        rows = _asked(decisions, name)
        if name.startswith("output__"):  # a version of other classes gave none: that is a release, and no drift
            rows = decisions.filter(pc.is_valid(decisions.column(name)))
        try:
            column = rows.column(name).combine_chunks()
            counts[name] = _Counted.of(reference, column, _times(rows, span), span)
        except InputError:
            unread[name] = (
                f"the log holds {decisions.schema.field(name).type}, the reference is {reference.profile.kind}"
            )
    return counts, unread


def _asked(decisions: pa.Table, feature: str) -> pa.Table:
    """Decisions that asked for a feature: another version's null is a release, and no drift."""
    if "record__lacks" not in decisions.column_names:
        return decisions
    lacks = decisions.column("record__lacks").combine_chunks()
    places = pc.list_parent_indices(lacks).filter(pc.equal(pc.list_flatten(lacks), feature)).to_numpy()
    if not len(places):
        return decisions
    mask = np.ones(len(lacks), np.bool_)
    mask[places] = False
    return decisions.filter(pa.array(mask))


def _times(decisions: pa.Table, span: Span | None) -> NDArray[np.int64]:
    """Moments of the decisions; none where no block of time is asked for."""
    return np.empty(0, np.int64) if span is None else decisions.column("time").to_numpy()


def _score_drift(
    decisions: pa.Table, reference: FeatureReference | None, span: Span | None, threshold: float
) -> FeatureDrift | None:
    if reference is None:
        return None
    scored = decisions.filter(pc.is_valid(decisions.column(SCORE)))
    counted = _Counted.of(reference, scored.column(SCORE).combine_chunks(), _times(scored, span), span)
    return counted.drift(judge(counted.reference, counted.current, threshold=threshold))


def _rate_change(rates: LabelRates, reference: Reference | None, span: Span | None) -> RateChange:
    current, before, rows = rates.current, rates.reference, rates.rows
    if rows is None and reference is not None and SCORE in reference.features:
        rows = int(reference.features[SCORE].counts.sum())
    if current.value is None:
        return RateChange("not evaluable", current.reason or "no value", before, current.value)
    if before is None or not rows:
        what = "its rate" if before is None else "how many test rows it has"
        return RateChange("not evaluable", f"the model version does not say {what}", before, current.value)
    blocks = None if reference is None else reference.labels
    worth = _rows_per_independent(rates, blocks, (before, rows), span)
    intervals = (
        wilson_interval(share * n / weight, n / weight)
        for share, n, weight in ((current.value, current.n, worth[1]), (before, rows, worth[0]))
    )
    now, then = intervals
    difference = difference_interval(current.value, now, before, then)
    changed = not difference.low <= 0 <= difference.high
    reason = (
        f"{current.value:.4g} of {current.n} outcomes less {before:.4g} of {rows} test rows lies between "
        f"{difference.low:.4g} and {difference.high:.4g}"
    )
    status: Literal["changed", "unchanged"] = "changed" if changed else "unchanged"
    return RateChange(status, reason, before, current.value, difference.low, difference.high)


def _rows_per_independent(
    rates: LabelRates, blocks: BlockCounts | None, test: tuple[float, int], span: Span | None
) -> tuple[float, float]:
    """Test rows, and outcomes of the period, that are worth one independent one.

    With what Student's t adds for the few blocks of time this is known from.
    """
    rate, rows = test
    if span is None or {rate, rates.current.value} <= {0.0, 1.0}:
        return 1.0, 1.0
    counts = np.array([rows - rate * rows, rate * rows])
    before, pieces = reference_blocks(blocks, counts, span)
    current = count_spans(count_labels, pa.array(rates.labels), rates.times, _edges(span, pieces))
    freedom = len(before) + len(current) - 2
    spread = float(np.trace(block_scatter(before.astype(np.float64), current.astype(np.float64))))
    from scipy.special import stdtrit

    few = float(stdtrit(freedom, 0.975)) / NormalDist().inv_cdf(0.975)
    # Test rows of a version without blocks depend on each other as the outcomes do.
    sides = (current if len(before) == 1 else before), current
    of_test, of_period = (spread * float(part.sum()) / len(part) for part in sides)
    return of_test * few**2 if of_test > 1 else 1.0, of_period * few**2 if of_period > 1 else 1.0
