"""What in the rows of a training looks like a leak that known-at cannot see: a column that holds the answer.

Views are guarded by known-at. The columns of the decided row itself are not: nobody but the table says when they were
filled in. These checks look at the numbers; a finding has a kind, the feature, a figure and a sentence. They warn and
do not refuse: a feature that tells the outcome by itself may be an honest one. The gate ``leaks = 0`` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError, check_known
from retrodict.core.statistics.intervals import midranks
from retrodict.core.tasks import Target
from retrodict.evaluation.metrics import roc_auc
from retrodict.learning.frame import Frame
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples
from retrodict.models.splits import Splitter
from retrodict.models.targets import NEVER

__all__ = ["Leak", "find_leaks"]

Floats = NDArray[np.float64]
Kind = Literal[
    "label_copy", "single_feature", "known_later", "encoded_target", "id", "duplicates", "group", "time_order"
]

# An area from which one feature alone is too good to be left without a word; its interval must be above the second.
_AREA, _AREA_LOW = 0.9, 0.8
# Of classes the share of the errors of the most frequent one that a feature alone takes away; of a number that of its
# variance of ranks.
_EXPLAINED = 0.95
_COPY = 0.999
_OF_ROWS = ("duplicates", "group", "time_order")
_CORRELATION = 0.99
_BINS = 64
_GROUPS = 10
_ROWS = 20
# Of the spread of a number: what rows may differ by and still count as copies of each other.
_TINY = 1e-3
# Powers of a group's size that a smoothed mean outcome may follow, and groups that such a curve needs.
_POWERS, _CURVE_GROUPS = 6, 50
# Rows that a check of one feature looks at: enough for it, and bounded.
_SAMPLE = 50_000


@dataclass(frozen=True, slots=True)
class Leak(Record):
    """One finding.

    Attributes
    ----------
    kind : str
        ``label_copy``, ``single_feature``, ``known_later``, ``encoded_target``, ``id``, ``duplicates``, ``group`` or
        ``time_order``.
    feature : str or None
        Name of the feature or column; None where it is about rows.
    figure : float
        What was measured: an area, a correlation, a share.
    severity : {"critical", "high"}
        Critical where the test rows cannot judge the model; high where somebody has to look.
    sentence : str
        In words.
    accepted : str or None
        Why the definition of the model accepts it (``Model(accept={feature: why})``): then no warning and no gate
        counts it. Rows that come again, groups on both sides and a time turned round cannot be accepted.
    """

    kind: Kind
    feature: str | None
    figure: float
    severity: Literal["critical", "high"]
    sentence: str
    accepted: str | None = None

    @property
    def acceptable(self) -> bool:
        """Whether a model may accept it of a feature."""
        return self.feature is not None and self.kind not in _OF_ROWS


def find_leaks(
    frame: Frame,
    inputs: InputSpec,
    parts: Mapping[str, NDArray[np.int64]],
    examples: Mapping[str, Examples],
    split: Splitter | None = None,
    accept: Mapping[str, str] | None = None,
) -> tuple[Leak, ...]:
    """Name what looks like a leak.

    Looked for are features that tell the outcome by themselves (a copy of the label, a column of the future), that tell
    how long the outcome took, that are filled in only with the outcome, that are the mean outcome of an id, that name
    the rows; rows of the training part that come again in the test part, groups that are on both sides, and training
    rows whose outcome was known only after test rows were decided.

    Parameters
    ----------
    frame : Frame
    inputs : InputSpec
        Columns of the matrices.
    parts : mapping of str to ndarray
        Positions of the rows of each part.
    examples : mapping of str to Examples
        The same rows, encoded.
    split : Splitter, optional
        How the parts were made. None: in time.
    accept : mapping of str to str, optional
        Why findings about a feature are accepted, by its name.
    """
    reasons = accept or {}
    for name in reasons:
        rule = "a leak must be accepted of a feature of the model"
        check_known(name, inputs.names, rule, where="Model, accept", what="feature", error=InputError)
    return tuple(
        leak if leak.kind in _OF_ROWS else replace(leak, accepted=reasons.get(str(leak.feature)))
        for leak in _find_leaks(frame, inputs, parts, examples, split)
    )


def _find_leaks(
    frame: Frame,
    inputs: InputSpec,
    parts: Mapping[str, NDArray[np.int64]],
    examples: Mapping[str, Examples],
    split: Splitter | None,
) -> tuple[Leak, ...]:
    if frame.target.task == "survival":
        few = any((part.labels > 0).sum() < _ROWS for part in examples.values())
        twin_rows = _repeated_rows(inputs, examples["train"], examples["test"])
        findings = ((twin_rows,) if twin_rows else ()) if few else _find_leaks(
            *_of_events(frame, inputs, parts, examples), split)  # fmt: skip
        features = {leak.feature for leak in findings if leak.kind in ("label_copy", "single_feature")}
        status = _tell_status(frame, inputs, parts, examples)
        return (*findings, *(leak for leak in status if leak.feature not in features))
    rows = np.concatenate(list(parts.values()))
    rows = rows[:: 1 + len(rows) // _SAMPLE]
    matrix = inputs.encode_columns(frame.columns(rows))
    took = (frame.known_at - frame.at)[rows]
    leaks: list[Leak | None] = []
    for at, feature in enumerate(inputs.features):
        name, numeric = feature.name, feature.type == "number"
        leaks += [
            _tells_outcome(frame, name, examples["train"], examples["validate"], at, numeric),
            _tells_duration(name, matrix[:, at], took) if numeric and frame.timed else None,
            _comes_with_outcome(frame, name),
            None if numeric else _names_rows(frame, name, parts["train"]),
        ]
    leaks += _encoded_targets(frame, inputs, rows, matrix)
    leaks += [
        _repeated_rows(inputs, examples["train"], examples["test"]),
        _inverted_time(frame, parts),
    ]
    leaks += [] if split is None or split.timed else _torn_groups(frame, parts)
    return tuple(leak for leak in leaks if leak is not None)


def _of_events(
    frame: Frame, inputs: InputSpec, parts: Mapping[str, NDArray[np.int64]], examples: Mapping[str, Examples]
) -> tuple[Frame, InputSpec, dict[str, NDArray[np.int64]], dict[str, Examples]]:
    """The rows of a time to an event whose event was seen, with its days as a number; the others have no outcome."""
    days, seen = Target("regression"), {name: rows.labels > 0 for name, rows in examples.items()}
    return (
        replace(frame, labels=np.where(frame.labels > 0, frame.labels, np.nan), target=days),
        inputs,
        {name: rows[seen[name]] for name, rows in parts.items()},
        {name: replace(rows.take(np.flatnonzero(seen[name])), target=days) for name, rows in examples.items()},
    )  # fmt: skip


def _tell_status(
    frame: Frame, inputs: InputSpec, parts: Mapping[str, NDArray[np.int64]], examples: Mapping[str, Examples]
) -> Iterator[Leak]:
    """Features that tell whether the event has come by now, which a part that ended earlier does not know."""
    came = (frame.known_at != NEVER if frame.timed else frame.labels > 0).astype(np.float64)
    train, validate = (
        replace(examples[name], labels=came[parts[name]], target=Target()) for name in ("train", "validate")
    )
    status = replace(frame, labels=came, target=Target())
    for at, feature in enumerate(inputs.features):
        leak = _tells_outcome(status, feature.name, train, validate, at, feature.type == "number")
        if leak is not None:
            yield leak


def _tells_outcome(frame: Frame, name: str, train: Examples, validate: Examples, at: int, numeric: bool) -> Leak | None:
    """How well the feature alone tells the validation rows, by the labels of its bins on the training rows."""
    rows = slice(None, None, 1 + len(train.labels) // _SAMPLE)
    values, outcomes = train.matrix[rows, at], train.labels[rows]
    ranked = slice(None, None, 1 + len(validate.labels) // _SAMPLE)
    truth = validate.labels[ranked]
    seen = values[~np.isnan(values)]
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, _BINS + 1)[1:-1])) if numeric and len(seen) else seen[:0]
    if not numeric:
        edges = np.unique(seen)
    # Two sides of each edge and the edge itself, so that a value that is often alone has a bin of its own.
    bins, queried = (_bin(part, edges) for part in (values, validate.matrix[ranked, at]))
    size = 2 * len(edges) + 2
    sample = f" of {len(truth):,} sampled rows" if len(truth) < len(validate.labels) else ""
    if frame.target.task == "binary":
        area = roc_auc(truth, _bin_means(bins, outcomes, size)[queried])
        if area.value is None or area.low is None or area.value < _AREA or area.low < _AREA_LOW:
            return None
        figure, words = area.value, f"area {area.value:.3f}"
    else:
        figure = _explained(frame, bins, outcomes, queried, truth, size)
        if numeric and not frame.target.probabilistic:
            present = ~np.isnan(validate.matrix[ranked, at])
            figure = max(figure, _correlation(validate.matrix[ranked, at][present], truth[present]) ** 2)
        if figure < _EXPLAINED or len(truth) < _ROWS:
            return None
        words = f"explains {figure:.3f}"
    copy = figure >= _COPY
    return Leak(
        "label_copy" if copy else "single_feature", name, float(figure), "critical" if copy else "high",
        f"Feature {name!r} alone tells the outcome ({words}{sample}): make sure it is known at the decision.",
    )  # fmt: skip


def _bin_means(bins: NDArray[np.intp], outcomes: Floats, size: int) -> Floats:
    """Mean outcome of each bin, drawn towards that of all rows as by five of them."""
    counts, sums = np.bincount(bins, minlength=size), np.bincount(bins, weights=outcomes, minlength=size)
    means: Floats = (sums + 5 * float(outcomes.mean())) / (counts + 5)
    return means


def _explained(
    frame: Frame, bins: NDArray[np.intp], outcomes: Floats, queried: NDArray[np.intp], truth: Floats, size: int
) -> float:
    """Share of the errors of the most frequent class, or of the variance of ranks, that the bins take away."""
    if frame.target.task == "multiclass":
        classes = len(frame.target.classes)
        counts = np.bincount(bins * classes + outcomes.astype(np.int64), minlength=size * classes)
        total = counts.reshape(size, classes)
        first = np.where(total.sum(axis=1) > 0, total.argmax(axis=1), total.sum(axis=0).argmax())
        plain = float((truth != total.sum(axis=0).argmax()).mean())
        return 1 - float((truth != first[queried]).mean()) / plain if plain else 0.0
    ranks, learned = midranks(truth), midranks(outcomes)
    predicted = _bin_means(bins, learned / len(outcomes), size)[queried]
    spread = ranks / len(truth)
    return 1 - float(np.mean((spread - predicted) ** 2) / np.var(spread)) if np.ptp(truth) else 0.0


def _bin(values: Floats, edges: Floats) -> NDArray[np.intp]:
    """Even numbers between the edges, odd ones on them, the last for missing values."""
    places = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 2 * len(edges) + 1, places)


def _correlation(left: Floats, right: Floats, *, ranked: bool = False) -> float:
    """Spearman's rank correlation; 0 where one does not vary, or for few rows. ``ranked``: the left is ranks."""
    if len(left) < _ROWS or np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(np.corrcoef(left if ranked else midranks(left), midranks(right))[0, 1])


def _tells_duration(name: str, values: Floats, durations: NDArray[np.int64]) -> Leak | None:
    present = ~np.isnan(values)
    figure = _correlation(values[present], durations[present].astype(np.float64))
    if abs(figure) < _CORRELATION:
        return None
    sentence = f"Feature {name!r} goes with how long the outcome took: it is known only with the outcome."
    return Leak("known_later", name, figure, "high", sentence)


def _comes_with_outcome(frame: Frame, name: str) -> Leak | None:
    empty = frame.table.column(name).is_null(nan_is_null=True).to_numpy()
    unknown = np.isnan(frame.labels)
    if min(unknown.sum(), (~unknown).sum()) < _ROWS or empty[unknown].mean() < 0.99 or empty[~unknown].mean() > 0.01:
        return None
    sentence = f"Feature {name!r} is empty where there is no outcome yet: it is filled in with the outcome."
    return Leak("known_later", name, float(empty[unknown].mean()), "high", sentence)


def _names_rows(frame: Frame, name: str, train: NDArray[np.int64]) -> Leak | None:
    distinct = pc.count_distinct(frame.table.column(name).take(pa.array(train))).as_py()
    if len(train) < _ROWS or distinct < len(train) / 2:
        return None
    sentence = f"Feature {name!r} has {distinct:,} values in {len(train):,} training rows: it names rows, like an id."
    return Leak("id", name, distinct / len(train), "high", sentence)


def _keys(frame: Frame, rows: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Columns that may name a group, also those that the model does not read, with the codes of their values."""
    columns = [frame.table, *([] if frame.others is None else [frame.others])]
    for key, column in ((name, table.column(name)) for table in columns for name in table.column_names):
        if key.startswith("_") or not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            continue
        codes = column.take(pa.array(rows)).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy() + 1
        if _GROUPS <= codes.max(initial=-1) + 1 <= len(rows) / 2:
            yield key, codes


def _encoded_targets(frame: Frame, inputs: InputSpec, rows: NDArray[np.int64], matrix: Floats) -> Iterator[Leak]:
    """Numbers that are the mean outcome of a key over all rows, those to come included."""
    if frame.target.task == "multiclass":
        outcomes = [(frame.labels[rows] == code).astype(np.float64) for code in range(len(frame.target.classes))]
    else:
        outcomes = [frame.labels[rows]]
    ranks: dict[int, Floats] = {}  # of a feature, for every key: to rank is what costs
    for key, codes in _keys(frame, rows):
        sizes = np.maximum(np.bincount(codes), 1)
        means = [np.bincount(codes, weights=values) / sizes for values in outcomes]
        for at, feature in enumerate(inputs.features):
            values = matrix[:, at]
            present = ~np.isnan(values)
            if feature.type != "number" or feature.name == key or len(np.unique(values[present])) < _GROUPS:
                continue
            if at not in ranks:
                ranks[at] = midranks(values[present])
            figures = [_correlation(ranks[at], mean[codes][present], ranked=True) for mean in means]
            figures += [_smoothed(values[present], codes[present], sizes, mean) for mean in means]
            figure = max(figures, key=abs)
            if abs(figure) >= _CORRELATION:
                yield Leak(
                    "encoded_target", feature.name, figure, "high",
                    f"Feature {feature.name!r} is the mean outcome of each {key!r}: "
                    "make sure it counts only outcomes known before the decision.",
                )  # fmt: skip


def _smoothed(values: Floats, codes: NDArray[np.int64], sizes: NDArray[np.int64], means: Floats) -> float:
    """Correlation of a number with the mean outcomes of its groups, each drawn to one value as its size says.

    How much, is a curve over the logarithm of the size that is fitted: ``n / (n + m)``, a logistic one, or any other.
    What the size alone explains does not count. 0 where the number varies within groups, or groups are few.
    """
    rows = np.bincount(codes, minlength=len(sizes))
    groups = np.flatnonzero(rows)
    level = np.bincount(codes, weights=values, minlength=len(sizes))[groups] / rows[groups]
    within = np.var(values - level[np.searchsorted(groups, codes)])
    if len(groups) < _CURVE_GROUPS or within > (1 - _CORRELATION) * np.var(values):
        return 0.0
    size = np.log(sizes[groups])
    size = (size - size.mean()) / (np.ptp(size) or 1.0)
    curve = np.column_stack([size**power for power in range(_POWERS)])
    basis = np.hstack([curve, curve * (means[groups] - means[groups].mean())[:, None]])
    left, unexplained = (_residual(part, level) for part in (curve, basis))
    return float(np.sqrt(1 - unexplained / left)) if left > 0.1 * float(np.var(level)) else 0.0


def _residual(basis: Floats, level: Floats) -> float:
    """Variance that a least-squares fit of a basis leaves."""
    return float(np.var(level - basis @ np.linalg.lstsq(basis, level, rcond=None)[0]))


# rows -----------------------------------------------------------------------------------------------------------------


def _inverted_time(frame: Frame, parts: Mapping[str, NDArray[np.int64]]) -> Leak | None:
    """Training rows whose outcome was known only after the first test row was decided."""
    if not frame.timed or not len(parts["train"]) or not len(parts["test"]):
        return None
    first = frame.at[parts["test"]].min()
    figure = float((frame.known_at[parts["train"]] >= first).mean())
    if figure == 0:
        return None
    return Leak(
        "time_order", None, figure, "critical",
        f"The outcomes of {figure:.0%} of the training rows were known only after the first test row was decided: "
        "split in time, or the test shows what no model could have known.",
    )  # fmt: skip


def _torn_groups(frame: Frame, parts: Mapping[str, NDArray[np.int64]]) -> Iterator[Leak]:
    """Columns whose groups are on both sides and share their outcome within a group."""
    train, test = parts["train"], parts["test"]
    rows = np.concatenate([train, test])
    for key, codes in _keys(frame, rows):
        mine, theirs = codes[: len(train)], codes[len(train) :]
        sizes = np.bincount(mine, minlength=int(codes.max()) + 1)
        shared = sizes[theirs] > 0
        if shared.mean() < 0.5 or len(np.unique(mine)) < len(train) / 50 or shared.sum() < _ROWS:
            continue
        labels = frame.labels
        if frame.target.task == "multiclass":
            labels = (labels == np.bincount(labels[train].astype(np.int64)).argmax()).astype(np.float64)
        sums = np.bincount(mine, weights=labels[train], minlength=len(sizes))
        means = (sums[theirs] / np.maximum(sizes[theirs], 1))[shared]
        figure = _correlation(means, labels[test][shared])
        # Above three standard errors of no correlation, and of a size that matters.
        if figure >= max(0.2, 3 / np.sqrt(shared.sum())):
            yield Leak(
                "group", key, figure, "critical",
                f"{shared.mean():.0%} of the test rows share their {key!r} with training rows, and with it the outcome "
                f"(rank correlation {figure:.2f}): split with GroupSplit(by={key!r}).",
            )  # fmt: skip


def _repeated_rows(inputs: InputSpec, train: Examples, test: Examples) -> Leak | None:
    """Test rows that were trained on, exactly or but for tiny differences, with the same outcomes."""
    rows = slice(None, None, 1 + len(test.labels) // _SAMPLE)
    truth, spread = test.labels[rows], np.zeros(len(inputs))
    for at, feature in enumerate(inputs.features):
        seen = train.matrix[:: 1 + len(train.labels) // _SAMPLE, at]
        seen = seen[~np.isnan(seen)]
        if feature.type == "number" and len(seen):
            spread[at] = np.subtract(*np.quantile(seen, [0.75, 0.25]))

    def rounded(tiny: float) -> tuple[Floats, Floats]:
        grid = np.where(spread > 0, tiny * spread, 1.0)
        left, right = (np.where(spread > 0, np.round(part / grid), part) for part in (train.matrix, test.matrix[rows]))
        return left, right

    count, words = _twins(train.matrix, train.labels, test.matrix[rows], truth), f"by all of the {len(inputs)} features"
    if not count:
        left, right = rounded(_TINY)
        count, words = _twins(left, train.labels, right, truth), f"by all of the {len(inputs)} features to a thousandth"
        # Rows that lie close together meet the more often, the coarser the grid; copies of a row do not.
        if not count or _meetings(*rounded(10 * _TINY)) > 2 * count:
            return None
    sampled = " sampled" if len(truth) < len(test.labels) else ""
    return Leak(
        "duplicates", None, count / len(truth), "critical",
        f"{count:,} of {len(truth):,}{sampled} test rows are training rows again, {words} "
        "and their outcomes: remove duplicates, or the test is no test.",
    )  # fmt: skip


def _twins(train: Floats, labels: Floats, test: Floats, truth: Floats) -> int:
    """Test rows that equal a training row and have its outcome; 0 unless chance explains neither.

    Training rows must be distinct in more than a tenth of them, and more rows must meet than would if each column were
    drawn by itself: a few columns of few values are equal without being copies.
    """
    keys, test_keys = _row_keys(train), _row_keys(test)
    order = np.argsort(keys)
    keys = keys[order]
    if 1 + np.count_nonzero(keys[1:] != keys[:-1]) <= len(keys) / 10:
        return 0
    first, last = (np.searchsorted(keys, test_keys, side=side) for side in ("left", "right"))
    equal = (last > first) & ~np.isnan(test).all(axis=1)
    count = int(equal.sum())
    if count < max(_ROWS / 2, len(test) / 100):
        return 0
    ones = np.append(0.0, np.cumsum(labels[order]))
    rates = (ones[last] - ones[first])[equal] / (last - first)[equal]
    agree = np.isclose(rates, truth[equal], rtol=1e-9)
    _, outcome, times = np.unique(truth, return_inverse=True, return_counts=True)
    usual = (times / len(truth))[outcome][equal]  # chance that a row drawn at random has the outcome
    surprise = (agree - usual).sum() / np.sqrt(max((usual * (1 - usual)).sum(), 1e-12))
    if agree.mean() < 0.98 or surprise < 5 or (1 - usual).sum() < _ROWS / 4:
        return 0
    return count if _met_by_chance(train, test[equal]) < count / 2 else 0


def _meetings(train: Floats, test: Floats) -> int:
    """Test rows that equal a training row."""
    return int(np.isin(_row_keys(test), _row_keys(train)).sum())


def _met_by_chance(train: Floats, rows: Floats) -> float:
    """How many of some rows would equal a training row if each column were drawn by itself."""
    expected = np.full(len(rows), float(len(train)))
    for column, values in zip(train.T, rows.T, strict=True):
        _, places, counts = np.unique(np.append(column, values), return_inverse=True, return_counts=True)
        counts -= np.bincount(places[len(column) :], minlength=len(counts))
        expected *= counts[places[len(column) :]] / len(column)
    return float(-np.expm1(-expected).sum())


def _row_keys(matrix: Floats) -> NDArray[np.uint64]:
    """One number of 64 bits per row: equal where all their numbers are, by chance once in 2**64 pairs otherwise."""
    keys = np.zeros(len(matrix), dtype=np.uint64)
    for column in matrix.T:
        bits = (column + 0.0).view(np.uint64)  # -0.0 is 0.0 from here on
        keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + bits
    return keys
