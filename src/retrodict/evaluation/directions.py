"""Which way a metric is better: the best RMSE of 9 and 1 is 1. Names alone, so that nobody has to load an engine."""

from __future__ import annotations

import re
from typing import Literal

from retrodict.core.errors import InputError, near

__all__ = ["HIGHER", "LOWER", "NEITHER", "Direction", "better"]

Direction = Literal["higher", "lower"]

HIGHER = frozenset({
    "accuracy", "auc", "balanced_accuracy", "beats_ladder", "better_than_champion", "c_index", "c_index_uno",
    "dp_ratio", "f0_5", "f1", "f2",
    "ks", "lift_at_k", "macro_auc", "macro_f1", "macro_precision", "macro_recall", "map", "mrr", "ndcg_at_k", "pr_auc",
    "precision", "precision_at_k", "quadratic_kappa", "r2", "recall", "recall_at_k", "weighted_f1",
    "weighted_precision", "weighted_recall",
    # as scikit-learn and those who log by it call them
    "accuracy_score", "average_precision", "f1_score", "precision_score", "r2_score", "recall_score", "roc_auc",
    "roc_auc_score", "score",
})  # fmt: skip
"""Names of metrics of which more is better."""

LOWER = frozenset({
    "brier", "calibration_error", "class_error", "crossings", "deviance", "dp_difference", "equal_opportunity",
    "false_positive_rate", "integrated_brier",
    "interval_width", "latency_us", "leaks", "log_loss", "mae", "mape", "median_absolute_error",
    "pinball", "rmse", "size_kb", "span_width",
    "binary_logloss", "l1", "l2", "logloss", "loss", "mean_absolute_error", "mean_squared_error", "mse",
    "multi_logloss", "root_mean_squared_error",
})  # fmt: skip
"""Names of metrics of which less is better."""

NEITHER = frozenset({"base_rate", "bias", "calibration_ratio", "interval_coverage", "positive_share", "span_coverage"})
"""Names of metrics that are right at one value: neither more nor less is better."""

_ROWS = re.compile(r"(?:train|training|val|valid|validation|test|eval|cv|best_cv|mean_test)_")
_PART = re.compile(
    r"(?P<of>recall|dp_ratio|dp_difference|equal_opportunity)[\[(].+[\])]|(?P<level>pinball)_q\d+(_\d+)?"
    r"|(?P<horizon>brier|calibration_error)_\d+[a-z]+"
)


def better(name: str) -> Direction:
    """Whether higher or lower values of a metric are better.

    Parameters
    ----------
    name : str
        Of a metric of this package (``auc``, ``rmse``, ``recall["sweet"]``, ``pinball_q0_9``), or as scikit-learn calls
        it; also with the rows in front, as in ``val_loss``.

    Raises
    ------
    InputError
        If the name is not known, or the metric is right at one value, as a calibration ratio is at 1.

    Examples
    --------
    >>> better("auc"), better("rmse"), better("val_loss")
    ('higher', 'lower', 'lower')
    """
    match = _PART.fullmatch(name)
    plain = (
        match["of"] or match["level"] or match["horizon"]
        if match
        else name
        if name in HIGHER | LOWER
        else _ROWS.sub("", name, count=1)
    )
    if plain in HIGHER:
        return "higher"
    if plain in LOWER:
        return "lower"
    if plain in NEITHER or plain.startswith("coverage_q"):
        reason = "It is right at one value: order by another metric"
    else:
        reason = near(name, HIGHER | LOWER, what="metric")
    raise InputError("a metric must have a direction that is known", where="metric", got=name,
                     remedy=f"{reason}, or say better='higher' or better='lower'")  # fmt: skip
