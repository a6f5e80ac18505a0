"""``profile``: one query of the engine, two passes over the rows in blocks, and a sample of rows for correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.core.kinds import column_word
from retrodict.data.profiling._rows import ProfiledRows, open_rows
from retrodict.data.profiling._tally import TYPES, ColumnTally, column_profile, facts_of
from retrodict.data.profiling._together import correlate, count_repeats, key_candidates, missing_patterns, time_pairs
from retrodict.data.profiling.profile import Order, Profile

__all__ = ["profile", "profile_rows"]

_HASHED = 1 << 24  # rows up to which a key is looked for: 128 MB of hashes


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
    size, schema, frame = rows.batch.num_rows, rows.typed.schema, rows.typed.frame()
    kinds = {field.name: column_word(field.type) for field in schema}
    counted, orders = _count(frame, kinds)
    tallies = [ColumnTally(name, kind) for name, kind in kinds.items()]
    drawn = pl.DataFrame(pa.Table.from_batches(_sample(rows.typed.batches(), size, sample, seed, tallies), schema))
    missing = {name: facts["nulls"] + facts.get("nans", 0) for name, facts in counted.items()}
    unique = {tally.name: _never_repeats(frame, tally, missing[tally.name], size) for tally in tallies}
    columns = [
        column_profile(
            tally, counted[tally.name], drawn[tally.name], rows=size, arrives=rows.batch.schema.field(tally.name).type,
            unique=unique[tally.name], top=top,
        )
        for tally in tallies
    ]  # fmt: skip
    placed = [tally for tally in tallies if tally.frame(*map(counted[tally.name].get, ("minimum", "maximum")))]
    for block in rows.typed.batches() if placed else ():
        for tally in placed:
            tally.place(block.column(tally.name))
    columns = [replace(column, histogram=tally.histogram) for column, tally in zip(columns, tallies, strict=True)]
    keys: list[tuple[str, ...]] = [(name,) for name, holds in unique.items() if holds]
    if not keys and 1 < size <= _HASHED:
        keys = [names for names in key_candidates(columns, drawn, size) if not count_repeats(frame, names)]
    hashable = size <= _HASHED and all(kind in TYPES for kind in kinds.values())
    floats = [name for name, kind in kinds.items() if kind == "float"]
    patterns = missing_patterns(frame.with_columns(pl.col(floats).fill_nan(None)), missing, size)
    return Profile(
        rows.name, rows.origin, size, tuple(columns), count_repeats(frame, schema.names) if hashable else None,
        tuple(keys), correlate(columns, drawn, seed=seed), patterns, orders, rows.inferred, rows.zoneless,
    )  # fmt: skip


def _count(frame: pl.LazyFrame, kinds: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], tuple[Order, ...]]:
    """Facts of every column by name, and how often which of two times comes first, by one query."""
    facts = {name: facts_of(name, kind) for name, kind in kinds.items()}
    queries = [count.alias(f"{fact} {name}") for name, counts in facts.items() for fact, count in counts.items()]
    pairs = time_pairs(kinds)
    for place, (left, right) in enumerate(pairs):
        a, b = pl.col(left), pl.col(right)
        queries += [
            test.sum().alias(f"order {place} {sign}") for sign, test in (("<", a < b), ("=", a == b), (">", a > b))
        ]
    row = frame.select(queries).collect(engine="streaming").row(0, named=True) if queries else {}
    counted = {name: {fact: row[f"{fact} {name}"] for fact in counts} for name, counts in facts.items()}
    return counted, tuple(
        Order(*pair, *(row[f"order {place} {sign}"] for sign in "<=>")) for place, pair in enumerate(pairs)
    )


def _never_repeats(frame: pl.LazyFrame, tally: ColumnTally, missing: int, rows: int) -> bool:
    """Whether no value of a column is missing or repeats; asked of the rows only where a sketch leaves it open."""
    if missing or not 1 < rows <= _HASHED or tally.kind not in ("int", "time", "date", "string"):
        return False
    distinct, exact = tally.distinct
    return distinct == rows if exact else distinct > 0.9 * rows and not count_repeats(frame, [tally.name])


def _sample(
    blocks: Iterable[pa.RecordBatch], rows: int, size: int, seed: int, tallies: Sequence[ColumnTally]
) -> list[pa.RecordBatch]:
    """Read the rows once: every block is tallied, and rows at places drawn beforehand are kept, whatever the blocks."""
    places = np.arange(rows) if rows <= size else np.random.default_rng(seed).choice(rows, size, replace=False)
    places, begin, parts = np.sort(places), 0, []
    for block in blocks:
        for tally, column in zip(tallies, block.columns, strict=True):
            tally.add(column)
        first, last = np.searchsorted(places, [begin, begin + block.num_rows])
        parts.append(block.take(pa.array(places[first:last] - begin)))
        begin += block.num_rows
    return parts
