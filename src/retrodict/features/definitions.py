"""What a definitions module says about features: entities, windows, aggregates, the latest value, views.

Everything here is immutable data that runs nothing and loads nothing heavy; ``plan`` resolves it, the engines execute
it. Names are made from the content (``mean_arr_delay_2h``), so that a column's name says what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from retrodict.core.definition import Definition, check_name
from retrodict.core.errors import DefinitionError, near
from retrodict.core.expressions import parse
from retrodict.core.identity import digest
from retrodict.data.sources import Source
from retrodict.features.windows import Over, Window, positive_duration, windows_of

__all__ = ["Aggregate", "Entity", "FeatureView", "Latest", "Over", "Window", "agg", "latest"]

_OPERATORS = {
    ">=": "ge",
    "<=": "le",
    "<>": "ne",
    "!=": "ne",
    ">": "gt",
    "<": "lt",
    "=": "eq",
    "+": "plus",
    "*": "times",
    "/": "over",
}
_LONGEST_NAME = 63


def _slug(expression: str) -> str:
    """Letters, digits and single underscores that still tell the expression."""
    text = expression.lower()
    for operator, word in _OPERATORS.items():
        text = text.replace(operator, f" {word} ")
    text = re.sub(r"(^|[\s(])-\s*(?=\d)", r"\1 minus ", text)
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


@dataclass(frozen=True)
class Aggregate:
    """One aggregate over one or more windows; made by ``agg.count`` and its siblings.

    Parameters
    ----------
    op : str
        Which aggregate.
    value : str, optional
        Column, or for ``share`` a condition; None for ``count``.
    over : tuple of Window
        Its windows: one feature each.
    where : str, optional
        Condition: only events for which it is true are looked at.
    label : str, optional
        Name of the feature; with several windows each adds its own ending.
    """

    op: str
    value: str | None
    over: tuple[Window, ...]
    where: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Read the conditions once, so that a mistake shows where it was made."""
        if self.op == "share":
            parse(self.value or "", where=f"agg.share({self.value!r})")
        if self.where is not None:
            parse(self.where, where=f"agg.{self.op}, where")

    def names(self) -> list[str]:
        """Name of the feature of each window, in order."""
        if self.label is not None:
            single = len(self.over) == 1
            return [self.label if single else f"{self.label}_{window.name}" for window in self.over]
        parts = [self.op] + ([] if self.value is None else [_slug(self.value)])
        if self.where is not None:
            parts += ["where", _slug(self.where)]
        return [_fit("_".join(parts), window.name) for window in self.over]

    def __identity__(self) -> dict[str, Any]:
        """Conditions by their meaning, not by their white space."""
        value: object = parse(self.value or "") if self.op == "share" else self.value
        return {
            "kind": "Aggregate",
            "op": self.op,
            "value": value,
            "over": self.over,
            "names": self.names(),
            "where": None if self.where is None else parse(self.where),
        }


def _fit(stem: str, ending: str) -> str:
    name = f"{stem}_{ending}"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = digest(name.encode())[:6]
    return f"{stem[: _LONGEST_NAME - len(ending) - 8].rstrip('_')}_{mark}_{ending}"


@dataclass(frozen=True)
class Latest:
    """Columns of the newest visible event; made by :func:`latest`."""

    columns: tuple[str, ...]
    max_age: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Check the columns and write the age in one way."""
        given: tuple[object, ...] = self.columns
        if not given or not all(isinstance(column, str) and column for column in given):
            raise DefinitionError(
                "latest names one or more columns",
                where="latest",
                got=self.columns,
                remedy="Write it like latest('arr_delay', max_age='24h')",
            )
        if self.label is not None and len(self.columns) > 1:
            raise DefinitionError(
                "a name is for one column",
                where="latest",
                got=len(self.columns),
                remedy="Leave name= out or write one latest() per column",
            )
        if self.max_age is not None:
            object.__setattr__(self, "max_age", positive_duration(self.max_age, "max_age"))

    def names(self) -> list[str]:
        """Name of the feature of each column, in order."""
        return [self.label] if self.label is not None else [_fit("latest", _slug(column)) for column in self.columns]


def latest(*columns: str, max_age: str | None = None, name: str | None = None) -> Latest:
    """Values of the newest visible event per key, null where that event's value is null.

    Parameters
    ----------
    *columns : str
        Columns to read, all from the same event.
    max_age : str, optional
        Null once the decision is later than the event by more than this. None: never too old.
    name : str, optional
        Name of the feature, for one column. None: ``latest_<column>``.

    Examples
    --------
    >>> latest("arr_delay", "dest", max_age="24h").names()
    ['latest_arr_delay', 'latest_dest']
    """
    return Latest(columns, max_age, name)


class _Aggregates:
    """The aggregates a view can hold, each over one or more windows.

    Examples
    --------
    >>> agg.share("arr_delay > 15", over=["2h", "24h"]).names()
    ['share_arr_delay_gt_15_2h', 'share_arr_delay_gt_15_24h']
    """

    def count(self, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Number of events; 0 where there are none."""
        return Aggregate("count", None, windows_of(over, "agg.count"), where, name)

    def sum(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Exact sum of the values that are not null, rounded once; null where there are none."""
        return self._of("sum", column, over, where, name)

    def mean(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Return the exact sum over the number of values that are not null; null where there are none."""
        return self._of("mean", column, over, where, name)

    def min(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Smallest value; null where there are none."""
        return self._of("min", column, over, where, name)

    def max(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Largest value; null where there are none."""
        return self._of("max", column, over, where, name)

    def share(self, condition: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Events for which the condition is true, out of those for which it is not null; null where there are none."""
        return Aggregate("share", condition, windows_of(over, "agg.share"), where, name)

    def _of(self, op: str, column: str, over: Over, where: str | None, name: str | None) -> Aggregate:
        given: object = column
        if not isinstance(given, str) or not given:
            raise DefinitionError(
                f"agg.{op} takes the name of a column",
                where=f"agg.{op}",
                got=column,
                remedy=f"Write it like agg.{op}('arr_delay', over='2h')",
            )
        return Aggregate(op, column, windows_of(over, f"agg.{op}({column!r})"), where, name)


agg = _Aggregates()


@dataclass(frozen=True)
class Entity(Definition):
    """What a feature is about: one or more key columns.

    Parameters
    ----------
    name : str
        Name of the entity.
    keys : sequence of str, optional
        Key columns. None: one column with the entity's name.

    Examples
    --------
    >>> Entity("plane", keys=["tailnum"]).keys, Entity("origin").keys
    (('tailnum',), ('origin',))
    """

    kind: ClassVar[str] = "entity"

    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Fill in and check the keys."""
        super().__post_init__()
        keys = (self.keys,) if isinstance(self.keys, str) else tuple(self.keys)
        object.__setattr__(self, "keys", keys or (self.name,))
        if len(set(self.keys)) != len(self.keys) or not all(_is_name(key) for key in self.keys):
            raise DefinitionError(
                "the keys of an entity are different columns",
                where=f"entity {self.name!r}",
                got=keys,
                remedy="Name each key column once",
            )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(frozen=True)
class FeatureView(Definition):
    """Features of one entity from one source.

    Parameters
    ----------
    name : str
        Name of the view; its features become the columns ``<view>__<feature>``.
    entity : Entity
        Whose features they are; the source has the entity's key columns.
    source : Source
        Where the facts come from.
    features : sequence of Aggregate or Latest
        What is computed.
    key_map : tuple of (str, str), optional
        Which column of the request holds a key, where it has another name; see :meth:`keyed`.
    description : str, default ""
        For people; not part of the version.
    """

    kind: ClassVar[str] = "view"

    entity: Entity
    source: Source
    features: Sequence[Aggregate | Latest]
    key_map: tuple[tuple[str, str], ...] = ()
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check the parts and that every feature has a name of its own."""
        super().__post_init__()
        single = isinstance(self.features, Aggregate | Latest)
        object.__setattr__(self, "features", (self.features,) if single else tuple(self.features))
        self._check_parts()
        known: set[str] = set()
        for name in self.feature_names:
            check_name(name, what=f"view {self.name!r}, feature")
            if name in known:
                raise DefinitionError(
                    "every feature of a view has a name of its own",
                    where=f"view {self.name!r}",
                    got=name,
                    remedy="Give one of the two a name=",
                )
            known.add(name)

    def _check_parts(self) -> None:
        where = f"view {self.name!r}"
        wanted: Iterable[tuple[object, type, str]] = ((self.entity, Entity, "entity"), (self.source, Source, "source"))
        for got, kind, what in wanted:
            if not isinstance(got, kind):
                raise DefinitionError(
                    f"a view has one {what}",
                    where=where,
                    got=type(got).__name__,
                    remedy="Write FeatureView(name, entity, source, features)",
                )
        for feature in self.features:
            if not isinstance(feature, Aggregate | Latest):
                raise DefinitionError(
                    "a view holds aggregates and latest values",
                    where=where,
                    got=type(feature).__name__,
                    remedy="Use agg.count, agg.sum, …, latest; put a @derived function in the model",
                )
            timed = isinstance(feature, Aggregate) or feature.max_age is not None
            if timed and self.source.timeless:
                raise DefinitionError(
                    "a window or an age needs facts with a time",
                    where=f"{where}, source {self.source.name!r}",
                    got=feature.names()[0],
                    remedy="Give the source event_time=, or use latest() without max_age",
                )

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, in order, without the view's."""
        return [name for feature in self.features for name in feature.names()]

    @property
    def request_keys(self) -> tuple[str, ...]:
        """Columns of the request that hold the entity's keys, in the order of the keys."""
        renamed = dict(self.key_map)
        return tuple(renamed.get(key, key) for key in self.entity.keys)

    def keyed(self, *, name: str | None = None, **columns: str) -> FeatureView:
        """Return the same view looked up by other columns of the request; it shares the online state.

        Parameters
        ----------
        name : str, optional
            Name of the result. None: ``<view>_<columns>``.
        **columns : str
            Key column of the entity to column of the request.
        """
        for key in columns:
            if key not in self.entity.keys:
                raise DefinitionError(
                    "a key map names keys of the entity",
                    where=f"view {self.name!r}",
                    got=key,
                    remedy=near(key, self.entity.keys, what="key"),
                )
        mapped = tuple(sorted({**dict(self.key_map), **columns}.items()))
        return replace(self, name=name or "_".join([self.name, *columns.values()]), key_map=mapped)
