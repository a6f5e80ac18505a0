"""Anything of scikit-learn behind one engine: stored by skops, one row compiled where it can be.

A batch is scikit-learn's own call. One row goes through a function that was compiled from the fitted object (see
``scalar``) and compared with the object when it was made; where there is none, or the two differ, the object is asked
for a table of one row, which is slow and said by :meth:`SklearnEngine.describe`.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, MissingExtraError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.estimators._skops import content_digest, dump_sklearn, load_sklearn
from retrodict.models._logistic import logit, logits, sigmoid, sigmoids, softmax
from retrodict.models.engines.base import check_matrix, check_row
from retrodict.models.engines.scalar import Row, UncompiledError
from retrodict.models.engines.scalar_models import compile_predictor

__all__ = ["Reading", "SklearnEngine", "read_table"]

_MODELS, _READING = "models.skops", "engine.json"
# The greatest float32: trees of scikit-learn compare in it, and refuse what lies beyond.
_LIMIT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows go into the objects, and how what they give becomes outputs.

    Attributes
    ----------
    target : Target
    width : int
        Number of features.
    method : str
        ``predict_proba``, ``decision_function``, ``predict`` or ``score_samples``.
    columns : tuple of (str, tuple), optional
        Names of the columns, with the vocabulary of each category (empty: a number), where the objects read a table;
        None: they read the matrix.
    ranks : tuple of float
        Ascending scores of training rows, by which an anomaly's place among them is told; empty for no such thing.
    exact : bool
        Whether one row is equal to a batch bit for bit.
    """

    target: Target
    width: int
    method: str
    columns: tuple[tuple[str, tuple[Any, ...]], ...] | None = None
    ranks: tuple[float, ...] = ()
    exact: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**asdict(self), "target": self.target.to_dict()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        columns = body["columns"]
        return cls(**{
            **body, "target": Target.from_dict(body["target"]), "ranks": tuple(body["ranks"]),
            "columns": None if columns is None else tuple((name, tuple(words)) for name, words in columns),
        })  # fmt: skip


class SklearnEngine:
    """Fitted objects of scikit-learn: one, or one per quantile.

    Parameters
    ----------
    models : sequence of object
        Fitted estimators or Pipelines.
    reading : Reading
    data : bytes, optional
        The models as stored; None: they are stored now, so that what cannot be is refused now.

    Raises
    ------
    DefinitionError
        If the models hold something that cannot be stored without pickle.
    """

    kind: ClassVar[str] = "sklearn"

    def __init__(self, models: Sequence[Any], reading: Reading, data: bytes | None = None) -> None:
        self.models, self.reading = tuple(models), reading
        self._data = dump_sklearn(list(models)) if data is None else data
        self._rows, self._slow = _row_functions(self)

    @property
    def exact_rows(self) -> bool:
        """Whether one row is scored bit for bit as in a batch."""
        return self.reading.exact or bool(self.reading.ranks)

    @property
    def explains(self) -> bool:
        """No: there are no exact contributions."""
        return False

    @property
    def target(self) -> Target:
        """What the scores are."""
        return self.reading.target

    @property
    def width(self) -> int:
        """Number of features."""
        return self.reading.width

    @cached_property
    def _codes(self) -> list[int]:
        """Places of the outputs of several classes: the training rows may have lacked one."""
        return [int(code) for code in self.models[0].classes_.tolist()]

    def describe(self) -> dict[str, Any]:
        """What it is and how one row is scored, in words."""
        last = self.models[0]
        return {
            "class": type(last.steps[-1][1] if hasattr(last, "steps") else last).__name__,
            "one_row": "compiled" if self._rows else f"the object itself, slow: no row function for {self._slow}",
        }  # fmt: skip

    def copies(self) -> list[Any]:
        """The fitted objects, read anew, for a fit to go on from: those that answer are never changed."""
        return list(load_sklearn(self._data))

    def raw(self, matrix: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """What the method of each object gives, each of shape (n, k)."""
        table = read_table(self.reading.columns, matrix)
        with np.errstate(all="ignore"):  # what overflows is as it is, in a batch as in one row
            values = [np.asarray(getattr(model, self.reading.method)(table), np.float64) for model in self.models]
        return [value[:, None] if value.ndim == 1 else value for value in values]

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        check_matrix(matrix, self.width)
        count = self.target.columns
        if not len(matrix):
            return np.empty(0 if count == 1 else (0, count))
        if self.reading.ranks and self._rows and not self.reading.exact:
            # A rank is a step: the last bit of a sum may move it, so a batch goes the way of its rows.
            return np.array([self.score_row(row) for row in matrix])
        values = self.raw(matrix)
        first, task = values[0], self.target.task
        if task == "quantile":
            return np.sort(np.hstack(values), axis=1)
        if task == "multiclass":
            shares = np.array([softmax(line) for line in first.tolist()]) if self._margins else first
            out = np.zeros((len(matrix), count))
            out[:, self._codes] = shares
            return out
        last = np.ascontiguousarray(first[:, -1])
        if self.reading.ranks:
            return np.array([self._rank(value) for value in last.tolist()])
        if task == "binary" and self._margins:
            return sigmoids(last)
        return np.maximum(last, 0.0) if task == "count" else last

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row: a number, or a tuple of several."""
        check_row(row, self.width)
        if not self._rows:
            out = self.scores(row[None, :])[0]
            return float(out) if self.target.columns == 1 else tuple(out.tolist())
        values = self._values(row)
        if self.target.task == "quantile":
            return tuple(sorted([function(values)[-1] for function in self._rows]))
        first, task = self._rows[0](values), self.target.task
        if task == "multiclass":
            shares = softmax(first) if self._margins else first
            out = [0.0] * self.target.columns
            for code, share in zip(self._codes, shares, strict=True):
                out[code] = share
            return tuple(out)
        if self.reading.ranks:
            return self._rank(first[-1])
        if task == "binary" and self._margins:
            return sigmoid(first[-1])
        return max(first[-1], 0.0) if task == "count" else first[-1]

    @property
    def _margins(self) -> bool:
        return self.reading.method == "decision_function"

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of a yes; of other tasks the outputs themselves."""
        scores = self.scores(matrix)
        return logits(scores) if self.target.task == "binary" else scores

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Log-odds of one row, or its outputs."""
        score = self.score_row(row)
        return logit(score) if self.target.task == "binary" else score

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002  # as the contract has it
        """Raise InputError: there are none."""
        raise InputError("an engine must have exact contributions to explain a row", where=self.describe()["class"],
                         got="none", remedy="Look at explains first, or use an estimator that explains")  # fmt: skip

    def _rank(self, value: float) -> float:
        """Share of the training rows that are less odd: whose score is higher."""
        # A hair more: the last bit of a sum must not move a value across the training row that it equals.
        value += 1e-9 * max(abs(value), 1.0)
        return 1.0 - bisect.bisect_right(self.reading.ranks, value) / len(self.reading.ranks)

    def _values(self, row: NDArray[np.float64]) -> Row:
        values = [x if -_LIMIT <= x <= _LIMIT else max(min(x, _LIMIT), -_LIMIT) for x in row.tolist()]
        for at, words in self._vocabularies:
            value = values[at]
            values[at] = words[int(value)] if 0 <= value < len(words) else np.nan
        return values

    @cached_property
    def _vocabularies(self) -> list[tuple[int, tuple[Any, ...]]]:
        return [(at, words) for at, (_, words) in enumerate(self.reading.columns or ()) if words]

    def parts(self) -> Mapping[str, bytes]:
        """The objects in the format of skops, and how they are read."""
        return {_MODELS: self._data, _READING: canonical_json(self.reading.to_dict())}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> SklearnEngine:
        """Read what :meth:`parts` gave."""
        reading = Reading.from_dict(json.loads(parts[_READING]))
        return cls(load_sklearn(parts[_MODELS]), reading, parts[_MODELS])

    def fingerprint(self) -> str:
        """SHA-256 of all that the objects hold."""
        return digest(content_digest(self._data).encode() + self.parts()[_READING])


def read_table(columns: Sequence[tuple[str, tuple[Any, ...]]] | None, matrix: NDArray[np.float64]) -> Any:
    """Matrix within float32, or a data frame of it with texts for codes, and NaN for what is missing or unseen.

    Parameters
    ----------
    columns : sequence of (str, tuple), optional
        See :class:`Reading`; None for the matrix.
    matrix : ndarray of shape (n, width)

    Raises
    ------
    MissingExtraError
        If there are columns and pandas is not installed.
    """
    matrix = np.clip(matrix, -_LIMIT, _LIMIT)
    if columns is None:
        return matrix
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("pandas", "pandas", needed_for="a Pipeline over columns") from error
    series = {}
    for (name, words), values in zip(columns, matrix.T, strict=True):
        if words:
            table = np.empty(len(words) + 1, dtype=object)
            table[:-1], table[-1] = words, np.nan
            valid = (values >= 0) & (values < len(words))
            series[name] = pd.Series(table[np.where(valid, values, len(words)).astype(np.intp)], dtype=object)
        else:
            series[name] = pd.Series(values)
    return pd.DataFrame(series)


def _row_functions(engine: SklearnEngine) -> tuple[list[Callable[[Row], Row]], str]:
    """Row functions of the objects, or none and the reason.

    They are compared with the objects on a few made-up rows each time an engine is made: another version of
    scikit-learn may have changed what is compiled.
    """
    try:
        functions = [compile_predictor(model, engine.reading.method) for model in engine.models]
    except UncompiledError as error:
        return [], str(error)
    rng = np.random.default_rng(0)
    probes = rng.normal(size=(12, engine.width)) * 10.0 ** rng.integers(-2, 4, size=(12, 1))
    probes[4:8] = rng.integers(-1, 12, size=(4, engine.width))
    if accepts_missing(engine):
        probes[rng.random(probes.shape) < 0.2] = np.nan
    expected = np.stack(engine.raw(probes), axis=1)
    for probe, lines in zip(probes, expected, strict=True):
        values = engine._values(probe)  # noqa: SLF001  # its own module
        for function, line in zip(functions, lines, strict=True):
            if not np.allclose(function(values), line, rtol=1e-9, atol=1e-9, equal_nan=True):
                return [], f"{type(engine.models[0]).__name__} of this version of scikit-learn"
    return functions, ""


def accepts_missing(engine: SklearnEngine) -> bool:
    """Whether the objects take a row of nothing but missing values."""
    try:
        engine.raw(np.full((1, engine.width), np.nan))
    except ValueError:
        return False
    return True
