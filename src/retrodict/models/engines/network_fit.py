"""Fitting of a small network by torch (extra ``deep``): AdamW on batches, dropout, early stopping, best weights back.

Torch's own state is left alone: every number at random comes from generators of the fit, one per epoch, and the number
of threads is put back. On one thread the same seed gives the same weights in every process of a kind of machine, and a
table's batches are too small for more. Modules of ``torch.nn`` were left out: the weights are a dictionary of tensors
under the names by which the engine stores them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, MissingExtraError, check_known
from retrodict.core.identity import canonical_json
from retrodict.models.engines._losses import check_two_classes, training_sample, validation_loss
from retrodict.models.engines.network import NetworkEngine, NetworkPlan
from retrodict.models.problem import TRAIN, Examples, Fitted, Problem

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["solve_network"]

# Epochs have seeds of their own, so that a fit can go on in the middle of one.
_EPOCH_SEEDS = 1_000_003


def _library() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "deep", needed_for="the estimator 'network'") from error
    library: ModuleType = torch
    return library


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """One thread for torch and for NumPy's products: sums depend on their number."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def solve_network(problem: Problem) -> Fitted[NetworkEngine]:
    """Registered as ``network``: a multi-layer perceptron stopped by the validation loss, its best weights kept.

    ``weight_decay`` is that of AdamW, apart from the gradient (Loshchilov and Hutter 2019); dropout scales what it
    keeps (Srivastava et al. 2014).
    """
    torch = _library()
    check_two_classes(problem.train, "network")
    params = dict(problem.params)
    layers = params["layers"]
    if not all(isinstance(units, int) and units >= 1 for units in layers):
        raise InputError("layers must be whole numbers of at least 1, the units of each hidden layer", where="network",
                         got=layers, remedy="Write params={'layers': [64, 32]}")  # fmt: skip
    with _one_thread(torch):
        training = _Training(torch, problem)
        training.run()
    engine = training.best if training.best is not None else training.engine()
    if not all(np.isfinite(values).all() for values in engine.arrays.values()):
        raise InputError("the weights must stay finite", where="network", got="weights that are not",
                         remedy="Choose a lower learning_rate")  # fmt: skip
    count = sum(values.size for name, values in engine.arrays.items() if name not in {"mean", "scale"})
    facts = {**problem.params, "layers": list(layers), "seed": problem.seed, "threads": 1,
             "best_iteration": training.best_epoch or training.epoch, "iterations": training.epoch}  # fmt: skip
    copied = {"taken_over": training.taken_over} if training.taken_over else {}
    return Fitted(engine, facts, training.history, {"parameters": count, **copied})


class _Training:
    """A fit under way: weights, optimiser, position, and the best so far."""

    def __init__(self, torch: Any, problem: Problem) -> None:
        self.torch, self.problem, self.params = torch, problem, problem.params
        train = problem.train
        self.plan, mean, scale = _plan(problem)
        self.fixed = {"mean": mean, "scale": scale}
        former: Any = None if problem.start is None else problem.start.engine
        if former is not None:  # weights mean something on the scales that they were learned on
            self.plan = replace(former.plan, layers=self.plan.layers, activation=self.plan.activation)
            self.fixed = {name: former.arrays[name] for name in self.fixed}
        self.weights = _first_weights(torch, problem, self.plan, np.random.default_rng(problem.seed))
        self.taken_over = [] if former is None else _take_over(torch, self.weights, self.plan, former, problem)
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=self.params["learning_rate"],
                                           weight_decay=self.params["weight_decay"], foreach=False)  # fmt: skip
        self.numbers = torch.from_numpy(self.engine().inputs(train.matrix).astype(np.float32))
        self.codes = torch.from_numpy(_codes(problem, train.matrix))
        labels = (train.labels - self.plan.centre) / self.plan.unit
        kind = np.int64 if train.target.task == "multiclass" else np.float32
        self.labels = torch.from_numpy(labels.astype(kind))
        weights = np.ones(len(labels)) if train.weights is None else train.weights / train.weights.mean()
        self.row_weights = torch.from_numpy(weights.astype(np.float32))
        self.epoch = self.batch = self.best_epoch = 0
        self.best_loss = np.inf
        self.best: NetworkEngine | None = None
        self.history: dict[str, list[float]] = {}

    def engine(self) -> NetworkEngine:
        """The weights as they are now."""
        arrays = {name: tensor.detach().numpy().copy() for name, tensor in self.weights.items()}
        return NetworkEngine(self.plan, {**self.fixed, **arrays})

    def run(self) -> None:
        """Epochs until the loss on the validation rows has not fallen for ``patience`` of them."""
        valid, epochs, patience = self.problem.validate, self.params["epochs"], self.params["patience"]
        random = self._resume()
        while self.epoch < epochs and not (self.best is not None and 0 < patience <= self.epoch - self.best_epoch):
            self._run_epoch(random)
            self.epoch, self.batch, random = self.epoch + 1, 0, None
            metrics = {} if valid is None else self._judge(valid)
            if self.problem.progress is not None:
                self.problem.progress(self.epoch, epochs, metrics)

    def _judge(self, valid: Examples) -> dict[str, float]:
        """Losses of the rows as they would be served; keep the weights if that of the validation rows is the least."""
        engine, seen = self.engine(), training_sample(self.problem.train)
        name, loss = validation_loss(valid, engine.scores(valid.matrix))
        if loss < self.best_loss - self.params["min_delta"]:
            self.best_loss, self.best, self.best_epoch = loss, engine, self.epoch
        metrics = {name: loss, f"{TRAIN}{name}": validation_loss(seen, engine.scores(seen.matrix))[1]}
        for metric, value in metrics.items():
            self.history.setdefault(metric, []).append(value)
        return metrics

    def _run_epoch(self, state: Any = None) -> None:
        """Every row once, in an order of this epoch's own; with a generator's state, from the next batch on."""
        torch, size = self.torch, self.params["batch_size"]
        random = torch.Generator().manual_seed(self.problem.seed * _EPOCH_SEEDS + self.epoch)
        order = torch.randperm(len(self.labels), generator=random)
        if state is not None:
            random.set_state(state)
        batches = -(-len(order) // size)
        for batch in range(self.batch, batches):
            rows = order[batch * size : (batch + 1) * size]
            self.optimiser.zero_grad()
            losses = self._losses(self._forward(rows, random), self.labels[rows]) * self.row_weights[rows]
            losses.mean().backward()
            self.optimiser.step()
            self.batch = batch + 1
            self._save(self.epoch * batches + self.batch, random)

    def _save(self, step: int, random: Any) -> None:
        """Weights, moments of the optimiser, generator, position, history, and the best so far, where that is due."""
        checkpoints = self.problem.checkpoints
        if checkpoints is None or not checkpoints.due(step):
            return
        arrays = {f"weight/{name}": tensor.detach().numpy() for name, tensor in self.weights.items()}
        for at, moments in self.optimiser.state_dict()["state"].items():
            arrays |= {f"moment/{at}/{name}": tensor.numpy() for name, tensor in moments.items()}
        arrays["random"] = random.get_state().numpy()
        sink = io.BytesIO()
        np.savez(sink, **arrays)
        place = {"epoch": self.epoch, "batch": self.batch, "history": self.history, "best_epoch": self.best_epoch,
                 "best_loss": None if self.best is None else self.best_loss}  # fmt: skip
        best = {} if self.best is None else {f"best/{name}": data for name, data in self.best.parts().items()}
        state = {"arrays": sink.getvalue(), "place": canonical_json(place), **best}
        checkpoints.save(step, state, next((values[-1] for values in self.history.values()), None))

    def _resume(self) -> Any:
        """Take up the last checkpoint; state of the generator in the middle of its epoch, None without checkpoint."""
        last = None if self.problem.checkpoints is None else self.problem.checkpoints.last()
        if last is None:
            return None
        torch = self.torch
        with np.load(io.BytesIO(last.state["arrays"]), allow_pickle=False) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
        with torch.no_grad():
            for name, tensor in self.weights.items():
                tensor.copy_(arrays[f"weight/{name}"])
        moments: dict[int, dict[str, Any]] = {}
        for name, tensor in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "moment":
                at, _, what = rest.partition("/")
                moments.setdefault(int(at), {})[what] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        place = json.loads(last.state["place"])
        self.epoch, self.batch, self.history = place["epoch"], place["batch"], place["history"]
        parts = {name.partition("/")[2]: data for name, data in last.state.items() if name.startswith("best/")}
        if parts:
            self.best, self.best_loss = NetworkEngine.from_parts(parts), place["best_loss"]
            self.best_epoch = place["best_epoch"]
        return arrays["random"]

    def _forward(self, rows: Any, random: Any) -> Any:
        """Sums of the output layer, with dropout."""
        torch, weights, rate = self.torch, self.weights, self.params["dropout"]
        parts = [self.numbers[rows]]
        parts += [weights[f"embedding_{at}"][self.codes[rows, at]] for at in range(self.codes.shape[1])]
        hidden = torch.cat(parts, dim=1)
        for layer in range(self.plan.layers):
            hidden = hidden @ weights[f"weight_{layer}"] + weights[f"bias_{layer}"]
            hidden = torch.relu(hidden) if self.plan.activation == "relu" else torch.tanh(hidden)
            if rate:
                hidden = hidden * (torch.rand(hidden.shape, generator=random) >= rate) / (1.0 - rate)
        return hidden @ weights[f"weight_{self.plan.layers}"] + weights[f"bias_{self.plan.layers}"]

    def _losses(self, sums: Any, labels: Any) -> Any:
        """Loss of each row of a batch, by the task."""
        functional, target = self.torch.nn.functional, self.plan.target
        match target.task:
            case "binary":
                return functional.binary_cross_entropy_with_logits(sums[:, 0], labels, reduction="none")
            case "multiclass":
                return functional.cross_entropy(sums, labels, reduction="none")
            case "quantile":
                away, levels = labels[:, None] - sums, self.torch.tensor(target.quantiles)
                return self.torch.maximum(levels * away, (levels - 1.0) * away).mean(dim=1)
            case "count":
                return functional.poisson_nll_loss(sums[:, 0], labels, log_input=True, reduction="none")
        return (sums[:, 0] - labels) ** 2


def _plan(problem: Problem) -> tuple[NetworkPlan, NDArray[np.float64], NDArray[np.float64]]:
    """What the arrays mean, and mean and standard deviation of the numbers, missing ones left out."""
    train, target = problem.train, problem.train.target
    categories = problem.inputs.categorical
    numbers = [at for at in range(train.width) if at not in set(categories)]
    mean, scale, gaps = np.zeros(len(numbers)), np.ones(len(numbers)), []
    for at, place in enumerate(numbers):
        values = train.matrix[:, place]
        seen = values[~np.isnan(values)]
        if 0 < len(seen) < len(values):
            gaps.append(at)
        if len(seen):
            mean[at], deviation = seen.mean(), seen.std()
            # A column of one value, up to rounding, would be blown up to noise of size one.
            scale[at] = deviation if deviation > 1e-12 * abs(mean[at]) else 1.0
    scaled = target.task in {"regression", "quantile"}
    centre = float(train.labels.mean()) if scaled else 0.0
    unit = (float(train.labels.std()) or 1.0) if scaled else 1.0
    plan = NetworkPlan(target, train.width, tuple(numbers), tuple(gaps), tuple(categories),
                       len(problem.params["layers"]), problem.params["activation"], centre, unit)  # fmt: skip
    return plan, mean, scale


def _sizes(problem: Problem) -> list[tuple[int, int]]:
    """Rows and columns of each embedding: ``1.6 * values ** 0.56`` columns, 50 at most (Howard and Gugger 2020)."""
    counts = [len(problem.inputs.features[at].vocabulary) for at in problem.inputs.categorical]
    return [(count + 1, max(1, min(50, round(1.6 * count**0.56)))) for count in counts]


def _first_weights(torch: Any, problem: Problem, plan: NetworkPlan, random: np.random.Generator) -> dict[str, Any]:
    """Uniform weights of He et al. 2015; output biases that give what is usual; nothing for missing and unseen."""
    sizes = _sizes(problem)
    arrays: dict[str, NDArray[Any]] = {}
    for at, shape in enumerate(sizes):
        arrays[f"embedding_{at}"] = random.normal(0.0, 0.05, shape)
        arrays[f"embedding_{at}"][-1] = 0.0
    before = len(plan.numbers) + len(plan.gaps) + sum(columns for _, columns in sizes)
    units = [*problem.params["layers"], plan.target.columns]
    for layer, count in enumerate(units):
        reach = np.sqrt((6.0 if layer < plan.layers else 1.0) / before)
        arrays[f"weight_{layer}"] = random.uniform(-reach, reach, (before, count))
        arrays[f"bias_{layer}"] = np.zeros(count)
        before = count
    arrays[f"bias_{plan.layers}"] += _usual(problem.train)
    return {name: torch.from_numpy(values.astype(np.float32)).requires_grad_() for name, values in arrays.items()}


def _layers(plan: NetworkPlan) -> dict[str, list[str]]:
    """Names of the arrays of each layer."""
    names = [*(f"hidden.{layer}" for layer in range(plan.layers)), "output"]
    tables = [f"embedding_{at}" for at in range(len(plan.categories))]
    return {"embeddings": tables, **{name: [f"weight_{at}", f"bias_{at}"] for at, name in enumerate(names)}}


def _take_over(torch: Any, weights: dict[str, Any], plan: NetworkPlan, former: Any, problem: Problem) -> list[str]:
    """Copy layers of a network by name over those drawn anew, and name them; the others stay as they were drawn."""
    layers, sources = _layers(plan), _layers(former.plan)
    assert problem.start is not None
    names = list(layers) if problem.start.layers is None else list(problem.start.layers)
    for name in names:
        check_known(name, layers, "a layer must be one of the network", where="start_from", what="layer",
                    error=InputError)  # fmt: skip
        shapes = [tuple(tuple(arrays[part].shape) for part in parts.get(name, ()))
                  for arrays, parts in ((weights, layers), (former.arrays, sources))]  # fmt: skip
        if shapes[0] != shapes[1] or (name.startswith("hidden") and plan.activation != former.plan.activation):
            raise InputError("a layer to take over must have the size and the activation of the recipe",
                             where=f"start_from, layer {name!r}", got=shapes[1] or "no such layer",
                             remedy="Name layers=[…] that fit: the others are drawn anew")  # fmt: skip
        with torch.no_grad():
            for part in layers[name]:
                weights[part].copy_(torch.from_numpy(former.arrays[part].copy()))
    return names


def _usual(train: Examples) -> NDArray[np.float64]:
    """Margins of the answer that is right for all rows together."""
    labels, target = train.labels, train.target
    match target.task:
        case "binary":
            rate = float(np.average(labels, weights=train.weights))
            return np.array([np.log(rate / (1.0 - rate)) if 0.0 < rate < 1.0 else 0.0])
        case "multiclass":
            shares = np.bincount(labels.astype(np.intp), minlength=target.columns) / len(labels)
            return np.log(np.maximum(shares, 1e-3))
        case "count":
            return np.array([np.log(max(float(np.average(labels, weights=train.weights)), 1e-3))])
        case "quantile":
            levels = np.quantile(labels, target.quantiles)
            return (levels - labels.mean()) / (labels.std() or 1.0)  # type: ignore[no-any-return]
    return np.zeros(1)


def _codes(problem: Problem, matrix: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of the embeddings, the last one for missing and unseen."""
    columns = []
    for at in problem.inputs.categorical:
        values, unseen = matrix[:, at], len(problem.inputs.features[at].vocabulary)
        columns.append(np.where((values >= 0) & (values < unseen), values, unseen).astype(np.int64))
    return np.stack(columns, axis=1) if columns else np.empty((len(matrix), 0), dtype=np.int64)
