"""Any scikit-learn estimator or Pipeline as plain data: what a recipe keeps of the object that somebody wrote.

The description is the class and the parameters of every part, as text: it can be hashed, compared and stored, and an
unfitted object is made of it anew for each fit, so that nothing is shared between runs. What could not be stored after
fitting without pickle, or would fail on a row that is served, is refused here, where it is written.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.tasks import Task
from retrodict.models.objects import OWN_STEP

if TYPE_CHECKING:
    from retrodict.models.estimators import Estimator

__all__ = ["SklearnSpec"]

_CONTAINERS = {"Pipeline", "ColumnTransformer", "FeatureUnion"}
_ENGINES = "retrodict.models.engines"
# Of libraries with a format of their own: their trees are stored in it, not as an object of scikit-learn.
_CATALOGUE = {"lightgbm": "lightgbm", "xgboost": "xgboost", "catboost": "catboost"}


@dataclass(frozen=True)
class SklearnSpec:
    """Description of an unfitted scikit-learn object.

    Attributes
    ----------
    text : str
        Canonical JSON: ``{"class": "sklearn.module.Name", "params": {...}}``, parts within parts.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> spec = SklearnSpec.of(Ridge(alpha=2.0))
    >>> spec.name, spec.build(seed=0).alpha
    ('Ridge', 2.0)
    """

    text: str

    @classmethod
    def of(cls, model: Any) -> SklearnSpec:
        """Describe an object with ``fit`` and ``get_params``; it is left as it is.

        Raises
        ------
        DefinitionError
            If a part is not of scikit-learn, a function is not one of NumPy or SciPy, or an encoder refuses
            categories that the training rows did not hold. The message says what to write instead.
        """
        if not (hasattr(model, "fit") and hasattr(model, "get_params")) or isinstance(model, type):
            raise DefinitionError("an estimator must be a name, or an object of scikit-learn", where="Recipe",
                                  got=type(model).__name__,
                                  remedy="Write 'lightgbm', or an instance like Ridge()")  # fmt: skip
        _refuse_search(model)
        body = _describe(model, "estimator")
        if not hasattr(model, "predict"):
            raise DefinitionError("an estimator must predict", where=f"Recipe, {type(model).__name__}",
                                  got="a transformer",
                                  remedy="End the Pipeline with a classifier or a regressor")  # fmt: skip
        from sklearn.base import is_classifier

        if is_classifier(model) and not any(hasattr(model, name) for name in ("predict_proba", "decision_function")):
            raise DefinitionError("a classifier must give probabilities or scores", where="Recipe",
                                  got=f"{type(model).__name__}, which gives classes only",
                                  remedy="Choose another one; of VotingClassifier say voting='soft', or write "
                                  "Recipe(Vote([…], how='hard'), …)")  # fmt: skip
        return cls(json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=True))

    @cached_property
    def name(self) -> str:
        """Class of the object; of a Pipeline, that of its last step."""
        return str(self._last["class"].rpartition(".")[2])

    @property
    def label(self) -> str:
        """Word for it in reports: the class in lower case."""
        return self.name.lower()

    def changed(self, params: Mapping[str, Any]) -> SklearnSpec:
        """The same object with other parameters, named as ``set_params`` has them (``ridge__alpha``).

        Raises
        ------
        DefinitionError
            If it has no such parameter; the message has near names.
        """
        model = _build(json.loads(self.text))
        available = model.get_params(deep=True)
        for name in params:
            rule = "a parameter must be one of the object"
            check_known(name, available, rule, where=f"Recipe, {self.name}", what="parameter", error=DefinitionError)
        return SklearnSpec.of(model.set_params(**params))

    @property
    def _last(self) -> Mapping[str, Any]:
        body = json.loads(self.text)
        while body["class"] == "sklearn.pipeline.Pipeline":
            body = body["params"]["steps"][-1]["tuple"][1]
        return body  # type: ignore[no-any-return]

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """What it can learn: classes for a classifier, numbers and counts for a regressor."""
        from sklearn.base import is_classifier, is_outlier_detector

        model = _build(self._last)
        if is_outlier_detector(model):
            return ("binary",)
        return ("binary", "multiclass") if is_classifier(model) else ("regression", "count")

    @cached_property
    def warm_start(self) -> Literal["", "trees", "coefficients"]:
        """What a fit of it may go on from: it must have the parameter of scikit-learn of this name."""
        names = _build(self._last).get_params(deep=False)
        if "warm_start" not in names:
            return ""
        return "trees" if {"n_estimators", "max_bins"} & {*names} else "coefficients"

    @property
    def prepares(self) -> bool:
        """Whether it is a Pipeline, which gets the columns as they are; a bare estimator gets numbers only."""
        return bool(json.loads(self.text)["class"] == "sklearn.pipeline.Pipeline")

    @cached_property
    def registered(self) -> Estimator:
        """Estimator of the catalogue's kind, with this description as its one fixed parameter."""
        from retrodict.models.estimators import Estimator

        return Estimator(
            name=self.label, fit=f"{_ENGINES}.sklearn_fit:solve_spec",
            engine=f"{_ENGINES}.sklearn:SklearnEngine", kind="sklearn",
            fixed={"spec": self.text}, tasks=self.tasks, validates=False, explains=False, exact_rows=False,
            missing=True, categories=True, contributions="none",
            warm_start=self.warm_start,
        )  # fmt: skip

    def build(self, *, seed: int) -> Any:
        """Unfitted object; every ``random_state`` that is None becomes the seed."""
        return _build(json.loads(self.text), seed)


def _refuse_search(model: Any) -> None:
    """Refuse what chooses by folds of its own, alone or as a part: they know nothing of time, groups and known-at."""
    parts = model.get_params().values() if hasattr(model, "get_params") else ()
    for part in (model, *parts):
        home, name = type(part).__module__, type(part).__name__
        if home == "sklearn.ensemble._stacking":
            raise DefinitionError("a stack must judge its members in the folds of the recipe's split", where="Recipe",
                                  got=name,
                                  remedy="Write Recipe(Stack(['lightgbm', 'logistic']), …)")  # fmt: skip
        if home.startswith("sklearn.model_selection") and hasattr(part, "fit"):
            search = name.endswith("SearchCV")
            remedy = "Name what it searches, and say tune=" if search else "Name its estimator, and say threshold="
            raise DefinitionError(
                "what is chosen must be chosen by the recipe, in the folds of its split", where="Recipe", got=name,
                remedy=f"{remedy} in the recipe",
            )  # fmt: skip


def _describe(value: Any, where: str) -> Any:
    """Plain form of a parameter or of a part."""
    import numpy as np

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [_describe(part, where) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_describe(part, where) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_describe(key, where), _describe(part, where)] for key, part in value.items()]}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, np.ndarray):
        return {"array": [_describe(part, where) for part in value.tolist()], "dtype": value.dtype.str}
    if isinstance(value, np.ufunc) or (isinstance(value, type) and value.__module__ in {"builtins", "numpy"}):
        return {"numpy": _numpy_name(value, where)}
    return _describe_object(value, where)


def _numpy_name(value: Any, where: str) -> str:
    name = str(value.__name__)
    for module in ("builtins",) if isinstance(value, type) and hasattr(builtins, name) else ("numpy", "scipy.special"):
        if getattr(import_module(module), name, None) is value:
            return f"{module}:{name}"
    raise DefinitionError("a function must be one of NumPy or SciPy", where=f"Recipe, {where}", got=name,
                          remedy="Use a function like numpy.log1p")  # fmt: skip


def _describe_object(value: Any, where: str) -> dict[str, Any]:
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if package in _CATALOGUE:
        raise DefinitionError("trees of another library must be named, not built", where=f"Recipe, {where}",
                              got=kind.__name__,
                              remedy=f"Write Recipe({_CATALOGUE[package]!r}, params={{…}})")  # fmt: skip
    if callable(value) and not hasattr(value, "get_params") and package != "sklearn":
        raise DefinitionError("a function must be a ufunc of NumPy or SciPy: no other can be stored without pickle",
                              where=f"Recipe, {where}", got=getattr(value, "__name__", kind.__name__),
                              remedy="Use one like numpy.log1p, or make the column a derived feature")  # fmt: skip
    if package != "sklearn":
        raise DefinitionError(
            "every part must be of scikit-learn: a class of your own cannot be stored without pickle",
            where=f"Recipe, {where}", got=f"{kind.__module__}.{kind.__name__}",
            remedy="Register it with @estimator, and name it in the recipe" if hasattr(value, "predict") else OWN_STEP,
        )  # fmt: skip
    if kind.__name__ in {"OneHotEncoder", "OrdinalEncoder"} and value.handle_unknown == "error":
        how = "'ignore'" if kind.__name__ == "OneHotEncoder" else "'use_encoded_value', unknown_value=-1"
        raise DefinitionError("an encoder must take categories that the training rows did not hold",
                              where=f"Recipe, {where}", got=f"{kind.__name__}(handle_unknown='error')",
                              remedy=f"Write handle_unknown={how}")  # fmt: skip
    params = value.get_params(deep=False) if hasattr(value, "get_params") else vars(value)
    return {"class": f"{kind.__module__}.{kind.__name__}",
            "params": {name: _describe(part, f"{kind.__name__}.{name}") for name, part in params.items()}}  # fmt: skip


def _build(body: Any, seed: int | None = None) -> Any:
    """Inverse of :func:`_describe`."""
    if isinstance(body, list):
        return [_build(part, seed) for part in body]
    if not isinstance(body, dict):
        return body
    match body:
        case {"tuple": parts}:
            return tuple(_build(part, seed) for part in parts)
        case {"dict": pairs}:
            return {_build(key, seed): _build(part, seed) for key, part in pairs}
        case {"slice": ends}:
            return slice(*ends)
        case {"array": parts, "dtype": kind}:
            import numpy as np

            return np.array([_build(part, seed) for part in parts], dtype=kind)
        case {"numpy": reference}:
            home, _, name = reference.partition(":")
            return getattr(import_module(home), name)
    home, _, name = body["class"].rpartition(".")
    if not home.startswith("sklearn."):
        raise DefinitionError("every part must be of scikit-learn", where="SklearnSpec", got=body["class"],
                              remedy="Make it with SklearnSpec.of")  # fmt: skip
    params = {key: _build(part, seed) for key, part in body["params"].items()}
    if seed is not None and "random_state" in params and params["random_state"] is None:
        params["random_state"] = seed
    return getattr(import_module(home), name)(**params)
