"""Scores of rows beyond memory: from files to files, in chunks, by several processes, going on after a kill.

A chunk is written under a name of its own with a small report beside it, which is written last: what has a report is
done, and is not done again. Every row of the input is in the output or among those that were set aside, which the job
counts before it says that it is over. Tables are read at the versions that the job began with, also after a kill.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.errors import InputError, InternalError, RetrodictError, RetryableError, check_known
from retrodict.core.identity import content_hash, digest, digest_file
from retrodict.core.kinds import column_word
from retrodict.core.statistics.drift import psi
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.ingest import staging_folder
from retrodict.data.readers import Batch, open_batch
from retrodict.data.validation import validate
from retrodict.evaluation.reference import FeatureReference, Reference
from retrodict.learning.isolation import THREADS
from retrodict.learning.scorer import Scorer
from retrodict.ledger import Ledger
from retrodict.stores._durable import place_file
from retrodict.stores._locks import FileLock
from retrodict.workspace import Workspace

__all__ = ["ScoreJob", "score_files"]

CHUNK = 200_000
_SUFFIXES = (".parquet", ".csv")
_BEGUN = "begun.json"
MODEL = "model"
"""Column that names the version which scored."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, repr=False)
class ScoreJob(Shown):
    """What became of the rows.

    Attributes
    ----------
    model : str
        ``name@version``.
    job : str
        What it is known by: a digest of model, rows and options.
    rows, scored, aside : int
        Rows of the input; those with scores; those that were set aside. The last two are the first.
    reasons : dict of str to int
        Rows that were set aside, by the check they failed.
    chunks, earlier : int
        Chunks, and those of them that an earlier call had finished.
    seconds : float
        Of this call.
    output : str
        The file, or the folder of parts.
    aside_file : str or None
        File of the rows that were set aside, as JSON lines: ``row`` (place in the input, from 0), ``checks``,
        ``original``.
    versions : dict of str to int
        Versions of the tables that features were read from.
    psi : float or None
        Population stability index of the scores against those of the version's test rows; None where there is no
        profile of them, or no row was scored.
    """

    model: str
    job: str
    rows: int
    scored: int
    aside: int
    reasons: dict[str, int]
    chunks: int
    earlier: int
    seconds: float
    output: str
    aside_file: str | None
    versions: dict[str, int] = field(default_factory=dict)
    psi: float | None = None

    @property
    def ok(self) -> bool:
        """Whether any row was scored, if there was one."""
        return self.scored > 0 or not self.rows

    def blocks(self) -> Sequence[Block | None]:
        """Counts, throughput, and reasons."""
        fresh = self.chunks - self.earlier
        rate = f"{self.scored / self.seconds:,.0f} rows/s" if fresh == self.chunks and self.seconds else None
        earlier = f"{self.earlier:,} of {self.chunks:,} chunks were done before" if self.earlier else None
        facts = {"set aside": self.aside or None, "written to": self.output, "rows set aside in": self.aside_file,
                 "tables": [f"{name}@{version}" for name, version in self.versions.items()] or None,
                 "PSI against the test rows": None if self.psi is None else round(self.psi, 4),
                 "took": f"{self.seconds:.1f} s", "throughput": rate, "resumed": earlier}  # fmt: skip
        reasons = [(reason, count) for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1])]
        return [f"{self.model}: {self.scored:,} of {self.rows:,} rows scored.", Facts(facts),
                Grid(("set aside for", "rows>"), reasons) if reasons else None]  # fmt: skip


def score_files(
    scorer: Scorer,
    source: Any,
    output: str | Path,
    *,
    columns: Sequence[str] | None = None,
    chunk: int = CHUNK,
    jobs: int = 1,
    replace: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> ScoreJob:
    """Score the rows of files into a file or a folder.

    Parameters
    ----------
    scorer : Scorer
    source : path, glob, folder, list of paths, table of the project, Arrow object or frame
        As :func:`~retrodict.data.readers.open_batch` reads; a table as ``name`` or ``name@version``.
    output : path
        ``.parquet`` or ``.csv``, or a folder: a Parquet file for every chunk, none of which has rows of two files.
    columns : sequence of str, optional
        Columns of the rows that come with the scores. None: all.
    chunk : int
        Rows that are scored at a time, at most.
    jobs : int
        Processes.
    replace : bool
        Whether an output of another job is written over.
    progress : callable
        Called with (what, rows done, rows in all).

    Raises
    ------
    InputError
        If the rows lack a column, or the output is another job's.
    RetryableError
        If a process died: called again, it goes on.
    """
    began, place = time.perf_counter(), _Output(Path(output).absolute())
    if chunk < 1 or jobs < 1:
        raise InputError("chunk and jobs must be 1 or more", where="score", got={"chunk": chunk, "jobs": jobs},
                         remedy="Leave them out")  # fmt: skip
    options = columns, chunk, jobs, replace, progress
    lock = scorer.workspace.root / "state" / "scoring" / f"{digest(str(place.target).encode())[:16]}.lock"
    try:
        with FileLock(lock, where=f"score, {place.target}", timeout_s=1.0):
            return _score_into(place, scorer, _opened(scorer.workspace, source), options, began)
    except RetrodictError:  # some are errors of the system, too
        raise
    except OSError as error:
        raise RetryableError("what is written must find its place", where="score", got=os.strerror(error.errno or 0),
                             remedy="Free space, or correct permissions, and say the same again: what is done is "
                                    "kept") from error  # fmt: skip


def _score_into(place: _Output, scorer: Scorer, source: Any, options: tuple[Any, ...], began: float) -> ScoreJob:
    """The job, by the only process that writes this output."""
    columns, chunk, jobs, replace, progress = options
    with staging_folder(scorer.workspace) as staging, open_batch(source, staging=staging) as batch:
        columns = _columns_of(batch, scorer, columns)
        job = content_hash({"artifact": scorer.version.artifact, "rows": batch.id, "at": scorer.at, "columns": columns,
                            "chunk": chunk, "suffix": place.target.suffix})  # fmt: skip
        if (done := place.finished(scorer.workspace.ledger, job, replace=replace)) is not None:
            return done
        versions = place.begin(job, scorer.versions, replace=replace)
        work = (scorer.workspace.root, scorer.ref, scorer.at, columns, versions, place)
        reports, earlier = _run(batch, place, chunk, jobs, work, progress)
        batch.check_unchanged()
        rows = batch.num_rows
    total, scored, aside = (sum(report[name] for report in reports) for name in ("rows", "scored", "aside"))
    if total != rows or scored + aside != rows:
        raise InternalError("rows in must be scored + set aside", where="score", got=(rows, total, scored, aside),
                            remedy="Report it with the types of the rows")  # fmt: skip
    reasons: Counter[str] = sum((Counter(report["reasons"]) for report in reports), Counter())
    aside_file = place.write_aside(reports)
    digests = place.publish(reports)
    result = ScoreJob(scorer.ref, job, rows, scored, aside, dict(reasons), len(reports), earlier,
                      round(time.perf_counter() - began, 3), str(place.target), aside_file, versions,
                      _drift(scorer, reports))  # fmt: skip
    _enter(scorer, result, digests)
    place.finish(result, digests)
    return result


def _opened(workspace: Workspace, source: Any) -> Any:
    """Rows of a table, where a table is named."""
    name, _, version = source.partition("@") if isinstance(source, str) else ("", "", "")
    if name not in workspace.tables.names() or Path(source).exists():
        return source
    if version and not version.isdigit():
        raise InputError("a version of a table must be a number", where=f"table {name}", got=version,
                         remedy="Write it like flights@3")  # fmt: skip
    number = int(version) if version else None
    columns = [column for column in workspace.tables.schema(name, number).names if not column.startswith("_")]
    return workspace.tables.batches(name, number, columns=columns)


def _columns_of(batch: Batch, scorer: Scorer, columns: Sequence[str] | None) -> list[str]:
    """Columns that come with the scores, after a look at what the model needs."""
    names = batch.schema.names
    for needed, rule in ((scorer.inputs, "the rows must have every key, time and input of the features"),
                         (columns or (), "columns must be some of the rows'")):  # fmt: skip
        for name in needed:
            check_known(name, names, rule, where=f"rows of {batch.origin}", what="column", error=InputError)
    result = list(names if columns is None else dict.fromkeys(columns))
    if clashes := {*result} & {*scorer.outputs, MODEL, "_row"}:
        raise InputError("the rows must have no column with the name of an output", where=f"rows of {batch.origin}",
                         got=sorted(clashes), remedy="Rename it, or leave it out by columns")  # fmt: skip
    return result


@dataclass(frozen=True)
class _Output:
    """Where scores go: a file, or a folder of parts. A file has its parts beside it until it is whole."""

    target: Path

    @property
    def single(self) -> bool:
        return self.target.suffix in _SUFFIXES

    @property
    def parts(self) -> Path:
        return self.target.with_name(f"{self.target.name}.parts") if self.single else self.target

    @property
    def report(self) -> Path:
        """Says what became of the job; the last that is written."""
        return self.target.with_name(f"{self.target.name}.json") if self.single else self.parts / "job.json"

    def part(self, number: int, suffix: str = ".parquet") -> Path:
        return self.parts / f"part-{number:05}{suffix}"

    def finished(self, ledger: Ledger, job: str, *, replace: bool) -> ScoreJob | None:
        """The report of the same job, if what it wrote is there, byte for byte, and as the ledger has it."""
        try:
            report = json.loads(self.report.read_text())
            digests = report.pop("sha256")
            done = ScoreJob(**{**report, "earlier": report["chunks"], "seconds": 0.0})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if done.job != job:
            return None
        entries = [entry.payload for entry in ledger.vouched("scores:") if entry.payload.get("job") == job]
        counts = {"sha256": digests, "rows": done.rows, "scored": done.scored, "aside": done.aside}
        same = digests == self._digests() and any(counts.items() <= entry.items() for entry in entries)
        if not same and replace:
            return None
        if not same:
            raise InputError("the output must be as this job wrote it, and was altered since", where="score",
                             got=str(self.target), remedy="Say replace to write it again")  # fmt: skip
        return done

    def _digests(self) -> list[str]:
        files = [self.target] if self.single else sorted(self.parts.glob("part-*.parquet"))
        return [digest_file(file) for file in files if file.is_file()]

    def begin(self, job: str, versions: Mapping[str, int], *, replace: bool) -> dict[str, int]:
        """Versions of tables: these, or those of a call for the same job that did not come to its end."""
        note = self.parts / _BEGUN
        with suppress(OSError, ValueError, KeyError):
            state = json.loads(note.read_text())
            if state["job"] == job:
                return dict(state["versions"])
        elsewhere = note.exists()  # of a job that did not come to its end: it may go on
        ours = elsewhere or self.report.exists()
        folder = self.parts.is_dir() and any(self.parts.iterdir())
        occupied = self.target.exists() if self.single else folder or self.target.is_file()
        if (occupied or elsewhere) and not replace:
            raise InputError("the output must not be there yet, or be this job's", where="score",
                             got=str(self.target), remedy="Choose another one, or say replace")  # fmt: skip
        if (folder and not ours) or (not self.single and self.target.is_file()):
            raise InputError("what is replaced must be the output of such a job", where="score", got=str(self.parts),
                             remedy="Empty it, or choose another one: .parquet, .csv, or a folder")  # fmt: skip
        if self.parts.is_dir():
            shutil.rmtree(self.parts)
        self.parts.mkdir(parents=True)
        place_file(note, json.dumps({"job": job, "versions": dict(versions)}).encode())
        return dict(versions)

    def chunk(self, number: int, rows: int) -> dict[str, Any] | None:
        """Report of a chunk that is done, if its file is what was written."""
        try:
            report: dict[str, Any] = json.loads(self.part(number, ".json").read_text())
            intact = report["rows"] == rows and digest_file(self.part(number)) == report["sha256"]
        except (OSError, ValueError, KeyError):
            return None
        return report if intact else None

    def write_aside(self, reports: Sequence[Mapping[str, Any]]) -> str | None:
        """One file of all rows that were set aside."""
        path = self.target.with_name(f"{self.target.name}.aside.jsonl") if self.single else self.parts / "aside.jsonl"
        lines = [self.part(number, ".aside") for number, report in enumerate(reports) if report["aside"]]
        if not lines:
            path.unlink(missing_ok=True)
            return None
        with path.open("wb") as file:
            for part in lines:
                file.write(part.read_bytes())
        return str(path)

    def publish(self, reports: Sequence[Mapping[str, Any]]) -> list[str]:
        """Make one file of the parts where one was asked for, whole or not at all; SHA-256 of what is there now."""
        if not self.single:
            return [report["sha256"] for report in reports]
        fresh = self.parts / f"whole{self.target.suffix}"
        parts = [self.part(number) for number in range(len(reports))]
        schema = pq.read_schema(parts[0]) if parts else pa.schema([])
        writer: Any = pq.ParquetWriter
        if self.target.suffix == ".csv":
            writer, schema = pacsv.CSVWriter, pa.schema([(one.name, _plain(one.type)) for one in schema])
        try:
            with writer(fresh, schema) as file:
                for part in parts:
                    with pq.ParquetFile(part) as opened:
                        for rows in opened.iter_batches():
                            file.write_table(pa.Table.from_batches([rows]).cast(schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError("a file of CSV must hold plain values only", where="score", got=str(schema.types),
                             remedy="Write Parquet, or leave columns out") from error  # fmt: skip
        fresh.replace(self.target)
        return [digest_file(self.target)]

    def finish(self, job: ScoreJob, digests: Sequence[str]) -> None:
        """Write the report, by which the same call knows that there is nothing to do."""
        place_file(self.report, json.dumps({"sha256": digests, **job.to_dict()}, indent=1).encode())
        if self.single:
            shutil.rmtree(self.parts)
            return
        for path in (self.parts / _BEGUN, *self.parts.glob("part-*.json"), *self.parts.glob("part-*.aside")):
            path.unlink()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _run(
    batch: Batch, place: _Output, chunk: int, jobs: int, options: tuple[Any, ...], progress: Progress
) -> tuple[list[dict[str, Any]], int]:
    """Reports of all chunks in their order, and how many were there already."""
    reports: dict[int, dict[str, Any]] = {}
    waiting: dict[Future[dict[str, Any]], int] = {}
    earlier = start = 0

    def take(at_most: int) -> None:
        """Wait until no more chunks than these are on their way: memory is bounded by it."""
        while len(waiting) > at_most:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                reports[waiting.pop(future)] = future.result()
            progress("score", sum(report["rows"] for report in reports.values()), batch.num_rows)

    try:
        with _workers(jobs, options) as submit:
            for number, rows in enumerate(batch.batches(chunk)):
                if (report := place.chunk(number, rows.num_rows)) is not None:
                    reports[number], earlier = report, earlier + 1
                else:
                    waiting[submit(number, start, pa.Table.from_batches([rows]))] = number
                start += rows.num_rows
                take(jobs)
            take(0)
    except BrokenProcessPool as error:
        raise RetryableError("every process must live until its rows are scored", where="score",
                             got="a process that was killed, perhaps for want of memory",
                             remedy="Say the same again: what is done is kept. Fewer jobs and a smaller chunk need "
                                    "less memory") from error  # fmt: skip
    return [reports[number] for number in sorted(reports)], earlier


@contextmanager
def _workers(jobs: int, options: tuple[Any, ...]) -> Iterator[Callable[..., Future[dict[str, Any]]]]:
    """What a chunk is given to: this process, or one of several, each with one thread for numbers."""
    if jobs == 1:
        worker = _Worker(*options)

        def here(*chunk: Any) -> Future[dict[str, Any]]:
            future: Future[dict[str, Any]] = Future()
            future.set_result(worker(*chunk))
            return future

        yield here
        return
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # children read it when they load the libraries
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start, initargs=options)
    try:
        yield lambda *chunk: pool.submit(_score, *chunk)
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


class _Worker:
    """Scores chunks into parts."""

    def __init__(
        self, root: Path, ref: str, at: str | None, columns: list[str], versions: Mapping[str, int], place: _Output
    ) -> None:
        self._scorer = Scorer(Workspace(root), ref, at=at, versions=versions)
        self._columns, self._place = columns, place
        self._table, self._profile = _table_of(self._scorer), _profile(self._scorer)

    def __call__(self, number: int, start: int, rows: pa.Table) -> dict[str, Any]:
        checked = validate(rows.select(list(dict.fromkeys([*self._scorer.inputs, *self._columns]))), self._table)
        aside = [{**row, "row": row["row"] + start} for row in checked.quarantined.to_pylist()]
        scores = self._scorer.score(checked.accepted)
        result = rows.select(self._columns)
        if aside:
            result = result.take(checked.accepted.column("_row"))
        for name in scores.column_names:
            result = result.append_column(name, scores.column(name))
        model = pa.DictionaryArray.from_arrays(np.zeros(result.num_rows, np.int32), [self._scorer.ref])
        report = {"rows": rows.num_rows, "scored": result.num_rows, "aside": len(aside),
                  "reasons": dict(Counter(reason for row in aside for reason in row["checks"])),
                  "counts": self._profile and self._profile.profile.count(scores.column(0)).tolist()}  # fmt: skip
        path = self._place.part(number)
        fresh = path.with_suffix(".tmp")
        pq.write_table(result.append_column(MODEL, model), fresh)
        report["sha256"] = digest_file(fresh)
        fresh.replace(path)
        if aside:
            place_file(path.with_suffix(".aside"), "".join(f"{json.dumps(row)}\n" for row in aside).encode())
        place_file(path.with_suffix(".json"), json.dumps(report).encode())
        return report


_worker: _Worker | None = None


def _start(*options: Any) -> None:
    global _worker  # noqa: PLW0603  # one per process of the pool
    _worker = _Worker(*options)


def _score(*chunk: Any) -> dict[str, Any]:
    assert _worker is not None
    return _worker(*chunk)


def _table_of(scorer: Scorer) -> Table:
    """What rows must be: inputs of the types that the model's own table has, and times that are there."""
    kinds = {field.name: column_word(field.type) for field in scorer.schema} | dict(scorer.table.columns)
    return Table(scorer.table.name, columns={name: kinds[name] for name in scorer.inputs if name in kinds},
                 checks=[Check.not_null(name) for name in scorer.times])  # fmt: skip


def _profile(scorer: Scorer) -> FeatureReference | None:
    """How the scores of the test rows lay, of a model with one output."""
    digest = scorer.artifact.metadata.get("profiles")
    if digest is None or len(scorer.outputs) != 1:
        return None
    return Reference.from_json(scorer.workspace.objects.get(digest)).features.get("score")


def _drift(scorer: Scorer, reports: Sequence[Mapping[str, Any]]) -> float | None:
    profile = _profile(scorer)
    if profile is None or not any(report["scored"] for report in reports):
        return None
    return psi(profile.counts, np.sum([report["counts"] for report in reports], axis=0))


def _enter(scorer: Scorer, job: ScoreJob, digests: list[str]) -> None:
    """Say in the ledger what was scored, by what, and what came out."""
    facts = {"job": job.job, "rows": job.rows, "scored": job.scored, "aside": job.aside, "sha256": digests}
    inputs = [(f"model:{scorer.ref}", "model"),
              *((f"dataset:{name}@{version}", "features") for name, version in job.versions.items())]  # fmt: skip
    with scorer.workspace.ledger.transaction() as tx:
        tx.append("scores.write", f"scores:{job.job[:16]}", facts, inputs=inputs)
