"""``train`` and ``runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import facts, number, seconds, short_hash, table, when
from retrodict.cli._types import complete, model_names, run_refs

if TYPE_CHECKING:
    from retrodict.learning import Run
    from retrodict.models.definitions import TimeSplit
    from retrodict.registry import ModelVersion

runs = group(cli, "runs", "Look at trainings: parameters, data, metrics.")

_SHOWN = ("auc", "pr_auc", "log_loss", "brier", "calibration_error")


@command(
    cli,
    "train",
    examples=[
        "retrodict train late_arrival",
        "retrodict train late_arrival --train 2013-01-01/2013-08-01 --validate 14d --test 14d",
    ],
)
@click.argument("model", shell_complete=complete(model_names))
@click.option("--train", "span", metavar="FIRST/AFTER", help="Days to train on, instead of the recipe's.")
@click.option("--validate", metavar="LENGTH", help="Length of the validation rows after that.")
@click.option("--test", metavar="LENGTH", help="Length of the test rows after that.")
def train_model(session: Session, model: str, span: str | None, validate: str | None, test: str | None) -> Answer:
    """Train a model and register a version.

    Reads the newest version of every table of the model, climbs the baseline ladder, and judges the gates.
    """
    from retrodict.learning import train
    from retrodict.models.definitions import Model

    definition = session.project.definitions.get(Model, model)
    split = _split(definition.recipe.split, span, validate, test)
    with session.progress(f"train {model}") as progress:
        run, version = train(session.project, model, split=split, progress=progress)
    return Answer({**version.to_dict(), "run": run.to_dict()}, _trained(run, version))


def _split(own: TimeSplit, span: str | None, validate: str | None, test: str | None) -> TimeSplit | None:
    from retrodict.models.definitions import TimeSplit

    if span is None and validate is None and test is None:
        return None
    return TimeSplit(span or own.train, validate or own.validate, test or own.test)


def _trained(run: Run, version: ModelVersion) -> list[Any]:
    return [
        facts(
            {
                "model": version.ref,
                "run": run.ref,
                "rows": _rows(run),
                "left out": _left_out(run),
                "took": seconds(run.seconds),
            }
        ),
        "",
        _ladder(run),
        "",
        _gates(version.gates),
        _next(version),
    ]


def _rows(run: Run) -> str:
    return ", ".join(f"{part} {rows:,}" for part, rows in (run.data.get("rows") or {}).items())


def _left_out(run: Run) -> str | None:
    """Rows without a label, and why."""
    return ", ".join(f"{why} {rows:,}" for why, rows in (run.data.get("left_out") or {}).items() if rows) or None


def _ladder(run: Run) -> Any:
    """Metrics of the test rows: the model, then the rungs below it."""
    rungs = [point.split for point in run.points if point.split.startswith("test/") and point.name == "auc"]
    named = {str(run.params.get("estimator", "model")): "test", **{rung.removeprefix("test/"): rung for rung in rungs}}
    rows = [(name, *(run.values(part).get(metric) for metric in _SHOWN)) for name, part in named.items()]
    known = [i for i, metric in enumerate(_SHOWN, start=1) if any(row[i] is not None for row in rows)]
    columns = ["test rows", *(f"{_SHOWN[i - 1]}>" for i in known)]
    return table(columns, [(row[0], *(row[i] for i in known)) for row in rows])


def _gates(gates: list[dict[str, Any]]) -> Any:
    return (
        table(("gate", "status", "measured"), [(g["gate"], g["status"], g["reason"]) for g in gates]) if gates else None
    )


def _next(version: ModelVersion) -> str:
    if not version.gates_passed:
        return "\nA gate did not pass: this version cannot be approved or deployed."
    command = f"retrodict models approve {version.ref} --reason '…' --actor NAME"
    return f"\nNext, by somebody else than {version.author}: {command}"


@command(runs, "list", examples=["retrodict runs list", "retrodict runs list --model late_arrival"])
@click.option("--model", shell_complete=complete(model_names), help="Only runs of this model.")
def list_all(session: Session, model: str | None) -> Answer:
    """List runs, newest first."""
    from retrodict.learning import list_runs

    found = list_runs(session.project, model)
    rows = [
        (
            run.ref,
            run.model,
            run.status,
            when(run.started),
            seconds(run.seconds),
            run.actor,
            number(run.metrics.get("auc")),
        )
        for run in found
    ]
    shown: Any = (
        table(("run", "model", "status", "started", "took>", "by", "test auc>"), rows)
        if rows
        else "There is no run yet."
    )
    return Answer({"runs": [run.to_dict() for run in found]}, shown)


@command(runs, "show", examples=["retrodict runs show run:01J…"])
@click.argument("ref", shell_complete=complete(run_refs))
def show(session: Session, ref: str) -> Answer:
    """Show one run: data, parameters, metrics, artifacts."""
    from retrodict.learning import get_run

    run = get_run(session.project, ref)
    versions = [f"{name}@{version}" for name, version in sorted(run.data["versions"].items())]
    about = facts(
        {
            "run": run.ref,
            "model": run.model,
            "status": run.status,
            "by": run.actor,
            "started": when(run.started),
            "took": seconds(run.seconds),
            "data": versions,
            "rows": _rows(run) or None,
            "left out": _left_out(run),
            "seed": run.seed,
            "code": short_hash(run.code),
            "environment": short_hash(run.environment),
        }
    )
    own = {name: value for name, value in run.params.items() if name not in ("definition", "features")}
    parts = [about, "", facts(own, title="parameters")]
    if run.points:
        parts += ["", _ladder(run), "", _gates(run.summary.get("gates", []))]
    parts += [
        "",
        table(("artifact", "SHA-256", "kind"), [(a.name, short_hash(a.digest), a.media) for a in run.artifacts]),
    ]
    return Answer(run.to_dict(), parts)


@command(runs, "compare", examples=["retrodict runs compare run:01J… run:01K…"])
@click.argument("refs", nargs=-1, required=True, shell_complete=complete(run_refs))
def compare(session: Session, refs: tuple[str, ...]) -> Answer:
    """Compare runs: their test metrics, and everything in which they differ."""
    from retrodict.learning import compare_runs

    found = compare_runs(session.project, refs)
    columns = found["runs"]
    shown = [
        table(
            ("test metric", *(f"{run}>" for run in columns)),
            [(name, *values) for name, values in found["metrics"].items()],
        ),
        "",
        table(("differs in", *columns), [(name, *map(str, values)) for name, values in found["differs"].items()])
        if found["differs"]
        else "Nothing else differs.",
    ]
    return Answer(found, shown)
