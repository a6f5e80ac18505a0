"""``diff``: what is different between two versions, of one table or of two.

Schema first, then rows by key, then the statistics of columns. Nothing is read into Python but counts, a few keys and
a sample: the work is one DuckDB join that spills to disk, over the data files that the two versions do not share.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from retrodict.core.display import Block, Facts, Grid, Shown, count, number, plain
from retrodict.core.errors import InputError, IntegrityError
from retrodict.data.definitions import Table
from retrodict.data.versions._columns import ColumnChange, Columns, pair_columns
from retrodict.data.versions._compare import Counts, Sides, compare, differences, make_view
from retrodict.data.versions._engine import memory_bytes, open_engine, scan
from retrodict.data.versions.refs import DatasetRef, resolve
from retrodict.data.versions.statistics import ColumnStatistics, compare_statistics
from retrodict.stores.sql import quote, quote_text
from retrodict.workspace import Workspace

__all__ = ["Diff", "diff"]

_MOST_PARTS = 16  # more passes would take longer than spilling
_FORMATS = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER"}


@dataclass(frozen=True, slots=True, repr=False)
class Diff(Shown):
    """What is different between two versions.

    Attributes
    ----------
    before, after : DatasetRef
    rows : (int, int)
        Rows of the two versions.
    schema : tuple of ColumnChange
    key : tuple of str
        What identified a row; empty if rows were compared as bags.
    by : str
        How rows were compared, in words.
    added, removed, changed : int
        Rows; of a bag, each occurrence counts. ``rows[1] = rows[0] + added - removed``, always.
    changed_by_column : dict of str to int
        Changed rows in which that column differs.
    repeated_keys : int
        Keys that stand for more than one row of a version and differ; their rows were compared as bags.
    not_compared : tuple of str
        Columns of both versions whose types have no common one.
    sample : tuple of dict
        The first ten differences of each kind, by key: ``change``, ``key`` and (changed) ``columns``, or ``row`` and
        ``count`` for bags. Values of the data: not for a log.
    statistics : tuple of ColumnStatistics
        One per compared column; empty if no row differs.
    files_shared : int
        Data files that both versions hold, which were not compared.
    output : str or None
        File with the differences.
    """

    before: DatasetRef
    after: DatasetRef
    rows: tuple[int, int]
    schema: tuple[ColumnChange, ...]
    key: tuple[str, ...]
    by: str
    added: int
    removed: int
    changed: int
    changed_by_column: dict[str, int]
    repeated_keys: int
    not_compared: tuple[str, ...]
    sample: tuple[dict[str, Any], ...]
    statistics: tuple[ColumnStatistics, ...]
    files_shared: int
    output: str | None = None

    @property
    def same(self) -> bool:
        """Whether neither schema nor rows differ."""
        return not (self.schema or self.added or self.removed or self.changed)

    @property
    def moved(self) -> list[ColumnStatistics]:
        """Columns whose statistics moved."""
        return [one for one in self.statistics if one.moved]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return Shown.to_dict(self) | {
            "before": str(self.before),
            "after": str(self.after),
            "same": self.same,
            "rows": {"before": self.rows[0], "after": self.rows[1]},
            "changed_by_column": {name: n for name, n in self.changed_by_column.items() if n},
        }

    def blocks(self) -> Sequence[Block | None]:
        """Counts, then schema, columns, statistics and the first differences, where there are any."""
        head = f"{self.before.short} -> {self.after.short}"
        if self.same:
            return [f"{head}: the same {count(self.rows[0])} rows, {self.by}."]
        schema = [(change.column, change.change, change.before, change.after) for change in self.schema]
        columns = sorted(((name, n) for name, n in self.changed_by_column.items() if n), key=lambda pair: -pair[1])
        return [
            f"{head}, {self.by}",
            Facts({
                "rows": f"{count(self.rows[0])} -> {count(self.rows[1])}",
                "added": self.added, "removed": self.removed, "changed": self.changed,
                "repeated keys": self.repeated_keys or None,
                "not compared": ", ".join(self.not_compared) or None,
                "written to": self.output,
            }),
            Grid(("column", "change", "before", "after"), schema, "schema") if schema else None,
            Grid(("column", "changed rows>"), columns, "changes by column") if columns else None,
            _statistics_grid(self.moved) if self.moved else None,
            Grid(("change", "row", "columns"), list(map(_difference, self.sample)), "first differences")
            if self.sample else None,
        ]  # fmt: skip


def _statistics_grid(columns: Sequence[ColumnStatistics]) -> Grid:
    def pair(values: tuple[float | None, float | None] | tuple[int, int] | None) -> str:
        return "-" if values is None else " -> ".join(
            count(value) if isinstance(value, int) else number(value) for value in values
        )  # fmt: skip

    rows = [(c.column, c.moved, pair(c.nulls), pair(c.mean), pair(c.std), pair(c.distinct), c.psi) for c in columns]
    headings = ("column", "moved", "nulls", "mean", "std?", "distinct?", "psi>")
    return Grid(headings, rows, "statistics that moved")


def _difference(sample: dict[str, Any]) -> tuple[Any, ...]:
    entry = plain(sample)
    values = entry.get("key") or entry.get("row") or {}
    text = ", ".join(f"{name}={'null' if value is None else value}" for name, value in values.items())
    times = entry.get("count", 1)
    return entry["change"], text if times == 1 else f"{text} ({times} times)", entry.get("columns")


def diff(
    workspace: Workspace,
    a: str,
    b: str,
    *,
    key: Sequence[str] | None = None,
    output: str | Path | None = None,
    rows: int | None = None,
    statistics: bool = True,
    memory: str = "1.5GB",
) -> Diff:
    """Compare two versions, of one table or of two.

    Parameters
    ----------
    workspace : Workspace
    a, b : str
        References, the older one first.
    key : sequence of str, optional
        Columns that identify a row; those of the table's definition by default. Without any, or for keys that stand
        for several rows, rows are compared as bags.
    output : path, optional
        ``.parquet`` or ``.csv`` file for the differences: ``_change`` (added, removed, changed), ``_columns`` (which
        differ), ``_count`` (occurrences), the key, and each other column as ``x__before`` and ``x__after``.
    rows : int, optional
        Most differences that the file gets, by key; all by default.
    statistics : bool, default True
        Whether to look for columns whose statistics moved: two more scans.
    memory : str, default "1.5GB"
        Limit of the engine's memory; beyond it, it uses files under ``state/temp`` of the project.

    Returns
    -------
    Diff

    Raises
    ------
    NotFoundError
        If a reference means nothing, or the version was vacuumed.
    InputError
        If the key is not in both, or the format of the output is not known.
    IntegrityError
        If data files are damaged or hold fewer rows than the log says.
    ConfigurationError
        If memory and disk do not suffice.

    Notes
    -----
    Null equals null, NaN equals NaN, -0.0 equals 0.0. The columns ``_batch`` and ``_row`` are not compared. A column of
    two types is compared in the one that holds all values of both, if there is one.
    """
    refs = resolve(workspace, a), resolve(workspace, b)
    target = None if output is None else _check_output(Path(output))
    versions = [_Version.of(workspace, ref) for ref in refs]
    columns = pair_columns(versions[0].schema, versions[1].schema)
    key_columns, by = _choose_key(workspace, refs, columns, key)
    # A data file never changes, so those that both versions hold need no comparison.
    shared = set(versions[0].files) & set(versions[1].files) if refs[0].name == refs[1].name else set()
    totals = versions[0].count(set()), versions[1].count(set())
    with open_engine(workspace, memory) as connection:
        counts, sides = Counts(), None
        reader = _Reader(workspace, connection, columns)
        if columns.shared:
            sides = _open_sides(reader, versions, key_columns, shared)
            sides.parts = _parts(columns, max(sides.rows), memory)
            counts = compare(sides)
        if totals[0] + counts.added - counts.removed != totals[1] and columns.shared:
            raise IntegrityError(
                "rows after must be rows before + added - removed",
                where="diff",
                got={"rows": totals, "added": counts.added, "removed": counts.removed},
                remedy="Find the damaged file with: retrodict audit verify",
            )
        measured: list[ColumnStatistics] = []
        if statistics and (counts.added or counts.removed or counts.changed):
            for name, version in zip(("whole_a", "whole_b"), versions, strict=True):
                reader.view(name, version, set(version.files))
            measured = compare_statistics(connection, columns.shared, key_columns, totals)
        if target is not None and sides is not None:
            _write(connection, sides, target, rows)
    return Diff(
        before=refs[0],
        after=refs[1],
        rows=totals,
        schema=tuple(columns.changes),
        key=tuple(key_columns),
        by=by,
        **asdict(counts) | {"sample": tuple(counts.sample)},
        not_compared=tuple(c.column for c in columns.changes if c.before and c.after and not c.compared),
        statistics=tuple(measured),
        files_shared=len(shared),
        output=None if target is None else str(target),
    )


@dataclass(frozen=True, slots=True)
class _Version:
    """A version, its columns, and the rows of its files by path."""

    ref: DatasetRef
    schema: pa.Schema
    files: dict[str, int]

    @classmethod
    def of(cls, workspace: Workspace, ref: DatasetRef) -> _Version:
        files = workspace.tables.files(ref.name, ref.version)
        return cls(ref, workspace.tables.schema(ref.name, ref.version), {file.path: file.rows for file in files})

    def count(self, without: set[str]) -> int:
        """Rows of all files but some."""
        return sum(rows for path, rows in self.files.items() if path not in without)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes views over files of versions, of the columns that are compared."""

    workspace: Workspace
    connection: duckdb.DuckDBPyConnection
    columns: Columns

    def view(self, name: str, version: _Version, paths: set[str], names: list[str] | None = None) -> None:
        """Let a name stand for some files of a version."""
        data: ds.Dataset | pa.Table = version.schema.empty_table()
        if paths:
            listed = [path for path in version.files if path in paths]
            data = self.workspace.tables.dataset(version.ref.name, version.ref.version, paths=listed)
        rows = scan(self.connection, f"{name}_files", data)
        make_view(self.connection, name, f"SELECT {self.columns.selection(version.schema, names)} FROM {rows}")


def _choose_key(
    workspace: Workspace,
    refs: tuple[DatasetRef, DatasetRef],
    columns: Columns,
    names: Sequence[str] | None,
) -> tuple[list[str], str]:
    """Key columns, and how rows are compared in words."""
    if names is not None:
        missing = [name for name in names if name not in columns.shared]
        if missing or len(set(names)) < len(names):
            raise InputError(
                "a key must name columns, once each, that both versions have in types that can be compared",
                where=f"diff {refs[0].short} {refs[1].short}",
                got=missing or list(names),
                remedy=f"Columns of both: {', '.join(columns.shared) or 'none'}",
            )
        key = list(names)
        return key, f"by key {', '.join(key)}" if key else "as bags of rows: no key was given"
    defined = {table.name: list(table.key) for table in workspace.definitions.of(Table)}
    key = next((defined[ref.name] for ref in refs if defined.get(ref.name)), [])
    if not key:
        return [], f"as bags of rows: no definition gives {refs[0].name} a key"
    missing = [name for name in key if name not in columns.shared]
    if missing:
        return [], f"as bags of rows: key column {missing[0]} is not in both, in types that can be compared"
    return key, f"by key {', '.join(key)}"


def _open_sides(reader: _Reader, versions: list[_Version], key: list[str], shared: set[str]) -> Sides:
    left = [set(version.files) - shared for version in versions]
    for name, version, paths in zip(("a", "b"), versions, left, strict=True):
        reader.view(name, version, paths)
    overlap = bool(key and shared and any(left))
    if overlap:
        reader.view("shared", versions[0], shared, names=key)
    kinds = reader.columns.shared
    exact = not any(pa.types.is_floating(kinds[name]) or pa.types.is_nested(kinds[name]) for name in key)
    rows = versions[0].count(shared), versions[1].count(shared)
    return Sides(reader.connection, list(kinds), key, rows, overlap, exact_keys=exact)


def _parts(columns: Columns, rows: int, memory: str) -> int:
    """Passes in which one side of the join, by a rough estimate of its width, takes 60 % of the memory at most."""
    # A row of the join's table: its hash, its place, and 16 bytes for what has no fixed width.
    width = 24.0
    for kind in columns.shared.values():
        fixed = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
        width += kind.bit_width / 8 if fixed else 16
    return min(_MOST_PARTS, max(1, math.ceil(rows * width / (0.6 * memory_bytes(memory)))))


def _check_output(path: Path) -> Path:
    if path.suffix not in _FORMATS or not path.parent.is_dir():
        raise InputError(
            "the differences must go to a .parquet or .csv file in a folder that exists",
            where="diff, output",
            got=str(path),
            remedy="Write it like 'changes.parquet'",
        )
    return path


def _write(connection: duckdb.DuckDBPyConnection, sides: Sides, path: Path, rows: int | None) -> None:
    """Write the differences under another name first: the file is whole or not there."""
    sql = differences(sides)
    if sql is None:
        names = "".join(f", {quote(name)}" for name in sides.key)
        sql = f"SELECT '' AS _change, '' AS _columns, CAST(0 AS BIGINT) AS _count{names} FROM a LIMIT 0"
    limit = "" if rows is None or sql.endswith("LIMIT 0") else f" LIMIT {int(rows)}"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        connection.execute(f"COPY ({sql}{limit}) TO {quote_text(str(draft))} ({_FORMATS[path.suffix]})")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
