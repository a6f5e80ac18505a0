"""Kinds of arguments, and what the Tab key offers for them: names out of the project at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.core.clock import parse_time

if TYPE_CHECKING:
    from retrodict.workspace import Workspace

__all__ = [
    "complete",
    "existing_file",
    "instant",
    "model_names",
    "model_refs",
    "monitors",
    "name_values",
    "objects",
    "policies",
    "run_refs",
    "tables",
]

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def instant(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: a time in ISO 8601 with its zone, as microseconds since 1970-01-01 UTC."""
    del context
    return None if value is None else parse_time(value, where=option.opts[0])


def name_values(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """Callback of a repeated option: ``name=value``, the value a JSON scalar where it reads as one, text elsewhere."""
    found = {}
    for given in values:
        name, equals, text = given.partition("=")
        if not equals or not name:
            raise click.BadParameter("it reads name=value", ctx=context, param=option)
        found[name] = _scalar(text)
    return found


def _scalar(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(word)  # NaN and Infinity are Python's idea of JSON: as a value they are text

    try:
        found = json.loads(text, parse_constant=refuse)
    except ValueError:
        return text
    return text if isinstance(found, dict | list) else found


def complete(names: Callable[[Workspace], Iterable[str]]) -> Completer:
    """Offer names of the project that begin with what is typed; nothing where there is no project."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        del param
        from retrodict.workspace import Workspace

        try:
            with Workspace(ctx.params.get("project_dir") or ".") as project:
                return sorted(name for name in set(names(project)) if name.startswith(incomplete))
        except Exception:  # noqa: BLE001  # a shell that completes must not print a trace, whatever is wrong
            return []

    return offer


def tables(project: Workspace) -> list[str]:
    """Names of the defined tables."""
    from retrodict.data.definitions import Table

    return [table.name for table in project.definitions.of(Table)]


def model_names(project: Workspace) -> list[str]:
    """Names of the defined models."""
    from retrodict.models.definitions import Model

    return [model.name for model in project.definitions.of(Model)]


def model_refs(project: Workspace) -> list[str]:
    """Registered versions, as ``name@version``."""
    from retrodict.registry import list_versions

    return [version.ref for version in list_versions(project)]


def policies(project: Workspace) -> list[str]:
    """Names of the defined policies."""
    from retrodict.decisions.definitions import Policy

    return [policy.name for policy in project.definitions.of(Policy)]


def monitors(project: Workspace) -> list[str]:
    """Names of the defined monitors."""
    from retrodict.monitoring.definitions import Monitor

    return [monitor.name for monitor in project.definitions.of(Monitor)]


def run_refs(project: Workspace) -> list[str]:
    """Runs, as ``run:ULID``."""
    from retrodict.learning import list_runs

    return [run.ref for run in list_runs(project)]


def objects(project: Workspace) -> list[str]:
    """Everything the ledger has an entry on."""
    return [entry.object_id for entry in project.ledger.entries()]


def existing_file() -> click.Path:
    """A file that is there."""
    return click.Path(exists=True, dir_okay=False, path_type=Path)
