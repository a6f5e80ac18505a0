"""``automl``: from a file or a table and the name of a column to a trained, registered version.

What it decides for the user is written down as ordinary definitions, which a person edits from there on. The same
command again goes on with them: options that they do not say yet are written into them, or refused.
"""

from __future__ import annotations

import errno
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from glob import escape
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.config import find_config
from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import (
    BusyError,
    ConfigurationError,
    DefinitionError,
    InputError,
    NotFoundError,
    RefusedError,
    check_known,
    near,
)
from retrodict.core.expressions import parse
from retrodict.data.definitions import Table
from retrodict.data.readers import read_batch
from retrodict.data.versions import live_batches
from retrodict.learning.frame import EXCLUDED, build_frame, unread_columns
from retrodict.models.definitions import Model
from retrodict.project.column_roles import check_texts, choose_key, key_reason, left_out, read_kinds
from retrodict.project.model_lines import IMPORTS, Options, add_lines, draft_of, quoted, take_over
from retrodict.stores._locks import FileLock

if TYPE_CHECKING:
    from retrodict.project.project import Project
    from retrodict.project.run_views import Run

__all__ = ["add_model", "learn", "make_project"]

_PARTS = (0.6, 0.8)
_YES_AND_NO = (("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("ja", "nein"), ("j", "n"))
_SHORT = 10 * SECOND
_DATA = {".csv", ".parquet", ".jsonl", ".ndjson", ".arrow", ".feather"}


def learn(
    source: str | Path, target: str, options: Options, *, folder: str | Path | None, actor: str | None
) -> Run:  # fmt: skip
    """Make or find the project and the model, and train it.

    Parameters
    ----------
    source : path, or name of a table
    target : str
    options : Options
    folder, actor
        As of :meth:`Project.automl`.

    Raises
    ------
    InputError
        If there is no such file or table, or an option cannot be.
    RefusedError
        If the folder has something else in it.
    """
    from retrodict.project.project import Project

    hint = _check(options)
    file = Path(source) if Path(source).is_file() else None
    place = Path(folder) if folder is not None else Path() if file is None else Path(file.stem)
    command = partial(_command, source=str(source), target=target, options=options, folder=folder, actor=actor)
    try:
        if file is not None and not (place.exists() and any(place.iterdir())):
            with _drafted(place) as draft:
                name = make_project(draft, file, target, actor=actor)
                with Project(draft, actor=actor) as project:
                    model, changes = add_model(project, name, target, options)
        else:
            name = _check_table(place, str(source)) if file is None else _own_table(place, file, command)
            with Project(place, actor=actor) as project:
                model, changes = add_model(project, name, target, options)
        with Project(place, actor=actor) as project:
            run = project.train(model)
            run.choices = {**_choices(project, model), **hint, "definitions.py": list(changes) or None}
            return run
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"what was done is kept; go on with the same command: {command()}") from stop


def _check(options: Options) -> dict[str, str]:
    """Refuse what cannot be, before anything is made; what there is to say of the budget."""
    if options.known_at is not None and options.time is None:
        raise InputError("what is known at a time must be decided at a time", where="--known-at", got=options.known_at,
                         remedy="Name the column with the moment of the decision, too: --time COLUMN")  # fmt: skip
    if options.budget is None:
        return {}
    length = parse_duration(options.budget, where="--budget")
    if not length:
        raise InputError("a budget must be longer than nothing", where="--budget", got=options.budget,
                         remedy="Write it like 2m; in a few seconds hardly a trial is finished")  # fmt: skip
    short = f"{options.budget} is short: perhaps no trial is finished, and a simple model taken; try --budget 2m"
    return {"budget": short} if length < _SHORT else {}


def _command(*, source: str, target: str, options: Options, folder: str | Path | None, actor: str | None) -> str:
    """The whole command, to paste."""
    settings = {"target": target, "budget": options.budget, "time": options.time, "known-at": options.known_at,
                "exclude": ",".join(options.exclude) or None, "project": folder, "actor": actor}  # fmt: skip
    words = [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(["retrodict", "automl", source, *words])


def _check_table(place: Path, source: str) -> str:
    """Name of a table of the project here; what is neither that nor a file is refused with near names of both."""
    try:
        find_config(place)
    except ConfigurationError:
        tables: list[str] = []
    else:
        from retrodict.project.project import Project

        with Project(place) as project:
            tables = [table.name for table in project.definitions.of(Table)]
    if source in tables:
        return source
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    files = [str(file) for file in sorted(folder.iterdir()) if _DATA & {*file.suffixes}] if folder.is_dir() else []
    rule = "automl must be given a file, or the name of a table" if path.is_dir() else "there is no such file"
    if tables and not path.is_dir():
        rule += ", and no such table in the project"
    raise NotFoundError(rule, where="automl", got=f"{source}, a folder" if path.is_dir() else source,
                        remedy=near(source, [*files, *tables], what="file or table" if tables else "file"))  # fmt: skip


# the project of a file ------------------------------------------------------------------------------------------------


@contextmanager
def _drafted(place: Path) -> Iterator[Path]:
    """A folder to make a project in, beside where it will be; it gets its name once the body has ended well.

    What a killed process left there goes; a lock says that one is at work still.
    """
    folder = place.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.automl-"
    for other in folder.parent.glob(f"{escape(prefix)}*/lock"):
        with suppress(BusyError), FileLock(other, where=folder.name, timeout_s=0.0):
            shutil.rmtree(other.parent, ignore_errors=True)
    with (
        TemporaryDirectory(dir=folder.parent, prefix=prefix) as beside,
        FileLock(Path(beside) / "lock", where=folder.name, timeout_s=0.0),
    ):
        (draft := Path(beside) / folder.name).mkdir()
        yield draft
        try:
            draft.replace(folder)
        except OSError as error:  # another process was at it meanwhile
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise BusyError("a folder must be made by one process at a time", where=folder.name,
                            got="one made meanwhile", remedy="Give the command again") from error  # fmt: skip


def make_project(folder: Path, source: Path, target: str, *, actor: str | None) -> str:
    """Make a project of one table in a folder, with the rows of a file; the name of the table."""
    from retrodict.project.project import Project

    name = _name(folder.resolve().name)
    rows = read_batch(source).rows
    kinds = read_kinds(rows)
    key, _ = choose_key(rows, target, kinds)
    columns = "".join(f"\n    {quoted(column)}: {quoted(kind)}," for column, kind in kinds.items())
    columns = f", columns={{{columns}\n}}" if columns else ""
    table = f"Table({quoted(name)}, key={quoted(key)}{columns})"
    (folder / "retrodict.toml").write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
    text = f'"""What this project is: made by `retrodict automl`, yours to edit."""\n\n{IMPORTS}\n\n{name} = {table}\n'
    (folder / "definitions.py").write_text(text, encoding="utf-8")
    with Project(folder, actor=actor) as project:
        project.data.ingest(name, source if key in rows.column_names else _numbered(rows, key))
    return name


def _numbered(rows: pa.Table, key: str) -> pa.Table:
    """Rows with their places in the file as a key."""
    return rows.append_column(key, pa.array(range(len(rows)), pa.int64()))


def _own_table(place: Path, file: Path, command: Callable[..., str]) -> str:
    """Table of a project that was made of the same rows; refused where there is anything else."""
    from retrodict.project.project import Project

    name, same = _name(place.resolve().name), False
    tables: list[str] = []
    if (place / "retrodict.toml").exists():
        with Project(place) as project:
            tables = [table.name for table in project.definitions.of(Table)]
            if name in tables:
                (key,) = (*project.definitions.get(Table, name).key, "")[:1]
                batch = read_batch(file)
                numbered = key and key not in batch.schema.names
                batch = read_batch(_numbered(batch.rows, key)) if numbered else batch
                same = batch.id in live_batches(project.workspace.tables, name)
    if same:
        return name
    folders = (place.parent / f"{place.resolve().name}_{number}" for number in count(2))
    remedy = f"Name another: {command(folder=next(folder for folder in folders if not folder.exists()))}"
    if tables:
        table = name if name in tables else tables[0]
        remedy += f"\nor take the rows of its table: {command(source=table, folder=place)}"
    raise RefusedError("a file must be made into a project of its own", where=place.resolve().name,
                       got="a project of other rows" if tables else "a folder that holds something",
                       remedy=remedy)  # fmt: skip


# the model ------------------------------------------------------------------------------------------------------------


def add_model(project: Project, table: str, target: str, options: Options) -> tuple[str, Sequence[str]]:
    """Write a model of a column into the definitions module, or the options into the one that is there.

    Parameters
    ----------
    project : Project
    table : str
    target : str
        A column, or an expression over the row.
    options : Options

    Returns
    -------
    name : str
        Of the model.
    changes : sequence of str
        What was written into a model that was there, in words.

    Raises
    ------
    InputError
        If the table has no such column, or holds dates or numbers that are read as text.
    DefinitionError
        If no label can be read from the target, or the module does not name the table, so that the lines have to be
        written by hand.
    RefusedError
        If the lines were edited so that an option cannot be written into them.
    """
    rows = project.data.read(table)
    expression, read = _expression(rows, table, target)
    columns = [name for name in rows.column_names if not name.startswith("_")]
    times = [name for name in (options.time, options.known_at) if name is not None]
    for name in (*read, *options.exclude, *times):
        check_known(name, columns, "a column must be one of the table", where=f"table {table}", what="column",
                    error=InputError)  # fmt: skip
    models = {defined.name: defined for defined in project.definitions.of(Model)}
    name = f"{_name(table)}_{_name(target)}"
    path = project.workspace.config.path("project.definitions")
    while name in models:  # two targets may have one name: amount > 5 and amount < 5
        if getattr(models[name].label, "parsed", None) == parse(expression):
            return name, take_over(path, models[name], options, rows.schema, lambda time: _split(rows, time))
        name += "_other"
    key = project.definitions.get(Table, table).key
    used = [column for column in columns if column not in {*options.exclude, *key} - {*times, *read}]
    check_texts(rows.select(used), {*times, *read}, options.exclude)
    unfit = [column for column in left_out(rows) if column not in {*read, *key, *times, *options.exclude}]
    options = replace(options, exclude=(*dict.fromkeys(options.exclude), *unfit))
    text = path.read_text(encoding="utf-8")
    match = re.search(rf'^(\w+)\s*=\s*Table\(\s*(?:name=)?["\']{table}["\']', text, flags=re.MULTILINE)
    label = (match.group(1) if match else table, expression)
    block = add_lines(text, name, label, options, _split(rows, options.time))
    if match is None:
        raise DefinitionError("the definitions module must name the table in one assignment", where=str(path),
                              got=f"no line {table} = Table({table!r}, …)",
                              remedy=f"Add these lines by hand, then train {name}:\n{block}")  # fmt: skip
    with draft_of(path, f"{text.rstrip()}\n\n{block}") as definitions:
        tables = project.workspace.tables
        build_frame(tables, definitions.get(Model, name), {table: tables.history(table)[-1].version})  # checks labels
    return name, ()


def _choices(project: Project, name: str) -> dict[str, object]:
    """The key, and columns that are no features with the reason, as they are read off definitions and rows."""
    model = project.definitions.get(Model, name)
    rows = project.data.read(model.label.table.name)
    key = model.label.table.key
    reasons = left_out(rows)
    words = [f"{column} ({reasons.get(column, why) if why == EXCLUDED else why})"
             for column, why in unread_columns(model, rows.schema).items()]  # fmt: skip
    return {"key": f"{', '.join(key)}, {key_reason(rows, key[0])}" if len(key) == 1 else list(key) or "none",
            "left out": words or None}  # fmt: skip


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
                              remedy=f"Write it down, Label({quoted(target)}, {table}, {quoted(column)}, "
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
    return (f"TimeSplit({quoted(f'{first:%Y-%m-%d}/{middle:%Y-%m-%d}')}, validate={quoted(f'{lengths[0]}d')}, "
            f"test={quoted(f'{lengths[1] + 1}d')})")  # fmt: skip


def _name(text: str) -> str:
    """A name that definitions take, from any text."""
    name = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", text.lower())).strip("_")[:30].strip("_")
    return name if name[:1].isalpha() else f"t_{name}".rstrip("_")
