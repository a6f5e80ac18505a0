"""Runtimes: each is timed and compared bit by bit, the fastest exact one is chosen, and a model is scored by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrodict.core.errors import NotFoundError
from retrodict.core.tasks import Target
from retrodict.models import ModelArtifact, get_estimator, runtimes
from retrodict.models.runtimes import SIZES, Runtime, measure_runtimes, runtimes_of
from retrodict.testing.estimators import make_problem, odd_rows


class Lines:
    """An engine of one sum, whose row function and further runtime answer as a test wants."""

    target, width, exact_rows, explains, kind = Target("regression"), 2, True, False, "lines"

    def __init__(self, row: float = 0.0, more: tuple[Runtime, ...] = ()) -> None:
        self.row, self.more = row, more
        self.calls: list[str] = []

    def scores(self, matrix):
        self.calls.append("table")
        return matrix[:, 0] + matrix[:, 1]

    def score_row(self, row):
        self.calls.append("row")
        return float(row[0] + row[1]) + self.row

    def runtimes(self):
        return self.more


@pytest.fixture
def timed(monkeypatch):
    """Says what each runtime takes for one row, 64 and 1,000, in the order in which they are asked."""

    def say(*times: float) -> None:
        answers = iter(times)
        monkeypatch.setattr(runtimes, "_median_us", lambda call: call() is None or next(answers))

    return say


MATRIX = np.random.default_rng(0).normal(size=(40, 2))


def test_the_fastest_exact_runtime_is_chosen_for_a_row_and_for_a_table(timed):
    """Of two that give the same bits each is chosen where it is faster."""
    timed(2, 90, 900, 5, 6, 7)
    facts = measure_runtimes(Lines(), MATRIX)
    assert (facts["row"], facts["table"], facts["rows"]) == ("row", "table", list(SIZES))
    timed(5, 50, 70, 2, 100, 500)
    facts = measure_runtimes(Lines(), MATRIX)
    assert (facts["row"], facts["table"]) == ("table", "row")


@pytest.mark.parametrize("apart", [1e-12, float("nan")])
def test_a_runtime_of_other_bits_is_never_chosen_however_fast(timed, apart):
    """It is listed with its distance; a hidden last bit would make every replay differ."""
    near = Runtime("near", lambda row: float(row[0] + row[1]) + apart, lambda matrix: matrix.sum(axis=1) + apart)
    timed(3, 90, 900, 5, 6, 7, 0.1, 0.1, 0.1)
    facts = measure_runtimes(Lines(more=(near,)), MATRIX)
    assert (facts["row"], facts["table"]) == ("row", "table")
    third = facts["measured"][2]
    assert (third["name"], third["exact_row"], third["exact_table"]) == ("near", False, False)
    assert third["distance"] == (None if np.isnan(apart) else pytest.approx(apart, rel=0.1))


def test_a_row_function_that_breaks_its_promise_is_passed_over(timed):
    """An engine that says one row is exact, and whose row function differs, is asked for a table of one row."""
    timed(1, 60, 900, 5, 6, 7)
    assert measure_runtimes(Lines(row=1e-15), MATRIX * 1e-3)["row"] == "table"


def test_what_would_take_too_long_is_not_measured_and_not_chosen(timed):
    """1,000 rows one by one: extrapolated from 64, said as None."""
    timed(300, 64 * 300, 5, 6, 7)
    facts = measure_runtimes(Lines(), MATRIX)
    assert facts["measured"][0]["us"] == [300, 64 * 300, None]
    assert facts["table"] == "table"


def test_a_model_is_scored_by_the_runtimes_that_its_version_names(spec):
    """And refused where they are not there."""
    engine = Lines()
    values = dict.fromkeys(spec.names)
    lined = ModelArtifact("lines", type(spec)(spec.features[:2]), engine)
    lined.score_row(values)
    swapped = replace(lined, metadata={"runtimes": {"row": "table", "table": "row"}})
    swapped.score_row(values)
    swapped.score_rows({name: [None, None] for name in spec.names})
    assert engine.calls == ["row", "table", "row", "row"]
    with pytest.raises(NotFoundError, match=r"scored by a runtime that is there.*'warp'"):
        replace(lined, metadata={"runtimes": {"row": "warp", "table": "table"}})


@pytest.mark.parametrize("name", ["constant", "logistic", "lightgbm", "random_forest", "xgboost", "catboost"])
def test_engines_of_the_catalogue_are_measured_and_exact(name):
    """Both runtimes of each, on rows that miss values and have odd ones."""
    if name in ("xgboost", "catboost"):
        pytest.importorskip(name)
    problem = replace(make_problem("binary"), params={"n_estimators": 20} if name == "random_forest" else {})
    engine = get_estimator(name).solve(problem).engine
    facts = measure_runtimes(engine, np.vstack([odd_rows(problem.inputs), problem.train.matrix]))
    assert [one["name"] for one in facts["measured"]] == ["row", "table"] == [r.name for r in runtimes_of(engine)]
    assert all(one["exact_row"] and one["exact_table"] and one["us"][0] > 0 for one in facts["measured"])
