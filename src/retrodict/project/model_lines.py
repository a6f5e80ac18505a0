"""The lines of a model in the definitions module: written for a user's options, and changed when those change.

Lines are edited in place, so that what a person has added to them stays; the model is then read from the new text and
must say what was asked for. Where it does not, the lines are shown for a person to write.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, RefusedError
from retrodict.features.definitions import RowColumns
from retrodict.learning.frame import features_of
from retrodict.models.definitions import Model
from retrodict.workspace.definitions import Definitions, load_definitions

__all__ = ["IMPORTS", "Options", "add_lines", "differing", "draft_of", "identifier", "quoted", "take_over"]

IMPORTS = "from retrodict import Label, Model, RandomSplit, Recipe, Table, TimeSplit, columns"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LABEL = rf"\bLabel\({_TEXT}, \w+, {_TEXT}(?=\))"
_SPLIT = rf"(RandomSplit\(\)|TimeSplit\({_TEXT}(, \w+={_TEXT})*\))"


@dataclass(frozen=True, slots=True)
class Options:
    """What a user asks of a model; None, or nothing, where the definition decides.

    Attributes
    ----------
    budget : str, optional
    time, known_at : str, optional
        Columns.
    exclude : tuple of str
        Columns that are no features.
    """

    budget: str | None = None
    time: str | None = None
    known_at: str | None = None
    exclude: tuple[str, ...] = ()


def add_lines(text: str, name: str, label: tuple[str, str], options: Options, split: str) -> str:
    """Lines of a new model; the label is the table's variable and the expression."""
    variable, expression = label
    moment = "" if options.time is None else f", known_at={quoted(identifier(options.known_at or options.time))}"
    lines = [
        f"{name} = Model(",
        f"    {quoted(name)},",
        f"    label=Label({quoted(name + '_label')}, {variable}, {quoted(expression)}{moment}),",
        *([] if options.time is None else [f"    decide_at={quoted(identifier(options.time))},"]),
        f"    features=[columns(exclude=[{', '.join(map(quoted, options.exclude))}])],",
        f'    recipe=Recipe("auto", {split}, budget={quoted(options.budget or "10m")}),',
        ")",
    ]
    imports = "" if "import Table" in text or IMPORTS in text else f"{IMPORTS}  # noqa: E402\n\n"
    return imports + "\n".join(lines) + "\n"


def differing(model: Model, options: Options, schema: pa.Schema) -> dict[str, tuple[Any, Any]]:
    """Options that a model does not follow, each with what it says and what is wanted."""
    changes: dict[str, tuple[Any, Any]] = {}
    budget = model.recipe.budget
    if options.budget is not None and (budget is None or parse_duration(budget) != parse_duration(options.budget)):
        changes["budget"] = (budget, options.budget)
    time = None if options.time is None else identifier(options.time)
    if time is not None and model.decide_at != time:
        changes["time"] = (model.decide_at or None, time)
    known_at = getattr(model.label, "known_at", None)
    value = options.known_at and identifier(options.known_at)
    if value is None and time is not None and known_at in (None, model.decide_at):
        value = time
    if value is not None and known_at != value:
        changes["known_at"] = (known_at, value)
    read = features_of(model, schema).request_columns
    if columns := [name for name in options.exclude if name in read]:
        before = [name for f in model.features if isinstance(f, RowColumns) for name in f.exclude or ()]
        changes["exclude"] = (before, [*before, *columns])
    return changes


def take_over(
    path: Path, model: Model, options: Options, schema: pa.Schema, split: Callable[[str], str]
) -> Sequence[str]:
    """Write options that differ into the lines of a model; a sentence for each.

    Parameters
    ----------
    path : Path
        The definitions module.
    model : Model
        As it is defined.
    options : Options
    schema : pyarrow.Schema
        Of the label's table.
    split : callable
        Gives the source of a split in time by a column.

    Raises
    ------
    RefusedError
        If the lines were edited so that there is no one place to write an option to.
    """
    changes = differing(model, options, schema)
    if not changes:
        return ()
    text = path.read_text(encoding="utf-8")
    first, last = _place(text, model.name)
    lines = text.splitlines(keepends=True)
    block = "".join(lines[first:last])
    for pattern, source in _edits(block, changes, options, split):
        block, count = re.subn(pattern, source.replace("\\", r"\\"), block)
        if count != 1:
            raise _by_hand(path, model, changes)
    if "time" in changes and not re.search(r"\bimport\b.*\bTimeSplit\b", text):
        block = f"from retrodict import TimeSplit  # noqa: E402\n\n{block}"
    with draft_of(path, "".join([*lines[:first], block, *lines[last:]])) as definitions:
        if differing(definitions.get(Model, model.name), options, schema):
            raise _by_hand(path, model, changes)
    return [f"{name} is {_plain(value)} now, was {_plain(now)}" for name, (now, value) in changes.items()]


def _edits(
    block: str, changes: Mapping[str, tuple[Any, Any]], options: Options, split: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """Pattern of each place, and the source that it gets."""
    if "budget" in changes:
        yield rf"(?<=\bbudget=){_TEXT}", quoted(changes["budget"][1])
    if "exclude" in changes:
        yield r"(?<=\bcolumns\(exclude=)\[[^\]]*\]", f"[{', '.join(map(quoted, changes['exclude'][1]))}]"
    if "known_at" in changes:
        keyword, label = f"known_at={quoted(changes['known_at'][1])}", re.search(_LABEL, block)
        if label is None:
            yield rf"\bknown_at={_TEXT}", keyword
        else:
            yield re.escape(label[0]), f"{label[0]}, {keyword}"
    if "time" in changes:
        at = f"decide_at={quoted(changes['time'][1])}"
        yield (rf"\bdecide_at={_TEXT}", at) if "decide_at=" in block else (r"(?<=\n)(?=    features=)", f"    {at},\n")
        yield _SPLIT, split(str(options.time))


def _place(text: str, name: str) -> tuple[int, int]:
    """First line of a model's assignment, and the one after its last; the whole text where it is in none."""
    for node in ast.parse(text).body:
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Call):
            names = [*value.args[:1], *(keyword.value for keyword in value.keywords if keyword.arg == "name")]
            if any(isinstance(part, ast.Constant) and part.value == name for part in names):
                return node.lineno - 1, node.end_lineno or node.lineno
    return 0, 0


def _by_hand(path: Path, model: Model, changes: Mapping[str, tuple[Any, Any]]) -> RefusedError:
    words = {"budget": "recipe=Recipe('auto', …, budget={})", "time": "decide_at={}, with a TimeSplit in the recipe",
             "known_at": "Label(…, known_at={})", "exclude": "columns(exclude={})"}  # fmt: skip
    lines = "; ".join(words[name].format(repr(value)) for name, (_, value) in changes.items())
    return RefusedError("options must be those of the model where its lines were edited by hand",
                        where=f"{path.name}, model {model.name}", got=list(changes),
                        remedy=f"Write there: {lines}; then give the command without these options")  # fmt: skip


@contextmanager
def draft_of(path: Path, text: str) -> Iterator[Definitions]:
    """A new text of the definitions module, checked; it takes the module's place once the body has ended well.

    Raises
    ------
    DefinitionError
        If it does not load.
    """
    draft = path.with_name(f".{path.name}.draft.py")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            definitions = load_definitions(draft)
            definitions.check()
        except DefinitionError as error:  # nobody has seen the draft
            where = str(error.where or "").replace(draft.name, path.name)
            raise DefinitionError(error.rule, where=f"{where} as automl would write it".strip(), got=error.got,
                                  remedy=error.remedy) from error  # fmt: skip
        yield definitions
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def identifier(column: str) -> str:
    """A column as an expression names it."""
    return column if re.fullmatch(r"[a-z_][a-z0-9_]*", column) else '"' + column.replace('"', '""') + '"'


def quoted(text: str) -> str:
    """Text as source, in the quotes of the house."""
    return json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> str:
    return ", ".join(value) or "nothing" if isinstance(value, list) else str(value or "nothing")
