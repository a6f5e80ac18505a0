"""The card of a model version: what is known of it, from what the registry and its run keep, and nothing else.

A section whose facts were not measured or not said is named as such under "Limits", instead of being written from
nothing (Mitchell et al. 2019, Model cards for model reporting, gives the sections).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, number, plain, seconds
from retrodict.core.errors import InputError, NotFoundError
from retrodict.core.files import write_text
from retrodict.evaluation import ClassTable, Ladder
from retrodict.features.definitions import FeatureView
from retrodict.features.derived import Derived
from retrodict.features.plan import FeatureSet
from retrodict.learning.frame import unread_columns
from retrodict.learning.members import cost_grid, member_grid
from retrodict.learning.plots import run_plots
from retrodict.learning.runs import Run, get_run
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.pages import Row, Section, document, plot, themed
from retrodict.registry import ModelVersion, get_version, runtime_grid
from retrodict.workspace import Workspace, definitions_of

__all__ = [
    "ModelCard",
    "choice_words",
    "choices",
    "class_grid",
    "coefficient_grid",
    "model_card",
    "start_grid",
    "threshold_grid",
]

_FAIRNESS = ("dp_ratio", "dp_difference", "equal_opportunity")
_PICTURES = ("calibration", "roc", "precision_recall", "confusion", "actual", "residuals", "coverage", "trials")
_AT_THRESHOLD = ("precision", "recall", "f1", "false_positive_rate", "positive_share", "accuracy")
_LIBRARIES = ("catboost", "lightgbm", "numpy", "pyarrow", "scikit-learn", "scipy", "xgboost-cpu")


@dataclass(frozen=True, slots=True, repr=False)
class ModelCard(Shown):
    """Card of one model version.

    Attributes
    ----------
    model : str
        ``name@version``.
    sections : mapping of str to str, Facts or Grid
        By title, in order of reading.
    pictures : mapping of str to callable
        What draws each as SVG, by name, for the page.
    """

    model: str
    sections: Mapping[str, Block]
    pictures: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    def blocks(self) -> Sequence[Block | None]:
        """Every section under its title."""
        return [_titled(block, title) for title, block in self.sections.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``: facts by name, rows by heading, sentences as they are."""
        return {"model": self.model, "sections": {title: _plain(block) for title, block in self.sections.items()}}

    def markdown(self) -> str:
        """The card as Markdown."""
        parts = [f"# {self.model}"]
        for title, block in self.sections.items():
            parts += [f"## {title}", "\n".join(markdown_lines(block))]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """The card as one page, with its pictures drawn into it."""
        # Where the library that draws is missing, one note says so for all.
        figures = list(dict.fromkeys(plot(_page_picture, draw, name) for name, draw in self.pictures.items()))
        pictures = [Section("Pictures of the test rows and the search", [Row(figures)])] if figures else []
        return document(f"Model card: {self.model}", [*self.blocks(), *pictures])

    def write(self, path: str | Path) -> None:
        """Write the card to a file.

        Raises
        ------
        InputError
            If its name ends in neither ``.html`` nor ``.md``.
        """
        file = Path(path)
        forms = {".html": self.html, ".md": self.markdown}
        if file.suffix not in forms:
            raise InputError("a card must be written to a file that ends in .html or .md", where="model card",
                             got=file.suffix, remedy="Name it card.html or card.md")  # fmt: skip
        write_text(file, forms[file.suffix]())


def model_card(workspace: Workspace, ref: str) -> ModelCard:
    """Card of a model version, from the registry, its run and the code it was trained with.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name@version``, or a name for its newest version.

    Raises
    ------
    NotFoundError
        If there is no such version.
    """
    version = get_version(workspace, ref)
    run = get_run(workspace, version.run)
    model = definitions_of(workspace, run.code).get(Model, version.name)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    environment = json.loads(workspace.objects.get(run.environment))
    choices_of_run = dict(choices(run.summary.get("notes") or {}))
    sections: dict[str, Block | None] = {
        "Model": _identity(version, model, run),
        "Data": _data(workspace, model, run),
        "Features": Grid(("feature", "taken for", "made from"), list(_features(model, artifact))),
        "Training": Facts({**_settings(run), "seed": run.seed, "seconds": run.seconds}),
        "Chosen without test rows": Facts(choices_of_run) if choices_of_run else None,
        "Warm start": start_grid(run.summary.get("notes") or {}),
        "Coefficients": coefficient_grid(run.summary.get("notes") or {}),
        "Metrics of the test rows": _metrics(run, False),
        "Classes": class_grid(run),
        "Ladder": _ladder(run),
        "Members": member_grid(run.summary.get("notes") or {}),
        "Costs": cost_grid(run),
        "Calibration": Facts({name: value for name, value in (run.summary.get("calibration") or {}).items()
                              if value or "target" not in run.params}),
        "Fairness": _metrics(run, True),
        "Gates": _rows(version.gates, ("gate", "status", "value", "reason")),
        "Runtimes": runtime_grid(artifact.metadata["runtimes"]) if "runtimes" in artifact.metadata else None,
        "Leaks": _rows(run.summary.get("leaks"), ("kind", "feature", "figure", "severity", "sentence", "accepted")),
        "Environment": _environment(environment, run),
        "Judgements": _rows(
            [{"time": format_time(a.time), "by": a.approver, "approved": a.granted, "reason": a.reason}
             for a in version.approvals], ("time", "by", "approved", "reason"),
        ),
    }  # fmt: skip
    limits = list(_limits(version, model, run, sections))
    measured = {title: block for title, block in sections.items() if block is not None}
    sections_said = {**measured, "Limits": Grid(("limit",), [(sentence,) for sentence in limits])}
    files = {file.name: file.digest for file in run.artifacts}
    plots = run_plots(workspace.objects, files, run.params, run.summary, run.points)
    return ModelCard(
        version.ref, sections_said, {name: draw for name, draw in plots.items() if name.partition(" ")[0] in _PICTURES}
    )


def _identity(version: ModelVersion, model: Model, run: Run) -> Facts:
    label = model.label
    return Facts({
        "version": version.ref, "description": model.description or None, "owner": model.owner or None,
        "task": run.params.get("target", {}).get("task", "binary"),
        "label": f"{label.name}: {label.expression} (table {label.table.name})",
        "horizons": list(label.horizons) or None,
        "known at": getattr(label, "known_at", None), "decided at": model.decide_at or "the moment of the request",
        "trained by": version.author, "registered": format_time(version.time), "run": run.ref,
        "definition": run.params["definition"],
    })  # fmt: skip


def _data(workspace: Workspace, model: Model, run: Run) -> Facts:
    table = model.label.table
    try:
        unread = unread_columns(model, workspace.tables.schema(table.name, run.data["versions"][table.name]))
    except NotFoundError:  # the version was removed since
        unread = {}
    versions = [f"{name}@{number}" for name, number in sorted(run.data["versions"].items())]
    return Facts({
        "table versions": versions, "as of": format_time(run.data["now"]), "hash of all rows": run.data.get("frame"),
        "rows": run.data.get("rows"), "left out": run.data.get("left_out"),
        **{f"follow-up of {part}": facts for part, facts in run.data.get("follow_up", {}).items()},
        "split": run.params["split"], "key": list(table.key) or None,
        "columns that are no features": [f"{name} ({reason})" for name, reason in unread.items()] or None,
    })  # fmt: skip


def _features(model: Model, artifact: ModelArtifact) -> Iterator[tuple[str, str, str]]:
    """Name, type and origin of each input."""
    features = FeatureSet.trained(model.features, artifact.inputs.names)
    views = {view.name: view for view in model.features if isinstance(view, FeatureView)}
    functions = {function.name for function in model.features if isinstance(function, Derived)}
    for feature in artifact.inputs.features:
        prefix = feature.name.partition("__")[0]
        if feature.name in features.own:
            origin = "column of the row"
        elif prefix in views:
            origin = f"view {prefix} of source {views[prefix].source.name}"
        else:
            origin = f"function {prefix}" if prefix in functions else "function"
        words = f" ({len(feature.vocabulary):,}; another is read as missing)" if feature.vocabulary else ""
        yield feature.name, f"{feature.type}{words}", origin


def _settings(run: Run) -> dict[str, Any]:
    """Parameters in force."""
    apart = {"split", "definition", "features", "target"}
    return {name: value for name, value in run.params.items() if name not in apart}


def _metrics(run: Run, fairness: bool) -> Grid | None:
    points = [
        point for point in run.points
        if point.split == "test" and point.step == 0 and point.name.startswith(_FAIRNESS) is fairness
    ]  # fmt: skip
    rows = [(point.name, point.value, point.low, point.high) for point in points]
    return Grid(("metric", "value>", "from>", "to>"), rows) if rows else None


def _ladder(run: Run) -> Grid | None:
    """What the ladder says of each rung, and each rung's metric."""
    if not run.summary.get("ladder"):
        return None
    ladder = Ladder.from_dict(run.summary["ladder"])
    rungs = [f"{rung.name}: {rung.metric.name} {plain(rung.metric.value)}" for rung in ladder.rungs]
    members = (run.summary.get("notes") or {}).get("members") or {}
    sentences = (*rungs, *ladder.sentences(), *filter(None, [members.get("advice")]))
    return Grid(("ladder",), [(sentence,) for sentence in sentences])


def class_grid(run: Run) -> Grid | None:
    """Support, precision, recall and F1 of each class over the test rows; None for another task."""
    file = next((file for file in run.artifacts if file.name == "evaluations.json"), None)
    if file is None or run.objects is None or (run.params.get("target") or {}).get("task") != "multiclass":
        return None
    table = ClassTable(**json.loads(run.objects.get(file.digest))["test"]["confusion"])
    names = ("class", "test rows>", "decided>", "precision>", "recall>", "F1>")
    return Grid(names, table.lines(), title="classes")


def choices(notes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a recipe chose without test rows, in words."""
    if tuning := notes.get("tuning"):
        yield from _tuned(tuning)
    if threshold := notes.get("threshold"):
        cost = threshold.get("cost")
        costs = "" if cost is None else f" Cost of a row: {number(cost)}"
        low, high = threshold.get("low"), threshold.get("high")
        costs += f" ({number(low)} to {number(high)})." if costs and low is not None else "." if costs else ""
        value = threshold["threshold"]
        yield "threshold", f"{'none' if value is None else format(value, '.4g')}. {threshold['reason']}{costs}"
    if weights := notes.get("weights"):
        yield "shares", ", ".join(f"{name} {share:.0%}" for name, share in weights.items())
    if notes.get("zeroed_coefficients"):
        yield "zero coefficients", f"{notes['zeroed_coefficients']} of {notes['coefficients']} coefficients are zero"
    if balance := notes.get("balance"):
        counts = [
            ", ".join(f"{label}: {rows:,}" for label, rows in balance[key].items()) for key in ("before", "after")
        ]
        yield "balance", f"{balance['how']}, from {counts[0]} to {counts[1]}"
        for sentence in balance.get("warnings", ()):
            yield "balance, note", sentence
    for step in notes.get("steps") or ():
        if selected := step.get("selected"):
            yield step["step"], f"{len(selected)} of {len(step['names'])} columns: {', '.join(selected)}"


def _tuned(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a search came to, in words."""
    counts = ", ".join(f"{report[state]} {state}" for state in ("finished", "pruned", "failed") if report[state])
    counts = f" ({counts})" if counts else ""
    yield "trials", f"{report['trials']} in {seconds(report['seconds'])}{counts}; {report['stopped']}"
    best, default = report["best"], report["default"]
    if best is not None:
        spread = "" if best["std"] is None else f", {number(best['std'])} between folds"
        than = "" if default is None else f"; as written {number(default['value'])}"
        yield report["metric"], f"{number(best['value'])} on {report['folds']} folds{spread}{than}"
    for how, value in report["ensembles"].items():
        alone = report.get("alone")  # earlier runs compared with the best
        than = "" if alone is None else f"; the best by other folds {number(alone)}"
        yield f"joined, {how}", f"{number(value)} on folds that did not weigh them{than}"
    choice = report["choice"]
    if "members" in choice:
        shares = zip(choice["members"], choice["weights"], strict=True)
        yield "chosen", ", ".join(f"{member.get('estimator', 'the recipe')} {share:.0%}" for member, share in shares)
    else:
        yield "chosen", choice_words(choice)


def choice_words(choice: Mapping[str, Any]) -> str:
    """Settings of a trial, in words."""
    return ", ".join(f"{name} {_value(value)}" for name, value in choice.items()) or "as written"


def _value(value: object) -> str:
    return number(value) or "none" if isinstance(value, float) else str(value)


def threshold_grid(run: Run) -> Grid | None:
    """What a threshold does on the test rows; None for a run without one."""
    threshold = ((run.summary.get("notes") or {}).get("threshold") or {}).get("threshold")
    points = {point.name: point for point in run.points if point.split == "test" and point.step == 0}
    metrics = [points[name] for name in _AT_THRESHOLD if name in points]
    if threshold is None or not metrics:
        return None
    rows = [(point.name, point.value, point.low, point.high) for point in metrics]
    return Grid((f"test rows, yes from {threshold:.4g}", "value>", "from>", "to>"), rows)


def coefficient_grid(notes: Mapping[str, Any]) -> Grid | None:
    """Coefficients of proportional hazards, the twenty surest; None where a run has none."""
    names = ("coefficient", "hazard_ratio", "standard_error")
    rows = [(row["term"], *(row[name] for name in names)) for row in notes.get("hazard_ratios", ())]
    title = "coefficients" + (f", 20 of {len(rows)}" if len(rows) > 20 else "")
    return Grid(("term", *(f"{name.replace('_', ' ')}>" for name in names)), rows[:20], title=title) if rows else None


def start_grid(notes: Mapping[str, Any]) -> Grid | None:
    """What a warm start brought, as rows; None where a run had none."""
    if not (body := notes.get("warm_start")):
        return None
    lines: list[tuple[Any, ...]] = [
        (name, body[name]["warm"], body[name].get("cold"), "", None if "cold" in body[name] else "not compared")
        for name in ("seconds", "iterations")
    ]
    lines += [
        (f"{line['rows']}, {line['against']} ({line['n']:,})", line.get("warm"), line.get("other"), _difference(line),
         line["verdict"]) for line in body["compared"]
    ]  # fmt: skip
    columns = ("against", f"{body['loss']}, warm>", "other>", "difference, by which is judged", "verdict")
    return Grid(columns, lines, title=f"warm start from {body['version']}")


def _difference(line: Mapping[str, Any]) -> str:
    """Of the measure that the verdict is by, with its interval."""
    if line.get("difference") is None:
        return ""
    interval = "" if line.get("low") is None else f" ({line['low']:+.4f} to {line['high']:+.4f})"
    measure = str(line["metric"]).removesuffix("_difference").replace("_", " ")
    return f"{measure} {line['difference']:+.4f}{interval}"


def _rows(rows: Sequence[Mapping[str, Any]] | None, columns: Sequence[str]) -> Grid | str | None:
    """Rows as a grid; a word where there is none, nothing where it was not looked for."""
    if rows is None:
        return None
    return Grid(columns, [tuple(row.get(name) for name in columns) for row in rows]) if rows else "None."


def _environment(environment: Mapping[str, Any], run: Run) -> Facts:
    packages = {name: environment["packages"][name] for name in _LIBRARIES if name in environment["packages"]}
    machine = {name: environment.get(name) for name in ("python", "platform", "cpu", "cores")}
    return Facts({**machine, "libraries": packages, "code": run.code, "description": run.environment})


def _limits(version: ModelVersion, model: Model, run: Run, sections: Mapping[str, Block | None]) -> Iterator[str]:
    """What the numbers do not say, and what nobody has said."""
    rows = run.data.get("rows", {})
    train, test = run.params.get("refit", rows.get("train", 0)), rows.get("test", 0)
    yield f"Learned from {train:,} rows and judged on {test:,}; of others it says nothing."
    yield from (str(warning) for warning in run.summary.get("warnings", ()))
    unknown = [point.name for point in run.points if point.split == "test" and point.value is None and point.step == 0]
    if unknown:
        yield f"Not evaluable on these rows: {', '.join(sorted(set(unknown)))}."
    if not model.decide_at:
        yield "Rows have no time: whether the world has changed since they were collected was not tested."
    for title in ("Fairness", "Ladder", "Leaks", "Metrics of the test rows"):
        if sections[title] is None:
            yield f"{title}: not measured."
    if not model.description:
        yield "Intended use: not said in the definition (description=)."
    if not model.owner:
        yield "Owner: not said in the definition (owner=)."
    if not version.approvals:
        yield "Nobody has judged this version yet."


# forms ----------------------------------------------------------------------------------------------------------------


def _page_picture(draw: Callable[[], str], name: str) -> str:
    """A picture in the page's colours, its ids its own."""
    svg = draw()
    return themed(svg[svg.index("<svg") :], f"picture-{name.replace(' ', '-')}")


def _titled(block: Block, title: str) -> Block:
    return replace(block, title=title) if isinstance(block, Facts | Grid) else f"{title}: {block}"


def _plain(block: Block) -> Any:
    if isinstance(block, Facts):
        return plain(dict(block.values))
    if isinstance(block, Grid):
        names = [name.rstrip("?>") for name in block.columns]
        return [dict(zip(names, map(plain, row), strict=True)) for row in block.rows]
    return str(block)


def markdown_lines(block: Block) -> Iterator[str]:
    """Lines of Markdown that show a block; no value is taken for markup."""
    if isinstance(block, Facts):
        yield from (f"- **{name}**: {_inline(text)}" for name, text in block.cells())
    elif isinstance(block, Grid) and len(block.columns) == 1:
        yield from (f"- {_inline(row[0])}" for row in block.rows)
    elif isinstance(block, Grid):
        yield "| " + " | ".join(name.rstrip("?>") for name in block.columns) + " |"
        yield "|" + "---|" * len(block.columns)
        for row in block.rows:
            values = {str(place): "" if value is None else value for place, value in enumerate(row)}
            cells = [text for _, text in Facts(values).cells()]
            yield "| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in cells) + " |"
    else:
        yield _inline(block)


def _inline(value: object) -> str:
    """Text on one line in which Markdown and HTML have no meaning."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
