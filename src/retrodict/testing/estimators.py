"""Contract suite of the estimators: subclass it, override ``registered`` and ``settings``, and every promise is tested.

Every estimator of the catalogue passes it, and anybody's own can::

    class TestMyTrees(EstimatorContract):
        @pytest.fixture
        def registered(self):
            return get_estimator("my_trees")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import canonical_json
from retrodict.core.statistics.survival import event_by
from retrodict.core.tasks import Target, Task
from retrodict.models.engines._losses import validation_loss
from retrodict.models.engines.base import Engine
from retrodict.models.estimators import Estimator, load_engine
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Fitted, Problem

__all__ = ["EstimatorContract", "make_problem", "odd_rows"]

_TARGETS: Mapping[Task, Target] = {
    "binary": Target(),
    "multiclass": Target("multiclass", classes=("early", "late", "on time")),
    "regression": Target("regression"),
    "quantile": Target("quantile", quantiles=(0.1, 0.5, 0.9)),
    "count": Target("count"),
    "ranking": Target("ranking"),
    "survival": Target("survival", horizons=("1d", "3d", "10d")),
}


def _columns(rng: np.random.Generator, rows: int, categories: int) -> dict[str, Any]:
    wind, visib = rng.gamma(2.0, 5.0, rows), rng.normal(8.0, 3.0, rows)
    names = np.array([f"t{at:05d}" for at in range(categories)])
    town = (rng.permutation(names)[:rows] if categories >= rows else rng.choice(names, rows)).astype(object)
    wind[rng.random(rows) < 0.1] = np.nan
    town[rng.random(rows) < 0.05] = None
    return {"wind": wind, "visib": visib, "town": town, "month": rng.integers(1, 13, rows).astype(np.float64)}


def make_problem(
    task: Task, *, rows: int = 300, seed: int = 1, categories: int = 4, extra: Mapping[str, Any] | None = None
) -> Problem:
    """Rows whose outcome depends on numbers with nulls and on a category, half as many to validate on.

    Parameters
    ----------
    task : Task
    rows : int, default 300
    seed : int, default 1
    categories : int, default 4
        Number of values of the category ``town``.
    extra : mapping of str to value, optional
        Further columns of one value.
    """
    rng, target = np.random.default_rng(seed), _TARGETS[task]
    parts = []
    for count in (rows, max(rows // 2, 1)):
        columns = _columns(rng, count, categories)
        first = np.array([town is not None and town.endswith(("0", "2")) for town in columns["town"]])
        signal = 0.25 * (np.nan_to_num(columns["wind"], nan=10.0) - 10.0) - 0.3 * (columns["visib"] - 8.0) + first
        noisy = signal + rng.normal(size=count)
        labels = {
            "binary": (noisy > 0).astype(np.float64),
            "multiclass": np.digitize(noisy, (-1.0, 1.0)).astype(np.float64),
            "count": rng.poisson(np.exp(np.clip(0.4 * signal, -3, 3))).astype(np.float64),
            "ranking": np.clip(np.round(noisy), 0, 4),
            "survival": (days := 5 * np.exp(-noisy)) * np.where(days < 20 * rng.random(count), 1, -1),
        }.get(task, noisy)
        groups = np.arange(count) // 10 if task == "ranking" else None
        parts.append(({**columns, **{name: [value] * count for name, value in (extra or {}).items()}}, labels, groups))
    inputs = InputSpec.learn(parts[0][0])
    train, valid = (Examples(inputs.encode_columns(c), labels, target, None, groups) for c, labels, groups in parts)
    return Problem(inputs, train, valid, seed=7)


def odd_rows(inputs: InputSpec, rows: int = 60) -> NDArray[np.float64]:
    """Rows with much missing, huge and tiny numbers, and codes that no vocabulary holds."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(rows, len(inputs))) * 10.0 ** rng.integers(-30, 30, size=(rows, len(inputs)))
    for at in inputs.categorical:
        matrix[:, at] = rng.integers(-2, len(inputs.features[at].vocabulary) + 3, rows)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return matrix


_FITS: dict[bytes, tuple[Problem, Fitted[Any]]] = {}


class EstimatorContract:
    """What every estimator does for every task that it registers.

    Attributes
    ----------
    learns : bool, default True
        Whether it beats the same answer for every row; False for baselines and detectors.
    most_categories : int, default 10000
        How many values of a category it is tried with; less where training time grows with the square of the rows.
    """

    learns: ClassVar[bool] = True
    most_categories: ClassVar[int] = 10_000

    @pytest.fixture
    def registered(self) -> Estimator:
        """Give the estimator under test."""
        raise NotImplementedError

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """Parameters that make it quick."""
        return {}

    @pytest.fixture
    def fitted(
        self, registered: Estimator, settings: Mapping[str, Any]
    ) -> Callable[[Task], tuple[Problem, Fitted[Any]]]:
        """Fit a task, once for all tests of the estimator."""

        def fit(task: Task) -> tuple[Problem, Fitted[Any]]:
            key = canonical_json([registered.name, registered.fit, task, dict(settings)])
            if key not in _FITS:
                problem = replace(make_problem(task), params=settings)
                _FITS[key] = problem, registered.solve(problem)
            return _FITS[key]

        return fit

    def test_outputs_are_those_of_the_task(self, registered: Estimator, fitted: Any) -> None:
        """Probabilities between 0 and 1 that add up, quantiles that ascend, counts of zero or more."""
        for task in registered.tasks:
            problem, result = fitted(task)
            scores = result.engine.scores(problem.validate.matrix)
            count = len(problem.validate.matrix)
            columns = result.engine.target.columns
            assert result.engine.target == problem.train.target
            assert scores.dtype == np.float64
            assert scores.shape == ((count,) if columns == 1 else (count, columns))
            assert np.isfinite(scores).all()
            if task in {"binary", "multiclass"}:
                assert (scores >= 0).all()
                assert (scores <= 1 + 1e-12).all()
            if task == "multiclass":
                np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-6)
            if task == "quantile":
                assert (np.diff(scores, axis=1) >= 0).all()
            if task == "count":
                assert (scores >= 0).all()
            if task == "survival":
                assert (scores >= 0).all()
                assert (scores <= 1).all()
                assert (np.diff(scores, axis=1) >= 0).all()

    def test_it_learns_more_than_a_constant(self, registered: Estimator, fitted: Any) -> None:
        """On rows that it was not fitted on, by the loss of the task."""
        for task in registered.tasks if self.learns else ():
            problem, result = fitted(task)
            valid, labels = problem.validate, problem.train.labels
            constant: Any = labels.mean()
            if task == "quantile":
                constant = np.quantile(labels, problem.train.target.quantiles)
            elif task == "survival":
                constant = event_by(labels, np.array(problem.train.target.days))
            elif task == "multiclass":
                constant = np.bincount(labels.astype(int), minlength=3) / len(labels)
            still = np.zeros((len(valid.labels), *np.shape(constant))) + constant
            outputs = [result.engine.scores(valid.matrix), still]
            if task in {"binary", "multiclass"}:  # before calibration, which is what holds certainty back
                outputs = [np.clip(out, 0.02, 0.98) for out in outputs]
            loss, baseline = (validation_loss(valid, out)[1] for out in outputs)
            assert loss < baseline, task

    def test_rows_are_left_untouched(self, registered: Estimator, settings: Mapping[str, Any]) -> None:
        """Neither fitting nor scoring writes to what it is given, and scoring takes rows that cannot be written to."""
        problem = replace(make_problem(registered.tasks[0]), params=settings)
        train, before = problem.train, (problem.train.matrix.tobytes(), problem.train.labels.tobytes(), dict(settings))
        engine = registered.solve(problem).engine
        train.matrix.flags.writeable = False
        engine.scores(train.matrix)
        engine.score_row(train.matrix[0])
        assert (train.matrix.tobytes(), train.labels.tobytes(), dict(settings)) == before

    def test_the_same_seed_gives_the_same_engine(self, registered: Estimator, fitted: Any) -> None:
        """Fingerprints are equal."""
        for task in registered.tasks:
            problem, result = fitted(task)
            assert registered.solve(problem).engine.fingerprint() == result.engine.fingerprint(), task

    def test_parts_give_an_engine_that_scores_alike(self, registered: Estimator, fitted: Any) -> None:
        """What is stored is enough, and nothing of it is a pickle."""
        for task in registered.tasks:
            problem, result = fitted(task)
            engine, parts = result.engine, dict(result.engine.parts())
            again = load_engine(engine.kind, parts)
            rows = np.vstack([problem.validate.matrix, odd_rows(problem.inputs)])
            assert again.scores(rows).tobytes() == engine.scores(rows).tobytes()
            assert (again.fingerprint(), dict(again.parts())) == (engine.fingerprint(), parts)
            assert again.target == engine.target
            assert not [
                name for name, data in parts.items() if data[:1] == b"\x80" or name.endswith((".pkl", ".joblib"))
            ]

    def test_a_batch_equals_its_rows(self, registered: Estimator, fitted: Any) -> None:
        """Bit for bit where it is declared, else to ``row_error``; ordinary rows and odd ones."""
        for task in registered.tasks:
            problem, result = fitted(task)
            engine = result.engine
            rows = np.vstack([problem.validate.matrix, odd_rows(problem.inputs)])
            batch, singly = engine.scores(rows), np.array([engine.score_row(row) for row in rows])
            assert engine.exact_rows or not registered.exact_rows
            if engine.exact_rows:
                assert batch.tobytes() == singly.tobytes(), task
            close = registered.row_error
            np.testing.assert_allclose(singly, batch, rtol=close, atol=close)
            assert engine.scores(rows[:0]).shape == (0, *batch.shape[1:])

    def test_threads_do_not_disturb_one_another(self, registered: Estimator, fitted: Any) -> None:
        """Four threads score the same rows at once."""
        problem, result = fitted(registered.tasks[0])
        rows = problem.validate.matrix[:40]
        expected = [result.engine.score_row(row) for row in rows]
        answers: list[list[Any]] = []
        threads = [threading.Thread(target=lambda: answers.append([result.engine.score_row(row) for row in rows]))
                   for _ in range(4)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [expected] * 4

    def test_columns_are_read_by_name(self, registered: Estimator, fitted: Any) -> None:
        """Another order, unseen categories and further columns change nothing else; infinities are refused."""
        problem, result = fitted(registered.tasks[0])
        columns = {"wind": [3.0, None], "visib": [8.0, 1.0], "town": ["t00001", "unseen"], "month": [1.0, 5.0]}
        turned = {"more": [1, 2], **dict(reversed(columns.items()))}
        scores = [result.engine.scores(problem.inputs.encode_columns(c)) for c in (columns, turned)]
        assert scores[0].tobytes() == scores[1].tobytes()
        assert np.isfinite(scores[0]).all()
        with pytest.raises(InputError, match="wind"):
            problem.inputs.encode_columns({**columns, "wind": [np.inf, 0.0]})

    @pytest.mark.parametrize("extra", [{"still": 4.0}, {"empty": float("nan")}, {"word": "same"}], ids=str)
    def test_columns_that_say_nothing_do_no_harm(
        self, registered: Estimator, settings: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        """Of one value, or of none."""
        problem = replace(make_problem(registered.tasks[0], extra=extra), params=settings)
        engine = registered.solve(problem).engine
        assert np.isfinite(engine.scores(problem.train.matrix)).all()
        row = problem.train.matrix[0]
        np.testing.assert_allclose(engine.score_row(row), engine.scores(row[None, :])[0], rtol=1e-12)

    def test_one_training_row_is_fitted_or_refused(self, registered: Estimator, settings: Mapping[str, Any]) -> None:
        """By an error that says what must hold, never by one of a library."""
        for task in registered.tasks:
            problem = replace(make_problem(task, rows=1), params=settings)
            try:
                engine = registered.solve(problem).engine
            except InputError as error:
                assert "must" in str(error)  # noqa: PT017  # either is right
            else:
                assert np.isfinite(engine.scores(problem.train.matrix)).all()

    def test_one_outcome_is_fitted_or_refused(self, registered: Estimator, settings: Mapping[str, Any]) -> None:
        """No positives: nothing can be learned from them by a classifier."""
        for task in registered.tasks:
            problem = make_problem(task)
            single = -1.0 if task == "survival" else 0.0  # nobody has had the event
            train = replace(problem.train, labels=np.full(len(problem.train.labels), single))
            try:
                engine = registered.solve(replace(problem, train=train, params=settings)).engine
            except InputError as error:
                assert "must" in str(error)  # noqa: PT017  # either is right
            else:
                assert task not in {"binary", "multiclass"} or not self.learns
                assert np.isfinite(engine.scores(problem.train.matrix)).all()

    def test_weights_count_or_are_refused(self, registered: Estimator, fitted: Any) -> None:
        """Heavy rows pull the engine towards them."""
        task = registered.tasks[0]
        problem, result = fitted(task)
        weights = np.where(problem.train.labels > problem.train.labels.mean(), 5.0, 0.5)
        weighted = replace(problem, train=replace(problem.train, weights=weights))
        if not registered.weights:
            with pytest.raises(InputError, match="rows must have no weights"):
                registered.solve(weighted)
            return
        engine = registered.solve(weighted).engine
        assert engine.fingerprint() != result.engine.fingerprint()
        if task in {"binary", "regression", "count"} and self.learns:
            rows = problem.validate.matrix
            assert engine.scores(rows).mean() > result.engine.scores(rows).mean()

    def test_contributions_add_up_to_the_margin(self, registered: Estimator, fitted: Any) -> None:
        """Where they are declared."""
        for task in registered.tasks:
            problem, result = fitted(task)
            engine: Engine = result.engine
            assert engine.explains == registered.explains
            for row in problem.validate.matrix[:20] if engine.explains else ():
                shares = np.asarray(engine.contributions(row))
                assert shares.shape[-1] == engine.width + 1
                np.testing.assert_allclose(shares.sum(axis=-1), engine.margin(row), rtol=1e-5, atol=1e-5)

    def test_monotone_features_only_rise(self, registered: Estimator, settings: Mapping[str, Any]) -> None:
        """Or only fall."""
        for sign in (1, -1) if registered.monotone else ():
            params = {**settings, "monotone": {"visib": sign}}
            problem = replace(make_problem(registered.tasks[0]), params=params)
            engine = registered.solve(problem).engine
            rows = np.repeat(problem.train.matrix[:1], 50, axis=0)
            rows[:, problem.inputs.names.index("visib")] = np.linspace(-5.0, 25.0, 50)
            assert (sign * np.diff(engine.scores(rows), axis=0) >= 0).all()

    def test_the_search_space_is_within_the_bounds(self, registered: Estimator) -> None:
        """What tuning may try is what a recipe may say."""
        required = {name: self._required(name) for name in registered.required}
        for name, (kind, *ends) in registered.space.items():
            assert name in registered.defaults
            for value in ends[0] if kind == "choice" else ends[:2]:
                registered.check({**required, name: value})
        if not registered.aliases:
            with pytest.raises(DefinitionError, match="must be one of the estimator"):
                registered.check({**required, "no_such_parameter": 1})

    def _required(self, name: str) -> Any:
        return "town" if name == "group" else 1

    @pytest.mark.slow
    def test_many_categories_are_affordable(self, registered: Estimator, settings: Mapping[str, Any]) -> None:
        """A category with nearly as many values as there are rows."""
        many = self.most_categories
        problem = replace(make_problem(registered.tasks[0], rows=many + 100, categories=many), params=settings)
        engine = registered.solve(problem).engine
        rows = problem.train.matrix[:50]
        np.testing.assert_allclose([engine.score_row(row) for row in rows], engine.scores(rows), rtol=1e-12, atol=1e-12)
