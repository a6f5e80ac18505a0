"""Shows what a join with one clock leaks: the same recipe on the same rows, once with known-at and once without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retrodict.evaluation import evaluate
from retrodict.features.offline.event_index import EventIndexes
from retrodict.learning.frame import build_frame, parts_of
from retrodict.learning.recipes import Progress, run_recipe
from retrodict.learning.runs import Run
from retrodict.models.definitions import Model
from retrodict.workspace import Workspace

__all__ = ["LeakageReport", "measure_leakage"]


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """AUC on the same test rows under three readings.

    Attributes
    ----------
    auc_point_in_time : float
        Trained and tested on what was known at the moment of the decision: what production will see.
    auc_naive : float
        Trained and tested on the naive event-time join: what a notebook would report.
    auc_naive_in_production : float
        The naively trained model on what is really known at the moment of the decision.
    differing_values, values : int
        Feature values of the test rows that the two joins give differently, out of how many.
    """

    auc_point_in_time: float
    auc_naive: float
    auc_naive_in_production: float
    differing_values: int
    values: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form; ``promised`` is what the naive join seems to win, ``lost`` what it really loses."""
        return {
            "auc_point_in_time": self.auc_point_in_time,
            "auc_naive": self.auc_naive,
            "auc_naive_in_production": self.auc_naive_in_production,
            "promised": self.auc_naive - self.auc_point_in_time,
            "lost": self.auc_point_in_time - self.auc_naive_in_production,
            "differing_values": self.differing_values,
            "values": self.values,
        }


def measure_leakage(workspace: Workspace, model: Model, run: Run, *, progress: Progress | None = None) -> LeakageReport:
    """Train once more on the naive event-time join and report both AUCs side by side.

    Parameters
    ----------
    workspace : Workspace
    model : Model
        The definition the run was made with.
    run : Run
        The honest training: its table versions, moment and test metrics are used.
    progress : callable, optional
    """
    versions, now, indexes = run.data["versions"], run.data["now"], EventIndexes.of(workspace)
    honest = build_frame(workspace.tables, model, versions, indexes=indexes)
    frame = build_frame(workspace.tables, model, versions, indexes=indexes, ignore_known_at=True)
    frame, parts = parts_of(frame, model.recipe.split, now=now)
    naive = run_recipe(model.recipe, frame, parts, ladder=False, progress=progress)
    test = parts["test"]
    known_columns = honest.columns(test)
    real = naive.calibrator.apply(naive.engine.scores(naive.inputs.encode_columns(known_columns)))
    naive_columns = frame.columns(test)
    return LeakageReport(
        auc_point_in_time=_auc(run.metrics["auc"]),
        auc_naive=_auc(naive.evaluations["test"].values()["auc"]),
        auc_naive_in_production=_auc(evaluate(frame.labels[test], real).values()["auc"]),
        differing_values=sum(
            int(np.sum(_differs(known_columns[name], naive_columns[name]))) for name in frame.features
        ),
        values=len(test) * len(frame.features),
    )


def _auc(value: float | None) -> float:
    return float("nan") if value is None else value


def _differs(left: Any, right: Any) -> Any:
    a, b = np.array(left.to_pylist(), dtype=object), np.array(right.to_pylist(), dtype=object)
    return a != b
