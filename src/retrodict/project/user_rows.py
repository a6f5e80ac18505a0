"""Rows as a user has them: a frame of pandas, Polars or Arrow, a relation of DuckDB, a file, a table of the project.

The engines read Arrow. Here a frame becomes Arrow once, only the columns that are needed, and new columns go back into
the frame that came: index, order and all other columns stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError, check_known
from retrodict.core.lazy import lazy_modules

if TYPE_CHECKING:
    import narwhals as nw
    import pyarrow as pa

    from retrodict.data import readers
else:
    (readers,) = lazy_modules("retrodict.data", "readers")

__all__ = ["UserRows"]

_REMEDY = "Pass a frame of pandas, Polars or Arrow, a relation of DuckDB, a path, or the name of a table"


class UserRows:
    """Rows of a user, readable as Arrow, that take new columns.

    Parameters
    ----------
    source : frame, path or str
    noun : str
        What to call the rows in errors: ``spine``, ``keys``.

    Attributes
    ----------
    where : str
        The noun, and of a file its path.
    columns : list of str or None
        Names of the columns; None for a file or table, which is not opened here.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = UserRows(pa.table({"id": [1, 2], "note": ["a", "b"]}), "spine")
    >>> rows.read(["id"]).column_names
    ['id']
    >>> rows.append(pa.table({"seen": [7, 8]})).column_names
    ['id', 'note', 'seen']
    """

    def __init__(self, source: Any, noun: str) -> None:
        self._source = source
        self.where = f"{noun} {source}" if isinstance(source, str | Path) else noun
        self._frame: nw.DataFrame[Any] | None = None
        self._readable: nw.DataFrame[Any] | None = None
        self._lazy = False
        self.columns: list[str] | None = None
        if not isinstance(source, str | Path):
            self._open()

    def _open(self) -> None:
        import narwhals as nw
        import pyarrow as pa
        from narwhals.exceptions import NarwhalsError

        source = self._source
        try:
            frame = nw.from_native(source, pass_through=hasattr(source, "__arrow_c_stream__"))
            if frame is source:  # rows in Arrow's format that are no frame, such as a reader
                frame = nw.from_native(pa.table(source))
            names = list(frame.columns)
        except NarwhalsError:
            raise self._error("every column must have a name of its own", "Rename the columns") from None
        except (TypeError, pa.ArrowException):  # a series gives an Arrow stream, too, but no columns
            raise self._error("rows must be a frame, a path or the name of a table", _REMEDY) from None
        if not all(isinstance(name, str) for name in names):
            raise self._error("the names of a frame's columns must be text", "Rename the columns")
        kind, self._lazy = frame.implementation, isinstance(frame, nw.LazyFrame)
        eager = kind.is_pandas_like() or kind.is_pyarrow()
        if not (kind.is_polars() or (kind.is_duckdb() if self._lazy else eager)):
            raise self._error("rows must be a frame, a path or the name of a table", _REMEDY)
        if isinstance(frame, nw.LazyFrame):
            frame = frame.collect("polars" if kind.is_polars() else "pyarrow")
        self._frame, self._readable = frame, _with_index(frame)
        self.columns = self._readable.columns

    def _error(self, rule: str, remedy: str) -> InputError:
        return InputError(rule, where=self.where, got=type(self._source).__name__, remedy=remedy)

    def read(self, needed: Sequence[str] = (), added: Sequence[str] = (), *, every_column: bool = False) -> Any:
        """Return columns as an Arrow table; a path or name is returned as it is, for whoever opens it.

        Parameters
        ----------
        needed : sequence of str
            Columns that a frame must have: only these are read.
        added : sequence of str
            Columns that will be appended: a frame must not have them.
        every_column : bool
            Read all columns.

        Raises
        ------
        InputError
            If a column is missing or in the way, or if its values are of several kinds.
        """
        import pyarrow as pa

        if self.columns is None or self._readable is None:
            return self._source
        rule = "the rows must have every key, time and input of the features"
        for name in needed:
            check_known(name, self.columns, rule, where=self.where, what="column", error=InputError)
        for name in added:
            if name in self.columns:
                raise InputError("the rows must have no column with the name of a feature or outcome",
                                 where=self.where, got=name, remedy="Drop or rename the column")  # fmt: skip
        columns: dict[str, pa.ChunkedArray | pa.Array[Any]] = {}
        for name in dict.fromkeys(self.columns if every_column or not needed else needed):
            try:
                columns[name] = self._readable.get_column(name).to_arrow()
            except (pa.ArrowException, OverflowError, TypeError, ValueError):  # its text quotes the value
                raise InputError("the values of a column must be of one kind",
                                 where=f"{self.where}, column {name!r}", got=str(self._readable.schema[name]),
                                 remedy="Convert the column") from None  # fmt: skip
        return pa.table(columns)

    def read_table(
        self, needed: Sequence[str] = (), added: Sequence[str] = (), *, every_column: bool = False
    ) -> pa.Table:
        """Return columns as :meth:`read` does, those of a file too; its columns of CSV are text."""
        source = self.read(needed, added, every_column=every_column)
        return readers.read_batch(source, format="csv" if isinstance(source, str) and source == "-" else None).rows

    def append(self, columns: pa.Table) -> Any:
        """Return the rows with new columns, as a frame of the kind that came; Arrow for a path or name.

        Parameters
        ----------
        columns : pyarrow.Table
            One row per row of the frame, in its order.
        """
        import narwhals as nw

        if self._frame is None:
            return columns
        added = nw.from_arrow(columns, backend=self._frame.implementation)
        result = self._frame.with_columns(*added.iter_columns())
        if not self._lazy:
            return result.to_native()
        return result.lazy().to_native() if result.implementation.is_polars() else self._relate(result.to_native())

    def _relate(self, retrodict_rows: pa.Table) -> Any:  # noqa: ARG002  # DuckDB finds it by its name
        """Return rows as a relation of the connection that the relation which came belongs to."""
        return self._source.query("retrodict_spine", "SELECT * FROM retrodict_rows")


def _with_index(frame: nw.DataFrame[Any]) -> nw.DataFrame[Any]:
    """Frame with the named levels of a pandas index as columns: keys often stand there."""
    import narwhals as nw

    if not frame.implementation.is_pandas_like():
        return frame
    native = frame.to_native()
    names = list(native.index.names)
    if None in names or set(names) & set(frame.columns):
        return frame
    return nw.from_native(native.reset_index(), eager_only=True)
