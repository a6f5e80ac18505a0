"""The comparison itself, as SQL: by key through one full outer join, and as bags of rows where keys cannot tell.

A key that stands for more than one row of a version names no row, so its rows are compared as a bag (how often does
each row occur?); all other rows are compared by key. Which keys those are is not looked up: the join tells. With n rows
on the left, n = matches + left-only rows holds exactly if no key of the left side matches twice, and likewise on the
right; only if one of the two fails are the repeated keys sought. Files that both versions hold cancel: for a bag
always, by key because every key of the other files is looked up in them first.

Equal means: both null, both NaN, or equal values; -0.0 equals 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb

from retrodict.core.errors import IntegrityError
from retrodict.stores.sql import quote, quote_text

SAMPLE = 10  # differences of each kind that a report shows

_EQUAL = "IS NOT DISTINCT FROM"

# Names of our own have a blank, which no column of a table has.
_P, _Q, _HERE, _N, _SIGN = '"in a"', '"in b"', '"is here"', '"n times"', '"one more"'


@dataclass(slots=True)
class Counts:
    """What a comparison counts; ``sample`` holds the first differences of each kind, by key."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    changed_by_column: dict[str, int] = field(default_factory=dict)
    repeated_keys: int = 0
    sample: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Sides:
    """Views ``a`` and ``b`` (and ``shared``, the keys of the common files) of an open engine."""

    connection: duckdb.DuckDBPyConnection
    columns: list[str]
    key: list[str]  # none: bags
    rows: tuple[int, int]  # of the files of ``a`` and ``b``, by the log of their tables
    overlap: bool  # whether there is a view ``shared``
    parts: int = 1  # passes of the join, each over the keys of one hash: reading twice is cheaper than spilling once
    exact_keys: bool = False  # whether no key column is a float
    keyed: bool = False
    bags: bool = False
    plain_keys: bool = False

    def one(self, sql: str) -> tuple[Any, ...]:
        """Return the only row of a query."""
        rows: list[tuple[Any, ...]] = self.connection.execute(sql).fetchall()
        return rows[0]

    @property
    def others(self) -> list[str]:
        """Columns that are not in the key."""
        return [name for name in self.columns if name not in self.key]


def compare(sides: Sides) -> Counts:
    """Count the differences; leaves behind what :func:`differences` selects from."""
    counts = Counts(changed_by_column=dict.fromkeys(sides.others, 0) if sides.key else {})
    if not any(sides.rows):
        return counts
    if not sides.key:
        _make_bag(sides, "a", "b")
        _count_bag(sides, counts)
        return counts
    clashes = sides.overlap and bool(sides.one(f"SELECT count(*) FROM ({_clashing(sides)} LIMIT 1)")[0])
    if not clashes:
        make_view(sides.connection, "x", "SELECT * FROM a")
        make_view(sides.connection, "y", "SELECT * FROM b")
        if _count_keyed(sides, counts, sides.rows):
            return counts
        counts = Counts(changed_by_column=dict.fromkeys(sides.others, 0))
    _split_repeated(sides)
    keyed_rows = sides.one("SELECT (SELECT count(*) FROM x), (SELECT count(*) FROM y)")
    if not _count_keyed(sides, counts, (int(keyed_rows[0]), int(keyed_rows[1]))):
        raise _fewer_rows(sides)
    _make_bag(sides, "repeated_a", "repeated_b")
    _count_bag(sides, counts)
    names = ", ".join(map(quote, sides.key))
    counts.repeated_keys = int(sides.one(f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM bag)")[0])
    return counts


def _count_keyed(sides: Sides, counts: Counts, rows: tuple[int, int]) -> bool:
    """Count by key; False if a key stands for several rows, in which case the counts mean nothing."""
    sides.keyed = True
    sides.plain_keys = _plain_keys(sides)
    totals = [0] * (4 + len(sides.others))
    for part in range(sides.parts):
        row = sides.one(_counting(sides, part, sum(rows) + 1))
        totals = [total + number for total, number in zip(totals, (*row[:4], *row[7:]), strict=True)]
        _add_sample(sides, counts, *row[4:7])
    total, counts.removed, counts.added, counts.changed = totals[:4]
    matches = total - counts.removed - counts.added
    counts.changed_by_column = dict(zip(sides.others, totals[4:], strict=True))
    kinds = ("changed", "removed", "added")
    counts.sample = [one for kind in kinds for one in counts.sample if one["change"] == kind]
    # A key that matches twice only ever adds to the left of these, so the sums over all parts tell as well.
    return (matches + counts.removed, matches + counts.added) == rows


def _counting(sides: Sides, part: int, limit: int) -> str:
    """SQL of all counts and samples; more rows than both sides have come of repeated keys: the join stops there."""
    others, keys = sides.others, ", ".join(map(quote, sides.key))
    differ, flags = _any_differs(others), ", ".join(_flag(i) for i in range(len(others)))
    changed = f"{_P} AND {_Q} AND ({differ})"
    by_column = "".join(f", count(*) FILTER ({_P} AND {_Q} AND {_flag(i)})" for i in range(len(others)))
    return (
        f"SELECT count(*), count(*) FILTER (NOT {_Q}), count(*) FILTER (NOT {_P}), count(*) FILTER ({changed}), "
        f"min(row({keys}), {SAMPLE}) FILTER (NOT {_Q}), min(row({keys}), {SAMPLE}) FILTER (NOT {_P}), "
        f"min(row({keys}, [{flags}]::BOOLEAN[]), {SAMPLE}) FILTER ({changed}){by_column} "
        f"FROM (SELECT * FROM ({_join(sides, part=part)}) LIMIT {limit})"
    )


def _add_sample(sides: Sides, counts: Counts, removed: Any, added: Any, changed: Any) -> None:
    """Keep the first differences of each kind, up to ``SAMPLE``."""
    listed = {"changed": changed, "removed": removed, "added": added}
    for change, rows in listed.items():
        space = SAMPLE - sum(one["change"] == change for one in counts.sample)
        for values in (rows or ())[:space]:
            one = {"change": change, "key": dict(zip(sides.key, values, strict=False))}
            if change == "changed":
                one["columns"] = [name for name, differs in zip(sides.others, values[-1], strict=True) if differs]
            counts.sample.append(one)


def _plain_keys(sides: Sides) -> bool:
    """Whether ``=`` compares keys as well as IS NOT DISTINCT FROM, which takes longer: no float, no null."""
    if not sides.exact_keys:
        return False
    nulls = " OR ".join(f"{quote(name)} IS NULL" for name in sides.key)
    return not any(sides.one(f"SELECT count(*) FROM {view} WHERE {nulls}")[0] for view in ("x", "y"))


def _join(sides: Sides, *, part: int | None = None, values: bool = False) -> str:
    """Full outer join of ``x`` and ``y``: keys, presence on either side, one flag per column, and its values."""
    keys = [f"coalesce(x.{quote(name)}, y.{quote(name)}) AS {quote(name)}" for name in sides.key]
    flags = [f"x.{quote(name)} IS DISTINCT FROM y.{quote(name)} AS {_flag(i)}" for i, name in enumerate(sides.others)]
    pairs = [f"x.{quote(n)} AS {quote(f'{n}__before')}, y.{quote(n)} AS {quote(f'{n}__after')}" for n in sides.others]
    selected = [
        *keys,
        f"x.{_HERE} IS NOT NULL AS {_P}",
        f"y.{_HERE} IS NOT NULL AS {_Q}",
        *flags,
        *(pairs if values else ()),
    ]
    where = ""
    if part is not None and sides.parts > 1:
        where = f" WHERE hash({', '.join(map(quote, sides.key))}) % {sides.parts} = {part}"
    on = _same("x", "y", sides.key, "=" if sides.plain_keys else _EQUAL)
    return (
        f"SELECT {', '.join(selected)} FROM (SELECT *, true AS {_HERE} FROM x{where}) x "
        f"FULL OUTER JOIN (SELECT *, true AS {_HERE} FROM y{where}) y ON {on}"
    )


def _flag(place: int) -> str:
    return f'"differs {place}"'


def _any_differs(others: list[str]) -> str:
    return " OR ".join(_flag(place) for place in range(len(others))) or "false"


def _same(left: str, right: str, names: list[str], operator: str = _EQUAL) -> str:
    return " AND ".join(f"{left}.{quote(name)} {operator} {right}.{quote(name)}" for name in names)


def _clashing(sides: Sides) -> str:
    """Select keys of common files that other files of a version have too."""
    keys = ", ".join(map(quote, sides.key))
    return (
        f"SELECT s.* FROM shared s SEMI JOIN (SELECT {keys} FROM a UNION ALL SELECT {keys} FROM b) t "
        f"ON {_same('s', 't', sides.key)}"
    )


def _split_repeated(sides: Sides) -> None:
    """Take the rows of repeated keys out of ``x`` and ``y``: those are left for the bag."""
    for name, expected in zip(("a", "b"), sides.rows, strict=True):
        if sides.one(f"SELECT count(*) FROM {name}")[0] != expected:
            raise _fewer_rows(sides)
    keys = ", ".join(map(quote, sides.key))
    counted = "(SELECT {0}, count(*) AS {2} FROM {1} GROUP BY ALL) {1}"
    sql = (
        f"SELECT {', '.join(f'a.{quote(name)}' for name in sides.key)} FROM {counted.format(keys, 'a', _N)} "
        f"JOIN {counted.format(keys, 'b', _N)} ON {_same('a', 'b', sides.key)} WHERE a.{_N} > 1 OR b.{_N} > 1"
    )
    if sides.overlap:
        sql += f" UNION {_clashing(sides)}"
    sides.connection.execute(f"CREATE OR REPLACE TEMP TABLE repeated AS {sql}")
    for plain, single, repeated in (("a", "x", "repeated_a"), ("b", "y", "repeated_b")):
        on = _same("s", "r", sides.key)
        make_view(sides.connection, single, f"SELECT s.* FROM {plain} s ANTI JOIN repeated r ON {on}")
        make_view(sides.connection, repeated, f"SELECT s.* FROM {plain} s SEMI JOIN repeated r ON {on}")


def _make_bag(sides: Sides, left: str, right: str) -> None:
    """Count every distinct row: ``n`` is how often it occurs on the left less how often on the right."""
    sides.bags = True
    names = ", ".join(map(quote, sides.columns))
    sides.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE bag AS SELECT {names}, CAST(sum({_SIGN}) AS BIGINT) AS {_N} FROM "
        f"(SELECT {names}, 1 AS {_SIGN} FROM {left} UNION ALL SELECT {names}, -1 FROM {right}) "
        f"GROUP BY {names} HAVING sum({_SIGN}) <> 0"
    )


def _count_bag(sides: Sides, counts: Counts) -> None:
    removed, added = sides.one(f"SELECT sum({_N}) FILTER ({_N} > 0), -sum({_N}) FILTER ({_N} < 0) FROM bag")
    counts.removed += int(removed or 0)
    counts.added += int(added or 0)
    names = ", ".join(map(quote, sides.columns))
    for change, sign in (("removed", ">"), ("added", "<")):
        sql = f"SELECT {names}, abs({_N}) FROM bag WHERE {_N} {sign} 0 ORDER BY {names} LIMIT {SAMPLE}"
        for values in sides.connection.execute(sql).fetchall():
            row = dict(zip(sides.columns, values[:-1], strict=True))
            counts.sample.append({"change": change, "row": row, "count": values[-1]})


def differences(sides: Sides) -> str | None:
    """SQL of every difference, in one order; None where nothing was compared."""
    others, parts = sides.others, []
    if sides.keyed:
        names = ", ".join(
            f"CASE WHEN {_P} AND {_Q} AND {_flag(i)} THEN {quote_text(n)} END" for i, n in enumerate(others)
        )
        values = [quote(f"{name}__{side}") for name in others for side in ("before", "after")]
        parts.append(
            f"SELECT CASE WHEN NOT {_Q} THEN 'removed' WHEN NOT {_P} THEN 'added' ELSE 'changed' END AS _change, "
            f"array_to_string([{names}]::VARCHAR[], ' ') AS _columns, CAST(1 AS BIGINT) AS _count, "
            f"{', '.join([*map(quote, sides.key), *values])} FROM ({_join(sides, values=True)}) "
            f"WHERE NOT {_P} OR NOT {_Q} OR {_any_differs(others)}"
        )
    if sides.bags:
        values = [
            f"CASE WHEN {_N} {sign} 0 THEN {quote(name)} END AS {quote(f'{name}__{side}')}"
            for name in others
            for side, sign in (("before", ">"), ("after", "<"))
        ]
        parts.append(
            f"SELECT CASE WHEN {_N} > 0 THEN 'removed' ELSE 'added' END AS _change, '' AS _columns, "
            f"abs({_N}) AS _count, "
            f"{', '.join([*map(quote, sides.key), *values])} FROM bag"
        )
    if not parts:
        return None
    order = ", ".join([*map(quote, sides.key), "_change"]) if sides.key else "ALL"
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY {order}"


def make_view(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
    """Let a name stand for a query."""
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")


def _fewer_rows(sides: Sides) -> IntegrityError:
    return IntegrityError(
        "the data files of a version must hold the rows that its log counts",
        where="diff",
        got=f"{sides.rows[0]} and {sides.rows[1]} rows by the log",
        remedy="Find the damaged file with: retrodict audit verify",
    )
