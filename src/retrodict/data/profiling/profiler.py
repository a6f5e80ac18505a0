"""``profile``: two passes over the rows in blocks, and a sample of rows for correlations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.core.kinds import column_word
from retrodict.data.profiling._rows import ProfiledRows, open_rows
from retrodict.data.profiling._tally import ColumnTally
from retrodict.data.profiling._together import MissingTally, OrderTally, RepeatTally, correlate, key_candidates
from retrodict.data.profiling.profile import Profile

__all__ = ["profile", "profile_rows"]

_HASHED = ("bool", "date", "float", "int", "string", "time")


def profile(source: Any, *, name: str | None = None, top: int = 10, sample: int = 50_000, seed: int = 0) -> Profile:
    """Profile rows of any number in bounded memory.

    Counts, extremes, moments, histograms, missing patterns and keys are of all rows. Quantiles are exact up to 262,144
    values and carry a proven rank error beyond; distinct values are counted up to 20,000 and estimated beyond;
    correlations and the shapes of texts are of a sample of rows, whose size the profile states.

    Parameters
    ----------
    source : pyarrow.Table, Batch, (workspace, "table@ref"), path, list of paths, frame
        ``open_batch`` says what else can be read. System columns of a table are left out.
    name : str, optional
        Of the table; by default that of the table or of the file.
    top : int, default 10
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
    >>> facts = profile(pa.table({"id": [1, 2, 3], "origin": ["JFK", "EWR", None]}))
    >>> facts.rows, facts["origin"].nulls, facts.keys
    (3, 1, (('id',),))
    """
    if top < 1 or sample < 1:
        raise InputError(
            "a profile must show and sample at least one", where="profile", got=(top, sample),
            remedy="Pass most=10 and sample=50_000, or leave them out",
        )  # fmt: skip
    with open_rows(source, name=name) as rows:
        return profile_rows(rows, top=top, sample=sample, seed=seed)


def profile_rows(rows: ProfiledRows, *, top: int = 10, sample: int = 50_000, seed: int = 0) -> Profile:
    """Profile rows that are open already."""
    schema, size = rows.typed.schema, rows.batch.num_rows
    kinds = {field.name: column_word(field.type) for field in schema}
    hashed = [name for name, kind in kinds.items() if kind in _HASHED]
    tallies = [ColumnTally(name, rows.batch.schema.field(name).type, kind) for name, kind in kinds.items()]
    missing, orders = MissingTally(schema.names), OrderTally(kinds)
    repeats = RepeatTally(schema.names, possible=len(hashed) == len(kinds))
    drawn = _Sample(size, sample, seed)
    for block in map(_decoded, rows.typed.batches()):
        missing.add([tally.add(column) for tally, column in zip(tallies, block.columns, strict=True)])
        orders.add(block)
        repeats.add(block)
        drawn.add(block)
    picked = drawn.table(block.schema if size else schema)
    facts = [tally.finish(picked.column(tally.name).combine_chunks(), top=top) for tally in tallies]
    keys = tuple((column.name,) for column in facts if column.unique)
    candidates = key_candidates(facts, picked, size) if size > 1 and not keys else []
    pairs = list(map(RepeatTally, candidates))
    placed = [tally for tally in tallies if tally.frame()]
    if placed or pairs:
        for block in map(_decoded, rows.typed.batches()):
            for tally in placed:
                tally.place(block.column(tally.name))
            for pair in pairs:
                pair.add(block)
    facts = [replace(column, histogram=tally.histogram) for column, tally in zip(facts, tallies, strict=True)]
    return Profile(
        rows.name, rows.origin, size, tuple(facts), repeats.finish(),
        keys or tuple(pair.columns for pair in pairs if pair.finish() == 0), correlate(facts, picked, seed=seed),
        missing.finish(), orders.finish(), rows.inferred, rows.zoneless,
    )  # fmt: skip


def _decoded(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Columns without dictionaries; decimals as floats, as checks see them."""
    columns = []
    for column in rows.columns:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        columns.append(plain.cast(pa.float64()) if pa.types.is_decimal(plain.type) else plain)
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


class _Sample:
    """Rows at places drawn beforehand: uniform without replacement, whatever the blocks."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        places = np.arange(rows) if rows <= size else np.random.default_rng(seed).choice(rows, size, replace=False)
        self._places = np.sort(places)
        self._begin, self._parts = 0, list[pa.RecordBatch]()

    def add(self, block: pa.RecordBatch) -> None:
        """Take the rows of one block, in order."""
        first, last = np.searchsorted(self._places, [self._begin, self._begin + block.num_rows])
        if last > first:
            self._parts.append(block.take(pa.array(self._places[first:last] - self._begin)))
        self._begin += block.num_rows

    def table(self, schema: pa.Schema) -> pa.Table:
        """Sampled rows, in order."""
        return pa.Table.from_batches(self._parts, schema=schema)
