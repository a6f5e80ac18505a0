"""Estimators: what a recipe can name, one registration for each.

A registration is plain data with references (``"package.module:name"``) instead of functions. So definitions know every
name and default without loading NumPy or LightGBM, and a stored model is read without the project that registered its
estimator. Entry points were rejected: an import in the definitions module is part of the code that a run records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.tasks import TASKS, Task
from retrodict.models._lightgbm import main_names

if TYPE_CHECKING:
    from retrodict.models.engines.base import Engine
    from retrodict.models.problem import Fitted, Problem

__all__ = [
    "LIGHTGBM_DEFAULTS",
    "Estimator",
    "FeatureType",
    "estimators_of",
    "get_estimator",
    "load_engine",
    "register_estimator",
]

FeatureType = Literal["number", "category"]

# Written out so that a run records all of it and an upgrade of LightGBM cannot move it.
LIGHTGBM_DEFAULTS: Mapping[str, Any] = {
    "num_iterations": 1_000,
    "early_stopping_round": 50,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "max_depth": -1,
    "min_data_in_leaf": 40,
    "min_sum_hessian_in_leaf": 1e-3,
    "min_gain_to_split": 0.0,
    "lambda_l1": 0.0,
    "lambda_l2": 1.0,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
    "max_bin": 255,
    "min_data_per_group": 100,
    "max_cat_threshold": 32,
    "cat_l2": 10.0,
    "cat_smooth": 10.0,
    "num_threads": 0,
}

# As in the parameters of LightGBM's manual; one that must be above 0 is told by a number that is nearly 0.
_LIGHTGBM_MINIMUM: Mapping[str, float] = {
    "num_iterations": 1,
    "early_stopping_round": -1,
    "learning_rate": 1e-12,
    "num_leaves": 2,
    "max_depth": -1,
    "min_data_in_leaf": 0,
    "min_sum_hessian_in_leaf": 0,
    "min_gain_to_split": 0,
    "lambda_l1": 0,
    "lambda_l2": 0,
    "feature_fraction": 1e-12,
    "bagging_fraction": 1e-12,
    "bagging_freq": 0,
    "max_bin": 2,
    "min_data_per_group": 1,
    "max_cat_threshold": 1,
    "cat_l2": 0,
    "cat_smooth": 0,
    "num_threads": -1,
}


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """How a kind of model is fitted, read again and explained.

    Parameters
    ----------
    name : str
        What ``Recipe(estimator=...)`` names.
    fit : str
        Reference to a function of a :class:`~retrodict.models.problem.Problem` that returns a
        :class:`~retrodict.models.problem.Fitted`.
    engine : str
        Reference to the class of the fitted engine; its ``from_parts`` reads the stored form.
    kind : str, optional
        Name of the engine in stored models, its ``kind`` attribute; by default the reference itself.
    defaults : mapping, optional
        Every parameter with its default.
    required : tuple of str, default ()
        Parameters without a default.
    minimum, maximum : mapping of str to float, optional
        Smallest and greatest value of parameters that are numbers; one whose default and minimum are whole is whole.
    aliases : bool, default False
        True: it knows further names of parameters. ``fit`` then gets the recipe's as they are and checks them; else
        they are checked where the recipe is defined, and ``fit`` gets the defaults with them.
    tasks : tuple of Task, default ("binary",)
    inputs : tuple of str, default ("number", "category")
        Types of features that it takes.
    validates : bool, default True
        Whether ``fit`` looks at the validation rows: it then gets their earlier half, and calibration the later one.
    contributions : str
        What ``engine.contributions`` gives for a row, in words.

    Examples
    --------
    >>> get_estimator("logistic").defaults["penalty"]
    1.0
    """

    name: str
    fit: str
    engine: str
    kind: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    minimum: Mapping[str, float] = field(default_factory=dict)
    maximum: Mapping[str, float] = field(default_factory=dict)
    aliases: bool = False
    tasks: tuple[Task, ...] = ("binary",)
    inputs: tuple[str, ...] = ("number", "category")
    validates: bool = True
    contributions: str

    def __post_init__(self) -> None:
        """Check what can be checked without loading the estimator."""
        where = f"estimator {self.name!r}"
        for task in self.tasks:
            rule = "an estimator must be of tasks that there are"
            check_known(task, TASKS, rule, where=where, what="task", error=DefinitionError)
        for reference in (self.fit, self.engine):
            if reference.count(":") != 1:
                raise DefinitionError("a reference must read PACKAGE.MODULE:NAME", where=where, got=reference,
                                      remedy="Write it like 'my_package.trees:fit'")  # fmt: skip
        object.__setattr__(self, "kind", self.kind or self.engine)

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse parameters that the estimator does not have, or values outside their bounds.

        Raises
        ------
        DefinitionError
            Names the nearest parameters.
        """
        where, names = f"Recipe, params of {self.name}", {*self.defaults, *self.required}
        for name in sorted(params) if not self.aliases else ():
            rule = "a parameter must be one of the estimator"
            check_known(name, names, rule, where=where, what="parameter", error=DefinitionError)
        if absent := [name for name in self.required if params.get(name) is None]:
            raise DefinitionError(f"the parameter {absent[0]!r} must have a value", where=where, got=sorted(params),
                                  remedy=f"Pass params={{{absent[0]!r}: …}}")  # fmt: skip
        if self.name == "lightgbm":
            params = main_names(params, self.defaults, where=where, error=DefinitionError)
        for name, value in params.items():
            if name in {*self.minimum, *self.maximum}:
                self._check_number(name, value, where)

    def _check_number(self, name: str, value: object, where: str) -> None:
        least, greatest = self.minimum.get(name, -math.inf), self.maximum.get(name, math.inf)
        whole_only = isinstance(self.defaults.get(name), int) and isinstance(least, int)
        kind: Any = Integral if whole_only else Real
        if (
            isinstance(value, bool)
            or not isinstance(value, kind)
            or not least <= value <= greatest
            or value == math.inf
        ):
            bounds = f"of at least {least:g}" + (f" and at most {greatest:g}" if greatest < math.inf else "")
            raise DefinitionError(f"{name} must be a {'whole ' if whole_only else ''}number {bounds}", where=where,
                                  got=value, remedy="Correct it, or leave it out for the default")  # fmt: skip

    def solve(self, problem: Problem) -> Fitted[Any]:
        """Fit the estimator; parameters that the problem does not give have their defaults.

        Raises
        ------
        InputError
            If the estimator is not for the task, or does not take a feature's type.
        DefinitionError
            If the fitted engine is not of the registered kind.
        """
        where = f"estimator {self.name!r}"
        task = problem.train.target.task
        if task not in self.tasks:
            raise InputError(f"the task must be one of the estimator: {', '.join(self.tasks)}", where=where, got=task,
                             remedy=f"Choose one of {', '.join(estimators_of(task))}")  # fmt: skip
        if refused := [f.name for f in problem.inputs.features if f.type not in self.inputs]:
            raise InputError(f"features must be of a type that the estimator takes: {', '.join(self.inputs)}",
                             where=where, got=refused[:5], remedy="Leave these features out of the model")  # fmt: skip
        params = problem.params if self.aliases else {**self.defaults, **problem.params}
        fitted: Fitted[Any] = _resolve(self.fit)(replace(problem, params=params))
        if fitted.engine.kind != self.kind:
            raise DefinitionError("an engine must be of the kind that its estimator registers", where=where,
                                  got=fitted.engine.kind, remedy=f"Set its attribute kind = {self.kind!r}")  # fmt: skip
        return fitted


_ESTIMATORS: dict[str, Estimator] = {}
# Kinds of engines that no estimator has for its own.
_MORE: Mapping[str, str] = {
    "corrected": "retrodict.models.engines.composite:CorrectedEngine",
    "ensemble": "retrodict.models.engines.composite:EnsembleEngine",
    "group_outputs": "retrodict.models.engines.rates:GroupOutputsEngine",
    "prepared": "retrodict.models.engines.composite:PreparedEngine",
}


def estimators_of(task: Task) -> list[str]:
    """Names of the registered estimators that learn a task."""
    return sorted(name for name, estimator in _ESTIMATORS.items() if task in estimator.tasks)


def register_estimator(estimator: Estimator) -> Estimator:
    """Let recipes name an estimator from here on; the built-in names cannot be taken.

    Its code must be importable wherever its models are served: a module of an installed package.

    Raises
    ------
    DefinitionError
        If the name is a built-in one.
    """
    registered = _ESTIMATORS.get(estimator.name)
    if registered is not None and registered != estimator and registered.fit.startswith("retrodict."):
        raise DefinitionError("a built-in estimator must not be replaced", where="register_estimator",
                              got=estimator.name, remedy="Choose another name")  # fmt: skip
    _ESTIMATORS[estimator.name] = estimator
    return estimator


def get_estimator(name: str) -> Estimator:
    """Estimator by the name that recipes use; DefinitionError names the nearest ones."""
    rule = "an estimator must be registered"
    return _ESTIMATORS[check_known(name, _ESTIMATORS, rule, where="Recipe", what="estimator", error=DefinitionError)]


def load_engine(kind: str, parts: Mapping[str, bytes]) -> Engine:
    """Engine of a kind from its stored parts.

    The parts must be trusted, that is, verified by hash: the C parser of a damaged tree file may end the process.

    Raises
    ------
    NotFoundError
        If there is no such kind in this version of the package.
    """
    references = dict(_MORE) | {estimator.kind: estimator.engine for estimator in _ESTIMATORS.values()}
    rule = "an engine must be of a kind that is registered"
    reference = kind if ":" in kind else references[check_known(kind, references, rule, where="model", what="engine")]
    engine: Engine = _resolve(reference).from_parts(parts)
    return engine


def _resolve(reference: str) -> Any:
    """Class or function that a reference names."""
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DefinitionError("the code of an estimator must be importable", where="estimator", got=reference,
                              remedy="Install the package it is in; a module of the project's folder is not importable "
                              "where models are served") from error  # fmt: skip


_ENGINES = "retrodict.models.engines"
for _estimator in (
    Estimator(
        name="constant",
        fit=f"{_ENGINES}.rates:solve_constant",
        engine=f"{_ENGINES}.rates:ConstantEngine",
        kind="constant",
        validates=False,
        contributions="none: the rate is the same for every row",
    ),
    Estimator(
        name="group_rate",
        fit=f"{_ENGINES}.rates:solve_group_rate",
        engine=f"{_ENGINES}.rates:GroupRateEngine",
        kind="group_rate",
        validates=False,
        defaults={"prior_count": 20.0},
        required=("group",),
        minimum={"prior_count": 0},
        contributions="how far the category's rate is from the rate of all, in log-odds",
    ),
    Estimator(
        name="lightgbm",
        fit=f"{_ENGINES}.trees:solve_lightgbm",
        engine=f"{_ENGINES}.trees:TreesEngine",
        kind="lightgbm",
        defaults=LIGHTGBM_DEFAULTS,
        minimum=_LIGHTGBM_MINIMUM,
        maximum={"num_leaves": 131_072, "feature_fraction": 1, "bagging_fraction": 1},
        aliases=True,
        contributions="exact Shapley values along the trees",
    ),
    Estimator(
        name="logistic",
        fit=f"{_ENGINES}.linear:solve_logistic",
        engine=f"{_ENGINES}.linear:LinearEngine",
        kind="linear",
        validates=False,
        defaults={"penalty": 1.0, "max_iterations": 1_000},
        minimum={"penalty": 0, "max_iterations": 1},
        contributions="weight times distance from the training mean",
    ),
):
    register_estimator(_estimator)
