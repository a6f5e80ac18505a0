"""Outcomes on the command line: which there are, until when their facts are known, and their columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from retrodict.core.errors import InputError, near

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.labels import Outcome
    from retrodict.features.offline.frame import Rows
    from retrodict.workspace import Workspace

__all__ = ["add_outcomes", "defined_outcomes", "find_outcomes", "known_until", "outcome_names"]


def defined_outcomes(project: Workspace) -> dict[str, Outcome]:
    """Every outcome of the definitions, also those that stand only in a model, by name."""
    from retrodict.features.labels import Outcome
    from retrodict.models.definitions import Model

    found = {each.name: each for each in project.definitions.of(Outcome)}
    for model in project.definitions.of(Model):
        label: object = model.label
        if isinstance(label, Outcome):
            found.setdefault(label.name, label)
    return found


def outcome_names(project: Workspace) -> list[str]:
    """Names of outcomes, for the Tab key."""
    return list(defined_outcomes(project))


def find_outcomes(project: Workspace, names: str | None, types: dict[str, pa.DataType]) -> list[Outcome]:
    """Outcomes by names with commas between them, checked against their tables.

    ``types`` gets the types of their keys, as which columns of text are read.
    """
    from retrodict.features.catalogue.tables import newest_versions
    from retrodict.features.offline.outcomes import check_outcome
    from retrodict.features.plan import FeatureSet

    known, found = defined_outcomes(project), []
    for name in [each.strip() for each in (names or "").split(",") if each.strip()]:
        if name not in known:
            raise InputError("the outcome is defined", where="--outcomes", got=name,
                             remedy=near(name, known, what="outcome"))  # fmt: skip
        outcome = known[name]
        newest_versions(project.tables, FeatureSet([outcome.view]).tables, where="features")
        schema = project.tables.schema(outcome.source.table.name)
        check_outcome(outcome, schema)
        types |= {key: schema.field(key).type for key in outcome.entity.keys}
        found.append(outcome)
    if names is not None and not found:
        raise InputError("at least one outcome is wanted", where="--outcomes", got=names, remedy="Write its name")
    return found


def known_until(project: Workspace, outcomes: Sequence[Outcome]) -> int | None:
    """Until when the tables of all outcomes hold what is known; None if one of them holds no fact that is.

    The newest fact of each table says so: what it does not hold yet, nobody may take for something that did not happen.
    """
    moments = [_newest(project, outcome) for outcome in outcomes]
    now = project.clock.now()
    return min([now, *(moment for moment in moments if moment is not None)]) if None not in moments else None


def _newest(project: Workspace, outcome: Outcome) -> int | None:
    from retrodict.features.facts.columns import times

    source = outcome.source
    clock = source.known_at or source.event_time
    newest = None
    for batch in project.tables.batches(source.table.name, columns=[str(clock)]):
        moments, there = times(batch.column(0), where=f"source {source.name!r}, column {clock!r}")
        if there.any():
            found = int(moments[there].max()) + (0 if source.known_at else source.delay_us)
            newest = found if newest is None else max(newest, found)
    return newest


def add_outcomes(
    project: Workspace, outcomes: Sequence[Outcome], at: str, pieces: Iterable[pa.Table], as_of: int | None
) -> Iterator[pa.Table]:
    """Pieces of a frame with two columns per outcome: what it is, and when that became known; null if not matured.

    An outcome that is the label of a model is its yes or no, another one the value of its aggregate.
    """
    from retrodict.features.catalogue.tables import newest_versions
    from retrodict.features.offline.event_index import EventIndexes
    from retrodict.features.plan import FeatureSet

    indexes = EventIndexes.of(project)
    sets = [FeatureSet([outcome.view]) for outcome in outcomes]
    versions = [newest_versions(project.tables, each.tables, where="features") for each in sets]
    until = -1 if as_of is None else as_of
    for piece in pieces:
        told = piece
        for outcome, features, pinned in zip(outcomes, sets, versions, strict=True):
            told = indexes.gather(partial(_told, told, at, outcome, until), features, pinned)
        yield told


def _told(frame: pa.Table, at: str, outcome: Outcome, as_of: int, sources: Mapping[str, Rows]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    from retrodict.features.offline.outcomes import outcome_frame, outcome_labels

    told = outcome_frame(frame, at, outcome, sources, as_of=as_of)
    if not outcome.labels:
        return told
    label = outcome_labels(frame, at, outcome, sources).column("label")
    matured = told.column(f"{outcome.name}_known_at").is_valid()
    place = told.column_names.index(outcome.name)
    return told.set_column(place, outcome.name, pc.if_else(matured, label, pa.scalar(None, pa.bool_())))
