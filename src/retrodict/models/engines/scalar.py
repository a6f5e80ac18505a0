"""One row through fitted scikit-learn objects as plain Python on a list of numbers and texts.

scikit-learn spends a tenth of a millisecond per step on checks that a table of a million rows pays once; here they are
paid when the function is made. What is not in the two tables (transformers here, predictors in ``scalar_models``) has
no such function, and the engine asks the object itself, slowly. ONNX was left aside: it computes in float32, and knows
neither texts nor what is missing.

Lookups, scales and trees repeat the operations of scikit-learn in its order; sums of products may differ in the last
bits, since BLAS adds in an order of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

__all__ = ["Row", "RowFunction", "UncompiledError", "compile_transformer"]

Row = list[Any]
RowFunction = Callable[[Row], Row]

_UNSEEN_TEXT = "\0unseen"


class UncompiledError(Exception):
    """A fitted object has no row function; the message is its class."""


def compile_transformer(step: Any) -> RowFunction | None:
    """Row function of a fitted transformer; None where it passes everything through.

    Raises
    ------
    UncompiledError
        If there is none.
    """
    if step is None or step == "passthrough":
        return None
    builder = _TRANSFORMERS.get(type(step).__name__)
    if builder is None or not type(step).__module__.startswith("sklearn."):
        raise UncompiledError(type(step).__name__)
    return builder(step)


def _chain(steps: Sequence[Any]) -> RowFunction | None:
    functions = [function for function in map(compile_transformer, steps) if function is not None]
    if len(functions) < 2:
        return functions[0] if functions else None

    def run(row: Row) -> Row:
        for function in functions:
            row = function(row)
        return row

    return run


def _side_by_side(parts: Sequence[tuple[Sequence[int] | None, RowFunction | None]]) -> RowFunction:
    """Outputs of several transformers, each of its columns (None: of all), one after the other."""

    def run(row: Row) -> Row:
        out: Row = []
        for places, function in parts:
            values = row if places is None else [row[at] for at in places]
            out += values if function is None else function(values)
        return out

    return run


def _column_transformer(step: Any) -> RowFunction:
    if step.transformer_weights:
        raise UncompiledError("ColumnTransformer with weights")
    places = step._transformer_to_input_indices  # noqa: SLF001  # columns by name are resolved nowhere else
    return _side_by_side([
        (list(places[name]), compile_transformer(part))
        for name, part, _ in step.transformers_ if len(places[name]) and part != "drop"
    ])  # fmt: skip


def _union(step: Any) -> RowFunction:
    if step.transformer_weights:
        raise UncompiledError("FeatureUnion with weights")
    return _side_by_side([(None, compile_transformer(part)) for _, part in step.transformer_list if part != "drop"])


def _imputer(step: Any) -> RowFunction:
    blank = step.missing_values
    if blank == blank:  # noqa: PLR0124  # not NaN
        raise UncompiledError("SimpleImputer of a value")
    fills = np.asarray(step.statistics_, dtype=object).tolist()
    empty = [_is_missing(fill) for fill in fills]
    if step.keep_empty_features:
        fills = [0.0 if none else fill for fill, none in zip(fills, empty, strict=True)]
        empty = [False] * len(fills)
    columns = [(at, fill) for at, (fill, none) in enumerate(zip(fills, empty, strict=True)) if not none]
    marked = [] if step.indicator_ is None else step.indicator_.features_.tolist()

    def run(row: Row) -> Row:
        out = []
        for at, fill in columns:
            value = row[at]
            out.append(fill if value != value else value)  # noqa: PLR0124
        return out + [float(row[at] != row[at]) for at in marked] if marked else out

    return run


def _indicator(step: Any) -> RowFunction:
    places = step.features_.tolist()
    return lambda row: [float(row[at] != row[at]) for at in places]


def _affine(centre: Any, scale: Any, *, times: bool = False, clip: Any = None) -> RowFunction:
    """``(x - centre) / scale``, or ``x * scale + centre``, of each column."""
    width = len(centre if centre is not None else scale) if (centre is not None or scale is not None) else 0
    centres = [0.0] * width if centre is None else np.asarray(centre, dtype=np.float64).tolist()
    scales = [1.0] * width if scale is None else np.asarray(scale, dtype=np.float64).tolist()
    pairs = list(zip(centres, scales, strict=True))
    if not pairs:
        return list
    if not times:
        return lambda row: [(x - c) / s for x, (c, s) in zip(row, pairs, strict=True)]
    if clip is None:
        return lambda row: [x * s + c for x, (c, s) in zip(row, pairs, strict=True)]
    low, high = clip
    return lambda row: [min(max(x * s + c, low), high) for x, (c, s) in zip(row, pairs, strict=True)]


def _probe(step: Any, column: int, values: Sequence[Any]) -> Any:
    """What an encoder makes of values of one column, the other columns at a category they know."""
    rows = np.empty((len(values), len(step.categories_)), dtype=object)
    for at, categories in enumerate(step.categories_):
        rows[:, at] = [categories[0]] * len(values) if len(categories) else [np.nan] * len(values)
    rows[:, column] = values
    if all(categories.dtype.kind in "fiu" for categories in step.categories_):
        rows = rows.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an unseen category, which is what is asked for
        names = getattr(step, "feature_names_in_", None)
        if names is not None:
            import pandas as pd

            return step.transform(pd.DataFrame({name: pd.Series(rows[:, at].tolist(), dtype=rows.dtype)
                                                for at, name in enumerate(names)}))  # fmt: skip
        return step.transform(rows)


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124


def _column_values(categories: Any) -> tuple[list[Any], Any]:
    """Categories of a column as dictionary keys (None: missing), and a value that is none of them."""
    values = categories.tolist()
    numbers = [value for value in values if isinstance(value, int | float) and not _is_missing(value)]
    unseen = max(numbers, default=0) + 1 if categories.dtype.kind in "fiu" else _UNSEEN_TEXT
    return values, unseen


def _one_hot(step: Any) -> RowFunction:
    if step.handle_unknown == "error":
        raise UncompiledError("OneHotEncoder that refuses unseen categories")
    columns, offset = [], 0
    for at, categories in enumerate(step.categories_):
        values, unseen = _column_values(categories)
        size = int(step._n_features_outs[at])  # noqa: SLF001  # width after grouping and dropping
        out = _probe(step, at, [*values, unseen])
        block = np.asarray(out[:, offset : offset + size].todense() if hasattr(out, "todense")
                           else np.asarray(out)[:, offset : offset + size])  # fmt: skip
        hits = [int(line.argmax()) + offset if line.any() else -1 for line in block]
        table = {None if _is_missing(v) else v: hit for v, hit in zip(values, hits, strict=False)}
        columns.append((table, hits[-1]))
        offset += size
    width = offset

    def run(row: Row) -> Row:
        out = [0.0] * width
        for value, (table, unseen_hit) in zip(row, columns, strict=True):
            hit = table.get(None if value != value else value, unseen_hit)  # noqa: PLR0124
            if hit >= 0:
                out[hit] = 1.0
        return out

    return run


def _lookup(step: Any) -> RowFunction:
    """Ordinal and target encoders: a few numbers per category of each column."""
    if getattr(step, "handle_unknown", None) == "error":
        raise UncompiledError("OrdinalEncoder that refuses unseen categories")
    several = getattr(step, "target_type_", None) == "multiclass"
    size = len(step.classes_) if several else 1
    columns = []
    for at, categories in enumerate(step.categories_):
        values, unseen = _column_values(categories)
        out = np.asarray(_probe(step, at, [*values, unseen]), dtype=np.float64)
        lines = out[:, at * size : (at + 1) * size].tolist()
        columns.append(({None if _is_missing(v) else v: line for v, line in zip(values, lines, strict=False)},
                        lines[-1]))  # fmt: skip

    def run(row: Row) -> Row:
        out: Row = []
        for value, (table, unseen_line) in zip(row, columns, strict=True):
            out += table.get(None if value != value else value, unseen_line)  # noqa: PLR0124
        return out

    return run


def _polynomial(step: Any) -> RowFunction:
    low, high = (step.degree, step.degree) if isinstance(step.degree, int) else step.degree
    low = 0 if isinstance(step.degree, int) else low
    if step.interaction_only or (low, high) not in {(0, 2), (1, 2), (0, 1), (1, 1)}:
        terms = [[at for at, power in enumerate(powers) for _ in range(power)] for powers in step.powers_.tolist()]
    else:
        width = step.n_features_in_
        terms = [list(c) for d in range(low, high + 1) for c in combinations_with_replacement(range(width), d)]
        terms = terms if step.include_bias or low > 0 else terms[1:]

    def run(row: Row) -> Row:
        out = []
        for term in terms:
            product = 1.0
            for at in term:
                product *= row[at]
            out.append(product)
        return out

    return run


def _pca(step: Any) -> RowFunction:
    matrix = np.ascontiguousarray(step.components_.T)
    shift = step.mean_ @ matrix
    scale = None
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        scale[scale < np.finfo(scale.dtype).eps] = np.finfo(scale.dtype).eps

    def run(row: Row) -> Row:
        out = np.array(row, dtype=np.float64) @ matrix - shift
        values: Row = (out if scale is None else out / scale).tolist()
        return values

    return run


def _selection(step: Any) -> RowFunction:
    places = np.flatnonzero(step.get_support()).tolist()
    return lambda row: [row[at] for at in places]


def _function(step: Any) -> RowFunction | None:
    function = step.func
    if function is None or getattr(getattr(function, "func", None), "__name__", "") == "check_array":
        return None
    if not isinstance(function, np.ufunc) or step.kw_args:
        raise UncompiledError("FunctionTransformer")
    return lambda row: [float(function(value)) for value in row]


_TRANSFORMERS: dict[str, Callable[[Any], RowFunction | None]] = {
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _union,
    "FunctionTransformer": _function,
    "MaxAbsScaler": lambda step: _affine(None, step.scale_),
    "MinMaxScaler": lambda step: _affine(step.min_, step.scale_, times=True,
                                         clip=step.feature_range if step.clip else None),
    "MissingIndicator": _indicator,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _lookup,
    "PCA": _pca,
    "Pipeline": lambda step: _chain([part for _, part in step.steps]),
    "PolynomialFeatures": _polynomial,
    "RobustScaler": lambda step: _affine(step.center_, step.scale_),
    "SimpleImputer": _imputer,
    "StandardScaler": lambda step: _affine(step.mean_ if step.with_mean else None, step.scale_),
    "TargetEncoder": _lookup,
    **dict.fromkeys(("GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel",
                     "SelectFwe", "SelectKBest", "SelectPercentile", "SequentialFeatureSelector",
                     "VarianceThreshold"), _selection),
}  # fmt: skip
