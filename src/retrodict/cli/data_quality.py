"""``data profile``, ``data suggest``, ``data health``: what is in a table, what must hold of it, and how it fares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._text import count, facts, number, table, when
from retrodict.cli._types import complete, tables
from retrodict.cli.data import data

if TYPE_CHECKING:
    from retrodict.data.profiling import ColumnProfile, Health

_FILES = (
    ".csv",
    ".csv.gz",
    ".tsv",
    ".jsonl",
    ".jsonl.gz",
    ".json",
    ".ndjson",
    ".parquet",
    ".arrow",
    ".feather",
    ".ipc",
)
_OUTPUT = click.Path(dir_okay=False, path_type=Path)


@command(
    data,
    "profile",
    examples=["retrodict data profile flights", "retrodict data profile flights@3 --html flights.html",
              "retrodict data profile deliveries/*.csv --json"],
)  # fmt: skip
@click.argument("sources", metavar="TABLE[@REF]|FILE...", nargs=-1, required=True, shell_complete=complete(tables))
@click.option("--html", type=_OUTPUT, help="Write a page with every column, histograms and correlations to this file.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Most frequent values per column.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sample for correlations.")
def profile_rows(session: Session, sources: tuple[str, ...], html: Path | None, top: int, seed: int) -> Answer:
    """Show what is in a version of a table, or in files, before anything is built on it.

    Types, missing values, distinct values, extremes, quantiles, shapes of texts, candidate keys, and what deserves a
    look. Columns of texts that look personal show no value.
    """
    from retrodict.data.profiling import findings, profile, profile_html

    with session.progress("profile"):
        found = profile(_source(session, sources), top=top, seed=seed)
    if html is not None:
        _write(html, profile_html(found))
    notes = findings(found)
    body = found.to_dict() | {
        "findings": [
            {"kind": n.kind, "columns": list(n.columns), "text": n.text, "level": n.level} for n in notes
        ]
    }  # fmt: skip
    said = [
        facts({
            "rows": found.rows, "columns": len(found.columns), "from": found.origin, "repeated rows": found.duplicated,
            "candidate key": " or ".join(" + ".join(names) for names in found.keys[:3]) or "none found",
        }),
        "",
        table(("column", "type", "missing>", "distinct>", "smallest", "median", "largest", "most frequent"),
              [_line(column) for column in found.columns]),
    ]  # fmt: skip
    if notes:
        said += ["", *(f"{'! ' if note.level == 'warning' else '  '}{note.text}" for note in notes)]
    return Answer(body, [*said, *_written(html)])


def _line(column: ColumnProfile) -> Sequence[Any]:
    middle = (column.quantiles or {}).get("0.5")
    if column.type == "int" and isinstance(middle, float) and middle.is_integer():
        middle = int(middle)
    frequent: object = column.top[:3] and ", ".join(str(each.value) for each in column.top[:3])
    if column.hidden is not None:
        frequent = "values not shown"
    distinct = f"{'' if column.distinct_exact else '~'}{column.distinct:,}"
    missing = f"{column.missing / column.rows:.2%}" if column.missing else None
    return (column.name, column.type, missing, distinct, column.minimum, middle, column.maximum, frequent or None)


@command(
    data,
    "suggest",
    examples=["retrodict data suggest flights", "retrodict data suggest flights.csv.gz --output flights.py"],
)
@click.argument("sources", metavar="TABLE[@REF]|FILE...", nargs=-1, required=True, shell_complete=complete(tables))
@click.option("--output", type=_OUTPUT, help="Write the definition to this file.")
def suggest_checks(session: Session, sources: tuple[str, ...], output: Path | None) -> Answer:
    """Suggest a table's definition with checks that hold on its rows, as Python to paste.

    Every check was judged on all rows; bounds leave room for what sampling alone moves in the next batch.
    """
    from retrodict.data.profiling import as_python, suggest_table

    source = _source(session, sources)
    with session.progress("suggest"):
        found, suggestions, types = suggest_table(source)
    key = _declared_key(session, found.name) if isinstance(source, tuple) else None
    if key:
        suggestions = [each for each in suggestions if each.check.rule != "primary_key"]
    text = as_python(found.name, suggestions, types, key)
    module = f"from retrodict import Check, Table\n\n{text}\n"
    body = {
        "table": found.name, "rows": found.rows, "columns": types,
        "suggestions": [each.to_dict() for each in suggestions], "python": module,
    }  # fmt: skip
    if output is None:
        return Answer(body, module.rstrip("\n"))
    _write(output, module)
    return Answer(body, f"{count(len(suggestions))} checks suggested from {count(found.rows)} rows, in {output}")


def _declared_key(session: Session, name: str) -> Sequence[str] | None:
    from retrodict.data.definitions import Table

    return (
        next((table.key for table in session.project.workspace.definitions.of(Table) if table.name == name), None)
        or None
    )


@command(
    data,
    "health",
    examples=["retrodict data health flights", "retrodict data health flights --history --html health.html"],
)
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.option("--version", type=click.IntRange(0), help="Version to score.  [default: the newest with checks]")
@click.option("--history", is_flag=True, help="Score every version.")
@click.option("--html", type=_OUTPUT, help="Write a page with the scores and where they come from to this file.")
@click.option("--png", type=_OUTPUT, help="Draw the history into this file (extra: plots).")
def show_health(
    session: Session, name: str, version: int | None, history: bool, html: Path | None, png: Path | None
) -> Answer:
    """Score a version: completeness, accuracy, consistency, timeliness, from its checks.

    A dimension without a check that could be evaluated is not evaluable, and has no part in the overall score.
    """
    from retrodict.data.profiling import health, health_history, health_html, health_png

    one = health(session.project.workspace, name, version)
    every = [each for each in health_history(session.project.workspace, name) if each.version <= one.version]
    if html is not None:
        _write(html, health_html(every))
    if png is not None:
        png.parent.mkdir(parents=True, exist_ok=True)
        health_png(every, png)
    if history:
        return Answer(
            {"table": name, "versions": [each.to_dict() for each in every]}, [*_history(every), *_written(html, png)]
        )
    return Answer(one.to_dict(), [*_scores(one), *_written(html, png)])


def _scores(found: Health) -> list[Any]:
    lines = [
        (
            score.dimension,
            _evaluable(score.value),
            sum(each.score is not None for each in score.checks),
            _worst(score.checks),
        )
        for score in found.scores
    ]
    aside = f"{count(found.quarantined)} of {count(found.rows)} rows set aside"
    return [
        f"{found.table}@{found.version}, {when(found.time)}: {_evaluable(found.overall)}; {aside}",
        table(("dimension", "score", "checks>", "lowest"), lines),
    ]


def _worst(checks: Sequence[Any]) -> str | None:
    judged = [each for each in checks if each.score is not None and each.score < 1]
    if not judged:
        return None
    lowest = min(judged, key=lambda each: (each.score, -each.weight))
    return f"{lowest.check} ({number(lowest.score)})"


def _history(every: Sequence[Health]) -> list[Any]:
    from retrodict.data.profiling import sparkline

    names = [score.dimension for score in every[0].scores]
    lines = [("overall", sparkline([each.overall for each in every]), _evaluable(every[-1].overall))]
    lines += [(n, sparkline([each[n].value for each in every]), _evaluable(every[-1][n].value)) for n in names]
    rows = [
        (
            each.version,
            when(each.time),
            each.rows,
            each.quarantined,
            each.overall,
            *(score.value for score in each.scores),
        )
        for each in every
    ]
    headings = ("version>", "published", "rows>", "set aside>", "overall>", *(f"{name}>" for name in names))
    return [
        table(("score", f"versions {every[0].version} to {every[-1].version}", "now"), lines),
        "",
        table(headings, rows),
    ]


def _evaluable(value: float | None) -> str:
    return "not evaluable" if value is None else number(value)


def _source(session: Session, sources: tuple[str, ...]) -> Any:
    """What the arguments mean: a table of the project, unless they are there as files or read like some."""
    first = sources[0]
    files = (
        len(sources) > 1
        or Path(first).exists()
        or any(sign in first for sign in "/\\*?[")
        or first.lower().endswith(_FILES)
    )
    if files:
        return first if len(sources) == 1 else list(sources)
    return session.project.workspace, first


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _written(*paths: Path | None) -> list[str]:
    return [f"written: {path}" for path in paths if path is not None]
