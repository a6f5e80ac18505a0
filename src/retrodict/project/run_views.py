"""Runs as people look at them: one with its numbers and pictures, several beside each other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict import learning
from retrodict.core.display import Block, Facts, Grid, Shown, Verbatim, number, seconds, short_hash, when
from retrodict.core.errors import check_known
from retrodict.core.files import write_text
from retrodict.core.tasks import Target
from retrodict.models.definitions import Model
from retrodict.project.damage import names_damage

if TYPE_CHECKING:
    from retrodict.learning.replay import RunReplay
    from retrodict.learning.runs import Run as RunRecord
    from retrodict.registry import ModelVersion
    from retrodict.workspace import Workspace

__all__ = ["Plot", "PushedRun", "Run", "RunComparison", "RunExport", "headline"]

_METRICS = ("auc", "pr_auc", "log_loss", "brier", "calibration_error")
# What a task is judged by, the telling ones first: areas are of a yes or no, deviance of a count.
_HEADLINES = ("integrated_brier", "auc", "ndcg_at_k", "pinball", "deviance", "log_loss", "rmse")


class Run(Shown):
    """One training.

    Attributes
    ----------
    record : retrodict.learning.runs.Run
        Everything that is stored of it.
    version : ModelVersion or None
        The version it registered; None for a run that failed or was read from the store.
    choices : dict
        What ``automl`` chose for the user, in words: the key, columns left out; empty for another run.

    Examples
    --------
    >>> run = project.train("late_arrival")  # doctest: +SKIP
    >>> run.metrics["auc"]  # doctest: +SKIP
    0.728
    """

    __slots__ = ("_workspace", "choices", "record", "reused", "version")

    def __init__(
        self, workspace: Workspace, record: RunRecord, version: ModelVersion | None = None, *, reused: bool = False
    ) -> None:
        self._workspace, self.record, self.version, self.reused = workspace, record, version, reused
        self.choices: Mapping[str, Any] = {}

    @property
    def ref(self) -> str:
        """``run:ULID``."""
        return self.record.ref

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.record.model

    @property
    def status(self) -> str:
        """``running``, ``finished`` or ``failed``."""
        return self.record.status

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters after defaults."""
        return self.record.params

    @property
    def warnings(self) -> Sequence[str]:
        """What somebody should look at before the model decides anything, each a sentence."""
        return tuple(self.record.summary.get("warnings", ()))

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metrics of the test rows by name; None where one could not be evaluated."""
        return self.record.values("test")

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """Trials of a search, the best first, then those that did not finish.

        Each has ``number``, ``state``, ``choice``, ``value`` and ``std`` over the ``folds`` of the training rows.
        """
        return self.record.trials()

    def plot(self, name: str = "calibration") -> Plot:
        """Return a picture of the run by name, ``importance`` among them; an unknown one with the names there are."""
        if name.removesuffix(".svg") == "importance":  # is measured when it is looked at
            return Plot(learning.importance(self._workspace, self.ref).svg())
        return Plot(self.record.plot(name.removesuffix(".svg")).decode())

    def compare(self, *others: Run | str) -> RunComparison:
        """Compare with other runs: test metrics, and everything in which they differ."""
        refs = [self.ref, *(other if isinstance(other, str) else other.ref for other in others)]
        return RunComparison(**learning.compare_runs(self._workspace, refs))

    @names_damage
    def replay(self) -> RunReplay:
        """Execute the run again from its own code, rows and seed, and compare bit for bit."""
        return learning.replay_run(self._workspace, self.ref)

    @names_damage
    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        if self.version is None:
            return self.record.to_dict()
        choices = {"choices": dict(self.choices)} if self.choices else {}
        return {**self.version.to_dict(), "run": self.record.to_dict(), **choices}

    @names_damage
    def blocks(self) -> Sequence[Block | None]:
        """A training that was just done, or everything of a stored run."""
        return self._stored() if self.version is None else self._trained(self.version)

    def _trained(self, version: ModelVersion) -> Sequence[Block | None]:
        target = Target.from_dict(self.record.params["target"]) if "target" in self.record.params else Target()
        label = self._workspace.definitions.get(Model, self.record.model).label.expression
        about = {
            "model": version.ref, "run": self.ref, "task": target.task, "label": label, "rows": self._rows(),
            "left out": self._left_out(), "calibration": self._calibration(), "took": seconds(self.record.seconds),
        }  # fmt: skip
        if version.gates_passed:
            command = f"retrodict models approve {version.ref} --reason '…' --actor NAME{self._elsewhere()}"
            following = f"Next, by somebody else than {version.author}: {command}"
        else:
            following = "A gate did not pass: this version cannot be approved or deployed."
        same = ("Nothing that it is made from has changed: this is the run there was. To train anyway: "
                f"retrodict train {version.name} --again{self._elsewhere()}")  # fmt: skip
        choices = Facts(self.choices, title="chosen for you, to edit in definitions.py") if self.choices else None
        return [Facts(about), same if self.reused else None, choices, *self._warnings(), self._ladder(), *self._said(),
                _gates(version.gates), "", following]  # fmt: skip

    def _elsewhere(self) -> str:
        """Option that names the project, where a command given here would not find it."""
        here, root = Path.cwd(), self._workspace.root.resolve()
        if root in (here, *here.parents):
            return ""
        return f" --project {shlex.quote(str(root.relative_to(here) if root.is_relative_to(here) else root))}"

    def _said(self) -> Sequence[Block]:
        """What the ladder says in words, and what was chosen on the way: threshold, steps, members."""
        notes = self.record.summary.get("notes") or {}
        return [*self._sentences(), *self._chosen(), *_leaderboard(notes), *self._fit_grids()]

    def _sentences(self) -> Sequence[str]:
        from retrodict.evaluation.ladder import Ladder

        ladder, members = (body.get(name) or {} for body, name in (
            (self.record.summary, "ladder"), (self.record.summary.get("notes") or {}, "members")))  # fmt: skip
        return [*(Ladder.from_dict(ladder).sentences() if ladder else ()), *filter(None, [members.get("advice")])]

    def _chosen(self) -> Sequence[Block]:
        from retrodict.learning.card import choices, threshold_grid

        facts = dict(choices(self.record.summary.get("notes") or {}))
        blocks = [Facts(facts, title="chosen without test rows") if facts else None, threshold_grid(self.record)]
        return [block for block in blocks if block is not None]

    def _fit_grids(self) -> Sequence[Block]:
        from retrodict.learning.card import class_grid, coefficient_grid, start_grid
        from retrodict.learning.members import cost_grid, member_grid

        notes = self.record.summary.get("notes") or {}
        grids = (class_grid(self.record), cost_grid(self.record), member_grid(notes), coefficient_grid(notes),
                 start_grid(notes))  # fmt: skip
        return [grid for grid in grids if grid is not None]

    def _stored(self) -> Sequence[Block | None]:
        from retrodict.learning.runs.comparison import commit_text

        run = self.record
        about = {
            "run": run.ref, "name": run.name or None, "part of": run.parent and f"run:{run.parent}",
            "model": run.model or None, "status": run.status, "error": run.summary.get("error"),
            "by": run.actor, "started": when(run.started),
            "took": seconds(run.seconds), "rows": self._rows() or None, "left out": self._left_out(),
            "data": [f"{name}@{version}" for name, version in sorted(run.data["versions"].items())],
            "calibration": self._calibration(), "seed": run.seed, "code": short_hash(run.code),
            "environment": short_hash(run.environment),
            "checkpoints": run.data.get("checkpoints") if run.status != "finished" else None,
            "commit": commit_text(git) if (git := run.data.get("git")) else None,
            "tags": [f"{name}={value}" for name, value in run.tags.items()] or None, "note": run.note or None,
        }  # fmt: skip
        params = {name: value for name, value in run.params.items() if name not in ("definition", "features")}
        artifacts = [(a.name, short_hash(a.digest), a.media) for a in run.artifacts]
        return [
            Facts(about),
            *self._warnings(),
            Facts(params, title="parameters"),
            (self._ladder() if run.summary.get("ladder") else self._metrics()) if run.points else None,
            *self._sentences(),
            *self._chosen(),
            *self._fit_grids(),
            *_leaderboard(run.summary.get("notes") or {}),
            _gates(run.summary.get("gates", [])),
            Grid(("artifact", "SHA-256", "kind"), artifacts) if artifacts else None,
        ]

    def _metrics(self) -> Grid:
        """Last value of each metric, by the rows it is of."""
        last = {(point.split, point.name): point for point in sorted(self.record.points, key=lambda p: p.step)}
        rows = [(name, split, point.step, point.value) for (split, name), point in sorted(last.items())]
        return Grid(("metric", "rows", "step>", "last value>"), rows)

    def _rows(self) -> str:
        return ", ".join(f"{part} {rows:,}" for part, rows in (self.record.data.get("rows") or {}).items())

    def _left_out(self) -> str | None:
        """Rows that take no part, and why; purged are those whose outcome was known only after the next part began."""
        reasons = self.record.data.get("left_out") or {}
        return ", ".join(f"{reason.replace('_', ' ')} {rows:,}" for reason, rows in reasons.items() if rows) or None

    def _calibration(self) -> str | None:
        """Method in force, its rows, and the log losses it was chosen by."""
        calibration = self.record.summary.get("calibration")
        if calibration is None:
            return None
        losses = ", ".join(f"{name} {number(loss)}" for name, loss in calibration["log_loss"].items())
        chosen_by = f" (log loss: {losses})" if losses else ""
        return f"{calibration['method']}, {calibration['rows']:,} rows{chosen_by}"

    def _warnings(self) -> Sequence[Block]:
        return [f"Warning: {sentence}" for sentence in self.warnings]

    def _ladder(self) -> Grid:
        """Metrics of the test rows: the model, then the rungs below it."""
        rungs = dict.fromkeys(point.split for point in self.record.points if point.split.startswith("test/"))
        splits = ["test", *rungs]
        estimator = str(self.record.params.get("estimator", "model"))
        names = [split.removeprefix("test/") for split in rungs]
        names = [estimator, *(f"{name}, baseline" if name == estimator else name for name in names)]
        values = [self.record.values(split) for split in splits]
        usual = _METRICS if "auc" in values[0] else _table_metrics(values[0])
        metrics = [metric for metric in usual if any(row.get(metric) is not None for row in values)]
        rows = [(name, *(row.get(metric) for metric in metrics)) for name, row in zip(names, values, strict=True)]
        return Grid(["test rows", *(f"{metric}>" for metric in metrics)], rows)


def _gates(gates: Sequence[Mapping[str, Any]]) -> Grid | None:
    rows = [(gate["gate"], gate["status"], gate["reason"]) for gate in gates]
    return Grid(("gate", "status", "measured"), rows) if rows else None


def _leaderboard(notes: Mapping[str, Any]) -> Iterator[Grid]:
    """The best trials of a search by what judged them; only what was chosen has figures of the test rows, elsewhere."""
    from retrodict.learning.card import choice_words

    report = notes.get("tuning") or {}
    if trials := report.get("leaderboard"):
        rows = [(place, f"#{trial['number']}", trial["value"], trial["std"], choice_words(trial["choice"]))
                for place, trial in enumerate(trials, start=1)]  # fmt: skip
        title = f"best of {report['finished']} finished trials, on folds of the training rows"
        yield Grid(("place>", "trial", f"{report['metric']}>", "std of folds>", "what"), rows, title)


def _table_metrics(metrics: Mapping[str, float | None]) -> Sequence[str]:
    """Of another task than yes or no: what it is judged by, then spans, then the rest; six in all."""
    names = [name for name in metrics if not name.startswith(("recall[", "pinball_", "coverage_"))]
    first = [name for name in (*_HEADLINES, "span_coverage", "span_width") if name in names]
    return [*first, *(name for name in names if name not in first)][:6]


def headline(metrics: Mapping[str, float | None]) -> str:
    """The metric that the task is judged by, with its value: ``auc 0.731``."""
    name = next((name for name in (*_HEADLINES, *metrics) if name in metrics), None)
    return "" if name is None else f"{name} {number(metrics[name]) or 'not evaluable'}"


class Plot:
    """A picture as SVG; a notebook shows it, ``str`` gives its text."""

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        write_text(path, self.svg)


@dataclass(frozen=True, repr=False)
class RunComparison(Shown):
    """Runs beside each other: their test metrics, and everything in which they differ.

    Attributes
    ----------
    runs : list of str
    metrics, differs : dict
        Name to the value of each run, in their order.
    changes : dict
        Each run but the first to sentences: ``data changed: flights@3 → @5``.
    histories : dict
        Metric to one list of (step, value) per run.
    """

    runs: list[str]
    metrics: dict[str, list[float | None]]
    differs: dict[str, list[Any]]
    changes: dict[str, list[str]]
    histories: dict[str, list[list[tuple[int, float]] | None]]

    def plot(self, metric: str, *, by_step: bool = False) -> Plot:
        """Draw one metric of the runs: side by side, or by step.

        Parameters
        ----------
        metric : str
        by_step : bool
            Its history, where the runs have one; of other rows than the test rows as ``SPLIT NAME``.

        Raises
        ------
        NotFoundError
            If no run has it; the message has the near names.
        """
        from retrodict.evaluation import plots

        drawn: Mapping[str, Any] = self.histories if by_step else self.metrics
        check_known(metric, drawn, "a plot must be of a metric that the runs have", where="comparison of runs",
                    what="metric")  # fmt: skip
        draw: Any = plots.plot_histories if by_step else plots.plot_sides
        return Plot(draw(self.runs, drawn[metric], metric=metric))

    def blocks(self) -> Sequence[Block | None]:
        """Metrics, then what changed in words, then differences."""
        differences = [(name, *map(str, values)) for name, values in self.differs.items()]
        words = [Grid((f"{run} against {self.runs[0]}",), [(sentence,) for sentence in sentences])
                 for run, sentences in self.changes.items() if sentences]  # fmt: skip
        short = [f"[{place}]" for place in range(1, len(self.runs) + 1)]  # names of thirty letters fill a terminal
        return [
            Facts(dict(zip(short, self.runs, strict=True))),
            Grid(("test metric", *(f"{run}>" for run in short)), [(n, *row) for n, row in self.metrics.items()]),
            *words,
            Grid(("differs in", *short), differences) if differences else "Nothing else differs.",
        ]


@dataclass(frozen=True, repr=False)
class PushedRun(Shown):
    """A run, and its number on an MLflow server."""

    run: str
    number: str
    url: str

    def blocks(self) -> Sequence[Block | None]:
        """Where it is now."""
        return [f"{self.run} is run {self.number} of {self.url}."]


@dataclass(frozen=True, repr=False)
class RunEnvironment(Shown):
    """What a run was computed with, as a file to install it from."""

    run: str
    format: str
    text: str
    path: str | None

    def blocks(self) -> Sequence[Block | None]:
        """The text, or where it is."""
        if self.path is None:
            return [Verbatim(self.text.rstrip())]
        return [f"The environment of {self.run} is in {self.path}."]


@dataclass(frozen=True, repr=False)
class RunExport(Shown):
    """A file of runs, and how many are in it."""

    path: str
    runs: int

    def blocks(self) -> Sequence[Block | None]:
        """Where they are."""
        return [f"{self.runs:,} runs are in {self.path}."]
