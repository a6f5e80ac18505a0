"""Boosted trees of LightGBM, kept as its own text format.

A batch goes through ``Booster.predict``. One row goes through the single-row functions of LightGBM's C API, which
prepare everything once: several times faster than ``Booster.predict`` and bit for bit the same, which tests hold.

The text is stored without its ``parameters`` section. The trees do not depend on the number of threads, but that
section records it, so that two equal models would have two hashes; parameters belong to the run, not to the model.

Fitting gives the same trees for the same rows, parameters and seed on any number of threads. LightGBM's own early
stopping was left aside: it judges by sums whose last bits depend on the threads, so a tie may stop one iteration
earlier. Here NumPy sums the loss that decides, in one order.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import lightgbm
import numpy as np
from lightgbm.basic import _LIB  # type: ignore[attr-defined]  # the loaded library; LightGBM exports no public handle of it
from lightgbm.callback import CallbackEnv, EarlyStopException
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError, InternalError
from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models._lightgbm import FIXED, main_names
from retrodict.models.catalogue import LIGHTGBM_DEFAULTS
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.engines._losses import TrainingLoss, by_group, check_two_classes, monotone_signs, validation_loss
from retrodict.models.engines._pieces import grow_pieces, read_history, write_history
from retrodict.models.engines.base import check_matrix, check_row
from retrodict.models.engines.levels import LevelsEngine
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Fitted, Problem, Progress

__all__ = ["TreesEngine", "fit_lightgbm", "solve_lightgbm", "tree_hash"]

_BINARY = Target()
_FILE, _TARGET = "trees.txt", "target.json"
# Of each task: the objective it is trained with, and further ones.
OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "binary": ("binary",),
    "multiclass": ("multiclass",),
    "regression": ("regression",),
    "quantile": ("quantile",),
    "count": ("poisson", "tweedie"),
    "ranking": ("lambdarank",),
}
_TREES_END = "\nend of trees\n"
_PARAMETERS = "\nparameters:\n"
_FLOAT64 = 1
# Numbers of C_API_PREDICT_NORMAL, _RAW_SCORE and _CONTRIB in LightGBM's c_api.h.
_PREDICT: dict[str, int] = {"score": 0, "margin": 1, "contributions": 3}

# Called with Python's lock held: a row takes microseconds, while to give the lock away and to win it back under load
# takes a switch interval (milliseconds). Contributions take long enough to be worth it and use the ordinary handle.
_HOLDING_THE_LOCK = ctypes.PyDLL(_LIB._name)  # noqa: SLF001  # path of the library LightGBM itself loaded

_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


def tree_hash(text: str) -> str:
    """SHA-256 of the trees of a LightGBM model: everything up to ``end of trees``, so nothing of its parameters.

    Equal for any number of training threads; another row order, seed or value gives another one.

    Raises
    ------
    InputError
        If the text is not a LightGBM model.
    """
    head, separator, _ = text.partition(_TREES_END)
    if not separator or not head.startswith("tree\n"):
        raise InputError("a LightGBM model text must begin with 'tree' and hold 'end of trees'", where="tree hash",
                         got=f"{len(text)} characters",
                         remedy="Pass what Booster.model_to_string returns")  # fmt: skip
    return digest(head.encode())


class _FastRow:
    """One prepared single-row prediction: for one thread at a time, since it writes to buffers of its own."""

    __slots__ = ("__weakref__", "_arguments", "_call", "_length", "_result", "_row")

    def __init__(
        self, booster: lightgbm.Booster, width: int, what: Literal["score", "margin", "contributions"], outputs: int
    ) -> None:
        library = _LIB if what == "contributions" else _HOLDING_THE_LOCK
        self._row = np.empty(width, dtype=np.float64)
        self._result = np.empty((width + 1) * outputs, dtype=np.float64)
        self._length = ctypes.c_int64()
        handle = ctypes.c_void_p()
        _check(_LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, ctypes.c_int(_PREDICT[what]), ctypes.c_int(0), ctypes.c_int(-1),  # noqa: SLF001  # as above
            ctypes.c_int(_FLOAT64), ctypes.c_int32(width), ctypes.c_char_p(b"num_threads=1 verbosity=-1"),
            ctypes.byref(handle),
        ))  # fmt: skip
        # The prepared call points into the booster, so the finalizer keeps the booster until it has run.
        weakref.finalize(self, _free, handle, booster).atexit = False
        self._call = library.LGBM_BoosterPredictForMatSingleRowFast
        self._arguments = (
            handle,
            ctypes.c_void_p(self._row.ctypes.data),
            ctypes.byref(self._length),
            ctypes.c_void_p(self._result.ctypes.data),
        )

    def __call__(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the result buffer, valid until the next call."""
        self._row[:] = row
        if self._call(*self._arguments):
            _check(-1)
        return self._result


def _free(handle: ctypes.c_void_p, _booster: lightgbm.Booster) -> None:
    _LIB.LGBM_FastConfigFree(handle)


def _check(code: int) -> None:
    if code:
        raise InternalError(f"LightGBM must score a row of its width ({_LIB.LGBM_GetLastError().decode()})",
                            where="engine", got=code, remedy="Report it with the version of LightGBM")  # fmt: skip


class TreesEngine:
    """LightGBM trees of a task.

    Safe for threads: each thread prepares its own single-row calls on first use.

    Parameters
    ----------
    text : str
        LightGBM model text, from a trusted or verified source: its C parser may crash on damaged text.
    target : Target, default yes or no
        What the scores are; of ``quantile``, one level.

    Raises
    ------
    IntegrityError
        If LightGBM cannot read the text.
    InputError
        If the model has an objective of another task.
    """

    kind: ClassVar[str] = "lightgbm"

    def __init__(self, text: str, target: Target = _BINARY) -> None:
        head, parameters, _ = text.partition(_PARAMETERS)
        self._text = head + "\n" if parameters else text
        self._trees = tree_hash(self._text)
        try:
            self._booster = lightgbm.Booster(model_str=self._text)
        except lightgbm.basic.LightGBMError as error:
            raise IntegrityError(f"LightGBM must read the model ({error})", where="engine",
                                 got=f"{len(self._text)} characters",
                                 remedy="Restore the object store from a backup") from error  # fmt: skip
        objective = re.search(r"\nobjective=(\w+)", self._text)
        if objective is None or objective.group(1) not in OBJECTIVES[target.task]:
            raise InputError(f"the model must have an objective of its task: {', '.join(OBJECTIVES[target.task])}",
                             where="engine", got="another objective",
                             remedy="Train with retrodict.models.fit_lightgbm")  # fmt: skip
        self._target = target
        self._width = int(self._booster.num_feature())
        self._local = threading.local()

    @property
    def text(self) -> str:
        """Model text without parameters."""
        return self._text

    @property
    def exact_rows(self) -> bool:
        """The C API scores a row as it scores a batch."""
        return True

    @property
    def explains(self) -> bool:
        """Exactly."""
        return True

    @property
    def target(self) -> Target:
        """What the scores are."""
        return self._target

    @property
    def width(self) -> int:
        """Number of features."""
        return self._width

    @property
    def trees(self) -> int:
        """Number of trees."""
        return int(self._booster.num_trees())

    @property
    def iterations(self) -> int:
        """Number of iterations, each of a tree per class."""
        return int(self._booster.current_iteration())

    def first(self, rounds: int) -> TreesEngine:
        """Engine of the first iterations."""
        return TreesEngine(self._booster.model_to_string(num_iteration=rounds), self._target)

    def _fast(self, what: Literal["score", "margin", "contributions"]) -> _FastRow:
        fast: _FastRow | None = getattr(self._local, what, None)
        if fast is None:
            outputs = self._target.columns
            fast = _FastRow(self._booster, self._width, what, outputs)
            setattr(self._local, what, fast)
        return fast

    def _predict(self, matrix: NDArray[np.float64], **how: Any) -> NDArray[np.float64]:
        check_matrix(matrix, self._width)
        if not len(matrix):
            return np.empty(0 if self._target.columns == 1 else (0, self._target.columns))
        return np.asarray(self._booster.predict(matrix, **how), dtype=np.float64)

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, classes)."""
        return self._predict(matrix)

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        return self._row("score", row)

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of the trees: log-odds, values, or logarithms of counts; shape (n,) or (n, classes)."""
        return self._predict(matrix, raw_score=True)

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Sums of the trees of one row."""
        return self._row("margin", row)

    def _row(self, what: Literal["score", "margin"], row: NDArray[np.float64]) -> Any:
        check_row(row, self._width)
        result = self._fast(what)(row)
        count = self._target.columns
        return float(result[0]) if count == 1 else tuple(result[:count].tolist())

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Exact Shapley values along the trees (TreeSHAP, Lundberg et al. 2018), then the expected margin.

        The background is the training rows as the trees counted them, so it is part of the model.
        """
        check_row(row, self._width)
        shares = self._fast("contributions")(row).copy()
        return shares if self._target.columns == 1 else shares.reshape(self._target.columns, self._width + 1)

    def gains(self) -> NDArray[np.float64]:
        """What splits on each feature gained in training."""
        return np.asarray(self._booster.feature_importance("gain"), dtype=np.float64)

    def parts(self) -> Mapping[str, bytes]:
        """One text file, and one of the target unless it is a yes or no."""
        target = {} if self._target == _BINARY else {_TARGET: canonical_json(self._target.to_dict())}
        return {_FILE: self._text.encode(), **target}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> TreesEngine:
        """Read what :meth:`parts` gave."""
        target = Target.from_dict(json.loads(parts[_TARGET])) if _TARGET in parts else _BINARY
        return cls(parts[_FILE].decode(), target)

    def fingerprint(self) -> str:
        """:func:`tree_hash` of the text."""
        return self._trees


def fit_lightgbm(
    inputs: InputSpec,
    train: Examples,
    valid: Examples | None = None,
    *,
    seed: int,
    params: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    start: TreesEngine | None = None,
) -> Fitted[TreesEngine]:
    """Grow trees until the loss on validation rows has not fallen for ``early_stopping_round`` iterations.

    Parameters
    ----------
    inputs : InputSpec
        Names the features and says which are categories.
    train : Examples
        Training rows, in the order that the run records: another order gives other trees.
    valid : Examples, optional
        Validation rows; None grows all ``num_iterations`` and has no history.
    seed : int
        From the run; every other seed of LightGBM is derived from it.
    params : mapping, optional
        Changes to :data:`LIGHTGBM_DEFAULTS`, under any name that LightGBM knows.
    progress : callable, optional
        Called after each iteration with (iterations done, iterations at most, validation metrics). It may raise to
        stop the training.
    checkpoints : Checkpoints, optional
        Where to save the state, and how often: the trees are then those of pieces of so many iterations.
    start : TreesEngine, optional
        Trees to go on from; ``num_iterations`` then counts those that are added, ``best_iteration`` all.

    Returns
    -------
    Fitted
        The engine up to the best iteration, all parameters with ``best_iteration``, and the loss on the validation
        rows after each iteration that was grown. The area under the curve after each took a twelfth of the fit.

    Raises
    ------
    InputError
        If a parameter is unknown, or is one that reproduction or serving rests on.
    """
    for rows in (train, valid):
        if rows is not None and rows.width != len(inputs):
            raise InputError(f"the rows must have the {len(inputs)} features of the spec", where="training rows",
                             got=rows.width, remedy="Encode them with the same InputSpec")  # fmt: skip
    changed = dict(params or {})
    signs = changed.pop("monotone", None)
    changes = main_names(changed, LIGHTGBM_DEFAULTS, where="lightgbm", error=InputError)
    settings = {**LIGHTGBM_DEFAULTS, **changes}
    total, patience = int(settings["num_iterations"]), int(settings["early_stopping_round"])
    native = {k: v for k, v in settings.items() if k not in {"num_iterations", "early_stopping_round"}}
    native |= {**FIXED, "seed": seed, **_objective(train.target, settings)}
    if signs:
        native["monotone_constraints"] = monotone_signs(inputs, signs)
    train, valid = by_group(train), None if valid is None else by_group(valid)
    first = 0 if start is None else start.iterations
    watch = _Watch(first + total, patience, progress, TrainingLoss(train))
    data = _dataset(train, _native_names(inputs), list(inputs.categorical), keep=checkpoints is not None)
    valid_sets = [] if valid is None else [data.create_valid(**_columns(valid))]

    def grow(piece: Mapping[str, Any], rounds: int) -> lightgbm.Booster:
        return lightgbm.train(
            {**native, **piece},
            data,
            num_boost_round=rounds,
            valid_sets=valid_sets,
            valid_names=["valid"][: len(valid_sets)],
            feval=None if valid is None else lambda scores, _data: (*validation_loss(valid, scores), False),
            callbacks=[watch],
            init_model=None if start is None or checkpoints is not None else lightgbm.Booster(model_str=start.text),
        )

    if start is not None and settings.get("boosting") == "rf":
        raise InputError("a forest must be grown in one go: its trees are averaged", where="lightgbm, start_from",
                         got={"boosting": "rf"}, remedy="Leave start_from out of the recipe")  # fmt: skip
    try:
        if checkpoints is None:
            booster = grow({}, total)
        else:
            sets = list(zip([data, *valid_sets], [train, valid], strict=False))
            booster = grow_pieces(grow, native, total, watch, checkpoints, sets,  # type: ignore[arg-type]  # as many rows
                                  start)  # fmt: skip
    except lightgbm.basic.LightGBMError as error:
        words = " ".join(str(error).split())
        raise InputError(f"LightGBM must be able to train with its parameters ({words})", where="lightgbm",
                         got=changes, remedy="Correct the params of the recipe") from error  # fmt: skip
    # A later tree of dart changes the weights of those before it: no iteration but the last is a model.
    uncut = valid is None or settings.get("boosting") == "dart"
    best = first + total if uncut else watch.best_iteration
    engine = TreesEngine(booster.model_to_string(num_iteration=best), train.target)
    facts = {**settings, **FIXED, "seed": seed, "best_iteration": best}
    facts |= {} if start is None else {"started_at": first}
    if train.target != _BINARY:
        facts |= _objective(train.target, settings)
    return Fitted(engine, facts | ({"monotone": dict(signs)} if signs else {}), watch.history)


def _objective(target: Target, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Objective of a task, and what it needs; yes or no has the parameters that it always had."""
    match target.task:
        case "binary":
            return {}
        case "multiclass":
            more: dict[str, Any] = {"num_class": len(target.classes)}
        case "quantile":
            more = {"alpha": target.quantiles[0]}
        case "count" if "tweedie_variance_power" in settings:
            return {"objective": "tweedie"}
        case _:
            more = {}
    return {"objective": OBJECTIVES[target.task][0], **more}


def _columns(rows: Examples) -> dict[str, Any]:
    sizes = None if rows.groups is None else np.unique(rows.groups, return_counts=True)[1]
    return {"data": rows.matrix, "label": rows.labels, "weight": rows.weights,
            "group": sizes if rows.target.task == "ranking" else None}  # fmt: skip


def _dataset(train: Examples, names: list[str], categorical: list[int], *, keep: bool) -> lightgbm.Dataset:
    return lightgbm.Dataset(**_columns(train), feature_name=names, categorical_feature=categorical,
                            free_raw_data=not keep)  # fmt: skip


def solve_lightgbm(problem: Problem) -> Fitted[TreesEngine | LevelsEngine]:
    """Registered as ``lightgbm``; of quantiles, one forest per level."""
    target = problem.train.target

    start: Any = None if problem.start is None else problem.start.engine

    def fit(train: Examples, valid: Examples | None, level: str = "trees", begun: Any = start) -> Fitted[TreesEngine]:
        return fit_lightgbm(problem.inputs, train, valid, seed=problem.seed, params=problem.params,
                            progress=problem.progress, start=begun,
                            checkpoints=problem.checkpoints and problem.checkpoints.of(level))  # fmt: skip

    check_two_classes(problem.train, "lightgbm")
    if target.task != "quantile":
        return fit(problem.train, problem.validate)
    members: list[TreesEngine] = []
    facts: dict[str, Any] = {}
    history: dict[str, list[float]] = {}
    for at, (level, name) in enumerate(zip(target.quantiles, target.outputs, strict=True)):
        one = Target("quantile", quantiles=(level,))
        valid = None if problem.validate is None else replace(problem.validate, target=one)
        fitted = fit(replace(problem.train, target=one), valid, name, start and start.members[at])
        members.append(fitted.engine)
        counted = {word: {**facts.get(word, {}), name: fitted.params[word]}
                   for word in ("best_iteration", "started_at") if word in fitted.params}  # fmt: skip
        facts = {**fitted.params, **counted}
        history |= {f"{metric}_{name}": values for metric, values in fitted.history.items()}
    facts.pop("alpha", None)
    return Fitted(LevelsEngine(target, members), facts, history)


class _Watch:
    """LightGBM callback: keeps the history, tells of progress, and stops when the loss no longer falls."""

    def __init__(self, total: int, patience: int, progress: Progress | None, seen: TrainingLoss) -> None:
        self.history: dict[str, list[float]] = {}
        self.best_iteration = 0
        self._best: Any = None
        self._best_loss = np.inf
        self._most, self._patience, self._progress = total, patience, progress
        self._seen = seen
        self.offset, self.stopped = 0, False
        self.loss: float | None = None

    def state(self) -> dict[str, Any]:
        """Plain form of what it has to remember between two pieces."""
        best_loss = None if math.isinf(self._best_loss) else self._best_loss
        return {"history": write_history(self.history), "best_iteration": self.best_iteration, "best_loss": best_loss,
                "stopped": self.stopped}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.history = read_history(state["history"])
        self.best_iteration = state["best_iteration"]
        self._best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.stopped = state["stopped"]

    def __call__(self, env: CallbackEnv) -> None:
        results = env.evaluation_result_list or []
        metrics = {result[1]: float(result[2]) for result in results}
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        iteration = self.offset + env.iteration + 1
        if self._progress is not None:
            self._progress(iteration, self._most, metrics)
        if not metrics:
            return
        name = next(iter(metrics))
        loss = self.loss = metrics[name]
        self._seen.note(self.history, name, iteration, lambda: self._outputs(env.model))
        if loss < self._best_loss:
            self._best_loss, self._best, self.best_iteration = loss, results, iteration
        elif 0 < self._patience <= iteration - self.best_iteration:
            self.stopped = True
            raise EarlyStopException(self.best_iteration - 1, self._best or [])

    def _outputs(self, booster: Any) -> Any:
        """Outputs of the sample of training rows, which LightGBM has at hand."""
        outputs: list[Any] = []

        def keep(scores: Any, _data: Any) -> tuple[str, float, bool]:
            outputs.append(scores[self._seen.places])
            return "", 0.0, False

        booster.eval_train(keep)
        return outputs[0]


def _native_names(inputs: InputSpec) -> list[str]:
    """Feature names that LightGBM's text format can hold; the spec keeps the real ones."""
    safe = [_UNSAFE.sub("_", name) for name in inputs.names]
    return [name if safe.count(name) == 1 else f"{name}_{at}" for at, name in enumerate(safe)]
