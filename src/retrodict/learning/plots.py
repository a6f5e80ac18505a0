"""Pictures of a run, drawn when they are looked at: a training need not wait for what nobody opens."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrodict.core.tasks import Target
from retrodict.evaluation.ladder import Ladder
from retrodict.stores.objects.base import ObjectStore

if TYPE_CHECKING:
    from retrodict.learning.runs import MetricPoint

__all__ = ["TEST_ROWS", "TRIALS", "pack_test_rows", "run_plots"]

TEST_ROWS, TRIALS = "test.parquet", "trials.json"
_OUTPUT = "output__"


def pack_test_rows(labels: NDArray[np.float64], outputs: NDArray[np.float64], target: Target) -> bytes:
    """Labels and outputs of the test rows as a small file: all that pictures of a run are drawn from."""
    columns = outputs.T if outputs.ndim == 2 else [outputs]
    outputs_by_name = {f"{_OUTPUT}{name}": np.ascontiguousarray(values)
             for name, values in zip(target.outputs, columns, strict=False)}  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table({"label": labels, **outputs_by_name}), sink, compression="zstd")
    return sink.getvalue()


def run_plots(
    objects: ObjectStore,
    files: Mapping[str, str],
    params: Mapping[str, Any],
    summary: Mapping[str, Any],
    points: Sequence[MetricPoint] = (),
) -> dict[str, Callable[[], str]]:
    """Pictures that a run can show, each drawn by a call.

    Parameters
    ----------
    objects : ObjectStore
    files : mapping of str to str
        SHA-256 of the run's artifacts by name.
    params, summary : mapping
        Of the run.
    points : sequence of MetricPoint
        Of the run; those of its history are drawn.

    Returns
    -------
    dict of str to callable
        Gives SVG text; MissingExtraError where the extra ``plots`` is not installed.
    """
    from retrodict.evaluation import plots

    pictures: dict[str, Callable[[], str]] = {}
    if summary.get("ladder"):
        name = str(params.get("estimator", "model"))
        pictures["ladder"] = lambda: plots.plot_ladder(Ladder.from_dict(summary["ladder"]), name=name)
    if members := (summary.get("notes") or {}).get("members"):
        joined = Ladder.from_dict(members["ladder"])
        pictures["members"] = partial(plots.plot_ladder, joined, name="ensemble", title="Members and ensemble")
        pictures["correlation"] = partial(plots.plot_correlation, members["correlation"])
    for step in (summary.get("notes") or {}).get("steps", ()):
        if step.get("scores"):
            pictures["elimination"] = partial(plots.plot_elimination, step["scores"])
    curves = {split: _curves(points, f"{split}/history") for split in ("validate", "train")}
    if curves["validate"]:
        # Of metrics beside the loss, such as an area, there is none of training rows.
        losses = {name: curve for name, curve in curves["validate"].items() if name in curves["train"]}
        curves["validate"] = losses or curves["validate"]
        pictures["history"] = partial(plots.plot_history, curves["validate"], curves["train"],
                                      best=_best_iterations(params, curves["validate"]))  # fmt: skip
    if path := (summary.get("notes") or {}).get("path"):
        pictures["path"] = partial(plots.plot_path, path["coefficients"], strength=path["strength"])
    if TRIALS in files:
        pictures |= _of_trials(objects, files[TRIALS])
    if TEST_ROWS in files:
        pictures |= _of_test_rows(objects, files[TEST_ROWS], params, summary)
    return pictures


def _curves(points: Sequence[MetricPoint], split: str) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each loss of a split."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        if point.split == split and point.value is not None:
            curves.setdefault(point.name, []).append((point.step, point.value))
    return {name: sorted(curve) for name, curve in sorted(curves.items())}


def _best_iterations(params: Mapping[str, Any], losses: Collection[str]) -> Any:
    """The iteration in force; of several engines that of each, under the end of the name of its loss."""
    best = params.get("best_iteration")
    if not isinstance(best, Mapping):
        return best
    return {loss: end for loss in losses for name, end in best.items() if loss == name or loss.endswith(f"_{name}")}


def _of_trials(objects: ObjectStore, digest: str) -> dict[str, Callable[[], str]]:
    from retrodict.evaluation import plots

    body = json.loads(objects.get(digest))
    trials, report = body["trials"], body["report"]
    facts = {"metric": report["metric"], "better": report["better"]}
    varied = sorted({name for trial in trials for name in trial["choice"]})
    slices = {f"slice {name}": partial(plots.plot_slice, trials, name, **facts) for name in varied}
    shares = (
        {"importance of settings": partial(plots.plot_shares, report["importance"])} if report["importance"] else {}
    )
    return {"trials": partial(plots.plot_trials, trials, **facts), **slices, **shares}


def _of_test_rows(
    objects: ObjectStore, digest: str, params: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Callable[[], str]]:
    from retrodict.evaluation import evaluate, plots
    from retrodict.evaluation._rows import read_rows

    target = Target.from_dict(params["target"])

    @cache
    def rows() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        table = pq.read_table(io.BytesIO(objects.get(digest)))
        columns = [table.column(f"{_OUTPUT}{name}").to_numpy() for name in target.outputs]
        return table.column("label").to_numpy(), columns[0] if len(columns) == 1 else np.column_stack(columns)

    @cache
    def evaluation() -> Any:
        threshold = ((summary.get("notes") or {}).get("threshold") or {}).get("threshold")
        return evaluate(*rows(), target, threshold=0.5 if threshold is None else threshold)

    match target.task:
        case "binary":
            return {
                "calibration": lambda: plots.plot_calibration(evaluation().curve, title="Calibration on the test rows"),
                "roc": lambda: plots.plot_roc(*rows()),
                "precision_recall": lambda: plots.plot_precision_recall(*rows()),
                "gain": lambda: plots.plot_gain(*rows()),
                "confusion": lambda: plots.plot_confusion(evaluation().confusion),
            }
        case "multiclass":
            return {"confusion": lambda: plots.plot_confusion(evaluation().confusion)}
        case "quantile":
            return {"coverage": lambda: plots.plot_coverage(evaluation(), target)}
        case "survival":
            from retrodict.evaluation.survival import horizon_curve

            return {
                f"calibration {text}": partial(
                    lambda at, text: plots.plot_calibration(horizon_curve(read_rows(*rows(), target), at),
                                                            title=f"Event by {text}, on the test rows"), at, text)
                for at, text in enumerate(target.horizons)
            }  # fmt: skip
        case "regression" | "count":
            return {"residuals": lambda: plots.plot_residuals(*rows()), "actual": lambda: plots.plot_actual(*rows())}
        case _:
            return {}
