"""A registered version on rows of a user: what it would answer to each, and which features that rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.display import Block, Grid, Record, Shown, number
from retrodict.core.errors import InputError
from retrodict.core.expressions import parse
from retrodict.core.statistics.intervals import mean_interval
from retrodict.evaluation.losses import LOSSES, row_losses
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.definitions import FeatureView
from retrodict.features.offline import training_frame
from retrodict.features.offline.event_index import EventIndexes
from retrodict.learning.frame import build_frame, features_of, parts_of
from retrodict.learning.recipes import without_spans
from retrodict.learning.runs import Run, get_run
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.engines.composite import CorrectedEngine, PreparedEngine
from retrodict.models.splits import split_from_dict
from retrodict.registry import get_version, version_to_use
from retrodict.stores.sql import query, quote
from retrodict.workspace import Workspace, definitions_of

__all__ = ["MOMENT", "Importance", "Scorer", "Share", "importance"]

MOMENT = "_decide_at"
"""Column of the moment of decision."""


class Scorer:
    """A version with the features that it was trained with: rows in, outputs out, in the same order.

    Features are read as of each row's own moment of decision from the newest tables, by the engine of training frames,
    and scored by the artifact that serves. Nothing is recorded: a decision is what a policy makes.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name@version``, or a name for its newest approved version (the newest that was not rejected if none is).
    at : str, optional
        Time expression over the rows: the moment of decision. None: as the model says.
    versions : mapping of str to int, optional
        Versions of the tables that features are read from. None: the newest there are now.
    """

    def __init__(
        self, workspace: Workspace, ref: str, *, at: str | None = None, versions: Mapping[str, int] | None = None
    ) -> None:
        self.version = version = version_to_use(workspace, ref)
        run = get_run(workspace, version.run)
        self.workspace, self.ref, self.at = workspace, version.ref, at
        self.artifact = ModelArtifact.load(workspace.objects, version.artifact)
        self._model = definitions_of(workspace, run.code).get(Model, run.model)
        self.table = self._model.label.table
        self.schema = workspace.tables.schema(self.table.name, run.data["versions"][self.table.name])
        self._features = features_of(self._model, self.schema)
        names = {view.source.table.name for view in self._model.features if isinstance(view, FeatureView)}
        self.versions = newest_versions(workspace.tables, names, where=ref) if versions is None else versions
        self._moment = parse(at or self._model.decide_at, where=f"{ref}, at") if self._model.timed else None

    @property
    def inputs(self) -> list[str]:
        """Columns that the rows must have."""
        moment = () if self._moment is None else self._moment.columns
        return list(dict.fromkeys([*self._features.request_keys, *self._features.request_columns, *moment]))

    @property
    def times(self) -> list[str]:
        """Columns without which a row has no moment of decision."""
        return [] if self._moment is None else list(self._moment.columns)

    @property
    def outputs(self) -> list[str]:
        """Columns that come out."""
        return [name for name in self.artifact.outputs if name != "threshold"]

    def score(self, rows: pa.Table) -> pa.Table:
        """Outputs of each row; see :meth:`gather`."""
        return self.answer(self.gather(rows))

    def gather(self, rows: pa.Table) -> pa.Table:
        """Features of each row, and its moment of decision as :data:`MOMENT`.

        Raises
        ------
        InputError
            If a row has no moment of decision, or a column is of another kind than in training.
        """
        spine = self.moments(rows)
        return EventIndexes.of(self.workspace).gather(
            lambda sources: training_frame(spine, MOMENT, self._features, sources), self._features, self.versions
        )

    def moments(self, rows: pa.Table) -> pa.Table:
        """Columns of each row that its features need, and its moment of decision; raises as :meth:`gather`."""
        rows = self._read_times(rows)
        moment = "make_timestamptz(0)" if self._moment is None else self._moment.to_sql()
        columns = [quote(name) for name in dict.fromkeys([*self._features.request_keys,
                                                          *self._features.request_columns])]  # fmt: skip
        try:
            spine = query(f"SELECT {', '.join([*columns, f'{moment} AS {MOMENT}'])} FROM rows", rows=rows)
        except duckdb.Error as error:  # its own words may hold values
            raise InputError(f"the moment of decision must fit its columns ({type(error).__name__})", where=self.ref,
                             got={name: str(rows.schema.field(name).type) for name in self.inputs},
                             remedy="Give times as timestamps with a zone, or say at=") from error  # fmt: skip
        if not pa.types.is_timestamp(spine.column(MOMENT).type):
            raise InputError("the moment of decision must be a time", where=f"{self.ref}, {self.at or 'decide_at'}",
                             got={name: str(rows.schema.field(name).type) for name in self.times},
                             remedy="Name a column of times with a zone, by at=")  # fmt: skip
        if spine.column(MOMENT).null_count:
            raise InputError("every row must have a moment of decision", where=self.ref,
                             got=f"{spine.column(MOMENT).null_count} rows without one",
                             remedy="Leave them out, or say at=")  # fmt: skip
        return spine

    def answer(self, frame: pa.Table) -> pa.Table:
        """Outputs of rows whose features were gathered."""
        values = {name: frame.column(name) for name in self._features.columns}
        scores = np.asarray(self.artifact.score_rows(values).score)
        columns_of = scores.T if scores.ndim == 2 else [scores]
        return pa.table({name: np.ascontiguousarray(values)
                         for name, values in zip(self.outputs, columns_of, strict=True)})  # fmt: skip

    def _read_times(self, rows: pa.Table) -> pa.Table:
        """Read times that came as ISO 8601 text, as a CSV file or JSON has them; one without a zone is refused."""
        for name in self.inputs:
            place = self.schema.get_field_index(name)
            expected = name in self.times if place < 0 else pa.types.is_timestamp(self.schema.field(place).type)
            text = rows.schema.field(name).type in (pa.string(), pa.large_string(), pa.string_view())
            if expected and text:
                try:
                    times = rows.column(name).cast(pa.string()).cast(pa.timestamp("us", "UTC"))
                except pa.ArrowInvalid as error:  # its own words hold the value
                    raise InputError("times as text must be ISO 8601 with a zone", got="text of another form",
                                     where=f"{self.ref}, column {name!r}",
                                     remedy="Write them like '2013-09-01T18:00:00Z'") from error  # fmt: skip
                rows = rows.set_column(rows.schema.get_field_index(name), name, times)
        return rows


@dataclass(frozen=True, slots=True)
class Share(Record):
    """What a model owes to one feature.

    Attributes
    ----------
    feature : str
    loss : float
        By how much the mean loss of the test rows rises when the feature's values are shuffled over them.
    low, high : float or None
        Interval of that (Student, 95 %, over rows or groups of a ranking).
    gain : float or None
        Share of what splits on it gained in training; None where the engine does not tell.
    """

    feature: str
    loss: float
    low: float | None
    high: float | None
    gain: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Importance(Shown):
    """Features of a version, the most important first.

    Attributes
    ----------
    model : str
    loss : str
        Name of the loss.
    rows, repeats : int
        Test rows that were scored, and how often each feature was shuffled.
    shares : tuple of Share
    """

    model: str
    loss: str
    rows: int
    repeats: int
    shares: tuple[Share, ...]

    def blocks(self) -> Sequence[Block | None]:
        """One line for each."""
        lines = [
            (s.feature, f"{s.loss:+.5f}", "" if s.low is None else f"{number(s.low, 5)} to {number(s.high, 5)}",
             "" if s.gain is None else f"{s.gain:.1%}") for s in self.shares
        ]  # fmt: skip
        return [Grid(("feature", "loss when shuffled>", "95 % interval", "gain>"), lines,
                     title=f"{self.model}, {self.loss} of {self.rows:,} test rows")]  # fmt: skip

    def svg(self) -> str:
        """Picture of it."""
        from retrodict.evaluation.plots import plot_importance

        return plot_importance([(s.feature, s.loss, s.low, s.high) for s in self.shares], loss=self.loss)


def importance(workspace: Workspace, ref: str, *, repeats: int = 5, max_rows: int = 5_000) -> Importance:
    """Shuffle each feature over the test rows of a version, and see what its losses become (Breiman 2001).

    Features that tell the same share their importance: shuffled one at a time, each may look idle.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name@version``, a name for its newest version, or ``run:ULID``.
    repeats : int, default 5
        By the seed of the run.
    max_rows : int, default 5000
        Of more test rows as many are drawn evenly; a ranking keeps all.
    """
    run = get_run(workspace, ref if ref.startswith("run:") else get_version(workspace, ref).run)
    artifact = ModelArtifact.load(workspace.objects, run.summary["artifact"])
    definition = definitions_of(workspace, run.code).get(Model, run.model)
    frame = build_frame(workspace.tables, definition, run.data["versions"], indexes=EventIndexes.of(workspace))
    frame, parts = parts_of(frame, split_from_dict(run.params["split"]), now=run.data["now"])
    test = parts["test"]
    if frame.groups is None and len(test) > max_rows:
        test = test[np.linspace(0, len(test) - 1, max_rows).round().astype(np.int64)]
    matrix, labels = artifact.inputs.encode_columns(frame.columns(test)), frame.labels[test]
    groups = None if frame.groups is None else frame.groups[test]

    def losses(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        outputs = without_spans(np.asarray(artifact.calibrator.apply(artifact.engine.scores(rows))), frame.target)
        return row_losses(labels, outputs, frame.target, groups=groups)

    random, plain, gains = np.random.default_rng(run.seed), losses(matrix), _gains(artifact)
    shares = []
    for at, name in enumerate(artifact.inputs.names):
        total = np.zeros(len(plain))
        for _ in range(repeats):
            shuffled = matrix.copy()
            shuffled[:, at] = random.permutation(shuffled[:, at])
            total += losses(shuffled) - plain
        rises = total / repeats
        span = mean_interval(rises) if len(rises) > 1 else None
        low, high = (None, None) if span is None else (span.low, span.high)
        shares.append(Share(name, float(rises.mean()), low, high, gains.get(name)))
    shares.sort(key=lambda share: -share.loss)
    return Importance(_name(run, ref), LOSSES[frame.target.task], len(test), repeats, tuple(shares))


def _name(run: Run, ref: str) -> str:
    return run.model if ref.startswith("run:") else ref


def _gains(artifact: ModelArtifact) -> Mapping[str, float]:
    """Share of the gain of each input; of an engine behind steps, of those that pass through them."""
    engine: Any = artifact.engine
    if isinstance(engine, PreparedEngine):
        return {}
    engine = engine.engine if isinstance(engine, CorrectedEngine) else engine
    gains = engine.gains() if hasattr(engine, "gains") else None
    if gains is None or not gains.sum():
        return {}
    return dict(zip(artifact.inputs.names, (gains / gains.sum()).tolist(), strict=True))
