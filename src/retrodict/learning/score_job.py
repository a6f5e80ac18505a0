"""Scores of rows beyond memory: from files to files, in chunks, by several processes, going on after a kill.

A chunk is written under a name of its own with a small report beside it, which is written last: what has a report is
done, and is not done again. Every row of the input is in the output or among those that were set aside, which the job
counts before it says that it is over. Tables are read at the versions that the job began with, also after a kill.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, InternalError, RetrodictError, RetryableError, check_known
from retrodict.core.identity import canonical_json, content_hash, digest_file
from retrodict.core.kinds import column_word
from retrodict.core.statistics.drift import psi
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.ingest import staging_folder
from retrodict.data.readers import Batch, open_batch
from retrodict.data.validation import validate
from retrodict.data.validation._originals import as_json
from retrodict.evaluation.reference import BlockCounts, FeatureReference, Reference, count_spans, feature_column
from retrodict.learning.isolation import THREADS
from retrodict.learning.ray_cluster import open_ray
from retrodict.learning.score_delta import open_delta, open_output
from retrodict.learning.score_faults import find_faults
from retrodict.learning.score_output import ScoreJob, ScoreOutput
from retrodict.learning.scorer import MOMENT, Scorer
from retrodict.stores._durable import place_file
from retrodict.stores._locks import FileLock
from retrodict.workspace import Workspace

__all__ = ["ScoreJob", "score_files"]

CHUNK = 200_000
_log = logging.getLogger(__name__)
_SAMPLE = 2_000  # rows of a chunk whose features are counted
MODEL = "model"
"""Column that names the version which scored."""

Progress = Callable[[str, int, int], None]


def score_files(
    scorer: Scorer,
    source: Any,
    output: ScoreOutput | str | Path,
    *,
    columns: Sequence[str] | None = None,
    chunk: int = CHUNK,
    jobs: int = 1,
    engine: str = "processes",
    progress: Progress = lambda _what, _done, _total: None,
) -> ScoreJob:
    """Score the rows of files into a file or a folder.

    Parameters
    ----------
    scorer : Scorer
    source : path, glob, folder, list of paths, table of the project, Arrow object or frame
        As :func:`~retrodict.data.readers.open_batch` reads; a table as ``name`` or ``name@version``, a folder that is a
        Delta table as ``folder`` or ``folder@version``.
    output : ScoreOutput or path
        ``.parquet`` or ``.csv``; a folder: a Parquet file for every chunk, none of which has rows of two files; or
        ``delta:folder``, or a folder that is a Delta table: the rows are added to it in one commit, once per job. See
        :func:`~retrodict.learning.score_delta.open_output`.
    columns : sequence of str, optional
        Columns of the rows that come with the scores. None: all.
    chunk : int
        Rows that are scored at a time, at most.
    jobs : int
        Processes, or actors of Ray.
    engine : {"processes", "ray"}
        Where chunks are scored. Nodes of a cluster of Ray must see the project's folder and the output.
    progress : callable
        Called with (what, rows done, rows in all).

    Raises
    ------
    InputError
        If the rows lack a column, or the output is another job's.
    RetryableError
        If a process died: called again, it goes on.
    ConfigurationError
        If Ray is asked for and not installed.
    """
    if not scorer.version.approved:
        _log.warning("model:%s is not approved: its scores are for looking at and decide nothing", scorer.ref)
    began, place = time.perf_counter(), output if isinstance(output, ScoreOutput) else open_output(str(output))
    if chunk < 1 or jobs < 1:
        raise InputError("chunk and jobs must be 1 or more", where="score", got={"chunk": chunk, "jobs": jobs},
                         remedy="Leave them out")  # fmt: skip
    check_known(engine, ("processes", "ray"), "an engine must be one that scores", where="score", what="engine",
                error=InputError)  # fmt: skip
    options = columns, chunk, (jobs, engine), progress
    try:
        target = place.target.resolve()  # one lock for every spelling of it and for every project
        lock = target.with_name(f".{target.name}.lock")
        with FileLock(lock, where=f"score, {place.target}", timeout_s=1.0, temporary=True):
            return _score_into(place, scorer, source, options, began)
    except RetrodictError:  # some are errors of the system, too
        raise
    except OSError as error:
        raise RetryableError("what is written must find its place", where="score", got=os.strerror(error.errno or 0),
                             remedy="Free space, or correct permissions, and say the same again: what is done is "
                                    "kept") from error  # fmt: skip


def _score_into(place: ScoreOutput, scorer: Scorer, source: Any, options: tuple[Any, ...], began: float) -> ScoreJob:
    """The job, by the only process that writes this output."""
    columns, chunk, pool, progress = options
    if isinstance(source, str) and source in scorer.workspace.tables.names() and Path(source).exists():
        raise InputError("rows must be those of a table or those of a path", where="score, input", got=source,
                         remedy=f"Both are there: write {source}@VERSION for the table, ./{source} for the path"
                         )  # fmt: skip
    delta = open_delta(str(source)) if isinstance(source, str | Path) else None
    rows, origin = (_opened(scorer.workspace, source), None) if delta is None else delta
    with staging_folder(scorer.workspace) as staging, open_batch(rows, staging=staging) as batch:
        columns = _columns_of(batch, scorer, columns)
        empty = batch.schema.empty_table().select(scorer.inputs)
        scorer.moments(validate(empty, _table_of(scorer)).accepted)  # what no row can pass is said before any is read
        job = content_hash({"artifact": scorer.version.artifact, "rows": batch.id, "at": scorer.at, "columns": columns,
                            **place.identity(chunk), **({} if origin is None else {"input": origin})})  # fmt: skip
        place = place.of(job)
        if (done := place.finished(scorer.workspace.ledger, job)) is not None:
            return done
        names = [*columns, *scorer.outputs, MODEL]
        versions = place.begin(job, scorer.versions, names, partial(_digest_of, scorer.workspace))
        work = (scorer.workspace.root, scorer.ref, scorer.at, columns, versions, place)
        reports, earlier = _run(batch, place, chunk, pool, work, progress)
        batch.check_unchanged()
        count = batch.num_rows
    total, scored, aside = (sum(report[name] for report in reports) for name in ("rows", "scored", "aside"))
    if total != count or scored + aside != count:
        raise InternalError("rows in must be scored + set aside", where="score", got=(count, total, scored, aside),
                            remedy="Report it with the types of the rows")  # fmt: skip
    reasons: Counter[str] = sum((Counter(report["reasons"]) for report in reports), Counter())
    aside_file = place.write_aside(reports)
    digests = place.publish(reports)
    counts, spans = _totals(reports), [report["span"] for report in reports if report["span"]]
    result = ScoreJob(scorer.ref, job, count, scored, aside, dict(reasons), len(reports), earlier,
                      round(time.perf_counter() - began, 3), str(place.target), aside_file, versions,
                      _drift(scorer, counts), origin)  # fmt: skip
    span = [min(first for first, _ in spans), max(last for _, last in spans)] if spans else None
    _enter(scorer, result, digests, {"counts": {name: one.to_dict() for name, one in counts.items()}, "span": span})
    place.finish(result, digests)
    return result


def _opened(workspace: Workspace, source: Any) -> Any:
    """Rows of a table, where a table is named."""
    name, _, version = source.partition("@") if isinstance(source, str) else ("", "", "")
    if name not in workspace.tables.names():
        return source
    if version and not version.isdigit():
        raise InputError("a version of a table must be a number", where=f"table {name}", got=version,
                         remedy="Write it like flights@3")  # fmt: skip
    number = int(version) if version else None
    columns = [column for column in workspace.tables.schema(name, number).names if not column.startswith("_")]
    return workspace.tables.batches(name, number, columns=columns)


def _digest_of(workspace: Workspace, name: str, version: int) -> str:
    """What a version of a table is known by, in any project: SHA-256 of its entry in the log, "" once that is gone."""
    return {entry.version: entry.digest for entry in workspace.tables.log_entries(name)}.get(version, "")


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


def _run(
    batch: Batch, place: ScoreOutput, chunk: int, pool: tuple[int, str], options: tuple[Any, ...], progress: Progress
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
        with _workers(pool, options) as submit:
            for number, rows in enumerate(batch.batches(chunk)):
                if (report := place.chunk(number, start, rows.num_rows)) is not None:
                    reports[number], earlier = report, earlier + 1
                else:
                    waiting[submit(number, start, pa.Table.from_batches([rows]))] = number
                start += rows.num_rows
                take(pool[0])
            take(0)
    except BrokenProcessPool as error:
        raise RetryableError("every process must live until its rows are scored", where="score",
                             got="a process that was killed, perhaps for want of memory",
                             remedy="Say the same again: what is done is kept. Fewer jobs and a smaller chunk need "
                                    "less memory") from error  # fmt: skip
    return [reports[number] for number in sorted(reports)], earlier


@contextmanager
def _workers(how: tuple[int, str], options: tuple[Any, ...]) -> Iterator[Callable[..., Future[dict[str, Any]]]]:
    """What a chunk is given to: this process, or one of several, each with one thread for numbers."""
    jobs, engine = how
    if engine == "ray":
        with open_ray(jobs, where="score, engine") as ray:
            turns = cycle([ray.remote(num_cpus=1)(_Worker).remote(*options) for _ in range(jobs)])
            try:
                yield lambda *chunk: next(turns).__call__.remote(*chunk).future()
            except ray.exceptions.RayActorError as error:
                raise BrokenProcessPool from error
        return
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
        self, root: Path, ref: str, at: str | None, columns: list[str], versions: Mapping[str, int], place: ScoreOutput
    ) -> None:
        self._scorer = Scorer(Workspace(root), ref, at=at, versions=versions)
        self._columns, self._place = columns, place
        self._table, self._reference = _table_of(self._scorer), _reference(self._scorer)

    def __call__(self, number: int, start: int, rows: pa.Table) -> dict[str, Any]:
        checked_names = list(dict.fromkeys([*self._scorer.inputs, *self._columns]))
        checked = validate(rows.select(checked_names), self._table)
        aside = [{**row, "row": row["row"] + start} for row in checked.quarantined.to_pylist()]
        frame, scores, faults = self._scored(checked.accepted)
        originals = as_json(rows.select(checked_names).take([*faults])).to_pylist() if faults else []
        aside += [{"row": place + start, "checks": [reason], "original": original}
                  for (place, reason), original in zip(faults.items(), originals, strict=True)]  # fmt: skip
        aside.sort(key=itemgetter("row"))
        result = rows.select(self._columns)
        if aside:
            result = result.take(frame.column("_row"))
        for name in scores.column_names:
            result = result.append_column(name, scores.column(name))
        model = pa.DictionaryArray.from_arrays(np.zeros(result.num_rows, np.int32), [self._scorer.ref])
        report = {"start": start, "rows": rows.num_rows, "scored": result.num_rows, "aside": len(aside),
                  "reasons": dict(Counter(reason for row in aside for reason in row["checks"])),
                  "counts": dict(self._counts(frame, scores)), "span": self._span(frame)}  # fmt: skip
        path = self._place.part(number)
        fresh = path.with_suffix(".tmp")
        pq.write_table(result.append_column(MODEL, model), fresh)
        report["sha256"] = digest_file(fresh)
        fresh.replace(path)
        if aside:
            place_file(path.with_suffix(".aside"), "".join(f"{json.dumps(row)}\n" for row in aside).encode())
        place_file(path.with_suffix(".json"), json.dumps(report).encode())
        return report

    def _scored(self, rows: pa.Table) -> tuple[pa.Table, pa.Table, dict[int, str]]:
        """Features of the rows that have scores, the scores, and why others (by their place) cannot have any."""
        faults: dict[int, str] = {}

        def passing(call: Callable[[pa.Table], pa.Table], rows: pa.Table, of: pa.Table) -> tuple[pa.Table, pa.Table]:
            """Of the rows those that a call takes, and what it gives for them; it is not made for none."""
            try:
                return of, call(rows) if rows.num_rows else rows
            except Exception:  # noqa: BLE001  # of code of a user, too
                failed = find_faults(lambda places: call(rows.take(places)), rows.num_rows)
            faults.update((of.column("_row")[place].as_py(), reason) for place, reason in failed.items())
            rest = np.setdiff1d(np.arange(rows.num_rows), [*failed])
            rows = rows.take(rest)
            return of.take(rest), call(rows) if len(rest) else rows

        accepted, frame = passing(self._scorer.gather, rows, rows)
        if frame.num_rows:
            frame = frame.append_column("_row", accepted.column("_row"))
        frame, scores = passing(self._scorer.answer, frame, frame)
        if not frame.num_rows:
            scores = pa.table({name: pa.array([], pa.float64()) for name in self._scorer.outputs})
        return frame, scores, faults

    def _counts(self, frame: pa.Table, scores: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows by bin of the version's profiles and by time: all scores, and features of as many rows as are fast."""
        if not frame.num_rows:
            return
        times = np.asarray(frame.column(MOMENT).cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        places = np.arange(0, frame.num_rows, max(frame.num_rows // _SAMPLE, 1))
        sample = frame.take(places), times[places]
        parts = {
            feature_column(name): (sample[0].column(name), sample[1]) for name in self._scorer.artifact.inputs.names
        }
        parts |= {_profiled(name): (scores.column(name), times) for name in scores.column_names}
        for name, reference in self._reference.items():
            length = max(DAY, 0 if reference.blocks is None else reference.blocks.length)
            with suppress(InputError, KeyError):  # of another kind than in training: not counted
                column, moments = parts[name]
                order = np.argsort(moments, kind="stable")
                blocks = moments[order] // length
                starts = np.unique(blocks)
                counts = count_spans(reference.profile.count, column.take(order), blocks, [*starts, starts[-1] + 1])
                yield name, BlockCounts(starts * length, length, counts).to_dict()

    def _span(self, frame: pa.Table) -> list[int] | None:
        """First and last moment of decision, in microseconds since 1970-01-01 UTC."""
        if not self._scorer.times or not frame.num_rows:
            return None
        ends = pc.min_max(frame.column(MOMENT).cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        return [ends["min"].as_py(), ends["max"].as_py()]


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


def _profiled(output: str) -> str:
    """What profiles call an output."""
    return output if output == "score" else f"output__{output}"


def _reference(scorer: Scorer) -> Mapping[str, FeatureReference]:
    """How features of the training rows and outputs of the test rows lay."""
    digest = scorer.artifact.metadata.get("profiles")
    return {} if digest is None else Reference.from_json(scorer.workspace.objects.get(digest)).features


def _totals(reports: Sequence[Mapping[str, Any]]) -> dict[str, BlockCounts]:
    """Counts of all chunks together, by profile; blocks without rows are left out."""
    parts: dict[str, list[BlockCounts]] = {}
    for report in reports:
        for name, body in report["counts"].items():
            parts.setdefault(name, []).append(BlockCounts.from_dict(body))
    totals = {}
    for name, blocks in parts.items():
        starts, places = np.unique(np.concatenate([one.starts for one in blocks]), return_inverse=True)
        counts = np.zeros((len(starts), blocks[0].counts.shape[1]), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([one.counts for one in blocks]))
        totals[name] = BlockCounts(starts, blocks[0].length, counts)
    return totals


def _drift(scorer: Scorer, counts: Mapping[str, BlockCounts]) -> float | None:
    name = _profiled(scorer.outputs[0])
    profile = _reference(scorer).get(name)
    if len(scorer.outputs) > 1 or profile is None or name not in counts:
        return None
    return psi(profile.counts, counts[name].counts.sum(0))


def _enter(scorer: Scorer, job: ScoreJob, digests: list[str], seen: Mapping[str, Any]) -> None:
    """Say in the ledger what was scored, by what, and what came out."""
    facts = {"job": job.job, "rows": job.rows, "scored": job.scored, "aside": job.aside, "sha256": digests,
             "model": job.model, "output": job.output, "seen": scorer.workspace.objects.put(canonical_json(seen)),
             **({} if job.input is None else {"input": job.input})}  # fmt: skip
    inputs = [(f"model:{scorer.ref}", "model"),
              *((f"dataset:{name}@{version}", "features") for name, version in job.versions.items())]  # fmt: skip
    with scorer.workspace.ledger.transaction() as tx:
        tx.append("scores.write", f"scores:{job.job[:16]}", facts, inputs=inputs)
