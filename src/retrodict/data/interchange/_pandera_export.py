"""A table as a schema of Pandera for Polars.

Checks whose meaning is one of Pandera's built-ins become that, and can be written to YAML; every other rule on single
rows becomes a check of the frame with our compiled condition inside, which cannot. Numbers of a batch, other versions
and other tables have no place in a schema and are listed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from retrodict.core.errors import DefinitionError, MissingExtraError
from retrodict.core.expressions.patterns import translate
from retrodict.core.kinds import KINDS, arrow_type, expression_kind
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.interchange.imported import Exported, Refused, Unmapped
from retrodict.data.validation._typed import polars_type

_WIDE = "a schema judges rows; it has no numbers of a batch"
_SCOPES = {
    "measure": _WIDE,
    "versions": "a schema knows no earlier versions",
    "reference": "a schema knows no other data",
}


def to_pandera(table: Table) -> Exported:
    """Return a table's columns and checks as a ``pandera.polars.DataFrameSchema``.

    Parameters
    ----------
    table : Table

    Returns
    -------
    Exported
        ``schema`` and ``unmapped``. Columns are nullable unless a check or the key says otherwise, and are not coerced.

    Raises
    ------
    MissingExtraError
        Without Pandera.
    """
    try:
        import pandera.polars as pa
    except ImportError as error:
        raise MissingExtraError("pandera", "pandera", needed_for="to_pandera") from error
    schema = _Schema(table, pa)
    for check in table.checks:
        schema.add(check)
    return Exported(schema.build(), tuple(schema.unmapped))


class _Schema:
    """What the schema will have, column by column."""

    def __init__(self, table: Table, pandera: Any) -> None:
        self._table, self._pa = table, pandera
        self._present: set[str] = set(table.key)
        self._unique: list[tuple[str, ...]] = [tuple(table.key)] if table.key else []
        self._checks: dict[str, list[Any]] = {}
        self._whole: list[Any] = []
        self._strict = False
        self.unmapped: list[Unmapped] = []
        read = [name for check in table.checks for name in check.reads]
        self._types = {name: table.type_of(name) for name in dict.fromkeys([*table.key, *table.columns, *read])}

    def add(self, check: Check) -> None:
        """Add one check, or the reason why not."""
        try:
            self._add(check)
        except Refused as why:
            self.unmapped.append(Unmapped(check.title, str(why)))
        except DefinitionError as error:
            self.unmapped.append(Unmapped(check.title, error.rule))

    def _add(self, check: Check) -> None:
        if check.tolerance:
            raise Refused("a schema has no tolerance: one failing row fails it")
        if check.by:
            raise Refused("a schema has no groups")
        plain = check.where is None and check.severity != "low"
        match check.rule:
            case "not_null" | "primary_key" | "unique" if plain:
                self._present |= set(check.columns) if check.rule != "unique" else set()
                if check.rule != "not_null":
                    self._add_key(check)
            case "columns_exist":
                return  # every column of a schema is required
            case "columns_match":
                if set(check.columns) != set(self._types):
                    raise Refused("it names other columns than the definition reads")
                self._strict = True
            case "has_type":
                self._add_type(check)
            case _ if check.scope == "row":
                self._add_rows(check)
            case _:
                raise Refused(_SCOPES.get(check.scope, "a schema has no such check"))

    def _add_key(self, check: Check) -> None:
        if (
            check.columns not in self._unique
            and any(len(group) > 1 for group in self._unique)
            and len(check.columns) > 1
        ):
            raise Refused("a schema has one set of columns that is unique")
        self._unique.append(check.columns)
        if check.rule == "unique":
            self.unmapped.append(Unmapped(check.title, "only nulls: there a null repeats an earlier one", partly=True))

    def _add_type(self, check: Check) -> None:
        declared = self._types[check.columns[0]]
        if declared is None or KINDS[declared.kind].column_word != check.option("type"):
            raise Refused("it is not the declared type of the column")

    def _add_rows(self, check: Check) -> None:
        builtin = self._builtin(check) if check.where is None else None
        if builtin is not None:
            self._checks.setdefault(check.columns[0], []).append(builtin)
            return
        kinds: dict[str, Any] = {
            name: None if kind is None else expression_kind(kind.kind) for name, kind in self._types.items()
        }
        condition = check.condition
        if condition is None:
            raise Refused("it depends on the moment of the check")
        condition.check_columns({name: kinds.get(name) for name in condition.columns}, where=check.title)
        floating = frozenset(name for name, kind in self._types.items() if kind is not None and kind.kind == "float")
        expression = condition.to_polars(kinds=kinds, floating=floating).fill_null(value=True)
        self._whole.append(
            self._pa.Check(lambda data: data.lazyframe.select(expression), name=check.title,
                           raise_warning=check.severity == "low")
        )  # fmt: skip

    def _builtin(self, check: Check) -> Any:
        """The built-in check that means the same, None if there is none."""
        make, how = self._pa.Check, {"raise_warning": check.severity == "low"}
        match check.rule:
            case "between" | "time_between":
                names = ("low", "high") if check.rule == "between" else ("earliest", "latest")
                low, high = (_value(check.option(name), time=check.rule == "time_between") for name in names)
                if low is None:
                    return make.le(high, **how)
                return make.ge(low, **how) if high is None else make.in_range(low, high, **how)
            case "in_set":
                return make.isin(list(check.option("values")), **how)
            case "not_in_set":
                return make.notin(list(check.option("values")), **how)
            case "length":
                return make.str_length(check.option("low"), check.option("high"), **how)
            case "matches":
                return make.str_matches(f"^(?:{translate(check.option('pattern'))})$", **how)
        return None

    def build(self) -> Any:
        """Return the schema."""
        single = {group[0] for group in self._unique if len(group) == 1}
        several = [list(group) for group in self._unique if len(group) > 1]
        types = {
            name: None if kind is None else polars_type(arrow_type(kind.kind)) for name, kind in self._types.items()
        }
        columns = {
            name: self._pa.Column(
                kind, self._checks.get(name), nullable=name not in self._present, unique=name in single
            )
            for name, kind in types.items()
        }
        return self._pa.DataFrameSchema(
            columns, checks=self._whole, strict=self._strict, unique=several[0] if several else None,
            name=self._table.name,
        )  # fmt: skip


def _value(value: Any, *, time: bool) -> Any:
    return datetime.fromisoformat(value) if time and value is not None else value
