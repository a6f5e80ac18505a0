"""A request per row: what was decided, what the challenger would have decided, and whether the two are the same.

The table is the result of a replay of a window and of a shadow alike; reports are computed from it and from outcomes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.decisions.log import read_decisions
from retrodict.decisions.records import DecisionRecord
from retrodict.rollout.rescore import Challenger, Rescore, Rescorer
from retrodict.workspace import Workspace

__all__ = ["PAIRS", "Reproducer", "Reproduction", "outputs_of", "pairs_table", "reproduce_champion"]

_BATCH = 2_000

PAIRS = pa.schema(
    {
        "id": pa.string(), "time": pa.int64(), "key": pa.string(), "revision": pa.int64(), "model": pa.string(),
        "decision": pa.string(), "score": pa.float64(), "fallback": pa.string(), "micros": pa.float64(),
        "share": pa.float64(), "replayed__decision": pa.string(), "replayed__score": pa.float64(),
        "replayed__raw": pa.float64(), "replayed__features": pa.string(), "replayed__micros": pa.float64(),
        "replayed__error": pa.string(), "match": pa.bool_(), "reproduced": pa.bool_(),
    }
)  # fmt: skip
"""Columns of every table of pairs; outputs of other tasks (``output__…``) and groups (``by__…``) come after them.

``match``: both decide the same, null where the challenger has no answer. ``reproduced``: the original came out again
from its own version and the logged values, bit for bit; null where no model scored, or nobody tried.
"""


class Reproducer:
    """Computes logged answers again, each with the version and the policy that its record names."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._rescorers = workspace, dict[tuple[str, str, str], Rescorer]()

    def check(self, records: Sequence[DecisionRecord]) -> list[bool | None]:
        """Whether each comes out bit for bit; None where no model scored, or values it saw are masked."""
        verdicts: list[bool | None] = [None] * len(records)
        groups: dict[tuple[str, str, str], list[int]] = {}
        for place, record in enumerate(records):
            if record.model and record.features and not record.masked:
                groups.setdefault((record.artifact, record.policy_version, record.code), []).append(place)
        for key, places in groups.items():
            if key not in self._rescorers:
                challenger = Challenger.of_record(self._workspace, records[places[0]])
                self._rescorers[key] = Rescorer(self._workspace, challenger, values="logged")
            again = self._rescorers[key].rescore([records[place] for place in places])
            for place, one in zip(places, again, strict=True):
                verdicts[place] = _is_same(records[place], one)
        return verdicts


@dataclass(frozen=True, slots=True)
class Reproduction(Record):
    """Logged answers computed again.

    Attributes
    ----------
    checked, mismatches : int
        Decisions with a score, and those of which score or decision are not the same bits.
    unscored : int
        Decisions without a score, or with values that are masked: nothing to compute again.
    models : dict of str to dict
        ``checked`` and ``mismatches`` of each model version that scored.
    """

    checked: int
    mismatches: int
    unscored: int
    models: Mapping[str, Mapping[str, int]]


def reproduce_champion(workspace: Workspace, policy: str) -> Reproduction:
    """Compute all logged answers of a policy again, each with the version and the policy that its record names."""
    reproducer, counts = Reproducer(workspace), Counter[tuple[str, bool | None]]()
    logged = (one.record for one in read_decisions(workspace, policy=policy))
    while records := list(islice(logged, _BATCH)):
        counts.update((record.model, same) for record, same in zip(records, reproducer.check(records), strict=True))
    names = sorted({model for model, same in counts if same is not None})
    models = {name: {"checked": counts[name, True] + counts[name, False], "mismatches": counts[name, False]}
              for name in names}  # fmt: skip
    checked, wrong = (sum(one[name] for one in models.values()) for name in ("checked", "mismatches"))
    return Reproduction(checked, wrong, counts.total() - checked, models)


def _is_same(record: DecisionRecord, again: Rescore) -> bool:
    numbers = (record.raw, record.score, record.outputs), (again.raw, again.score, again.outputs)
    return record.decision == again.decision and _bits(*numbers[0]) == _bits(*numbers[1])


def _bits(raw: float | None, score: float | None, outputs: dict[str, float]) -> list[Any]:
    values = [("raw", raw), ("score", score), *sorted(outputs.items())]
    return [(name, None if value is None else struct.pack("<d", value)) for name, value in values]


def pairs_table(
    records: Sequence[DecisionRecord],
    rescores: Sequence[Rescore],
    reproduced: Sequence[bool | None] | None = None,
    by: Iterable[str] = (),
) -> pa.Table:
    """Table of :data:`PAIRS` from records and what a challenger makes of them, in the same order.

    ``by`` names entities, context values or features; one that is masked in a record is null.
    """
    pairs = list(zip(records, rescores, strict=True))
    columns: dict[str, list[Any]] = {
        "id": [r.id for r in records], "time": [r.time for r in records], "key": [r.key for r in records],
        "revision": [r.revision for r in records], "model": [r.model for r in records],
        "decision": [r.decision for r in records], "score": [r.score for r in records],
        "fallback": [r.fallback for r in records], "micros": [float(sum(r.stages.values())) for r in records],
        "share": [r.share for r in records],
        "replayed__decision": [s.decision if s.error is None else None for s in rescores],
        "replayed__score": [s.score for s in rescores], "replayed__raw": [s.raw for s in rescores],
        "replayed__features": [s.features for s in rescores], "replayed__micros": [s.micros for s in rescores],
        "replayed__error": [s.error for s in rescores],
        "match": [None if s.error is not None else s.decision == r.decision for r, s in pairs],
        "reproduced": list(reproduced) if reproduced is not None else [None] * len(records),
    }  # fmt: skip
    table = pa.table({name: pa.array(columns[name], PAIRS.field(name).type) for name in PAIRS.names})
    for side, prefix in ((records, "output__"), (rescores, "replayed__output__")):
        for name in dict.fromkeys(name for one in side for name in one.outputs):
            values = pa.array([one.outputs.get(name) for one in side], pa.float64())
            table = table.append_column(prefix + name, values)
    for name in by:
        table = table.append_column(f"by__{name}", pa.array([_group(r, name) for r in records], pa.string()))
    return table


def _group(record: DecisionRecord, name: str) -> str | None:
    for values in (record.entities, record.context, record.features):
        if name in values:
            value = None if name in record.masked else values[name]
            return None if value is None else str(value)
    return None


def outputs_of(pairs: pa.Table, names: Sequence[str], *, replayed: bool) -> NDArray[np.float64]:
    """Outputs of one side by name, shape (n,) or (n, names); NaN where there is none."""
    prefix = "replayed__" if replayed else ""
    columns = []
    for name in names:
        column = prefix + (name if name == "score" else f"output__{name}")
        if column in pairs.column_names:
            columns.append(pairs.column(column).to_numpy().astype(np.float64))
        else:
            columns.append(np.full(pairs.num_rows, np.nan))
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
