"""Bring numbers to one scale by statistics that merge: one fit, many partitions, any order, the same scale.

``StandardScaler.partial_fit`` adds up in doubles and depends on the order of the batches; ``MinMaxScaler`` and
``RobustScaler`` have no way to put two fitted ones together. Here the state is a mergeable statistic per column, from
which the scale is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from retrodict.core.errors import InputError, IntegrityError, check_known
from retrodict.core.statistics.moments import Moments
from retrodict.core.statistics.quantiles import QuantileSketch
from retrodict.estimators._tables import (
    EMPTY,
    NUMBER,
    ColumnTable,
    check_kind,
    check_value,
    read_input,
    set_columns,
    value_of,
)

__all__ = ["Normaliser"]

_METHODS = ("min_max", "robust", "standard")
_WHERE = "normaliser"

Statistic = Moments | QuantileSketch


@dataclass(frozen=True, slots=True)
class _Scaled:
    """One column: its statistic, and ``(value - centre) / scale``."""

    column: str
    kind: str
    statistic: Statistic | None
    centre: float
    scale: float


class Normaliser(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Scale each column of numbers; columns of text and times pass through unchanged.

    ============  =====================================  ==========================================================
    method        a value becomes                        from 1 or N partitions
    ============  =====================================  ==========================================================
    ``standard``  ``(x - mean) / std``, ddof 0           equal to 1e-12, relative, in any order
    ``min_max``   ``(x - min) / (max - min)``            equal to the bit
    ``robust``    ``(x - median) / (q75 - q25)``         equal up to ``k`` values, then within the rank error of the
                                                         sketch, which ``rank_error_`` states as a share of the rows
    ============  =====================================  ==========================================================

    A column without spread is divided by 1. Missing values stay missing.

    Parameters
    ----------
    method : {"standard", "min_max", "robust"}, default "standard"
    k : int, default 1024
        Size of the quantile sketch of ``robust``.

    Attributes
    ----------
    centre_, scale_ : float64 array of shape (columns,)
        What is taken off, and what is divided by; 0 and 1 for columns that pass through.
    rank_error_ : float
        Largest share of rows by which a quantile of ``robust`` may be off; 0 for the other methods.

    Examples
    --------
    >>> import numpy as np
    >>> left, right = np.array([[1.0], [2.0]]), np.array([[6.0], [7.0]])
    >>> whole = Normaliser().fit(np.vstack((left, right)))
    >>> parts = Normaliser().fit(left).merge(Normaliser().fit(right))
    >>> parts.centre_.tolist() == whole.centre_.tolist() == [4.0]
    True
    >>> Normaliser("min_max").fit(left).transform_one({"x0": 1.5})
    {'x0': 0.5}
    """

    def __init__(self, method: str = "standard", *, k: int = 1024) -> None:
        self.method = method
        self.k = k

    def fit(self, X: Any, y: Any = None) -> Normaliser:  # noqa: N803, ARG002 - the names of scikit-learn
        """Learn the scale of one table.

        Raises
        ------
        InputError
            If the method is unknown, or a column has an infinite value.
        """
        check_known(self.method, _METHODS, "a method must be one that exists", where=_WHERE, what="method",
                    error=InputError)  # fmt: skip
        table = read_input(self, X, _WHERE)
        kinds = {name: NUMBER if kind == EMPTY else kind for name, kind in table.kinds.items()}
        self._learn(self._statistics(table, kinds), kinds)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Normaliser:  # noqa: N803, ARG002
        """Learn from one more table; the same as one fit over all of them."""
        if not hasattr(self, "scaled_"):
            return self.fit(X)
        kinds = self._kinds
        self._learn(self._merged(self._statistics(read_input(self, X, _WHERE, kinds), kinds)), kinds)
        return self

    def merge(self, other: Normaliser) -> Normaliser:
        """One normaliser for the rows of both; neither is changed.

        Raises
        ------
        InputError
            If the two differ in method, ``k`` or columns.
        """
        check_is_fitted(self, "scaled_")
        check_is_fitted(other, "scaled_")
        kinds, others = self._kinds, other._kinds
        if (self.method, self.k, kinds) != (other.method, other.k, others):
            raise InputError("normalisers to merge must have one method, one k and the same columns", where=_WHERE,
                             got=f"{self.method}, {len(kinds)} columns and {other.method}, {len(others)} columns",
                             remedy="Fit both alike")  # fmt: skip
        normaliser = Normaliser(self.method, k=self.k)
        set_columns(normaliser, list(kinds), has_names=hasattr(self, "feature_names_in_"))
        normaliser._learn(self._merged({feature.column: feature.statistic for feature in other.scaled_}), kinds)
        return normaliser

    @property
    def _kinds(self) -> dict[str, str]:
        return {feature.column: feature.kind for feature in self.scaled_}

    def _statistics(self, table: ColumnTable, kinds: Mapping[str, str]) -> dict[str, Statistic | None]:
        def of(column: Any) -> Statistic:
            return QuantileSketch.of(column, k=self.k) if self.method == "robust" else Moments.of(column)

        return {name: of(table.columns[name]) if kind == NUMBER else None for name, kind in kinds.items()}

    def _merged(self, others: Mapping[str, Any]) -> dict[str, Statistic | None]:
        # Both of one method, so both of one type.
        return {f.column: f.statistic and f.statistic.merge(others[f.column]) for f in self.scaled_}

    def _learn(self, statistics: Mapping[str, Statistic | None], kinds: Mapping[str, str]) -> None:
        self.scaled_ = [
            _Scaled(name, kinds[name], statistic, *_scale(self.method, statistic))
            for name, statistic in statistics.items()
        ]
        self._unlearned = next((feature.column for feature in self.scaled_ if math.isnan(feature.centre)), None)
        self.centre_ = np.array([feature.centre for feature in self.scaled_])
        self.scale_ = np.array([feature.scale for feature in self.scaled_])
        sketches = [sketch for sketch in statistics.values() if isinstance(sketch, QuantileSketch) and sketch.count]
        self.rank_error_ = max((sketch.rank_error / sketch.count for sketch in sketches), default=0.0)

    def _check_learned(self) -> None:
        check_is_fitted(self, "scaled_")
        if self._unlearned is not None:
            raise InputError("a column must have a value in the training rows, to learn from",
                             where=f"{_WHERE}, column {self._unlearned!r}", got="only missing values",
                             remedy="Leave the column out, or merge a part that has values")  # fmt: skip

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Scale a table; the kind of table given is the kind that comes back.

        Raises
        ------
        InputError
            If a column is absent, of another kind or infinite, or a column of numbers had no value when fitted.
        """
        return self._apply(X, lambda column, feature: (column - feature.centre) / feature.scale)

    def inverse_transform(self, X: Any) -> Any:  # noqa: N803
        """Undo ``transform``."""
        return self._apply(X, lambda column, feature: column * feature.scale + feature.centre)

    def _apply(self, data: Any, change: Any) -> Any:
        self._check_learned()
        table = read_input(self, data, _WHERE, self._kinds)
        changed = {}
        for feature in self.scaled_:
            column = table.columns[feature.column]
            changed[feature.column] = change(column, feature) if feature.kind == NUMBER else column
        return table.write(changed)

    def transform_one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Scale one row, in plain Python: the same bits as ``transform``; None and NaN stay.

        Raises
        ------
        InputError
            If a column is absent or a value is not a finite number.
        """
        self._check_learned()
        scaled: dict[str, Any] = {}
        for feature in self.scaled_:
            value = value_of(row, feature.column, _WHERE)
            if feature.kind == NUMBER and value is not None:
                number = check_value(value, NUMBER, f"{_WHERE}, column {feature.column!r}")
                value = (number - feature.centre) / feature.scale
            scaled[feature.column] = value
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, with the statistics, so that what was read can be merged further."""
        check_is_fitted(self, "scaled_")
        columns: Sequence[dict[str, Any]] = [
            {
                "column": feature.column,
                "kind": feature.kind,
                "statistic": feature.statistic and feature.statistic.to_dict(),
            }
            for feature in self.scaled_
        ]
        has_names = hasattr(self, "feature_names_in_")
        return {"kind": "normaliser", "method": self.method, "k": self.k, "named": has_names, "columns": columns}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Normaliser:
        """Inverse of ``to_dict``.

        Raises
        ------
        IntegrityError
            If the body is not one of ``to_dict``.
        """
        check_kind(body, "normaliser", _WHERE)
        check_known(body["method"], _METHODS, "a stored normaliser must have a method that exists", where=_WHERE,
                    what="method", error=IntegrityError)  # fmt: skip
        normaliser = cls(body["method"], k=body["k"])
        reader: Any = QuantileSketch if normaliser.method == "robust" else Moments
        kinds = {column["column"]: column["kind"] for column in body["columns"]}
        set_columns(normaliser, list(kinds), has_names=body["named"])
        normaliser._learn(
            {c["column"]: c["statistic"] and reader.from_dict(c["statistic"]) for c in body["columns"]}, kinds
        )
        return normaliser

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _scale(method: str, statistic: Statistic | None) -> tuple[float, float]:
    if statistic is None:
        return 0.0, 1.0
    low, high = statistic.minimum, statistic.maximum
    if low is None or high is None:
        return math.nan, 1.0  # a partition may lack what another has: refused when it is used, not when it is learned
    if isinstance(statistic, QuantileSketch):
        quarter, centre, three = statistic.quantiles([0.25, 0.5, 0.75]).tolist()
        scale = three - quarter
    elif method == "standard":
        centre, scale = statistic.mean or 0.0, statistic.std(ddof=0) or 0.0
    else:
        centre, scale = low, high - low
    return centre, scale or 1.0
