"""Read one column of numbers for the mergeable statistics: floats, with nulls and infinities counted apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """The finite values of a column, in their order, and how many others there were."""

    finite: NDArray[np.float64]
    nulls: int
    lowest: int
    highest: int


def read_floats(values: Any, where: str) -> NDArray[np.float64]:
    """Floats with NaN for null, shape (n,), from NumPy, Arrow, pandas or a plain sequence."""
    if hasattr(values, "to_numpy") and hasattr(values, "to_pylist"):
        values = values.to_numpy(zero_copy_only=False) if not hasattr(values, "chunks") else values.to_numpy()
    elif hasattr(getattr(values, "dtype", None), "na_value") and values.dtype.kind in "biuf":  # pandas' nullable types
        values = values.to_numpy(dtype=np.float64, na_value=np.nan)
    array = np.asarray(values if hasattr(values, "__array__") else list(values))
    # Text that happens to read as a number, and times, would be converted in silence.
    numeric = (
        array.dtype.kind in "biuf"
        or not array.size
        or (array.dtype.kind == "O" and not any(isinstance(value, str | bytes) for value in array.flat))
    )
    try:
        floats = array.astype(np.float64, copy=False) if numeric else None
    except (TypeError, ValueError, OverflowError):
        floats = None
    if floats is None or floats.ndim != 1:
        raise InputError(
            "a column of numbers must have one dimension and hold numbers and nulls",
            where=where,
            got=f"{array.dtype} of shape {array.shape}",
            remedy="Pass one column, cast to numbers",
        )
    return floats


def read_column(values: Any, where: str) -> NumberColumn:
    """Split a column of numbers into its finite values and the counts of all others."""
    floats = read_floats(values, where)
    finite = np.isfinite(floats)
    if finite.all():
        return NumberColumn(floats, 0, 0, 0)
    return NumberColumn(
        floats[finite], int(np.isnan(floats).sum()), int((floats == -np.inf).sum()), int((floats == np.inf).sum())
    )
