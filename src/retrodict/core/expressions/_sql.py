"""Compiles a tree to the text of one SQL expression.

The text is written node by node from the closed tree: names are always quoted, texts always escaped, and numbers
printed by us, so nothing of the user's spelling reaches the engine. Three habits of DuckDB are ruled out here: a bare
``0.25`` would be a decimal, a bare ``15`` a 32-bit number, and adding a day-interval to a time would ask the session's
time zone how long that day is; hence doubles with an exponent, casts, and intervals of microseconds only.
"""

from __future__ import annotations

from retrodict.core.clock import from_micros
from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions._inference import KindInference
from retrodict.core.expressions.patterns import translate

_NULLS = {"bool": "BOOLEAN", "number": "BIGINT", "text": "VARCHAR", "time": "TIMESTAMPTZ", "duration": "INTERVAL"}


def compile_sql(root: nodes.Node, kinds: KindInference) -> str:
    """Return the tree as SQL text."""
    return _Compiler(kinds).value(root)


class _Compiler:
    """Writes the nodes of one tree for DuckDB."""

    def __init__(self, kinds: KindInference) -> None:
        self._kinds = kinds

    def value(self, node: nodes.Node) -> str:
        """Return the SQL of a node with NaN made null; only arithmetic reads its results without, as NaN spreads."""
        text = self._node(node)
        match node:
            case nodes.Column() if self._kinds.of(node) in {None, "number"}:
                return _nan_to_null(text)
            case nodes.Arithmetic() | nodes.Negate() | nodes.Call(function="abs"):
                kind = self._kinds.of(node)
                if kind == "number":
                    return f"NULLIF({text}, CAST('NaN' AS DOUBLE))"
                return text if kind else _nan_to_null(text)
            case _:
                return text

    def _operand(self, node: nodes.Node) -> str:
        """Return what arithmetic reads: columns without NaN, or the engine would take it for impossible (see below)."""
        return self.value(node) if isinstance(node, nodes.Column) else self._node(node)

    def _node(self, node: nodes.Node) -> str:
        match node:
            case nodes.Literal():
                return self._literal(node)
            case nodes.Column():
                return self._column(node)
            case nodes.Negate():
                return f"(-{self._operand(node.operand)})"
            case nodes.Arithmetic():
                return self._arithmetic(node)
            case nodes.Call(function="abs" | "length"):
                return f"{node.function}({self._operand(node.arguments[0])})"
            case nodes.Call(function="seconds"):
                return f"(CAST(epoch_us({self._operand(node.arguments[0])}) AS DOUBLE) / 1e6)"
            case nodes.Call(function="hour" | "weekday"):
                # The engine's own parts of a time are those of the session's zone.
                shift, cycle, unit = nodes.CYCLES[node.function]
                micros = f"(epoch_us({self._operand(node.arguments[0])}) + {shift})"
                return f"((({micros} % {cycle}) + {cycle}) % {cycle} // {unit})"
            case nodes.Call():
                return f"{node.function}({', '.join(self.value(part) for part in node.arguments)})"
            case nodes.Case():
                arms = "".join(f" WHEN {self.value(test)} THEN {self.value(value)}" for test, value in node.branches)
                last = "" if node.otherwise is None else f" ELSE {self.value(node.otherwise)}"
                return f"CASE{arms}{last} END"
            case _:
                return self._condition(node)

    def _condition(self, node: nodes.Condition) -> str:
        match node:
            case nodes.Compare():
                return f"({self.value(node.left)} {node.operator} {self.value(node.right)})"
            case nodes.Logic():
                return "(" + f" {node.operator.upper()} ".join(self.value(part) for part in node.operands) + ")"
            case nodes.Not():
                return f"(NOT {self.value(node.operand)})"
            case nodes.IsNull():
                return f"({self.value(node.operand)} IS NULL)"
            case nodes.In():
                items = ", ".join(self._literal(item) for item in node.items)
                return f"({self.value(node.operand)} IN ({items}))"
            case nodes.Between():
                return f"({self.value(node.operand)} BETWEEN {self.value(node.low)} AND {self.value(node.high)})"
            case nodes.Like():
                return f"({self.value(node.operand)} LIKE {nodes.quote_text(node.pattern)})"
            case nodes.Matches():
                return f"regexp_full_match({self.value(node.operand)}, {nodes.quote_text(translate(node.pattern))})"

    def _column(self, node: nodes.Column) -> str:
        name, kind = nodes.quote_name(node.name), self._kinds.given(node.name)
        if kind == "date":
            return _midnight(name)
        if kind is None and self._kinds.of(node) == "time":
            # Folds away as in _nan_to_null: the engine would read a date as midnight of the session's zone.
            return f"CASE WHEN typeof({name}) = 'DATE' THEN {_midnight(name)} ELSE {name} END"
        return name

    def _arithmetic(self, node: nodes.Arithmetic) -> str:
        left, right = self._operand(node.left), self._operand(node.right)
        if node.operator == "/":
            # The engine's own answer to a zero divisor is a setting; ours is null.
            return f"(CAST({left} AS DOUBLE) / NULLIF(CAST({right} AS DOUBLE), 0e0))"
        if node.operator == "-" and self._kinds.of(node.left) == self._kinds.of(node.right) == "time":
            # time - time counts calendar days of the session's time zone; microseconds do not.
            return f"to_microseconds(epoch_us({left}) - epoch_us({right}))"
        return f"({left} {node.operator} {right})"

    def _literal(self, node: nodes.Literal) -> str:
        match node.value, node.kind:
            case None, _:
                kind = self._kinds.of(node)
                return f"CAST(NULL AS {_NULLS[kind]})" if kind else "NULL"
            case bool(value), _:
                return "TRUE" if value else "FALSE"
            case str(value), _:
                return nodes.quote_text(value)
            case int(value), "time":
                return f"CAST('{from_micros(value).isoformat(sep=' ')}' AS TIMESTAMPTZ)"
            case int(value), "duration":
                return f"to_microseconds(CAST({value} AS BIGINT))"
            case int(value), _:
                return f"CAST({value} AS BIGINT)"
            case value, _:
                text = repr(value)
                return text if "e" in text else text + "e0"


def _nan_to_null(text: str) -> str:
    # typeof is known when the query is planned: for every type but the floating ones the whole guard folds away, so
    # a filter on such a column still reaches the scan. TRY_CAST only makes it bind for types that cannot be NaN.
    # Over Parquet, whose statistics leave NaN out, DuckDB 2.0 folds isnan(x) and x = NaN to false; not these two.
    number = f"TRY_CAST({text} AS DOUBLE)"
    is_nan = f"typeof({text}) IN ('DOUBLE', 'FLOAT') AND NOT (isfinite({number}) OR isinf({number}))"
    return f"CASE WHEN {is_nan} THEN NULL ELSE {text} END"


def _midnight(name: str) -> str:
    return f"make_timestamptz(epoch_us({name}))"
