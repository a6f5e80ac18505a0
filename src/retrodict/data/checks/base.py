"""What every check has in common: its rule, what it reads, how bad a failure is, and which rows it is about.

A check is immutable typed data and runs nothing. What a rule *means* is said once: rules on single rows are expressions
of the house language (``Check.condition``), so that a scan of a batch, one row in a server, and SQL agree by
construction; rules on numbers of a batch are a :class:`~retrodict.data.measures.Measure` and two bounds
(``Check.measure``). Only rules that need other rows, other versions or other tables have code of their own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Self, TypedDict, TypeVar

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.names import NameUse

__all__ = ["How", "Layer", "CheckKind", "OnUnknown", "RULES", "Scope", "Severity", "CheckBase", "column_text",
           "literal_text"]  # fmt: skip

Severity = Literal["critical", "high", "medium", "low"]
OnUnknown = Literal["halt", "warn", "pass"]
Layer = Literal["schema", "statistical", "business", "learning"]
# row: decided by one row alone; rows: by a row among others; columns: by names and types; measure: by a number of the
# batch; versions: by that number and those of earlier versions; reference: by other data.
Scope = Literal["row", "rows", "columns", "measure", "versions", "reference"]

Name = TypeVar("Name", bound=str)
_UNSHOWN = ("values", "pattern", "low", "high")
_SEVERITIES = ("critical", "high", "medium", "low")
_ON_UNKNOWN = ("halt", "pass", "warn")


class How(TypedDict, total=False):
    """What every kind of check takes beside its own arguments.

    severity : {"critical", "high", "medium", "low"}, default "medium"
    tolerance : float, default 0.0
        Share of the rows, 0 to 1, that may fail.
    where : str
        Condition on the rows it is about; the others pass.
    by : str or list of str
        Columns to group by: it must hold in every group.
    on_unknown : {"halt", "warn", "pass"}
        What comes of a batch on which it cannot be evaluated; "halt" if critical or high, else "pass".
    """

    severity: Severity
    tolerance: float
    where: str | None
    by: str | list[str] | tuple[str, ...]
    on_unknown: OnUnknown | None


@dataclass(frozen=True, slots=True)
class CheckKind:
    """One kind of check: in which layer it belongs, and what decides it."""

    layer: Layer
    scope: Scope


_RULES_OF: dict[Layer, dict[Scope, str]] = {
    "schema": {
        "columns": "columns_exist columns_match has_type",
        "row": "not_null is_null finite between in_set not_in_set matches length time_between not_in_future",
        "rows": "unique primary_key monotone",
    },
    "statistical": {
        "measure": "row_count null_rate distinct_count distinct_share mean median std min max sum quantile entropy "
        "correlation freshness",
        "versions": "stable",
    },
    "business": {
        "row": "sql compare required_if sum_equals",
        "measure": "share",
        "rows": "references near_duplicates determines",
    },
    "learning": {
        "reference": "drift label_drift correlation_flip",
        "measure": "label_rate leakage",
        "row": "known_before",
        "rows": "disjoint",
    },
}
RULES = {
    rule: CheckKind(layer, scope)
    for layer, scopes in _RULES_OF.items()
    for scope, rules in scopes.items()
    for rule in rules.split()
}


def column_text(name: str) -> str:
    """Return a column's name as it stands in an expression."""
    return '"' + name.replace('"', '""') + '"'


def literal_text(value: object) -> str:
    """Return a constant as it stands in an expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


@dataclass(frozen=True)
class CheckBase:
    """Fields and manners of a check; :class:`~retrodict.Check` adds one class method per rule.

    Parameters
    ----------
    rule : str
        One of ``RULES``.
    columns : tuple of str
        What the rule reads.
    options : tuple of (str, value)
        What else it needs, by name, sorted.
    severity : str, default "medium"
    tolerance : float, default 0.0
    where : str, optional
        Condition on the rows it is about, in canonical text.
    by : tuple of str
        Columns to group by.
    on_unknown : {"halt", "warn", "pass"}, optional
        What comes of a batch on which it cannot be evaluated: it is not published; it is, and health counts the check
        as failed; it is, and health leaves the check out. None is "halt" for a critical or high check, else "pass".
    """

    rule: str
    columns: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    severity: Severity = "medium"
    tolerance: float = 0.0
    where: str | None = None
    by: tuple[str, ...] = ()
    on_unknown: OnUnknown | None = field(default=None, metadata={"identity": "if set"})

    def __new__(cls, *_: Any, **keywords: Any) -> Self:
        """Refuse a keyword that no field has, with the nearest one."""
        check_keywords(keywords, {field.name for field in fields(cls)}, where="check")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check the check."""
        one_of(self.rule, RULES, "rule", "check")
        where = f"check {self.title}"
        one_of(self.severity, _SEVERITIES, "severity", where)
        if self.on_unknown is not None:
            one_of(self.on_unknown, _ON_UNKNOWN, "on_unknown", where)
        number_from(self.tolerance, 0.0, 1.0, "a tolerance must be a share from 0 to 1", where)
        names: tuple[object, ...] = (*self.columns, *self.by)
        if not all(isinstance(column, str) and column for column in names):
            raise DefinitionError("columns must be named by text", where=where, got=names, remedy="Name the columns")
        if not self.columns and "row_count" not in (self.rule, self.option("measure")):
            raise DefinitionError(
                "a check must read at least one column", where=where, got=self.columns, remedy="Name the columns"
            )
        if self.by and self.scope not in ("row", "measure"):
            raise DefinitionError(
                "a check with groups must be one of rows or of a number of the batch",
                where=where,
                got=list(self.by),
                remedy="Leave 'by' out, or give the check a 'where'",
            )

    @classmethod
    def make(cls, rule: str, columns: Iterable[str], how: How, **options: Any) -> Self:
        """Make a check of a rule; options that are None are left out."""
        arguments = inspect.signature(getattr(cls, rule)).parameters
        check_keywords(how, {*How.__annotations__, *arguments} - {"how"}, where=f"check {rule}")
        by, where = how.get("by", ()), how.get("where")
        return cls(
            rule,
            tuple(columns),
            tuple(sorted((name, value) for name, value in options.items() if value is not None)),
            how.get("severity", "medium"),
            how.get("tolerance", 0.0),
            None if where is None else condition(where, f"check {rule}, where").text,
            (by,) if isinstance(by, str) else tuple(by),
            how.get("on_unknown"),
        )

    def option(self, name: str, default: Any = None) -> Any:
        """Return what the check says of one of its options."""
        return next((value for key, value in self.options if key == name), default)

    @property
    def layer(self) -> Layer:
        """The layer of validation it belongs to."""
        return RULES[self.rule].layer

    @property
    def scope(self) -> Scope:
        """What decides it."""
        return RULES[self.rule].scope

    @property
    def halts(self) -> bool:
        """Whether failing beyond the tolerance stops the batch."""
        return self.severity in ("critical", "high")

    @property
    def when_unknown(self) -> OnUnknown:
        """What comes of a batch on which it cannot be evaluated."""
        return self.on_unknown or ("halt" if self.halts else "pass")

    @property
    def sets_aside(self) -> bool:
        """Whether failing rows go to quarantine."""
        return self.severity != "low" and self.scope in ("row", "rows")

    @cached_property
    def title(self) -> str:
        """Name in reports, readable and without values of data."""
        if self.rule == "sql":
            arguments = self.option("expression")
        else:
            parts = [str(column) for column in self.columns]
            parts += [_shown(name, value) for name, value in self.options if name not in _UNSHOWN]
            if self.option("low") is not None or self.option("high") is not None:
                parts += [str(self.option("low")), str(self.option("high"))]
            arguments = ", ".join(parts)
        text = f"{self.rule}({arguments})"
        if self.by:
            text += f" by {', '.join(self.by)}"
        return text if self.where is None else f"{text} where {self.where}"

    @cached_property
    def filter(self) -> Expression | None:
        """``where``, parsed."""
        return None if self.where is None else condition(self.where, f"check {self.rule}, where")

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Every column it needs, those of its condition on rows and of its groups too."""
        filtered = () if self.filter is None else self.filter.columns
        return tuple(dict.fromkeys((*self.columns, *filtered, *self.by)))

    def uses(self, table: str) -> Iterator[NameUse]:
        """Columns it reads in the table it is a check of, and the other table it looks into, with its columns."""
        where = f"table {table}, check {self.title}"
        if self.scope != "columns":  # whether there are such columns is what those ask
            rule = "a check must read columns that exist"
            yield from (NameUse("column", name, rule, where, table) for name in self.reads)
        # NAME@VERSION, or the table that keeps another one's rows: NAME__quarantine.
        against = str(self.option("against", ""))
        other = self.option("table", against if "@" in against else "").partition("@")[0]
        if other:
            rule = "a check must look into a table that is defined"
            yield NameUse("table", other.partition("__")[0], rule, where)
        rule = "the other table must have the column"
        yield from (NameUse("column", name, rule, where, other) for name in self.option("to", ()))


def _shown(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{name}={'/'.join(map(str, value))}"
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def condition(text: str, where: str) -> Expression:
    """Parse what is true or false of a row."""
    parsed = parse(text, where=where)
    if parsed.kind not in ("bool", None) or not parsed.columns:
        raise DefinitionError(
            "a condition must be true or false, and must read at least one column", where=where, got=text,
            remedy="Write a comparison like \"carrier = 'B6'\", or a bool column",
        )  # fmt: skip
    return parsed


def check_keywords(keywords: Iterable[str], names: Iterable[str], *, where: str) -> None:
    """Raise DefinitionError for the first keyword that is not among the names."""
    known_names = set(names)
    for keyword in keywords:
        check_known(
            keyword,
            known_names,
            "a keyword must be one that it takes",
            where=where,
            what="keyword",
            error=DefinitionError,
        )


def one_of(name: Name, names: Collection[str], what: str, where: str) -> Name:
    """Return a name that is among some; what it names stands in the message."""
    check_known(str(name), names, f"the {what} must be one that exists", where=where, what=what, error=DefinitionError)
    return name


def number_from(value: Any, low: float, high: float, rule: str, where: str) -> float:
    """Return a number that lies in a range."""
    if not is_number(value) or not low <= value <= high:
        raise DefinitionError(rule, where=where, got=value, remedy=f"Write a number like {low + min(high, 1.0) / 20:g}")
    return float(value)


def is_number(value: object) -> bool:
    """Whether a value can stand in SQL as a number: finite, and a whole one within 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)


def check_bounds(low: object, high: object, where: str, *, what: str = "numbers") -> None:
    """Refuse bounds of which none is given, one is no finite number, or the lower is above the upper one."""
    bounds = [value for value in (low, high) if value is not None]
    if not bounds or not all(is_number(value) for value in bounds):
        raise DefinitionError(
            f"{where.rsplit(maxsplit=1)[-1]} must have one or two finite {what}",
            where=where,
            got=(low, high),
            remedy="Write None for an open side; compare times with Check.time_between, texts with Check.sql",
        )
    if low is not None and high is not None and low > high:  # type: ignore[operator]  # both are numbers
        raise DefinitionError(
            "the lower bound must not be above the upper one", where=where, got=(low, high), remedy="Swap the two"
        )
