"""Layer 4, learning: what spoils a model before anybody sees it: drift, leakage, contamination.

References are named by ``against``: ``"previous"`` (the newest published version), a tag or a version number of the
same table, or another table like ``"train@3"``.
"""

from __future__ import annotations

import math
from typing import Literal, Self, Unpack

from retrodict.core.expressions import parse
from retrodict.data.checks.base import CheckBase, How, check_bounds, condition, number_from, one_of
from retrodict.data.checks.business import Columns, names_of, pair

__all__ = ["LearningChecks"]

DriftMetric = Literal["psi", "js_distance_bits", "hellinger", "total_variation"]
_METRICS = ("hellinger", "js_distance_bits", "psi", "total_variation")


class LearningChecks(CheckBase):
    """Class methods of layer 4."""

    @classmethod
    def drift(
        cls,
        column: str,
        *,
        at_most: float = 0.25,
        metric: DriftMetric = "psi",
        against: str = "previous",
        **how: Unpack[How],
    ) -> Self:
        """The column's distribution stays near a reference's.

        It fails only if the metric, over bins frozen on the reference, is above ``at_most`` *and* above the noise
        floor of the two sample sizes (1 % level), as in monitoring.
        """
        limits = {"at_most": _limit(at_most, "drift"), "metric": one_of(metric, _METRICS, "metric", "check drift")}
        return cls.make("drift", (column,), how, against=against, **limits)

    @classmethod
    def label_drift(
        cls,
        label: str,
        *,
        at_most: float = 0.25,
        metric: DriftMetric = "psi",
        against: str = "previous",
        **how: Unpack[How],
    ) -> Self:
        """The share of a label (an expression) stays near the reference's, judged like ``drift``."""
        parsed = condition(label, "check label_drift")
        limits = {"at_most": _limit(at_most, "drift"), "metric": one_of(metric, _METRICS, "metric", "check drift")}
        return cls.make("label_drift", parsed.columns, how, label=parsed.text, against=against, **limits)

    @classmethod
    def label_rate(cls, label: str, low: float | None = None, high: float | None = None, **how: Unpack[How]) -> Self:
        """Share of a label among the rows where it is known lies in [low, high]."""
        check_bounds(low, high, "check label_rate")
        parsed = condition(label, "check label_rate")
        return cls.make("label_rate", parsed.columns, how, label=parsed.text, low=low, high=high)

    @classmethod
    def leakage(cls, column: str, label: str, *, max_auc: float = 0.95, **how: Unpack[How]) -> Self:
        """The column alone does not separate the label too well: max(AUC, 1 - AUC) is at most ``max_auc``."""
        parsed = condition(label, "check leakage")
        limit = number_from(max_auc, 0.5, 1.0, "an AUC must be from 0.5 to 1", "check leakage")
        columns = dict.fromkeys((column, *parsed.columns))
        return cls.make("leakage", columns, how, column=column, label=parsed.text, max_auc=limit)

    @classmethod
    def known_before(cls, column: str, moment: str, **how: Unpack[How]) -> Self:
        """The time in the column is before the moment of decision (an expression like ``"sched_dep - 1h"``)."""
        parsed = parse(moment, where="check known_before")
        columns = dict.fromkeys((column, *parsed.columns))
        return cls.make("known_before", columns, how, column=column, moment=parsed.text)

    @classmethod
    def disjoint(cls, columns: Columns, table: str, to: Columns | None = None, **how: Unpack[How]) -> Self:
        """No row's key is in another table (``"train"``, ``"train@3"``): no contamination of test by training data."""
        names = names_of(columns)
        return cls.make("disjoint", names, how, table=str(table), to=pair(names, to, "disjoint"))

    @classmethod
    def correlation_flip(
        cls, column: str, label: str, *, against: str = "previous", at_least: float = 0.1, **how: Unpack[How]
    ) -> Self:
        """The correlation of column and label keeps its sign; both must be at least ``at_least`` in size to flip."""
        parsed = condition(label, "check correlation_flip")
        columns = dict.fromkeys((column, *parsed.columns))
        return cls.make(
            "correlation_flip", columns, how, column=column, label=parsed.text, against=against,
            at_least=_limit(at_least, "correlation_flip"),
        )  # fmt: skip


def _limit(value: float, rule: str) -> float:
    return number_from(value, 0.0, math.inf, "a limit must be a number from 0 on", f"check {rule}")
