"""From definitions to what the engines execute: channels, windows, outputs, needed columns, and the set's version.

A :class:`FeatureSet` is what a model has: views and derived functions in order. Every engine reads the same plan, so a
feature is resolved once and cannot mean two things.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.identity import content_hash
from retrodict.data.sources import Source
from retrodict.features.aggregates import Aggregate, Latest, microseconds
from retrodict.features.definitions import FeatureView, RowColumns, computed_inputs
from retrodict.features.derived import Derived
from retrodict.features.monoids import AGGREGATES, BAGS, Channel
from retrodict.features.windows import Window

__all__ = ["Bag", "FeatureSet", "Output", "ViewPlan", "column_name"]

_STATE_FORMAT = 4


def column_name(view: str, feature: str) -> str:
    """Name of a feature as a column: ``<view>__<feature>``; one underscore is all that a name itself may hold."""
    return f"{view}__{feature}"


@dataclass(frozen=True)
class Bag:
    """A function of a window's events, resolved.

    Parameters
    ----------
    op : str
        Row of :data:`~retrodict.features.monoids.BAGS`.
    value, second : str, optional
        Columns it reads.
    where : str, optional
        Condition on the events.
    k : int
        For lists: how many values, of ``sum_list`` those of one event. 0 for the others.
    q : float
        For ``quantile``. 0 for the others.
    half_life_us : int
        For the decayed ones. 0 for the others.
    gap_us : int
        For sessions. 0 for the others.
    group_op : str
        For ``by``: what is computed of each group. Empty for the others.
    """

    op: str
    value: str | None = None
    second: str | None = None
    where: str | None = None
    k: int = 0
    q: float = 0.0
    half_life_us: int = 0
    gap_us: int = 0
    group_op: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns whose values it reads."""
        return tuple(column for column in (self.value, self.second) if column is not None)


@dataclass(frozen=True)
class Output:
    """One feature of a view, resolved.

    Parameters
    ----------
    column : str
        Full name, ``<view>__<feature>``.
    op : str
        Aggregate, or ``latest``.
    window : int
        Index into the plan's windows; -1 for latest.
    parts : tuple of int
        Indices into the plan's channels; for latest one index into its latest columns; for a bag one into its bags.
    max_age : int, optional
        For latest: microseconds after which it is null.
    factor : tuple of int, optional
        For a rate or a slope: the value is the total times the first number over the second.
    """

    column: str
    op: str
    window: int
    parts: tuple[int, ...]
    max_age: int | None = None
    factor: tuple[int, int] | None = None

    @property
    def bag(self) -> bool:
        """Whether it is a function of the window's events."""
        return self.op in BAGS


class ViewPlan:
    """A view, resolved.

    Attributes
    ----------
    view, source
        The definitions.
    channels : tuple of Channel
        Everything to lift an event to, each once.
    windows : tuple of Window
        Every window, each once.
    latest : tuple of str
        Columns of which the newest value is asked.
    bags : tuple of Bag
        Functions of a window's events, each once.
    kept : tuple of str
        Columns whose values an engine keeps as they are: those of ``latest`` first, then what bags read.
    outputs : tuple of Output
        The features, in the order of the definition.
    expressions : dict of str to Expression
        Conditions by their text as written in the definition.
    computed : dict of str to Expression
        Inputs of aggregates that are expressions: the events get a column of each under its text.
    """

    def __init__(self, view: FeatureView) -> None:
        self.view, self.source, self.name = view, view.source, view.name
        self.keys, self.request_keys = view.key_columns, view.request_keys
        self.computed = computed_inputs(view)
        channels: dict[Channel, int] = {}
        windows: dict[Window, int] = {}
        newest: dict[str, int] = {}
        bags: dict[Bag, int] = {}
        outputs: list[Output] = []
        for feature in view.features:
            if isinstance(feature, Latest):
                outputs += _latest(view, feature, newest)
                continue
            if feature.bag:
                parts: tuple[int, ...] = (bags.setdefault(_bag(feature), len(bags)),)
            else:
                parts = _parts(view, feature, channels)
            for window, name in zip(feature.over, feature.names(), strict=True):
                place, factor = windows.setdefault(window, len(windows)), _factor(feature, window)
                outputs.append(Output(column_name(view.name, name), feature.op, place, parts, factor=factor))
        self.channels, self.windows, self.latest = tuple(channels), tuple(windows), tuple(newest)
        self.bags, self.outputs = tuple(bags), tuple(outputs)
        self.kept = tuple(dict.fromkeys([*self.latest, *(column for bag in self.bags for column in bag.columns)]))
        # A text that is both a condition and a column is a bare boolean column: reading it either way is the same.
        conditions = {c.value for c in self.channels if c.lift == "true"} | {c.where for c in self.channels}
        conditions |= {bag.where for bag in self.bags}
        self.expressions: dict[str, Expression] = {
            text: parse(text, where=f"view {view.name!r}") for text in sorted(t for t in conditions if t is not None)
        }
        read = {c.value for c in self.channels if c.value is not None}
        self.values = tuple(sorted(read - self.expressions.keys()))
        self._check_computed()

    def _check_computed(self) -> None:
        """Refuse an expression with the name of a column that is read beside it: one of the two would be lost."""
        for name in self.computed.keys() & set(self.source_columns) | self.computed.keys() & set(self.latest):
            raise DefinitionError(
                "an expression must not be spelled like a column that the view reads",
                where=self.where,
                got=name,
                remedy="Declare the column in its table, or rename it where the table is written",
            )

    @cached_property
    def needs_current(self) -> bool:
        """Whether a window lets the request's own event in."""
        return any(window.include_current for window in self.windows)

    @cached_property
    def current_columns(self) -> tuple[str, ...]:
        """Columns the request must carry for its own event."""
        if not self.needs_current:
            return ()
        # Bags take no event of the request in.
        windows = self.windows
        parts = {i for o in self.outputs if o.window >= 0 and windows[o.window].include_current for i in o.parts}
        columns: set[str] = set()
        for index in parts:
            for text in (self.channels[index].value, self.channels[index].where):
                if text is not None:
                    expression = self.expressions.get(text) or self.computed.get(text)
                    columns.update([text] if expression is None else expression.columns)
        return tuple(sorted(columns))

    @cached_property
    def source_columns(self) -> tuple[str, ...]:
        """Columns of the source's table that the view reads."""
        source = self.source
        columns = {*self.keys, *self.values, *self.kept} - self.computed.keys()
        columns.update(c for c in (source.event_time, source.known_at, source.sequence) if c is not None)
        for expression in (*self.expressions.values(), *self.computed.values()):
            columns.update(expression.columns)
        for text in (source.where, source.deleted):
            if text is not None:
                columns.update(parse(text).columns)
        return tuple(sorted(columns))

    @cached_property
    def lookback_us(self) -> int:
        """How far back a bounded feature can look, and how late a lifetime can end, in microseconds; 0 if none is."""
        lengths = [window.reach_us for window in self.windows]
        # An age of exactly max_age still counts, hence the extra microsecond.
        lengths += [output.max_age + 1 for output in self.outputs if output.max_age is not None]
        return max(lengths, default=0)

    @cached_property
    def unbounded(self) -> bool:
        """Whether a latest value may be of any age."""
        return any(output.op == "latest" and output.max_age is None for output in self.outputs)

    @cached_property
    def lifetime(self) -> bool:
        """Whether some window has no left edge."""
        return any(window.lifetime for window in self.windows)

    @cached_property
    def keeps_all(self) -> bool:
        """Whether online state keeps every event: what an aggregate of events says of a lifetime, no total tells."""
        return any(output.bag and self.windows[output.window].lifetime for output in self.outputs)

    @cached_property
    def state_id(self) -> str:
        """Content hash of what online state holds: names and key maps do not matter, so renaming keeps the state."""
        return content_hash(
            self.identity
            | {
                "format": _STATE_FORMAT,
                "source": self.source,
                "keys": self.keys,
                "channels": self.channels,
                "kept": self.kept,
                "bag_conditions": tuple(dict.fromkeys(bag.where for bag in self.bags)),
                "lookback": self.lookback_us,
                "unbounded": self.unbounded,
                "lifetime": "events" if self.keeps_all else self.lifetime,
            }
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What of its inputs no text of a channel tells: which of them are computed; empty without any."""
        return {"computed": self.computed} if self.computed else {}

    @property
    def where(self) -> str:
        """What to name in an error."""
        return f"view {self.name!r}"


def _latest(view: FeatureView, feature: Latest, newest: dict[str, int]) -> list[Output]:
    age = Window(feature.max_age).length_us if feature.max_age is not None else None
    return [
        Output(column_name(view.name, name), "latest", -1, (newest.setdefault(column, len(newest)),), age)
        for column, name in zip(feature.columns, feature.names(), strict=True)
    ]


def _parts(view: FeatureView, feature: Aggregate, channels: dict[Channel, int]) -> tuple[int, ...]:
    """Numbers of the channels of an aggregate; those that are not there yet are added."""
    rule, where = "an aggregate must be in the table of aggregates", f"view {view.name!r}"
    check_known(feature.op, [*AGGREGATES, *BAGS], rule, where=where, what="aggregate", error=DefinitionError)
    parts = []
    for monoid, lift in AGGREGATES[feature.op].channels:
        value, beside, second = (None if lift == "one" else feature.value), feature.second, lift == "second"
        if second:
            value, beside = beside, value
        channel = Channel(monoid, "value" if second else lift, value, feature.where, beside)
        parts.append(channels.setdefault(channel, len(channels)))
    return tuple(parts)


def _factor(feature: Aggregate, window: Window) -> tuple[int, int] | None:
    """A rate is the count times one unit over the length of the window, in lowest terms; a slope times its unit."""
    if feature.op not in {"rate", "slope"}:
        return None
    per, length = microseconds(feature, "per"), window.length_us if feature.op == "rate" else 1
    shared = math.gcd(per, length)
    return per // shared, length // shared


def _bag(feature: Aggregate) -> Bag:
    option: dict[str, Any] = feature.option
    return Bag(
        feature.op,
        feature.value,
        feature.second,
        feature.where,
        k=option.get("k", option.get("size", 0)),
        q=option.get("q", 0.0),
        half_life_us=microseconds(feature, "half_life") if "half_life" in option else 0,
        gap_us=microseconds(feature, "gap") if "gap" in option else 0,
        group_op=option.get("op", ""),
    )


class FeatureSet:
    """Views, derived functions and columns of the row itself, in order, resolved; immutable.

    Parameters
    ----------
    features : iterable of FeatureView, Derived or RowColumns
        What a model names. A derived function may use features that come before it.
    row_columns : sequence of str, optional
        Columns that a row has, for ``columns(exclude=...)``. None: they are not known yet, and it stands for none.

    Attributes
    ----------
    features : tuple of FeatureView or Derived
        What is computed.
    own : tuple of str
        Columns of the row itself: features that are there already.
    open : bool
        Whether there are more of them that are not known yet.
    views : tuple of ViewPlan
        The views.
    derived : tuple of Derived
        The functions.
    columns : tuple of str
        Every feature as a column, in order.
    sources : dict of str to Source
        By name.
    version : str
        Content hash of the whole set.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from retrodict.features.definitions import Entity, agg
    >>> landed = Source("landed", SimpleNamespace(name="flights"), event_time="arr_time")
    >>> view = FeatureView("origin_delays", Entity("origin"), landed, [agg.count(over="2h")])
    >>> FeatureSet([view]).columns
    ('origin_delays__count_2h',)
    """

    def __init__(
        self, features: Iterable[FeatureView | Derived | RowColumns], *, row_columns: Sequence[str] | None = None
    ) -> None:
        listed = list(features)
        self.open = row_columns is None and any(isinstance(f, RowColumns) and f.exclude is not None for f in listed)
        if row_columns is not None:
            listed = [f.among(row_columns) if isinstance(f, RowColumns) else f for f in listed]
        self.features = tuple(f for f in listed if not isinstance(f, RowColumns))
        self._check_kinds()
        self.views = tuple(ViewPlan(f) for f in self.features if isinstance(f, FeatureView))
        self.derived = tuple(f for f in self.features if isinstance(f, Derived))
        plans = {plan.name: plan for plan in self.views}
        columns: list[str] = []
        for feature in listed:
            if isinstance(feature, RowColumns):
                columns += feature.names
            elif isinstance(feature, Derived):
                _check_inputs(feature, columns)
                columns += [column_name(feature.name, output) for output in feature.outputs]
            else:
                columns += [output.column for output in plans[feature.name].outputs]
        self.columns = tuple(columns)
        self.own = tuple(name for feature in listed if isinstance(feature, RowColumns) for name in feature.names)
        self._check_columns()
        self.sources = self._sources()
        self.version = content_hash(listed)

    @classmethod
    def trained(cls, features: Iterable[FeatureView | Derived | RowColumns], inputs: Iterable[str]) -> FeatureSet:
        """Return the set of a model that reads these inputs: they say which columns ``columns(exclude=...)`` meant."""
        listed = list(features)
        others = cls(listed).columns
        return cls(listed, row_columns=[name for name in inputs if name not in others])

    def _check_columns(self) -> None:
        twice = [name for name in self.own if self.columns.count(name) > 1]
        if twice:
            raise DefinitionError(
                "a column of the row must be a feature once, and have the name of no other",
                where="features",
                got=twice[0],
                remedy="Leave it out of one columns(…), or rename the view",
            )

    def _check_kinds(self) -> None:
        names: set[str] = set()
        for feature in self.features:
            if not isinstance(feature, FeatureView | Derived):
                raise DefinitionError(
                    "a feature set must hold views and derived functions",
                    where="features",
                    got=type(feature).__name__,
                    remedy="Pass FeatureView objects, @derived functions, or columns(…)",
                )
            if feature.name in names:
                raise DefinitionError(
                    "every view and derived function of a set must have a name of its own",
                    where="features",
                    got=feature.name,
                    remedy="Give one of the two another name (view.keyed(name=…))",
                )
            names.add(feature.name)

    def _sources(self) -> dict[str, Source]:
        sources: dict[str, Source] = {}
        for plan in self.views:
            source = sources.setdefault(plan.source.name, plan.source)
            if source.version != plan.source.version:
                raise DefinitionError(
                    "one source name must mean one source",
                    where=f"features, {plan.where}",
                    got=plan.source.name,
                    remedy="Rename one of the two sources",
                )
        return sources

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that its sources read, each once, sorted."""
        return tuple(sorted({source.table.name for source in self.sources.values()}))

    @cached_property
    def request_keys(self) -> tuple[str, ...]:
        """Entity columns a request or spine must have."""
        return tuple(dict.fromkeys(key for plan in self.views for key in plan.request_keys))

    @cached_property
    def request_columns(self) -> tuple[str, ...]:
        """Other columns a request or spine must have: features that it brings, inputs of functions, its own event."""
        names = list(self.own)
        names += [name for function in self.derived for name in function.inputs if name not in self.columns]
        names += [column for plan in self.views for column in plan.current_columns]
        return tuple(dict.fromkeys(name for name in names if name not in self.request_keys))

    def plan(self, view: str) -> ViewPlan:
        """Plan of a view by name."""
        by_name, rule = {plan.name: plan for plan in self.views}, "the feature set must have this view"
        return by_name[check_known(view, by_name, rule, where="features", what="view", error=DefinitionError)]


def _check_inputs(function: Derived, columns: list[str]) -> None:
    rule, where = "a derived function must use features that come before it", f"derived {function.name!r}"
    for name in function.inputs:
        if "__" in name:
            check_known(name, columns, rule, where=where, what="feature", error=DefinitionError)
