"""What a model predicts, and what its outputs are called: what training, serving and watching agree on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from retrodict.core.durations import DAY, parse_duration
from retrodict.core.errors import DefinitionError, check_known

__all__ = ["TASKS", "Target", "Task"]

Task = Literal["binary", "multiclass", "regression", "quantile", "count", "ranking", "survival"]

TASKS: tuple[Task, ...] = get_args(Task)

_HORIZON = re.compile(r"[1-9]\d*(?:ms|s|m|h|d|w)")


@dataclass(frozen=True)
class Target:
    """A task with what is particular to one model.

    Attributes
    ----------
    task : {"binary", "multiclass", "regression", "quantile", "count", "ranking", "survival"}
        ``binary``: labels 0 and 1; ``multiclass``: codes of ``classes``; ``regression`` and ``quantile``: any number;
        ``count``: numbers of zero or more, predicted by their mean; ``ranking``: relevance of zero or more, compared
        within a group; ``survival``: signed days until an event (:mod:`retrodict.core.statistics.survival`).
    classes : tuple of str, or of int and float
        Of ``multiclass``, in the order of their codes: sorted, or from the lowest to the highest where ``ordered``.
    ordered : bool, default False
        Whether the order of the classes means something.
    quantiles : tuple of float
        Of ``quantile``, ascending, each above 0 and below 1.
    horizons : tuple of duration
        Of ``survival``, ascending: within what times an event is predicted, each a number with one unit.

    Examples
    --------
    >>> Target("multiclass", classes=("late", "on time")).outputs
    ('p["late"]', 'p["on time"]')
    >>> Target("quantile", quantiles=(0.1, 0.5, 0.975)).outputs
    ('q10', 'q50', 'q97_5')
    >>> Target("survival", horizons=("30d", "12w")).outputs
    ('event_by["30d"]', 'event_by["12w"]')
    """

    task: Task = "binary"
    classes: tuple[str | float, ...] = ()
    ordered: bool = False
    quantiles: tuple[float, ...] = ()
    horizons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts belong to the task."""
        rule = "a task must be one that there is"
        check_known(self.task, TASKS, rule, where="target", what="task", error=DefinitionError)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "quantiles", tuple(float(level) for level in self.quantiles))
        if (self.task == "multiclass") != bool(self.classes) or len(set(self.classes)) != len(self.classes):
            raise DefinitionError("several classes must have names, each another one, and no other task has them",
                                  where="target", got=(self.task, len(self.classes)),
                                  remedy="Say task='multiclass' with classes=[…]")  # fmt: skip
        ascending = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if (
            (self.task == "quantile") != bool(self.quantiles)
            or not ascending
            or not all(0 < level < 1 for level in self.quantiles)
        ):
            raise DefinitionError("quantiles must ascend, each above 0 and below 1, and no other task has them",
                                  where="target", got=(self.task, list(self.quantiles)),
                                  remedy="Write quantiles=[0.1, 0.5, 0.9]")  # fmt: skip
        object.__setattr__(self, "horizons", tuple(self.horizons))
        lengths = [parse_duration(text) if _HORIZON.fullmatch(str(text)) else 0 for text in self.horizons]
        if (self.task == "survival") != bool(lengths) or sorted({0, *lengths}) != [0, *lengths]:
            raise DefinitionError("horizons must ascend, each a number with one unit, and no other task has them",
                                  where="target", got=(self.task, list(self.horizons)),
                                  remedy="Write horizons=['30d', '90d', '180d']")  # fmt: skip

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of an engine's columns."""
        match self.task:
            case "multiclass":
                return tuple(f'p["{name}"]' for name in self.classes)
            case "quantile":
                return tuple(f"q{100 * level:.10g}".replace(".", "_") for level in self.quantiles)
            case "survival":
                return tuple(f'event_by["{text}"]' for text in self.horizons)
            case "binary" | "ranking":
                return ("score",)
            case _:
                return ("value",)

    @property
    def spans(self) -> tuple[str, ...]:
        """Names of an interval that is to hold the outcome, or of a set of classes."""
        if self.task == "multiclass":
            return tuple(f'set["{name}"]' for name in self.classes)
        return ("low", "high") if self.task in ("regression", "quantile", "count") else ()

    @cached_property
    def days(self) -> tuple[float, ...]:
        """Horizons in days."""
        return tuple(parse_duration(text) / DAY for text in self.horizons)

    @property
    def probabilistic(self) -> bool:
        """Whether the outputs are probabilities of classes."""
        return self.task in ("binary", "multiclass")

    @property
    def columns(self) -> int:
        """Number of outputs; engines give a vector of shape (n,) for one, and shape (n, columns) for more."""
        return len(self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain form; one without horizons is what it was before there were any, and so are hashes of it."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in plain.items() if name != "horizons" or value}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Target:
        """Inverse of :meth:`to_dict`."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in body.items()}
        return cls(**plain)
