"""Outcomes: what happened after a decision, said by the same aggregates as features, and not known before it matured.

An outcome at q is an aggregate over ``[q, q + within)``, as it is known at ``q + within + wait``. That is a feature of
that later moment over a window that ends ``wait`` before it, so the engines of features compute it, with both clocks:
nothing is said twice, and nothing falls between the two. A fact at exactly q belongs to the outcome, since features
stop strictly before q.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.definition import Definition
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features.aggregates import Aggregate
from retrodict.features.definitions import Entity, FeatureView
from retrodict.features.facts.columns import pick, times
from retrodict.features.offline.frame import Tables, training_frame
from retrodict.features.plan import FeatureSet, column_name
from retrodict.features.windows import Window, positive_duration

__all__ = ["Outcome", "outcome_frame"]

_AT = "_outcome_at"
TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Outcome(Definition):
    """What happened to an entity within a time after a decision.

    Parameters
    ----------
    name : str
        Name of the column it becomes.
    entity : Entity
        To whom it happens.
    source : Source
        The facts that say so.
    aggregate : Aggregate
        What is computed of them; its one window is the horizon, like ``agg.count(over="30d")``.
    wait : str, optional
        How long after the horizon to wait for facts that become known late. None: not at all.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from retrodict.features.aggregates import agg
    >>> paid = Source("paid", SimpleNamespace(name="payments"), event_time="paid_at")
    >>> repaid = Outcome("repaid", Entity("customer"), paid, agg.sum("amount", over="30d"), wait="2d")
    >>> repaid.matures_us // 86_400_000_000
    32
    """

    kind: ClassVar[str] = "outcome"

    entity: Entity = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    source: Source = None  # type: ignore[assignment]  # as above
    aggregate: Aggregate = None  # type: ignore[assignment]  # as above
    wait: str | None = None

    def __post_init__(self) -> None:
        """Check that the horizon is one plain window."""
        super().__post_init__()
        given: object = self.aggregate
        where = f"outcome {self.name!r}"
        if not isinstance(given, Aggregate):
            raise DefinitionError("an outcome is one aggregate", where=where, got=type(given).__name__)
        window = given.over[0]
        plain = len(given.over) == 1 and window == Window(window.length) and not window.lifetime
        if not plain or given.op == "rate":
            raise DefinitionError(
                "the horizon of an outcome is one plain window",
                where=where,
                got=[each.name for each in given.over],
                remedy="Write it like agg.count(over='30d')",
            )
        if self.wait is not None:
            object.__setattr__(self, "wait", positive_duration(self.wait, f"{where}, wait"))

    @property
    def view(self) -> FeatureView:
        """The view that computes it at the moment it matures."""
        window = replace(self.aggregate.over[0], offset=self.wait)
        aggregate = replace(self.aggregate, over=(window,), label=self.name)
        return FeatureView("outcome", self.entity, self.source, [aggregate])

    @property
    def matures_us(self) -> int:
        """Microseconds from the decision to the moment the outcome is known."""
        return self.aggregate.over[0].length_us + (0 if self.wait is None else parse_duration(self.wait))


def outcome_frame(spine: pa.Table, at: str, outcome: Outcome, sources: Tables, *, as_of: int) -> pa.Table:
    """Add an outcome to the rows of a spine, and when it became known.

    Parameters
    ----------
    spine : pyarrow.Table
        One row per decision: its time and the entity's keys.
    at : str
        The time column.
    outcome : Outcome
        What to compute.
    sources : callable or mapping of str to pyarrow.Table
        Rows of the outcome's source, by the source's name.
    as_of : int
        Present time in microseconds: what matures later is null, and so is its ``known_at``.

    Returns
    -------
    pyarrow.Table
        The spine, row for row, with the columns ``<name>`` and ``<name>_known_at``.
    """
    for name in (outcome.name, f"{outcome.name}_known_at", _AT):
        if name in spine.column_names:
            raise InputError("a spine has no column with an outcome's name", where="spine", got=name)
    moments, present = times(pick(spine, at, where="spine"), where=f"spine, column {at!r}")
    if not present.all():
        raise InputError("every row of a spine has its time", where=f"spine, column {at!r}")
    known = moments + outcome.matures_us
    frame = training_frame(spine.append_column(_AT, pa.array(known, TIME)), _AT, FeatureSet([outcome.view]), sources)
    values = pick(frame, column_name("outcome", outcome.name), where="outcome")
    matured = pa.array(np.asarray(known <= as_of))
    spine = spine.append_column(outcome.name, pc.if_else(matured, values, None))
    return spine.append_column(f"{outcome.name}_known_at", pc.if_else(matured, pa.array(known, TIME), None))
