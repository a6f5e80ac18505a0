"""From the values of a label to numbers, and what they are: one reading for training and for watching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.kinds import kind_of
from retrodict.core.statistics.survival import SHORTEST
from retrodict.core.tasks import Target
from retrodict.models.definitions import Model

__all__ = ["encode_days", "encode_labels", "plain_labels", "survival_labels"]

_MOST_CLASSES = 1_000


def plain_labels(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Labels as float64 where they are yes or no or numbers, as text where they are text.

    Raises
    ------
    DefinitionError
        If they are of another kind.
    """
    match kind_of(column.type):
        case "text":
            return column.cast(pa.string())
        case "bool" | "int" | "float" | "decimal":
            return column.cast(pa.int8() if pa.types.is_boolean(column.type) else column.type).cast(pa.float64())
        case _ if pa.types.is_null(column.type):
            return column.cast(pa.float64())
        case kind:
            raise DefinitionError("a label must be true or false, a number or a text", where="label", got=kind,
                                  remedy="Write a comparison, or name another column")  # fmt: skip


def encode_labels(
    model: Model, column: pa.ChunkedArray[Any], *, is_known: NDArray[np.bool_], target: Target | None = None
) -> tuple[Target, NDArray[np.float64]]:
    """Labels as numbers, and what they are.

    Parameters
    ----------
    model : Model
        Says the task, or leaves it to the values: text, or listed classes, are classes; numbers of nothing but 0 and 1
        are a yes or no; other numbers are numbers.
    column : pyarrow.ChunkedArray of length n
        As :func:`plain_labels` gives them.
    is_known : ndarray of bool, shape (n,)
        Whether the label is known at any time; what is not becomes NaN.
    target : Target, optional
        That of a trained version, by whose classes to count; a class it does not have becomes NaN. None: a new one.

    Returns
    -------
    Target, ndarray of float64, shape (n,)
        0 or 1, codes of classes, or numbers; NaN where there is none.

    Raises
    ------
    DefinitionError
        If the values are not of the task that the model says.
    InputError
        If a label is an infinity, or none of the listed classes.
    """
    where = f"model {model.name}, label {model.label.name!r}"
    textual = pa.types.is_string(column.type)
    if target is None and model.task == "binary" and textual:
        raise DefinitionError("a yes or no must be true or false, or 0 or 1", where=where, got="text",
                              remedy=f"Write a comparison, like \"{model.label.expression} = 'yes'\"")  # fmt: skip
    multiclass = model.task == "multiclass" if target is None else bool(target.classes)
    if textual or model.label.classes or multiclass:
        return _classes(model, column, is_known, target, where)
    labels = np.where(is_known, np.asarray(column.to_numpy(), dtype=np.float64), np.nan)
    if infinite := int(np.isinf(labels).sum()):
        raise InputError("labels must be finite", where=where, got=f"{infinite} infinities",
                         remedy="Quarantine such rows with Check.between")  # fmt: skip
    others = ~np.isnan(labels) & (labels != 0) & (labels != 1)
    if "binary" in (model.task, target and target.task) and others.any():
        raise DefinitionError("a label must be true or false", where=where,
                              got=f"{len(np.unique(labels[others]))} numbers other than 0 and 1",
                              remedy=f"Write a comparison, like '{model.label.expression} > 0'")  # fmt: skip
    if target is not None:
        return target, labels
    task = model.task or ("regression" if others.any() else "binary")
    return Target(task, quantiles=tuple(model.quantiles)), labels


NEVER = np.iinfo(np.int64).max
"""Instant of what has not happened."""


def survival_labels(
    at: NDArray[np.int64], happened: NDArray[np.int64], until: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Signed days of rows with a moment of decision; minus infinity where a row is followed to no end.

    Parameters
    ----------
    at, happened, until : ndarray of int64, shape (n,)
        Moments of the decision, of the event and of the end of follow-up, in microseconds; :data:`NEVER` where there is
        none. An event at the end of follow-up was seen.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where the event, or the end of follow-up, came before the decision. An event at the decision came one
        microsecond after it.
    """
    seen = (happened != NEVER) & (happened <= until)
    days = np.where(until == NEVER, -np.inf, (at - np.where(until == NEVER, 0, until)) / DAY)
    days = np.where(seen, (np.where(seen, happened, at) - at) / DAY, days)
    days[seen & (days == 0)] = SHORTEST
    days[(happened < at) | ((until <= at) & ~seen)] = np.nan
    return days


def encode_days(days: NDArray[np.float64], event: NDArray[np.bool_], *, where: str) -> NDArray[np.float64]:
    """Signed days of numbers of days and whether the event came at their end; NaN stays.

    Raises
    ------
    InputError
        If a number of days is negative or an infinity.
    """
    if odd := int(((days < 0) | np.isinf(days)).sum()):
        raise InputError("days until an event must be finite, zero or more", where=where, got=f"{odd} others",
                         remedy="Quarantine such rows with Check.between")  # fmt: skip
    return np.where(event, 1.0, -1.0) * np.maximum(days, SHORTEST)


def _class(value: str | float) -> str | float:
    """Name of a class: whole numbers without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classes(
    model: Model, column: pa.ChunkedArray[Any], is_known: NDArray[np.bool_], target: Target | None, where: str
) -> tuple[Target, NDArray[np.float64]]:
    """Codes of classes; numbers that name classes are compared as numbers."""
    values = pc.if_else(pa.array(is_known), column.combine_chunks(), None)
    classes = model.label.classes if target is None else target.classes
    if not classes:
        classes = tuple(sorted(_class(value.as_py()) for value in pc.unique(values.drop_null())))
        if len(classes) == 2:
            last = str(classes[-1]) if isinstance(classes[-1], str) else int(classes[-1])
            raise DefinitionError("a label of two values must say which is the yes", where=where, got=2,
                                  remedy=f'Write "{model.label.expression} = {last!r}"')  # fmt: skip
        if not 2 <= len(classes) <= _MOST_CLASSES:
            remedy = "Write a comparison, or name the classes"
            if all(isinstance(name, str) and _reads_as_number(name) for name in classes):
                remedy = ("The column is text, and every value a number: declare it, like Table(columns={'price': "
                          "'float'}), and ingest again with --replace")  # fmt: skip
            raise InputError(f"a label of classes must have 2 to {_MOST_CLASSES:,} of them", where=where,
                             got=len(classes), remedy=remedy)  # fmt: skip
    text = pa.types.is_string(column.type)
    try:
        vocabulary = pa.array([str(name) if text else float(name) for name in classes], column.type)
    except ValueError as error:
        rule, remedy = "the listed classes must be of the kind of the label", "List the values as the table has them"
        raise DefinitionError(rule, where=where, got=str(column.type), remedy=remedy) from error
    codes = pc.index_in(values, value_set=vocabulary, skip_nulls=True)
    unlisted = codes.null_count - values.null_count
    if unlisted and target is None:
        raise InputError("a label must be one of the listed classes", where=where, got=f"{unlisted} rows with another",
                         remedy="List every class, or quarantine the rows with Check.in_set")  # fmt: skip
    labels = codes.cast(pa.float64()).fill_null(np.nan).to_numpy()
    ordered = bool(getattr(model.label, "ordered", False))
    target = target or Target("multiclass", classes=tuple(classes), ordered=ordered)
    return target, np.asarray(labels, dtype=np.float64)


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
