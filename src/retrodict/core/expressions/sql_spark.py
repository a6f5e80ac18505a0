"""Spark SQL of an expression: what DuckDB's compiler writes, but for the few nodes the two engines spell or mean apart.

A duration is its microseconds as BIGINT: of Spark's intervals those of days and those of months do not compare, and
adding one asks the session's time zone. Texts go with backslash escapes, which is how Spark reads them unless told
otherwise, and the pattern of LIKE with an escape character that it does not hold.
"""

from __future__ import annotations

from retrodict.core.clock import from_micros
from retrodict.core.expressions.inference import KindInference
from retrodict.core.expressions.nodes import (
    Arithmetic,
    Between,
    Call,
    Column,
    In,
    IsNull,
    Like,
    Literal,
    Matches,
    Negate,
    Node,
    Not,
)
from retrodict.core.expressions.patterns import translate
from retrodict.core.expressions.sql import Compiler

__all__ = ["SparkCompiler"]

_NULLS = {"bool": "BOOLEAN", "number": "BIGINT", "text": "STRING", "time": "TIMESTAMP", "duration": "BIGINT"}
_NAN = "CAST('NaN' AS DOUBLE)"


class SparkCompiler(Compiler):
    """Spark 4 with its defaults; columns of days, and times where the text leaves them open, need their kinds.

    Parameters
    ----------
    kinds : KindInference
        Kinds of the nodes of the tree to be compiled.
    """

    def __init__(self, kinds: KindInference) -> None:
        super().__init__(kinds)

    def value(self, node: Node) -> str:
        """Return the SQL of a node with NaN made null; Spark takes NaN for equal to NaN."""
        text = self._node(node)
        match node:
            case Column() | Arithmetic() | Negate() | Call(function="abs") if self._kinds.of(node) == "number":
                return f"NULLIF({text}, {_NAN})"
            case Column() if self._kinds.of(node) is None:
                return (
                    f"CASE WHEN CAST({text} AS STRING) = 'NaN' AND typeof({text}) <> 'string' THEN NULL ELSE {text} END"
                )
            case _:
                return text

    def _node(self, node: Node) -> str:
        match node:
            case Call(function="least" | "greatest", arguments=(only,)):  # of one argument Spark has none
                return self.value(only)
            case _:
                return super()._node(node)

    def _predicate(self, node: Not | IsNull | In | Between | Like | Matches) -> str:
        match node:
            case Like():
                unused = next(sign for sign in "!#$&|~^@" + "".join(map(chr, range(1, 32))) if sign not in node.pattern)
                return f"({self.value(node.operand)} LIKE {_text(node.pattern)} ESCAPE {_text(unused)})"
            case Matches():
                # \z, since $ also stands before a last line feed.
                whole = rf"\A(?:{translate(node.pattern)})\z"
                return f"regexp_like({self.value(node.operand)}, {_text(whole)})"
            case _:
                return super()._predicate(node)

    def _column(self, node: Column) -> str:
        name = "`" + node.name.replace("`", "``") + "`"
        if self._kinds.given(node.name) == "date":
            return f"timestamp_micros(unix_date({name}) * CAST(86400000000 AS BIGINT))"
        return name

    def _arithmetic(self, node: Arithmetic) -> str:
        kinds = self._kinds.of(node.left), self._kinds.of(node.right)
        if "time" not in kinds:
            return super()._arithmetic(node)
        left, right = (
            f"unix_micros({self._operand(part)})" if kind == "time" else self._operand(part)
            for part, kind in zip((node.left, node.right), kinds, strict=True)
        )
        result = f"({left} {node.operator} {right})"
        return result if kinds == ("time", "time") else f"timestamp_micros{result}"

    def _literal(self, node: Literal) -> str:
        match node.value, node.kind:
            case None, _:
                kind = self._kinds.of(node)
                return f"CAST(NULL AS {_NULLS[kind]})" if kind else "NULL"
            case str(value), _:
                return _text(value)
            case int(value), "time":
                return f"CAST('{from_micros(value).isoformat(sep=' ')}' AS TIMESTAMP)"
            case int(value), "duration":
                return f"CAST({value} AS BIGINT)"
            case _:
                return super()._literal(node)


def _text(text: str) -> str:
    escaped = "".join(
        f"\\{sign}" if sign in "\\'" else sign if " " <= sign != "\x7f" else f"\\u{ord(sign):04x}" for sign in text
    )
    return f"'{escaped}'"
