"""Training frames of ``project.features``: what a frame is to hold, computed into memory, a file or a kept table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retrodict.core.errors import InputError, check_known
from retrodict.core.lazy import lazy_modules
from retrodict.features.definitions import FeatureService, FeatureView
from retrodict.features.derived import Derived
from retrodict.features.labels import Outcome
from retrodict.project.frame_reports import FrameGrowth, FrameReport

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features import catalogue
    from retrodict.features.offline import files, kept_frame, kept_writer, texts
    from retrodict.features.offline import outcomes as outcome_rows
    from retrodict.features.offline import spine as spines
    from retrodict.features.offline import work as local
    from retrodict.features.offline.kept_frame import KeptFrame
    from retrodict.features.offline.spine import Spine
    from retrodict.features.offline.work import FrameWork
    from retrodict.features.plan import FeatureSet
    from retrodict.features.spark import work as spark
    from retrodict.models import readers
    from retrodict.project.progress import Progress
    from retrodict.project.project import Project
    from retrodict.workspace import Workspace
else:
    (catalogue,) = lazy_modules("retrodict.features", "catalogue")
    (readers,) = lazy_modules("retrodict.models", "readers")
    files, kept_frame, kept_writer, outcome_rows, spines, texts, local = lazy_modules(
        "retrodict.features.offline", "files", "kept_frame", "kept_writer", "outcomes", "spine", "texts", "work"
    )
    (spark,) = lazy_modules("retrodict.features.spark", "work")

__all__ = ["FeatureNames", "FrameOptions", "FrameRequest", "frames_in_order", "named_features"]

_Named: TypeAlias = "str | FeatureView | Derived | FeatureService"
FeatureNames: TypeAlias = "_Named | Sequence[_Named]"
"""How features are named: ``view.feature``, a view, derived function or service by name or object, or several."""


def named_features(workspace: Workspace, features: FeatureNames) -> tuple[list[FeatureView | Derived], list[str]]:
    """Definitions to choose from, and the names to choose; what is passed as an object stands for all its features."""
    selection = [features] if isinstance(features, str | FeatureView | Derived | FeatureService) else list(features)
    definitions = {feature.name: feature for feature in readers.defined_features(workspace)}
    services = {service.name: service for service in readers.defined_services(workspace)}
    names: list[str] = []
    for feature in selection:
        if not isinstance(feature, str | FeatureView | Derived | FeatureService):
            raise InputError("features must be names, views, derived functions or services", where="features",
                             got=type(feature).__name__, remedy="Write them like 'view.feature'")  # fmt: skip
        service = services.get(feature) if isinstance(feature, str) else feature
        if isinstance(service, FeatureService):
            names += service.feature_names
            definitions |= {definition.name: definition for definition in service.definitions}
        elif isinstance(feature, FeatureView | Derived):
            names.append(feature.name)
            definitions[feature.name] = feature
        else:
            names.append(str(feature))
    return list(definitions.values()), names


@dataclass(frozen=True)
class FrameOptions:
    """Options of :meth:`Features.frame`, which documents them: refused where two do not go together."""

    outcomes: Any = None
    as_of: int | None = None
    keep: str | None = None
    anew: bool = False
    output: str | Path | None = None
    engine: str = "local"
    master: str | None = None

    def __post_init__(self) -> None:
        if self.anew and self.keep is None:
            raise InputError("only a kept frame can be made anew, so it must be named", where="anew", got="keep=None",
                             remedy="Name the frame: keep, --keep NAME")  # fmt: skip
        if self.outcomes is not None and self.keep is not None and self.output is None:
            raise InputError("outcomes mature and are not kept, so they must go to a file", where="outcomes",
                             got="output=None", remedy="Name a file: output, --output FILE")  # fmt: skip
        if self.as_of is not None and self.outcomes is None:
            raise InputError("the time as of which outcomes count must come with outcomes", where="as_of",
                             got="outcomes=None", remedy="Name them: outcomes, --outcomes NAMES")  # fmt: skip
        rule = "the engine must be local or spark"
        check_known(self.engine, ("local", "spark"), rule, where="engine", what="engine", error=InputError)
        if self.master is not None and self.engine != "spark":
            raise InputError("only the engine spark has a master, so it must be chosen", where="master",
                             got=self.engine, remedy="Choose it: engine, --engine spark")  # fmt: skip
        if self.output is not None:
            files.check_output(Path(self.output))


@dataclass(frozen=True)
class FrameRequest:
    """What a frame is to hold, checked against definitions and tables."""

    at: str  # time column of the spine
    features: FeatureSet
    columns: list[str]  # features that the frame gets
    types: Mapping[str, pa.DataType]  # as what columns of text are read
    outcomes: list[Outcome]
    as_of: int | None  # outcomes that matured by then count
    options: FrameOptions

    @classmethod
    def read(cls, workspace: Workspace, features: Any, at: str, options: FrameOptions) -> FrameRequest:
        """Read features and outcomes by name or object."""
        import pyarrow as pa

        definitions, names = named_features(workspace, features)
        if options.keep is not None:
            _check_defined(workspace, definitions)
        feature_set, columns = catalogue.choose_features(workspace, definitions, names)
        outcomes = _choose_outcomes(workspace, options.outcomes)
        types = texts.request_types(
            feature_set, catalogue.source_schemas(workspace, feature_set)
        ) | outcome_rows.outcome_types(workspace, outcomes)
        types[at] = pa.timestamp("us", "UTC")
        as_of = outcome_rows.known_until(workspace, outcomes) if options.as_of is None and outcomes else options.as_of
        return cls(at, feature_set, columns, types, outcomes, as_of, options)

    @property
    def inputs(self) -> list[str]:
        """Columns that the spine must have."""
        keys = [key for outcome in self.outcomes for key in outcome.entity.keys]
        return list(dict.fromkeys([*self.features.request_keys, *self.features.request_columns, *keys, self.at]))

    @property
    def added(self) -> list[str]:
        """Columns that the frame gets: features, and two per outcome."""
        pairs = [(outcome.name, f"{outcome.name}_known_at") for outcome in self.outcomes]
        return [*self.columns, *(name for pair in pairs for name in pair)]

    @contextmanager
    def open_work(self, workspace: Workspace, progress: Progress) -> Iterator[FrameWork]:
        """Open what computes the features, on this machine or on Spark; at the end Spark is stopped."""
        if self.options.engine == "local":
            yield local.local_work(
                workspace, self.at, self.features, self.columns, tell=lambda sentence: progress(sentence, 0, 1)
            )
            return
        progress("starting Spark", 0, 1)
        with spark.spark_work(workspace, self.at, self.features, self.columns, master=self.options.master) as work:
            yield work

    def compute(self, project: Project, rows: Any) -> tuple[pa.Table | None, FrameReport]:
        """Compute the frame; its rows come back where they go neither to a file nor into a table.

        Parameters
        ----------
        project : Project
        rows : path, str or pyarrow.Table
            The spine.
        """
        import pyarrow as pa

        workspace, output, table, growth, nulls = project.workspace, self.options.output, None, None, None
        with (
            project.progress("offline features") as progress,
            spines.open_spine(workspace, rows, self.types) as spine,
            self.open_work(workspace, progress) as work,
        ):
            pieces: Iterable[pa.Table]
            if self.options.keep is not None:
                growth, pieces = self._keep(workspace, self.options.keep, spine, work, progress)
            else:
                pieces = work.batches(spine.rows())
            row_count = spine.count
            if output is not None or growth is None:
                pieces = outcome_rows.add_outcomes(
                    workspace, self.outcomes, self.at, _reported(pieces, spine.count, progress), self.as_of
                )
                if output is not None:
                    row_count, nulls = files.write_rows(pieces, Path(output))
                else:
                    table = pa.concat_tables(pieces)
            versions = work.versions
        outcomes = [outcome.name for outcome in self.outcomes]
        null_counts = None if nulls is None else {name: nulls[name] for name in [*self.columns, *outcomes]}
        return table, FrameReport(self.columns, row_count, versions, growth, output, null_counts, outcomes, self.as_of)

    def _keep(
        self, workspace: Workspace, name: str, spine: Spine, work: FrameWork, progress: Progress
    ) -> tuple[FrameGrowth, Iterator[pa.Table]]:
        import pyarrow as pa

        frame = kept_writer.keep_frame(workspace, name, spine, work, anew=self.options.anew, progress=progress)
        reader = kept_frame.frame_rows(workspace, name, frame.version)
        empty = reader.schema.empty_table()

        def pieces() -> Iterator[pa.Table]:
            yield empty
            for batch in reader:
                yield pa.Table.from_batches([batch])

        return FrameGrowth(frame), pieces()


def _check_defined(workspace: Workspace, definitions: Iterable[FeatureView | Derived]) -> None:
    """Refuse to keep features that the definitions do not have: the frame could never grow."""
    defined = {feature.name: feature.version for feature in readers.defined_features(workspace)}
    other = [feature.name for feature in definitions if defined.get(feature.name) != feature.version]
    if other:
        raise InputError("features of a kept frame must be those of the definitions", where="keep", got=other,
                         remedy="Define them in the definitions module")  # fmt: skip


def _choose_outcomes(workspace: Workspace, outcomes: Any) -> list[Outcome]:
    if outcomes is None:
        return []
    selection = [outcomes] if isinstance(outcomes, str | Outcome) else list(outcomes)
    if not selection:
        raise InputError("at least one outcome must be named", where="outcomes", got=0, remedy="Write its name")
    objects = [outcome for outcome in selection if isinstance(outcome, Outcome)]
    names = [outcome.name if isinstance(outcome, Outcome) else str(outcome) for outcome in selection]
    return outcome_rows.choose_outcomes(workspace, [*readers.defined_outcomes(workspace), *objects], names)


def _reported(pieces: Iterable[pa.Table], total: int, progress: Progress) -> Iterator[pa.Table]:
    done = 0
    for piece in pieces:
        yield piece
        done += piece.num_rows
        progress("writing rows", done, total)


def frames_in_order(workspace: Workspace, names: Sequence[str]) -> list[KeptFrame]:
    """Kept frames that grow by themselves, each after those it is made from.

    Parameters
    ----------
    workspace : Workspace
    names : sequence of str
        Empty: all.

    Raises
    ------
    InputError
        If a named frame was made from a file.
    """
    for name in names:
        frame = kept_frame.find_frame(workspace, name)
        if frame.spine_table is None:
            raise InputError(
                "a frame that grows by itself must have a table as its spine", where=f"frame {name}",
                got=frame.origin["spine"]["origin"],
                remedy="Run retrodict features offline with the longer file and --keep",
            )  # fmt: skip
    frames = {frame.name: frame for frame in kept_frame.kept_frames(workspace)}
    reads = {
        name: {frame.spine_table, *(source["table"] for source in frame.origin["sources"].values())} & frames.keys()
        for name, frame in frames.items()
    }
    ordered = TopologicalSorter({name: tables - {name} for name, tables in reads.items()}).static_order()
    return [frames[n] for n in ordered if frames[n].spine_table is not None and (not names or n in names)]
