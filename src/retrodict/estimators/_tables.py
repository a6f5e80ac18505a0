"""Tables of four kinds as columns of NumPy, and back: what an estimator gets is what it gives.

A column is a number (float64, NaN for null), a time (datetime64[us], NaT for null) or text (object, None for null). The
libraries of tables are recognised by what their objects can do, so none is imported for a caller who does not use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, IntegrityError, InternalError, check_known

NUMBER, TEXT, TIME, EMPTY = "number", "text", "time", "empty"
Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ColumnTable:
    """Columns by name, in order; ``source`` is what the caller gave."""

    columns: dict[str, Column]
    kinds: dict[str, str]
    rows: int
    container: str
    source: Any

    def write(self, columns: Mapping[str, Column], selected: NDArray[np.bool_] | None = None) -> Any:
        """Columns of the same rows (or of those selected) as a table of the caller's kind.

        A column that was not changed (the very array that was read) is the caller's own, with its type and time zone.
        """
        written: dict[str, Any] = {name: self._written(name, column, selected) for name, column in columns.items()}
        if self.container == "numpy":
            arrays = list(written.values())
            numeric = all(array.dtype.kind in "fb" for array in arrays)
            kind = self.source.dtype if numeric and self.source.dtype.kind == "f" else np.float64 if numeric else object
            return np.column_stack([a.astype(kind) for a in arrays]) if arrays else np.empty((self.rows, 0))
        if self.container == "pandas":
            index = self.source.index if selected is None else self.source.index[selected]
            return type(self.source)(written, index=index)
        if self.container == "arrow":
            import pyarrow as pa

            new = {n: pa.array(c, from_pandas=True) for n, c in written.items() if isinstance(c, np.ndarray)}
            return pa.table({**written, **new})
        lists = {n: c.tolist() for n, c in written.items() if isinstance(c, np.ndarray) and c.dtype == object}
        return type(self.source)({**written, **lists})

    def _written(self, name: str, column: Column, selected: NDArray[np.bool_] | None) -> Any:
        original = self._original(name) if column is self.columns.get(name) else None
        if selected is None:
            return column if original is None else original
        if original is None or hasattr(original, "iloc"):
            return (column if original is None else original)[selected]
        return original.filter(selected.tolist())

    def _original(self, name: str) -> Any:
        """The caller's column, where its kind of table has one by this name."""
        if self.container == "arrow":
            return self.source.column(name)
        if self.container == "polars":
            return self.source.get_column(name)
        return self.source[name] if self.container == "pandas" and name in self.source.columns else None


def read_table(table: Any, where: str, fitted: Mapping[str, str] | None = None) -> ColumnTable:
    """Read a pandas, Arrow or Polars table, or a NumPy array with two dimensions.

    With ``fitted``, the kinds of columns by name, these are read in this order, as these kinds; an array is taken to
    have exactly these.
    """
    if hasattr(table, "column_names") and hasattr(table, "to_batches"):
        container, columns_by_name = "arrow", {name: table.column(name) for name in table.column_names}
    elif hasattr(table, "iloc") and hasattr(table, "columns"):
        container = "pandas"
        # Names that are not text (0, 1, 2 by default) are positions: scikit-learn has no names for them either.
        labels = list(table.columns)
        text_labels = all(isinstance(label, str) for label in labels)
        columns_by_name = {
            label if text_labels else f"x{place}": table.iloc[:, place] for place, label in enumerate(labels)
        }
        if len(columns_by_name) != len(labels):
            raise InputError("a column must have a name of its own", where=where,
                             got=len(labels) - len(columns_by_name), remedy="Rename the repeated ones")  # fmt: skip
    elif hasattr(table, "get_columns") and hasattr(table, "lazy"):
        container, columns_by_name = "polars", {name: table.get_column(name).to_arrow() for name in table.columns}
    elif isinstance(table, np.ndarray) and table.ndim == 2:
        labels = [f"x{place}" for place in range(table.shape[1])] if fitted is None else list(fitted)
        container, columns_by_name = "numpy", {name: table[:, place] for place, name in enumerate(labels)}
    else:
        raise InputError("a table must be of pandas, Arrow or Polars, or a NumPy array of two dimensions", where=where,
                         got=type(table).__name__, remedy="Convert it to one of them")  # fmt: skip
    columns, kinds = {}, {}
    for name in columns_by_name if fitted is None else fitted:
        check_known(name, columns_by_name, "a column of the fitted table must be present", where=where, what="column",
                    error=InputError)  # fmt: skip
        columns[name], kinds[name] = _read(columns_by_name[name], f"{where}, column {name!r}")
        if fitted is not None:
            columns[name] = _as_kind(columns[name], kinds[name], fitted[name], f"{where}, column {name!r}")
    return ColumnTable(columns, kinds, len(table), container, table)


def read_input(estimator: Any, data: Any, where: str, fitted: Mapping[str, str] | None = None) -> ColumnTable:
    """Read the table of an estimator, arrays through the checks of scikit-learn; without ``fitted`` it is learned."""
    reset = fitted is None
    has_columns = any(hasattr(data, name) for name in ("columns", "column_names"))
    if not has_columns:
        from sklearn.utils.validation import validate_data

        try:
            data = validate_data(estimator, data, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        except (TypeError, ValueError) as error:
            raise InputError(str(error).rstrip("."), where=where, got=type(data).__name__,
                             remedy="Pass the table as it was fitted") from error  # fmt: skip
    table = read_table(data, where, fitted)
    if not table.rows or not table.columns:
        raise InputError("a table must have rows and columns", where=where, got=(table.rows, len(table.columns)),
                         remedy="Pass the training rows")  # fmt: skip
    for name, column in table.columns.items():
        if column.dtype.kind == "f" and np.isinf(column).any():
            raise InputError("numbers must be finite or missing", where=f"{where}, column {name!r}",
                             got=f"{int(np.isinf(column).sum())} rows",
                             remedy="Replace infinities by null")  # fmt: skip
    if reset and has_columns:
        labels = data.column_names if hasattr(data, "column_names") else list(data.columns)
        set_columns(estimator, list(table.columns), has_names=all(isinstance(label, str) for label in labels))
    return table


def set_columns(estimator: Any, names: list[str], *, has_names: bool) -> None:
    """Set what scikit-learn keeps of the fitted columns."""
    estimator.n_features_in_ = len(names)
    if has_names:
        estimator.feature_names_in_ = np.array(names, dtype=object)
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def _read(column: Any, where: str) -> tuple[Column, str]:
    if hasattr(column, "to_pylist"):
        kind = str(column.type)
        if kind.startswith(("int", "uint", "float", "double", "half")):
            column = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
        elif kind.startswith(("timestamp", "date")):
            instants = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
            column = instants.astype("datetime64[us]")
        else:
            column = np.array([*column.to_pylist(), None], dtype=object)[:-1]  # one more: never read as a matrix
    elif hasattr(column, "dtype") and not isinstance(column, np.ndarray):
        column = _from_pandas(column)
    if column.dtype.kind in "biuf":
        return column.astype(np.float64), NUMBER  # always a copy: the caller's table is never written to
    if column.dtype.kind == "M":
        return column.astype("datetime64[us]"), TIME
    if column.dtype.kind in "OUT":
        return _read_objects(column.tolist(), where)
    raise InputError("a column must hold numbers, text or times", where=where, got=str(column.dtype),
                     remedy="Convert it, or leave it out")  # fmt: skip


def _from_pandas(column: Any) -> Column:
    kind = getattr(column.dtype, "kind", "O")
    if kind in "biuf":
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if kind == "M":
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return np.asarray(column.to_numpy(dtype="datetime64[us]"))
    return np.asarray(column.astype(object).where(column.notna(), None).to_numpy(), dtype=object)


def _read_objects(values: list[Any], where: str) -> tuple[Column, str]:
    """A column of Python objects: all numbers, or all text, nulls aside."""
    cleaned = [None if value is None or value != value else value for value in values]  # noqa: PLR0124 - NaN
    types = {type(value) for value in cleaned if value is not None}
    if not types:
        return np.full(len(cleaned), np.nan), EMPTY
    if all(issubclass(kind, str) for kind in types):
        return np.array([*cleaned, None], dtype=object)[:-1], TEXT
    if all(issubclass(kind, bool | int | float | np.number | np.bool_) for kind in types):
        return np.array([np.nan if value is None else float(value) for value in cleaned], dtype=np.float64), NUMBER
    raise InputError("a column must hold numbers, text or times, one of them", where=where,
                     got=sorted(kind.__name__ for kind in types), remedy="Convert it to one of them")  # fmt: skip


def _as_kind(column: Column, kind: str, fitted_kind: str, where: str) -> Column:
    """A column as the kind it had when fitted; one without any value fits every kind."""
    if kind == fitted_kind:
        return column
    if kind == EMPTY or np.isnan(column.astype(float) if kind == NUMBER else [0.0]).all():
        if fitted_kind == TEXT:
            return np.full(column.size, None, dtype=object)
        return (
            np.full(column.size, np.nan) if fitted_kind == NUMBER else np.full(column.size, np.datetime64("NaT", "us"))
        )
    raise InputError(f"the column must hold {fitted_kind}s, as when it was fitted", where=where, got=kind,
                     remedy="Convert it, or fit again")  # fmt: skip


def is_missing(column: Column) -> NDArray[np.bool_]:
    """Where a column is null."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind == "M":
        return np.isnat(column)
    if column.dtype == object:
        return np.fromiter((value is None for value in column), dtype=bool, count=column.size)
    raise InternalError("a column must come from read_table", where="table", got=str(column.dtype),
                        remedy="Report it with the type of the table")  # fmt: skip


def value_of(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Value of one column of a row."""
    try:
        return row[name]
    except KeyError:
        raise InputError("a row must have every column", where=f"{where}, one row", got=f"no {name}",
                         remedy="Send null if it is not known") from None  # fmt: skip


def check_value(value: Any, kind: str, where: str) -> Any:
    """A value that is there, of the kind of its column; a number as a float."""
    if kind == NUMBER:
        if not isinstance(value, bool | int | float | np.number | np.bool_):
            raise InputError("the column must hold numbers, as when it was fitted", where=where,
                             got=type(value).__name__, remedy="Send a number or null")  # fmt: skip
        if abs(number := float(value)) == np.inf:
            raise InputError("numbers must be finite or missing", where=where, got="an infinity",
                             remedy="Send a number or null")  # fmt: skip
        return number
    if kind == TEXT and not isinstance(value, str):
        raise InputError("the column must hold texts, as when it was fitted", where=where, got=type(value).__name__,
                         remedy="Send text or null")  # fmt: skip
    return value


def check_kind(body: Mapping[str, Any], kind: str, where: str) -> None:
    """Refuse a stored estimator of another kind."""
    if body.get("kind") != kind:
        raise IntegrityError(f"a stored estimator must be of kind {kind!r}", where=where, got=body.get("kind"),
                             remedy="Pass what to_dict returned")  # fmt: skip
