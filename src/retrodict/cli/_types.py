"""Kinds of arguments, and what the Tab key offers for them: names out of the project at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from retrodict.project import parse_time

if TYPE_CHECKING:
    from retrodict.project import Project

__all__ = [
    "FolderPath",
    "complete",
    "entities",
    "feature_names",
    "frames",
    "instant",
    "model_names",
    "model_refs",
    "monitors",
    "name_values",
    "names",
    "objects",
    "outcomes",
    "pipelines",
    "policies",
    "run_refs",
    "sources",
    "tables",
]

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


class FolderPath(click.Path):
    """A folder by its name; an empty one, of a variable that is not set, say, is not this folder."""

    def __init__(self, path_type: type) -> None:
        super().__init__(file_okay=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Path of it."""
        if value == "":
            self.fail("a folder must have a name; got ''. Write '.' for this one", param, ctx)
        return super().convert(value, param, ctx)


def instant(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: a time in ISO 8601 with its zone, as microseconds since 1970-01-01 UTC."""
    del context
    return None if value is None else parse_time(value, where=option.opts[0])


def names(context: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Callback of an option: names with commas between them."""
    del context, option
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def name_values(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """Callback of a repeated option: ``name=value``, the value a JSON scalar where it reads as one, text elsewhere."""
    pairs = {}
    for argument in values:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise click.BadParameter("it reads name=value", ctx=context, param=option)
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice", ctx=context, param=option)
        pairs[name] = _scalar(text)
    return pairs


def _scalar(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(word)  # NaN and Infinity are Python's idea of JSON: as a value they are text

    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def complete(candidates: Callable[[Any], Iterable[str]]) -> Completer:
    """Offer names of the project that begin with what is typed; nothing where there is no project."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        del param
        from retrodict.project import Project

        try:
            with Project(ctx.params.get("project_dir") or ".") as project:
                return sorted(name for name in set(candidates(project)) if name.startswith(incomplete))
        except Exception:  # noqa: BLE001  # a shell that completes must not print a trace, whatever is wrong
            return []

    return offer


def _defined(*kinds: str) -> Callable[[Project], list[str]]:
    return lambda project: [definition.name for definition in project.definitions if definition.kind in kinds]


tables, model_names, monitors = _defined("table"), _defined("model"), _defined("monitor")
policies = _defined("policy", "model")  # which may be served without one
pipelines = _defined("pipeline")


def outcomes(project: Project) -> list[str]:
    """Defined outcomes, also those that stand only in a model."""
    labels = [getattr(definition, "label", None) for definition in project.definitions]
    return [d.name for d in [*project.definitions, *labels] if d is not None and d.kind == "outcome"]


def model_refs(project: Project) -> list[str]:
    """Registered versions, as ``name@version``."""
    return [version.ref for version in project.models.list()]


def run_refs(project: Project) -> list[str]:
    """Runs, as ``run:ULID``."""
    return [run.ref for run in project.runs.list()]


def objects(project: Project) -> list[str]:
    """Everything the ledger has an entry on."""
    return [entry.object_id for entry in project.ledger.log(limit=1_000_000)]


def feature_names(project: Project) -> list[str]:
    """Views and derived functions, and their features as ``view.feature``."""
    summaries = project.features.list()
    columns = [column.replace("__", ".", 1) for summary in summaries for column in summary.features]
    return [*(summary.name for summary in summaries), *columns]


def sources(project: Project) -> list[str]:
    """Sources that views read."""
    return [summary.source for summary in project.features.list() if summary.source is not None]


def entities(project: Project) -> list[str]:
    """Entities that views are about."""
    return [summary.entity for summary in project.features.list() if summary.entity is not None]


def frames(project: Project) -> list[str]:
    """Kept training frames."""
    return [frame.name for frame in project.features.frames()]
