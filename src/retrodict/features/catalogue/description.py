"""What the features of a project are, in words: found by search, traced to the columns they read, held to a schema.

Everything is read from the definitions as they are; nothing is kept beside them. A catalogue of its own, filled when
definitions are applied, was rejected: it is one more thing that can be out of date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from retrodict.core.errors import InputError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.features.definitions import Aggregate, FeatureService, FeatureView, Latest, computed_inputs
from retrodict.features.derived import Derived
from retrodict.features.monoids import AGGREGATES, BAGS
from retrodict.features.plan import FeatureSet, column_name

__all__ = [
    "ColumnUse",
    "FeatureFacts",
    "describe",
    "lineage",
    "search",
    "select",
    "service_features",
    "view_columns",
]

Defined = FeatureView | Derived | FeatureService

# Of these the smallest or largest of times is a time; no other total of times means anything.
_ORDERED = ("min", "max")


@dataclass(frozen=True, slots=True)
class ColumnUse:
    """A column of a source's table and what it is read for.

    Attributes
    ----------
    column : str
        Its name.
    roles : tuple of str
        Among ``key``, ``event time``, ``known at``, ``sequence``, ``source condition``, ``deletion``, ``value``,
        ``condition``.
    """

    column: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """One feature of a view, field by field.

    Attributes
    ----------
    name : str
        Without the view's.
    fields : dict of str to str
        What says which feature it is: ``aggregate``, ``column``, ``second column``, ``window``, ``max_age``,
        ``where`` and the options of its aggregate, each as it is written; those it has.
    columns : tuple of (str, str)
        Columns it reads and the role of each: ``value``, ``group``, ``condition``, or ``operand`` of an expression.
    takes : str
        What its value may be: ``nothing``, ``numbers``, ``numbers or times``, ``anything``, ``condition``.
    computed : tuple of str
        Those of its inputs that are expressions.
    """

    name: str
    fields: dict[str, str]
    columns: tuple[tuple[str, str], ...]
    takes: str
    computed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the feature as a short sentence: ``mean of arr_delay over 2h where origin <> 'LGA'``."""
        parts = dict(self.fields)
        aggregate = parts.pop("aggregate")
        text = parts.pop("op") if aggregate == "by" else aggregate
        second = "to" if aggregate == "ratio" else "by"
        words = {"column": "of", "second column": second, "window": "over", "max_age": "at most", "where": "where"}
        for name, word in words.items():
            if name in parts:
                text += f" {word} {parts.pop(name)}"
        return text + "".join(f", {name} {value}" for name, value in parts.items())


def describe(view: FeatureView) -> list[FeatureFacts]:
    """Features of a view, in order.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from retrodict.data.sources import Source
    >>> from retrodict.features.definitions import Entity, agg
    >>> landed = Source("landed", SimpleNamespace(name="flights"), event_time="arr_time")
    >>> view = FeatureView("delays", Entity("origin"), landed, [agg.mean("arr_delay", over="2h")])
    >>> [str(each) for each in describe(view)]
    ['mean of arr_delay over 2h']
    """
    computed = computed_inputs(view)
    return [facts for feature in view.features for facts in _facts(feature, computed)]


def _facts(feature: Aggregate | Latest, computed: Mapping[str, Expression]) -> Iterator[FeatureFacts]:
    if isinstance(feature, Latest):
        for column, name in zip(feature.columns, feature.names(), strict=True):
            age = {} if feature.max_age is None else {"max_age": feature.max_age}
            yield FeatureFacts(name, {"aggregate": "latest", "column": column, **age}, ((column, "value"),), "anything")
        return
    kind = AGGREGATES.get(feature.op) or BAGS[feature.op]
    fields = {"aggregate": feature.op.removesuffix("_by")}
    read: list[tuple[str, str]] = []
    if feature.op == "share":
        fields["column"] = parse(feature.value or "").text
    elif feature.value is not None:
        fields["column"] = feature.value
    if feature.second is not None:
        fields["second column"] = feature.second
    for text in feature.inputs:
        role = "group" if feature.op == "by" and text == feature.second else "value"
        read += [(column, "operand") for column in computed[text].columns] if text in computed else [(text, role)]
    read += [(column, "condition") for text in feature.conditions for column in parse(text).columns]
    takes = "numbers or times" if feature.op in _ORDERED else kind.takes
    options = {name: str(value) for name, value in feature.options}
    where = {} if feature.where is None else {"where": parse(feature.where).text}
    expressions = tuple(text for text in feature.inputs if text in computed)
    for window, name in zip(feature.over, feature.names(), strict=True):
        described = {**fields, "window": window.name, **where, **options}
        yield FeatureFacts(name, described, tuple(dict.fromkeys(read)), takes, expressions)


def lineage(view: FeatureView, feature: str | None = None) -> list[ColumnUse]:
    """Columns of the source's table behind a view, or behind one of its features, each with its roles.

    Parameters
    ----------
    view : FeatureView
    feature : str, optional
        Name of a feature, without the view's. None: all of them.

    Raises
    ------
    InputError
        If the view has no such feature; the message has near names.
    """
    by_name = {facts.name: facts for facts in describe(view)}
    if feature is not None:
        _check_feature(view.name, feature, by_name)
    roles: dict[str, dict[str, None]] = {}
    for column, role in view_columns(view):
        roles.setdefault(column, {})[role] = None
    for facts in by_name.values() if feature is None else [by_name[feature]]:
        for column, role in facts.columns:
            roles.setdefault(column, {})["value" if role in {"group", "operand"} else role] = None
    return [ColumnUse(column, tuple(names)) for column, names in roles.items()]


def view_columns(view: FeatureView) -> Iterator[tuple[str, str]]:
    """Columns that every feature of the view rests on."""
    source = view.source
    yield from ((key, "key") for key in view.key_columns)
    for column, role in (
        (source.event_time, "event time"), (source.known_at, "known at"), (source.sequence, "sequence"),
    ):  # fmt: skip
        if column is not None:
            yield column, role
    for text, role in ((source.where, "source condition"), (source.deleted, "deletion")):
        if text is not None:
            yield from ((column, role) for column in parse(text).columns)


def search(
    features: Iterable[Defined],
    text: str | None = None,
    *,
    owner: str | None = None,
    tag: str | None = None,
) -> list[Defined]:
    """Views, derived functions and services that fit, in order; upper and lower case are the same.

    Parameters
    ----------
    features : iterable of FeatureView, Derived or FeatureService
    text : str, optional
        Words that must all occur, anywhere in names, what the features are, description, owner, tags, source, table
        or columns.
    owner, tag : str, optional
        Owner and tag, whole; derived functions have none.
    """
    words = (text or "").lower().split()
    return [
        feature
        for feature in features
        if all(word in _words(feature) for word in words)
        and (owner is None or str(getattr(feature, "owner", "")).lower() == owner.lower())
        and (tag is None or tag.lower() in [label.lower() for label in getattr(feature, "tags", ())])
    ]


def _words(feature: Defined) -> str:
    if isinstance(feature, FeatureService):
        parts = [feature.name, *feature.feature_names, feature.description, feature.owner, *feature.tags]
    elif isinstance(feature, Derived):
        parts = [feature.name, *(column_name(feature.name, output) for output in feature.outputs), *feature.inputs]
    else:
        parts = [feature.name, *(column_name(feature.name, name) for name in feature.feature_names)]
        parts += [str(facts) for facts in describe(feature)]
        parts += [feature.description, feature.owner, *feature.tags, *feature.request_keys]
        parts += [feature.entity.name] if feature.entity else []
        parts += [feature.source.name, feature.source.table.name, *(use.column for use in lineage(feature))]
    return "\n".join(parts).lower()


def select(features: Sequence[FeatureView | Derived], names: Sequence[str]) -> tuple[FeatureSet, list[str]]:
    """Feature set that computes what is wanted, and the wanted columns in their order.

    Parameters
    ----------
    features : sequence of FeatureView or Derived
        Those there are.
    wanted : sequence of str
        Each ``view.feature``, ``view__feature``, or ``view`` for all of its features; derived functions alike.

    Raises
    ------
    InputError
        If nothing is wanted, or a name is unknown; the message has near names.
    """
    if not names:
        raise InputError("at least one feature must be named", where="features", got=0, remedy="Write view.feature,…")
    by_name = {feature.name: feature for feature in features}
    columns: dict[str, None] = {}
    for text in names:
        columns |= dict.fromkeys(_columns(text, by_name))
    needed: dict[str, FeatureView | Derived] = {}
    for column in columns:
        _need(column.partition("__")[0], by_name, needed)
    return FeatureSet(needed.values()), list(columns)


def service_features(service: FeatureService) -> tuple[FeatureSet, list[str]]:
    """Feature set that computes what a service serves, and the columns it serves, in order."""
    return select(service.definitions, service.feature_names)


def _check_feature(view: str, feature: str, names: Collection[str]) -> None:
    rule, where = "the view must have this feature", f"view {view!r}"
    check_known(feature, names, rule, where=where, what="feature", error=InputError)


def _columns(text: str, by_name: Mapping[str, FeatureView | Derived]) -> list[str]:
    name, dot, feature = text.partition("." if "." in text else "__")
    rule = "the view or derived function must be defined"
    check_known(name, by_name, rule, where="features", what="view", error=InputError)
    definition = by_name[name]
    outputs = list(definition.outputs) if isinstance(definition, Derived) else definition.feature_names
    if dot:
        if isinstance(definition, FeatureView):
            feature = definition.find_feature(feature) or feature
        _check_feature(name, feature, outputs)
    return [column_name(name, output) for output in ([feature] if dot else outputs)]


def _need(name: str, by_name: Mapping[str, FeatureView | Derived], needed: dict[str, FeatureView | Derived]) -> None:
    """Add a view or function after everything it reads itself."""
    definition = by_name[name]
    if isinstance(definition, Derived):
        for column in definition.inputs:
            if (other := column.partition("__")[0]) != column and other in by_name and other not in needed:
                _need(other, by_name, needed)
    needed.setdefault(name, definition)
