"""``project.models``: registered versions, and the judgement of somebody else than their author."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retrodict.core.display import Block, Listing, Shown, when
from retrodict.core.errors import check_known
from retrodict.core.files import write_text
from retrodict.core.lazy import lazy_modules
from retrodict.core.tasks import TASKS
from retrodict.project.arguments import instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace
from retrodict.project.runs import headline
from retrodict.project.user_rows import UserRows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from retrodict import learning, monitoring, registry
    from retrodict.learning.card import ModelCard
    from retrodict.learning.optimisation import Optimisation
    from retrodict.learning.scorer import Importance
    from retrodict.learning.standings import EstimatorComparison, Leaderboard
    from retrodict.models.estimators import Estimator
    from retrodict.monitoring.history import ModelHistory
    from retrodict.monitoring.score_jobs import ScoreHistory
    from retrodict.project.arguments import Time
    from retrodict.registry import ModelVersion
else:
    learning, monitoring, registry = lazy_modules("retrodict", "learning", "monitoring", "registry")

__all__ = ["ExportedModel", "Models"]


@dataclass(frozen=True, repr=False)
class ExportedModel(Shown):
    """A model version, and the folder that it was written to, for MLflow or plain."""

    model: str
    folder: str
    format: str = "mlflow"

    def blocks(self) -> Sequence[Block | None]:
        """Where it is, and how it is loaded."""
        load = f"In Python: mlflow.pyfunc.load_model({self.folder!r})"
        load = load if self.format == "mlflow" else f"Try it: python {Path(self.folder) / 'score.py'} --check"
        return [f"{self.model} is in {self.folder}. {load}"]


class Models(Namespace):
    """Model versions of a project.

    Examples
    --------
    >>> project.models.approve("late_arrival@1", reason="pilot")  # doctest: +SKIP
    """

    @names_damage
    def list(self, model: str | None = None) -> Listing[ModelVersion]:
        """List model versions with their gates and approvals.

        Parameters
        ----------
        model : str, optional
            Only versions of this model.
        """

        def row(v: ModelVersion) -> tuple[object, ...]:
            judge = v.approvals[-1].approver if v.approvals else ""
            return v.ref, when(v.time), v.author, headline(v.metrics), v.gates_passed, v.approved, judge

        versions = registry.list_versions(self._workspace, model)
        columns = ("model", "registered?", "by", "test metric>", "gates passed", "approved", "judged by")
        return Listing.table("models", versions, columns, row, empty="There is no model version yet.")

    @names_damage
    def get(self, ref: str) -> ModelVersion:
        """Show one model version: gates, metrics, judgements, how its answers are computed.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest version.
        """
        return registry.describe_version(self._workspace, ref)

    def estimators(self, *, task: str | None = None) -> Listing[Estimator]:
        """List the estimators that a recipe can name: tasks, what they take, how they replay.

        Parameters
        ----------
        task : str, optional
            Only those that learn this task.
        """
        from retrodict.models.estimators import list_estimators

        if task is not None:
            check_known(task, TASKS, "a task must be one that there is", where="models estimators", what="task")
        entries = [entry for entry in list_estimators() if task is None or task in entry.tasks]

        def row(entry: Estimator) -> tuple[object, ...]:
            takes = [word for word in ("missing", "categories", "weights", "monotone") if getattr(entry, word)]
            exact = "exact" if entry.exact_rows else f"{entry.row_error:g}"
            return entry.name, ", ".join(entry.tasks), ", ".join(takes) or "numbers", exact, entry.explains

        columns = ("estimator", "tasks", "takes", "row = batch", "explains")
        return Listing.table("estimators", entries, columns, row, empty="No estimator learns this task.")

    @names_damage
    def export(
        self,
        ref: str,
        folder: str | Path,
        *,
        format: Literal["mlflow", "plain"] = "mlflow",  # noqa: A002  # the option
    ) -> ExportedModel:
        """Write a model version as a folder: for MLflow, or to score without retrodict.

        `mlflow.pyfunc.load_model` scores the same; it needs retrodict beside MLflow, and nothing is unpickled. A plain
        folder has the model in the form of its library, preparation, calibration, example rows with their scores and
        `score.py`, which needs that library and NumPy. Features are its inputs; none is computed.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest approved version.
        folder : path
            Made if needed.
        format : {"mlflow", "plain"}
        """
        check_known(format, ("mlflow", "plain"), "a format must be one that is written", where="models export",
                    what="format")  # fmt: skip
        version = registry.version_to_use(self._workspace, ref)
        if format == "plain":
            from retrodict.models.artifact import ModelArtifact
            from retrodict.models.plain import write_plain

            artifact = ModelArtifact.load(self._workspace.objects, version.artifact)
            return ExportedModel(version.ref, str(write_plain(artifact, version.ref, Path(folder))), format)
        from retrodict.learning.runs.mlflow.pyfunc import write_pyfunc

        return ExportedModel(version.ref, str(write_pyfunc(self._workspace, version.ref, Path(folder))))

    def card(self, ref: str, *, output: str | Path | None = None) -> ModelCard:
        """Show the card of a model version: all that is known of it, and what is not.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest version.
        output : path, optional
            Write it to a .html or .md file.
        """
        card = learning.model_card(self._workspace, ref)
        if output is not None:
            card.write(output)
        return card

    @names_damage
    def leaderboard(self, model: str, *, metric: str | None = None) -> Leaderboard:
        """Rank the versions of a model and its baselines by a metric of the same test rows.

        Parameters
        ----------
        model : str
            Name of a model.
        metric : str, optional
            Of the test rows.  [default: the one its task is judged by]
        """
        return learning.leaderboard(self._workspace, model, metric=metric)

    @names_damage
    def history(
        self,
        model: str,
        *,
        metric: str | None = None,
        period: str = "month",
        now: Time | None = None,
        svg: str | Path | None = None,
    ) -> ModelHistory:
        """Follow a metric of every version from its training rows into production.

        Test metrics and those of the decisions that each version made, by period, side by side, and whether a version
        is worse in production than on its test rows beyond noise.

        Parameters
        ----------
        model : str
            Name of a model.
        metric : str, optional
            [default: the one its task is judged by]
        period : str
            ``month``, or a duration such as ``7d``.
        now : Time, optional
            As of when outcomes are known.  [default: now]
        svg : path, optional
            Also draw it to this file.
        """
        moment = instant(now, "now")
        with self._project.progress(f"history {model}"):
            now_ = self._workspace.clock.now() if moment is None else moment
            history = monitoring.model_history(self._workspace, model, now=now_, metric=metric, period=period)
        if svg is not None:
            write_text(svg, history.plot())
        return history

    @names_damage
    def importance(self, ref: str, *, repeats: int = 5) -> Importance:
        """Rank the features of a version by what shuffling them costs on its test rows.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest version.
        repeats : int
            How often each feature is shuffled.
        """
        return learning.importance(self._workspace, ref, repeats=repeats)

    def compare(self, model: str, *, estimators: Sequence[Any] | None = None, folds: int = 5) -> EstimatorComparison:
        """Cross-validate estimators on the training rows of a model.

        One that fails is listed with its error; nothing is registered.

        Parameters
        ----------
        model : str
            Name of a defined model.
        estimators : sequence of str, Recipe or object of scikit-learn, optional
            In the place of the recipe's own.  [default: a linear model, trees, boosting, naive Bayes]
        folds : int
            Cut from the training rows as the model's split cuts them.
        """
        with self._project.progress(f"compare {model}") as progress:
            return learning.compare_estimators(self._workspace, model, estimators or (), folds=folds, progress=progress)

    @names_damage
    def optimise(
        self, ref: str, *, how: Sequence[str] | None = None, max_loss: float = 0.002, student: str = "lightgbm"
    ) -> Optimisation:
        """Make faster or smaller variants of a version, and register those within a stated loss.

        Each is calibrated, judged by the gates and measured against the version on the test rows of its run. It is a
        new version, with its parent named and no approval.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest version.
        how : sequence of str, optional
            ``prune``, ``distil``, ``float32``, ``int8``.  [default: all that apply]
        max_loss : float
            That a variant may lose, by the upper end of its interval.
        student : str
            Estimator that ``distil`` teaches.
        """
        with self._project.progress(f"optimise {ref}") as progress:
            return learning.optimise(
                self._workspace, ref, how=how, max_loss=max_loss, student=student, progress=progress
            )

    def score(self, ref: str, rows: Any, *, at: str | None = None) -> Any:
        """Score rows in a batch: the frame that came, with one column per output of the version.

        Features and model are those that decide, rows stay in their order, and nothing is recorded: no policy is asked
        and no decision made (:meth:`Project.decide` does that).

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest approved version.
        rows : frame of pandas, Polars or Arrow, path, or name of a table
            Keys, columns and times that the features need.
        at : str, optional
            The moment of decision as a time expression over the rows.  [default: as the model says]

        Examples
        --------
        >>> project.models.score("late_arrival@1", flights)  # doctest: +SKIP
        """
        scorer = learning.Scorer(self._workspace, ref, at=at)
        source = UserRows(rows, "rows")
        return source.append(scorer.score(source.read_table(scorer.inputs, scorer.outputs)))

    def score_files(  # noqa: PLR0913  # options of the command
        self,
        ref: str,
        *,
        input: str,  # noqa: A002
        output: str,
        at: str | None = None,
        columns: Sequence[str] | None = None,
        partition: Sequence[str] | None = None,
        jobs: int = 1,
        engine: Literal["processes", "ray"] = "processes",
        chunk: int = 200_000,
        replace: bool = False,
    ) -> learning.ScoreJob:
        """Score files into a file or folder: in chunks, resumable, with every row accounted for.

        Features are read as of each row's own moment of decision. What is no row of the model (a time that is missing,
        a text where a number must be) is set aside with its reasons. Killed and said again, it goes on where it was;
        said again when it is over, it does nothing. The ledger has an entry of it. Exit code 1 if there are rows
        and none was scored.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest approved version.
        input : str
            File, glob or folder of CSV, Parquet or JSON lines, a Delta table, or one of the project.
        output : str
            File .parquet or .csv, a folder for Parquet, or delta:FOLDER to add to a Delta table.
        at : str, optional
            The moment of decision as a time expression over the rows.  [default: as the model says]
        columns : sequence of str, optional
            Columns of the rows that come with the scores.  [default: all]
        partition : sequence of str, optional
            Columns by which a Delta table that is made is partitioned.
        jobs : int
            Processes, or actors of Ray.
        engine : {"processes", "ray"}
            Where chunks are scored; nodes of Ray must see the project and the output.
        chunk : int
            Rows that are scored at a time, at most.
        replace : bool
            Write over the output of another job; of a Delta table, the partitions of the rows.
        """
        scorer = learning.Scorer(self._workspace, ref, at=at)
        place = learning.open_output(output, partition or (), replace=replace)
        with self._project.progress(f"score {ref}") as progress:
            return learning.score_files(
                scorer, input, place, columns=columns, jobs=jobs, engine=engine, chunk=chunk, progress=progress
            )

    @names_damage
    def score_history(
        self, ref: str, *, last: int = 10, threshold: float = 0.25, now: Time | None = None
    ) -> ScoreHistory:
        """Compare the batch scores of a model with its test rows, and each job with the last.

        By the population stability index and its noise floor; features go against the training rows. Where outcomes of
        the rows are known by now, the metric of the task beside that of the test rows. Exit code 1 if the scores of the
        newest job drifted.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for all its versions.
        last : int
            So many of the newest jobs.
        threshold : float
            Smallest index that counts as drift.
        now : Time, optional
            As of when outcomes are known.  [default: now]
        """
        moment = instant(now, "now")
        now_ = self._workspace.clock.now() if moment is None else moment
        return monitoring.score_history(self._workspace, ref, now=now_, last=last, threshold=threshold)

    def approve(self, ref: str, *, reason: str) -> ModelVersion:
        """Approve a version, by somebody else than its author; every gate must have passed.

        Parameters
        ----------
        ref : str
            ``name@version``.
        reason : str
            Why, for the ledger.
        """
        return registry.approve(self._workspace, ref, reason=reason, granted=True)

    def reject(self, ref: str, *, reason: str) -> ModelVersion:
        """Reject a version; this also takes back an earlier approval.

        Parameters
        ----------
        ref : str
            ``name@version``.
        reason : str
            Why, for the ledger.
        """
        return registry.approve(self._workspace, ref, reason=reason, granted=False)
