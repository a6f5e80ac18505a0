"""What the columns of somebody's file are: types, the key, and what tells nothing of other rows; and what is refused.

Everything is read off the values. A number that was measured is never the key, though all its values differ: it would
be left out of the features with it. Text that stands for numbers or days is refused where it would become a category.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import InputError
from retrodict.core.kinds import kind_of
from retrodict.stores.sql import quote

__all__ = ["check_texts", "choose_key", "key_reason", "left_out", "read_kinds"]

# Text of which nearly every row has its own is a name or a note: it tells nothing of other rows.
_UNIQUE_SHARE, _FEW_ROWS = 0.5, 50
_NAMED = r"(^|[^a-z0-9])(id|key|nr|no|number|uuid|guid)$|^index$"
_DATE = r"^\s*\d{1,2}[./ -](\d{1,2}|\pL{3,9})\.?[./ -]+(\d{4}|\d{2})($|[ T,])"
_UNIT = r"(%|‰|€|\$|£|¥|EUR|USD|CHF|GBP)"
_GROUPED = r"(\d{1,3}([.,' \x{a0}\x{202f}]\d{3})+|\d+)"
_NUMBER = rf"^\s*[+-]?\s*{_UNIT}?\s*[+-]?({_GROUPED}([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*{_UNIT}?\s*$"
_MOST, _MANY = 0.9, 50
_NUMBERED = "the place of the row in the file: no column of whole numbers or text surely names the rows"


def read_kinds(rows: pa.Table) -> dict[str, str]:
    """Types of columns of text whose every value reads as a number, a truth value or an instant.

    Digits with a leading zero stay text: they are codes. Local times are taken for UTC, which the definitions then say.
    """
    import duckdb

    kinds = {}
    connection = duckdb.connect()
    connection.register("given", rows)
    for field in rows.schema:
        if not _is_text(field.type):
            continue
        column = quote(field.name)
        query = f"""SELECT count({column}), bool_or(regexp_matches({column}, '^[+-]?0[0-9]')),
            count(CASE WHEN regexp_matches({column}, '^[+-]?[0-9]{{1,18}}$') THEN 1 END),
            count(try_cast({column} AS DOUBLE)),
            count(CASE WHEN lower({column}) IN ('true', 'false') THEN 1 END),
            count(CASE WHEN length({column}) >= 10 THEN try_cast({column} AS TIMESTAMPTZ) END),
            bool_and(regexp_matches({column}, '(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$')) FROM given"""
        count, coded, *fits, zoned = connection.execute(query).fetchone() or (0,)
        words = ("int", "float", "bool", "time" if zoned else "time(UTC)")
        kind = next((word for word, number in zip(words, fits, strict=True) if number == count), None)
        if count and kind is not None and not (coded and kind in ("int", "float")):
            kinds[field.name] = kind
    return kinds


def choose_key(rows: pa.Table, target: str, kinds: dict[str, str]) -> tuple[str, str]:
    """Column that tells rows apart, and why; a new name where no column of whole numbers or text surely does.

    Parameters
    ----------
    rows : pyarrow.Table
        As they arrive.
    target : str
        Never the key.
    kinds : dict
        Types that text is read as, by column.

    Returns
    -------
    name, reason : str
    """
    reasons = {}
    for field in rows.schema:  # in the order of trust: a name, a count, a text
        integer = kinds.get(field.name) == "int" or pa.types.is_integer(field.type)
        if field.name == target or not (integer or (_is_text(field.type) and field.name not in kinds)):
            continue
        values = rows.column(field.name)
        if values.null_count or not len(values) or pc.count_distinct(values).as_py() < len(values):
            continue
        if _is_named(field.name):
            reasons[field.name] = (0, "a value of its own in each row, and the name of a key")
        elif integer and _counts_up(values):
            reasons[field.name] = (1, "whole numbers that count the rows")
        elif not integer and not _reads_as(values, _DATE) and not _reads_as(values, _NUMBER):
            reasons[field.name] = (2, "text of its own in each row")
    if reasons:
        name = min(reasons, key=lambda column: reasons[column][0])
        return name, reasons[name][1]
    new = next(name for number in range(1_000) if (name := f"row{number or ''}") not in rows.column_names)
    return new, _NUMBERED


def key_reason(rows: pa.Table, key: str) -> str:
    """Why a column of stored rows is their key."""
    values = rows.column(key)
    numbered = re.fullmatch(r"row\d*", key) and pa.types.is_integer(values.type) and pc.min(values).as_py() == 0
    return _NUMBERED if numbered and _counts_up(values) else choose_key(rows.select([key]), "", {})[1]


def left_out(rows: pa.Table) -> dict[str, str]:
    """Columns that tell nothing of other rows, each with the reason: names of single rows, and one value everywhere."""
    reasons = {}
    for field in rows.schema:
        column = rows.column(field.name)
        values = column.drop_null()
        integer = pa.types.is_integer(field.type)
        if field.name.startswith("_") or kind_of(field.type) not in ("bool", "int", "float", "text"):
            continue
        distinct = pc.count_distinct(values).as_py()
        if distinct + bool(column.null_count) < 2:  # what is missing somewhere may tell something
            reasons[field.name] = "one value in all rows"
        elif len(values) <= _FEW_ROWS:
            continue
        elif (_is_text(field.type) and distinct > _UNIQUE_SHARE * len(values)) or (
            integer and distinct == len(values) and (_is_named(field.name) or _counts_up(values))
        ):
            reasons[field.name] = "names single rows"
    return reasons


def check_texts(rows: pa.Table, needed: Collection[str], excluded: Sequence[str]) -> None:
    """Refuse text that stands for days or numbers in a form that is not read, which would become a category.

    Parameters
    ----------
    rows : pyarrow.Table
        The columns that will be used.
    needed : collection of str
        Those that cannot be left out: the target, and times.
    excluded : sequence of str
        Those that are left out already, which the option in the remedy names, too.

    Raises
    ------
    InputError
        Of all such columns, with what converts them.
    """
    texts = {field.name: rows.column(field.name).drop_null() for field in rows.schema if _is_text(field.type)}
    dates = [name for name, values in texts.items() if len(values) and _reads_as(values, _DATE)]
    if dates:
        raise InputError("dates must be written year first, like 2024-01-31, or they are read as text",
                         where=_where(dates), got=f"{len(texts[dates[0]]):,} dates in another form",
                         remedy="Convert them, as with pandas.to_datetime(frame[column], format='%d.%m.%Y'), or "
                         f"{_leave_out(dates, needed, excluded)}")  # fmt: skip
    numbers = {name: count for name, values in texts.items() if (count := _foreign(values))}
    if numbers:
        plain = {name: f"{count:,} of {len(texts[name]):,}" for name, count in numbers.items()}
        raise InputError("numbers must be written like 14073.43, alone in every cell, or they are read as text",
                         where=_where(list(numbers)), got={"values in another form": plain},
                         remedy="Convert them, as with pandas.read_csv(file, sep=';', decimal=',', thousands='.'), "
                         "frame[column].str.rstrip('%').astype(float) or pandas.to_numeric(frame[column], "
                         f"errors='coerce'), or {_leave_out(list(numbers), needed, excluded)}")  # fmt: skip


def _foreign(values: pa.ChunkedArray) -> int:
    """How many values of a column of numbers are written in another form or are none; 0 of other columns.

    Some words among many numbers, such as n/a, make text of all; a few classes of which most are digits are classes.
    """
    if not len(values) or pc.any(pc.match_substring_regex(values, r"^\s*[+-]?0\d")).as_py():
        return 0  # codes
    numbers = pc.sum(pc.match_substring_regex(values, _NUMBER)).as_py()
    plain = pc.sum(pc.match_substring_regex(values, r"^[+-]?(\d+[.]?\d*|[.]\d+)([eE][+-]?\d+)?$")).as_py()
    many = numbers >= _MOST * len(values) and pc.count_distinct(values).as_py() > _MANY
    return len(values) - plain if numbers == len(values) or many else 0


def _reads_as(values: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _counts_up(values: pa.ChunkedArray) -> bool:
    """Whether different whole numbers are a count without gaps, in any order, or nearly one in the order of rows."""
    plain = values.combine_chunks()
    if _is_text(plain.type):  # as CSV brings them
        plain = pc.replace_substring_regex(plain, r"^\+", "").cast(pa.int64())
    span = pc.max(plain).as_py() - pc.min(plain).as_py() + 1
    ordered = bool(pc.all(pc.greater(plain[1:], plain[:-1])).as_py())
    return span == len(values) or (ordered and span <= 2 * len(values))


def _is_named(name: str) -> bool:
    """Whether a name says that it is a key: loan_id, "Loan Nr", loanID."""
    return re.search(_NAMED, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()) is not None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _where(names: list[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _leave_out(names: list[str], needed: Collection[str], excluded: Sequence[str]) -> str:
    apart = [name for name in names if name not in needed]
    if not apart:
        return "name another column"
    return (
        f"leave the column{'s' if len(apart) > 1 else ''} out: --exclude {shlex.quote(','.join([*excluded, *apart]))}"
    )
