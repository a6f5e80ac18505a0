"""Plots are well-formed, self-contained, repeatable SVG that shows what it was given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from xml.dom import minidom

import numpy as np
import pytest

from retrodict.core.errors import InputError
from retrodict.core.statistics.drift import judge
from retrodict.core.tasks import Target
from retrodict.evaluation import ClassTable, climb, evaluate, plots
from retrodict.evaluation.plots import outputs


def _labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores = rng.beta(2, 4, size=600)
    return (rng.random(600) < scores).astype(float), scores


def _ladder() -> str:
    labels, scores = _labels()
    rungs = {"constant": np.zeros(600), "<carrier> & $rate$": scores**0.5 + np.tile([0, 0.2], 300)}
    return plots.plot_ladder(climb(candidate=scores, rungs=rungs, labels=labels), name="late_arrival@1")


def _drift() -> str:
    verdicts = {"moved": judge([500, 500], [900, 100]), "thin": judge([500, 500], [3, 1])}
    return plots.plot_drift(verdicts, threshold=0.1)


_NUMBERS = np.random.default_rng(1).normal(5, 2, (2, 2000)).cumsum(axis=0)
_QUANTILES = Target("quantile", quantiles=(0.1, 0.5, 0.9))
_BAND = _NUMBERS[1][:, None] - 5 + 2 * np.array([-1.28, 0.0, 1.28])
_CLASSES = Target("multiclass", classes=("<dry>", "medium", "sweet"), ordered=True)


def _table(target: Target) -> object:
    labels, scores = _labels()
    if target.task == "binary":
        return evaluate(labels, scores, threshold=0.4).confusion
    p = np.stack([1 - scores, scores * 0.6, scores * 0.4], axis=1)
    return evaluate(labels, p, target).confusion


def _number_ladder() -> str:
    target, (labels, values) = Target("regression"), _NUMBERS
    rungs = {"constant": np.full(2000, 5.0), "broken": np.full(2000, np.nan)}
    return plots.plot_ladder(climb(candidate=values, rungs=rungs, labels=labels, target=target), name="delay@1")


_PLOTS: dict[str, tuple[Callable[[], str], list[str]]] = {
    "ladder": (_ladder, ["late_arrival@1 beats", "constant", "<carrier> & $rate$"]),
    "calibration": (lambda: plots.plot_calibration(evaluate(*_labels()).curve), ["600 rows", "observed rate"]),
    "ladder of numbers": (_number_ladder, ["delay@1 not evaluable", "rmse, lower is better", "2000 of 2000 outputs"]),
    "confusion": (lambda: plots.plot_confusion(_table(Target())), ["decided", "actual", "yes"]),
    "classes": (lambda: plots.plot_confusion(_table(_CLASSES)), ["<dry>", "sweet"]),
    "roc": (lambda: plots.plot_roc(*_labels()), ["600 rows", "false positive rate"]),
    "precision": (lambda: plots.plot_precision_recall(*_labels()), ["base rate 0.", "precision"]),
    "gain": (lambda: plots.plot_gain(*_labels()), ["lift", "at 10%", "share of positives"]),
    "residuals": (lambda: plots.plot_residuals(*_NUMBERS), ["actual - predicted", "middle 80 %"]),
    "actual": (lambda: plots.plot_actual(*_NUMBERS), ["predicted", "perfect"]),
    "coverage": (
        lambda: plots.plot_coverage(evaluate(_NUMBERS[0], _BAND, _QUANTILES), _QUANTILES),
        ["labels at or below"],
    ),
    "elimination": (
        lambda: plots.plot_elimination(
            [{"features": k, "mean": 0.7 - (k - 4) ** 2 / 100, "low": 0.5, "high": 0.8} for k in range(9, 0, -1)]
        ),
        ["best: 4 features, 0.7", "between folds"],
    ),
    "history": (
        lambda: plots.plot_history(
            {"log_loss": [(k, 1 / k + k / 900) for k in range(1, 901)]},
            {"log_loss": [(k, 1 / k) for k in (1, 10, 900)]},
            best={"log_loss": 30},
        ),
        ["log_loss, validation", "log_loss, training", "chosen: 30, 0.06667"],
    ),
    "path": (
        lambda: plots.plot_path(
            {f"x{k}": [(10.0**power, k / 10.0**power) for power in range(-3, 3)] for k in range(12)}, strength=0.1
        ),
        ["strength of the penalty", "x11", "x4"],
    ),
    "drift": (_drift, ["moved", "not evaluable", "threshold 0.1", "noise floor"]),
}


@pytest.mark.parametrize("name", _PLOTS)
def test_plots_are_self_contained_svg(name: str) -> None:
    """Well-formed XML under 40 kB that loads nothing and shows the texts."""
    make, shown = _PLOTS[name]
    svg = make()
    root = minidom.parseString(svg).documentElement
    texts = [node.firstChild.data for tag in ("text", "title") for node in root.getElementsByTagName(tag)]
    assert root.tagName == "svg"
    assert len(svg) < 40_000
    assert not any("$" in text and "mathdefault" in text for text in texts)
    for text in shown:
        assert any(text in found for found in texts)
    assert not any(word in svg for word in ("<script", "<image", 'href="http', "@import"))


def test_equal_numbers_give_equal_bytes_from_any_thread() -> None:
    """No date, no random ids, no shared state."""
    names = ["ladder", "calibration", "drift", "roc"]
    expected = {name: _PLOTS[name][0]() for name in names}
    names *= 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda name: _PLOTS[name][0](), names)) == [expected[name] for name in names]


def test_settings_of_the_caller_are_left_alone() -> None:
    """Drawing restores matplotlib's settings."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    _drift()
    assert dict(mpl.rcParams) == before


def test_curves_pass_through_the_points_of_their_metrics() -> None:
    """What is drawn is what is measured: recall and precision of a threshold lie on the curves, lift is that of k."""
    labels, scores = _labels()
    gain = plots.plot_gain(labels, scores)
    assert f"{evaluate(labels, scores)['lift_at_k'].value:.2f} at 10%" in gain
    x, y = outputs._thinned(np.arange(5000.0), np.arange(5000.0) ** 2)
    assert (x.size, x[0], x[-1], (y == x**2).all()) == (200, 0.0, 4999.0, True)


def test_only_the_largest_coefficients_are_named() -> None:
    """Eight of twelve, by the largest absolute value along the path."""
    svg = _PLOTS["path"][0]()
    assert [f">x{k}<" in svg for k in (3, 4)] == [False, True]


@pytest.mark.parametrize("draw", [
    lambda: plots.plot_calibration([]), lambda: plots.plot_drift({}, threshold=0.1), lambda: plots.plot_roc([1], [0.5]),
    lambda: plots.plot_residuals([], []), lambda: plots.plot_path({}), lambda: plots.plot_elimination([]),
    lambda: plots.plot_history({}, {}),
    lambda: plots.plot_coverage(evaluate([], np.empty((0, 3)), _QUANTILES), _QUANTILES),
    lambda: plots.plot_confusion(ClassTable(tuple(range(31)), ((0,) * 31,) * 31)),
])  # fmt: skip
def test_nothing_to_draw_is_an_error(draw: Callable[[], str]) -> None:
    """An empty plot is refused, with what it needs."""
    with pytest.raises(InputError, match=r"a plot|a curve"):
        draw()


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_without_matplotlib_the_install_line_is_given() -> None:
    """The module imports without the extra; drawing names it."""
    out = _python(
        "import sys; sys.modules['matplotlib'] = None\n"
        "from retrodict.evaluation import plots\n"
        "from retrodict.core.errors import MissingExtraError\n"
        "from retrodict.evaluation import CalibrationBin\n"
        "try: plots.plot_calibration([CalibrationBin(0.5, 0.5, 9, 0.2, 0.8)])\n"
        "except MissingExtraError as error: print(error)"
    )
    assert "pip install 'retrodict[plots]'" in out


def test_gates_load_no_numeric_library() -> None:
    """A definitions module may name gates without paying for NumPy."""
    heavy = "{'numpy', 'scipy', 'sklearn', 'matplotlib', 'pyarrow'}"
    out = _python(
        "import sys; from retrodict.evaluation import check_gates\n"
        f"check_gates(['auc >= 0.7'], {{'auc': 0.8}}); print(sorted({heavy} & set(sys.modules)))"
    )
    assert out.strip() == "[]"
