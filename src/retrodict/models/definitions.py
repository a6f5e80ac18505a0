"""What a definitions module says about models: recipe, features, gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, get_args

from retrodict.core.definition import Definition
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.names import NameUse
from retrodict.core.tasks import TASKS, Target, Task
from retrodict.evaluation.gates import check_gate, gate_metrics, gate_text, needed_setting
from retrodict.features.definitions import FeatureView, RowColumns
from retrodict.features.labels import Label, Outcome
from retrodict.features.plan import FeatureSet
from retrodict.models.ensembles import Blend, Ensemble, Stack, check_task
from retrodict.models.estimators import Estimator, FeatureType, estimators_of, get_estimator
from retrodict.models.splits import Splitter
from retrodict.models.tune import AUTO, Tune
from retrodict.models.warmstart import WarmStart

__all__ = ["Model", "Recipe", "named_feature"]

_READ_LABEL = ("correlation", "mutual_information", "permutation", "rfe", "rfecv", "target")
_CALIBRATIONS = ("auto", "isotonic", "none", "sigmoid", "temperature")
_NEEDED = {
    "threshold": ("a threshold", "Give the recipe a threshold=, like Threshold.recall(0.8)"),
    "interval": ("an interval", "Give the recipe an interval=, like 0.9"),
}
_SPLIT_REMEDY = "Pass split=TimeSplit(train='2013-01-01/2013-07-01'), or RandomSplit() where rows have no time"


def named_feature(name: str, columns: Iterable[str]) -> str:
    """Full name of the feature that a short one means: ``view__name``, where only one view has it; else the name."""
    columns = list(columns)
    longer = [column for column in columns if column.partition("__")[2] == name]
    return longer[0] if name not in columns and len(longer) == 1 else name


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Parameters
    ----------
    estimator : str, estimator or Pipeline of scikit-learn, or Ensemble
        A name of the catalogue (``retrodict models estimators``), one of your own that was registered, an unfitted
        object of scikit-learn, or an ensemble such as ``Stack(["lightgbm", "logistic"])``. The baseline ladder is
        trained beside any of them.
    split : TimeSplit, RandomSplit, GroupSplit, HashSplit, Rolling or Purged
        Which rows train, choose and judge. None only for a member of an ensemble.
    calibrate : {"auto", "none", "sigmoid", "isotonic", "temperature"}, default "auto"
        How scores become probabilities; fitted on validation rows, of which an estimator that stops early leaves the
        later half to it. ``"auto"`` takes the method of the least cross-validated log loss, isotonic regression only
        from 1,000 rows of the rarer class on.
    params : mapping, optional
        Parameters of the estimator, over its defaults.
    baseline_group : str, optional
        Feature whose groups give the ladder's "rate per group" rung, and those of the estimator ``group_rate``.
    baseline : str, optional
        What somebody would answer without a model, as an expression over features (by their own names where they are
        unique): a rung of the ladder, like ``"mean_delay_24h > 10"``. True is a yes; null is the answer for every row.
    seed : int, default 0
        The only source of randomness; 0 to 2**31 - 1, as LightGBM takes.
    types : mapping of str to {"number", "category"}, optional
        What to take a feature for; by default text is a category, everything else a number.
    weights : str, optional
        Expression over a row of the label's table: how much the row counts in training, zero or more. None: all alike.
    half_life : duration, optional
        A training row that was decided on so long before the newest one counts half as much. None: age is no matter.
    prepare : list of steps, optional
        What happens to the features before the estimator, in order: ``Impute``, ``Scale``, ``Encode``, ``Select``, or a
        transformer of scikit-learn. They are fitted on the training rows and are part of the model.
    balance : Balance, optional
        How the classes of the training rows are balanced, and only theirs.
    threshold : Threshold, optional
        How to choose a threshold of the score on the validation rows; a policy reads it as ``threshold``.
    interval : float, optional
        Share of the outcomes that a prediction interval (``low``, ``high``) or set of classes (``set["late"]``) must
        hold, like 0.9: by split conformal prediction on the validation rows.
    tune : Tune, optional
        How settings are searched before the recipe is trained with what was found.
    budget : duration, optional
        Of the estimator ``"auto"``: how long it may look for a model. It tries what the catalogue has for the task,
        prepares, tunes and joins, and is ``tune=Tune(timeout=budget, ensemble=True)`` with as many trials as fit in.
    refit : bool, optional
        Whether what was stopped, calibrated and judged by the validation rows is then fitted again on training and
        validation rows together, with the iterations that were best, and keeps its calibration and threshold. None: of
        ``"auto"`` without an interval, of nothing else.
    checkpoint : int or duration, optional
        After how many iterations (of a network: batches), or how long, a fit writes down its state, so that
        ``retrodict train --resume`` goes on after a kill. Boosting of LightGBM and XGBoost is then done in pieces of so
        many iterations (100 for a duration), each with seeds of its own: other trees than without.
    start_from : str or WarmStart, optional
        Version that the fit goes on from, like ``"late_arrival@3"``, or ``"champion"``; None: from nothing.
    """

    estimator: Any
    split: Splitter = None  # type: ignore[assignment]  # None for a member of an ensemble
    calibrate: str = "auto"
    params: Mapping[str, Any] = field(default_factory=dict)
    baseline_group: str | None = None
    seed: int = 0
    types: Mapping[str, FeatureType] = field(default_factory=dict, metadata={"identity": "if set"})
    weights: str | None = field(default=None, metadata={"identity": "if set"})
    half_life: str | None = field(default=None, metadata={"identity": "if set"})
    prepare: tuple[Any, ...] | list[Any] = field(default=(), metadata={"identity": "if set"})
    balance: Any = field(default=None, metadata={"identity": "if set"})
    threshold: Any = field(default=None, metadata={"identity": "if set"})
    interval: float | None = field(default=None, metadata={"identity": "if set"})
    baseline: str | None = field(default=None, metadata={"identity": "if set"})
    tune: Tune | None = field(default=None, metadata={"identity": "if set"})
    budget: str | None = field(default=None, metadata={"identity": False})
    checkpoint: int | str | None = field(default=None, metadata={"identity": "if set"})
    start_from: str | WarmStart | None = field(default=None, metadata={"identity": "if set"})
    refit: bool | None = field(default=None, metadata={"identity": "if set"})
    registered: Estimator = field(init=False, repr=False, compare=False, metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check names, and bind the estimator as it is registered now."""
        self._bind_estimator()
        self._check_parts()
        rule = "calibrate must be one of the methods"
        check_known(self.calibrate, _CALIBRATIONS, rule, where="Recipe", what="method", error=DefinitionError)
        for name, kind in self.types.items():
            rule = "a feature must be taken for a type that there is"
            check_known(kind, get_args(FeatureType), rule, where=f"Recipe, types of {name!r}", what="type",
                        error=DefinitionError)  # fmt: skip
        seed: object = self.seed
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise DefinitionError("a seed must be a whole number from 0 to 2**31 - 1", where="Recipe", got=seed,
                                  remedy="Choose a smaller one")  # fmt: skip
        if self.half_life is not None:
            parse_duration(self.half_life, where="Recipe, half_life")
        if self.weights is not None and parse(self.weights, where="Recipe, weights").kind not in ("number", None):
            raise DefinitionError("weights must be a number", where="Recipe, weights", got=self.weights,
                                  remedy="Name a column, or write an expression like 'amount / 100'")  # fmt: skip
        if self.baseline is not None and not parse(self.baseline, where="Recipe, baseline").columns:
            raise DefinitionError("a baseline must read a feature", where="Recipe, baseline", got=self.baseline,
                                  remedy="Write it like 'mean_delay_24h > 10'")  # fmt: skip
        self._check_tune()
        self._check_checkpoint()
        self._check_start()
        if self.refit and self.interval is not None:
            raise DefinitionError("a recipe with an interval must leave out refit: how wide the interval is, rows say "
                                  "that the estimator did not learn from", where="Recipe, refit", got=self.refit,
                                  remedy="Leave out refit, or interval")  # fmt: skip
        if self.refit and self.start_from is not None:
            raise DefinitionError("a recipe that starts from a model must leave out refit", where="Recipe, refit",
                                  got=self.start_from, remedy="Leave out refit, or start_from")  # fmt: skip
        split: object = self.split
        if split is not None and not isinstance(split, Splitter):
            raise DefinitionError("a recipe must say how rows are split", where="Recipe", got=type(split).__name__,
                                  remedy=_SPLIT_REMEDY)  # fmt: skip

    def _check_checkpoint(self) -> None:
        interval: object = self.checkpoint
        if isinstance(interval, str):
            parse_duration(interval, where="Recipe, checkpoint")
        elif interval is not None and not (type(interval) is int and interval >= 1):
            raise DefinitionError("checkpoint must be a whole number of iterations of at least 1, or a duration",
                                  where="Recipe", got=interval,
                                  remedy="Write checkpoint=200, or checkpoint='60s'")  # fmt: skip

    def _check_start(self) -> None:
        parts = [*(self.estimator.members if isinstance(self.estimator, Ensemble) else ()),
                 *(self.tune.candidates(self).values() if self.tune is not None else ())]  # fmt: skip
        within = any(isinstance(part, Recipe) and part.start_from is not None for part in parts)
        if self.start_from is None and not within:
            return
        if parts:
            # A version saw rows that the folds of a search or of a stack judge on.
            raise DefinitionError("a recipe that begins from a version must fit one estimator, and search nothing",
                                  where="Recipe, start_from", got=self.label,
                                  remedy="Leave start_from, or the ensemble and tune, out")  # fmt: skip
        start = WarmStart(self.start_from) if isinstance(self.start_from, str) else self.start_from
        if not isinstance(start, WarmStart):
            raise DefinitionError("start_from must be a version or a WarmStart", where="Recipe",
                                  got=type(start).__name__, remedy="Write start_from='late_arrival@3'")  # fmt: skip
        object.__setattr__(self, "start_from", start)
        start.check(self.registered)

    def _bind_estimator(self) -> None:
        estimator, registered = self.estimator, None
        if estimator == AUTO:
            registered = Estimator(name=AUTO, fit="retrodict.models.tune:refuse_auto", engine="retrodict:Recipe",
                                   tasks=TASKS)  # fmt: skip
        elif isinstance(estimator, str):
            registered = get_estimator(estimator)
        elif not isinstance(estimator, Ensemble):
            from retrodict.models.specs import SklearnSpec

            spec = estimator if isinstance(estimator, SklearnSpec) else SklearnSpec.of(estimator)
            object.__setattr__(self, "estimator", spec)
            registered = spec.registered
        elif self.params:
            raise DefinitionError("an ensemble must not have params of its own", where="Recipe",
                                  got=sorted(self.params),
                                  remedy="Give them to a member: Recipe('lightgbm', params={…})")  # fmt: skip
        object.__setattr__(self, "registered", registered)
        if registered is not None:
            registered.check(self.settings)

    def _check_tune(self) -> None:
        auto = self.estimator == AUTO
        if self.budget is not None:
            derived = Tune(trials=1_000, timeout=self.budget, ensemble=True)
            if not auto or self.tune not in (None, derived):
                raise DefinitionError("a budget must be of the estimator 'auto', and stand for tune", where="Recipe",
                                      got=self.label, remedy="Write tune=Tune(timeout='10m')")  # fmt: skip
            object.__setattr__(self, "tune", derived)
        tune: object = self.tune
        if tune is None and auto:
            raise DefinitionError("the estimator 'auto' must be told how long to look", where="Recipe", got=None,
                                  remedy="Write Recipe('auto', budget='10m', split=…)")  # fmt: skip
        if tune is not None and (not isinstance(tune, Tune) or tune.recipe is not None):
            raise DefinitionError("tune must be a Tune without a recipe of its own", where="Recipe",
                                  got=type(tune).__name__, remedy="Write tune=Tune(trials=60)")  # fmt: skip
        if isinstance(tune, Tune) and not auto:
            tune.dimensions(self)  # refuses what nothing reads

    def _check_parts(self) -> None:
        object.__setattr__(self, "prepare", tuple(self.prepare))
        if self.prepare or self.balance is not None or self.threshold is not None:
            from retrodict.models.steps import Balance, Threshold, as_step

            object.__setattr__(self, "prepare", tuple(as_step(step) for step in self.prepare))
            for name, kind in (("balance", Balance), ("threshold", Threshold)):
                value: object = getattr(self, name)
                if value is not None and not isinstance(value, kind):
                    fixed = name == "threshold" and isinstance(value, int | float)
                    example = f"{name}={kind.__name__}" + (f".fixed({value})" if fixed else "(…)")
                    raise DefinitionError(f"{name} must be a {kind.__name__}", where="Recipe",
                                          got=value if fixed else type(value).__name__,
                                          remedy=f"Write {example}")  # fmt: skip
        level: object = self.interval
        if level is not None and not (isinstance(level, float) and 0.0 < level < 1.0):
            raise DefinitionError("an interval must hold a share of outcomes above 0 and below 1",
                                  where="Recipe, interval", got=level, remedy="Write interval=0.9")  # fmt: skip

    @property
    def label(self) -> str:
        """Word for the estimator."""
        return self.estimator if isinstance(self.estimator, str) else str(
            self.estimator.label if isinstance(self.estimator, Ensemble) else self.registered.name
        )  # fmt: skip

    @property
    def validates(self) -> bool:
        """Whether anything that is fitted looks at the validation rows."""
        return any(estimator.validates for estimator in self.estimators)

    @property
    def fits_again(self) -> bool:
        """Whether the last fit is on training and validation rows together."""
        automatic = self.estimator == AUTO and self.interval is None and self.start_from is None
        return automatic if self.refit is None else self.refit

    @property
    def estimators(self) -> list[Estimator]:
        """Every estimator that it may fit: of an ensemble's members, and of what is tried."""
        if self.tune is not None:
            tried = self.tune.candidates(self).values()
            plain = [one if isinstance(one, Recipe) else Recipe(one) for one in tried]
            return [estimator for recipe in plain for estimator in recipe.estimators]
        if not isinstance(self.estimator, Ensemble):
            return [self.registered]
        return [
            estimator
            for member in self.estimator.members
            for estimator in (member if isinstance(member, Recipe) else Recipe(member)).estimators
        ]

    @property
    def settings(self) -> dict[str, Any]:
        """Parameters for the estimator; one that takes a group gets ``baseline_group``."""
        if isinstance(self.estimator, Ensemble):
            return {}
        grouped = "group" in self.registered.required and self.baseline_group is not None
        return {**({"group": self.baseline_group} if grouped else {}), **self.params}


@dataclass(frozen=True)
class Model(Definition):
    """A model: what it predicts, when it is asked, what it may look at, how it is trained, what it must pass.

    Parameters
    ----------
    name : str
    label : Label or Outcome
        What it predicts: an expression over a row of a table, or what happens to an entity within a time after the
        decision (then with ``table`` and ``expression``).
    decide_at : str, optional
        Time expression over a row of the label's table: the moment of the decision. No feature sees anything from that
        moment on; an outcome begins with it. Left out for a table without history: features are then columns of the row
        and functions of them, the split is at random, by group or by hash, and a request is decided now.
    features : list of FeatureView, derived functions, and columns of the row itself
    recipe : Recipe, or Tune of one
    gates : list of str, optional
        Expressions over the metrics of the test rows that must hold before a version may be deployed.
    task : {"binary", "multiclass", "regression", "quantile", "count", "ranking", "survival"}, optional
        What is predicted; None: what the label says (:class:`~retrodict.features.labels.Label`), as one with horizons
        says ``survival``.
    quantiles : list of float, optional
        Levels that the task ``quantile`` predicts.
    group : str, optional
        Column of the label's table whose equal values are ranked against each other (``ranking``).
    accept : mapping of str to str, optional
        Features whose leak warning is accepted, each with why: ``{"area": "measured before the biopsy"}``. Neither the
        warnings nor the gate ``leaks`` have them then; run, card, version and approval keep the reason.
    owner, description : str, optional
        For people; not part of the version.
    """

    kind: ClassVar[str] = "model"

    label: Label | Outcome = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required
    decide_at: str = ""
    features: tuple[Any, ...] | list[Any] = ()
    recipe: Recipe = None  # type: ignore[assignment]
    gates: tuple[str, ...] | list[str] = ()
    task: Task | None = field(default=None, metadata={"identity": "if set"})
    quantiles: tuple[float, ...] | list[float] = field(default=(), metadata={"identity": "if set"})
    group: str | None = field(default=None, metadata={"identity": "if set"})
    accept: Mapping[str, str] = field(default_factory=dict, metadata={"identity": "if set"})
    owner: str = field(default="", metadata={"identity": False})
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        super().__post_init__()
        where = f"model {self.name}"
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "gates", tuple(self.gates))
        self._check_label(where)
        if self.label.horizons and self.task is None:
            object.__setattr__(self, "task", "survival")
        self._check_task(where)
        if isinstance(self.recipe, Tune):
            object.__setattr__(self, "recipe", self.recipe.applied())
        if not isinstance(self.recipe, Recipe):
            raise DefinitionError("a model must have a recipe", where=where, got=type(self.recipe).__name__,
                                  remedy="Pass recipe=Recipe(...)")  # fmt: skip
        if self.recipe.split is None:
            raise DefinitionError("the recipe of a model must say how rows are split", where=where, got=None,
                                  remedy=_SPLIT_REMEDY)  # fmt: skip
        if not self.features:
            raise DefinitionError("a model must have features", where=where, got=0, remedy="Pass features=[view, ...]")
        if self.label.horizons:
            self._check_survival(where)
        elif self._task is not None:
            check_task(self.recipe, self._task)
        self._check_accept(where)
        if not self.timed and self.recipe.half_life is not None:
            raise DefinitionError("rows without a moment have no age: half_life must be left out", where=where,
                                  got=self.recipe.half_life, remedy="Say decide_at, or leave it out")  # fmt: skip
        if not self.timed:
            self._check_timeless(where)
        elif isinstance(self.label, Label) and self.label.parsed_known_at is None:
            raise DefinitionError(
                "a label of decisions that have a moment must say when it is known", where=f"{where}, label "
                f"{self.label.name!r}", got=None,
                remedy="Say known_at='arr_time' in the label, or leave out decide_at",
            )  # fmt: skip
        elif parse(self.decide_at, where=f"{where}, decide_at").kind not in ("time", None):
            raise DefinitionError(
                "decide_at must be a time", where=where, got=self.decide_at,
                remedy="Name a time column of the label's table, or write one like 'sched_dep - 1h'",
            )  # fmt: skip
        for gate in self.gates:
            if parse(gate_text(gate), where=f"{where}, gate {gate!r}").kind not in ("bool", None):
                raise DefinitionError("a gate must be true or false", where=where, got=gate,
                                      remedy="Write a comparison like 'auc >= 0.7'")  # fmt: skip

    def check(self) -> None:
        """Refuse features that do not go together, and gates that no value of a metric passes."""
        FeatureSet(self.features)
        self.check_gates(self._gated)

    def check_gates(self, target: Target | Task | None) -> None:
        """Refuse gates that no value of a metric passes, and metrics that a training of this target will not measure.

        Raises
        ------
        DefinitionError
        """
        where, task = f"model {self.name}, gate", target.task if isinstance(target, Target) else target
        for gate in self.gates:
            check_gate(gate, target, where=where)
            for name in parse(gate_text(gate), where=where).columns:
                setting = needed_setting(name, task)
                if setting is not None and getattr(self.recipe, setting) is None:
                    rule, remedy = _NEEDED[setting]
                    raise DefinitionError(f"a gate of {name!r} must be of a recipe with {rule}", where=where, got=gate,
                                          remedy=remedy)  # fmt: skip

    def uses(self) -> Iterator[NameUse]:
        """Metrics of its gates, the group of its ladder, and what it reads of a row of the label's table."""
        where, table, features = f"model {self.name}", self.label.table.name, FeatureSet(self.features)
        rule = "a gate must read metrics that are measured"
        for gate in self.gates:
            for name in parse(gate_text(gate), where=where).columns:
                yield NameUse("metric", name, rule, f"{where}, gate {gate!r}", names=gate_metrics(self._gated, [gate]))
        for feature in self.features:
            rule = f"columns must be those that the table {table!r} of the label has"
            for name in (feature.exclude or ()) if isinstance(feature, RowColumns) else ():
                yield NameUse("column", name, rule, f"{where}, columns(exclude=…)", table)
        group = None if features.open else self.recipe.baseline_group
        if group is not None:
            rule = "the baseline's group must be a feature of the model"
            yield NameUse("feature", group, rule, f"{where}, baseline_group", names=features.columns)
        rule = "a baseline must read features of the model"
        for name in parse(self.recipe.baseline).columns if self.recipe.baseline and not features.open else ():
            if named_feature(name, features.columns) not in features.columns:
                yield NameUse("feature", name, rule, f"{where}, baseline", names=features.columns)
        declared = [("a type must be said", "recipe, types", name) for name in self.recipe.types]
        declared += [("a leak must be accepted", "accept", name) for name in self.accept]
        for what, place, name in () if features.open else declared:
            yield NameUse("feature", name, f"{what} of a feature of the model", f"{where}, {place}",
                          names=features.columns)  # fmt: skip
        rule = f"decide_at must read columns that the table {table!r} has"
        for name in self.parsed_decide_at.columns if self.timed else ():
            yield NameUse("column", name, rule, f"{where}, decide_at", table)
        rule = f"a split must read columns that the table {table!r} of the label has"
        for name in self.recipe.split.columns:
            yield NameUse("column", name, rule, f"{where}, split", table)
        rule = f"a feature must find its keys and inputs in the table {table!r} of the label"
        for name in (*features.request_keys, *features.request_columns):
            yield NameUse("column", name, rule, f"{where}, features", table)
        for name in parse(self.recipe.weights).columns if self.recipe.weights else ():
            rule = f"weights must read columns that the table {table!r} has"
            yield NameUse("column", name, rule, f"{where}, recipe, weights", table)
        if self.group is not None:
            rule = f"the group must be a column of the table {table!r} of the label"
            yield NameUse("column", self.group, rule, f"{where}, group", table)

    def _check_label(self, where: str) -> None:
        if not isinstance(self.label, Label | Outcome):
            raise DefinitionError("a model must have a label", where=where, got=type(self.label).__name__,
                                  remedy="Pass label=Label(...) or label=Outcome(...)")  # fmt: skip
        if isinstance(self.label, Outcome) and not self.label.labels:
            raise DefinitionError(
                "an outcome that is a label must name the table of its rows, and the expression of a yes",
                where=f"{where}, outcome {self.label.name!r}", got=self.label.value,
                remedy=f"Add table=… and expression='{self.label.value} > 0' to the outcome",
            )  # fmt: skip

    @property
    def timed(self) -> bool:
        """Whether decisions have a moment of their own in the label's table."""
        return bool(self.decide_at)

    def _check_timeless(self, where: str) -> None:
        """Refuse what would need a moment of the decision."""
        rule, remedy = "", "Say decide_at='asked_at', the moment of the decision"
        got: object = self.label.name
        if isinstance(self.label, Outcome):
            rule = "an outcome must have a moment of the decision: it is what happened from then on"
        elif self.recipe.split.timed:
            rule, got = "a split in time must have a moment of the decision", type(self.recipe.split).__name__
            remedy += ", or split with RandomSplit, GroupSplit or HashSplit"
        elif getattr(self.recipe.threshold, "how", "") == "alarms":
            rule, got = "alarms a day must be counted over days", f"Threshold.alarms({self.recipe.threshold.value:g})"
            remedy += ", or write Threshold.capacity(share=0.05)"
        else:
            views = [view.name for view in self.features if isinstance(view, FeatureView) and not view.source.timeless]
            if not views:
                return
            rule, got = "a view of facts that have a time must know before which moment they count", views
        raise DefinitionError(rule, where=f"{where}, decide_at", got=got, remedy=remedy)

    def _check_accept(self, where: str) -> None:
        accept: object = self.accept
        reasons = list(accept.items()) if isinstance(accept, Mapping) else [(accept, None)]
        for name, reason in reasons:
            if not isinstance(name, str) or not isinstance(reason, str) or not reason.strip():
                raise DefinitionError("accept must say of each feature why its leak warning is accepted",
                                      where=f"{where}, accept", got=accept,
                                      remedy="Write accept={'area': 'measured before the biopsy'}")  # fmt: skip

    def _check_task(self, where: str) -> None:
        """Refuse a task that the label cannot have, and what belongs to another one."""
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        if self.task is not None:
            rule = "a task must be one that there is"
            check_known(self.task, TASKS, rule, where=where, what="task", error=DefinitionError)
        kind = self.label.value_kind
        impossible = {"text": {"regression", "quantile", "count", "ranking", "binary"},
                      "bool": {"regression", "quantile", "count"}}  # fmt: skip
        if self.task in impossible.get(kind or "", ()):
            raise DefinitionError(f"the task must be one that a label of this kind ({kind}) can have", where=where,
                                  got=self.task, remedy="Leave task out, or let the label be a number")  # fmt: skip
        if bool(self.quantiles) != (self.task == "quantile"):
            raise DefinitionError("the task 'quantile', and only it, must have quantiles", where=where,
                                  got=(self.task, list(self.quantiles)),
                                  remedy="Write task='quantile', quantiles=[0.1, 0.5, 0.9]")  # fmt: skip
        if self.quantiles:
            Target("quantile", quantiles=tuple(self.quantiles))
        if (self.group is not None) != (self.task == "ranking"):
            raise DefinitionError("the task 'ranking', and only it, must have a group", where=where,
                                  got=(self.task, self.group),
                                  remedy="Write task='ranking', group='request_id'")  # fmt: skip
        if bool(self.label.horizons) != (self.task == "survival"):
            raise DefinitionError("the task 'survival', and only it, must have a label with horizons", where=where,
                                  got=(self.task, list(self.label.horizons)),
                                  remedy="Write Label(…, 'cancelled_at', horizons=['30d', '90d'])")  # fmt: skip

    def _check_survival(self, where: str) -> None:
        """Refuse what has no meaning for a time to an event, before anything is fitted."""
        recipe, tune, able = self.recipe, self.recipe.tune, estimators_of("survival")
        metric = None if tune is None else tune.metric
        metrics = gate_metrics(self.known_target, [metric] if metric else [])
        estimator, by_days = recipe.estimator, getattr(self.label, "event", None) is not None
        stacked = isinstance(estimator, Stack | Blend) or "stack" in getattr(tune, "ensemble", ())
        for rule, got, remedy in (
            ("the estimators of a time to an event must learn it",
             estimator != AUTO and sorted({entry.name for entry in recipe.estimators} - {*able}),
             f"Choose one of {', '.join(able)}"),
            ("a label of days must be of rows that have no moment of decision", self.timed and by_days,
             "Leave out decide_at, or name the time of the event"),
            ("a label that is the time of an event must be of rows with a moment of decision",
             not self.timed and not by_days, "Say decide_at='started', or Label(…, 'days', event='died')"),
            ("probabilities of a time to an event must be left as they are",
             recipe.calibrate not in ("auto", "none") and recipe.calibrate,
             "Leave calibrate out: the calibration error of each horizon says how well they hold"),
            ("rows of a time to an event must not be balanced, cut by a threshold, or held by an interval",
             [name for name in ("balance", "threshold", "interval") if getattr(recipe, name) is not None],
             "Leave it out, and decide on event_by"),
            ("a baseline must be one answer, and a time to an event has one for each horizon", recipe.baseline,
             "Leave baseline out, or say baseline_group="),
            ("steps before a time to an event must not read the label",
             [step.method for step in recipe.prepare if getattr(step, "method", "") in _READ_LABEL],
             "Use Encode('onehot'), or Select.variance()"),
            ("an ensemble of times to an event must be an average",
             "stack" if stacked else getattr(estimator, "how", "soft") == "hard" and "hard",
             "Use Vote(['cox', 'aft'])"),
            ("a search of a time to an event must be by a metric that it has",
             metric not in {None, *metrics} and metric, f"Leave metric out, or choose one of {', '.join(metrics)}"),
        ):  # fmt: skip
            if got:
                raise DefinitionError(rule, where=where, got=got, remedy=remedy)

    @property
    def _gated(self) -> Target | Task | None:
        """What gates are checked against: classes, levels and horizons too, where they are known."""
        return self.known_target or self._task

    @property
    def _task(self) -> Task | None:
        """The task, as far as the definitions tell."""
        tasks: Mapping[str, Task] = {"bool": "binary", "text": "multiclass"}
        return self.task or ("multiclass" if self.label.classes else tasks.get(self.label.value_kind or ""))

    @cached_property
    def known_target(self) -> Target | None:
        """What it predicts, as far as the definitions tell; None where only training rows do."""
        task = self._task
        if task is None or (task == "multiclass" and not self.label.classes):
            return None
        classes = self.label.classes if task == "multiclass" else ()
        ordered = bool(classes) and getattr(self.label, "ordered", False)
        return Target(task, classes=tuple(classes), ordered=ordered, quantiles=tuple(self.quantiles),
                      horizons=tuple(self.label.horizons))  # fmt: skip

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives, as far as the definitions tell; empty where only training rows do."""
        target = self.known_target
        if target is None:
            return ()
        more = ("threshold",) if self.recipe.threshold is not None else ()
        return (*target.outputs, *(target.spans if self.recipe.interval else ()), *more)

    @cached_property
    def parsed_decide_at(self) -> Expression:
        """The moment of the decision, parsed."""
        return parse(self.decide_at, where=f"model {self.name}, decide_at")

    def with_tune(self, settings: Mapping[str, Any]) -> Model:
        """Return the same model with settings searched: those of the recipe's own search, and some in their place."""
        return self._with(tune=replace(self.recipe.tune or Tune(), **settings), budget=None)

    def with_split(self, split: Splitter) -> Model:
        """Return the same model over other rows: for a retraining or a replay."""
        return self._with(split=split)

    def with_start(self, start: str | WarmStart | None) -> Model:
        """Return the same model, trained from a version; None: from nothing."""
        return self._with(start_from=start)

    def _with(self, **changes: Any) -> Model:
        recipe = replace(self.recipe, **changes)
        # Two versions of a project may be loaded, each with its registration of one name.
        object.__setattr__(recipe, "registered", self.recipe.registered)
        return replace(self, recipe=recipe)
