"""``automl``: from a file or a table and the name of a column to a trained, registered version.

What it decides for the user is written down as ordinary definitions, which a person edits from there on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError, InputError, RefusedError, check_known
from retrodict.data.definitions import Table
from retrodict.workspace.definitions import load_definitions

if TYPE_CHECKING:
    from retrodict.project.project import Project

__all__ = ["add_model", "make_project"]

_IMPORTS = "from retrodict import Label, Model, RandomSplit, Recipe, Table, TimeSplit, columns"
# Text of which nearly every row has its own is a name or a note: it tells nothing of other rows.
_UNIQUE_SHARE = 0.5
_PARTS = (0.6, 0.8)


def make_project(folder: Path, source: Path, target: str, *, actor: str | None) -> str:
    """Make a project of one table in a folder, with the rows of a file; the name of the table.

    A column whose values are all there and all differ is the key; where there is none, rows are numbered.

    Raises
    ------
    RefusedError
        If the folder is a project already.
    """
    from retrodict.project.project import Project

    name = _name(folder.resolve().name)
    if (folder / "retrodict.toml").exists():
        raise RefusedError("a file must be made into a project of its own", where=str(folder), got="a project",
                           remedy=f"Name another --folder, or ingest it and name the table: retrodict automl {name} "
                           f"--target {target}")  # fmt: skip
    with TemporaryDirectory() as place:  # a look at the rows, of which the project keeps nothing
        _write(Path(place), name, f'Table("{name}")')
        with Project(place, actor=actor) as project:
            project.data.ingest(name, source)
            rows = project.data.read(name)
    rows = rows.select([column for column in rows.column_names if not column.startswith("_")])
    kinds, key = _kinds(rows), _key(rows, target)
    columns = "".join(f"\n    {_quoted(column)}: {_quoted(kind)}," for column, kind in kinds.items())
    columns = f", columns={{{columns}\n}}" if columns else ""
    _write(folder, name, f'Table("{name}", key={_quoted(key)}{columns})')
    numbered = rows.append_column(key, pa.array(range(len(rows)))) if key not in rows.column_names else source
    with Project(folder, actor=actor) as project:
        project.data.ingest(name, numbered)
    return name


def _write(folder: Path, name: str, table: str) -> None:
    """The two files of a project of one table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "retrodict.toml").write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
    text = f'"""What this project is: made by `retrodict automl`, yours to edit."""\n\n{_IMPORTS}\n\n{name} = {table}\n'
    (folder / "definitions.py").write_text(text, encoding="utf-8")


def _kinds(rows: pa.Table) -> dict[str, str]:
    """Types of columns of text whose every value reads as a number, a truth value or an instant.

    Digits with a leading zero stay text: they are codes. Local times are taken for UTC, which the definitions then say.
    """
    import duckdb

    kinds = {}
    connection = duckdb.connect()
    connection.register("given", rows)
    for field in rows.schema:
        column = '"' + field.name.replace('"', '""') + '"'
        if not pa.types.is_string(field.type) and not pa.types.is_large_string(field.type):
            continue
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


def _key(rows: pa.Table, target: str) -> str:
    """Column that tells rows apart, one called an id before others; a new name where none does."""
    able = [
        field.name for field in rows.schema
        if field.name != target and not pa.types.is_floating(field.type) and rows.column(field.name).null_count == 0
        and pc.count_distinct(rows.column(field.name)).as_py() == len(rows)
    ]  # fmt: skip
    able.sort(key=lambda name: not re.search(r"(^|_)(id|key|nr|no|number)$", name.lower()))
    new = next(name for number in range(1_000) if (name := f"row{number or ''}") not in rows.column_names)
    return able[0] if able else new


def add_model(
    project: Project, table: str, target: str, *, budget: str, time: str | None, known_at: str | None,
    exclude: Sequence[str],
) -> str:  # fmt: skip
    """Write a model of a column into the definitions module; its name.

    Raises
    ------
    InputError
        If the table has no such column.
    DefinitionError
        If the module does not name the table, so that the lines have to be written by hand.
    """
    rows = project.data.read(table)
    for name in (target, *exclude, *filter(None, (time, known_at))):
        check_known(name, rows.column_names, "a column must be one of the table", where=f"table {table}",
                    what="column", error=InputError)  # fmt: skip
    model = f"{_name(table)}_{_name(target)}"
    path = project.workspace.config.path("project.definitions")
    text = path.read_text(encoding="utf-8")
    if any(definition.kind == "model" and definition.name == model for definition in project.definitions):
        return model
    match = re.search(rf'^(\w+)\s*=\s*Table\(\s*(?:name=)?["\']{table}["\']', text, flags=re.MULTILINE)
    variable = match.group(1) if match else table
    moment = "" if time is None else f", known_at={_quoted(known_at or time)}"
    key = project.definitions.get(Table, table).key
    unfit = [*exclude, *(name for name in _names_of_rows(rows) if name not in (target, *exclude, *key))]
    label = f"Label({_quoted(model + '_label')}, {variable}, {_quoted(_expression(rows, target))}{moment})"
    lines = [
        f"{model} = Model(",
        f"    {_quoted(model)},",
        f"    label={label},",
        *([] if time is None else [f"    decide_at={_quoted(time)},"]),
        f"    features=[columns(exclude=[{', '.join(map(_quoted, unfit))}])],",
        f'    recipe=Recipe("auto", {_split(rows, time)}, budget={_quoted(budget)}),',
        ")",
    ]
    block = "\n".join(lines) + "\n"
    if match is None:
        raise DefinitionError("the definitions module must name the table in one assignment", where=str(path),
                              got=f"no line {table} = Table({table!r}, …)",
                              remedy=f"Add these lines by hand, then train {model}:\n{block}")  # fmt: skip
    if "import Table" not in text and _IMPORTS not in text:
        block = f"{_IMPORTS}  # noqa: E402\n\n{block}"
    draft = path.with_name(f".{path.name}.draft.py")
    try:
        draft.write_text(f"{text.rstrip()}\n\n{block}", encoding="utf-8")
        load_definitions(draft).check()
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return model


def _expression(rows: pa.Table, target: str) -> str:
    """What of the column is predicted: of two numbers, whether it is the greater one."""
    column = target if re.fullmatch(r"[a-z_][a-z0-9_]*", target) else '"' + target.replace('"', '""') + '"'
    labels = rows.column(target).drop_null()
    numbers = pa.types.is_integer(labels.type) or pa.types.is_floating(labels.type)
    return f"{column} = {pc.max(labels).as_py()}" if numbers and len(pc.unique(labels)) == 2 else column


def _split(rows: pa.Table, time: str | None) -> str:
    """At random; in time the last fifth of the rows to test on, and the fifth before to validate."""
    if time is None:
        return "RandomSplit()"
    moments = rows.column(time).drop_null()
    if not pa.types.is_timestamp(moments.type):
        raise InputError("the time must be a column of instants", where=f"column {time}", got=str(moments.type),
                         remedy="Declare it: Table(columns={'sent': 'time'})")  # fmt: skip
    ordered = pc.sort_indices(moments)
    first, middle, later, last = (
        moments[ordered[round(share * (len(moments) - 1))].as_py()].as_py() for share in (0.0, *_PARTS, 1.0)
    )
    lengths = [max((end.date() - begin.date()).days, 1) for begin, end in ((middle, later), (later, last))]
    return (f"TimeSplit({_quoted(f'{first:%Y-%m-%d}/{middle:%Y-%m-%d}')}, validate={_quoted(f'{lengths[0]}d')}, "
            f"test={_quoted(f'{lengths[1] + 1}d')})")  # fmt: skip


def _names_of_rows(rows: pa.Table) -> list[str]:
    """Columns of text of which nearly every row has its own, and whole numbers that count the rows."""
    names = []
    for field in rows.schema:
        values = rows.column(field.name).drop_null()
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if field.name.startswith("_") or not len(values) or not (text or pa.types.is_integer(field.type)):
            continue
        share = pc.count_distinct(values).as_py() / len(values)
        if (text and share > _UNIQUE_SHARE and len(values) > 50) or (share == 1.0 and len(values) > 50):
            names.append(field.name)
    return names


def _quoted(text: str) -> str:
    """Text as source, in the quotes of the house."""
    return json.dumps(text, ensure_ascii=False)


def _name(text: str) -> str:
    """A name that definitions take, from any text."""
    name = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", text.lower())).strip("_")[:30].strip("_")
    return name if name[:1].isalpha() else f"t_{name}".rstrip("_")
