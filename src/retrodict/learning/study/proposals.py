"""Which trial comes next: Optuna's samplers and pruners over the trials so far, or each combination once.

A proposal follows from the seed and the trials before, and from nothing that a process remembers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrodict.core.errors import ConfigurationError, DefinitionError
from retrodict.models.tune import Choice, Dimension, Tune

if TYPE_CHECKING:
    import optuna

__all__ = ["Proposer", "StudyTrial", "importance_of", "key_of"]

State = Literal["finished", "pruned", "failed"]

# So many proposals in a row that were tried already: nothing new is left to try.
_REPEATED = 50


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """One recipe that was tried.

    Attributes
    ----------
    number, phase : int
        From 0 on.
    choice : mapping
        What it chose, by name of the dimension; empty for the recipe as it is written.
    state : {"finished", "pruned", "failed"}
    folds : tuple of float
        Value on each fold that was judged.
    seconds : float
        Of its fits.
    error : str
        Of a failed one.
    """

    number: int
    phase: int
    choice: Choice
    state: State
    folds: tuple[float, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def value(self) -> float | None:
        """Mean over the folds; None unless it finished."""
        return float(np.mean(self.folds)) if self.state == "finished" else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the folds (n - 1); None unless it finished on two or more."""
        return float(np.std(self.folds, ddof=1)) if self.state == "finished" and len(self.folds) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**asdict(self), "choice": dict(self.choice), "folds": list(self.folds), "value": self.value,
                "std": self.std}  # fmt: skip


@dataclass(eq=False)
class Proposer:
    """Proposals of one phase of a search.

    Parameters
    ----------
    tune : Tune
    dimensions : list of Dimension
        What varies in this phase.
    base : mapping
        What is held, as a choice.
    defaults : mapping
        Value of a dimension where a choice says nothing.
    firsts : sequence of mappings
        Choices to try before any proposal.
    phase, seed : int
    higher : bool
        Whether a higher value is better.
    folds : int
    since : int
        The first phase whose trials are learned from.
    startup : int, default 8
        Trials at random before a sampler learns.
    """

    tune: Tune
    dimensions: list[Dimension]
    base: Choice
    defaults: Mapping[str, Any]
    firsts: Sequence[Choice]
    phase: int
    seed: int
    higher: bool
    folds: int
    since: int = 0
    startup: int = 8
    ended: str = field(default="", init=False)
    # What a sampler remembers of a trial: kept in memory only, so that CMA-ES begins anew after a kill.
    _attributes: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def next(
        self, trials: Sequence[StudyTrial], under_way: Sequence[Choice]
    ) -> tuple[Choice, optuna.Trial | None] | None:
        """The next choice, with Optuna's trial where it is its; None, with ``ended`` saying why, if nothing is new.

        Raises
        ------
        ConfigurationError
            If Optuna is not installed.
        DefinitionError
            If a grid is asked for and something is a range.
        """
        tried = {key_of(choice) for choice in (*(trial.choice for trial in trials), *under_way)}
        grid = self._combinations() if self.tune.sampler == "grid" else ()
        for choice in (*self.firsts, *grid):
            if key_of(choice) not in tried:
                return choice, None
        if grid:
            self.ended = "each combination was tried"
            return None
        for attempt in range(_REPEATED):
            study = self._study(trials, under_way)
            study.sampler = self._sampler(self._seed(len(trials) + len(under_way), attempt))
            proposal = study.ask()
            choice = {**self.base, **self._suggest(proposal)}
            if key_of(choice) not in tried:
                self._attributes[key_of(choice)] = dict(study.trials[-1].system_attrs)
                return choice, proposal
        self.ended = "nothing new was left to try"
        return None

    def _seed(self, number: int, attempt: int) -> int:
        """Seed of one proposal: of neighbouring numbers and of other recipes' seeds nothing alike."""
        digest = hashlib.sha256(f"{self.seed}/{self.phase}/{number}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:4])

    def _study(self, trials: Sequence[StudyTrial], under_way: Sequence[Choice]) -> Any:
        """Trials of this phase as Optuna has them, those that run among them."""
        optuna: Any = _optuna()
        states = optuna.trial.TrialState
        study = optuna.create_study(
            direction="maximize" if self.higher else "minimize", pruner=self._pruner(), study_name=f"{self.phase}"
        )
        for trial in trials:
            if self.since <= trial.phase <= self.phase and trial.state != "failed" and trial.folds:
                means = {at: float(np.mean(trial.folds[:at])) for at in range(1, len(trial.folds) + 1)}
                state = states.COMPLETE if trial.state == "finished" else states.PRUNED
                self._add(study, trial.choice, state=state, value=means[len(means)], intermediate_values=means)
        for choice in under_way:
            self._add(study, choice, state=states.RUNNING)
        return study

    def _add(self, study: Any, choice: Choice, **facts: Any) -> None:
        params = self._params(choice)
        if params is not None:
            distributions = {one.name: _distribution(one) for one in self.dimensions if one.name in params}
            study.add_trial(_optuna().create_trial(
                params=params, distributions=distributions, system_attrs=self._attributes.get(key_of(choice), {}),
                **facts,
            ))  # fmt: skip

    def _sampler(self, seed: int) -> Any:
        samplers = _optuna().samplers
        match self.tune.sampler:
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=self.startup)

    def _pruner(self) -> Any:
        pruners = _optuna().pruners
        match self.tune.pruner:
            case "hyperband":
                return pruners.HyperbandPruner(min_resource=1, max_resource=self.folds, reduction_factor=2)
            case "wilcoxon":
                return pruners.WilcoxonPruner()
            case "none":
                return pruners.NopPruner()
            case _:
                return pruners.MedianPruner(n_startup_trials=5)

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        choice: dict[str, Any] = {}
        for one in self._active(choice):
            match one.kind:
                case "float":
                    choice[one.name] = trial.suggest_float(one.name, one.low, one.high, log=one.log)
                case "int":
                    choice[one.name] = trial.suggest_int(one.name, int(one.low), int(one.high), log=one.log)
                case _:
                    words = {_text(option): option for option in one.options}
                    choice[one.name] = words[trial.suggest_categorical(one.name, list(words))]
        return choice

    def _active(self, choice: Mapping[str, Any]) -> Iterator[Dimension]:
        """Dimensions that a choice has, the estimator first: it says which others there are."""
        for one in sorted(self.dimensions, key=lambda one: one.name != "estimator"):
            if one.when is None or one.when == choice.get("estimator", self.base.get("estimator")):
                yield one

    def _params(self, choice: Choice) -> dict[str, Any] | None:
        """The choice as a sampler has it, defaults filled in; None where one is not within its space."""
        full = {**self.defaults, **self.base, **choice}
        params = {}
        for one in self._active(full):
            value = full.get(one.name)
            if one.kind == "choice":
                value = _text(value)
                fits = value in map(_text, one.options)
            else:
                fits = isinstance(value, int | float) and one.low <= value <= one.high
            if not fits:
                return None
            params[one.name] = value
        return params

    def _combinations(self) -> list[Choice]:
        """Every combination of the options."""
        if ranges := [one.name for one in self.dimensions if one.kind != "choice"]:
            raise DefinitionError("a grid must be of lists of options", where="Tune, space", got=ranges[:3],
                                  remedy="Write space={'num_leaves': [15, 31, 63]}")  # fmt: skip
        estimators = next((one.options for one in self.dimensions if one.name == "estimator"), (None,))
        combinations: list[Choice] = []
        for estimator in estimators:
            fixed = {} if estimator is None else {"estimator": estimator}
            active = [one for one in self._active(fixed) if one.name != "estimator"]
            for options in itertools.product(*(one.options for one in active)):
                pairs = zip((one.name for one in active), options, strict=True)
                combinations.append({**self.base, **fixed, **dict(pairs)})
        return combinations


def importance_of(trials: Sequence[StudyTrial], dimensions: Sequence[Dimension], *, higher: bool) -> dict[str, float]:
    """Share of each dimension in how the values of finished trials differ (PED-ANOVA); empty below ten trials.

    Notes
    -----
    Watanabe, Bansal & Hutter 2023, IJCAI: Pearson divergence-based functional ANOVA on the better trials. Of dimensions
    that only some candidates have nothing is said.
    """
    shared = [one for one in dimensions if one.when is None]
    full = [trial for trial in trials if trial.value is not None and all(one.name in trial.choice for one in shared)]
    if len(full) < 10 or len(shared) < 2:
        return {}
    optuna = _optuna()
    distributions = {one.name: _distribution(one) for one in shared}
    study = optuna.create_study(direction="maximize" if higher else "minimize")
    for trial in full:
        params = {one.name: _text(trial.choice[one.name]) if one.kind == "choice" else trial.choice[one.name]
                  for one in shared}  # fmt: skip
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=trial.value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def _optuna() -> Any:
    """The library, silent."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError("Optuna must be installed to search settings", where="Tune", got="no optuna",
                                 remedy="Install retrodict[tune]") from error  # fmt: skip
    import warnings

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _distribution(one: Dimension) -> Any:
    """A dimension as Optuna has it."""
    distributions = _optuna().distributions
    if one.kind == "choice":
        return distributions.CategoricalDistribution([_text(option) for option in one.options])
    if one.kind == "int":
        return distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return distributions.FloatDistribution(one.low, one.high, log=one.log)


def _text(option: Any) -> str:
    return option if isinstance(option, str) else json.dumps(option)


def key_of(choice: Choice) -> str:
    """A choice as text: equal exactly when the choices are."""
    return json.dumps(choice, sort_keys=True)
