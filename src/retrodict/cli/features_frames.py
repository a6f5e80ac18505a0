"""``features offline``: training frames by hand: to a file, kept as a table that grows, computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import defined_features, feature_names, features_option, request_types, source_schemas
from retrodict.cli._frames import check_output
from retrodict.cli._outcomes import add_outcomes, find_outcomes, known_until, outcome_names
from retrodict.cli._spine import open_spine, write_pieces
from retrodict.cli._text import count, facts, table
from retrodict.cli._types import complete, instant
from retrodict.cli.features import features

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.labels import Outcome
    from retrodict.features.offline.kept_frame import KeptFrame
    from retrodict.features.offline.spine import Spine
    from retrodict.features.offline.work import FrameWork
    from retrodict.features.plan import FeatureSet
    from retrodict.project.progress import Progress
    from retrodict.workspace import Workspace

__all__ = ["ENGINE", "FEATURES", "MASTER", "Engine", "chosen_features", "frames_of", "grown", "said", "written"]

FEATURES = click.option("--features", "wanted", required=True, metavar="NAMES", callback=features_option,
                        shell_complete=complete(feature_names),
                        help="view.feature,… or a view for all of its features; commas between them.")  # fmt: skip
ENGINE = click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True,
                       help="What computes it; the values are the same.")  # fmt: skip
MASTER = click.option("--master", metavar="URL", help="Spark's master, like spark://host:7077.  [default: local[*]]")


def frames_of(project: Workspace) -> list[str]:
    """Names of the kept frames."""
    from retrodict.features.offline.kept_frame import kept_frames

    return [frame.name for frame in kept_frames(project)]


@dataclass(frozen=True)
class Engine:
    """Where it is computed."""

    name: str
    master: str | None

    def __post_init__(self) -> None:
        if self.master is not None and self.name != "spark":
            raise click.UsageError("--master is where Spark is: give --engine spark, too.")

    @contextmanager
    def work(
        self, project: Workspace, at: str, chosen: FeatureSet, columns: Sequence[str], progress: Progress
    ) -> Iterator[FrameWork]:
        """What computes features, ready to work; opened only once names and columns are known to be right."""
        from retrodict.features.offline.work import local_work

        if self.name == "local":
            yield local_work(project, at, chosen, columns, tell=lambda sentence: progress(sentence, 0, 1))
            return
        from retrodict.features.spark.work import spark_work

        progress("starting Spark", 0, 1)
        with spark_work(project, at, chosen, columns, master=self.master) as work:
            yield work


# offline --------------------------------------------------------------------------------------------------------------


@command(
    features,
    "offline",
    examples=[
        "retrodict features offline --spine asked.csv --at asked_at --features origin_delays --output frame.parquet",
        "retrodict features offline --spine asked.csv --at asked_at --features delays.count_6h,sky --output frame.csv",
        "retrodict features offline --spine asked.csv --at asked_at --features sky --outcomes late_6h --output set.csv",
        "retrodict features offline --spine flights --at sched_dep --features origin_delays --keep departures",
    ],
)
@click.option("--spine", required=True, metavar="FILE|TABLE",
              help="Keys, time, whatever derived features need: CSV, Parquet, or a table, as TABLE[@REF].")  # fmt: skip
@click.option("--at", required=True, metavar="COLUMN", help="Column with the time of each row.")
@FEATURES
@click.option("--outcomes", metavar="NAMES", shell_complete=complete(outcome_names),
              help="Add what happened afterwards, by these outcomes; commas between them.")  # fmt: skip
@click.option("--as-of", metavar="TIME", callback=instant,
              help="Outcomes that matured by then.  [default: the newest fact of their sources]")  # fmt: skip
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Where the rows go: a .csv or .parquet file.")  # fmt: skip
@click.option("--keep", metavar="NAME", shell_complete=complete(frames_of),
              help="Keep features as this table, which grows: only new rows of the spine are computed.")  # fmt: skip
@click.option("--anew", is_flag=True, help="If the kept frame was made from something else: make a new version of it.")
@ENGINE
@MASTER
def offline(session: Session, **given: Any) -> Answer:
    """Add features to rows of a file or table, each as it could have been known at its time.

    Reads the newest versions of the tables, through sorted indexes that the next call finds. Rows out are the rows in,
    in the same order. A kept frame is a table with its origin in the ledger; the same command again goes on where a
    killed one stopped, and computes what the spine got since.
    """
    asked = _Asked(**given)
    engine = asked.check()
    project = session.project.workspace
    chosen, columns, types = chosen_features(project, asked.wanted, asked.at)
    outcomes = find_outcomes(project, asked.outcomes, types)
    as_of = known_until(project, outcomes) if asked.as_of is None else asked.as_of
    data: dict[str, Any] = {"features": columns}
    with (
        session.progress("offline features") as progress,
        open_spine(project, asked.spine, types) as spine,
        engine.work(project, asked.at, chosen, columns, progress) as work,
    ):
        pieces: Iterable[pa.Table] | None = None
        if asked.keep is not None:
            frame, pieces = _keep(project, asked.keep, spine, work, anew=asked.anew, progress=progress)
            data |= {"rows": frame.rows, "frame": grown(frame)}
        if asked.output is not None:
            pieces = work.batches(spine.rows()) if pieces is None else pieces
            pieces = add_outcomes(project, outcomes, asked.at, _counted(pieces, spine.count, progress), as_of)
            rows, nulls = write_pieces(pieces, asked.output)
            data |= {"rows": rows, "nulls": _of_interest(nulls, columns, outcomes), "output": str(asked.output)}
        data["tables"] = work.versions
    if outcomes:
        data |= {"outcomes": [each.name for each in outcomes], "as_of": _time(as_of)}
    return Answer(data, _told(data))


@dataclass(frozen=True)
class _Asked:
    spine: str
    at: str
    wanted: list[str]
    outcomes: str | None
    as_of: int | None
    output: Path | None
    keep: str | None
    anew: bool
    engine: str
    master: str | None

    def check(self) -> Engine:
        """Refuse options that do not go together, before the work."""
        if self.output is None and self.keep is None:
            raise click.UsageError("Say where the rows go: --output FILE, --keep NAME, or both.")
        if self.anew and self.keep is None:
            raise click.UsageError("--anew makes a kept frame anew: say which with --keep NAME.")
        if self.outcomes is not None and self.output is None:
            raise click.UsageError("Outcomes mature, so they are not kept: give --output FILE for them.")
        if self.as_of is not None and self.outcomes is None:
            raise click.UsageError("--as-of says which outcomes count: give --outcomes NAMES, too.")
        if self.output is not None:
            check_output(self.output)
        return Engine(self.engine, self.master)


def chosen_features(
    project: Workspace, wanted: Sequence[str], at: str
) -> tuple[FeatureSet, list[str], dict[str, pa.DataType]]:
    """What is wanted, checked against the tables, and the types that a spine's columns of text are read as."""
    import pyarrow as pa

    from retrodict.features.catalogue import check_schema, select
    from retrodict.features.catalogue.tables import newest_versions

    chosen, columns = select(defined_features(project), wanted)
    newest_versions(project.tables, chosen.tables, where="features")
    schemas = source_schemas(project, chosen)
    for plan in chosen.views:
        check_schema(plan, schemas[plan.source.table.name])
    return chosen, columns, {**request_types(chosen, schemas), at: pa.timestamp("us", "UTC")}


def _keep(
    project: Workspace, name: str, spine: Spine, work: FrameWork, *, anew: bool, progress: Progress
) -> tuple[KeptFrame, Iterator[pa.Table]]:
    """A kept frame and its rows."""
    import pyarrow as pa

    from retrodict.features.offline.kept_frame import frame_rows
    from retrodict.features.offline.kept_writer import keep_frame

    frame = keep_frame(project, name, spine, work, anew=anew, progress=progress)
    reader = frame_rows(project, name, frame.version)
    empty = reader.schema.empty_table()

    def rows() -> Iterator[pa.Table]:
        yield empty
        for batch in reader:
            yield pa.Table.from_batches([batch])

    return frame, rows()


def _counted(pieces: Iterable[pa.Table], most: int, progress: Progress) -> Iterator[pa.Table]:
    done = 0
    for piece in pieces:
        yield piece
        done += piece.num_rows
        progress("writing rows", done, most)


def _of_interest(nulls: Mapping[str, int], columns: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {name: nulls[name] for name in [*columns, *(each.name for each in outcomes)]}


def grown(frame: KeptFrame) -> dict[str, Any]:
    """Which version a frame is now, and how many of its rows are new."""
    return {"dataset": f"dataset:{frame.name}@{frame.version}", "rows": frame.rows, "new": frame.computed,
            "there": frame.rows - frame.computed}  # fmt: skip


def _time(micros: int | None) -> str | None:
    from retrodict.core.clock import format_time

    return None if micros is None else format_time(micros)


def _told(data: Mapping[str, Any]) -> list[Any]:
    parts: list[Any] = []
    if "frame" in data:
        parts.append(said(data["frame"]))
    if "output" in data:
        parts += written(data, data["nulls"])
    if "outcomes" in data:
        parts.append(f"\nOutcomes that matured by {data['as_of'] or 'no time at all'}; the others are null.")
    return parts


def said(told: Mapping[str, Any]) -> str:
    """Say the same for people."""
    name = told["dataset"].removeprefix("dataset:")
    return f"{name}: {count(told['rows'])} rows = {count(told['there'])} there before + {count(told['new'])} new"


def written(data: Mapping[str, Any], nulls: Mapping[str, int]) -> list[Any]:
    """Where rows were written, and how much of each column is null."""
    rows = data["rows"]
    head = facts({"rows": rows, "written to": data["output"]})
    return [head, "", table(("feature", "null>"), [(n, f"{k / rows:.1%}" if rows else "-") for n, k in nulls.items()])]
