"""The network: NumPy serves what torch fitted, options do what they say, and torch's own state is left alone."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from retrodict.core.errors import DefinitionError, InputError, IntegrityError, MissingExtraError
from retrodict.models import get_estimator
from retrodict.models.engines.network import NetworkEngine
from retrodict.testing.estimators import make_problem, odd_rows

torch = pytest.importorskip("torch", reason="the extra 'deep' is not installed: make deep", exc_type=ImportError)

QUICK = {"layers": [12, 6], "epochs": 6, "learning_rate": 0.02, "batch_size": 64}


def fit(task="binary", *, problem=None, **params):
    problem = make_problem(task) if problem is None else problem
    return problem, get_estimator("network").solve(replace(problem, params={**QUICK, **params}))


def by_torch(engine: NetworkEngine, matrix: np.ndarray) -> np.ndarray:
    """The forward pass in modules of torch, in float64, straight from the stored arrays."""
    plan, arrays = engine.plan, {name: torch.from_numpy(a.astype(np.float64)) for name, a in engine.arrays.items()}
    rows = torch.from_numpy(matrix)
    numbers = rows[:, list(plan.numbers)]
    scaled = ((numbers - arrays["mean"]) / arrays["scale"]).clamp(-10, 10).nan_to_num(nan=0.0)
    parts = [scaled, numbers.isnan()[:, list(plan.gaps)].double()]
    for at, place in enumerate(plan.categories):
        table = torch.nn.Embedding.from_pretrained(arrays[f"embedding_{at}"])
        codes = rows[:, place].nan_to_num(nan=-1)
        parts.append(table(torch.where((codes >= 0) & (codes < len(table.weight) - 1), codes,
                                       len(table.weight) - 1).long()))  # fmt: skip
    hidden = torch.cat(parts, 1)
    for layer in range(plan.layers + 1):
        linear = torch.nn.Linear(*arrays[f"weight_{layer}"].shape, dtype=torch.float64)
        linear.weight.data, linear.bias.data = arrays[f"weight_{layer}"].T, arrays[f"bias_{layer}"]
        hidden = linear(hidden)
        if layer < plan.layers:
            hidden = {"relu": torch.relu, "tanh": torch.tanh}[plan.activation](hidden)
    return (hidden.detach() * plan.unit + plan.centre).numpy()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "quantile"])
def test_numpy_gives_what_torch_gives(task, activation):
    """Ordinary rows, odd ones, unseen categories."""
    problem, fitted = fit(task, activation=activation)
    rows = np.vstack([problem.validate.matrix, odd_rows(problem.inputs)])
    margins = fitted.engine.margins(rows).reshape(len(rows), -1)
    np.testing.assert_allclose(margins, by_torch(fitted.engine, rows), rtol=1e-9, atol=1e-9)


def test_the_best_weights_come_back():
    """The engine is that of the epoch with the least validation loss, and patience ends the fit after it."""
    _, fitted = fit(epochs=80, patience=4, learning_rate=0.1, dropout=0.0, weight_decay=0.0, layers=[64])
    losses, best = fitted.history["log_loss"], fitted.params["best_iteration"]
    assert best == int(np.argmin(losses)) + 1
    assert len(losses) == fitted.params["iterations"] == best + 4 < 80
    again = fit(epochs=best, patience=0, learning_rate=0.1, dropout=0.0, weight_decay=0.0, layers=[64])[1]
    assert again.engine.fingerprint() == fitted.engine.fingerprint()
    assert len(fitted.history["train/log_loss"]) == len(losses)


def test_a_smaller_gain_than_min_delta_is_none():
    """Then the first epoch stays the best."""
    assert fit(min_delta=10.0, patience=2)[1].params["best_iteration"] == 1


def test_without_validation_rows_every_epoch_runs():
    problem = replace(make_problem("regression"), validate=None)
    fitted = fit(problem=problem, patience=1)[1]
    assert (fitted.params["iterations"], dict(fitted.history)) == (6, {})


def test_weight_decay_shrinks_and_dropout_changes_the_weights():
    def size(fitted):
        return sum(float(np.abs(a).sum()) for name, a in fitted.engine.arrays.items() if name.startswith("weight"))

    kept = {"patience": 0, "dropout": 0.0, "epochs": 12}
    problem = replace(make_problem("binary"), validate=None)
    plain, decayed = (fit(problem=problem, **kept, weight_decay=rate)[1] for rate in (0.0, 1.0))
    assert size(decayed) < 0.8 * size(plain)
    dropped = fit(problem=problem, **{**kept, "dropout": 0.5}, weight_decay=0.0)[1]
    assert dropped.engine.fingerprint() != plain.engine.fingerprint()


def test_a_category_is_learned_and_missing_counts_for_itself():
    """Outcomes that hang on one category and on whether a number is there."""
    rng = np.random.default_rng(0)
    problem = make_problem("binary", rows=600)
    matrix = problem.train.matrix.copy()
    wind, town = problem.inputs.names.index("wind"), problem.inputs.names.index("town")
    matrix[rng.random(600) < 0.5, wind] = np.nan
    labels = ((matrix[:, town] == 2) ^ np.isnan(matrix[:, wind])).astype(float)
    train = replace(problem.train, matrix=matrix, labels=labels)
    engine = fit(problem=replace(problem, train=train, validate=None), epochs=40, dropout=0.0)[1].engine
    assert ((engine.scores(matrix) > 0.5) == labels).mean() > 0.97


def test_torch_is_left_as_it_was():
    """Neither its numbers at random nor its threads change, and they do not change the fit."""
    before = torch.get_num_threads()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = fit()[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == before
    torch.manual_seed(6)
    assert fit()[1].engine.fingerprint() == first.engine.fingerprint()
    problem = replace(make_problem("binary"), seed=8)
    assert fit(problem=problem)[1].engine.fingerprint() != first.engine.fingerprint()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="layers must be whole numbers"):
        fit(layers=[8, 0])
    with pytest.raises(InputError, match="weights must stay finite"):
        fit("regression", learning_rate=1e30, problem=replace(make_problem("regression"), validate=None))
    with pytest.raises(DefinitionError, match="dropout must be"):
        get_estimator("network").check({"dropout": 0.99})
    parts = dict(fit()[1].engine.parts())
    with pytest.raises(IntegrityError, match="NumPy must read"):
        NetworkEngine.from_parts({**parts, "arrays.npz": parts["arrays.npz"][:100]})


def test_without_torch_the_extra_is_named_and_a_stored_network_still_scores(monkeypatch):
    """Serving needs NumPy only."""
    problem, fitted = fit()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"retrodict\[deep\]"):
        fit()
    again = NetworkEngine.from_parts(fitted.engine.parts())
    assert again.scores(problem.train.matrix).tobytes() == fitted.engine.scores(problem.train.matrix).tobytes()
