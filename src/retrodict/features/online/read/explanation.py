"""Which events a value is made of: their ids, read from a block in which everything is visible."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrodict.features.facts.columns import Mask
from retrodict.features.online.state.blocks import Block, Shape, event_ids, flag_of
from retrodict.features.plan import Output, ViewPlan


def explained(plan: ViewPlan, shape: Shape, block: Block, at: int) -> dict[str, list[Any]]:
    """Sequence ids behind each feature of a view, in the order of the events."""
    rows = block.single()
    ids = event_ids(block.layout, rows, block.heap).tolist()
    events: dict[str, list[Any]] = {}
    for output in plan.outputs:
        if output.op == "latest":
            fresh = len(rows) and (output.max_age is None or at - int(rows[-1, 0]) <= output.max_age)
            events[output.column] = ids[-1:] if fresh else []
        else:
            window = plan.windows[output.window]
            inside = (
                (rows[:, 0] >= window.start(at)) & (rows[:, 0] < window.end(at)) & _counted(plan, shape, block, output)
            )
            events[output.column] = [ids[place] for place in np.flatnonzero(inside).tolist()]
    return events


def _counted(plan: ViewPlan, shape: Shape, block: Block, output: Output) -> Mask:
    """Events that give something to a feature."""
    layout, rows = block.layout, block.single()
    if not output.bag:
        # The last channel of every aggregate counts the events its value is made of.
        counts: Mask = rows[:, layout.first_running + shape.column_of[output.parts[-1]]] != 0
        return counts
    bag = plan.bags[output.parts[0]]
    flags = [shape.kept.index(column) for column in bag.columns]
    if bag.where is not None:
        flags.append(len(shape.kept) + shape.conditions.index(bag.where))
    counted = np.ones(len(rows), dtype=np.bool_)
    for flag in flags:
        counted &= flag_of(layout, rows, flag)
    return counted
