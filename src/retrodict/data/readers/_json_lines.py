"""JSON lines: one object per line, a few megabytes at a time; strings stay strings.

Decoded by msgspec, which is fast and strict, but lets the last of two equal keys win. Counting quotes finds those
without a slower decoder: a key that was lost took its quotes with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, NoReturn

import msgspec
import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data.readers._files import AGAIN, InputFile, looks_like, read_blocks
from retrodict.data.readers._types import Kinds

_LINE = 16 << 20  # bytes
_DEPTH = 32
_COLUMNS = 10_000
_CELLS = 1 << 22  # at once: rows that name other keys each make many columns of few values
_OBJECT = "every line must be one JSON object"


def read_json_lines(file: InputFile) -> Iterator[pa.RecordBatch]:
    """Rows of a file in order, a few megabytes at a time; a key that a line lacks is null."""
    kinds, nameless = Kinds(file.name, AGAIN), 0
    for line, text in _chunks(file):
        rows = _decode(file.name, line, text)
        names = dict.fromkeys(chain(kinds.names, chain.from_iterable(rows)))
        if len(names) > _COLUMNS:
            raise InputError(f"there must be at most {_COLUMNS} columns", where=file.name, got=len(names), remedy=AGAIN)
        if not names:
            nameless += len(rows)
            continue
        if nameless:
            yield pa.RecordBatch.from_arrays([pa.nulls(nameless)] * len(names), names=list(names))
            nameless = 0
        strings, step = sum(map(len, rows)), max(1, _CELLS // len(names))
        for piece in (rows[begin : begin + step] for begin in range(0, len(rows), step)):
            columns = {name: _column(name, piece) for name in names}
            counts = [_count(values) for values in columns.values()]
            strings += sum(count for count, _ in counts)
            if max(depth for _, depth in counts) >= _DEPTH:
                _refuse_line(file.name, line, text)
            yield kinds.batch(columns)
        if _quotes(text) != 2 * strings:
            _refuse_line(file.name, line, text)


def _column(name: str, rows: list[dict[str, Any]]) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _chunks(file: InputFile) -> Iterator[tuple[int, bytes]]:
    """Whole lines, a few megabytes at a time, each with the number of its first line."""
    line, rest = 1, b""
    for place, block in enumerate(read_blocks(file)):
        data = rest + (block.removeprefix(b"\xef\xbb\xbf") if place == 0 else block)
        first = data.find(b"\n", len(rest))
        if (len(data) if first < 0 else first) > _LINE:
            raise InputError(
                f"a line must be at most {_LINE >> 20} MB long", where=f"{file.name}, line {line}", remedy=AGAIN
            )
        end = data.rfind(b"\n") + 1
        text, rest = data[:end], data[end:]
        if text:
            yield line, text
            line += text.count(b"\n")
    if rest:
        yield line, rest


def _decode(name: str, line: int, text: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _refuse_line(name, line, text)


def _refuse_line(name: str, first: int, text: bytes) -> NoReturn:
    """Raise for the first line that breaks a rule; nothing of it is quoted."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    deep = f"a value must nest at most {_DEPTH} levels deep"
    for line, content in enumerate(text.split(b"\n"), start=first):
        where = f"{name}, line {line}"
        if not content.strip():
            continue
        try:
            row = decoder.decode(content)
        except RecursionError:
            raise InputError(deep, where=where, remedy=AGAIN) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            got: dict[str, Any] = (
                {} if _is_utf8(content) else {"got": looks_like(text[:4096] if first == 1 else content)}
            )
            raise InputError(_OBJECT, where=where, remedy=AGAIN, **got) from None
        strings, depth = _measure(row)
        if depth > _DEPTH:
            raise InputError(deep, where=where, remedy=AGAIN)
        if _quotes(content) != 2 * strings:
            raise InputError("an object must name each of its keys once", where=where, remedy=AGAIN)
    raise InputError(_OBJECT, where=name, remedy=AGAIN)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


# counting -----------------------------------------------------------------------------------------------------


def _quotes(text: bytes) -> int:
    """Quotes that open or close a string; those inside one stand behind a backslash."""
    if b"\\" not in text:
        return text.count(b'"')
    return text.count(b'"') - text.replace(b"\\\\", b"").count(b'\\"')


def _count(values: list[Any]) -> tuple[int, int]:
    """Count keys and strings inside the values of a column, and its levels of nesting."""
    kinds = set(map(type, values))
    if not kinds & {list, dict}:
        return list(map(type, values)).count(str) if str in kinds else 0, 0
    measured = [_measure(value) for value in values]
    return sum(strings for strings, _ in measured), max(depth for _, depth in measured)


def _measure(value: Any) -> tuple[int, int]:
    """Count keys and strings of a value, and its levels of nesting; without recursion, since it may be deep."""
    strings, depth, left = 0, 0, [(value, 1)]
    while left:
        one, level = left.pop()
        if isinstance(one, str):
            strings += 1
        elif isinstance(one, dict):
            strings, depth = strings + len(one), max(depth, level)
            left += [(child, level + 1) for child in one.values()]
        elif isinstance(one, list):
            depth = max(depth, level)
            left += [(child, level + 1) for child in one]
    return strings, depth
