"""Partitions of a state: which events of a batch belong to which, by a hash of their keys.

A partition has its own offset, so a batch is cut into partitions before anything else is done with it: what belongs to
others is neither lifted nor merged. The hash is CRC-32 of the encoded key, which is the same in every process, on every
machine and in every version; Python's own is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from retrodict.features.facts.columns import Ints, pick
from retrodict.features.facts.events import Events, read_events
from retrodict.features.facts.keys import KeyIndex, encode_key
from retrodict.features.online.write.records import plain_time, tabulate
from retrodict.features.plan import ViewPlan

__all__ = ["partitions_of", "split"]

_WHOLE_NUMBER = crc32(b"i\0\x08")  # how the encoded key of one whole number begins


def split(
    plan: ViewPlan,
    events: pa.Table | Sequence[Mapping[str, Any]],
    partitions: int,
    numbers: Sequence[int],
    first_position: int,
) -> Iterator[tuple[int, int, Events]]:
    """Cut a batch into partitions.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    events : pyarrow.Table or sequence of mapping
        The batch.
    partitions : int
        How many there are.
    numbers : sequence of int
        Which of them to read.
    first_position : int
        Position of the first event of the batch, for a source without a sequence.

    Yields
    ------
    tuple of (int, int, Events)
        Partition, number of its events, and the events that can be visible.
    """
    if partitions == 1:
        yield 0, len(events), read_events(plan, events, first_position=first_position)
        return
    # One table for all: the type of a column must not depend on which of the events a partition got, if any.
    if isinstance(events, pa.Table):
        table = events.select([name for name in plan.source_columns if name in events.column_names])
    else:
        columns = {name: [plain_time(row.get(name)) for row in events] for name in plan.source_columns}
        table = tabulate(plan.source, columns)
    place = partitions_of(plan, table, partitions)
    for partition in numbers:
        rows = np.flatnonzero(place == partition)
        visible = read_events(plan, table.take(pa.array(rows)))
        if plan.source.sequence is None:  # positions are those in the whole stream
            ids = first_position + rows[visible.row]
            visible = replace(visible, sequence=ids, order=ids)
        yield partition, len(rows), visible


def partitions_of(plan: ViewPlan, table: pa.Table, partitions: int) -> Ints:
    """Partition of each event of a table; those without a key are in the first."""
    where = f"{plan.where}, source {plan.source.name!r}"
    index = KeyIndex([pick(table, key, where=where) for key in plan.keys], where=where)
    distinct = index.distinct()
    if len(distinct) == 1 and pa.types.is_int64(distinct[0].type):
        packed = distinct[0].to_numpy().astype(">i8").tobytes()
        hashes = [crc32(packed[start : start + 8], _WHOLE_NUMBER) for start in range(0, len(packed), 8)]
    else:
        values = zip(*[column.to_pylist() for column in distinct], strict=True)
        hashes = [crc32(encode_key(value, where=where) or b"") for value in values]
    partition_of_code = np.append(np.array(hashes, dtype=np.int64) % partitions, 0)
    place: Ints = partition_of_code[np.asarray(index.codes)]  # a key that is null has the code -1: the last entry
    return place
