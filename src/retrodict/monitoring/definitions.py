"""What a definitions module says about watching: groups, and triggers that act."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from retrodict.core.definition import Definition
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import check_reach, parse
from retrodict.core.names import NameUse
from retrodict.core.tasks import Target
from retrodict.decisions.definitions import Policy
from retrodict.evaluation.gates import GATE_METRICS
from retrodict.features.plan import FeatureSet

__all__ = ["NUMBERS", "OF_HORIZONS", "OF_SCORES", "Monitor", "Trigger", "numbers_of"]

NUMBERS: dict[str, tuple[float, float]] = {
    "auc": (0.0, 1.0),
    "auc_drop": (-1.0, 1.0),
    "calibration_error": (0.0, 1.0),
    "calibration_ratio": (0.0, math.inf),
    "decisions": (0.0, math.inf),
    "label_rate": (0.0, 1.0),
    "labels": (0.0, math.inf),
    "psi": (0.0, math.inf),
}
"""What a trigger can read beside metrics of other tasks, with the range of its values."""


OF_SCORES = ("auc", "pr_auc", "brier", "log_loss", "calibration_error", "calibration_ratio")
"""Metrics of a period's decisions about a yes or no."""

OF_HORIZONS = ("event_rate", "brier", "auc", "calibration_error", "calibration_ratio")
"""Metrics of a time to an event at each horizon, like ``auc_90d``."""


def numbers_of(target: Target | None) -> dict[str, tuple[float, float]]:
    """What a trigger can read of a model of a target: counts, drift, and the metrics of its task. None: of any."""
    spans = {**dict.fromkeys(OF_SCORES, (0.0, math.inf)), **NUMBERS}
    if target is None:
        return {**{name: span for metrics in GATE_METRICS.values() for name, span in metrics.items()}, **spans}
    task, metrics = target.task, GATE_METRICS[target.task]
    names = {"decisions", "labels", "psi", *(() if task in ("multiclass", "survival") else ("label_rate",)), *metrics}
    spans = {name: span for name, span in spans.items() if name.removesuffix("_drop") in names}
    spans |= {} if task == "binary" else metrics
    return spans | {
        f"{name}_{text}": (0.0, math.inf if name == "calibration_ratio" else 1.0)
        for name in OF_HORIZONS for text in target.horizons
    }  # fmt: skip


@dataclass(frozen=True)
class Trigger:
    """A condition over what monitoring measured, and what to do when it holds.

    Parameters
    ----------
    action : str
        ``"retrain"``; made by the class method of that name.
    on : str
        Expression over the measured numbers of one period: ``psi`` (largest over features that drifted beyond their
        noise floor), ``auc``, ``auc_drop`` (against the test rows of the run), ``calibration_error``,
        ``calibration_ratio``, ``label_rate``, ``labels`` (known outcomes), ``decisions``, and every metric of the
        model's task by its name (``rmse``, ``macro_f1``, ``auc_90d``, ``event_rate_90d``). It must hold at both ends
        of the 95 % interval of every estimate. A number that is not evaluable is null, and a condition on it is
        unknown: the trigger then does not fire, and says so.
    cooldown : duration, default "24h"
        Shortest time between two firings.
    min_labels : int, default 1000
        With fewer known outcomes in the period the trigger is not evaluable.

    Examples
    --------
    >>> Trigger.retrain(on="psi > 0.25 or auc_drop > 0.05").action
    'retrain'
    """

    action: str
    on: str
    cooldown: str = "24h"
    min_labels: int = 1000

    def __post_init__(self) -> None:
        """Parse the condition."""
        rule = "a trigger's action must be 'retrain'"
        check_known(self.action, ("retrain",), rule, where="Trigger", what="action", error=DefinitionError)
        parse(self.on, where="Trigger, on")
        parse_duration(self.cooldown, where="Trigger, cooldown")

    @classmethod
    def retrain(cls, *, on: str, cooldown: str = "24h", min_labels: int = 1000) -> Trigger:
        """Train a challenger when the condition holds; the champion keeps deciding."""
        return cls("retrain", on, cooldown, min_labels)


@dataclass(frozen=True, init=False)
class Monitor(Definition):
    """Watches the decisions of a policy.

    Parameters
    ----------
    policy : Policy
    by : list of str, optional
        Groups besides the months: names of entities, context values or features.
    triggers : list of Trigger, optional
    psi_threshold : float, default 0.25
        Effect size from which a feature counts as drifted, if it also exceeds its noise floor.
    name : str, optional
        The policy's name by default.
    """

    kind: ClassVar[str] = "monitor"

    policy: Policy
    by: tuple[str, ...]
    triggers: tuple[Trigger, ...]
    psi_threshold: float

    def __init__(
        self,
        policy: Policy,
        *,
        by: Sequence[str] = (),
        triggers: Sequence[Trigger] = (),
        psi_threshold: float = 0.25,
        name: str | None = None,
    ) -> None:
        if not isinstance(policy, Policy):
            raise DefinitionError(
                "a monitor must watch a policy",
                where=f"monitor {name or ''}".strip(),
                got=type(policy).__name__,
                remedy="Pass a Policy as first argument",
            )
        values = {
            "name": name or policy.name,
            "policy": policy,
            "by": tuple(by),
            "triggers": tuple(triggers),
            "psi_threshold": psi_threshold,
        }
        for field_name, value in values.items():
            object.__setattr__(self, field_name, value)
        self.__post_init__()

    def check(self) -> None:
        """Refuse triggers that no number can fire."""
        for trigger in self.triggers:
            spans, rule = numbers_of(self.policy.model.known_target), "a trigger must be one that can fire"
            check_reach(trigger.on, spans, rule, where=f"monitor {self.name}, trigger")

    def uses(self) -> Iterator[NameUse]:
        """What triggers read, and groups: a value that only it reads has a name that is nearly no other's."""
        target = self.policy.model.known_target
        names = numbers_of(target)
        for trigger in self.triggers:
            where, rule = (
                f"monitor {self.name}, trigger {trigger.on!r}",
                "a trigger must read numbers that are measured",
            )
            for name in parse(trigger.on, where=where).columns:
                yield NameUse("number", name, rule, where, names=names)
        features = FeatureSet(self.policy.model.features)
        columns, rule = (
            [*features.request_keys, *features.request_columns, *features.columns],
            ("a group must be a feature of the model, or a value of requests by a name that is not nearly another's"),
        )
        for name in self.by:
            if "__" in name or get_close_matches(name, columns, n=1, cutoff=0.8):
                yield NameUse("feature or request value", name, rule, f"monitor {self.name}, by", names=columns)
