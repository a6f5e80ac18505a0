"""Calls derived functions: on the columns of a frame, or on one request as columns of length one."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import DefinitionError, InputError, RetrodictError, check_known, is_interrupt
from retrodict.core.kinds import kind_of
from retrodict.features.derived import Derived, Form
from retrodict.features.facts.columns import numeric, pick, times
from retrodict.features.facts.times import Times
from retrodict.features.plan import FeatureSet

__all__ = ["derive_columns", "derive_row"]

_SPOKEN = {"object": "list or dict"}
# np.where works out both sides, also that of the rows it is not taken for.
_SILENT: Mapping[str, Any] = {"divide": "ignore", "invalid": "ignore"}


def derive_columns(features: FeatureSet, spine: pa.Table, columns: dict[str, pa.Array[Any]]) -> None:
    """Add the outputs of every derived function to ``columns``, which holds the features so far."""

    def read(name: str, form: Form, where: str) -> Any:
        column = columns[name] if name in columns else pick(spine, name, where=f"{_bare(where)}, spine")
        return _column_argument(column, form, where=where)

    with np.errstate(**_SILENT):
        for column, values in _outputs(features, read, spine.num_rows):
            columns[column] = _to_arrow(values)


def derive_row(features: FeatureSet, request: Mapping[str, Any], values: dict[str, Any]) -> None:
    """Add the outputs of every derived function to ``values``, which holds the features of one request so far."""
    rule = "the request must have the inputs of derived features"

    def read(name: str, form: Form, where: str) -> Any:
        if name in values:
            return _row_argument(values[name], form, where)
        if name not in request:
            check_known(name, request, rule, where=_bare(where), what="input", error=InputError)
        return _row_argument(request[name], form, where)

    with np.errstate(**_SILENT):
        for column, array in _outputs(features, read, 1):
            values[column] = _to_python(array)


def _outputs(
    features: FeatureSet, read: Callable[[str, Form, str], Any], rows: int
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Columns of every derived function, one after the other: a later one reads those before it."""
    for function in features.derived:
        result: object = _call(function, [read(name, form, where) for name, form, where in function.arguments])
        if not isinstance(result, Mapping) or result.keys() != set(function.outputs):
            raise DefinitionError(
                "a derived feature must return what it declares",
                where=f"derived {function.name!r}",
                got=sorted(result) if isinstance(result, Mapping) else type(result).__name__,
                remedy=f"Return a dict with {', '.join(map(repr, function.outputs))}",
            )
        for name, column, where in function.columns:
            yield column, _normal(result[name], rows, where)


def _bare(where: str) -> str:
    """What to name in an error about a whole function, of what names one of its inputs."""
    return where.rpartition(", input ")[0]


def _call(function: Derived, inputs: list[Any]) -> object:
    try:
        return function.function(*inputs)
    except RetrodictError:
        raise
    except BaseException as error:  # of somebody's code; its text may hold values of a row, its kind cannot
        if is_interrupt(error):
            raise
        path = Path(inspect.unwrap(function.function).__code__.co_filename)
        places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        lines = [f"{place.name}:{line}" for place, line in places if place.parent == path.parent]
        raise DefinitionError(
            "a derived function must work on arrays: it is called with those of all rows, or of the one of a request",
            where=", ".join([f"derived {function.name!r}", *lines[-1:]]),
            got=type(error).__name__,
            remedy="Correct the line; write conditions that work on arrays, like np.where(income > 0, debt / income, "
            "np.nan), where a missing number is np.nan",
        ) from error


def _normal(value: Any, rows: int, where: str) -> NDArray[Any]:
    """float64 with NaN for null, or an object array of text: the only two forms, so that types cannot drift."""
    array = np.asarray(value)
    if array.dtype.kind in "biuf":
        array = array.astype(np.float64, copy=False)
    elif array.dtype.kind in "UO":
        array = array.astype(object)
    else:
        raise DefinitionError(
            "a derived feature must give numbers, booleans or text",
            where=where,
            got=str(array.dtype),
            remedy="Convert what it returns",
        )
    if array.shape == (rows,):
        return array
    if array.shape not in {(), (1,)}:
        raise DefinitionError(
            "a derived feature must give one value per row",
            where=where,
            got=array.shape,
            remedy="Return one number or an array as long as its inputs",
        )
    return np.broadcast_to(array, (rows,))


def _column_argument(column: pa.Array[Any] | pa.ChunkedArray[Any], form: Form, where: str) -> Any:
    kind = kind_of(column.type)
    if form == "time":
        micros, valid = times(column, where=where)
        return Times(micros, None if valid.all() else ~valid)
    if form == "text" and kind in {"text", "null"}:
        return np.array(column.to_pylist(), dtype=object)
    if form == "object" and (_holds_several(column.type) or kind == "null"):
        values = column.to_pylist()
        pairs = pa.types.is_map(column.type)
        return _objects([dict(value) if pairs and value is not None else value for value in values])
    if form in {"text", "object"} or kind not in {"bool", "int", "float", "null"}:
        raise _wrong_form(str(column.type), form, where)
    numbers = numeric(column, where=where)
    values = numbers.values.astype(np.float64)
    values[~numbers.valid] = np.nan
    return values


def _holds_several(type_: pa.DataType) -> bool:
    return any(test(type_) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_map))


def _objects(values: list[Any]) -> NDArray[Any]:
    """Object array of lists or dicts; NumPy itself would make a list of lists two-dimensional."""
    objects = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        objects[place] = value
    return objects


def _wrong_form(got: str, form: Form, where: str) -> DefinitionError:
    return DefinitionError(
        f"this input must arrive as a {_SPOKEN.get(form, form)}",
        where=where,
        got=got,
        remedy="Annotate the parameter with what it is: def f(sched_dep: Times, origin: str, tags: list)",
    )


def _row_argument(value: Any, form: Form, where: str) -> Any:
    if form == "time":
        return _row_times(value, where)
    if form == "text" and (value is None or isinstance(value, str)):
        return _objects([value])
    if form == "object" and (value is None or isinstance(value, list | dict)):
        return _objects([value])
    if form in {"text", "object"} or not isinstance(value, bool | int | float | np.number | np.bool_ | None):
        raise _wrong_form(type(value).__name__, form, where)
    number = math.nan if value is None else float(value)
    return np.array([number + 0.0 if math.isfinite(number) else math.nan])


def _row_times(value: Any, where: str) -> Times:
    if value is None:
        return Times(np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.bool_))
    if isinstance(value, datetime):
        value = to_micros(value, where=where)
    elif isinstance(value, str):
        value = parse_time(value, where=where)
    if not isinstance(value, int | np.integer):
        raise InputError(
            "a time must be int microseconds, an aware datetime or ISO 8601 text",
            where=where,
            got=type(value).__name__,
            remedy="Send it like '2024-01-31T12:00Z'",
        )
    return Times(np.array([value], dtype=np.int64))


def _to_arrow(values: NDArray[Any]) -> pa.Array[Any]:
    if values.dtype == object:
        return pa.array(values.tolist(), type=pa.string())
    clean = np.where(np.isfinite(values), values + 0.0, 0.0)
    return pa.array(clean, mask=~np.isfinite(values))


def _to_python(values: NDArray[Any]) -> Any:
    value = values[0]
    if values.dtype == object:
        return value
    number = float(value)
    return number + 0.0 if math.isfinite(number) else None
