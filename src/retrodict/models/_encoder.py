"""From values to float64: one path for whole columns, one for single rows, and a property test that holds them equal.

Columns with a native type go through NumPy and Arrow kernels. Columns of Python objects go value by value through the
very code that serves requests: they are rare, and only so can odd mixtures (a bool among ints) not come out different.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.errors import InputError, near

__all__ = ["RowEncoder", "category_column", "number_column", "plain_values"]

_NAN = math.nan
_NUMBER = "Send a finite number, true, false or null"

Vocabulary = tuple[str, ...] | tuple[int | float, ...]


def _not_a_number(name: str, kind: str) -> InputError:
    return InputError("a number feature must hold numbers or null", where=f"feature {name!r}", got=kind, remedy=_NUMBER)


def _not_finite(name: str, rows: int) -> InputError:
    return InputError("numbers must be finite or missing", where=f"feature {name!r}",
                      got=f"{rows} rows with an infinity", remedy=_NUMBER)  # fmt: skip


def _not_of_vocabulary(name: str, kind: str, *, text: bool) -> InputError:
    expected = "text" if text else "numbers"
    return InputError(f"the categories of this feature must be {expected}", where=f"feature {name!r}", got=kind,
                      remedy=f"Send {expected} or null")  # fmt: skip


def _number(name: str, value: Any) -> float:
    """One value of a number feature; NaN for None."""
    if value is None:
        return _NAN
    if isinstance(value, str | bytes | np.datetime64 | np.timedelta64):
        raise _not_a_number(name, type(value).__name__)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise _not_a_number(name, type(value).__name__) from error
    except OverflowError as error:
        raise _not_finite(name, 1) from error
    if math.isinf(number):
        raise _not_finite(name, 1)
    return number


def _code(name: str, codes: Mapping[Any, float], value: Any, *, text: bool | None) -> float:
    """One value of a category feature; NaN for null and for what the training rows did not hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NAN
    if text is None:  # nothing was learned, so nothing can be wrong
        return _NAN
    if isinstance(value, str) is not text:
        raise _not_of_vocabulary(name, type(value).__name__, text=text)
    return codes.get(value if text else _number(name, value), _NAN)


def is_text(vocabulary: Sequence[object]) -> bool | None:
    """Whether a vocabulary is of text; None for an empty one, which fits every column."""
    return isinstance(vocabulary[0], str) if vocabulary else None


class RowEncoder:
    """Fills float64 rows from mappings; made once per :class:`InputSpec`, shared by threads (it holds no state)."""

    def __init__(self, names: Sequence[str], vocabularies: Sequence[Vocabulary | None]) -> None:
        self._names = tuple(names)
        pick = itemgetter(*names)
        self._pick: Callable[[Mapping[str, Any]], tuple[Any, ...]] = pick if len(names) > 1 else lambda v: (pick(v),)
        self._pack = struct.Struct(f"{len(names)}d").pack_into
        self._tables = [
            # This one NaN object is what a null becomes above; a dict finds it by identity.
            (at, {value: float(code) for code, value in enumerate(words)} | {_NAN: _NAN}, is_text(words))
            for at, words in enumerate(vocabularies)
            if words is not None
        ]

    def encode(self, values: Mapping[str, Any], row: NDArray[np.float64]) -> None:
        """Write the row; the common case without a branch per feature, anything odd through the careful path."""
        try:
            picked = [_NAN if value is None else value for value in self._pick(values)]
            for at, codes, text in self._tables:
                code = codes.get(picked[at])
                picked[at] = _code(self._names[at], codes, picked[at], text=text) if code is None else code
            total = sum(picked)
            self._pack(row.data, 0, *picked)
        except (KeyError, TypeError, ValueError, OverflowError, struct.error):
            self._encode_carefully(values, row)
            return
        # A sum is finite only if every part is: one look instead of thirty. NaN (missing) takes the second look.
        if not math.isfinite(total) and (math.inf in picked or -math.inf in picked):
            self._encode_carefully(values, row)

    def _encode_carefully(self, values: Mapping[str, Any], row: NDArray[np.float64]) -> None:
        tables = {at: (codes, text) for at, codes, text in self._tables}
        for at, name in enumerate(self._names):
            if name not in values:
                raise InputError("a row must hold every feature of the model, null where it has no value",
                                 where=f"feature {name!r}", got=f"{len(values)} values",
                                 remedy=near(name, values, what="value"))  # fmt: skip
            value = values[name]
            if at in tables:
                codes, text = tables[at]
                row[at] = _code(name, codes, value, text=text)
            else:
                row[at] = _number(name, value)


def _plain_arrow(column: Any) -> list[Any] | pa.Array[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == pa.string_view():  # few Arrow kernels read views
        column = column.cast(pa.large_string())
    # Arrow rounds decimals in its own way; Python's is the one that a request gets.
    plain: list[Any] | pa.Array[Any] = column.to_pylist() if pa.types.is_decimal(column.type) else column
    return plain


def plain_values(name: str, column: Any) -> list[Any] | pa.Array[Any]:
    """Return a column as one Arrow array of a native type, or as a list where it holds Python objects or decimals."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.Array):
        return _plain_arrow(column)
    if isinstance(column, np.ndarray) and column.dtype != object:
        if column.ndim != 1:
            raise InputError("a column must have one dimension", where=f"feature {name!r}", got=column.shape,
                             remedy="Pass each column by itself")  # fmt: skip
        return pa.array(column)
    return list(column)


def _floats(name: str, column: Any) -> NDArray[np.float64]:
    """Float64 values of an Arrow array of numbers or bools, NaN for null."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), _NAN)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise _not_a_number(name, str(kind))
    missing = column.null_count
    filled: Any = pc.fill_null(column, False if pa.types.is_boolean(kind) else pa.scalar(0, type=kind))
    floats: NDArray[np.float64] = filled.to_numpy(zero_copy_only=False).astype(np.float64)
    if missing:
        floats[column.is_null().to_numpy(zero_copy_only=False)] = _NAN
    return floats


def number_column(name: str, column: Any) -> NDArray[np.float64]:
    """Float64 values of a number feature, NaN for null."""
    plain = plain_values(name, column)
    if isinstance(plain, list):
        return np.array([_number(name, value) for value in plain], dtype=np.float64)
    floats = _floats(name, plain)
    if infinite := int(np.isinf(floats).sum()):
        raise _not_finite(name, infinite)
    return floats


def category_column(name: str, column: Any, vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Codes of a category feature: its place in the vocabulary; NaN for null and unseen."""
    plain, text = plain_values(name, column), is_text(vocabulary)
    if isinstance(plain, list):
        codes = {value: float(code) for code, value in enumerate(vocabulary)}
        return np.array([_code(name, codes, value, text=text) for value in plain], dtype=np.float64)
    if text is None or pa.types.is_null(plain.type):
        return np.full(len(plain), _NAN)
    textual = pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)
    if textual is not text:
        raise _not_of_vocabulary(name, str(plain.type), text=text)
    if text:
        return _floats(name, pc.index_in(plain, value_set=pa.array(vocabulary, type=plain.type), skip_nulls=True))
    return _numeric_codes(number_column(name, plain), np.array(vocabulary, dtype=np.float64))


def _numeric_codes(floats: NDArray[np.float64], vocabulary: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of each value in a sorted vocabulary of numbers."""
    at = np.minimum(np.searchsorted(vocabulary, floats), len(vocabulary) - 1)
    return np.where(vocabulary[at] == floats, at.astype(np.float64), _NAN)
