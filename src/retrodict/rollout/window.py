"""A window of past traffic through another version or policy: in parallel, and going on after a kill.

The log is cut into spans; what a process made of a span is a file, renamed into its place when it is whole. A job is
named by what was asked, so the same call finds what an earlier one left behind. Its plan is written first: the spans of
the log and the moments that "now" meant, which do not change when it goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.display import Block, Facts, Shown
from retrodict.core.errors import InputError, RetryableError
from retrodict.core.identity import canonical_json, content_hash, digest_file
from retrodict.decisions.log import LogSpan, check_whole, log_spans, read_span
from retrodict.decisions.records import DecisionRecord
from retrodict.learning.isolation import THREADS
from retrodict.rollout.pairs import PAIRS, Reproducer, pairs_table
from retrodict.rollout.report import ChallengerReport, report_pairs
from retrodict.rollout.rescore import Challenger, Rescorer, check_features, compared_policy
from retrodict.stores._durable import make_folder, place_file
from retrodict.workspace import Workspace

__all__ = ["DecisionSpan", "WindowReplay", "replay_window"]

CHUNK = 20_000
_BATCH = 2_000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, repr=False)
class WindowReplay(Shown):
    """A replayed window.

    Attributes
    ----------
    report : ChallengerReport
    output : Path
        Parquet file with a row per request: what was decided, what the challenger decides, ``match``, ``reproduced``.
    sha256 : str
        Of the file; in the ledger.
    chunks, resumed : int
        Pieces of the work, and how many of them an earlier run had done.
    """

    report: ChallengerReport
    output: Path
    sha256: str
    chunks: int
    resumed: int

    @property
    def table(self) -> pa.Table:
        """The rows."""
        return pq.read_table(self.output)

    @property
    def ok(self) -> bool:
        """False where a logged answer did not come out again."""
        return not self.report.reproduced.get("mismatches")

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {**self.report.to_dict(), "output": str(self.output), "sha256": self.sha256, "chunks": self.chunks,
                "resumed": self.resumed}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """The report, and where the rows are."""
        about = {"rows": str(self.output), "chunks": self.chunks, "done before": self.resumed or None}
        return [*self.report.blocks(), Facts(about)]


@dataclass(frozen=True, slots=True)
class DecisionSpan:
    """Which decisions, and what is reported of them.

    Attributes
    ----------
    policy : str
        Whose decisions.
    start, end : int, optional
        Decisions with ``start <= time < end``; microseconds since 1970-01-01 UTC. None: all up to now.
    by : tuple of str
        Entities, context values or features whose groups are reported one by one.
    """

    policy: str
    start: int | None = None
    end: int | None = None
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a job does, fixed when it begins."""

    window: DecisionSpan
    challenger: Challenger
    end: int
    now: int
    spans: tuple[LogSpan, ...]

    def to_json(self) -> bytes:
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> _Plan:
        body = json.loads(data)
        window = body["window"] | {"by": tuple(body["window"]["by"])}
        spans = tuple(LogSpan(**span) for span in body["spans"])
        return cls(DecisionSpan(**window), Challenger(**body["challenger"]), body["end"], body["now"], spans)


def replay_window(
    workspace: Workspace,
    window: DecisionSpan,
    challenger: Challenger,
    *,
    now: int | None = None,
    jobs: int = 1,
    progress: Progress = lambda _what, _done, _total: None,
) -> WindowReplay:
    """Decide the requests of a window again, and compare.

    Parameters
    ----------
    workspace : Workspace
    window : DecisionSpan
    challenger : Challenger
        What decides instead.
    now : int, optional
        As of when outcomes are known; when it began by default.
    jobs : int
        Processes.
    progress : callable
        Called with (what, chunks done, chunks in all).

    Raises
    ------
    InputError
        If the window holds no decision of the policy.
    NotFoundError
        If decisions of the window are no longer in the log.
    RetryableError
        If a process died: called again, it goes on.
    """
    start, end = window.start, window.end
    if jobs < 1 or (start is not None and end is not None and start >= end):
        raise InputError("a window must begin before it ends, with at least one process", where="replay window",
                         got={"from": start, "to": end, "jobs": jobs}, remedy="Correct --from, --to, --jobs"
                         )  # fmt: skip
    check_whole(workspace, start)
    check_features(workspace, window.policy, challenger)
    job = content_hash({**asdict(window), "by": list(window.by), "challenger": asdict(challenger)})[:16]
    folder = workspace.root / "state" / "replays" / job
    with workspace.lock(f"replays/{job}", timeout_s=1.0):
        plan = _planned(workspace, folder, window, challenger)
        resumed = _run(workspace, plan, folder, jobs, progress)
        pairs = _gathered(folder, plan)
        if not pairs.num_rows:
            shutil.rmtree(folder)
            raise InputError("a window must hold decisions of the policy", where=f"policy:{window.policy}, window",
                             got="none", remedy=f"See when there are some: retrodict outcomes show {window.policy}"
                             )  # fmt: skip
        policy = compared_policy(workspace, window.policy)
        report = report_pairs(workspace, policy, challenger, pairs, now=plan.now if now is None else now)
        path = folder.with_suffix(".parquet")
        fresh = path.with_name(f".{path.name}.tmp")
        pq.write_table(pairs, fresh)
        fresh.replace(path)
        sha256 = digest_file(path)
        _enter(workspace, job, report, sha256)
        shutil.rmtree(folder)
    return WindowReplay(report, path, sha256, len(plan.spans), resumed)


def _planned(workspace: Workspace, folder: Path, window: DecisionSpan, challenger: Challenger) -> _Plan:
    """Plan of the job: the one that an earlier run has written, if it did not end."""
    file = folder / "plan.json"
    if file.exists():
        return _Plan.from_json(file.read_bytes())
    moment = workspace.clock.now()
    end = moment + 1 if window.end is None else window.end
    plan = _Plan(window, challenger, end, moment, tuple(log_spans(workspace, CHUNK)))
    make_folder(folder)
    place_file(file, plan.to_json())
    return plan


def _run(workspace: Workspace, plan: _Plan, folder: Path, jobs: int, progress: Progress) -> int:
    """Do the chunks that are not done; how many were."""
    todo = [number for number in range(len(plan.spans)) if not _chunk(folder, number).exists()]
    earlier = len(plan.spans) - len(todo)
    if jobs == 1 or len(todo) < 2:
        worker = _Worker(workspace, plan, folder)
        for place, number in enumerate(todo):
            worker(number)
            progress("replay", earlier + place + 1, len(plan.spans))
        return earlier
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # children read it when they load the libraries
    try:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start,
                                 initargs=(workspace.root, plan, folder)) as pool:  # fmt: skip
            futures = [pool.submit(_work, number) for number in todo]
            for place, future in enumerate(as_completed(futures)):
                future.result()
                progress("replay", earlier + place + 1, len(plan.spans))
    except BrokenProcessPool as error:
        raise RetryableError("every process must live until its requests are decided", where="replay window",
                             got="a process that was killed, perhaps for want of memory",
                             remedy="Say the same again: what is done is kept; fewer --jobs need less memory"
                             ) from error  # fmt: skip
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    return earlier


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


class _Worker:
    """Decides the requests of spans again."""

    def __init__(self, workspace: Workspace, plan: _Plan, folder: Path) -> None:
        self._workspace, self._plan, self._folder = workspace, plan, folder
        self._rescorer = Rescorer(self._workspace, plan.challenger)
        self._reproducer = Reproducer(self._workspace)

    def __call__(self, number: int) -> None:
        plan, tables, batch = self._plan, [PAIRS.empty_table()], list[DecisionRecord]()
        for record in read_span(self._workspace, plan.spans[number]):
            start, inside = plan.window.start, record.time < plan.end
            if record.policy == plan.window.policy and inside and (start is None or record.time >= start):
                batch.append(record)
            if len(batch) == _BATCH:
                tables.append(self._decide(batch))
                batch = []
        tables += [self._decide(batch)] if batch else []
        path = _chunk(self._folder, number)
        fresh = path.with_suffix(".tmp")
        pq.write_table(pa.concat_tables(tables, promote_options="default"), fresh)
        fresh.replace(path)

    def _decide(self, records: list[DecisionRecord]) -> pa.Table:
        rescores = self._rescorer.rescore(records)
        return pairs_table(records, rescores, self._reproducer.check(records), self._plan.window.by)


_worker: _Worker | None = None


def _start(root: Path, plan: _Plan, folder: Path) -> None:
    global _worker  # noqa: PLW0603  # one per process of the pool
    _worker = _Worker(Workspace(root), plan, folder)


def _work(number: int) -> None:
    assert _worker is not None
    _worker(number)


def _gathered(folder: Path, plan: _Plan) -> pa.Table:
    """All chunks, in order of time."""
    parts = [pq.read_table(_chunk(folder, number)) for number in range(len(plan.spans))]
    if not parts:
        return PAIRS.empty_table()
    return pa.concat_tables(parts, promote_options="default").sort_by([("time", "ascending"), ("id", "ascending")])


def _enter(workspace: Workspace, job: str, report: ChallengerReport, sha256: str) -> None:
    """Say in the ledger what was replayed, by what, and what came out: the evidence that others refer to."""
    body = workspace.objects.put(canonical_json(report.to_dict()))
    facts = {"report": body, "rows": sha256, "decisions": report.decisions, "verdict": report.verdict,
             "challenger": report.challenger.to_dict(), "objects": [body]}  # fmt: skip
    with workspace.ledger.transaction() as tx:
        tx.append("decisions.replay", f"replay:{job}", facts, inputs=[
            (f"policy:{report.policy}", "decided"), (f"model:{report.challenger.model}", "decides again"),
        ])  # fmt: skip
