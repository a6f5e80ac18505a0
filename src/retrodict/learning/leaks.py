"""What in the rows of a training looks like a leak that known-at cannot see: a column that holds the answer.

Views are guarded by known-at. The columns of the decided row itself are not: nobody but the table says when they were
filled in. These checks look at the numbers and give sentences, each with the feature's name. They warn and do not
refuse: a feature that tells the outcome by itself may be an honest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import midranks
from retrodict.evaluation.metrics import roc_auc
from retrodict.learning.frame import Frame
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples

__all__ = ["find_leaks"]

Floats = NDArray[np.float64]

# An area from which one feature alone is too good to be left without a word; its interval must be above the second.
_AREA, _AREA_LOW = 0.9, 0.8
_CORRELATION = 0.99
_BINS = 64
_GROUPS = 10
_ROWS = 20
# Rows that a check of one feature looks at: enough for it, and bounded.
_SAMPLE = 50_000


def find_leaks(
    frame: Frame, inputs: InputSpec, parts: Mapping[str, NDArray[np.int64]], examples: Mapping[str, Examples]
) -> tuple[str, ...]:
    """Name what looks like a leak, a sentence each.

    Looked for are features that tell the outcome by themselves (a copy of the label, a column of the future), that tell
    how long the outcome took, that are filled in only with the outcome, that are the mean outcome of an id, that name
    the rows, and rows of the training part that come again in the test part.

    Parameters
    ----------
    frame : Frame
    inputs : InputSpec
        Columns of the matrices.
    parts : mapping of str to ndarray
        Positions of the rows of each part.
    examples : mapping of str to Examples
        The same rows, encoded.
    """
    rows = np.concatenate(list(parts.values()))
    rows = rows[:: 1 + len(rows) // _SAMPLE]
    matrix = inputs.encode_columns(frame.columns(rows))
    sentences = []
    for at, feature in enumerate(inputs.features):
        numeric = feature.type == "number"
        checks = [
            _tells_outcome(feature.name, examples["train"], examples["validate"], at, numeric),
            _tells_duration(feature.name, matrix[:, at], (frame.known_at - frame.at)[rows])
            if numeric and frame.timed
            else None,
            _comes_with_outcome(frame, feature.name),
            None if numeric else _names_rows(frame, feature.name, parts["train"]),
        ]
        sentences += [sentence for sentence in checks if sentence]
    sentences += _encoded_targets(frame, inputs, rows, matrix)
    repeated = _repeated_rows(inputs, examples["train"], examples["test"])
    return (*sentences, repeated) if repeated else tuple(sentences)


def _tells_outcome(name: str, train: Examples, validate: Examples, at: int, numeric: bool) -> str | None:
    """Rates of the feature's bins on the training rows rank the validation rows."""
    rows = slice(None, None, 1 + len(train.labels) // _SAMPLE)
    values, outcomes = train.matrix[rows, at], train.labels[rows]
    ranked = slice(None, None, 1 + len(validate.labels) // _SAMPLE)
    truth = validate.labels[ranked]
    seen = values[~np.isnan(values)]
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, _BINS + 1)[1:-1])) if numeric and len(seen) else seen[:0]
    if not numeric:
        edges = np.unique(seen)
    # Two sides of each edge and the edge itself, so that a value that is often alone has a bin of its own.
    bins = [_bin(part, edges) for part in (values, validate.matrix[ranked, at])]
    sizes, ones = np.bincount(bins[0]), np.bincount(bins[0], weights=outcomes)
    overall = float(outcomes.mean())
    rates = np.full(2 * len(edges) + 2, overall)
    rates[: len(sizes)] = (ones + 5 * overall) / (sizes + 5)
    area = roc_auc(truth, rates[bins[1]])
    if area.value is None or area.low is None or area.value < _AREA or area.low < _AREA_LOW:
        return None
    sample = f" of {len(truth):,} sampled rows" if len(truth) < len(validate.labels) else ""
    return (
        f"Feature {name!r} alone tells the outcome (area {area.value:.3f}{sample}): "
        "make sure it is known at the decision."
    )


def _bin(values: Floats, edges: Floats) -> NDArray[np.intp]:
    """Even numbers between the edges, odd ones on them, the last for missing values."""
    places = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 2 * len(edges) + 1, places)


def _correlation(left: Floats, right: Floats) -> float:
    """Spearman's rank correlation; 0 where one of them does not vary, or for few rows."""
    if len(left) < _ROWS or np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(np.corrcoef(midranks(left), midranks(right))[0, 1])


def _tells_duration(name: str, values: Floats, durations: NDArray[np.int64]) -> str | None:
    present = ~np.isnan(values)
    if abs(_correlation(values[present], durations[present].astype(np.float64))) < _CORRELATION:
        return None
    return f"Feature {name!r} goes with how long the outcome took: it is known only with the outcome."


def _comes_with_outcome(frame: Frame, name: str) -> str | None:
    empty = frame.table.column(name).is_null(nan_is_null=True).to_numpy()
    unknown = np.isnan(frame.labels)
    if min(unknown.sum(), (~unknown).sum()) < _ROWS or empty[unknown].mean() < 0.99 or empty[~unknown].mean() > 0.01:
        return None
    return f"Feature {name!r} is empty where there is no outcome yet: it is filled in with the outcome."


def _names_rows(frame: Frame, name: str, train: NDArray[np.int64]) -> str | None:
    distinct = pc.count_distinct(frame.table.column(name).take(pa.array(train))).as_py()
    if len(train) < _ROWS or distinct < len(train) / 2:
        return None
    return f"Feature {name!r} has {distinct:,} values in {len(train):,} training rows: it names rows, like an id."


def _encoded_targets(frame: Frame, inputs: InputSpec, rows: NDArray[np.int64], matrix: Floats) -> Iterator[str]:
    """Numbers that are the mean outcome of a key over all rows, those to come included."""
    for key in frame.table.column_names:
        column = frame.table.column(key)
        if key.startswith("_") or not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            continue
        codes = column.take(pa.array(rows)).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy() + 1
        sizes = np.bincount(codes)
        if len(sizes) < _GROUPS or len(sizes) > len(rows) / 2:
            continue
        means = np.bincount(codes, weights=frame.labels[rows]) / np.maximum(sizes, 1)
        for at, feature in enumerate(inputs.features):
            values = matrix[:, at]
            present = ~np.isnan(values)
            if feature.type != "number" or feature.name == key or len(np.unique(values[present])) < _GROUPS:
                continue
            if _correlation(values[present], means[codes][present]) >= _CORRELATION:
                yield (
                    f"Feature {feature.name!r} is the mean outcome of each {key!r}: "
                    "make sure it counts only outcomes known before the decision."
                )


def _repeated_rows(inputs: InputSpec, train: Examples, test: Examples) -> str | None:
    """Test rows that were trained on: whole, or by a number that is nearly unique, with the same outcomes."""
    rows = slice(None, None, 1 + len(test.labels) // _SAMPLE)
    truth, looked_at = test.labels[rows], test.matrix[rows]
    signatures = [(f"all of the {len(inputs)} features", slice(None), 0.0)]
    signatures += [
        (f"feature {feature.name!r}", slice(at, at + 1), 0.5)
        for at, feature in enumerate(inputs.features)
        if feature.type == "number"
    ]
    for words, columns, distinct in signatures:
        count = _twins(train.matrix[:, columns], train.labels, looked_at[:, columns], truth, distinct)
        if count:
            sampled = " sampled" if len(truth) < len(test.labels) else ""
            return (
                f"{count:,} of {len(truth):,}{sampled} test rows are training rows again, by {words} "
                "and their outcomes: remove duplicates, or the test is no test."
            )
    return None


def _twins(train: Floats, labels: Floats, test: Floats, truth: Floats, distinct: float) -> int:
    """Test rows that equal a training row and have its outcome; 0 unless that is more than chance.

    The training rows must be distinct in more than a share of them.
    """
    keys, test_keys = _row_keys(train), _row_keys(test)
    order = np.argsort(keys)
    keys = keys[order]
    if 1 + np.count_nonzero(keys[1:] != keys[:-1]) <= distinct * len(keys):
        return 0
    first, last = (np.searchsorted(keys, test_keys, side=side) for side in ("left", "right"))
    equal = (last > first) & ~np.isnan(test).all(axis=1)
    count = int(equal.sum())
    if count < max(_ROWS / 2, len(test) / 100):
        return 0
    ones = np.append(0.0, np.cumsum(labels[order]))
    rates = (ones[last] - ones[first])[equal] / (last - first)[equal]
    agree = float((rates == truth[equal]).mean())
    share = float(truth[equal].mean())
    return count if agree >= 0.98 and 0.05 <= share <= 0.95 else 0


def _row_keys(matrix: Floats) -> NDArray[np.uint64]:
    """One number of 64 bits per row: equal where all their numbers are, by chance once in 2**64 pairs otherwise."""
    keys = np.zeros(len(matrix), dtype=np.uint64)
    for column in matrix.T:
        bits = (column + 0.0).view(np.uint64)  # -0.0 is 0.0 from here on
        keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + bits
    return keys
