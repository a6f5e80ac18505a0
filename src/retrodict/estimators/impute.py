"""Missing values of the matrix: the strategies of ``MissingData``, as a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._operations import Fill, Flag, Matrix, Operation, Take
from retrodict.estimators.missing_data import MissingData
from retrodict.estimators.steps import Step, weighted_quantile

__all__ = ["Imputer"]

_STRATEGIES = ("auto", "constant", "iterative", "keep", "knn", "mean", "median", "mode")


class Imputer(Step):
    """Fill what is missing, by values of the training rows.

    Every column that the step works on gets a value, also one without a missing value in training; a column without any
    value in training is filled with 0, which ``report_`` says. Indicators are settled by the training rows.

    Parameters
    ----------
    strategy : {"auto", "mean", "median", "mode", "constant", "knn", "iterative", "keep"}, default "median"
        As in :class:`~retrodict.estimators.missing_data.MissingData`; ``keep`` only adds the indicators. Categories,
        where named, take ``mode``, ``constant`` or ``keep``.
    columns : sequence of int, optional
        None: all numbers.
    categorical : sequence of int, default ()
    indicators : {"auto", True, False}, default "auto"
        Columns that say where a value was missing: for the columns with missing values in training, all, or none.
    constant : float, default 0.0
    neighbours, iterations : int, default 5 and 10
        Of ``knn`` and ``iterative``.

    Examples
    --------
    >>> step = Imputer("mean").fit([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    >>> step.transform_row([np.nan, np.nan]), step.get_feature_names_out().tolist()
    ([2.0, 6.0, 1.0], ['x0', 'x1', 'missingindicator_x0'])
    """

    kind: ClassVar[str] = "imputer"

    def __init__(
        self,
        strategy: str = "median",
        *,
        columns: Sequence[int] | None = None,
        categorical: Sequence[int] = (),
        indicators: bool | str = "auto",
        constant: float = 0.0,
        neighbours: int = 5,
        iterations: int = 10,
    ) -> None:
        self.strategy = strategy
        self.columns = columns
        self.categorical = categorical
        self.indicators = indicators
        self.constant = constant
        self.neighbours = neighbours
        self.iterations = iterations

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:  # noqa: ARG002
        check_known(self.strategy, _STRATEGIES, "a strategy must be one that exists", where=self._where,
                    what="strategy", error=InputError)  # fmt: skip
        places = self._numbers()
        if (codes := set(places) & set(self.categorical)) and self.strategy not in ("constant", "keep", "mode"):
            raise InputError("a category must be filled by mode or constant, or kept", where=self._where,
                             got=(self.strategy, sorted(codes)),
                             remedy="Give categories a step of their own: Impute('mode', [...])")  # fmt: skip
        missing = np.isnan(matrix)
        empty = [place for place in places if missing[:, place].all()]
        usable = [place for place in places if place not in set(empty)]
        fills = dict.fromkeys(empty, self.constant if self.strategy == "constant" else 0.0)
        flagged = [place for place in places if missing[:, place].any() or self.indicators is True]
        if self.strategy != "keep":
            fills.update(self._fills(matrix, usable, weights))
        self.report_ = {"strategy": self.strategy, "empty": empty, "indicators": flagged if self.indicators else []}
        for place in range(matrix.shape[1]):
            if place in fills and self.strategy != "keep":
                yield Fill(place, fills[place])
            elif self.blocks_ and place in self.blocks_[0][0]:
                yield Take(matrix.shape[1] + self.blocks_[0][0].index(place))
            else:
                yield Take(place)
        for place in flagged if self.indicators else ():
            yield Flag(place)

    def _fills(self, matrix: Matrix, places: list[int], weights: Any) -> Iterable[tuple[int, float]]:
        """Fixed value per place; none for the strategies that compute one per row, which become a block."""
        if not places:
            return ()
        if weights is not None and self.strategy in ("mean", "median", "mode"):
            return [(place, self._weighted(matrix[:, place], weights)) for place in places]
        data = MissingData(self.strategy, indicators=self.indicators, constant=self.constant,
                           neighbours=self.neighbours, iterations=self.iterations).fit(matrix[:, places])  # fmt: skip
        if block := data.neighbours_ or data.chain_:
            self.blocks_ = ((tuple(places), block),)
            return ()
        return [(place, float(filling.value or 0.0)) for place, filling in zip(places, data.fillings_, strict=True)]

    def _weighted(self, column: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        present = ~np.isnan(column)
        values, shares = column[present], weights[present]
        if self.strategy == "mean":
            # About the first value, so that a large common part costs no digits.
            return float(values[0] + np.average(values - values[0], weights=shares))
        if self.strategy == "median":
            return weighted_quantile(values, shares, 0.5)
        distinct, inverse = np.unique(values, return_inverse=True)
        return float(distinct[np.bincount(inverse, weights=shares).argmax()])
