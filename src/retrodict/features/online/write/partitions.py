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

from retrodict.features.facts.columns import Ints
from retrodict.features.facts.events import Events, read_events
from retrodict.features.facts.keys import KeyIndex, key_columns
from retrodict.features.online.write.arrivals import encoded_keys
from retrodict.features.online.write.records import plain_time, tabulate
from retrodict.features.plan import ViewPlan


def split(
    plan: ViewPlan,
    events: pa.Table | Sequence[Mapping[str, Any]],
    partitions: int,
    numbers: Sequence[int],
    position: int | Ints,
) -> Iterator[tuple[int, int, Events]]:
    """Cut a batch into partitions, of which ``numbers`` are read.

    ``position`` is that of the first event, or those of all, for a source without a sequence. Yields of each partition
    its number, how many events it got, and those that can be visible.
    """
    # One table for all: the type of a column must not depend on which of the events a partition got, if any.
    if not isinstance(events, pa.Table) and (partitions > 1 or getattr(plan.source.table, "columns", None)):
        columns = {name: [plain_time(row.get(name)) for row in events] for name in plan.source_columns}
        events = tabulate(plan.source, columns)
    if partitions == 1:
        visible = read_events(plan, events)
        yield 0, len(events), _placed(plan, visible, visible.row, position)
        return
    assert isinstance(events, pa.Table)
    table = events.select([name for name in plan.source_columns if name in events.column_names])
    place = partitions_of(plan, table, partitions)
    for partition in numbers:
        rows = np.flatnonzero(place == partition)
        visible = read_events(plan, table.take(pa.array(rows)))
        yield partition, len(rows), _placed(plan, visible, rows[visible.row], position)


def _placed(plan: ViewPlan, events: Events, rows: Ints, position: int | Ints) -> Events:
    """Events of the rows of a batch with their positions in the whole table or stream, if nothing else names them."""
    if plan.source.sequence is not None:
        return events
    positions = position + rows if isinstance(position, int) else position[rows]
    return replace(events, sequence=positions, order=positions)


def partitions_of(plan: ViewPlan, table: pa.Table, partitions: int) -> Ints:
    """Partition of each event of a table; those without a key are in the first."""
    where = f"{plan.where}, source {plan.source.name!r}"
    index = KeyIndex(key_columns(table, plan.keys, where=where), where=where)
    hashes = [crc32(key) for key in encoded_keys(index.distinct(), where)]
    partition_of_code = np.append(np.array(hashes, dtype=np.int64) % partitions, 0)
    place: Ints = partition_of_code[np.asarray(index.codes)]  # a key that is null has the code -1: the last entry
    return place
