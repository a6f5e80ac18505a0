"""Ensembles as definitions: which members, and how their answers become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.tasks import Task

__all__ = ["Bagging", "Blend", "Ensemble", "Greedy", "Stack", "Vote", "check_task", "final_name"]

# What reads the members of a stack where it says "logistic" and there are no classes.
_FINALS: dict[Task, str] = {"regression": "linear", "count": "linear"}
_CLASSES = ("binary", "multiclass")


@dataclass(frozen=True)
class Ensemble:
    """What all ensembles have: members, each a name of the catalogue, a scikit-learn object or a Recipe without split.

    Members are fitted on the same training rows, each with its own steps. The report compares the ensemble with every
    single member, and says what it costs.
    """

    members: tuple[Any, ...] | list[Any]

    def __post_init__(self) -> None:
        """Check that there are members."""
        object.__setattr__(self, "members", tuple(_member(member) for member in self.members))
        least = 1 if isinstance(self, Bagging) else 2
        if len(self.members) < least:
            remedy = f"Write {type(self).__name__}(['lightgbm', 'logistic'])"
            raise DefinitionError(f"an ensemble must have at least {least} members", where=self.label,
                                  got=len(self.members), remedy=remedy)  # fmt: skip

    @property
    def label(self) -> str:
        """Word for it."""
        return type(self).__name__.lower()

    def named_members(self) -> list[tuple[str, Any]]:
        """Name of each member, and what it is: a name twice gets a number."""
        labels = [member if isinstance(member, str) else member.label for member in self.members]
        names = [
            f"{label}_{labels[: at + 1].count(label)}" if labels.count(label) > 1 else label
            for at, label in enumerate(labels)
        ]
        return list(zip(names, self.members, strict=True))


def _member(member: Any) -> Any:
    """A member as data: a name, a recipe, or the description of a scikit-learn object."""
    if isinstance(member, str | Ensemble):
        return member
    if hasattr(member, "__dataclass_fields__"):
        settings = ("split", "weights", "half_life", "threshold", "interval", "tune")
        ignored = [name for name in settings if getattr(member, name, None) is not None]
        if ignored or getattr(member, "calibrate", "auto") != "auto":
            raise DefinitionError("what holds for a whole ensemble must be said of it, not of a member",
                                  where="member of an ensemble", got=ignored or ["calibrate"],
                                  remedy="Move it to the Recipe that holds the ensemble")  # fmt: skip
        return member
    from retrodict.models.specs import SklearnSpec

    return SklearnSpec.of(member)


@dataclass(frozen=True)
class Vote(Ensemble):
    """Average of the members' outputs, or the share of their votes.

    Parameters
    ----------
    members : list
    how : {"soft", "hard"}, default "soft"
        ``soft`` averages probabilities, values or quantiles; ``hard`` counts each member's likeliest class.
    weights : list of float, or "learned", optional
        One weight per member, divided by their sum; ``learned``: one over the member's loss on rows that it was not
        fitted on (cross-validated on the training rows). None: all alike.
    """

    how: Literal["soft", "hard"] = "soft"
    weights: tuple[float, ...] | list[float] | Literal["learned"] | None = None

    def __post_init__(self) -> None:
        """Check the weights."""
        super().__post_init__()
        rule = "votes must be counted in a way that there is"
        check_known(self.how, ("hard", "soft"), rule, where="Vote", what="way", error=DefinitionError)
        weights: Any = self.weights
        if weights is None or weights == "learned":
            return
        numbers = not isinstance(weights, str) and all(isinstance(w, int | float) and 0 <= w < 1e300 for w in weights)
        if not numbers or len(weights) != len(self.members) or not any(weights):
            raise DefinitionError("there must be one weight per member, zero or more, and not all zero", where="Vote",
                                  got=weights, remedy="Write weights=[2, 1], or 'learned'")  # fmt: skip
        object.__setattr__(self, "weights", tuple(float(weight) for weight in weights))


@dataclass(frozen=True)
class Stack(Ensemble):
    """A final estimator learns from what the members say of rows that they were not fitted on.

    The training rows are cut into folds as the recipe's split says; each member is fitted without a fold and scores it
    (Wolpert 1992, Neural Networks 5, 241-259). The members that serve are fitted on all training rows.

    Parameters
    ----------
    members : list
    final : str, default "logistic"
        Estimator that reads their outputs; for numbers ``"logistic"`` means ``"linear"``.
    folds : int, default 5
    passthrough : bool, default False
        Whether the final estimator reads the features, too.
    """

    final: str = "logistic"
    folds: int = 5
    passthrough: bool = False

    def __post_init__(self) -> None:
        """Check the folds."""
        super().__post_init__()
        _check_count(self.folds, 2, "folds", "Stack")


@dataclass(frozen=True)
class Blend(Ensemble):
    """Like :class:`Stack`, with the final estimator fitted on a held-out share of the training rows instead of folds.

    Cheaper, since each member is fitted twice and not ``folds + 1`` times; the held-out rows are the latest where there
    is time.

    Parameters
    ----------
    members : list
    final : str, default "logistic"
    share : float, default 0.2
        Of the training rows.
    """

    final: str = "logistic"
    share: float = 0.2

    def __post_init__(self) -> None:
        """Check the share."""
        super().__post_init__()
        if not 0.0 < self.share < 1.0:
            raise DefinitionError("the held-out share must be above 0 and below 1", where="Blend", got=self.share,
                                  remedy="Write share=0.2")  # fmt: skip


@dataclass(frozen=True)
class Bagging(Ensemble):
    """The same member several times, each fitted on rows drawn with replacement (Breiman 1996), then averaged.

    Parameters
    ----------
    members : list of one
    n : int, default 10
    rows : float, default 1.0
        Share of the training rows that each is fitted on. Rows of each class are drawn apart, so none is missing.
    """

    n: int = 10
    rows: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        _check_count(self.n, 2, "n", "Bagging")
        if len(self.members) != 1 or not 0.0 < self.rows <= 1.0:
            raise DefinitionError("a bag must have one member, and a share of rows above 0 and at most 1",
                                  where="Bagging", got=(len(self.members), self.rows),
                                  remedy="Write Bagging(['tree'], n=10)")  # fmt: skip


@dataclass(frozen=True)
class Greedy(Ensemble):
    """Weighted average built step by step: each round adds the member that lowers the loss most.

    Chosen on scores of rows that the members were not fitted on, with repetition (Caruana et al. 2004, ICML).

    Parameters
    ----------
    members : list
    rounds : int, default 25
    folds : int, default 5
    """

    rounds: int = 25
    folds: int = field(default=5)

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        _check_count(self.rounds, 1, "rounds", "Greedy")
        _check_count(self.folds, 2, "folds", "Greedy")


def final_name(ensemble: Stack | Blend, task: Task) -> str:
    """Estimator that reads the members: of numbers ``"logistic"`` means ``"linear"``."""
    return _FINALS.get(task, ensemble.final) if ensemble.final == "logistic" else ensemble.final


def check_task(recipe: Any, task: Task) -> None:
    """Refuse what a recipe, or an ensemble that stands for one, asks for and the task does not have.

    Raises
    ------
    DefinitionError
    """
    estimator = getattr(recipe, "estimator", recipe)
    interval, threshold, balance = (getattr(recipe, name, None) for name in ("interval", "threshold", "balance"))
    hard = isinstance(estimator, Vote) and estimator.how == "hard"
    for requested, fits, rule, name, remedy in (
        (interval is not None, task not in ("binary", "ranking", "survival"),
         "an interval must be of numbers or of several classes",
         "interval", "Leave interval out"),
        (threshold is not None, task == "binary", "a threshold must be of the score of a yes or no",
         "threshold", "Leave threshold out, and decide on the outputs"),
        (balance is not None, task in _CLASSES, "rows to balance must be of classes",
         "balance", "Leave balance out, or use weights"),
        (hard, task in _CLASSES, "members that vote must predict classes",
         "estimator", "Leave how out: values are averaged"),
    ):  # fmt: skip
        if requested and not fits:
            raise DefinitionError(rule, where=f"Recipe, {name}", got=task, remedy=remedy)
    for member in estimator.members if isinstance(estimator, Ensemble) else ():
        if isinstance(member, Ensemble) or hasattr(member, "balance"):
            check_task(member, task)
    if isinstance(estimator, Stack | Blend):
        from retrodict.models.estimators import estimators_of, get_estimator

        if task not in get_estimator(final_name(estimator, task)).tasks:
            raise DefinitionError("the final estimator must learn the task", where=f"Recipe, {estimator.label}",
                                  got=task, remedy=f"Say final= one of {', '.join(estimators_of(task))}")  # fmt: skip


def _check_count(count: object, least: int, name: str, where: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise DefinitionError(f"{name} must be a whole number of at least {least}", where=where, got=count,
                              remedy=f"Write {name}={max(least, 5)}")  # fmt: skip
