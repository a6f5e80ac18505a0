"""One evaluation for every task: all metrics of labels and outputs, each with its interval or the reason for none.

A metric that cannot be computed has the value None and a reason; it is never 0, never NaN, and never passes a gate.
Conventions and sources are in docs/evaluation.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from retrodict.core.display import Record
from retrodict.core.tasks import Target, Task
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.binary import (
    BINARY,
    CalibrationBin,
    Confusion,
    base_rate,
    brier,
    calibration_curve,
    calibration_error,
    calibration_ratio,
    confusion,
    log_loss,
    pr_auc,
    roc_auc,
)
from retrodict.evaluation.estimates import Measure, Metric, mean, measure, pick_metric, share
from retrodict.evaluation.multiclass import ClassTable, class_table, multiclass_measures
from retrodict.evaluation.numeric import COUNT, REGRESSION, quantile_measures
from retrodict.evaluation.ranks import measure_ranking
from retrodict.evaluation.survival import followed_rows, survival_measures

__all__ = [
    "CalibrationBin",
    "ClassTable",
    "Confusion",
    "Evaluation",
    "Metric",
    "base_rate",
    "brier",
    "calibration_error",
    "calibration_ratio",
    "evaluate",
    "log_loss",
    "mean",
    "measure_primary",
    "pick_metric",
    "pr_auc",
    "primary",
    "roc_auc",
    "share",
]

_PRIMARY: dict[Task, tuple[str, bool]] = {
    "binary": ("auc", True),
    "multiclass": ("log_loss", False),
    "regression": ("rmse", False),
    "quantile": ("pinball", False),
    "count": ("deviance", False),
    "ranking": ("ndcg_at_k", True),
    "survival": ("integrated_brier", False),
}


def primary(target: Target) -> tuple[str, bool]:
    """Name of the metric by which models of a task are compared, and whether higher is better.

    Each rewards the outputs that the task asks for: the true order, probabilities, mean, quantiles (Gneiting 2011,
    Journal of the American Statistical Association 106, 746-762).
    """
    return _PRIMARY[target.task]


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """Every metric of one set of outputs, with what it was computed from.

    Attributes
    ----------
    n : int
        Rows with a label, and with a weight above 0.
    positives : int or None
        Those labelled 1; None where the task is not binary.
    pending : int
        Rows whose label is not known yet; in no metric.
    metrics : tuple of Metric
    curve : tuple of CalibrationBin
        Equal-mass bins; empty when not evaluable, and where the task is not binary.
    confusion : Confusion, ClassTable or None
        Binary: None without a threshold. Several classes: by the likeliest one.
    task : str, default "binary"
    """

    n: int
    positives: int | None
    pending: int
    metrics: tuple[Metric, ...]
    curve: tuple[CalibrationBin, ...]
    confusion: Confusion | ClassTable | None = None
    task: Task = "binary"

    def __getitem__(self, name: str) -> Metric:
        return pick_metric(self.metrics, name, where="evaluation")

    def values(self) -> dict[str, float | None]:
        """Metric values by name, as gates read them."""
        return {metric.name: metric.value for metric in self.metrics}


def evaluate(
    labels: ArrayLike,
    outputs: ArrayLike,
    target: Target | None = None,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    threshold: float | None = None,
    min_rows: int = 1,
    k: float | None = None,
) -> Evaluation:
    """Compute all metrics of one set of outputs.

    Parameters
    ----------
    labels : array_like of float, shape (n,)
        As the task has them: 0 and 1, codes of the classes, numbers. A null label is pending: counted, in no metric.
    outputs : array_like of float, shape (n,); of several classes, quantiles and horizons (n, columns)
        A null output on a labelled row makes every metric that needs outputs not evaluable: leaving the row out would
        flatter the model.
    target : Target, optional
        Task with classes or quantiles; binary by default.
    weights : array_like of float, shape (n,), optional
        Of the rows, 0 or more; a row of weight 0 is in no metric. A ranking takes the mean of each group.
    groups : array_like, shape (n,), optional
        Of a ranking, which is one group without them; other tasks do not look at them.
    threshold : float, optional
        Binary: adds the confusion table of ``score >= threshold`` with its shares and F values.
    min_rows : int, default 1
        With fewer labelled rows nothing is evaluable.
    k : float, optional
        Of the ``…_at_k`` metrics: a number of places, or a share of the rows below 1. By default a tenth of the rows,
        and ten places of each group of a ranking.

    Raises
    ------
    InputError
        If the columns are not those of the task.

    Examples
    --------
    >>> result = evaluate([0, 0, 1, 1, None], [0.1, 0.4, 0.35, 0.8, 0.5])
    >>> result["auc"].value, result.n, result.pending
    (0.75, 4, 1)
    >>> evaluate([1.0, 2.0, 4.0], [1.0, 2.5, 3.0], Target("regression"))["mae"].value
    0.5
    """
    every = read_rows(labels, outputs, target, weights=weights, groups=groups, k=k)
    rows, pending = every.matured()
    if 0 < rows.n < min_rows:
        rows = rows.refused(f"{rows.n} labelled rows are fewer than the {min_rows} needed")
    task = rows.target.task
    if task == "ranking":
        return Evaluation(rows.n, None, pending, measure_ranking(rows), (), None, task)
    measures = _measures(rows.target)
    metrics = tuple(measure(measures, name, rows) for name in measures)
    if task != "binary":
        table = class_table(rows) if task == "multiclass" and not rows.improper() else None
        return Evaluation(rows.n, None, pending, metrics, (), table, task)
    decisions, shares = (None, ()) if threshold is None else confusion(rows, threshold)
    curve = () if rows.improper() else calibration_curve(rows)
    return Evaluation(rows.n, rows.positives, pending, (*metrics, *shares), curve, decisions)


def measure_primary(rows: Rows) -> Metric:
    """Compute the primary metric of labelled rows; of a time to an event over the horizons they were followed to."""
    name, _ = primary(rows.target)
    rows = followed_rows(rows)[0] if rows.target.task == "survival" else rows
    if rows.target.task == "ranking":
        return pick_metric(measure_ranking(rows), name, where="ladder")
    return measure(_measures(rows.target), name, rows)


def _measures(target: Target) -> dict[str, Measure]:
    match target.task:
        case "binary":
            return BINARY
        case "multiclass":
            return multiclass_measures(target)
        case "quantile":
            return quantile_measures(target)
        case "count":
            return COUNT
        case "survival":
            return survival_measures(target)
        case _:
            return REGRESSION
