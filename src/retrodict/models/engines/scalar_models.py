"""One row through fitted scikit-learn classifiers and regressors; the transformers before them are in ``scalar``."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from operator import mul
from typing import Any

import numpy as np

from retrodict.models._logistic import sigmoid, softmax
from retrodict.models.engines.scalar import Row, RowFunction, UncompiledError, compile_transformer

__all__ = ["compile_predictor"]

# From so many products on, NumPy's dot product on a copied row is faster than Python's sum.
_PRODUCTS = 1_500


def compile_predictor(model: Any, method: str) -> RowFunction:
    """Row function of a fitted model, or of a Pipeline that ends in one.

    Parameters
    ----------
    model : object
        Fitted.
    method : {"predict_proba", "decision_function", "predict", "score_samples"}
        Which of its methods to be equal to; the function gives a list of its columns.

    Raises
    ------
    UncompiledError
        If there is none.
    """
    name = type(model).__name__
    if not type(model).__module__.startswith("sklearn."):
        raise UncompiledError(name)
    if name == "Pipeline":
        before = compile_transformer(model[:-1]) if len(model.steps) > 1 else None
        last = compile_predictor(model.steps[-1][1], method)
        return last if before is None else lambda row: last(before(row))
    builder = _PREDICTORS.get((name, method)) or _PREDICTORS.get((name, ""))
    if builder is None:
        raise UncompiledError(f"{name}.{method}")
    return builder(model)


def _products(coefficients: Any, intercepts: Any) -> RowFunction:
    """``row @ coefficients.T + intercepts``, one number per line of the coefficients."""
    lines = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    shifts = np.broadcast_to(np.asarray(intercepts, dtype=np.float64), (len(lines),)).tolist()
    if lines.size > _PRODUCTS:
        matrix, shift = np.ascontiguousarray(lines), np.array(shifts)
        return lambda row: (matrix @ np.array(row, dtype=np.float64) + shift).tolist()
    pairs = list(zip(lines.tolist(), shifts, strict=True))
    return lambda row: [sum(map(mul, row, line)) + shift for line, shift in pairs]


def _linear(model: Any) -> RowFunction:
    return _products(model.coef_, model.intercept_)


def _two(model: Any, margin: RowFunction) -> RowFunction:
    """Probabilities of two classes from one margin; of more, by the softmax of theirs."""

    def run(row: Row) -> Row:
        rate = sigmoid(margin(row)[0])
        return [1.0 - rate, rate]

    return run if len(model.classes_) == 2 else lambda row: softmax(margin(row))


def _logistic(model: Any) -> RowFunction:
    return _two(model, _linear(model))


def _sgd_rates(model: Any) -> RowFunction:
    if model.loss != "log_loss":
        raise UncompiledError(f"SGDClassifier with the loss {model.loss}")
    margin = _linear(model)
    if len(model.classes_) == 2:
        return _two(model, margin)

    def run(row: Row) -> Row:
        rates = [sigmoid(value) for value in margin(row)]
        total = sum(rates)
        return [rate / total for rate in rates]

    return run


def _exponential(model: Any) -> RowFunction:
    margin = _linear(model)
    return lambda row: [math.exp(value) for value in margin(row)]


# A node is a leaf (anything but a tuple), or (feature, threshold, left, right, whether missing goes left). Nested
# tuples are walked twice as fast as arrays of places.
def _nest(features: Any, thresholds: Any, left: Any, right: Any, missing: Any, leaves: list[Any]) -> Any:
    nodes: list[Any] = list(leaves)
    # Children come after their parents.
    columns = (x.tolist() for x in (features, thresholds, left, right, missing))
    for at, (feature, threshold, low, high, blank_left) in reversed(list(enumerate(zip(*columns, strict=True)))):
        if low > 0:
            nodes[at] = (feature, threshold, nodes[low], nodes[high], bool(blank_left))
    return nodes[0]


def _walk(node: Any, row: Any) -> Any:
    while type(node) is tuple:
        value = row[node[0]]
        node = node[2] if value <= node[1] or (value != value and node[4]) else node[3]  # noqa: PLR0124
    return node


def _single(row: Row) -> Any:
    """Values as the trees of scikit-learn see them: rounded to float32."""
    return array("f", row)


def _tree_nodes(tree: Any, leaves: list[Any]) -> Any:
    return _nest(tree.feature, tree.threshold, tree.children_left, tree.children_right, tree.missing_go_to_left, leaves)


def _tree(model: Any) -> RowFunction:
    node = _tree_nodes(model.tree_, model.tree_.value[:, 0, :].tolist())
    return lambda row: _walk(node, _single(row))


def _forest(model: Any) -> RowFunction:
    several = hasattr(model, "classes_") and model.estimators_[0].tree_.value.shape[2] > 1
    count = len(model.estimators_)
    values = [tree.tree_.value[:, 0, :] for tree in model.estimators_]
    if not several:
        nodes = [_tree_nodes(tree.tree_, v[:, 0].tolist()) for tree, v in zip(model.estimators_, values, strict=True)]

        def one(row: Row) -> Row:
            single, total = _single(row), 0.0
            for node in nodes:
                total += _walk(node, single)
            return [total / count]

        return one
    nodes = [_tree_nodes(tree.tree_, v.tolist()) for tree, v in zip(model.estimators_, values, strict=True)]

    def run(row: Row) -> Row:
        single = _single(row)
        totals = [0.0] * len(model.classes_)
        for node in nodes:
            for at, share in enumerate(_walk(node, single)):
                totals[at] += share
        return [total / count for total in totals]

    return run


def _staged(stages: list[list[Any]], start: list[float], scale: float) -> RowFunction:
    """Sums of stages of trees, one tree per output in a stage."""
    if len(start) == 1:
        nodes, first = [stage[0] for stage in stages], start[0]

        def one(row: Row) -> Row:
            total = first
            for node in nodes:
                total += scale * _walk(node, row)
            return [total]

        return one

    def run(row: Row) -> Row:
        totals = list(start)
        for stage in stages:
            for at, node in enumerate(stage):
                totals[at] += scale * _walk(node, row)
        return totals

    return run


def _linked(model: Any, margin: RowFunction, method: str) -> RowFunction:
    """Margins of boosting as what its loss makes of them."""
    loss = type(model._loss).__name__  # noqa: SLF001  # its link is nowhere else
    if method == "decision_function":
        return margin
    if method == "predict_proba":
        if loss == "ExponentialLoss":
            return _two(model, lambda row: [2.0 * margin(row)[0]])
        return _two(model, margin)
    if loss in {"HalfPoissonLoss", "HalfGammaLoss", "HalfTweedieLoss"}:
        return lambda row: [math.exp(margin(row)[0])]
    return margin


def _boosting(method: str) -> Callable[[Any], RowFunction]:
    def build(model: Any) -> RowFunction:
        if not (model.init_ == "zero" or type(model.init_).__name__.startswith("Dummy")):
            raise UncompiledError(f"{type(model).__name__} that begins with another model")
        start = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0].tolist()  # noqa: SLF001
        stages = [[_tree_nodes(tree.tree_, tree.tree_.value[:, 0, 0].tolist()) for tree in stage]
                  for stage in model.estimators_]  # fmt: skip
        staged = _staged(stages, start, float(model.learning_rate))
        return _linked(model, lambda row: staged(_single(row)), method)

    return build


def _histogram_boosting(method: str) -> Callable[[Any], RowFunction]:
    def build(model: Any) -> RowFunction:
        if model._preprocessor is not None:  # noqa: SLF001  # splits on sets of categories
            raise UncompiledError(f"{type(model).__name__} with categorical_features")
        stages = []
        for stage in model._predictors:  # noqa: SLF001
            trees = []
            for tree in stage:
                nodes = tree.nodes
                left = np.where(nodes["is_leaf"], 0, nodes["left"].astype(np.int64))
                trees.append(_nest(nodes["feature_idx"], nodes["num_threshold"], left, nodes["right"],
                                   nodes["missing_go_to_left"], nodes["value"].tolist()))  # fmt: skip
            stages.append(trees)
        start = np.ravel(model._baseline_prediction).tolist()  # noqa: SLF001
        return _linked(model, _staged(stages, start, 1.0), method)

    return build


def _isolation(model: Any) -> RowFunction:
    nodes = []
    for at, (tree, places) in enumerate(zip(model.estimators_, model.estimators_features_, strict=True)):
        depths = model._decision_path_lengths[at] + model._average_path_length_per_tree[at] - 1.0  # noqa: SLF001
        inner, features = tree.tree_, np.asarray(places)
        nodes.append(_nest(features[np.maximum(inner.feature, 0)], inner.threshold, inner.children_left,
                           inner.children_right, inner.missing_go_to_left, depths.tolist()))  # fmt: skip
    from sklearn.ensemble._iforest import _average_path_length

    denominator = len(nodes) * float(_average_path_length([model._max_samples])[0])  # noqa: SLF001

    def run(row: Row) -> Row:
        single, depth = _single(row), 0.0
        for node in nodes:
            depth += _walk(node, single)
        exponent = -(depth / denominator if denominator else 1.0)
        # As an array: with AVX-512 NumPy's power of arrays rounds otherwise than that of C, of one number in twenty.
        return [-float(np.power(2.0, np.array([exponent]))[0])]

    return run


def _gaussian(model: Any) -> RowFunction:
    """Log-likelihood of each class under independent normal features, plus its prior; then the softmax."""
    classes = [
        (math.log(prior) - 0.5 * float(np.sum(np.log(2.0 * np.pi * var))), mean.tolist(), var.tolist())
        for prior, mean, var in zip(model.class_prior_, model.theta_, model.var_, strict=True)
    ]
    return lambda row: softmax([
        shift - 0.5 * sum([(x - m) ** 2 / v for x, m, v in zip(row, means, variances, strict=True)])
        for shift, means, variances in classes
    ])  # fmt: skip


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "logistic": lambda x: 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0))),
}


def _network(model: Any) -> RowFunction:
    hidden = _ACTIVATIONS[model.activation]
    layers = [(np.ascontiguousarray(w.T), b) for w, b in zip(model.coefs_, model.intercepts_, strict=True)]
    final = layers.pop()

    def margin(row: Row) -> Row:
        with np.errstate(all="ignore"):  # as in a batch
            values = np.array(row, dtype=final[0].dtype)
            for weights, shift in layers:
                values = hidden(weights @ values + shift)
            out: Row = (final[0] @ values + final[1]).tolist()
        return out

    match model.out_activation_:
        case "identity":
            return margin
        case "softmax":
            return lambda row: softmax(margin(row))
        case "logistic":
            return _two(model, margin)
        case other:
            raise UncompiledError(f"{type(model).__name__} with the output {other}")


def _kernel(model: Any) -> RowFunction:
    """Support vectors with a radial or a linear kernel, one output."""
    vectors, gamma = model.support_vectors_, model._gamma  # noqa: SLF001
    if model.kernel not in {"rbf", "linear"} or model.dual_coef_.shape[0] != 1 or not isinstance(vectors, np.ndarray):
        raise UncompiledError(f"{type(model).__name__} with the kernel {model.kernel}, or of several classes")
    duals, shift = np.ravel(model.dual_coef_), float(model.intercept_[0])
    if model.kernel == "linear":
        return _products(duals @ vectors, shift)

    def run(row: Row) -> Row:
        away = vectors - np.array(row, dtype=np.float64)
        return [float(duals @ np.exp(-gamma * np.einsum("ij,ij->i", away, away))) + shift]

    return run


def _kernel_without_shift(model: Any) -> RowFunction:
    """Scores of a one-class machine: its decision before the offset is taken away."""
    inner, offset = _kernel(model), float(model.offset_[0])
    return lambda row: [inner(row)[0] + offset]


def _calibrated(model: Any) -> RowFunction:
    """Mean of sigmoid calibrations, of two classes."""
    members = []
    for part in model.calibrated_classifiers_:
        if part.method != "sigmoid" or len(part.calibrators) != 1:
            raise UncompiledError(f"CalibratedClassifierCV by {part.method}, or of several classes")
        method = "decision_function" if hasattr(part.estimator, "decision_function") else "predict_proba"
        curve = part.calibrators[0]
        members.append((compile_predictor(part.estimator, method), float(curve.a_), float(curve.b_)))

    def run(row: Row) -> Row:
        rate = sum([sigmoid(-(a * inner(row)[-1] + b)) for inner, a, b in members]) / len(members)
        return [1.0 - rate, rate]

    return run


_FORESTS = ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor")
_LINES = ("BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lasso", "LassoCV", "LinearRegression",
          "LinearSVR", "QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor")  # fmt: skip
_MARGINS = ("LinearSVC", "LogisticRegression", "LogisticRegressionCV", "Perceptron", "RidgeClassifier", "SGDClassifier")
_PREDICTORS: dict[tuple[str, str], Callable[[Any], RowFunction]] = {
    ("CalibratedClassifierCV", "predict_proba"): _calibrated,
    ("DecisionTreeClassifier", "predict_proba"): _tree,
    ("DecisionTreeRegressor", "predict"): _tree,
    ("GammaRegressor", "predict"): _exponential,
    ("GaussianNB", "predict_proba"): _gaussian,
    ("IsolationForest", "score_samples"): _isolation,
    ("LogisticRegression", "predict_proba"): _logistic,
    ("LogisticRegressionCV", "predict_proba"): _logistic,
    ("MLPClassifier", "predict_proba"): _network,
    ("MLPRegressor", "predict"): _network,
    ("OneClassSVM", "score_samples"): _kernel_without_shift,
    ("PoissonRegressor", "predict"): _exponential,
    ("SGDClassifier", "predict_proba"): _sgd_rates,
    ("SVC", "decision_function"): _kernel,
    ("SVR", "predict"): _kernel,
    **{(name, "predict_proba"): _forest for name in _FORESTS if name.endswith("Classifier")},
    **{(name, "predict"): _forest for name in _FORESTS if name.endswith("Regressor")},
    **{(name, "predict"): _linear for name in _LINES},
    **{(name, "decision_function"): _linear for name in _MARGINS},
    **{(f"GradientBoosting{kind}", how): _boosting(how) for kind, how in
       (("Classifier", "predict_proba"), ("Classifier", "decision_function"), ("Regressor", "predict"))},
    **{(f"HistGradientBoosting{kind}", how): _histogram_boosting(how) for kind, how in
       (("Classifier", "predict_proba"), ("Classifier", "decision_function"), ("Regressor", "predict"))},
}  # fmt: skip
