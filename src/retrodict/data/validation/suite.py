"""One table's checks, bound to the columns of one batch: what there is to count, and in which of the ways.

This is the compiler. Every check of rows becomes a :class:`RowTest` (an expression a row must not make false), every
check of a number a :class:`~retrodict.data.measures.Measure`; the scan, the one-row function and SQL are made from the
same two. The rest (keys, other tables, other versions) is left as the check itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.kinds import ExpressionKind
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.measures import Measure
from retrodict.data.validation._casts import Cast
from retrodict.data.validation._typed import spoiled

__all__ = ["BoundCheck", "Suite", "check_columns", "compile_suite", "label_name"]


@dataclass(frozen=True, slots=True)
class BoundCheck:
    """One check of the suite, with the title it has in this suite.

    Attributes
    ----------
    title : str
    check : Check
    test : Expression, optional
        What a row must not make false, for checks of single rows.
    spoiled : str, optional
        Instead of a test: the column that is true where a value did not have its type.
    measure : Measure, optional
        The number that is judged.
    """

    title: str
    check: Check
    test: Expression | None = None
    spoiled: str | None = None
    measure: Measure | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """All checks of a table on a batch with these columns.

    Attributes
    ----------
    checks : list of BoundCheck
    labels : mapping of str to Expression
        Columns to be added before measuring: labels of layer 4, true, false or null.
    kinds : mapping of str to kind
    """

    checks: list[BoundCheck]
    labels: Mapping[str, Expression]
    kinds: Mapping[str, ExpressionKind | None]


def compile_suite(table: Table, schema: pa.Schema, casts: Mapping[str, Cast], *, now: int) -> Suite:
    """Bind a table's checks to the columns of a batch.

    Parameters
    ----------
    table : Table
    schema : pyarrow.Schema
        The batch as it arrives.
    casts : mapping of str to Cast
    now : int
        Moment of the check, microseconds UTC.

    Raises
    ------
    DefinitionError
        If a check reads a column that is missing or of another kind.
    """
    binder = _Binder(table, schema, casts, now)
    typed = [
        BoundCheck(
            f"type({name}, {table.columns.get(name, 'time')})", Check("not_null", (name,)), spoiled=spoiled(place)
        )
        for place, (name, cast) in enumerate(casts.items())
        if cast.spoils
    ]
    checks = [*typed, *(binder.bind(check) for check in [*_implied(table), *table.checks])]
    return Suite(_numbered(checks), binder.labels, binder.kinds)


def _implied(table: Table) -> list[Check]:
    """The checks of a key, unless the definition has them itself and sets rows aside by them."""
    if not table.key:
        return []
    keys = tuple(table.key)
    declared = {(check.rule, check.columns) for check in table.checks if check.sets_aside and check.where is None}
    if ("primary_key", keys) in declared:
        return []
    implied = [Check.not_null(*keys), Check.unique(*keys)]
    return [check for check in implied if (check.rule, check.columns) not in declared]


def label_name(text: str) -> str:
    """Name of the column that a label of layer 4 has in the scan."""
    return f"_label {text}"


_ANY_KIND = ("row_count", "null_rate", "distinct_count", "distinct_share", "entropy")


class _Binder:
    """The columns of a batch, to which checks are bound one by one; labels are gathered."""

    def __init__(self, table: Table, schema: pa.Schema, casts: Mapping[str, Cast], now: int) -> None:
        self._name, self._schema, self._casts, self._now = table.name, schema, casts, now
        self.kinds = {name: cast.kind for name, cast in casts.items()}
        self.labels: dict[str, Expression] = {}

    def bind(self, check: Check) -> BoundCheck:
        """One check with its test and its measure."""
        where = f"table {self._name}, check {check.title}"
        if check.scope == "columns":
            return BoundCheck(check.title, check)
        for name in check.reads:
            check_known(
                name,
                self._schema.names,
                "a check must read columns that exist",
                where=where,
                what="column",
                error=DefinitionError,
            )
        test = check.condition_at(self._now)
        for condition in (test, check.filter):
            if condition is not None:
                self._check_kinds(condition, where)
        if check.option("label") is not None:
            label = self._check_kinds(parse(check.option("label"), where=where), where)
            self.labels.setdefault(label_name(label.text), label)
        return BoundCheck(check.title, check, test=test, measure=self._measure(check, where))

    def _measure(self, check: Check, where: str) -> Measure | None:
        rule = check.option("measure", check.rule)
        if check.scope not in ("measure", "versions"):
            return None
        if rule in ("share", "label_rate"):
            parsed = parse(check.option("expression") or check.option("label"), where=where)
            return Measure("share", (), None, check.filter, self._check_kinds(parsed, where))
        if rule == "leakage":
            columns = (check.option("column"), label_name(check.option("label")))
            return Measure("auc", columns, None, check.filter)
        expected: tuple[ExpressionKind, ...] = ("time", "date") if rule == "freshness" else ("number",)
        for name in check.columns:
            if rule not in _ANY_KIND and self.kinds[name] not in expected:
                raise DefinitionError(
                    f"{rule} must be taken of a column that is a {expected[0]}", where=where,
                    got=f"a column of kind {self.kinds[name] or 'other'}",
                    remedy=self._declare([name]) or "Choose another column, or declare its type",
                )  # fmt: skip
        return Measure(rule, check.columns, check.option("q"), check.filter)

    def _check_kinds(self, expression: Expression, where: str) -> Expression:
        try:
            expression.check_columns({name: self.kinds.get(name) for name in expression.columns}, where=where)
        except DefinitionError as error:
            remedy = self._declare(expression.columns) or error.remedy
            raise DefinitionError(error.rule, where=where, got=error.got, remedy=remedy) from error
        return expression

    def _declare(self, names: Sequence[str]) -> str | None:
        """Remedy for a CSV column that is still text."""
        open_ = [name for name in names if self._casts[name].kind == "text" and not self._casts[name].declared]
        return f"Declare the type: columns={{{open_[0]!r}: 'float'}} (or int, bool, date, time)" if open_ else None


def _numbered(checks: list[BoundCheck]) -> list[BoundCheck]:
    """Checks whose titles differ: two sets allowed in one column read alike."""
    seen: dict[str, int] = {}
    numbered = []
    for bound in checks:
        seen[bound.title] = place = seen.get(bound.title, 0) + 1
        numbered.append(bound if place == 1 else replace(bound, title=f"{bound.title} #{place}"))
    return numbered


def check_columns(names: list[str], table: Table) -> None:
    """Refuse a batch whose columns are not those of the definition.

    Names are shown only once some of them are known to be names: a file without a header has data in their place.
    """
    where = f"table {table.name}"
    required = {**dict.fromkeys(table.key, "key"), **{c: "declared" for c in table.columns if c not in table.key}}
    read = [name for check in table.checks for name in check.reads]
    if (required or read) and not {*required, *read} & set(names):
        expected = ", ".join(list(dict.fromkeys([*required, *read]))[:5])
        raise InputError(
            "a batch must have the columns of its table, by name",
            where=where,
            got=f"{len(names)} columns, none of them known",
            remedy=f"Check that the file begins with a header that has {expected}",
        )
    for name, what in required.items():
        check_known(
            name, names, f"the {what} column must be in the batch", where=where, what="column", error=InputError
        )
    lowered = [name.lower() for name in names]
    twice = sorted({name for name in names if lowered.count(name.lower()) > 1})
    reserved = sorted(name for name in names if name.startswith("_"))
    for wrong, rule in (
        (twice, "column names must differ in more than upper and lower case"),
        (reserved, "column names must not begin with an underscore; those are the platform's"),
    ):
        if wrong:
            raise InputError(rule, where=where, got=wrong, remedy="Rename them")
