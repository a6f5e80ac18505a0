"""The filter language of runs: expressions of the house, translated to SQL over the evaluation store.

``metrics.auc > 0.7 and params.estimator = 'lightgbm' and tags.team = 'risk' and status = 'finished'``. The parser is
that of every condition; only the names are those of runs. Filtering in Python was rejected: ten thousand runs would be
read for the ten that match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, false, func, literal, not_, or_, select, true

from retrodict.core.errors import DefinitionError, InputError, NotFoundError, near
from retrodict.core.expressions import Expression, parse
from retrodict.core.expressions import _nodes as nodes
from retrodict.evaluation.directions import Direction, better
from retrodict.learning.runs.schema import runs, tags, values
from retrodict.workspace import Workspace

__all__ = ["Fields", "direction_of", "known_direction", "order_runs", "where_runs"]

_COLUMNS: dict[str, str] = {
    "actor": "text", "code": "text", "environment": "text", "finished": "time", "id": "text", "kind": "text",
    "model": "text", "name": "text", "note": "text", "parent": "text", "seconds": "number", "seed": "number",
    "started": "time", "status": "text",
}  # fmt: skip
_GROUPS = ("metrics", "params", "tags")
# Texts in quotes stay as they are; metrics.auc, metrics."own name" and metrics.train.auc become one quoted name.
_DOTTED = re.compile(
    r"""'(?:[^']|'')*'|(?P<group>[A-Za-z]+)\.(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+(?:[./-]\w+)*(?:\["[^"]+"\])?))"""
    r"""|"(?:[^"]|"")*\""""
)
_ORDER = re.compile(r"\s*(?P<field>.+?)(?:\s+(?P<way>asc|desc))?\s*", re.IGNORECASE)
_COMPARE: dict[str, Any] = {
    "=": lambda a, b: a == b, "<>": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_CALCULATE: dict[str, Any] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: a * 1.0 / func.nullif(b * 1.0, 0.0),
}  # fmt: skip


def where_runs(connection: Connection, text: str) -> ColumnElement[bool]:
    """Condition over the table of runs that a filter states.

    Parameters
    ----------
    connection : Connection
        Where its names are looked up.
    text : str
        A condition over ``metrics.NAME`` (of the test rows; ``metrics.SPLIT.NAME`` of others), ``params.NAME``,
        ``tags.NAME`` and the columns of a run (``status``, ``model``, ``kind``, ``name``, ``started`` …). A name that
        is no plain word is put in double quotes: ``tags."my tag"``. Empty: every run.

    Raises
    ------
    DefinitionError
        If it is no condition.
    NotFoundError
        If no run has such a metric, parameter or tag; the message has the near names.
    """
    if not (text or "").strip():
        return true()
    expression = _parse(text)
    kinds: dict[str, Any] = {}
    for name in expression.columns:
        group, _, rest = name.partition(".")
        if group not in _GROUPS or not rest:
            kinds[name] = _COLUMNS.get(name)
            if name not in _COLUMNS:
                remedy = near(name, [*_COLUMNS, *(f"{part}.NAME" for part in _GROUPS)], what="name")
                raise NotFoundError("a search must name what runs have", where=f"search {text!r}", got=name,
                                    remedy=remedy)  # fmt: skip
        else:
            kinds[name] = {"metrics": "number", "tags": "text"}.get(group)
    if expression.check_columns(kinds, where=f"search {text!r}") != "bool":
        raise DefinitionError("a search must be a condition", where="search", got=text,
                              remedy="Compare something: metrics.auc > 0.7")  # fmt: skip
    fields = Fields(connection, where=f"search {text!r}")
    return _Translation(expression, fields, kinds).condition(expression.tree)


def _parse(text: str) -> Expression:
    def quote(match: re.Match[str]) -> str:
        name = match["quoted"] or match["plain"]
        return (
            f'"{match["group"]}.{name if match["quoted"] else name.replace(chr(34), chr(34) * 2)}"'
            if name
            else match[0]
        )

    return parse(_DOTTED.sub(quote, text), where=f"search {text!r}")


def order_runs(connection: Connection, text: str, *, direction: Direction | None = None) -> list[ColumnElement[Any]]:
    """Order of runs by a list such as ``metrics.auc, started desc``; what is equal comes newest first.

    Parameters
    ----------
    connection : Connection
    text : str
        Names as in a filter, each with ``asc`` or ``desc``. A metric without is best first, a time newest first, what
        has no value last.
    direction : {"higher", "lower"}, optional
        Which way a metric is better whose name does not tell.
    """
    fields, order = Fields(connection, where=f"order {text!r}"), []
    for part in _split(text):
        match = _ORDER.fullmatch(part)
        assert match is not None
        expression = _parse(match["field"])
        if not isinstance(expression.tree, nodes.Column):
            raise DefinitionError("an order must be a list of names", where="order", got=part,
                                  remedy="Write it like 'metrics.auc desc, started'")  # fmt: skip
        name = expression.tree.name
        way = (match["way"] or "").lower()
        if not way and name.startswith("metrics."):
            _, metric = fields.metric(name.removeprefix("metrics."))
            way = "desc" if (direction or direction_of(connection, metric)) == "higher" else "asc"
        way = way or ("desc" if _COLUMNS.get(name) == "time" else "asc")
        if name.startswith("params."):
            number, content = fields.number(name), fields.text(name)
            keys: list[Any] = [number, content]
        else:
            keys = [fields.number(name) if name.startswith("metrics.") else fields.text(name)]
        order += [(key.desc() if way == "desc" else key.asc()).nulls_last() for key in keys]
    return [*order, runs.c.id.desc()]


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no quotes."""
    return [part for part in re.findall(r"""(?:[^,"']|"[^"]*"|'[^']*')+""", text) if part.strip()]


def direction_of(connection: Connection, metric: str) -> Direction:
    """Which way a metric is better: by its name, or as the newest run said that logged it with ``better=``."""
    try:
        return better(metric)
    except InputError:
        query = select(runs.c.summary).where(runs.c.summary.contains('"better"')).order_by(runs.c.id.desc())
        for summary in connection.execute(query).scalars():
            direction = json.loads(summary).get("better", {}).get(metric)
            if direction in ("higher", "lower"):
                return "higher" if direction == "higher" else "lower"
        raise


def known_direction(workspace: Workspace, metric: str) -> Direction | None:
    """Which way a metric is better, by its name or as a run said; None where nobody did."""
    try:
        with workspace.records.read() as connection:
            return direction_of(connection, metric)
    except InputError:
        return None


class Fields:
    """SQL of what runs have by name; an unknown name is an error with the near ones."""

    def __init__(self, connection: Connection, *, where: str) -> None:
        self._connection, self._where = connection, where

    def metric(self, name: str) -> tuple[str, str]:
        """Rows and name of a metric: ``auc`` is of the test rows, ``train.auc`` of others where some run has it."""
        candidates = [("test", name)]
        candidates += [(name[:place], name[place + 1 :]) for place, letter in enumerate(name) if letter == "."]
        for split, metric in candidates:
            if metric and self._has(f"metric:{split}", metric):
                return split, metric
        query = select(values.c.scope, values.c.name).where(values.c.scope.like("metric:%")).distinct()
        names = [metric if scope == "metric:test" else f"{scope.removeprefix('metric:')}.{metric}"
                 for scope, metric in self._connection.execute(query)]  # fmt: skip
        raise self._unknown(name, names, "metric")

    def number(self, name: str) -> ColumnElement[Any]:
        """A metric or a parameter as a number."""
        group, _, rest = name.partition(".")
        if group == "metrics":
            split, metric = self.metric(rest)
            return _value(f"metric:{split}", metric, values.c.number)
        if group == "params":
            return _value("param", self._param(rest), values.c.number)
        return self._column(name)

    def text(self, name: str) -> ColumnElement[Any]:
        """A parameter, a tag or a column as it is written."""
        group, _, rest = name.partition(".")
        if group == "params":
            return _value("param", self._param(rest), values.c.text)
        if group == "tags":
            if self._connection.execute(select(tags.c.run).where(tags.c.name == rest).limit(1)).first() is None:
                names = self._connection.execute(select(tags.c.name).distinct()).scalars().all()
                raise self._unknown(rest, names, "tag")
            return select(tags.c.value).where(tags.c.run == runs.c.id, tags.c.name == rest).scalar_subquery()
        return self._column(name)

    def _column(self, name: str) -> ColumnElement[Any]:
        if name not in _COLUMNS:
            raise self._unknown(name, [*_COLUMNS, *(f"{part}.NAME" for part in _GROUPS)], "name")
        return runs.c[name]

    def _param(self, name: str) -> str:
        if not self._has("param", name):
            query = select(values.c.name).where(values.c.scope == "param").distinct()
            raise self._unknown(name, self._connection.execute(query).scalars().all(), "parameter")
        return name

    def _has(self, scope: str, name: str) -> bool:
        query = select(values.c.run).where(values.c.scope == scope, values.c.name == name).limit(1)
        return self._connection.execute(query).first() is not None

    def _unknown(self, name: str, names: Sequence[str], what: str) -> NotFoundError:
        return NotFoundError(f"some run must have a {what} that is searched by", where=self._where, got=name,
                             remedy=near(name, names, what=what))  # fmt: skip


def _value(scope: str, name: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    query = select(column).where(values.c.run == runs.c.id, values.c.scope == scope, values.c.name == name)
    return query.scalar_subquery()


class _Translation:
    """Writes the nodes of one filter as SQL of SQLAlchemy, with values as parameters."""

    def __init__(self, expression: Expression, fields: Fields, kinds: Mapping[str, Any]) -> None:
        self._expression, self._fields, self._kinds = expression, fields, kinds

    def condition(self, node: nodes.Node) -> ColumnElement[bool]:
        """Return a condition; null is unknown, as everywhere in the language."""
        match node:
            case nodes.Logic():
                parts = [self.condition(part) for part in node.operands]
                return and_(*parts) if node.operator == "and" else or_(*parts)
            case nodes.Not():
                return not_(self.condition(node.operand))
            case nodes.IsNull():
                return self._as_written(node.operand).is_(None)
            case nodes.Compare():
                left, right = self._same(node.left, node.right)
                compared: ColumnElement[bool] = _COMPARE[node.operator](left, right)
                return compared
            case nodes.In():
                operand, *items = self._same(node.operand, *node.items)
                return or_(*(operand == item for item in items)) if items else false()
            case nodes.Between():
                operand, low, high = self._same(node.operand, node.low, node.high)
                return and_(operand >= low, operand <= high)
            case nodes.Like():
                return _like(self._value(node.operand, "text"), node.pattern)
            case nodes.Literal(value=bool(value)):
                return true() if value else false()
            case _:
                raise self._refused(node)

    def _same(self, *operands: nodes.Node) -> list[Any]:
        """Operands of one comparison, all as numbers or all as texts."""
        if any(isinstance(operand, nodes.Literal) and operand.value is None for operand in operands):
            raise DefinitionError("a search must compare with values", where="search", got="null",
                                  remedy="Write 'is null' or 'is not null'")  # fmt: skip
        kind = next((kind for operand in operands if (kind := self._kind(operand))), "text")
        return [self._value(operand, kind) for operand in operands]

    def _kind(self, node: nodes.Node) -> str | None:
        match node:
            case nodes.Literal():
                return node.kind
            case nodes.Column():
                return self._kinds.get(node.name) or self._expression.column_kind(node.name)
            case nodes.Arithmetic() | nodes.Negate():
                return "number"
            case _:
                return None

    def _value(self, node: nodes.Node, kind: str) -> Any:
        match node:
            case nodes.Literal(value=bool(value)):
                return literal("true" if value else "false")
            case nodes.Literal():
                return literal(node.value)
            case nodes.Column():
                return self._fields.number(node.name) if kind == "number" else self._fields.text(node.name)
            case nodes.Negate() if kind == "number":
                return -self._value(node.operand, kind)
            case nodes.Arithmetic() if kind == "number":
                return _CALCULATE[node.operator](self._value(node.left, kind), self._value(node.right, kind))
            case _:
                raise self._refused(node)

    def _as_written(self, node: nodes.Node) -> ColumnElement[Any]:
        if not isinstance(node, nodes.Column):
            raise self._refused(node)
        return self._fields.number(node.name) if node.name.startswith("metrics.") else self._fields.text(node.name)

    def _refused(self, node: nodes.Node) -> DefinitionError:
        return DefinitionError("a search must compare metrics, parameters, tags and columns of runs", where="search",
                               got=nodes.render(node),
                               remedy="Use comparisons, in, between, like, is null, and, or, not")  # fmt: skip


def _like(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """LIKE in which case counts, on every engine: on SQLite it would not."""
    regex = "".join({"%": "(.|\n)*", "_": "(.|\n)"}.get(letter, re.escape(letter)) for letter in pattern)
    return and_(column.like(pattern), column.regexp_match(f"^{regex}$"))
