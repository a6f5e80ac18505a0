"""The threshold that a recipe asks for: chosen on validation rows, held against the test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.durations import DAY
from retrodict.core.statistics.intervals import wilson_interval
from retrodict.evaluation import Evaluation
from retrodict.learning.frame import Frame
from retrodict.models.definitions import Recipe
from retrodict.models.splits import TimeSplit

__all__ = ["AlarmWindow", "alarm_windows", "choose_threshold", "threshold_warnings"]

_FEW_ROWS = 30
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AlarmWindow:
    """Rows that were decided in the days of a part, whether or not their outcome is known.

    Attributes
    ----------
    rows : ndarray of int64
        Positions of those to score; of a split that is not in time only the part's own, a sample.
    total : int
        How many were decided.
    days : float
    """

    rows: NDArray[np.int64]
    total: int
    days: float


def alarm_windows(recipe: Recipe, frame: Frame, parts: Mapping[str, NDArray[np.int64]]) -> dict[str, AlarmWindow]:
    """Of the validation and the test part, by ``decided/<part>``; empty where no alarms a day are asked for."""
    if recipe.threshold is None or recipe.threshold.how != "alarms":
        return {}
    windows, spans = {}, {}
    if isinstance(recipe.split, TimeSplit):
        spans = recipe.split.spans(frame.seen_until)
    for name in ("validate", "test"):
        rows, moments = parts[name], frame.at[parts[name]]
        start, end = spans[name][:2] if spans else (int(moments.min()), int(moments.max()) + 1)
        inside = np.flatnonzero((frame.at >= start) & (frame.at < end))
        until = min(end - (not spans), int(frame.at.max()))  # a part may end long after the last row
        windows[f"decided/{name}"] = AlarmWindow(inside if spans else rows, len(inside), (until - start) / DAY)
    return windows


def choose_threshold(
    recipe: Recipe, outputs: Mapping[str, Floats], labels: Floats, windows: Mapping[str, AlarmWindow]
) -> tuple[float | None, dict[str, Any]]:
    """Threshold that the recipe asks for, on the calibrated scores of the validation rows; None where none is reached.

    The run then ends all the same: what was trained is kept and says so, and cannot be approved.
    """
    if recipe.threshold is None:
        return None, {}
    alarms: dict[str, Any] = {}
    if window := windows.get("decided/validate"):
        alarms = {"days": window.days or None, "decided": outputs["decided/validate"], "total": window.total}
    choice = recipe.threshold.choose(outputs["validate"], labels, seed=recipe.seed, **alarms)
    return choice.threshold, {"threshold": choice.to_dict()}


def threshold_warnings(
    recipe: Recipe, notes: Mapping[str, Any], test: Evaluation, outputs: Mapping[str, Floats],
    windows: Mapping[str, AlarmWindow],
) -> Iterator[str]:  # fmt: skip
    """What was asked for and no score reaches, rests on few rows, or does not hold on the test rows."""
    choice = notes.get("threshold")
    if choice is None or recipe.threshold is None:
        return
    if choice["threshold"] is None:
        yield (f"{choice['reason']} The version has no threshold, and cannot be approved: ask for less, or for a cost.")
        return
    how, limit, basis = recipe.threshold.how, recipe.threshold.value or 0.0, choice["basis"]
    if basis is not None and basis < _FEW_ROWS:
        yield (f"The {how} at the threshold rests on {basis} validation rows, of which no figure says much: validate "
               f"on more, until there are {_FEW_ROWS}.")  # fmt: skip
    if how in ("precision", "recall") and (high := test[how].high) is not None and high < limit:
        yield (f"The threshold was to have a {how} of at least {limit:g}: on the test rows it is "
               f"{test[how].value:.3f}, at most {high:.3f}.")  # fmt: skip
    if how == "share" and (low := test["positive_share"].low) is not None and low > limit:
        yield (f"The threshold was to have at most {limit:g} of the rows above it: of the test rows it is "
               f"{test['positive_share'].value:.3f}, at least {low:.3f}.")  # fmt: skip
    window = windows.get("decided/test")
    if window is not None and window.days:
        scores = outputs["decided/test"]
        above, volume = int((scores >= choice["threshold"]).sum()), window.total / window.days
        if (least := wilson_interval(above, len(scores)).low * volume) > limit:
            yield (f"The threshold was to let through at most {limit:g} alarms a day: in the {window.days:.4g} days of "
                   f"the test rows it is {above / len(scores) * volume:.3g}, at least {least:.3g}.")  # fmt: skip
