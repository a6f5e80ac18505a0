"""Boosted trees of XGBoost (extra ``xgboost``), kept as its own binary JSON.

A batch goes through ``Booster.predict``, which makes a table of XGBoost's own of it. One row goes through the in-place
prediction of its C API with everything prepared: a seventh of the processor time, and bit for bit the same.
"""

from __future__ import annotations

import ctypes
import json
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError, InternalError, MissingExtraError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.engines._losses import TrainingLoss, by_group, check_two_classes, monotone_signs, validation_loss
from retrodict.models.engines._pieces import PIECE, read_history, write_history
from retrodict.models.engines._times import FailureTimes
from retrodict.models.engines.base import check_matrix, check_row
from retrodict.models.engines.hazards import check_events
from retrodict.models.problem import Examples, Fitted, Problem

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["XgboostEngine", "solve_xgboost"]

_FILE, _PLAN = "trees.ubj", "engine.json"
_OBJECTIVES = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
    "quantile": "reg:quantileerror",
    "count": "count:poisson",
    "ranking": "rank:ndcg",
    "survival": "survival:aft",
}


def _library() -> ModuleType:
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtraError("xgboost-cpu", "xgboost", needed_for="the estimator 'xgboost'") from error
    return xgboost


class _FastRow:
    """One prepared single-row prediction: for one thread at a time, since it reads a buffer of its own."""

    __slots__ = ("__weakref__", "_arguments", "_call", "_keep", "_result", "_row")

    def __init__(self, library: ModuleType, booster: Any, width: int, *, margin: bool) -> None:
        native = library.core._LIB  # noqa: SLF001  # the loaded library; XGBoost exports no public handle of it
        self._row = np.empty((1, width), dtype=np.float64)
        config = {"type": int(margin), "training": False, "iteration_begin": 0, "iteration_end": 0,
                  "missing": float("nan"), "strict_shape": False, "cache_id": 0}  # fmt: skip
        place = {"data": [self._row.ctypes.data, False], "shape": [1, width], "typestr": "<f8", "version": 3}
        proxy, dims, shape = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_uint64)()
        library.core._check_call(native.XGProxyDMatrixCreate(ctypes.byref(proxy)))  # noqa: SLF001
        weakref.finalize(self, native.XGDMatrixFree, proxy).atexit = False
        self._result, self._keep = ctypes.POINTER(ctypes.c_float)(), booster
        # With Python's lock held, as LightGBM's: a row takes microseconds, and to win the lock back milliseconds.
        self._call = ctypes.PyDLL(native._name).XGBoosterPredictFromDense  # noqa: SLF001
        self._arguments = (
            booster.handle, json.dumps(place).encode(), json.dumps(config).encode(), proxy, ctypes.byref(shape),
            ctypes.byref(dims), ctypes.byref(self._result),
        )  # fmt: skip

    def __call__(self, row: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """Return the first numbers of the prediction."""
        self._row[0] = row
        if self._call(*self._arguments):
            raise InternalError("XGBoost must score a row of its width", where="engine", got=row.shape,
                                remedy="Report it with the version of XGBoost")  # fmt: skip
        return np.array(self._result[:count], dtype=np.float64)


class XgboostEngine:
    """XGBoost trees of a task.

    Safe for threads: predictions of one booster from several threads are XGBoost's promise since 1.3.

    Parameters
    ----------
    data : bytes
        The booster as ``save_raw`` gives it, from a trusted or verified source.
    target : Target
    sizes : sequence of int
        Of each feature, how many categories it has; 0 for a number.
    times : FailureTimes, optional
        Of a time to an event: how its logarithm lies around the trees' sum.

    Raises
    ------
    IntegrityError
        If XGBoost cannot read the data.
    """

    kind: ClassVar[str] = "xgboost"
    exact_rows: ClassVar[bool] = True
    explains: ClassVar[bool] = True

    def __init__(self, data: bytes, target: Target, sizes: list[int], times: FailureTimes | None = None) -> None:
        library = _library()
        self._times = times
        self._data, self.target, self._sizes = data, target, list(sizes)
        self._types = ["c" if size else "q" for size in sizes]
        self._booster = library.Booster({"nthread": 1})
        try:
            self._booster.load_model(bytearray(data))
        except library.core.XGBoostError as error:
            raise IntegrityError("XGBoost must read the model", where="engine", got=f"{len(data)} bytes",
                                 remedy="Restore the object store from a backup") from error  # fmt: skip
        self._library, self._local = library, threading.local()

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self._sizes)

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return int(self._booster.num_boosted_rounds())

    def first(self, rounds: int) -> XgboostEngine:
        """Engine of the first iterations."""
        data = bytes(self._booster[:rounds].save_raw("ubj"))
        return XgboostEngine(data, self.target, self._sizes, self._times)

    def _predict(self, matrix: NDArray[np.float64], **how: Any) -> NDArray[np.float64]:
        check_matrix(matrix, self.width)
        single = self.target.columns == 1 or self._times is not None
        if not len(matrix):
            return np.empty(0 if single else (0, self.target.columns))
        if len(matrix) == 1 and "pred_contribs" not in how:
            values = self._fast(bool(how))(matrix[0], 1 if single else self.target.columns)
            return values if single else values[None, :]
        # One thread: to wake others for the copy of a few rows takes a thousand times as long as the copy.
        rows = self._library.DMatrix(matrix, feature_types=self._types, enable_categorical=True, nthread=1)
        return np.asarray(self._booster.predict(rows, **how), dtype=np.float64)

    def _fast(self, margin: bool) -> _FastRow:
        name = "margin" if margin else "score"
        fast: _FastRow | None = getattr(self._local, name, None)
        if fast is None:
            fast = _FastRow(self._library, self._booster, self.width, margin=margin)
            setattr(self._local, name, fast)
        return fast

    def gains(self) -> NDArray[np.float64]:
        """What splits on each feature gained in training."""
        gained = self._booster.get_score(importance_type="total_gain")
        return np.array([float(gained.get(f"f{at}", 0.0)) for at in range(self.width)])

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        if self._times is not None:
            return self._times.shares(self.margins(matrix))
        values = self._predict(matrix)
        if self.target.task == "quantile":
            values = np.sort(values.reshape(len(matrix), self.target.columns), axis=1)
            return values[:, 0] if self.target.columns == 1 else values
        return values

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        value = self.scores(check_row(row, self.width)[None, :])[0]
        return float(value) if self.target.columns == 1 else tuple(value.tolist())

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of the trees, shape (n,) or (n, outputs); of a time to an event how far a horizon is beyond the sum."""
        sums = self._predict(matrix, output_margin=True)
        return sums if self._times is None else self._times.margins(sums, self.target)

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Sums of the trees of one row."""
        value = self.margins(check_row(row, self.width)[None, :])[0]
        return float(value) if self.target.columns == 1 else tuple(value.tolist())

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Exact Shapley values along the trees, in float32, then the expected margin."""
        shares: NDArray[np.float64] = self._predict(check_row(row, self.width)[None, :], pred_contribs=True)[0]
        return shares if self._times is None else self._times.contributions(shares, self.target)

    def parts(self) -> Mapping[str, bytes]:
        """Binary JSON of XGBoost, and what it reads."""
        times = {} if self._times is None else {"times": self._times.to_dict()}
        plan = {"target": self.target.to_dict(), "sizes": self._sizes, **times}
        return {_FILE: self._data, _PLAN: canonical_json(plan)}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> XgboostEngine:
        """Read what :meth:`parts` gave."""
        plan = json.loads(parts[_PLAN])
        return cls(
            parts[_FILE],
            Target.from_dict(plan["target"]),
            plan["sizes"],
            FailureTimes(**plan["times"]) if "times" in plan else None,
        )

    def fingerprint(self) -> str:
        """SHA-256 of the files."""
        return digest(b"".join(self.parts().values()))


def _matrix(library: Any, rows: Examples, types: list[str], max_bin: int) -> Any:
    groups = rows.groups if rows.target.task == "ranking" else None
    weights = rows.weights
    if groups is not None and weights is not None:  # one weight per group, that of its first row
        weights = weights[np.unique(groups, return_index=True)[1]]
    if rows.target.task == "survival":
        low, high = np.abs(rows.labels), np.where(rows.labels > 0, rows.labels, np.inf)
        return library.QuantileDMatrix(
            rows.matrix, weight=weights, label_lower_bound=low, label_upper_bound=high, feature_types=types,
            enable_categorical=True, max_bin=max_bin,
        )  # fmt: skip
    return library.QuantileDMatrix(rows.matrix, label=rows.labels, weight=weights, qid=groups,
                                   feature_types=types, enable_categorical=True, max_bin=max_bin)  # fmt: skip


def solve_xgboost(problem: Problem) -> Fitted[XgboostEngine]:
    """Registered as ``xgboost``: boosting stopped by the validation loss."""
    library = _library()
    check_two_classes(problem.train, "xgboost")
    params, target = dict(problem.params), problem.train.target
    sizes = [len(feature.vocabulary) or 1 if feature.type == "category" else 0 for feature in problem.inputs.features]
    total, patience = params.pop("num_boost_round"), params.pop("early_stopping_rounds")
    signs, threads = params.pop("monotone", None), params.pop("nthread")
    native = {**params, "objective": _OBJECTIVES[target.task], "seed": problem.seed, "tree_method": "hist",
              "disable_default_eval_metric": 1, "nthread": threads, "verbosity": 0}  # fmt: skip
    if params["booster"] == "gbtree":
        native.pop("rate_drop")
    if target.task == "multiclass":
        native["num_class"] = len(target.classes)
    times = None
    if target.task == "survival":
        check_events(problem.train, "aft")
        times = FailureTimes(native.pop("distribution"), float(native.pop("scale")))
        middle = np.average(np.log(np.abs(problem.train.labels)), weights=problem.train.weights)
        native |= {"aft_loss_distribution": times.distribution, "aft_loss_distribution_scale": times.scale,
                   "base_score": float(np.exp(middle))}  # fmt: skip
    if target.task == "quantile":
        native["quantile_alpha"] = list(target.quantiles)
    if signs:
        turn = 1 if times is None else -1  # the sum is a time: what raises it lowers the probabilities
        native["monotone_constraints"] = tuple(turn * sign for sign in monotone_signs(problem.inputs, signs))
    types = ["c" if size else "q" for size in sizes]
    train = _matrix(library, by_group(problem.train), types, params["max_bin"])
    valid = None if problem.validate is None else by_group(problem.validate)
    watch = _watch(library, valid, types, total, patience if params["booster"] == "gbtree" else 0, problem, times)
    start: Any = None if problem.start is None else problem.start.engine
    first, trees = (0, None) if start is None else (start.iterations, bytearray(start.parts()[_FILE]))
    try:
        if problem.checkpoints is None:
            booster = library.train(native, train, num_boost_round=total, callbacks=[watch], xgb_model=trees)
        else:
            booster = _grow_pieces(library, native, train, total, watch, problem.checkpoints, trees)
    except library.core.XGBoostError as error:
        words = " ".join(str(error).split("\n", maxsplit=1)[0].split())
        raise InputError(f"XGBoost must be able to train with its parameters ({words})", where="xgboost", got=params,
                         remedy="Correct the params of the recipe") from error  # fmt: skip
    uncut = valid is None or params["booster"] == "dart"
    best = booster.num_boosted_rounds() if uncut else first + watch.best + 1
    data = bytes(booster[:best].save_raw("ubj"))
    facts = {**problem.params, "objective": native["objective"], "seed": problem.seed, "best_iteration": best}
    facts |= {} if start is None else {"started_at": first}
    if times is not None and valid is not None:
        rows = library.DMatrix(valid.matrix, feature_types=types, enable_categorical=True)
        times = times.fitted(valid, booster[:best].predict(rows, output_margin=True).astype(np.float64))
        facts["answers"] = times.to_dict()
    return Fitted(XgboostEngine(data, target, sizes, times), facts, watch.history)


def _grow_pieces(
    library: Any,
    native: Mapping[str, Any],
    train: Any,
    total: int,
    watch: Any,
    checkpoints: Checkpoints,
    trees: bytearray | None = None,
) -> Any:
    """Grow in pieces of a fixed length, each from the stored trees and with seeds of its iterations.

    A booster that is read again sums the rows anew, in other last bits: so it is read again after every piece, killed
    or not.
    """
    native = {**native, "seed_per_iteration": 1}
    booster = library.Booster(native, [train]) if trees is None else _read_again(library, native, train, trees)
    done, stopped = 0, False
    if (last := checkpoints.last()) is not None:
        facts = json.loads(last.state["watch"])
        done, stopped, watch.best = last.step, facts["stopped"], facts["best"]
        watch.history.update(read_history(facts["history"]))
        booster = _read_again(library, native, train, last.state["trees"])
    while done < total and not stopped:
        size = min(checkpoints.steps or PIECE, total - done)
        for iteration in range(done, done + size):
            booster.update(train, iteration=iteration)
            done += 1
            stopped = watch.after_iteration(booster, iteration, None)
            if stopped:
                break
        data = bytes(booster.save_raw("ubj"))
        if stopped or checkpoints.due(done):
            facts = {"history": write_history(watch.history), "best": watch.best, "stopped": stopped}
            loss = next((values[-1] for values in watch.history.values()), None)
            checkpoints.save(done, {"trees": data, "watch": canonical_json(facts)}, loss)
        booster = _read_again(library, native, train, data)
    return booster


def _read_again(library: Any, native: Mapping[str, Any], train: Any, data: bytes | bytearray) -> Any:
    booster = library.Booster(native, [train])
    booster.load_model(bytearray(data))
    booster.set_param(dict(native))
    return booster


def _watch(  # what the library's callback closes over
    library: Any, valid: Examples | None, types: list[str], total: int, patience: int, problem: Problem,
    times: FailureTimes | None,
) -> Any:  # fmt: skip
    """Callback that keeps the history and stops; XGBoost's own sums depend on threads."""
    measure = validation_loss if times is None else times.loss
    margin = times is not None
    rows = None if valid is None else library.DMatrix(valid.matrix, feature_types=types, enable_categorical=True)
    seen = TrainingLoss(by_group(problem.train), measure)
    seen_rows = library.DMatrix(seen.rows.matrix, feature_types=types, enable_categorical=True)

    class Watch(library.callback.TrainingCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.best, self.history = 0, dict[str, list[float]]()

        def after_iteration(self, model: Any, epoch: int, _evals_log: Any) -> bool:
            metrics: dict[str, float] = {}
            stop = False
            if valid is not None:
                name, loss = measure(valid, model.predict(rows, output_margin=margin).astype(np.float64))
                metrics[name] = loss
                losses = self.history.setdefault(name, [])
                losses.append(loss)
                seen.note(
                    self.history,
                    name,
                    epoch + 1,
                    lambda: model.predict(seen_rows, output_margin=margin).astype(np.float64),
                )
                self.best = int(np.argmin(losses))
                stop = 0 < patience <= epoch - self.best
            if problem.progress is not None:
                problem.progress(epoch + 1, total, metrics)
            return stop

    return Watch()
