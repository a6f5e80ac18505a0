"""What differs between the features as defined and as deployed models read them, and what it costs to go there.

A deployed model keeps the code it was trained with, so an edited definition changes nothing that decides: old and new
versions serve side by side, each from the state that its own plan names. What an edit does cost is said here before it
is made. Nothing is applied, so there is nothing to forget to apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrodict.features.catalogue.description import describe
from retrodict.features.definitions import FeatureView
from retrodict.features.derived import Derived
from retrodict.features.plan import FeatureSet, ViewPlan

__all__ = ["Change", "Difference", "Reader", "compare"]

Status = Literal["added", "changed", "removed", "same"]


@dataclass(frozen=True, slots=True)
class Reader:
    """A model in force and the features it reads, as its own code defines them.

    Attributes
    ----------
    model : str
        ``name@version``.
    policy : str
        The policy it decides for.
    features : FeatureSet
        What it reads.
    decides : bool
        False for what decided before and is kept as the way back.
    """

    model: str
    policy: str
    features: FeatureSet
    decides: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs: ``source.delay``, ``feature mean_arr_delay_2h``; None where there is none."""

    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A view or derived function as defined, against what is deployed.

    Attributes
    ----------
    name : str
    kind : {"view", "derived"}
    status : {"added", "changed", "removed", "same"}
    version : str or None
        As defined; None if it was removed.
    deployed : tuple of str
        Versions that models in force read, what decides first.
    differences : tuple of Difference
        Field by field, against the first of these.
    readers : tuple of str
        Models that read another version than the defined one, as ``name@version``.
    refused : bool
        Whether a model that decides reads another version: the changed view needs a name of its own.
    rebuild : bool
        Whether its online state has to be filled: no model in force keeps the same.
    table : str or None
        Where it would be filled from.
    rows : int or None
        Rows of that table that a backfill reads; None where nothing has to be filled, 0 for an empty table.
    """

    name: str
    kind: str
    status: Status
    version: str | None
    deployed: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    readers: tuple[str, ...] = ()
    refused: bool = False
    rebuild: bool = False
    table: str | None = None
    rows: int | None = None


def compare(
    defined: Iterable[FeatureView | Derived], readers: Sequence[Reader], rows: Mapping[str, int]
) -> list[Change]:
    """Changes of every view and derived function, in the order of the definitions, then what was removed.

    Parameters
    ----------
    defined : iterable of FeatureView or Derived
        As the definitions module has them now.
    readers : sequence of Reader
        Models in force.
    rows : mapping of str to int
        Rows of each table by name; a table that is missing is empty.

    Examples
    --------
    >>> compare([], [], {})
    []
    """
    now = {feature.name: feature for feature in defined}
    states = {plan.state_id for reader in readers for plan in reader.features.views}
    changes = [_change(feature, _reads(readers, name), states, rows) for name, feature in now.items()]
    removed = dict.fromkeys(f.name for reader in readers for f in reader.features.features if f.name not in now)
    return changes + [_removed(name, _reads(readers, name)) for name in removed]


# a reader of a name, and what that name is to it
_Read = list[tuple[Reader, FeatureView | Derived]]


def _reads(readers: Sequence[Reader], name: str) -> _Read:
    reads = [(reader, feature) for reader in readers for feature in reader.features.features if feature.name == name]
    return sorted(reads, key=lambda pair: not pair[0].decides)


def _change(new: FeatureView | Derived, reads: _Read, states: set[str], rows: Mapping[str, int]) -> Change:
    deployed = tuple(dict.fromkeys(old.version for _, old in reads))
    other = [(reader, old) for reader, old in reads if old.version != new.version]
    status: Status = "added" if not reads else "changed" if other and other[0][0].decides else "same"
    view = isinstance(new, FeatureView)
    rebuild = isinstance(new, FeatureView) and ViewPlan(new).state_id not in states
    table = new.source.table.name if isinstance(new, FeatureView) else None
    return Change(
        new.name, "view" if view else "derived", status, new.version, deployed,
        differences=tuple(_differences(other[0][1], new)) if status == "changed" else (),
        readers=_models(other),
        refused=status == "changed",
        rebuild=rebuild, table=table, rows=rows.get(table or "", 0) if rebuild else None,
    )  # fmt: skip


def _removed(name: str, reads: _Read) -> Change:
    kind = "view" if isinstance(reads[0][1], FeatureView) else "derived"
    deployed = tuple(dict.fromkeys(old.version for _, old in reads))
    return Change(name, kind, "removed", None, deployed, readers=_models(reads))


def _models(reads: _Read) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reader.model for reader, _ in reads))


def _differences(old: FeatureView | Derived, new: FeatureView | Derived) -> list[Difference]:
    before, after = _fields(old), _fields(new)
    differences = [
        Difference(name, before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
    # The order of features decides the order of a model's columns, so it is part of the version.
    return differences or [Difference("order", None, "the same features, written in another order or grouping")]


def _fields(feature: FeatureView | Derived) -> dict[str, str]:
    if isinstance(feature, Derived):
        fields = {"inputs": ", ".join(feature.inputs), "outputs": ", ".join(feature.outputs), "code": feature.code[:12]}
        forms = [*((name, "time") for name in feature.times), *((name, "text") for name in feature.texts)]
        return fields | {f"input {name}": form for name, form in forms}
    identity = feature.source.__identity__()
    source = {f"source.{name}": str(identity[name]) for name in identity if name not in ("kind", "delay")}
    source["source.delay"] = str(feature.source.delay)
    entity = {"entity": feature.entity.name if feature.entity else "none", "keys": ", ".join(feature.key_columns)}
    mapped = {"key_map": ", ".join(f"{key}={column}" for key, column in feature.key_map)}
    return entity | mapped | source | {f"feature {facts.name}": str(facts) for facts in describe(feature)}
