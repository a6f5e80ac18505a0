"""Layer 4, learning: what spoils a model before anybody sees it: drift, leakage, contamination.

References are named by ``against``: ``"previous"`` (the newest published version), a tag or a version number of the
same table, or another table like ``"train@3"``.
"""

from __future__ import annotations

from typing import Literal, Self, Unpack

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import Expression, parse
from retrodict.data.checks.base import CheckBase, How, check_bounds, is_number
from retrodict.data.checks.business import Columns, _pair, names_of

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
        return cls.make(
            "drift", (column,), how, at_most=_limit(at_most, "drift"), metric=_metric(metric), against=against
        )

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
        parsed, limit = _label(label, "label_drift"), _limit(at_most, "label_drift")
        return cls.make(
            "label_drift",
            parsed.columns,
            how,
            label=parsed.text,
            at_most=limit,
            metric=_metric(metric),
            against=against,
        )

    @classmethod
    def label_rate(cls, label: str, low: float | None = None, high: float | None = None, **how: Unpack[How]) -> Self:
        """Share of a label among the rows where it is known lies in [low, high]."""
        check_bounds(low, high, "check label_rate")
        parsed = _label(label, "label_rate")
        return cls.make("label_rate", parsed.columns, how, label=parsed.text, low=low, high=high)

    @classmethod
    def leakage(cls, column: str, label: str, *, max_auc: float = 0.95, **how: Unpack[How]) -> Self:
        """The column alone does not separate the label too well: max(AUC, 1 - AUC) is at most ``max_auc``."""
        parsed = _label(label, "leakage")
        if not is_number(max_auc) or not 0.5 <= max_auc <= 1.0:
            raise DefinitionError(
                "an AUC must be from 0.5 to 1", where="check leakage", got=max_auc, remedy="Write 0.95"
            )
        columns = dict.fromkeys((column, *parsed.columns))
        return cls.make("leakage", columns, how, column=column, label=parsed.text, max_auc=float(max_auc))

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
        return cls.make("disjoint", names, how, table=str(table), to=_pair(names, to, "disjoint"))

    @classmethod
    def correlation_flip(
        cls, column: str, label: str, *, against: str = "previous", at_least: float = 0.1, **how: Unpack[How]
    ) -> Self:
        """The correlation of column and label keeps its sign; both must be at least ``at_least`` in size to flip."""
        parsed = _label(label, "correlation_flip")
        columns = dict.fromkeys((column, *parsed.columns))
        return cls.make(
            "correlation_flip", columns, how, column=column, label=parsed.text, against=against,
            at_least=_limit(at_least, "correlation_flip"),
        )  # fmt: skip


def _label(text: str, rule: str) -> Expression:
    parsed = parse(text, where=f"check {rule}")
    if parsed.kind not in ("bool", None):
        raise DefinitionError(
            "a label must be true or false",
            where=f"check {rule}",
            got=text,
            remedy="Write a comparison or a bool column",
        )
    return parsed


def _limit(value: float, rule: str) -> float:
    if not is_number(value) or value < 0:
        raise DefinitionError(
            "a limit must be a number from 0 on", where=f"check {rule}", got=value, remedy="Write 0.25"
        )
    return float(value)


def _metric(name: str) -> str:
    if name not in _METRICS:
        raise DefinitionError(
            f"a drift metric must be {', '.join(_METRICS)}", where="check drift", got=name, remedy="Write 'psi'"
        )
    return name
