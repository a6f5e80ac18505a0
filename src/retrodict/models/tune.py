"""Tuning as a definition: what may vary, in which order it is searched, and when the search ends.

What a search chose is plain data, a *choice*. :meth:`Tune.concrete` turns a recipe and a choice into the recipe that is
trained, so that a replay needs the choice and not the search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, InternalError, check_known, near
from retrodict.evaluation.directions import better
from retrodict.models.ensembles import Ensemble

if TYPE_CHECKING:
    from retrodict.core.tasks import Target
    from retrodict.models.definitions import Recipe

__all__ = ["AUTO", "Choice", "Dimension", "Tune"]

Choice = Mapping[str, Any]
Search = Literal["joint", "sequential", "nested"]
Sampler = Literal["tpe", "cmaes", "random", "grid"]
Pruner = Literal["median", "hyperband", "wilcoxon", "none"]
Combining = Literal["greedy", "stack", "vote"]

_MOST_JOBS = 256

AUTO = "auto"
"""The estimator of a recipe that looks for one."""

_WORDS = {"search": get_args(Search), "sampler": get_args(Sampler), "pruner": get_args(Pruner),
          "engine": ("processes", "inline", "ray")}  # fmt: skip
# Candidates of "auto", the likeliest first; those whose fit grows faster than their rows up to a number of rows.
_CANDIDATES: Mapping[str, float] = {
    "lightgbm": math.inf, "xgboost": math.inf, "catboost": 200_000, "extra_trees": 200_000, "mlp": 100_000,
    "random_forest": 200_000, "logistic": math.inf, "linear": math.inf, "poisson": math.inf, "knn": 20_000,
    "histogram_boosting": math.inf, "cox": math.inf, "aft": math.inf,
}  # fmt: skip
# What of a recipe may vary beside the estimator and its parameters, and how an option is read.
_PARTS = ("prepare", "balance", "half_life")
_ALL, _IMPORTANT = "all", "importance"
# Columns and seconds from which on "auto" looks whether fewer columns do better; the most rows and least seconds to do
# so by importance, which fits forests in every fold.
_WIDE, _SELECT_S, _IMPORTANCE_ROWS, _IMPORTANCE_S = 8, 60, 20_000, 300


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing that varies.

    Attributes
    ----------
    name : str
        ``"estimator"``, ``"prepare"``, ``"lightgbm.num_leaves"`` …
    kind : {"float", "int", "choice"}
    low, high : float
        Both included; 0 for a choice.
    log : bool
        Whether it varies in orders of magnitude.
    options : tuple
        Plain values of a choice; of estimators and lists of steps their words.
    when : str, optional
        The candidate that it is a parameter of; None: it always varies.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    options: tuple[Any, ...] = ()
    when: str | None = None

    @property
    def phase(self) -> Literal["features", "model"]:
        """When a sequential search looks at it."""
        return "features" if self.name in (*_PARTS, "select") else "model"

    @classmethod
    def of(cls, name: str, space: Any, *, when: str | None = None, where: str) -> Dimension:
        """Read what somebody wrote: a list of options, ``(low, high)`` or ``(low, high, "log")``.

        Raises
        ------
        DefinitionError
            If it is none of these, or holds nothing to vary.
        """
        if isinstance(space, tuple) and space[:1] and space[0] in ("float", "int"):
            _, low, high, log = space
            return cls(name, space[0], low, high, log, when=when)
        if isinstance(space, tuple) and space[:1] == ("choice",):
            space = space[1]
        if isinstance(space, list) and space:
            return cls(name, "choice", options=tuple(space), when=when)
        numbers = space[:2] if isinstance(space, tuple) else ()
        plain = len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        log = len(space) == 3 and space[2] == "log" if plain else False
        if not plain or not numbers[0] < numbers[1] or (len(space) > 2 and not log) or (log and numbers[0] <= 0):
            raise DefinitionError("a space must be a list of options, or (low, high), or (low, high, 'log') above 0",
                                  where=where, got=space, remedy="Write {'num_leaves': (8, 256, 'log')}")  # fmt: skip
        kind: Literal["int", "float"] = "int" if all(isinstance(n, int) for n in numbers) else "float"
        return cls(name, kind, numbers[0], numbers[1], log, when=when)


@dataclass(frozen=True)
class Tune:
    """How the settings of a recipe are found.

    Each trial is a recipe with other settings. It is judged on folds of the training rows that the recipe's split cuts
    (purged where there is time), so that validation and test rows choose nothing. The first trial is the recipe as it
    is written: what tuning gained over it is reported. What was found is then trained like any other recipe.

    Parameters
    ----------
    recipe : Recipe, optional
        ``Tune(Recipe(...), trials=60)`` is ``Recipe(..., tune=Tune(trials=60))``.
    trials : int, default 60
        At most, the first included.
    timeout : duration, optional
        Searching ends after that long; what is being fitted is stopped.
    search : {"joint", "sequential", "nested"}, default "joint"
        ``joint``: everything at once. ``sequential``: first how features are prepared, then the estimator with its
        parameters. ``nested``: the estimator's parameters anew for each way to prepare the features.
    space : mapping, optional
        Of each parameter a list of options, ``(low, high)`` or ``(low, high, "log")``. Beside parameters of the
        estimator: ``"estimator"``, a list of names, scikit-learn objects or Recipes; ``"prepare"``, a list of lists of
        steps; ``"select"``, a list of ``"all"``, numbers of features (those that tell most of the label) and
        ``"importance"`` (those whose shuffling costs); ``"balance"``, ``"half_life"``, lists of what a Recipe takes.
        Where there are several estimators, or an
        ensemble's members, theirs are named ``"lightgbm.num_leaves"``. Nothing else varies; without a space what the
        catalogue's entry of each estimator says.
    sampler : {"tpe", "cmaes", "random", "grid"}, default "tpe"
        Which settings are tried next; ``grid`` takes each combination of lists once.
    pruner : {"median", "hyperband", "wilcoxon", "none"}, default "median"
        Which trials are given up after some of their folds.
    metric : str, optional
        Metric to judge by. None: the loss of the task (log loss, squared error, pinball loss, deviance, 1 - NDCG).
    folds : int, default 4
    patience : int, optional
        Searching ends after so many trials without a better one.
    ensemble : False, True, or list of {"greedy", "stack", "vote"}, default False
        Whether the best trials are joined, if that does better on rows that neither saw; True means greedy.
    jobs : int, optional
        Fits at a time, each in a process of its own. None: one, of which a search that is made again makes the same
        trials; for ``"auto"`` as many as there are cores.
    engine : {"processes", "inline", "ray"}, default "processes"
        Where they are; ``inline``, in this process, begins at once, and a fit that takes too long is not stopped.

    Examples
    --------
    >>> from retrodict import RandomSplit, Recipe
    >>> tuned = Recipe("lightgbm", RandomSplit(), tune=Tune(trials=30, space={"num_leaves": (8, 256, "log")}))
    >>> [dimension.name for dimension in tuned.tune.dimensions(tuned)]
    ['lightgbm.num_leaves']
    """

    recipe: Any = None
    trials: int = 60
    timeout: str | None = None
    search: Search = "joint"
    space: Mapping[str, Any] = field(default_factory=dict)
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    metric: str | None = None
    folds: int = 4
    patience: int | None = None
    ensemble: bool | tuple[Combining, ...] | list[Combining] = False
    jobs: int | None = field(default=None, metadata={"identity": False})
    engine: str = field(default="processes", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check words and numbers, and read the lists of steps, recipes and scikit-learn objects as data."""
        for name, words in _WORDS.items():
            rule = f"{name} must be one of the words there are"
            check_known(getattr(self, name), words, rule, where="Tune", what="word", error=DefinitionError)
        for name, least in (("trials", 1), ("folds", 2), ("patience", 1), ("jobs", 1)):
            value: object = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise DefinitionError(f"{name} must be a whole number of at least {least}", where="Tune", got=value,
                                      remedy="Correct it, or leave it out for the default")  # fmt: skip
        if self.jobs is not None and self.jobs > _MOST_JOBS:
            raise DefinitionError(f"there must be at most {_MOST_JOBS} fits at a time", where="Tune, jobs",
                                  got=self.jobs, remedy="Say as many as there are cores")  # fmt: skip
        if self.metric is not None:
            better(self.metric)  # refuses what is no metric, and what is right at one value
        if self.timeout is not None and parse_duration(self.timeout, where="Tune, timeout") <= 0:
            raise DefinitionError("a timeout must be longer than nothing", where="Tune", got=self.timeout,
                                  remedy="Write timeout='15m'")  # fmt: skip
        combining = () if self.ensemble is False else ("greedy",) if self.ensemble is True else tuple(self.ensemble)
        for word in combining:
            rule = "an ensemble of trials must be made in a way that there is"
            check_known(word, get_args(Combining), rule, where="Tune", what="way", error=DefinitionError)
        object.__setattr__(self, "ensemble", combining)
        space: object = self.space
        if not isinstance(space, Mapping):
            raise DefinitionError("a space must be a mapping of names to what they vary over", where="Tune",
                                  got=type(space).__name__, remedy="Write space={'num_leaves': (8, 256)}")  # fmt: skip
        keys: list[object] = list(self.space)
        if odd := [key for key in keys if not isinstance(key, str)]:
            raise DefinitionError("a space must be a mapping of names to what they vary over", where="Tune, space",
                                  got=odd,
                                  remedy="Write space={'num_leaves': (8, 256)}")  # fmt: skip
        object.__setattr__(self, "space", {name: _read_options(name, value) for name, value in self.space.items()})

    def applied(self) -> Recipe:
        """The recipe that it was given, tuned.

        Raises
        ------
        DefinitionError
            If it was given none.
        """
        from retrodict.models.definitions import Recipe

        recipe: object = self.recipe
        if not isinstance(recipe, Recipe):
            raise DefinitionError("a Tune in place of a recipe must hold one", where="Tune", got=type(recipe).__name__,
                                  remedy="Write Tune(Recipe('lightgbm', split=…), trials=60)")  # fmt: skip
        return replace(recipe, tune=replace(self, recipe=None))

    @property
    def seconds(self) -> float | None:
        """Timeout in seconds."""
        return None if self.timeout is None else parse_duration(self.timeout) / 1e6

    @cached_property
    def _named(self) -> dict[str, dict[str, Any]]:
        """Options that are no plain values, by their words: estimators, lists of steps, ways to balance."""
        return {name: _by_word(self.space[name]) for name in ("estimator", *_PARTS) if name in self.space}

    def candidates(self, recipe: Recipe, target: Target | None = None, rows: int = 0) -> dict[str, Any]:
        """Estimators whose parameters vary, by their words: options, members of an ensemble, or the recipe's own.

        Of ``"auto"`` those of the catalogue that learn the task, whose library is here, and that so many rows suit.
        """
        if "estimator" in self._named:
            return self._named["estimator"]
        if isinstance(recipe.estimator, Ensemble):
            return dict(recipe.estimator.named_members())
        if recipe.estimator == AUTO:
            return {name: name for name in _suited(target, rows)}
        return {recipe.label: recipe.estimator}

    def dimensions(
        self, recipe: Recipe, target: Target | None = None, rows: int = 0, columns: int = 0
    ) -> list[Dimension]:
        """Everything that varies in a recipe; for a target, so many training rows and columns where they are known.

        Raises
        ------
        DefinitionError
            If the space names something that nothing reads, or nothing varies.
        """
        candidates = self.candidates(recipe, target, rows)
        alternatives = "estimator" in self._named or recipe.estimator == AUTO
        dimensions = [Dimension.of(name, list(options), where=f"Tune, space of {name!r}")
                 for name, options in self._named.items()]  # fmt: skip
        if alternatives and "estimator" not in self._named:
            dimensions.append(Dimension("estimator", "choice", options=tuple(candidates)))
        rest = {name: space for name, space in self.space.items() if name not in self._named}
        if "select" in rest:
            dimensions.append(Dimension.of("select", _checked_selection(rest.pop("select")), where="Tune, space"))
        elif (
            recipe.estimator == AUTO and not self.space and columns >= _WIDE and (self.seconds or math.inf) >= _SELECT_S
        ):
            important = rows <= _IMPORTANCE_ROWS and (self.seconds or math.inf) >= _IMPORTANCE_S
            options = (_ALL, round(columns / 2), round(columns / 4), *((_IMPORTANT,) if important else ()))
            dimensions.append(Dimension("select", "choice", options=options))
        for word, candidate in candidates.items():
            when = word if alternatives and len(candidates) > 1 else None
            dimensions += _parameters(
                word, candidate, recipe, rest, alone=len(candidates) == 1, when=when, exact=bool(self.space)
            )
        if target is not None:
            _check_consumed(dimensions, candidates, target)
        if rest:
            names = [*_PARTS, "estimator", "select", *(f"{word}.…" for word in candidates)]
            raise DefinitionError("a space must be of what the recipe reads", where="Tune, space", got=sorted(rest),
                                  remedy=near(min(rest), names, what="name"))  # fmt: skip
        if not dimensions:
            raise DefinitionError("something must vary", where="Tune", got=f"an empty space for {recipe.label!r}",
                                  remedy="Say which parameters: space={'alpha': (0.01, 10.0, 'log')}")  # fmt: skip
        return dimensions

    def concrete(self, recipe: Recipe, choice: Choice) -> Recipe:
        """The recipe with a choice in place of what varied.

        Parameters
        ----------
        recipe : Recipe
        choice : mapping
            Name of a dimension to its value; ``members``, a list of choices with ``how`` and ``weights``, for an
            ensemble of trials. What it does not name is as the recipe says.
        """
        from retrodict.models import ensembles
        from retrodict.models.definitions import Recipe

        if choice.get("select", _ALL) != _ALL:
            rest = {name: value for name, value in choice.items() if name != "select"}
            variant = self.concrete(recipe, rest)
            return replace(variant, prepare=(*variant.prepare, _selection(choice["select"])))
        plain = replace(
            recipe,
            tune=None,
            budget=None,
            estimator=_fixed(recipe),
            refit=(recipe.fits_again and choice.get("refit", True)) or None,
        )
        if "members" in choice:
            recipes = [self.concrete(recipe, member) for member in choice["members"]]
            members = [Recipe(one.estimator, params=one.params, prepare=one.prepare, balance=one.balance,
                              baseline_group=one.baseline_group, seed=one.seed) for one in recipes]  # fmt: skip
            joined = ensembles.Stack(members, folds=self.folds) if choice["how"] == "stack" else ensembles.Vote(
                members, weights=choice["weights"])  # fmt: skip
            return replace(plain, estimator=joined, params={}, prepare=(), balance=None)
        changes: dict[str, Any] = {
            name: self._named[name][choice[name]] for name in _PARTS if name in choice and name in self._named
        }
        if "estimator" in choice:
            option = self._named.get("estimator", {}).get(choice["estimator"], choice["estimator"])
            params = _params_of(choice["estimator"], choice)
            return replace(plain, **{**_as_changes(option, params), **changes})
        if isinstance(recipe.estimator, Ensemble):
            members = [
                _with_params(member, _params_of(word, choice)) for word, member in recipe.estimator.named_members()
            ]
            return replace(plain, estimator=replace(recipe.estimator, members=members), **changes)
        params = _params_of(recipe.label, choice)
        if not params or not isinstance(recipe.estimator, str):
            return replace(plain, **changes, **({"estimator": recipe.estimator.changed(params)} if params else {}))
        return replace(plain, params={**recipe.params, **params}, **changes)


def _selection(option: Any) -> Any:
    """The step of an option of ``"select"``."""
    from retrodict.models.steps import Select

    return Select.permutation() if option == _IMPORTANT else Select.mutual_information(int(option))


def _checked_selection(options: Any) -> Any:
    for option in options if isinstance(options, list) else ():
        number = isinstance(option, int) and not isinstance(option, bool) and option >= 1
        if not number and option not in (_ALL, _IMPORTANT):
            raise DefinitionError("features must be selected by a number of at least 1, 'all' or 'importance'",
                                  where="Tune, space of 'select'", got=option,
                                  remedy="Write space={'select': ['all', 10, 5]}")  # fmt: skip
    return options


def _check_consumed(dimensions: Sequence[Dimension], candidates: Mapping[str, Any], target: Target) -> None:
    """Refuse parameters of the other of two classes of scikit-learn: one list serves classifier and regressor.

    Raises
    ------
    DefinitionError
        If the estimator of this task does not read one.
    """
    for one in dimensions:
        word, _, name = one.name.partition(".")
        if word not in candidates or not name:
            continue
        read = getattr(_with_params(candidates[word], {}).registered, "parameters_of", lambda _task: None)(target.task)
        if read is not None and name not in read:
            raise DefinitionError("a space must be of what the estimator reads for the task", where="Tune, space",
                                  got=one.name, remedy=near(name, sorted(read), what="parameter"))  # fmt: skip


def refuse_auto(_problem: Any) -> Any:
    """The estimator ``"auto"`` is replaced by what a search found before anything is fitted.

    Raises
    ------
    InternalError
        Always.
    """
    raise InternalError("the estimator 'auto' must be recipes before it is fitted", where="Recipe", got=AUTO,
                        remedy="Report it")  # fmt: skip


def _fixed(recipe: Recipe) -> Any:
    """The recipe's estimator; of ``"auto"`` one that a choice replaces."""
    return "constant" if recipe.estimator == AUTO else recipe.estimator


def _read_options(name: str, options: Any) -> Any:
    """Options of a name as data: steps, recipes and scikit-learn objects are read as a recipe reads them."""
    if name not in ("estimator", *_PARTS):
        return tuple(options) if isinstance(options, tuple) else list(options) if isinstance(options, list) else options
    if not isinstance(options, list | tuple) or not options:
        raise DefinitionError(f"the options of {name} must be a list", where="Tune, space", got=type(options).__name__,
                              remedy=f"Write {name!r}: [first, second]")  # fmt: skip
    if name == "prepare":
        from retrodict.models.steps import as_step

        if not all(isinstance(option, list | tuple) for option in options):
            raise DefinitionError("each way to prepare must be a list of steps", where="Tune, space of 'prepare'",
                                  got=[type(option).__name__ for option in options],
                                  remedy="Write [[], [Impute('median')]]")  # fmt: skip
        return [tuple(as_step(step) for step in option) for option in options]
    if name == "estimator":
        return [_as_option(option) for option in options]
    return list(options)


def _as_option(option: Any) -> Any:
    """An estimator as data; a Recipe stays one."""
    from retrodict.models.definitions import Recipe
    from retrodict.models.specs import SklearnSpec

    if isinstance(option, str | Recipe | Ensemble | SklearnSpec):
        return option
    return SklearnSpec.of(option)


def _by_word(options: Sequence[Any]) -> dict[str, Any]:
    """Options by a word for each; of equal words the later ones get a number."""
    words = [_word(option) for option in options]
    return {
        f"{word}_{words[: at + 1].count(word)}" if words[:at].count(word) else word: option
        for at, (word, option) in enumerate(zip(words, options, strict=True))
    }


def _word(option: Any) -> str:
    if option is None or option == ():
        return "none"
    if isinstance(option, tuple):
        return " + ".join(_word(step) for step in option)
    method = getattr(option, "method", None)
    if method is not None:
        return f"{type(option).__name__.lower()} {method}"
    return str(getattr(option, "label", None) or getattr(option, "name", None) or option)


def _parameters(
    word: str, candidate: Any, recipe: Recipe, rest: dict[str, Any], *, alone: bool, when: str | None, exact: bool
) -> Iterator[Dimension]:
    """What varies of one candidate; what it reads is taken out of the rest of the space."""
    from retrodict.models.definitions import Recipe

    base = candidate if isinstance(candidate, Recipe) else Recipe(candidate, params=recipe.params if alone else {})
    prefix = f"{word}."
    names = {name: name.removeprefix(prefix) for name in rest if name.startswith(prefix)}
    if alone:
        names |= {name: name for name in rest if name not in names and "." not in name}
    where = f"Tune, space of {word!r}"
    if not names:
        for name, space in getattr(base.registered, "space", {}).items():
            if name not in base.params and not exact:
                yield Dimension.of(prefix + name, space, when=when, where=where)
        return
    for name, param in names.items():
        dimension = Dimension.of(prefix + param, rest.pop(name), when=when, where=where)
        for value in dimension.options or (dimension.low, dimension.high):
            _with_params(base, {param: value})  # refuses what the estimator does not read
        yield dimension


def _params_of(word: str, choice: Choice) -> dict[str, Any]:
    return {name.removeprefix(f"{word}."): value for name, value in choice.items() if name.startswith(f"{word}.")}


def _as_changes(option: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a recipe whose estimator is an option with some parameters."""
    one = _with_params(option, params)
    steps = {"prepare": one.prepare} if one.prepare else {}
    return {"estimator": one.estimator, "params": one.params, **steps,
            **({} if one.balance is None else {"balance": one.balance})}  # fmt: skip


def _with_params(member: Any, params: Mapping[str, Any]) -> Recipe:
    """A candidate as a recipe, with some parameters over its own."""
    from retrodict.models.definitions import Recipe

    recipe = member if isinstance(member, Recipe) else Recipe(member)
    if not params:
        return recipe
    if isinstance(recipe.estimator, str):
        return replace(recipe, params={**recipe.params, **params})
    if isinstance(recipe.estimator, Ensemble):
        raise DefinitionError("an ensemble among the options must have nothing that varies", where="Tune, space",
                              got=sorted(params), remedy="Tune it as the recipe's own estimator")  # fmt: skip
    return replace(recipe, estimator=recipe.estimator.changed(params))


def _suited(target: Target | None, rows: int) -> list[str]:
    """Estimators of the catalogue for a task and so many rows, whose library is here."""
    from importlib.util import find_spec

    from retrodict.models.estimators import get_estimator

    fitting = []
    for name, limit in _CANDIDATES.items():
        entry = get_estimator(name)
        if (
            (target is None or target.task in entry.tasks)
            and rows <= limit
            and (not entry.extra or find_spec(entry.extra))
        ):
            fitting.append(name)
    return fitting
