"""Every engine: one answer for a batch and for its rows, kept without pickle, explained to the last bit of rounding."""

from __future__ import annotations

import sys
import threading

import lightgbm
import numpy as np
import pytest
from scipy.special import expit

from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.models import ConstantEngine, LinearEngine, TreesEngine, load_engine, tree_hash

from .conftest import odd_rows


def test_a_batch_equals_its_rows_bit_for_bit(engine, valid):
    """Ordinary and odd rows, probabilities and margins."""
    matrix = np.vstack([valid.matrix, odd_rows(2_000, seed=3)])
    assert engine.scores(matrix).tobytes() == np.array([engine.score_row(row) for row in matrix]).tobytes()
    assert engine.margins(matrix).tobytes() == np.array([engine.margin(row) for row in matrix]).tobytes()


def test_a_score_does_not_depend_on_its_batch(engine, valid):
    """Any slice gives the same numbers as the whole; no rows give none."""
    whole = engine.scores(valid.matrix)
    assert engine.scores(valid.matrix[3:7]).tobytes() == whole[3:7].tobytes()
    assert engine.scores(valid.matrix[:0]).shape == (0,)


def test_scores_are_the_logistic_function_of_margins(engine, valid):
    """Scores and margins tell the same."""
    np.testing.assert_allclose(engine.scores(valid.matrix), expit(engine.margins(valid.matrix)), rtol=1e-12)


def test_parts_give_an_engine_that_scores_alike(engine, valid):
    """What is kept is enough, and it is text."""
    parts = dict(engine.parts())
    again = load_engine(engine.kind, parts)
    assert again.scores(valid.matrix).tobytes() == engine.scores(valid.matrix).tobytes()
    assert (again.fingerprint(), dict(again.parts())) == (engine.fingerprint(), parts)
    assert all(data.decode().isprintable() or "\n" in data.decode() for data in parts.values())


def test_contributions_and_bias_add_up_to_the_margin(engine, valid):
    """Nothing of a margin is left unexplained."""
    for row in valid.matrix[:200]:
        shares = engine.contributions(row)
        assert shares.shape == (engine.width + 1,)
        assert shares[:-1].sum() == pytest.approx(engine.margin(row) - shares[-1], abs=1e-9)


def test_the_matrix_is_left_untouched(engine, valid):
    """Engines write to buffers of their own."""
    before = valid.matrix.tobytes()
    engine.scores(valid.matrix)
    engine.score_row(valid.matrix[0])
    engine.contributions(valid.matrix[0])
    assert valid.matrix.tobytes() == before


def test_rows_of_another_width_or_type_are_refused(engine):
    """C code would read past the end of a short row."""
    for call, wrong in [
        (engine.score_row, np.zeros(engine.width - 1)),
        (engine.score_row, np.zeros(engine.width, dtype=np.float32)),
        (engine.scores, np.zeros((2, engine.width + 1))),
        (engine.scores, np.zeros((2, engine.width), dtype=np.float32)),
    ]:
        with pytest.raises(InputError, match="must be float64 of the engine's"):
            call(wrong)


def test_threads_do_not_disturb_one_another(trees, valid):
    """Each thread scores and explains its own rows; a shared buffer would mix them."""
    expected = trees.scores(valid.matrix)
    shares = [trees.contributions(row) for row in valid.matrix[:200]]
    wrong: list[int] = []

    def score(start: int) -> None:
        mine = range(start, len(valid.matrix), 4)
        wrong.extend(at for at in mine if trees.score_row(valid.matrix[at]) != expected[at])
        few = range(start, len(shares), 4)
        wrong.extend(at for at in few if not np.array_equal(trees.contributions(valid.matrix[at]), shares[at]))

    threads = [threading.Thread(target=score, args=(start,), daemon=True) for start in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # let the threads interleave within a call
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_contributions_are_those_of_lightgbm(trees, valid):
    """The single-row path is LightGBM's own exact TreeSHAP."""
    expected = lightgbm.Booster(model_str=trees.text).predict(valid.matrix[:50], pred_contrib=True)
    assert all(
        np.array_equal(trees.contributions(row), want) for row, want in zip(valid.matrix, expected, strict=False)
    )


def test_contributions_are_shapley_values(spec, train):
    """On stumps, where the value is plain, against the definition: the leaf less its weighted mean."""
    data = lightgbm.Dataset(train.matrix[:, [1]], train.labels)
    text = lightgbm.train(
        {"objective": "binary", "num_leaves": 2, "verbosity": -1}, data, num_boost_round=1
    ).model_to_string()
    engine = TreesEngine(text)
    margins = engine.margins(train.matrix[:, [1]])
    share, bias = engine.contributions(train.matrix[0, [1]])
    assert bias == pytest.approx(margins.mean(), abs=1e-9)
    assert share == pytest.approx(margins[0] - margins.mean(), abs=1e-9)


def test_the_kept_text_holds_no_parameters(trees):
    """Threads and seeds are of the run; they must not move the model's hash."""
    assert "num_threads" not in trees.text
    assert trees.trees > 1


def test_a_tree_hash_is_of_the_trees(trees):
    """What follows the trees does not count; a changed leaf does."""
    assert tree_hash(trees.text + "\nparameters:\n[num_threads: 2]\n") == tree_hash(trees.text) == trees.fingerprint()
    assert tree_hash(trees.text.replace("leaf_value=", "leaf_value=1", 1)) != tree_hash(trees.text)
    with pytest.raises(InputError, match="a LightGBM model text"):
        tree_hash("not a model")


def test_models_of_another_objective_are_refused(train):
    """A regression's output is no probability."""
    data = lightgbm.Dataset(train.matrix, train.labels)
    text = lightgbm.train({"objective": "l2", "verbosity": -1}, data, num_boost_round=1).model_to_string()
    with pytest.raises(InputError, match="an objective of its task: binary"):
        TreesEngine(text)


def test_a_text_that_lightgbm_cannot_read_is_an_integrity_error():
    """LightGBM's complaint comes as ours."""
    with pytest.raises(IntegrityError, match="LightGBM must read the model"):
        TreesEngine("tree\nversion=v4\n\nend of trees\n")


def test_an_unknown_kind_is_named_with_the_known_ones():
    """A manifest of a newer package says what is missing."""
    with pytest.raises(NotFoundError, match="'lightgbm'"):
        load_engine("lightgmb", {})


def test_the_linear_engine_is_the_formula(engines, valid):
    """Against a matrix product over an explicit design: imputed, standardised, one-hot."""
    engine = engines["linear"]
    assert isinstance(engine, LinearEngine)
    wind, visib, origin, month = engine.terms
    design, weights = [], []
    for at, term in ((0, wind), (1, visib)):
        column = valid.matrix[:, at]
        design.append((np.where(np.isnan(column), term.mean, column) - term.mean) / term.scale)
        weights.append(term.weight)
    for at, term in ((2, origin), (3, month)):
        for code, weight in [*enumerate(term.weights), (np.nan, term.missing)]:
            hit = np.isnan(valid.matrix[:, at]) if np.isnan(code) else valid.matrix[:, at] == code
            design.append(hit.astype(float))
            weights.append(weight)
    expected = expit(np.column_stack(design) @ np.array(weights) + engine.intercept)
    np.testing.assert_allclose(engine.scores(valid.matrix), expected, rtol=1e-10)


def test_rates_outside_of_zero_and_one_are_refused():
    """A rate is a probability."""
    with pytest.raises(InputError, match="between 0 and 1"):
        ConstantEngine(1.5, features=1)
