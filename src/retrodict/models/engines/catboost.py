"""Boosted symmetric trees of CatBoost (extra ``catboost``), kept in its own binary format."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError, MissingExtraError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models._logistic import sigmoid, softmax
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.engines._losses import by_group, check_two_classes, monotone_signs
from retrodict.models.engines.base import check_matrix, check_row
from retrodict.models.problem import TRAIN, Examples, Fitted, Problem
from retrodict.stores._durable import make_folder

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["CatboostEngine", "solve_catboost"]

_FILE, _PLAN, _TREES = "trees.cbm", "engine.json", "trees.json"
_LOSSES = {
    "binary": "Logloss",
    "multiclass": "MultiClass",
    "regression": "RMSE",
    "count": "Poisson",
    "ranking": "YetiRank",
}


def _library() -> ModuleType:
    try:
        import catboost
    except ImportError as error:
        raise MissingExtraError("catboost", "catboost", needed_for="the estimator 'catboost'") from error
    library: ModuleType = catboost
    return library


class CatboostEngine:
    """CatBoost trees of a task.

    Parameters
    ----------
    data : bytes
        The model in CatBoost's format ``cbm``, from a trusted or verified source.
    target : Target
    categories : sequence of int
        Places of the categories.
    codes : sequence of int
        Of several classes, those that the training rows held.
    trees : str
        SHA-256 of what was learned; the file also holds when.

    Raises
    ------
    IntegrityError
        If CatBoost cannot read the data.
    """

    kind: ClassVar[str] = "catboost"
    exact_rows: ClassVar[bool] = True
    explains: ClassVar[bool] = True

    def __init__(
        self, data: bytes, target: Target, width: int, categories: list[int], codes: list[int], trees: str
    ) -> None:
        library = _library()
        self._data, self.target, self.width, self._trees = data, target, width, trees
        self._categories, self._codes = list(categories), list(codes)
        try:
            self._model = library.CatBoost().load_model(blob=data)
        except library.CatBoostError as error:
            raise IntegrityError("CatBoost must read the model", where="engine", got=f"{len(data)} bytes",
                                 remedy="Restore the object store from a backup") from error  # fmt: skip

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of the trees, shape (n,) or (n, outputs)."""
        check_matrix(matrix, self.width)
        count = self.target.columns
        if not len(matrix):
            return np.empty(0 if count == 1 else (0, count))
        # One row as a list: to make a table of CatBoost's own of it takes three times as long as the trees.
        table = self._listed(matrix[0]) if len(matrix) == 1 else _pool(matrix, self._categories)
        raw = np.asarray(self._model.predict(table, prediction_type="RawFormulaVal", thread_count=1), dtype=np.float64)
        if self.target.task != "multiclass":
            return raw.reshape(len(matrix), count) if count > 1 else raw.reshape(len(matrix))
        out = np.full((len(matrix), count), -700.0)
        out[:, self._codes] = raw
        return out

    def _listed(self, row: NDArray[np.float64]) -> list[list[Any]]:
        """One row as :func:`cells` makes it."""
        values: list[Any] = row.tolist()
        for place in self._categories:
            code = values[place]
            values[place] = str(int(code)) if code == code else "-1"  # noqa: PLR0124  # NaN
        return [values]

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        margins = self.margins(matrix)
        outputs = [self._outputs(line) for line in margins.tolist()]
        return np.array(outputs, dtype=np.float64).reshape(margins.shape)

    def _outputs(self, margin: Any) -> Any:
        match self.target.task:
            case "binary":
                return sigmoid(margin)
            case "multiclass":
                return tuple(softmax(margin))
            case "count":
                return float(np.exp(min(margin, 700.0)))
            case "quantile" if isinstance(margin, list):
                return tuple(sorted(margin))
        return margin

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Sums of the trees of one row."""
        value = self.margins(check_row(row, self.width)[None, :])[0].tolist()
        return tuple(value) if isinstance(value, list) else value

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        return self._outputs(self.margins(check_row(row, self.width)[None, :])[0].tolist())

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Exact Shapley values along the trees, then the expected margin."""
        table = _pool(check_row(row, self.width)[None, :], self._categories)
        shares = np.asarray(self._model.get_feature_importance(table, type="ShapValues", thread_count=1))[0]
        if self.target.task != "multiclass":
            return shares  # type: ignore[no-any-return]
        out = np.zeros((self.target.columns, self.width + 1))
        out[:, -1] = -700.0
        out[self._codes] = shares
        return out

    def parts(self) -> Mapping[str, bytes]:
        """The model in CatBoost's format, and what it reads."""
        plan = {"target": self.target.to_dict(), "width": self.width, "categories": self._categories,
                "codes": self._codes, "trees": self._trees}  # fmt: skip
        return {_FILE: self._data, _PLAN: canonical_json(plan)}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> CatboostEngine:
        """Read what :meth:`parts` gave."""
        plan = json.loads(parts[_PLAN])
        return cls(parts[_FILE], **{**plan, "target": Target.from_dict(plan["target"])})

    @property
    def iterations(self) -> int:
        """Number of trees."""
        return int(self._model.tree_count_)

    def first(self, rounds: int) -> CatboostEngine:
        """Engine of the first trees."""
        model = self._model.copy()
        model.shrink(ntree_end=rounds)
        data, trees = _stored(model)
        return CatboostEngine(data, self.target, self.width, self._categories, self._codes, trees)

    def fingerprint(self) -> str:
        """SHA-256 of the trees, without the time at which they were grown."""
        return digest(self.parts()[_PLAN])


def cells(matrix: NDArray[np.float64], categories: list[int]) -> NDArray[Any]:
    """Numbers as they are, and codes of categories as text, -1 for missing, as CatBoost reads them."""
    if not categories:
        return matrix
    table = matrix.astype(object)
    table[:, categories] = np.nan_to_num(matrix[:, categories], nan=-1.0).astype(np.int64).astype(str)
    return table


def _pool(matrix: NDArray[np.float64], categories: list[int], **columns: Any) -> Any:
    return _library().Pool(cells(matrix, categories), cat_features=categories or None, **columns)


def _rows(rows: Examples, categories: list[int]) -> Any:
    labels = rows.labels.astype(np.int64) if rows.target.probabilistic else rows.labels
    groups = rows.groups if rows.target.task == "ranking" else None
    return _pool(rows.matrix, categories, label=labels, weight=rows.weights, group_id=groups)


def solve_catboost(problem: Problem) -> Fitted[CatboostEngine]:
    """Registered as ``catboost``: boosting stopped by the validation loss of CatBoost."""
    library = _library()
    check_two_classes(problem.train, "catboost")
    params, target = dict(problem.params), problem.train.target
    categories = list(problem.inputs.categorical)
    patience, signs = params.pop("early_stopping_rounds"), params.pop("monotone", None)
    levels = ",".join(map(str, target.quantiles))
    many = f"MultiQuantile:alpha={levels}" if len(target.quantiles) > 1 else f"Quantile:alpha={levels}"
    loss = many if target.task == "quantile" else _LOSSES[target.task]
    if signs:
        params["monotone_constraints"] = monotone_signs(problem.inputs, signs)
    model = library.CatBoost({**params, "loss_function": loss, "random_seed": problem.seed, "verbose": False,
                              **_snapshots(problem.checkpoints)})  # fmt: skip
    train = by_group(problem.train)
    valid = None if problem.validate is None else by_group(problem.validate)
    start: Any = None if problem.start is None else problem.start.engine
    before = None if start is None else library.CatBoost().load_model(blob=start.parts()[_FILE])
    try:
        model.fit(_rows(train, categories), init_model=before,
                  eval_set=None if valid is None else _rows(valid, categories),
                  early_stopping_rounds=patience or None, use_best_model=valid is not None)  # fmt: skip
    except library.CatBoostError as error:
        words = " ".join(str(error).split())
        raise InputError(f"CatBoost must be able to train with its parameters ({words[:300]})", where="catboost",
                         got=sorted(params), remedy="Correct the params of the recipe, or leave out columns of one "
                         "value") from error  # fmt: skip
    results = model.get_evals_result() if valid is not None else {}
    history = {prefix + name.lower(): [float(value) for value in values]
               for part, prefix in (("validation", ""), ("learn", TRAIN))
               for name, values in results.get(part, {}).items()}  # fmt: skip
    facts = {**problem.params, "loss_function": loss, "seed": problem.seed, "best_iteration": int(model.tree_count_)}
    facts |= {} if start is None else {"started_at": start.iterations}
    codes = np.unique(train.labels).astype(int).tolist() if target.task == "multiclass" else []
    data, trees = _stored(model)
    return Fitted(CatboostEngine(data, target, train.width, categories, codes, trees), facts, history)


def _snapshots(checkpoints: Checkpoints | None) -> dict[str, Any]:
    """CatBoost's own snapshots, which it writes by time and goes on from; once a second where steps are asked for."""
    if checkpoints is None or checkpoints.folder is None:
        return {"allow_writing_files": False}
    make_folder(checkpoints.folder)
    return {"allow_writing_files": True, "train_dir": str(checkpoints.folder), "save_snapshot": True,
            "snapshot_file": "snapshot", "snapshot_interval": max(int(checkpoints.seconds or 1), 1)}  # fmt: skip


def _stored(model: Any) -> tuple[bytes, str]:
    """Bytes of the model, and the SHA-256 of its trees, leaves and tables of categories."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(str(Path(folder) / _FILE), format="cbm")
        model.save_model(str(Path(folder) / _TREES), format="json")
        body = json.loads((Path(folder) / _TREES).read_bytes())
        body.pop("model_info", None)
        return (Path(folder) / _FILE).read_bytes(), digest(canonical_json(body))
