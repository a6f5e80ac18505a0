"""Pictures of a run, kept as its artifacts: the ladder, calibration, and the path of training."""

from __future__ import annotations

import logging

from retrodict.core.errors import MissingExtraError
from retrodict.learning.recipes import Trained

__all__ = ["run_plots"]

_log = logging.getLogger(__name__)


def run_plots(trained: Trained) -> dict[str, str]:
    """File name to SVG text; none, with a word in the log, where the extra ``plots`` is not installed."""
    from retrodict.evaluation.plots import plot_calibration, plot_ladder

    test = trained.evaluations["test"]
    try:
        pictures = (
            {}
            if trained.ladder is None
            else {"ladder.svg": plot_ladder(trained.ladder, name=str(trained.params["estimator"]))}
        )
        if test.curve:
            pictures["calibration.svg"] = plot_calibration(test.curve, title="Calibration on the test rows")
    except MissingExtraError as error:
        _log.warning("No pictures for this run. %s", error)
        return {}
    return pictures
