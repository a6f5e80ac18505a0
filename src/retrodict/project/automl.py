"""``automl``: from a file or a table and the name of a column to a trained, registered version.

What it decides for the user is written down as ordinary definitions, which a person edits from there on.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError, InputError, RefusedError, check_known
from retrodict.core.expressions import parse
from retrodict.data.definitions import Table
from retrodict.learning.frame import build_frame
from retrodict.models.definitions import Model
from retrodict.workspace.definitions import load_definitions

if TYPE_CHECKING:
    from retrodict.project.project import Project

__all__ = ["add_model", "drafted", "make_project"]

_IMPORTS = "from retrodict import Label, Model, RandomSplit, Recipe, Table, TimeSplit, columns"
# Text of which nearly every row has its own is a name or a note: it tells nothing of other rows.
_UNIQUE_SHARE = 0.5
_PARTS = (0.6, 0.8)
_YES_AND_NO = (("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("ja", "nein"), ("j", "n"))
_OTHER_DATE = r"^\s*\d{1,2}[./ -](\d{1,2}|\pL{3,9})\.?[./ -]+(\d{4}|\d{2})($|[ T,])"


@contextmanager
def drafted(place: Path, source: str, target: str) -> Iterator[Path]:
    """A folder to make a project in, beside where it will be; it gets its name once the body has ended well.

    Raises
    ------
    RefusedError
        If there is something in the folder already.
    """
    folder = place.resolve()
    if folder.exists() and any(folder.iterdir()):
        command = shlex.join(["retrodict", "automl", source, "--target", target, "--project", f"{place}_2"])
        name = shlex.join(["retrodict", "automl", _name(folder.name), "--target", target, "--project", str(place)])
        table = f"\nor take its table: {name}" if (folder / "retrodict.toml").exists() else ""
        raise RefusedError("a file must be made into a project of its own", where=folder.name,
                           got="a project" if table else "a folder that holds something",
                           remedy=f"Name another: {command}{table}")  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        (draft := Path(beside) / folder.name).mkdir()
        yield draft
        draft.replace(folder)


def make_project(folder: Path, source: Path, target: str, *, actor: str | None) -> str:
    """Make a project of one table in a folder, with the rows of a file; the name of the table.

    A column whose values are all there and all differ is the key; where there is none, rows are numbered.
    """
    from retrodict.project.project import Project

    name = _name(folder.resolve().name)
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

    Parameters
    ----------
    project : Project
    table : str
    target : str
        A column, or an expression over the row.
    budget, time, known_at, exclude
        As of :meth:`Project.automl`.

    Raises
    ------
    InputError
        If the table has no such column, or holds dates that are read as text.
    DefinitionError
        If no label can be read from the target, or the module does not name the table, so that the lines have to be
        written by hand.
    """
    rows = project.data.read(table)
    expression, read = _expression(rows, table, target)
    columns = [name for name in rows.column_names if not name.startswith("_")]
    for name in (*read, *exclude, *filter(None, (time, known_at))):
        check_known(name, columns, "a column must be one of the table", where=f"table {table}", what="column",
                    error=InputError)  # fmt: skip
    key = project.definitions.get(Table, table).key
    _check_dates(rows.drop_columns(list({*read, *exclude, *key} - {time, known_at})))
    models = {defined.name: defined for defined in project.definitions.of(Model)}
    model = f"{_name(table)}_{_name(target)}"
    path = project.workspace.config.path("project.definitions")
    text = path.read_text(encoding="utf-8")
    while model in models:  # two targets may have one name: amount > 5 and amount < 5
        if getattr(models[model].label, "parsed", None) == parse(expression):
            return model
        model += "_other"
    match = re.search(rf'^(\w+)\s*=\s*Table\(\s*(?:name=)?["\']{table}["\']', text, flags=re.MULTILINE)
    variable = match.group(1) if match else table
    moment = "" if time is None else f", known_at={_quoted(known_at or time)}"
    unfit = [*exclude, *(name for name in _names_of_rows(rows) if name not in (*read, *exclude, *key))]
    label = f"Label({_quoted(model + '_label')}, {variable}, {_quoted(expression)}{moment})"
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
        definitions = load_definitions(draft)
        definitions.check()
        tables = project.workspace.tables
        build_frame(tables, definitions.get(Model, model), {table: tables.history(table)[-1].version})  # checks labels
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return model


def _expression(rows: pa.Table, table: str, target: str) -> tuple[str, Sequence[str]]:
    """What is predicted, and the columns it reads: of two numbers whether it is the greater, of yes and no the yes."""
    if target not in rows.column_names:
        parsed = None if re.fullmatch(r"\w+", target) else parse(target, where="target")
        return target, (target,) if parsed is None else parsed.columns
    column = target if re.fullmatch(r"[a-z_][a-z0-9_]*", target) else '"' + target.replace('"', '""') + '"'
    labels = rows.column(target).drop_null()
    if pa.types.is_timestamp(labels.type) or pa.types.is_date(labels.type):
        raise DefinitionError("the target must be a yes or no, a class or a number: automl takes no time to an event",
                              where=f"column {target}", got=str(labels.type),
                              remedy=f"Write it down, Label({_quoted(target)}, {table}, {_quoted(column)}, "
                              "horizons=['30d', '90d']) with Recipe('cox'), as docs/time-to-event.md shows, or name "
                              f"what happened: --target {shlex.quote(column + ' is not null')}")  # fmt: skip
    values = pc.unique(labels).to_pylist()
    if len(values) != 2 or pa.types.is_boolean(labels.type):
        return column, (target,)
    if not isinstance(values[0], str):
        return f"{column} = {max(values)}", (target,)
    pair = {value.strip().lower(): value for value in values}
    choices = [f"{column} = '" + value.replace("'", "''") + "'" for value in values]
    yes = next((pair[yes] for yes, no in _YES_AND_NO if pair.keys() == {yes, no}), None)
    if yes is None:
        commands = " or ".join(f"--target {shlex.quote(choice)}" for choice in sorted(choices))
        raise InputError("a target of two texts must say which is the yes", where=f"column {target}", got=2,
                         remedy=f"Write {commands}")  # fmt: skip
    return choices[values.index(yes)], (target,)


def _check_dates(rows: pa.Table) -> None:
    """Refuse text that reads as days in a form that is not taken for times, which would become a category."""
    for field in rows.schema:
        values = rows.column(field.name).drop_null()
        if not len(values) or not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            continue
        if pc.all(pc.match_substring_regex(values, _OTHER_DATE)).as_py():
            raise InputError("dates must be written year first, like 2024-01-31, or they are read as text",
                             where=f"column {field.name}", got=f"{len(values):,} dates in another form",
                             remedy="Convert them, as with pandas.to_datetime(frame[column], format='%d.%m.%Y'), or "
                             f"leave the column out: --exclude {shlex.quote(field.name)}")  # fmt: skip


def _split(rows: pa.Table, time: str | None) -> str:
    """At random; in time the last fifth of the rows to test on, and the fifth before to validate."""
    if time is None:
        return "RandomSplit()"
    moments = rows.column(time).drop_null()
    if not pa.types.is_timestamp(moments.type):
        raise InputError("the time must be a column of instants", where=f"column {time}", got=str(moments.type),
                         remedy=f"Name another, or declare it: Table(columns={{{time!r}: 'time'}})")  # fmt: skip
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
