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
from retrodict.evaluation import climb, evaluate, plots


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


_PLOTS: dict[str, tuple[Callable[[], str], list[str]]] = {
    "ladder": (_ladder, ["late_arrival@1 beats", "constant", "<carrier> & $rate$"]),
    "calibration": (lambda: plots.plot_calibration(evaluate(*_labels()).curve), ["600 rows", "observed rate"]),
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
    for text in shown:
        assert any(text in found for found in texts)
    assert not any(word in svg for word in ("<script", "<image", 'href="http', "@import"))


def test_equal_numbers_give_equal_bytes_from_any_thread() -> None:
    """No date, no random ids, no shared state."""
    expected = {name: make() for name, (make, _) in _PLOTS.items()}
    names = [*_PLOTS] * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda name: _PLOTS[name][0](), names)) == [expected[name] for name in names]


def test_settings_of_the_caller_are_left_alone() -> None:
    """Drawing restores matplotlib's settings."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    _drift()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("draw", [lambda: plots.plot_calibration([]), lambda: plots.plot_drift({}, threshold=0.1)])
def test_nothing_to_draw_is_an_error(draw: Callable[[], str]) -> None:
    """An empty plot is refused, with what it needs."""
    with pytest.raises(InputError, match="a plot"):
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
