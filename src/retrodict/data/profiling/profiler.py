"""``profile``: two passes over the rows in blocks, and a sample of rows for what goes together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.core.kinds import column_word
from retrodict.data.profiling._between import (
    KeyTally,
    MissingTally,
    OrderTally,
    RepeatTally,
    correlate,
    key_candidates,
)
from retrodict.data.profiling._columns import ColumnTally
from retrodict.data.profiling._rows import Opened, open_rows
from retrodict.data.profiling.profile import ColumnProfile, Profile

__all__ = ["profile", "profile_opened"]

_HASHED = ("bool", "date", "float", "int", "string", "time")


def profile(source: Any, *, name: str | None = None, most: int = 10, sample: int = 50_000, seed: int = 0) -> Profile:
    """Profile rows of any number in bounded memory.

    Counts, extremes, moments, histograms, missing patterns and keys are of all rows. Quantiles are exact up to 262,144
    values and carry a proven rank error beyond; distinct values are counted up to 20,000 and estimated beyond;
    correlations and the shapes of texts are of a sample of rows, whose size the profile states.

    Parameters
    ----------
    source : pyarrow.Table, Batch, (project, "table@ref"), path, list of paths, frame
        ``open_batch`` says what else can be read. System columns of a table are left out.
    name : str, optional
        Of the table; by default that of the table or of the file.
    most : int, default 10
        Top values and shapes per column at most.
    sample : int, default 50_000
        Rows of the sample, drawn without replacement.
    seed : int, default 0
        Of the sample.

    Raises
    ------
    InputError
        If the source cannot be read, or the sizes are not positive.

    Examples
    --------
    >>> found = profile(pa.table({"id": [1, 2, 3], "origin": ["JFK", "EWR", None]}))
    >>> found.rows, found["origin"].nulls, found.keys
    (3, 1, (('id',),))
    """
    if most < 1 or sample < 1:
        raise InputError("a profile shows and samples at least one", where="profile", got=(most, sample))
    with open_rows(source, name=name) as opened:
        return profile_opened(opened, most=most, sample=sample, seed=seed)


def profile_opened(opened: Opened, *, most: int = 10, sample: int = 50_000, seed: int = 0) -> Profile:
    """Profile rows that are open already."""
    schema = opened.typed.schema
    kinds = {field.name: column_word(field.type) for field in schema}
    arrives = opened.batch.schema
    tallies = [ColumnTally(name, arrives.field(name).type, kind) for name, kind in kinds.items()]
    missing, orders = MissingTally(schema.names), OrderTally(kinds)
    repeats = RepeatTally(possible=all(kind in _HASHED for kind in kinds.values()))
    drawn = _Sample(opened.batch.num_rows, sample, seed, schema)
    for rows in opened.typed.batches():
        block = _decoded(rows)
        missing.add([tally.add(column) for tally, column in zip(tallies, block.columns, strict=True)])
        orders.add(block)
        repeats.add(pl.DataFrame(block))
        drawn.add(block)
    picked = drawn.table(block.schema if opened.batch.num_rows else schema)
    facts = [tally.finish(picked.column(tally.name).combine_chunks(), most=most) for tally in tallies]
    single = tuple((column.name,) for column in facts if column.unique)
    tried = [] if single else [KeyTally(key) for key in _composite(facts, picked, opened.batch.num_rows)]
    placed = [tally for tally in tallies if tally.frame()]
    if placed or tried:
        for rows in opened.typed.batches():
            block = _decoded(rows)
            for tally in placed:
                tally.place(block.column(tally.name))
            for key in tried:
                key.add(pl.DataFrame(block.select(list(key.columns))))
    facts = [replace(fact, histogram=tally.histogram) for fact, tally in zip(facts, tallies, strict=True)]
    return Profile(
        opened.name, opened.origin, opened.batch.num_rows, tuple(facts), repeats.finish(),
        single or tuple(key.columns for key in tried if key.holds), correlate(facts, picked, seed=seed),
        missing.finish(), orders.finish(), opened.inferred, opened.zoneless,
    )  # fmt: skip


def _composite(facts: list[ColumnProfile], picked: pa.Table, rows: int) -> list[tuple[str, ...]]:
    hashable = [column.name for column in facts if column.type in _HASHED]
    if rows < 2 or not hashable:
        return []
    return key_candidates(facts, pl.DataFrame(picked.select(hashable)), rows)


def _decoded(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Columns without dictionaries; decimals as floats, which is what checks see."""
    columns = []
    for column in rows.columns:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        columns.append(plain.cast(pa.float64()) if pa.types.is_decimal(plain.type) else plain)
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


class _Sample:
    """Rows at places drawn beforehand: uniform without replacement, whatever the blocks."""

    def __init__(self, rows: int, size: int, seed: int, schema: pa.Schema) -> None:
        places = np.arange(rows) if rows <= size else np.random.default_rng(seed).choice(rows, size, replace=False)
        self._places = np.sort(places)
        self._begin, self._parts, self._schema = 0, list[pa.RecordBatch](), schema

    def add(self, block: pa.RecordBatch) -> None:
        """One block, in order."""
        first, last = np.searchsorted(self._places, [self._begin, self._begin + block.num_rows])
        if last > first:
            self._parts.append(block.take(pa.array(self._places[first:last] - self._begin)))
        self._begin += block.num_rows

    def table(self, schema: pa.Schema) -> pa.Table:
        """All of them, in order."""
        return pa.Table.from_batches(self._parts, schema=schema)
