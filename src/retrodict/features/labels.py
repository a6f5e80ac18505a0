"""What a model learns: labels read from a row itself, and outcomes that the events after a decision decide.

A label is an expression over the row of a table and the time at which it could be known.

An outcome at q is an aggregate over ``[q, q + horizon)``, as it is known at ``q + horizon + wait``. That is a feature
of that later moment over a window that ends ``wait`` before it, so the engines of features compute it, with both
clocks. A fact at exactly q belongs to the outcome, since features stop strictly before q.

As the label of a model an outcome also names the table whose rows are decided on, and what counts as a yes. Rejected: a
label that reads columns of that table beside the aggregate (a condition on the events covers most of it, and what is
known at the decision stays apart from what came after it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, cast

from retrodict.core.definition import Definition
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import Expression, parse
from retrodict.core.kinds import ExpressionKind, expression_kind
from retrodict.core.names import NameUse
from retrodict.core.tasks import Target
from retrodict.data.definitions import Table
from retrodict.data.sources import Source
from retrodict.features.aggregates import Aggregate
from retrodict.features.definitions import Entity, FeatureView
from retrodict.features.monoids import BAGS
from retrodict.features.windows import Window, positive_duration

__all__ = ["Label", "Outcome"]

_OPEN = ("first", "last", "max", "min")  # of these the value is of the column's kind
_LISTS = tuple(sorted(op for op, bag in BAGS.items() if bag.gives in ("map", "values")))


def _check_table(table: object, where: str) -> None:
    """Refuse what cannot say which rows a label is of."""
    if not isinstance(table, Table):
        raise DefinitionError(
            "a label must be of a table",
            where=where,
            got=type(table).__name__,
            remedy="Pass the Table object, not its name",
        )
    if not table.key:
        raise DefinitionError(
            "the table of a label must have a key",
            where=where,
            got=table.name,
            remedy="Say key='id' in the table",
        )


@dataclass(frozen=True)
class Label(Definition):
    """What is to be known of a table's row: a yes or no, a number, or one of several classes.

    What the expression gives decides: true or false is a yes or no, a number is a number (of nothing but 0 and 1, a yes
    or no), text is a class. A model may say another task of the same label.

    Where the expression is unknown (a needed value is null) the row has no outcome: it is neither trained on nor
    evaluated, and monitoring counts it as *void* once it has matured.

    Parameters
    ----------
    name : str
    table : Table
        One row per decided thing.
    expression : str
        What must be true for a yes, like ``"arr_delay > 15"``, or the number or text itself, like ``"arr_delay"``.
    known_at : str, optional
        Time column (or expression) from which on the outcome is known. None: a row has its label or has none, as in a
        table without history; of a model without ``decide_at`` only.
    matures : duration, default "0s"
        How long after the decided moment to wait before an outcome that is still missing counts as void.
    classes : list of str, or of int, optional
        What a class may be called; None takes those of the training rows, sorted. Other values are refused.
    ordered : bool, default False
        Whether the classes go from the lowest to the highest.
    horizons : list of duration, optional
        Makes it a time to an event: the expression is when the event happened (null: not yet), and a model gives the
        probability that it happens within each horizon after the decision. ``known_at`` is then by default that time.
    until : str, optional
        Of a time to an event: time from which on a row was not followed any more. None: all are followed.
    event : str, optional
        Of a table without history: whether the event came at the end of the days that the expression gives.

    Examples
    --------
    >>> churn = Label("churn", Table("subscriptions", key="id"), "cancelled_at", horizons=["30d", "90d"])
    >>> late = Label("late", Table("flights", key="id"), "arr_delay > 15", known_at="arr_time", matures="24h")
    >>> late.parsed.columns
    ('arr_delay',)
    """

    kind: ClassVar[str] = "label"

    table: Table = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    expression: str = ""
    known_at: str | None = None
    matures: str = "0s"
    classes: tuple[str | float, ...] | list[str | float] = ()
    ordered: bool = False
    horizons: tuple[str, ...] | list[str] = ()
    until: str | None = None
    event: str | None = None
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Parse what is written, so that a mistake is found here and not at night."""
        super().__post_init__()
        where = f"label {self.name}"
        _check_table(self.table, where)
        object.__setattr__(self, "horizons", tuple(self.horizons))
        self._check_survival(where)
        if not self.horizons and parse(self.expression, where=where).kind in ("time", "duration"):
            raise DefinitionError("a label must be true or false, a number or a text", where=where, got=self.expression,
                                  remedy="Write a comparison, or a number like 'paid_days'")  # fmt: skip
        if self.known_at is not None and parse(self.known_at, where=f"{where}, known_at").kind not in ("time", None):
            raise DefinitionError("known_at must be a time", where=f"{where}, known_at", got=self.known_at,
                                  remedy="Name a time column")  # fmt: skip
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.classes:
            Target("multiclass", classes=tuple(self.classes))
        if (self.ordered and not self.classes) or len(self.classes) == 1:
            raise DefinitionError("ordered classes must be listed, and be two or more", where=f"{where}, classes",
                                  got=list(self.classes), remedy="Write classes=['low', 'middle', 'high']")  # fmt: skip
        parse_duration(self.matures, where=f"{where}, matures")

    def _check_survival(self, where: str) -> None:
        """Refuse the parts of a time to an event that do not go together, or belong to no other label."""
        if not self.horizons:
            if self.until is not None or self.event is not None:
                raise DefinitionError("a label with until or event must have horizons", where=where, got=None,
                                      remedy="Write horizons=['30d', '90d', '180d']")  # fmt: skip
            return
        Target("survival", horizons=tuple(self.horizons))
        if self.classes or self.matures != "0s":
            raise DefinitionError("a time to an event must have neither classes nor a time to mature", where=where,
                                  got=list(self.classes) or self.matures,
                                  remedy="Leave them out: each horizon matures by itself")  # fmt: skip
        if self.event is not None and (self.until or self.known_at):
            raise DefinitionError("a number of days with its event must have no until and no known_at", where=where,
                                  got=self.until or self.known_at,
                                  remedy="Name the time of the event, or leave them out")  # fmt: skip
        kinds = ("number", None) if self.event is not None else ("time", None)
        if self.parsed.kind not in kinds:
            raise DefinitionError(f"the expression of this label must be a {kinds[0]}", where=where,
                                  got=self.expression,
                                  remedy="Name the time of the event, or the days with event='died'")  # fmt: skip
        for name, expression, kind in (("until", self.until, "time"), ("event", self.event, "bool")):
            if expression is not None and parse(expression, where=f"{where}, {name}").kind not in (kind, None):
                raise DefinitionError(f"{name} must be {'a time' if kind == 'time' else 'true or false'}",
                                      where=f"{where}, {name}", got=expression,
                                      remedy="Name a column, or write an expression over the row")  # fmt: skip

    def check(self) -> None:
        """Refuse an expression that does not fit the declared columns, or is of times or days."""
        kinds = {name: self.table.type_of(name) for name in self.parsed.columns}
        declared = {name: expression_kind(kind.kind) for name, kind in kinds.items() if kind is not None}
        where = f"label {self.name}"
        self.parsed.check_columns({name: declared.get(name) for name in kinds}, where=where)
        if self.horizons:
            kind, rule = ("number", "days") if self.event is not None else ("time", "a time")
            if self.parsed.text in kinds and declared.get(self.parsed.text) not in (kind, None):
                raise DefinitionError(f"the expression of this label must be {rule}", where=where,
                                      got={self.parsed.text: self.table.columns[self.parsed.text]},
                                      remedy="Name the time of the event, or the days with event='died'")  # fmt: skip
            return
        if self.parsed.text in kinds and declared.get(self.parsed.text) not in ("bool", "number", "text", None):
            raise DefinitionError(
                "a label must be true or false, a number or a text",
                where=where,
                got={self.parsed.text: self.table.columns[self.parsed.text]},
                remedy=f"Write a comparison, like \"{self.parsed.text} > '2024-01-01'\"",
            )

    @property
    def value_kind(self) -> ExpressionKind | None:
        """What the expression gives, as far as the text and the declared columns tell."""
        declared = self.table.type_of(self.parsed.text) if self.parsed.kind is None else None
        return cast("ExpressionKind | None", self.parsed.kind) if declared is None else expression_kind(declared.kind)

    def uses(self) -> Iterator[NameUse]:
        """Columns of its table that say what and when."""
        rule = f"a label must read columns that the table {self.table.name!r} has"
        parts = (("expression", self.parsed), ("known_at", self.parsed_known_at), *self.more.items())
        for part, expression in parts:
            if expression is None:
                continue
            where = f"label {self.name}, {part}"
            yield from (NameUse("column", name, rule, where, self.table.name) for name in expression.columns)

    def __identity__(self) -> dict[str, Any]:
        """Everything that decides which rows are a yes and when; another check on the table is no other label."""
        return {
            "kind": "Label",
            "name": self.name,
            "table": self.table.name,
            "expression": self.parsed,
            "known_at": self.parsed_known_at,
            "matures": self.maturity,
            **({"classes": self.classes, "ordered": self.ordered} if self.classes else {}),
            **({"horizons": self.horizons, **self.more} if self.horizons else {}),
        }

    @cached_property
    def parsed(self) -> Expression:
        """The expression, parsed."""
        return parse(self.expression, where=f"label {self.name}")

    @cached_property
    def parsed_known_at(self) -> Expression | None:
        """When the outcome is known, parsed; None where the label does not say. An event is known when it happens."""
        if self.known_at is None and self.horizons and self.event is None:
            return self.parsed
        return None if self.known_at is None else parse(self.known_at, where=f"label {self.name}, known_at")

    @cached_property
    def more(self) -> dict[str, Expression]:
        """What else a time to an event is read from, parsed: ``until`` or ``event``."""
        texts = {"until": self.until, "event": self.event}
        return {name: parse(text, where=f"label {self.name}, {name}") for name, text in texts.items() if text}

    @property
    def maturity(self) -> int:
        """Microseconds after the decided moment at which a missing outcome counts as void."""
        return parse_duration(self.matures)


@dataclass(frozen=True)
class Outcome(Definition):
    """What happened to an entity within a time after a decision.

    Parameters
    ----------
    name : str
        Name of the outcome.
    entity : Entity
        To whom it happens.
    source : Source
        The facts that say so.
    aggregate : Aggregate
        What is computed of them; its one window is the horizon, like ``agg.count(over="30d")``.
    wait : str, optional
        How long after the horizon to wait for facts that become known late. None: not at all.
    table : Table, optional
        As the label of a model: whose rows are decided on. It has a key, the entity's key columns, and what the model's
        ``decide_at`` reads. None: the outcome is no label.
    expression : str, optional
        As the label of a model: what must be true for a yes, over the aggregate by its name, like
        ``"count_30d = 0"``. Where it is unknown (no fact gives a value) there is no outcome.
    description : str, optional
        For people; not part of the version.

    Examples
    --------
    >>> from retrodict.features.aggregates import agg
    >>> loans, paid = Table("loans", key="id"), Source("paid", Table("payments"), event_time="paid_at")
    >>> repaid = agg.sum("amount", over="30d", name="paid")
    >>> label = Outcome("repaid", Entity("customer"), paid, repaid, wait="2d", table=loans, expression="paid >= 100")
    >>> label.maturity // 86_400_000_000
    32
    """

    kind: ClassVar[str] = "outcome"

    entity: Entity = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    source: Source = None  # type: ignore[assignment]  # as above
    aggregate: Aggregate = None  # type: ignore[assignment]  # as above
    wait: str | None = None
    table: Table = None  # type: ignore[assignment]  # None where the outcome is no label
    expression: str | None = None
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Check that the horizon is one plain window, and that a label is yes or no."""
        super().__post_init__()
        where = f"outcome {self.name!r}"
        self._check_aggregate(where)
        if self.wait is not None:
            object.__setattr__(self, "wait", positive_duration(self.wait, f"{where}, wait"))
        _ = self.view  # its own checks of entity and source
        if self.labels != (self.expression is not None):
            raise DefinitionError(
                "an outcome that is a label must have both a table and an expression",
                where=where,
                got="no expression" if self.labels else "no table",
                remedy=f"Say table=… and expression='{self.value} > 0', both or neither",
            )
        if self.labels:
            self._check_label(where)

    def _check_aggregate(self, where: str) -> None:
        aggregate: object = self.aggregate
        if not isinstance(aggregate, Aggregate):
            raise DefinitionError(
                "an outcome must be one aggregate",
                where=where,
                got=type(aggregate).__name__,
                remedy="Write it like agg.count(over='30d')",
            )
        window = aggregate.over[0]
        plain = (
            len(aggregate.over) == 1
            and window.units is None
            and window == Window(window.length)
            and not window.lifetime
        )
        if not plain or aggregate.op == "rate":
            raise DefinitionError(
                "the horizon of an outcome must be one plain window",
                where=where,
                got=[span.name for span in aggregate.over],
                remedy="Write it like agg.count(over='30d')",
            )
        source: object = self.source
        if isinstance(source, Source) and source.timeless:
            raise DefinitionError(
                "an outcome within a time must have facts with a time",
                where=f"{where}, source {source.name!r}",
                got=aggregate.names()[0],
                remedy="Give the source event_time=",
            )

    def _check_label(self, where: str) -> None:
        _check_table(self.table, where)
        if self.aggregate.op in _LISTS:
            raise DefinitionError(
                "a label must be made of one value, not of a list or a map",
                where=where,
                got=self.aggregate.op,
                remedy="Use agg.count, agg.sum, agg.max or another aggregate that gives one value",
            )
        kind: ExpressionKind | None = None if self.aggregate.op in _OPEN else "number"
        self.parsed.check_columns({self.value: kind}, where=where)
        if self.parsed.kind not in ("bool", "number", None):
            raise DefinitionError(
                "a label must be true or false, or a number",
                where=where,
                got=self.expression,
                remedy=f"Write a comparison like '{self.value} > 0'",
            )

    def uses(self) -> Iterator[NameUse]:
        """What its view reads, and the keys of its entity in the table whose rows are decided on."""
        for use in self.view.uses():
            yield replace(use, where=use.where.replace("view", "outcome", 1))
        if self.labels:
            rule = f"an outcome must find the keys of its entity in the table {self.table.name!r}"
            where = f"outcome {self.name!r}"
            yield from (NameUse("column", key, rule, where, self.table.name) for key in self.entity.keys)

    def __identity__(self) -> dict[str, Any]:
        """Everything that decides what it is of each row; another check on the table is no other outcome."""
        return {
            "kind": "Outcome",
            "name": self.name,
            "entity": self.entity,
            "source": self.source,
            "aggregate": self.aggregate,
            "wait": self.wait,
            "table": self.table.name if self.labels else None,
            "expression": None if self.expression is None else self.parsed,
        }

    @property
    def value_kind(self) -> ExpressionKind | None:
        """What the expression gives, as far as the text and the aggregate tell."""
        plain = self.parsed.text == self.value and self.aggregate.op not in _OPEN
        return "number" if plain else cast("ExpressionKind | None", self.parsed.kind)

    @property
    def classes(self) -> tuple[str | float, ...]:
        """None that are listed."""
        return ()

    @property
    def horizons(self) -> tuple[str, ...]:
        """None: an outcome is what happens within its one horizon."""
        return ()

    @property
    def labels(self) -> bool:
        """Whether it can be the label of a model."""
        table: object = self.table
        return table is not None

    @property
    def value(self) -> str:
        """Name of the aggregate, as the expression uses it."""
        return self.aggregate.names()[0]

    @cached_property
    def parsed(self) -> Expression:
        """The expression, parsed."""
        return parse(self.expression or "", where=f"outcome {self.name!r}")

    @property
    def view(self) -> FeatureView:
        """The view that computes it at the moment it matures; its one feature has the name of the aggregate."""
        window = replace(self.aggregate.over[0], offset=self.wait)
        aggregate = replace(self.aggregate, over=(window,), label=self.value)
        return FeatureView(self.name, self.entity, self.source, [aggregate])

    @property
    def maturity(self) -> int:
        """Microseconds from the decision to the moment the outcome is known."""
        return self.aggregate.over[0].length_us + (0 if self.wait is None else parse_duration(self.wait))
