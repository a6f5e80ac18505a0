"""Fill what is missing: one transformer for whole tables and single rows, whose report says what became of what.

``SimpleImputer``, ``KNNImputer`` and ``IterativeImputer`` in a ``ColumnTransformer`` would do for training. They do not
choose, do not tell, are saved as pickles, take a millisecond for one row, and with default settings drop columns and
keep silent about a column that had no missing value when they were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._carrier import Carrier
from retrodict.estimators._neighbours import DonorChain, Neighbours
from retrodict.estimators._strategies import Choice, Filling, report
from retrodict.estimators._tables import (
    EMPTY,
    NUMBER,
    ColumnTable,
    check_kind,
    check_value,
    is_missing,
    read_input,
    set_columns,
    value_of,
)

__all__ = ["Filling", "MissingData"]

_PREFIX = "missingindicator_"  # as in scikit-learn
_WHERE = "missing data"


class MissingData(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fill missing values by one strategy per column, learned from the training rows only.

    ======================  ==========================================================================================
    ``auto``                numbers: median if ``abs(skewness) > skew_limit``, else mean; text: mode; times: keep
    ``mean``, ``median``    of the training rows
    ``mode``                most frequent training value, of equally frequent ones the smallest
    ``constant``            a fixed value
    ``knn``                 mean of the nearest training rows; the columns with this word make up the distance
    ``iterative``           chained regressions (MICE) among the columns with this word
    ``forward_fill``        last value of the same group, in the order of time; else median or mode
    ``drop``                the row is left out of a table; a single row is refused
    ``keep``                missing stays missing
    ======================  ==========================================================================================

    Parameters
    ----------
    strategy : str or dict of str to str, default "auto"
        One word for all columns, or a word per column; columns not named are ``auto``.
    indicators : {"auto", True, False}, default "auto"
        Columns ``missingindicator_<column>`` that say where a value was missing: for the columns with missing values in
        training, for all, or for none. A column with the strategy ``drop`` has none.
    constant : float, str or dict, optional
        Value of ``constant``, for all or per column; None is 0 for numbers and ``"missing"`` for text.
    skew_limit : float, default 1.0
        Largest absolute skewness (``scipy.stats.skew``) at which ``auto`` takes the mean.
    neighbours : int, default 5
        Rows that ``knn`` averages. Distances are in the units of the columns: normalise first.
    iterations : int, default 10
        Most rounds of ``iterative``.
    groups : str or sequence of str, optional
        Columns that make up the group of ``forward_fill``; None is one group. They are not filled themselves.
    time : str, optional
        Column of numbers or times that orders ``forward_fill``; None is the order of the rows, and then nothing is
        carried from training into later rows. It is not filled itself.

    Attributes
    ----------
    report_ : list of dict
        Per column: missing values and share in training, strategy, reason, value.
    unseen_missing_ : dict of str to int
        Missing values met since fitting in columns that had none in training; they are filled all the same. Counted
        without a lock: with several threads a few may go uncounted.
    kept_ : bool array or None
        Rows that the last ``transform`` of a table kept; None unless a column has the strategy ``drop``.

    Notes
    -----
    Takes and gives NumPy arrays, pandas, Arrow and Polars tables; columns are found by name, their order is free.
    Numbers come out as floats, other columns than those of ``keep`` and ``drop`` without a missing value (but for times
    that have nothing before them); those two come out as they went in.

    Examples
    --------
    >>> import numpy as np
    >>> data = MissingData().fit(np.array([[1.0, 0.0], [2.0, 0.0], [np.nan, 0.0], [3.0, 99.0]]))
    >>> data.transform_one({"x0": None, "x1": 7.0})
    {'x0': 2.0, 'x1': 7.0, 'missingindicator_x0': True}
    >>> print(data.report())
    column  missing  strategy          filled with  why
    x0      25.0%    mean + indicator  2            skewness 0, within 1
    x1      0.0%     median            0            skewness 1.15, beyond 1
    """

    def __init__(
        self,
        strategy: str | Mapping[str, str] = "auto",
        *,
        indicators: bool | str = "auto",
        constant: Any = None,
        skew_limit: float = 1.0,
        neighbours: int = 5,
        iterations: int = 10,
        groups: str | Sequence[str] | None = None,
        time: str | None = None,
    ) -> None:
        self.strategy = strategy
        self.indicators = indicators
        self.constant = constant
        self.skew_limit = skew_limit
        self.neighbours = neighbours
        self.iterations = iterations
        self.groups = groups
        self.time = time

    def fit(self, X: Any, y: Any = None) -> MissingData:  # noqa: N803, ARG002 - the names of scikit-learn
        """Learn from the training rows.

        Parameters
        ----------
        X : table of shape (n, columns)
        y : ignored

        Raises
        ------
        InputError
            If a word or column is unknown, a word does not fit the kind of its column, a column to learn from has no
            value, or a number is infinite.
        """
        table = read_input(self, X, _WHERE)
        choice = Choice(self.strategy, self.indicators, self.constant, self.skew_limit)
        choice.check(list(table.columns))
        kinds = {name: NUMBER if kind == EMPTY else kind for name, kind in table.kinds.items()}
        ordering = self._ordering()
        for name in ordering:
            check_known(name, table.columns, "groups and time must be columns of the table",
                        where=f"{_WHERE}, groups and time", what="column", error=InputError)  # fmt: skip
        fillings = []
        for name, column in table.columns.items():
            if name in ordering:
                role = "orders rows" if name == self.time else "groups rows"
                count = int(is_missing(column).sum())
                fillings.append(Filling(name, kinds[name], "keep", role, None, count, table.rows, indicator=False))
            else:
                fillings.append(choice.filling(name, column, kinds[name]))
        self.fillings_: list[Filling] = fillings
        self._fit_blocks(table)
        self._prepare()
        return self

    def _ordering(self) -> tuple[str, ...]:
        groups = (self.groups,) if isinstance(self.groups, str) else tuple(self.groups or ())
        return groups if self.time is None else (*groups, self.time)

    def _fit_blocks(self, table: ColumnTable) -> None:
        self.neighbours_: Neighbours | None = None
        self.chain_: DonorChain | None = None
        self.carrier_: Carrier | None = None
        knn, iterative, carried = (self._named(word) for word in ("knn", "iterative", "forward_fill"))
        if knn:
            if self.neighbours < 1:
                raise InputError("knn must average at least one row", where=_WHERE, got=self.neighbours,
                                 remedy="Pass neighbours=5")  # fmt: skip
            self.neighbours_ = Neighbours(knn, _matrix(table.columns, knn), self.neighbours)
        if iterative:
            self.chain_ = DonorChain.fit(iterative, _matrix(table.columns, iterative), self.iterations)
        if carried:
            ordering = self._ordering()
            groups = ordering if self.time is None else ordering[:-1]
            self.carrier_ = Carrier.fit(table, carried, groups, self.time)

    def _named(self, word: str) -> tuple[str, ...]:
        return tuple(filling.column for filling in self.fillings_ if filling.strategy == word)

    def _prepare(self) -> None:
        """Set what is derived from the fillings; after fitting and after reading."""
        self.report_ = [filling.to_dict() for filling in self.fillings_]
        self.unseen_missing_: dict[str, int] = {}
        self.kept_: NDArray[np.bool_] | None = None
        self._by_name = {filling.column: filling for filling in self.fillings_}
        self._marked = tuple((f.column, _PREFIX + f.column) for f in self.fillings_ if f.indicator)

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Fill a table.

        Parameters
        ----------
        X : table with the columns of training

        Returns
        -------
        table
            Of the kind given, with the indicators last. Rows are left out only by the strategy ``drop``; ``kept_`` says
            which were kept.

        Raises
        ------
        InputError
            If a column is absent or of another kind than in training, or a number is infinite.
        """
        check_is_fitted(self, "fillings_")
        table = read_input(self, X, _WHERE, {name: filling.kind for name, filling in self._by_name.items()})
        missing = {name: is_missing(column) for name, column in table.columns.items()}
        filled = {name: self._filled(column, missing[name], name) for name, column in table.columns.items()}
        self._fill_blocks(table, filled, missing)
        filled.update({title: missing[name] for name, title in self._marked})
        dropped = [missing[name] for name in self._named("drop")]
        if not dropped:
            return table.write(filled)
        self.kept_ = ~np.logical_or.reduce(dropped)
        return table.write(filled, self.kept_)

    def _filled(self, column: NDArray[Any], missing: NDArray[np.bool_], name: str) -> NDArray[Any]:
        filling = self._by_name[name]
        count = int(missing.sum())
        if count and not filling.missing:
            self.unseen_missing_[name] = self.unseen_missing_.get(name, 0) + count
        if filling.strategy in ("keep", "drop"):
            return column
        column = column.copy()
        if count and filling.value is not None and filling.strategy in ("constant", "mean", "median", "mode"):
            column[missing] = filling.value
        return column

    def _fill_blocks(self, table: ColumnTable, filled: dict[str, Any], missing: dict[str, NDArray[np.bool_]]) -> None:
        for block in (self.neighbours_, self.chain_):
            if block is not None and any(missing[name].any() for name in block.columns):
                values = block.fill(_matrix(table.columns, block.columns))
                filled.update({name: values[:, place] for place, name in enumerate(block.columns)})
        if self.carrier_ is not None:
            self.carrier_.fill(table, filled)
            for name in self.carrier_.columns:
                value, rest = self._by_name[name].value, is_missing(filled[name])
                if value is not None and rest.any():
                    filled[name][rest] = value

    def transform_one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Fill one row, in plain Python: what ``transform`` gives for a table of this row alone.

        Parameters
        ----------
        row : mapping of column to value
            None and NaN are missing; a column that is absent is an error, as it may be misspelt. Others are ignored.

        Returns
        -------
        dict
            Columns as in training, then the indicators as True and False.

        Raises
        ------
        InputError
            If a column is absent, a value is of another kind, or the column has the strategy ``drop``.
        """
        if not hasattr(self, "_by_name"):  # check_is_fitted alone would take longer than the row
            check_is_fitted(self, "fillings_")
        filled: dict[str, Any] = {}
        absent_fillings: list[Filling] = []
        for name, filling in self._by_name.items():
            value = value_of(row, name, _WHERE)
            try:
                absent = value is None or bool(value != value)  # noqa: PLR0124 - NaN
            except (TypeError, ValueError):  # no truth: the null of pandas, or an array, which is refused below
                absent = repr(value) == "<NA>"
            if absent:
                absent_fillings.append(filling)
                value = filling.value
            elif type(value) is not float or value - value != 0.0:  # also true of infinities
                value = check_value(value, filling.kind, f"{_WHERE}, column {name!r}")
            filled[name] = value
        if absent_fillings:
            self._fill_absent(row, filled, absent_fillings)
        if self._marked:
            lacking = {filling.column for filling in absent_fillings}
            for name, title in self._marked:
                filled[title] = name in lacking
        return filled

    def _fill_absent(self, row: Mapping[str, Any], filled: dict[str, Any], absent_fillings: list[Filling]) -> None:
        blocks: dict[str, Neighbours | DonorChain | None] = {"knn": self.neighbours_, "iterative": self.chain_}
        done: set[str] = set()
        for filling in absent_fillings:
            name, word = filling.column, filling.strategy
            if word == "drop":
                raise InputError("a single row must not be dropped", where=f"{_WHERE}, column {name!r}",
                                 got="a missing value",
                                 remedy="Send the value, or fit with another strategy for this column")  # fmt: skip
            if not filling.missing:
                self.unseen_missing_[name] = self.unseen_missing_.get(name, 0) + 1
            block = blocks.get(word)
            if block is not None and word not in done:
                done.add(word)
                absent = {other.column for other in absent_fillings}
                values_of_row = [np.nan if other in absent else filled[other] for other in block.columns]
                values = block.fill(np.array([values_of_row], dtype=np.float64))[0]
                filled.update(zip(block.columns, values.tolist(), strict=True))
            elif word == "forward_fill" and self.carrier_ is not None:
                carried = self.carrier_.fill_one(row, name)
                filled[name] = filling.value if carried is None else carried

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the columns that come out."""
        check_is_fitted(self, "fillings_")
        names = _check_feature_names_in(self, input_features)
        marked = [_PREFIX + name for name, filling in zip(names, self.fillings_, strict=True) if filling.indicator]
        return np.array([*names, *marked], dtype=object)

    def report(self) -> str:
        """What was filled with what, as a table for people."""
        check_is_fitted(self, "fillings_")
        return report(self.fillings_)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; arrays as base64 of their bytes, no pickle."""
        check_is_fitted(self, "fillings_")
        states = {"neighbours": self.neighbours_, "chain": self.chain_, "carrier": self.carrier_}
        return {
            "kind": "missing_data",
            "parameters": self.get_params(deep=False),
            "named": hasattr(self, "feature_names_in_"),
            "columns": [filling.to_dict() for filling in self.fillings_],
            **{name: None if state is None else state.to_dict() for name, state in states.items()},
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> MissingData:
        """Inverse of ``to_dict``.

        Raises
        ------
        IntegrityError
            If the body is not one of ``to_dict``.
        """
        check_kind(body, "missing_data", _WHERE)
        restored = cls(**body["parameters"])
        restored.fillings_ = [Filling.from_dict(column) for column in body["columns"]]
        set_columns(restored, [filling.column for filling in restored.fillings_], has_names=body["named"])
        restored.neighbours_ = body["neighbours"] and Neighbours.from_dict(body["neighbours"])
        restored.chain_ = body["chain"] and DonorChain.from_dict(body["chain"])
        restored.carrier_ = body["carrier"] and Carrier.from_dict(body["carrier"])
        restored._prepare()
        return restored

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _matrix(columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[np.float64]:
    return np.column_stack([columns[name] for name in names]).astype(np.float64)
