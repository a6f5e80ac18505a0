"""What a recipe says of rare classes: how training rows are balanced, and where scores become a yes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.tasks import Target

if TYPE_CHECKING:
    from retrodict.estimators.balance import Resampled
    from retrodict.estimators.thresholds import Cutoff

__all__ = ["Balance", "Threshold"]

_BALANCES = ("adasyn", "borderline_smote", "class_weight", "over", "smote", "smote_tomek", "under")


@dataclass(frozen=True)
class Balance:
    """Balance the classes of the training rows; the model's probabilities are brought back to the true shares.

    Parameters
    ----------
    method : {"class_weight", "over", "under", "smote", "borderline_smote", "adasyn", "smote_tomek"}
    ratio : float, default 1.0
        What each rarer class comes to, as a share of the most frequent one; above 0 and up to 1.
    neighbours : int, default 5
        Of synthetic rows.
    weights : mapping of class to float, optional
        Of ``class_weight``: the weight of each class by its name, 0 and 1 for a yes-or-no label; None: by ``ratio``.

    Examples
    --------
    >>> Balance("smote", ratio=0.5)
    Balance(method='smote', ratio=0.5, neighbours=5, weights={})
    """

    method: str = "class_weight"
    ratio: float = 1.0
    neighbours: int = 5
    weights: Mapping[Any, float] = field(default_factory=dict, metadata={"identity": "if set"})

    def __post_init__(self) -> None:
        """Check what can be checked without rows."""
        check_known(self.method, _BALANCES, "a method must be one that exists", where="Balance", what="method",
                    error=DefinitionError)  # fmt: skip
        object.__setattr__(self, "ratio", _number("Balance, ratio", self.ratio, above=0.0, upper=1.0))
        object.__setattr__(self, "neighbours", int(_number("Balance, neighbours", self.neighbours, above=1, at=True)))
        if self.weights and self.method != "class_weight":
            raise DefinitionError("only class weights must have a weight per class", where="Balance", got=self.method,
                                  remedy="Write Balance('class_weight', weights=…), or leave weights out")  # fmt: skip
        weights = {name: _number(f"Balance, weights of {name!r}", weight, above=0.0)
                   for name, weight in self.weights.items()}  # fmt: skip
        object.__setattr__(self, "weights", weights)

    def apply(
        self,
        matrix: Any,
        labels: Any,
        weights: Any = None,
        *,
        categorical: Sequence[int] = (),
        target: Target | None = None,
        seed: int = 0,
    ) -> Resampled:
        """Balance training rows, and only them; see :func:`retrodict.estimators.resample`."""
        from retrodict.estimators.balance import resample

        how: Any = self.method
        if self.weights:
            classes = target.classes if target is not None and target.classes else (0, 1)
            for name in self.weights:
                rule = "weights must be for classes of the label"
                check_known(str(name), [*map(str, classes)], rule, where="Balance", what="class", error=DefinitionError)
            codes = {str(label): float(code) for code, label in enumerate(classes)}
            how = {codes[str(name)]: weight for name, weight in self.weights.items()}
        return resample(matrix, labels, how, ratio=self.ratio, seed=seed, neighbours=self.neighbours,
                        categorical=categorical, weights=weights)  # fmt: skip


def _number(where: str, value: Any, *, above: float, upper: float = math.inf, at: bool = False) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or value > upper or not (value >= above if at else value > above):
        span = f"{'from' if at else 'above'} {above:g}" + f", up to {upper:g}" * (upper < math.inf)
        raise DefinitionError(f"the value must be a number {span}", where=where, got=value,
                              remedy="Choose another one")  # fmt: skip
    return float(value)


@dataclass(frozen=True)
class Threshold:
    """Where a score becomes a yes, chosen on validation rows: by cost, by a constraint, or by capacity.

    Written by the way it is chosen: ``Threshold.cost(false_positive=1, false_negative=6)``, ``Threshold.recall(0.8)``.

    Parameters
    ----------
    how : {"alarms", "cost", "fixed", "precision", "recall", "rows", "share"}
    value : float, optional
        Of all but ``cost``.
    false_positive, false_negative : float, default 1.0
        What a wrong yes and a wrong no cost.
    """

    how: str
    value: float | None = None
    false_positive: float = 1.0
    false_negative: float = 1.0

    def __post_init__(self) -> None:
        """Check the costs and the limit."""
        ways = ("alarms", "cost", "fixed", "precision", "recall", "rows", "share")
        check_known(self.how, ways, "a threshold must be chosen in a way that exists", where="Threshold", what="way",
                    error=DefinitionError)  # fmt: skip
        for name in ("false_positive", "false_negative"):
            cost = _number(f"Threshold, {name}", getattr(self, name), above=0.0, at=True)
            object.__setattr__(self, name, cost)
        if not self.false_positive + self.false_negative:
            raise DefinitionError("one of the costs must be above zero", where="Threshold", got=(0, 0),
                                  remedy="Write Threshold.cost(false_positive=1, false_negative=6)")  # fmt: skip
        if (self.value is None) != (self.how == "cost"):
            raise DefinitionError("a threshold must have a value, unless it is chosen by cost", where="Threshold",
                                  got=(self.how, self.value),
                                  remedy="Write Threshold.recall(0.8) or Threshold.cost(…)")  # fmt: skip
        if self.value is not None:
            upper = 1.0 if self.how in ("fixed", "precision", "recall", "share") else math.inf
            value = _number(f"Threshold, {self.how}", self.value, above=0.0, upper=upper, at=self.how == "fixed")
            object.__setattr__(self, "value", value)

    @classmethod
    def cost(cls, *, false_positive: float = 1.0, false_negative: float = 1.0) -> Threshold:
        """The least cost."""
        return cls("cost", None, false_positive, false_negative)

    @classmethod
    def precision(cls, least: float, **costs: float) -> Threshold:
        """The most recall with a precision of at least so much."""
        return cls("precision", least, **costs)

    @classmethod
    def recall(cls, least: float, **costs: float) -> Threshold:
        """The most precision with a recall of at least so much."""
        return cls("recall", least, **costs)

    @classmethod
    def alarms(cls, per_day: float, **costs: float) -> Threshold:
        """The most recall with at most so many yes a day."""
        return cls("alarms", per_day, **costs)

    @classmethod
    def capacity(cls, share: float | None = None, *, rows: int | None = None, **costs: float) -> Threshold:
        """At most this share of the validation rows, or so many of them."""
        if (rows is None) == (share is None) or (isinstance(share, int | float) and share > 1):
            remedy = "Write Threshold.capacity(share=0.05)" + ("" if share is None else ", or rows=100 for a number")
            raise DefinitionError("a capacity must be rows or a share up to 1", where="Threshold", got=(rows, share),
                                  remedy=remedy)  # fmt: skip
        return cls("share" if rows is None else "rows", share if rows is None else rows, **costs)

    @classmethod
    def fixed(cls, value: float, **costs: float) -> Threshold:
        """A threshold decided elsewhere; its cost is measured."""
        return cls("fixed", value, **costs)

    def choose(
        self, scores: Any, labels: Any, *, weights: Any = None, days: float | None = None, decided: Any = None,
        total: int | None = None, seed: int = 0,
    ) -> Cutoff:  # fmt: skip
        """Choose on validation rows.

        Parameters
        ----------
        scores, labels : arrays of shape (n,)
            Calibrated scores and outcomes (0 or 1).
        weights : array of shape (n,), optional
        days : float, optional
            Time that the rows span, for alarms a day.
        decided : array, optional
            Scores of the rows that alarms are counted of: all of these days, also those without an outcome yet.
        total : int, optional
            How many they are, where ``decided`` is a sample of them.
        seed : int, default 0
            Of the bootstrap of the cost.
        """
        from retrodict.estimators import thresholds

        shared: dict[str, Any] = {"false_positive": self.false_positive, "false_negative": self.false_negative,
                                  "weights": weights, "seed": seed}  # fmt: skip
        match self.how:
            case "cost":
                return thresholds.cut_by_cost(scores, labels, **shared)
            case "rows" | "share":
                limit = {self.how: int(self.value or 0) if self.how == "rows" else self.value}
                return thresholds.cut_by_capacity(scores, labels, **limit, **shared)  # type: ignore[arg-type]
            case "alarms" if days is None:
                reason = "No day to count alarms of: the validation rows are of one moment."
                return thresholds.Cutoff(None, reached=False, reason=reason)
            case "alarms":
                return thresholds.cut_by_constraint(scores, labels, alarms_per_day=self.value, days=days,
                                                    decided=decided, total=total, **shared)  # fmt: skip
            case "fixed":
                return thresholds.cut_at(scores, labels, float(self.value or 0.0), **shared)
            case _:
                return thresholds.cut_by_constraint(scores, labels, **{self.how: self.value}, **shared)  # type: ignore[arg-type]
