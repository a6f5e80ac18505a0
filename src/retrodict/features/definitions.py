"""What a definitions module says about features: entities, views, and the services that serve them.

Everything here is immutable data that runs nothing and loads nothing heavy; ``plan`` resolves it, the engines execute
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from retrodict.core.definition import Definition, check_name
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.names import NameUse
from retrodict.data.sources import Source
from retrodict.features.aggregates import Aggregate, Latest, agg, input_expression, latest
from retrodict.features.derived import Derived
from retrodict.features.windows import Over, Window

__all__ = [
    "Aggregate",
    "Entity",
    "FeatureService",
    "FeatureView",
    "Latest",
    "Over",
    "RowColumns",
    "ViewFeature",
    "Window",
    "agg",
    "columns",
    "computed_inputs",
    "latest",
]


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
                "the keys of an entity must be different columns",
                where=f"entity {self.name!r}",
                got=keys,
                remedy="Name each key column once",
            )


def _timed(feature: Aggregate | Latest) -> bool:
    """Whether the feature asks when its facts happened."""
    if isinstance(feature, Latest):
        return feature.max_age is not None
    return (
        not all(window.lifetime and window.offset is None for window in feature.over)
        or feature.bag
        or feature.op == "slope"
    )


def _reads(feature: Aggregate | Latest) -> bool:
    """Whether the feature reads a column of its facts."""
    if isinstance(feature, Latest):
        return True
    return bool(feature.inputs) or any(parse(text).columns for text in feature.conditions)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(frozen=True)
class FeatureView(Definition):
    """Features of one entity, or of everybody, from one source.

    Parameters
    ----------
    name : str
        Name of the view; its features become the columns ``<view>__<feature>``.
    entity : Entity or None
        Whose features they are; the source has the entity's key columns. None: one value for everybody, of all facts
        of the source (an exchange rate, the weather of the only site).
    source : Source
        Where the facts come from.
    features : sequence of Aggregate or Latest
        What is computed.
    key_map : tuple of (str, str), optional
        Which column of the request holds a key, where it has another name; see :meth:`keyed`.
    description, owner : str, default ""
        For people; not part of the version.
    tags : sequence of str, default ()
        For search; not part of the version.
    """

    kind: ClassVar[str] = "view"

    entity: Entity | None
    source: Source
    features: Sequence[Aggregate | Latest]
    key_map: tuple[tuple[str, str], ...] = ()
    description: str = field(default="", metadata={"identity": False})
    owner: str = field(default="", metadata={"identity": False})
    tags: Sequence[str] = field(default=(), metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check the parts and that every feature has a name of its own."""
        super().__post_init__()
        single = isinstance(self.features, Aggregate | Latest)
        object.__setattr__(self, "features", (self.features,) if single else tuple(self.features))
        object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))
        self._check_parts()
        names: set[str] = set()
        for name in self.feature_names:
            check_name(name, what=f"view {self.name!r}, feature")
            if name in names:
                raise DefinitionError(
                    "every feature of a view must have a name of its own",
                    where=f"view {self.name!r}",
                    got=name,
                    remedy="Give one of the two a name=",
                )
            names.add(name)

    def __getattr__(self, name: str) -> ViewFeature:
        """Feature of this name, or the newest value of a column of this name, for a :class:`FeatureService`."""
        # Called only for what is no attribute; a view that is being copied has no features yet.
        if not name.startswith("_") and "features" in self.__dict__:
            feature = self.find_feature(name)
            if feature is not None:
                return ViewFeature(self, feature)
        raise AttributeError(f"view {self.__dict__.get('name')!r} has no feature {name!r}", name=name, obj=self)

    def __dir__(self) -> Iterable[str]:
        """Attributes and features."""
        return [*super().__dir__(), *self.feature_names]

    def _check_parts(self) -> None:
        where = f"view {self.name!r}"
        parts: Iterable[tuple[object, Any, str]] = (
            (self.entity, Entity | None, "one entity, or None"), (self.source, Source, "one source"),
        )  # fmt: skip
        for got, kind, what in parts:
            if not isinstance(got, kind):
                raise DefinitionError(
                    f"a view must have {what}",
                    where=where,
                    got=type(got).__name__,
                    remedy="Write FeatureView(name, entity, source, features)",
                )
        for feature in self.features:
            if not isinstance(feature, Aggregate | Latest):
                raise DefinitionError(
                    "a view must hold aggregates and latest values",
                    where=where,
                    got=type(feature).__name__,
                    remedy="Use agg.count, agg.sum, …, latest; put a @derived function in the model",
                )
            if self.entity is None and self.source.timeless and not _reads(feature):
                raise DefinitionError(
                    "a view without an entity must read a column, of each row if not of its time",
                    where=f"{where}, source {self.source.name!r}",
                    got=feature.names()[0],
                    remedy="Give the source event_time=, or count where a column is not null",
                )
            if _timed(feature) and self.source.timeless:
                raise DefinitionError(
                    "a window or an age must have facts with a time",
                    where=f"{where}, source {self.source.name!r}",
                    got=feature.names()[0],
                    remedy="Give the source event_time=, or use latest() without max_age or over='lifetime'",
                )

    def uses(self) -> Iterator[NameUse]:
        """Columns that its entity and its features read."""
        where, table = f"view {self.name!r}", self.source.table.name
        rule = f"a view must read columns that the table {table!r} has"
        yield from (NameUse("column", key, rule, f"{where}, key", table) for key in self.key_columns)
        expressions = computed_inputs(self)
        for feature in self.features:
            place = f"{where}, feature {feature.names()[0]!r}"
            yield from (NameUse("column", name, rule, place, table) for name in _columns_of(feature, expressions))

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, in order, without the view's."""
        return [name for feature in self.features for name in feature.names()]

    def find_feature(self, name: str) -> str | None:
        """Name of the feature that is meant: ``wind`` is ``latest_wind``, unless there is a ``wind``; else None."""
        return next((feature for feature in (name, f"latest_{name}") if feature in self.feature_names), None)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Columns of the source that say whose a fact is; none where it counts for everybody."""
        return () if self.entity is None else tuple(self.entity.keys)

    @property
    def request_keys(self) -> tuple[str, ...]:
        """Columns of the request that hold the entity's keys, in the order of the keys."""
        renamed = dict(self.key_map)
        return tuple(renamed.get(key, key) for key in self.key_columns)

    def keyed(self, *, name: str | None = None, **columns: str) -> FeatureView:
        """Return the same view looked up by other columns of the request; it shares the online state.

        Parameters
        ----------
        name : str, optional
            Name of the result. None: ``<view>_<columns>``.
        **columns : str
            Key column of the entity to column of the request.
        """
        rule, where = "a key map must name keys of the entity", f"view {self.name!r}"
        for key in columns:
            check_known(key, self.key_columns, rule, where=where, what="key", error=DefinitionError)
        mapped = tuple(sorted({**dict(self.key_map), **columns}.items()))
        return replace(self, name=name or "_".join([self.name, *columns.values()]), key_map=mapped)


def computed_inputs(view: FeatureView) -> dict[str, Expression]:
    """Expressions that the aggregates of a view read, by their text: its events get a column of each.

    Raises
    ------
    DefinitionError
        If one reads no column, or gives a duration, which is no value of a feature.
    """
    columns = {*getattr(view.source.table, "columns", ()), *view.key_columns}
    computed = {}
    for feature in view.features:
        for text in () if isinstance(feature, Latest) else feature.inputs:
            expression = input_expression(text, columns)
            if expression is None:
                continue
            if expression.kind == "duration" or not expression.columns:
                raise DefinitionError(
                    "an expression in an aggregate must read columns, and give no duration",
                    where=f"view {view.name!r}, feature {feature.names()[0]!r}",
                    got=text,
                    remedy=f"Write seconds({text})" if expression.columns else "Use agg.count",
                )
            computed[text] = expression
    return computed


def _columns_of(feature: Aggregate | Latest, computed: Mapping[str, Expression]) -> list[str]:
    """Columns of its source's table that a feature reads, each once."""
    if isinstance(feature, Latest):
        return list(feature.columns)
    names = [name for text in feature.inputs for name in (computed[text].columns if text in computed else [text])]
    return list(dict.fromkeys([*names, *(name for text in feature.conditions for name in parse(text).columns)]))


@dataclass(frozen=True, slots=True)
class ViewFeature:
    """One feature of a view; made by naming it: ``sky.wind_speed``.

    Parameters
    ----------
    view : FeatureView
    feature : str
        Its name, without the view's.
    """

    view: FeatureView
    feature: str


@dataclass(frozen=True)
class FeatureService(Definition):
    """Features that are served together under one name, to whoever asks: no model and no policy has to read them.

    Their online state is filled and kept current from the day they are defined. It is that of the views, so what a
    model reads of the same view is shared.

    Parameters
    ----------
    name : str
        Name of the service; that of no view, derived function or model.
    features : sequence of FeatureView, ViewFeature or derived function
        A view stands for all of its features, ``view.feature`` for one. A derived function comes after the views it
        reads.
    description, owner : str, default ""
        For people; not part of the version.
    tags : sequence of str, default ()
        For search; not part of the version.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> landed = Source("landed", SimpleNamespace(name="flights"), event_time="arr_time")
    >>> view = FeatureView("delays", Entity("origin"), landed, [agg.count(over="2h"), agg.mean("delay", over="2h")])
    >>> FeatureService("scoring_inputs", [view.count_2h]).feature_names
    ['delays.count_2h']
    """

    kind: ClassVar[str] = "service"

    features: Sequence[FeatureView | ViewFeature | Derived]
    description: str = field(default="", metadata={"identity": False})
    owner: str = field(default="", metadata={"identity": False})
    tags: Sequence[str] = field(default=(), metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check that it serves views, features and derived functions, and that one name is one of them."""
        super().__post_init__()
        where, single = f"service {self.name!r}", isinstance(self.features, FeatureView | ViewFeature | Derived)
        object.__setattr__(self, "features", (self.features,) if single else tuple(self.features))
        object.__setattr__(self, "tags", (self.tags,) if isinstance(self.tags, str) else tuple(self.tags))
        if not self.features:
            raise DefinitionError("a service must serve a feature", where=where, got=0, remedy="Name a view of it")
        definitions: dict[str, FeatureView | Derived] = {}
        for feature in self.features:
            if not isinstance(feature, FeatureView | ViewFeature | Derived):
                raise DefinitionError(
                    "a service must hold views, features of views and derived functions",
                    where=where,
                    got=type(feature).__name__,
                    remedy="Write FeatureService(name, [view, other.feature, function])",
                )
            definition = feature.view if isinstance(feature, ViewFeature) else feature
            if definitions.setdefault(definition.name, definition) != definition:
                raise DefinitionError(
                    "one name in a service must be one definition",
                    where=where,
                    got=definition.name,
                    remedy="Rename one of the two (view.keyed(name=…))",
                )

    @property
    def definitions(self) -> list[FeatureView | Derived]:
        """Views and derived functions that it reads, each once."""
        parts = [feature.view if isinstance(feature, ViewFeature) else feature for feature in self.features]
        return list({part.name: part for part in parts}.values())

    @property
    def feature_names(self) -> list[str]:
        """What it serves, in order: ``view`` or ``function`` for all of its features, ``view.feature`` for one."""
        return [f"{f.view.name}.{f.feature}" if isinstance(f, ViewFeature) else f.name for f in self.features]


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Columns of the decided row itself as features of a model; made by :func:`columns`.

    Parameters
    ----------
    names : tuple of str
        Those columns, in order; empty where all others are meant.
    exclude : tuple of str, optional
        All columns but these. None: those of ``names``.
    """

    names: tuple[str, ...] = ()
    exclude: tuple[str, ...] | None = None

    def among(self, row_columns: Sequence[str]) -> RowColumns:
        """Return the same by name: of all the columns that a row has, those that are meant."""
        if self.exclude is None:
            return self
        return RowColumns(tuple(name for name in row_columns if name not in self.exclude))


def columns(*names: str, exclude: Sequence[str] | None = None) -> RowColumns:
    """Columns of the decided row itself as features of a model, under their own names, of any spelling.

    A request brings them in its context (or as a key of an entity), of the types that the label's table has.

    Parameters
    ----------
    *names : str
        Columns of the label's table.
    exclude : sequence of str, optional
        All columns of the label's table but these, its key, what the label is made of, and what no model reads as it is
        (times, dates, lists). What a row has when the model is trained is what its requests bring. Name here what is
        not known at the decision yet.

    Raises
    ------
    DefinitionError
        If neither names nor ``exclude`` are there, or both, or a name is twice or no text.

    Examples
    --------
    >>> columns("Betrag (EUR)", "class").names
    ('Betrag (EUR)', 'class')
    """
    rest = None if exclude is None else (exclude,) if isinstance(exclude, str) else tuple(exclude)
    listed = names if rest is None else rest
    if (rest is None) != bool(names) or not all(_is_name(name) for name in listed) or len(set(listed)) < len(listed):
        raise DefinitionError(
            "columns must be different names, or all but some of them", where="columns", got=names or rest,
            remedy="Write columns('amount', 'class') or columns(exclude=['comment'])",
        )  # fmt: skip
    return RowColumns(names, rest)
