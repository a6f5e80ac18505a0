"""Estimators: what a recipe can name, one registration for each.

A registration is plain data with references (``"package.module:name"``) instead of functions. So definitions know every
name and default without loading NumPy or LightGBM, and a stored model is read without the project that registered its
estimator. Those of the package are in ``catalogue``; anybody's own join by :func:`register_estimator`, by the decorator
:func:`estimator`, or by an entry point ``retrodict.estimators`` of an installed package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from importlib import import_module
from importlib.metadata import entry_points
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.tasks import TASKS, Task
from retrodict.models._lightgbm import main_names

if TYPE_CHECKING:
    from retrodict.models.engines.base import Engine
    from retrodict.models.problem import Fitted, Problem

__all__ = [
    "Estimator",
    "FeatureType",
    "estimator",
    "estimators_of",
    "get_estimator",
    "list_estimators",
    "load_engine",
    "load_libraries",
    "register_estimator",
]

_FEW_CLASSES = 20  # of whole numbers that may be names
# With fewer cells than this threads wait for each other longer than they work.
_FEW_CELLS = 200_000

FeatureType = Literal["number", "category"]
F = TypeVar("F", bound="Callable[..., Any] | type")


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
    kinds : tuple of str, default ()
        Further kinds of engines that ``fit`` may return.
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
    optional : tuple of str, default ()
        Parameters of which None means no limit; one whose default is None may be None, too.
    choices : mapping of str to tuple, optional
        Values of parameters that are words.
    fixed : mapping, optional
        What ``fit`` gets beside the recipe's parameters, and no recipe changes.
    extra : str, default ""
        Extra of the package that its library comes with.
    missing, categories : bool, default True
        Whether it takes NaN for what is missing, and codes as categories. One that does not prepares the rows itself:
        medians with an indicator, one column per category with the rare ones grouped.
    weights : bool, default True
        Whether rows may have weights, and they change the fit.
    monotone : bool, default False
        Whether the parameter ``monotone``, a mapping of feature to 1 or -1, makes the output rise or fall with it.
    probabilities : bool, default True
        Whether scores of classes are probabilities before any calibration.
    exact_rows : bool, default True
        Whether one row is scored bit for bit as in a batch; else to ``row_error``.
    row_error : float, default 1e-12
        How far, relative to its size or 1, a row's outputs may be from those in a batch where they are not exact.
    explains : bool, default True
        Whether there are exact contributions.
    space : mapping of str to tuple, optional
        Search space: ``("float", low, high, log)``, ``("int", low, high, log)`` or ``("choice", [...])``.
    rounds : tuple of (str, str), optional
        Parameters that say how many iterations there are at most, and after how many without a better one it stops.
    contributions : str, default "none"
        What ``engine.contributions`` gives for a row, in words.
    warm_start : {"", "trees", "coefficients", "weights"}, default ""
        What it takes over from a version that a fit goes on from (``problem.start``); empty: it cannot.
    libraries : tuple of str, default ()
        Modules that ``fit`` imports only when it runs; they are loaded before its time is taken.

    Examples
    --------
    >>> get_estimator("logistic").defaults["penalty"]
    1.0
    """

    name: str
    fit: str
    engine: str
    kind: str = ""
    kinds: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    minimum: Mapping[str, float] = field(default_factory=dict)
    maximum: Mapping[str, float] = field(default_factory=dict)
    aliases: bool = False
    tasks: tuple[Task, ...] = ("binary",)
    inputs: tuple[str, ...] = ("number", "category")
    validates: bool = True
    optional: tuple[str, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    extra: str = ""
    missing: bool = True
    categories: bool = True
    weights: bool = True
    monotone: bool = False
    probabilities: bool = True
    exact_rows: bool = True
    row_error: float = 1e-12
    explains: bool = True
    space: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rounds: tuple[str, ...] = ()
    contributions: str = "none"
    warm_start: Literal["", "trees", "coefficients", "weights"] = ""
    libraries: tuple[str, ...] = ()

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
        where = f"Recipe, params of {self.name}"
        names = {*self.defaults, *self.required, *(("monotone",) if self.monotone else ())}
        for name in sorted(params) if not self.aliases else ():
            rule = "a parameter must be one of the estimator"
            check_known(name, names, rule, where=where, what="parameter", error=DefinitionError)
        if absent := [name for name in self.required if params.get(name) is None]:
            raise DefinitionError(f"the parameter {absent[0]!r} must have a value", where=where, got=sorted(params),
                                  remedy=f"Pass params={{{absent[0]!r}: …}}")  # fmt: skip
        if self.monotone:
            _check_signs(params.get("monotone"), where)
        if self.name == "lightgbm":
            native = {name: value for name, value in params.items() if name != "monotone"}
            params = main_names(native, self.defaults, where=where, error=DefinitionError)
        for name in sorted({*params} & {*self.choices}):
            if params[name] not in self.choices[name]:
                words = ", ".join(map(repr, self.choices[name]))
                raise DefinitionError(f"{name} must be one of {words}", where=where, got=params[name],
                                      remedy="Correct it, or leave it out for the default")  # fmt: skip
        for name, value in params.items():
            if name in {*self.minimum, *self.maximum}:
                self._check_number(name, value, where)

    def _check_number(self, name: str, value: object, where: str) -> None:
        if value is None and (name in self.optional or (name in self.defaults and self.defaults[name] is None)):
            return
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

    def parameters_of(self, task: Task) -> set[str] | None:
        """Parameters that it reads for a task, where that depends on the task; else None."""
        words = [self.fixed[word] for word in ("detector", "classifier", "regressor") if word in self.fixed]
        if len(words) < 2:
            return None
        home, _, name = words[task not in ("binary", "multiclass")].rpartition(".")
        extra = {"scaler"} if "scaler" in self.defaults else set()
        return extra | set(getattr(import_module(home), name)().get_params())

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
            values = sorted(set(problem.train.labels.tolist()))
            codes = task == "regression" and "multiclass" in self.tasks and all(value.is_integer() for value in values)
            advice = "" if not codes or len(values) > _FEW_CLASSES else (
                f", or name the classes where they are no numbers: Label(…, classes={[int(value) for value in values]})"
            )  # fmt: skip
            raise InputError(f"the task must be one of the estimator: {', '.join(self.tasks)}", where=where, got=task,
                             remedy=f"Choose one of {', '.join(estimators_of(task))}{advice}")  # fmt: skip
        if refused := [f.name for f in problem.inputs.features if f.type not in self.inputs]:
            raise InputError(f"features must be of a type that the estimator takes: {', '.join(self.inputs)}",
                             where=where, got=refused[:5], remedy="Leave these features out of the model")  # fmt: skip
        if problem.train.weights is not None and not self.weights:
            raise InputError("rows must have no weights where the estimator takes none", where=where,
                             got="weights of rows", remedy="Leave them out, or choose another estimator")  # fmt: skip

        params = problem.params if self.aliases else {**self.defaults, **problem.params, **self.fixed}
        problem = replace(problem, params=params)
        if problem.start is not None:
            problem = self._continued(problem)
        if problem.checkpoints is not None:
            from retrodict.models.checkpoints import problem_key

            problem = replace(problem, checkpoints=problem.checkpoints.of(problem_key(self.name, problem)))
        from threadpoolctl import threadpool_limits

        fit = _resolve(self.fit)  # first: a library that is loaded later has no limit
        small = problem.train.matrix.size < _FEW_CELLS
        with threadpool_limits(limits=1, user_api="openmp") if small else nullcontext():
            fitted: Fitted[Any] = fit(problem)
        if fitted.engine.kind not in (self.kind, *self.kinds):
            raise DefinitionError("an engine must be of the kind that its estimator registers", where=where,
                                  got=fitted.engine.kind, remedy=f"Set its attribute kind = {self.kind!r}")  # fmt: skip
        return fitted

    def _continued(self, problem: Problem) -> Problem:
        """The problem with a seed of its own: with the source's the rows that its first trees drew are drawn again."""
        assert problem.start is not None
        engine = problem.start.engine
        if engine.kind not in (self.kind, *self.kinds):
            raise InputError(f"a version to begin from must be of the estimator {self.name!r}", where="start_from",
                             got=engine.kind, remedy="Begin from a version of the same estimator")  # fmt: skip
        return replace(problem, seed=(problem.seed + int(engine.fingerprint()[:7], 16)) % 2**31)


def _check_signs(signs: Any, where: str) -> None:
    if signs is None:
        return
    if not isinstance(signs, Mapping) or not all(type(sign) is int and sign in (-1, 0, 1) for sign in signs.values()):
        raise DefinitionError("monotone must be a mapping of features to 1 or -1", where=where, got=signs,
                              remedy="Write params={'monotone': {'income': 1}}")  # fmt: skip


_ESTIMATORS: dict[str, Estimator] = {}
_CATALOGUE = "retrodict.models.catalogue"
_ENTRY_POINTS = "retrodict.estimators"
# Kinds of engines that no estimator has for its own.
_MORE: Mapping[str, str] = {
    "corrected": "retrodict.models.engines.composite:CorrectedEngine",
    "ensemble": "retrodict.models.engines.composite:EnsembleEngine",
    "group_outputs": "retrodict.models.engines.rates:GroupOutputsEngine",
    "lightgbm_levels": "retrodict.models.engines.levels:LevelsEngine",
    "linear": "retrodict.models.engines.linear:LinearEngine",
    "network_onnx": "retrodict.models.engines.onnx:OnnxNetworkEngine",
    "prepared": "retrodict.models.engines.composite:PreparedEngine",
}


def estimators_of(task: Task) -> list[str]:
    """Names of the registered estimators that learn a task."""
    import_module(_CATALOGUE)
    return sorted(name for name, estimator in _ESTIMATORS.items() if task in estimator.tasks)


def load_libraries(estimators: Iterable[Estimator]) -> None:
    """Import what fits of estimators need, so that a clock which is started afterwards times the fits alone."""
    for estimator in estimators:
        _resolve(estimator.fit)
        for module in estimator.libraries:
            with suppress(ImportError):  # the fit says which extra is missing
                import_module(module)


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
    """Estimator by the name that recipes use; DefinitionError names the nearest ones.

    One that nobody registered is looked for among the entry points ``retrodict.estimators`` of installed packages.
    """
    import_module(_CATALOGUE)
    if name not in _ESTIMATORS:
        _load_entry_points()
    rule = "an estimator must be registered"
    return _ESTIMATORS[check_known(name, _ESTIMATORS, rule, where="Recipe", what="estimator", error=DefinitionError)]


def list_estimators() -> list[Estimator]:
    """Every estimator that a recipe can name, by name: the catalogue, registered ones, those of installed packages."""
    import_module(_CATALOGUE)
    _load_entry_points()
    return [_ESTIMATORS[name] for name in sorted(_ESTIMATORS)]


@cache
def _load_entry_points() -> None:
    """Import what installed packages announce: a module that registers, or an Estimator."""
    for point in entry_points(group=_ENTRY_POINTS):
        try:
            loaded = point.load()
        except (ImportError, AttributeError) as error:
            raise DefinitionError("an entry point must be importable", where=f"entry point {point.name!r}",
                                  got=point.value,
                                  remedy="Repair or remove the package that has it") from error  # fmt: skip
        if isinstance(loaded, Estimator):
            register_estimator(loaded)


def estimator(name: str, *, engine: type | None = None, **capabilities: Any) -> Callable[[F], F]:
    """Register a function or a class as an estimator, where it is written.

    Parameters
    ----------
    name : str
        What recipes call it.
    engine : type, optional
        Class of the fitted engine of a function; a class is its own engine, and its static method ``fit`` fits it.
    **capabilities
        Every other parameter of :class:`Estimator`: tasks, defaults, minimum, weights, ...

    Raises
    ------
    DefinitionError
        If it is not in a module that other processes can import.

    Examples
    --------
    Of an installed module::

        @estimator("hourly", engine=HourlyEngine, defaults={"prior_count": 5.0}, minimum={"prior_count": 0})
        def fit_hourly(problem): ...
    """

    def register(target: F) -> F:
        home: Any = engine or target
        for thing in (target, home):
            if thing.__module__ == "__main__" or "<locals>" in thing.__qualname__:
                raise DefinitionError("an estimator must be in a module that other processes can import",
                                      where=f"estimator {name!r}", got=f"{thing.__module__}.{thing.__qualname__}",
                                      remedy="Move it to the top of a module of an installed package")  # fmt: skip
        reference = f"{home.__module__}:{home.__qualname__}"
        if "kind" not in vars(home):
            home.kind = reference
        fit = f"{target.__module__}:{target.__qualname__}" + (".fit" if isinstance(target, type) else "")
        register_estimator(Estimator(name=name, fit=fit, engine=reference, kind=home.kind, **capabilities))
        return target

    return register


def load_engine(kind: str, parts: Mapping[str, bytes]) -> Engine:
    """Engine of a kind from its stored parts.

    The parts must be trusted, that is, verified by hash: the C parser of a damaged tree file may end the process.

    Raises
    ------
    NotFoundError
        If there is no such kind in this version of the package.
    """
    import_module(_CATALOGUE)
    references = dict(_MORE) | {registered.kind: registered.engine for registered in _ESTIMATORS.values()}
    rule = "an engine must be of a kind that is registered"
    reference = kind if ":" in kind else references[check_known(kind, references, rule, where="model", what="engine")]
    engine: Engine = _resolve(reference).from_parts(parts)
    return engine


def _resolve(reference: str) -> Any:
    """Class or function that a reference names."""
    module, _, name = reference.partition(":")
    try:
        return reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise DefinitionError("the code of an estimator must be importable", where="estimator", got=reference,
                              remedy="Install the package it is in; a module of the project's folder is not importable "
                              "where models are served") from error  # fmt: skip
