"""Steps of a recipe as definitions: what is filled, scaled, encoded and selected, by name of the feature.

Each is immutable data that loads nothing; ``build`` makes the step of :mod:`retrodict.estimators` for columns that are
known.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from retrodict.core.errors import DefinitionError, check_known, near
from retrodict.core.tasks import Target
from retrodict.models.imbalance import Balance, Threshold
from retrodict.models.objects import OWN_STEP, ObjectSpec, built, resolve

__all__ = ["Balance", "Encode", "Impute", "Interact", "Scale", "Select", "Threshold", "Transform", "as_step"]

_FOREST: Mapping[str, Any] = {"estimator": "forest", "scoring": None, "max_rows": 10_000}
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "bins": (2, math.inf), "degree": (2, 5), "folds": (2, math.inf), "high": (0, 1), "iterations": (1, math.inf),
    "k": (1, math.inf), "limit": (0, 1), "low": (0, 1), "max_categories": (1, math.inf), "max_rows": (10, math.inf),
    "min_features": (1, math.inf), "min_share": (0, 1), "minimum": (0, math.inf), "n": (1, math.inf),
    "neighbours": (1, math.inf), "repeats": (1, math.inf), "smoothing": (0, math.inf), "step": (1e-9, math.inf),
    "wide": (1, math.inf),
}  # fmt: skip
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "by": ("quantile", "uniform"),
    "indicators": ("auto", True, False),
    "order": ("code", "frequency"),
    "powers": (True, False),
}
# Parameters of a definition that its step calls otherwise.
_RENAMED: Mapping[str, str] = {"by": "method", "folds": "splitter"}


@dataclass(frozen=True, slots=True)
class _Method:
    """The step behind a word: its class, what is fixed, and every parameter with its default."""

    step: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, init=False)
class _Preparation:
    """Base: a method, the features that it is for, and the parameters that differ from their defaults."""

    methods: ClassVar[Mapping[str, _Method]]
    of_categories: ClassVar[tuple[str, ...]] = ()  # methods whose columns must be categories

    method: str
    columns: tuple[str, ...] | None
    params: tuple[tuple[str, Any], ...]

    def __init__(self, method: str, columns: Sequence[str] | None = None, **params: Any) -> None:
        where = type(self).__name__
        check_known(method, self.methods, "a method must be one that exists", where=where, what="method",
                    error=DefinitionError)  # fmt: skip
        if isinstance(columns, str) or (columns is not None and not all(isinstance(name, str) for name in columns)):
            raise DefinitionError("columns must be a list of names of features", where=where, got=columns,
                                  remedy=f"Write {where}({method!r}, ['carrier'])")  # fmt: skip
        defaults = self.methods[method].defaults
        values = {}
        for name, value in params.items():
            rule = f"a parameter must be one of {where}({method!r})"
            check_known(name, defaults, rule, where=where, what="parameter", error=DefinitionError)
            checked = _checked(f"{where}({method!r}), {name}", name, value, defaults[name])
            if checked != defaults[name] or isinstance(checked, bool) != isinstance(defaults[name], bool):
                values[name] = checked
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))
        # A default that is written out is the same definition, and a parameter that is added later changes none.
        object.__setattr__(self, "params", tuple(sorted(values.items())))

    def __identity__(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "columns": self.columns,
            "params": dict(self.params),
        }

    def build(
        self,
        names: Sequence[str],
        categorical: Sequence[int] = (),
        *,
        target: Target | None = None,
        seed: int = 0,
        splitter: Any = None,
    ) -> Any:
        """The step, unfitted.

        Parameters
        ----------
        names : sequence of str
            Columns of the matrix, in order.
        categorical : sequence of int, default ()
            Places of those that hold category codes.
        target : Target, optional
            Says whether labels are classes; None: the step looks at them.
        seed : int, default 0
        splitter : splitter of scikit-learn or iterable of (train, test) positions, optional
            Folds for steps that look at labels; None: as many as ``folds``, shuffled by the seed.

        Returns
        -------
        retrodict.estimators.Step

        Raises
        ------
        DefinitionError
            If a column is not among the names, or one to encode is a number.
        """
        where = f"{type(self).__name__}({self.method!r})"
        places = None if self.columns is None else [_place(name, names, where) for name in self.columns]
        for place in places or () if self.method in self.of_categories else ():
            if place not in categorical:
                raise DefinitionError("a column to encode must be a category", where=where, got=names[place],
                                      remedy=f"Say Recipe(types={{{names[place]!r}: 'category'}})")  # fmt: skip
        method = self.methods[self.method]
        params = {**method.defaults, **dict(self.params)}
        settings = {_RENAMED.get(name, name): built(value) for name, value in params.items()}
        task = None if target is None else "classification" if target.probabilistic else "regression"
        context = {"columns": places, "categorical": tuple(categorical), "names": tuple(names), "seed": seed,
                   "task": task or "auto"}  # fmt: skip
        if splitter is not None:
            context["splitter"] = splitter
        kind = resolve(f"retrodict.estimators.{method.step}")
        accepted = inspect.signature(kind.__init__).parameters
        context = {name: value for name, value in context.items() if name in accepted}
        return kind(**{**settings, **context, **method.fixed})

    def written(self) -> str:
        """As it is written in a definitions module: its text."""
        return repr(self)

    def __repr__(self) -> str:
        """As it is written in a definitions module."""
        columns = [] if self.columns is None else [repr(list(self.columns))]
        params = [f"{name}={value!r}" for name, value in self.params]
        return f"{type(self).__name__}({', '.join([repr(self.method), *columns, *params])})"


def _place(name: str, names: Sequence[str], where: str) -> int:
    check_known(name, names, "a column must be one of those that the step gets", where=where, what="column",
                error=DefinitionError)  # fmt: skip
    return list(names).index(name)


def _checked(where: str, name: str, value: Any, default: Any) -> Any:
    """Value of a parameter: of the type of its default, within its bounds, objects of scikit-learn as data."""
    if name in _CHOICES:
        if not any(value is choice or (value == choice and isinstance(value, str)) for choice in _CHOICES[name]):
            raise DefinitionError("a parameter must be one of its values", where=where, got=value,
                                  remedy=near(str(value), map(str, _CHOICES[name]), what="value"))  # fmt: skip
        return value
    if name == "estimator":
        return value if isinstance(value, str) else ObjectSpec.of(value, where=where)
    if value is None and default is None:
        return None
    if name == "scoring":
        if not isinstance(value, str):
            raise DefinitionError("a scoring must be a name of scikit-learn", where=where, got=type(value).__name__,
                                  remedy="Write it like 'roc_auc'")  # fmt: skip
        return value
    low, high = _BOUNDS.get(name, (-math.inf, math.inf))
    is_whole = name != "step" and (default is None or isinstance(default, int))
    usable = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not usable or not math.isfinite(value) or (is_whole and value != int(value)):
        kind = "a whole number" if is_whole else "a number"
        span = f" from {low:g}" * (low > -math.inf) + f" to {high:g}" * (high < math.inf)
        raise DefinitionError(f"the parameter must be {kind}{span}", where=where, got=value,
                              remedy=f"Leave it out for the default, {default!r}")  # fmt: skip
    return int(value) if is_whole or (name == "step" and value >= 1) else float(value)


_IMPUTE: Mapping[str, Any] = {"indicators": "auto"}


class Impute(_Preparation):
    """Fill missing values: ``mean``, ``median``, ``mode``, ``constant``, ``auto``, ``knn``, ``iterative``, or ``keep``.

    Parameters
    ----------
    method : str, default "median"
    columns : sequence of str, optional
        Features; None: all numbers.
    **params
        ``indicators``; ``constant``; ``neighbours``; ``iterations``: as in :class:`retrodict.estimators.Imputer`.

    Examples
    --------
    >>> Impute("median", ["wind"], indicators=False)
    Impute('median', ['wind'], indicators=False)
    """

    methods: ClassVar[Mapping[str, _Method]] = {
        **{word: _Method("impute:Imputer", {"strategy": word}, _IMPUTE)
           for word in ("auto", "keep", "mean", "median", "mode")},
        "constant": _Method("impute:Imputer", {"strategy": "constant"}, {**_IMPUTE, "constant": 0.0}),
        "knn": _Method("impute:Imputer", {"strategy": "knn"}, {**_IMPUTE, "neighbours": 5}),
        "iterative": _Method("impute:Imputer", {"strategy": "iterative"}, {**_IMPUTE, "iterations": 10}),
    }  # fmt: skip

    def __init__(self, method: str = "median", columns: Sequence[str] | None = None, **params: Any) -> None:
        super().__init__(method, columns, **params)


class Scale(_Preparation):
    """Bring numbers to a scale: ``standard``, ``robust``, ``min_max``, ``log``, ``power``, or ``clip`` their tails.

    Parameters
    ----------
    method : str, default "standard"
    columns : sequence of str, optional
        Features; None: all numbers.
    **params
        ``low`` and ``high`` of ``clip``, levels of quantiles.

    Examples
    --------
    >>> Scale("clip", ["delay"], high=0.999)
    Scale('clip', ['delay'], high=0.999)
    """

    methods: ClassVar[Mapping[str, _Method]] = {
        **{
            word: _Method("shape:Scaler", {"method": word})
            for word in ("log", "min_max", "power", "robust", "standard")
        },
        "clip": _Method("shape:Clipper", {}, {"low": 0.01, "high": 0.99}),
    }

    def __init__(self, method: str = "standard", columns: Sequence[str] | None = None, **params: Any) -> None:
        super().__init__(method, columns, **params)


class Encode(_Preparation):
    """Turn categories into numbers: ``onehot``, ``ordinal``, ``frequency``, ``target``; or numbers into ``bins``.

    Parameters
    ----------
    method : str
    columns : sequence of str, optional
        Features; None: all categories (``bins``: all numbers).
    **params
        ``min_share``, ``max_categories`` of ``onehot``; ``order``; ``smoothing``, ``folds`` of ``target``; ``bins``,
        ``by``.

    Examples
    --------
    >>> Encode("target", ["carrier"], smoothing=50)
    Encode('target', ['carrier'], smoothing=50.0)
    """

    of_categories: ClassVar[tuple[str, ...]] = ("frequency", "onehot", "ordinal", "target")
    methods: ClassVar[Mapping[str, _Method]] = {
        "onehot": _Method("encode:OneHotEncoder", {}, {"min_share": 0.01, "max_categories": 50}),
        "ordinal": _Method("encode:OrdinalEncoder", {}, {"order": "code"}),
        "frequency": _Method("encode:FrequencyEncoder"),
        "target": _Method("encode:TargetEncoder", {}, {"smoothing": 20.0, "folds": 5}),
        "bins": _Method("shape:Binner", {}, {"bins": 10, "by": "quantile"}),
    }


class Interact(_Preparation):
    """Add products of features.

    Parameters
    ----------
    columns : sequence of str, optional
        Factors; None: all numbers.
    **params
        ``degree``, ``powers``: as in :class:`retrodict.estimators.Interactions`.

    Examples
    --------
    >>> Interact(["wind", "rain"], powers=False)
    Interact(['wind', 'rain'], powers=False)
    """

    methods: ClassVar[Mapping[str, _Method]] = {
        "products": _Method("shape:Interactions", {}, {"degree": 2, "powers": True})
    }

    def __init__(self, columns: Sequence[str] | None = None, **params: Any) -> None:
        super().__init__("products", columns, **params)

    def __repr__(self) -> str:
        """As it is written in a definitions module."""
        return super().__repr__().replace("'products', ", "").replace("'products'", "")


class Select(_Preparation):
    """Select features; which ones is learned from the training rows.

    Written by the method: ``Select.rfecv(min_features=8)``.

    Examples
    --------
    >>> Select.rfe(8, step=2), Select.correlation(limit=0.9)
    (Select.rfe(n=8, step=2), Select.correlation(limit=0.9))
    """

    methods: ClassVar[Mapping[str, _Method]] = {
        "variance": _Method("selection:VarianceSelector", {}, {"minimum": 0.0}),
        "correlation": _Method("selection:CorrelationSelector", {}, {"limit": 0.95}),
        "mutual_information": _Method(
            "selection:InformationSelector", {}, {"k": None, "above": 0.0, "max_rows": 20_000}
        ),
        "permutation": _Method(
            "elimination:PermutationSelector", {}, {"k": None, "above": 0.0, "repeats": 5, "folds": 5, **_FOREST}
        ),
        "rfe": _Method("elimination:RecursiveSelector", {}, {"n": None, "step": 1, "wide": 200, **_FOREST}),
        "rfecv": _Method(
            "elimination:RecursiveSelector", {},
            {"min_features": 1, "step": 1, "folds": 5, "wide": 200, **_FOREST},
        ),
    }  # fmt: skip

    def __init__(self, method: str, **params: Any) -> None:
        super().__init__(method, None, **params)

    def __repr__(self) -> str:
        """As it is written in a definitions module."""
        return f"Select.{self.method}({', '.join(f'{name}={value!r}' for name, value in self.params)})"

    @classmethod
    def variance(cls, minimum: float = 0.0) -> Select:
        """What varies more than a minimum."""
        return cls("variance", minimum=minimum)

    @classmethod
    def correlation(cls, limit: float = 0.95) -> Select:
        """Of two features correlated beyond the limit, the one more related to the label."""
        return cls("correlation", limit=limit)

    @classmethod
    def mutual_information(cls, k: int | None = None, **params: Any) -> Select:
        """The ``k`` with most mutual information with the label, or those above ``above``."""
        return cls("mutual_information", k=k, **params)

    @classmethod
    def permutation(cls, k: int | None = None, **params: Any) -> Select:
        """The ``k`` whose shuffling costs most score on unseen rows, or those above ``above``."""
        return cls("permutation", k=k, **params)

    @classmethod
    def rfe(cls, n: int, **params: Any) -> Select:
        """Recursive elimination down to ``n``; ``step``, ``estimator``, ``wide``, ``max_rows``."""
        return cls("rfe", n=n, **params)

    @classmethod
    def rfecv(cls, min_features: int = 1, **params: Any) -> Select:
        """Recursive elimination to the best cross-validated score; ``step``, ``scoring``, ``folds``, ``estimator``."""
        return cls("rfecv", min_features=min_features, **params)


@dataclass(frozen=True, init=False)
class Transform:
    """A transformer of scikit-learn, for some features; the others stay beside what it gives.

    Parameters
    ----------
    part : transformer of scikit-learn, or ObjectSpec
    columns : sequence of str, optional
        Features; None: all numbers.
    """

    part: ObjectSpec
    columns: tuple[str, ...] | None

    def __init__(self, part: Any, columns: Sequence[str] | None = None) -> None:
        spec = ObjectSpec.of(part, where="Transform")
        if not spec.reference.startswith("sklearn."):
            raise DefinitionError("a step must be of scikit-learn: a class of your own cannot be stored without pickle",
                                  where="Recipe, prepare", got=spec.reference, remedy=OWN_STEP)  # fmt: skip
        if not hasattr(resolve(spec.reference), "transform"):
            raise DefinitionError("a step must have a method transform", where="Transform", got=spec.reference,
                                  remedy="Name an estimator as Recipe(estimator=…), not as a step")  # fmt: skip
        object.__setattr__(self, "part", spec)
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))

    def build(
        self,
        names: Sequence[str],
        categorical: Sequence[int] = (),
        *,
        target: Target | None = None,  # noqa: ARG002 - every step is built alike
        seed: int = 0,  # noqa: ARG002
        splitter: Any = None,  # noqa: ARG002
    ) -> Any:
        """The step, unfitted; as in the other definitions."""
        places = None if self.columns is None else [_place(name, names, "Transform") for name in self.columns]
        kind = resolve("retrodict.estimators.foreign:ScikitLearnStep")
        return kind(self.part.build(), columns=places, categorical=tuple(categorical))


def as_step(value: Any) -> Any:
    """A step of a recipe as a definition: one of this module as it is, a transformer of scikit-learn as Transform.

    Raises
    ------
    DefinitionError
        If it is neither.

    Examples
    --------
    >>> as_step(Impute()) is not None
    True
    """
    if isinstance(value, _Preparation | Transform):
        return value
    if isinstance(value, Balance | Threshold):
        raise DefinitionError("a step must change columns", where="Recipe, prepare", got=type(value).__name__,
                              remedy=f"Pass it as Recipe({type(value).__name__.lower()}=…)")  # fmt: skip
    return Transform(value)
