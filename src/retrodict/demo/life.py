"""One whole life on real data, from ingest to audit.

The demo is a user: what it does to the project, it does through :class:`retrodict.Project`. Every number in the report
was computed in this run.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import ConfigurationError, InternalError
from retrodict.data.ingest import IngestReport
from retrodict.demo import chapters, flaws, nycflights
from retrodict.demo.deliveries import LIVE_MONTHS, Deliveries
from retrodict.demo.live import MODEL, POLICY, live_server, run_month, server_status
from retrodict.demo.report import LifeReport, write_report
from retrodict.demo.traffic import Traffic
from retrodict.learning import measure_leakage
from retrodict.models.definitions import Model
from retrodict.project import Project
from retrodict.project.progress import Progress
from retrodict.registry import ModelVersion

__all__ = ["Life", "run"]

AUTHOR, APPROVER, SERVICE = "ana", "ben", "retrainer"


class Life:
    """The project of the demo, its simulated clock, and what every chapter reports.

    Parameters
    ----------
    folder : Path
        Where the project is made; must not exist or be an earlier demo.
    share : float
        Share of the flights from September to November to decide on.
    progress : callable
    """

    def __init__(self, folder: Path, *, share: float, progress: Progress) -> None:
        _make_project(folder)
        self.folder, self.share, self.progress = folder, share, progress
        self.clock = SimulatedClock(LIVE_MONTHS[0].start)
        self.project = self.acting(AUTHOR)
        self.report: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self.traffic = Traffic()
        self.ingested: list[IngestReport] = []

    @contextmanager
    def chapter(self, name: str) -> Iterator[None]:
        """Time a chapter and say that it goes on."""
        self.progress(name, 0, 1)
        began = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - began, 2)

    def acting(self, actor: str) -> Project:
        """Return the same project as somebody else acts in it."""
        return Project(self.folder, clock=self.clock, actor=actor, progress=self.progress)

    def approve(self, version: ModelVersion, reason: str) -> None:
        """Approve a version as somebody who is not its author."""
        with self.acting(APPROVER) as project:
            project.models.approve(version.ref, reason=reason)

    def ingest(self, deliveries: Deliveries, tables: Sequence[str], start: int | None, end: int | None) -> None:
        """Ingest the rows of some tables whose time lies in [start, end)."""
        self.ingested += [self.project.data.ingest(table, deliveries.rows(table, start, end)) for table in tables]


def run(project: Path, report: Path, *, share: float = 0.26, progress: Progress | None = None) -> LifeReport:
    """Live through the whole life and write ``report.json`` and ``report.html``.

    Parameters
    ----------
    project, report : Path
        Folders to write; an earlier demo there is replaced.
    share : float, default 0.26
        Share of the flights from September to November that decisions are asked for.
    progress : callable, optional

    Returns
    -------
    LifeReport
        What ``report.json`` holds.
    """
    began = time.perf_counter()
    life = Life(project, share=share, progress=progress or (lambda _what, _done, _total: None))
    with life.project:
        deliveries = _history(life)
        champion = _learn(life)
        _live(life, deliveries, champion)
        _look_back(life, champion)
    life.report["timings"] = {**life.timings, "total": round(time.perf_counter() - began, 2)}
    write_report(report, life.report)
    return LifeReport(life.report, report)


def _make_project(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / ".retrodict-demo").exists():
            raise ConfigurationError(
                "the demo must write into a new folder or over an earlier demo", where=str(folder),
                got="a folder with other files", remedy="Name another folder with --project",
            )  # fmt: skip
        shutil.rmtree(folder)
    Project.write_template(folder)
    (folder / ".retrodict-demo").touch()


def _history(life: Life) -> Deliveries:
    """Ingest what was there on the first of September."""
    with life.chapter("ingest"):
        files = nycflights.read_files()
        tables = nycflights.prepare(files)
        deliveries = Deliveries(tables)
        life.ingest(deliveries, ("flights", "weather", "planes"), None, life.clock.now())
        life.report["ingest"] = {"flaws": flaws.count_flaws(files), "labels": flaws.count_labels(tables["flights"])}
    return deliveries


def _learn(life: Life) -> ModelVersion:
    """Prove the features, show the leak, train, judge, approve, deploy, and fill the online state."""
    project = life.project
    with life.chapter("features"):
        life.report["features"] = chapters.prove_features(project)
    with life.chapter("training"):
        trained = project.train(MODEL)
    with life.chapter("leakage"):
        model = project.definitions.get(Model, MODEL)
        leakage = measure_leakage(project.workspace, model, trained.record, progress=life.progress)
        life.report["leakage"] = leakage.to_dict()
    assert trained.version is not None  # a training that did not fail registers one
    with life.chapter("deploy"):
        life.approve(trained.version, "beats the ladder on August; pilot from September on")
        sources = project.features.build().sources
        project.deploy(POLICY, model=trained.version.ref, reason="pilot")
        life.report["features"]["materialised"] = {name: applied.stored for name, applied in sources.items()}
    life.report["training"] = chapters.describe_training(project, trained)
    return trained.version


def _live(life: Life, deliveries: Deliveries, champion: ModelVersion) -> None:
    """Three months of traffic; watched, retrained after the first, promoted and rolled back in the third."""
    reports = []
    challenger: ModelVersion | None = None
    with live_server(life.folder, life.folder / "server.log") as url, life.acting(SERVICE) as service:
        for month in LIVE_MONTHS:
            first = len(life.traffic.answers)
            compared = "rollout" in life.report
            with life.chapter(f"live {month.name}"):
                changes = asyncio.run(
                    run_month(
                        url, deliveries, month, life.traffic, clock=life.clock, share=life.share,
                        progress=life.progress, rollout=(service, challenger.ref) if challenger and compared else None,
                    )
                )  # fmt: skip
                life.clock.move_to(month.end)
                life.ingest(deliveries, ("flights", "weather"), month.start, month.end)
            if changes:
                life.report["rollout"] |= chapters.describe_rollout(changes, life.traffic.answers[first:])
            with life.chapter(f"watch {month.name}"):
                # A day more, so that the flights of the last evening have landed and matured.
                reports.append(life.project.monitor(POLICY, now=month.end + DAY))
            if challenger is None and reports[-1].fired:
                with life.chapter("retrain"):
                    challenger = _retrain(life, service)
            elif challenger is not None and not compared:
                with life.chapter("compare"):
                    life.report["rollout"] = _compare(life, challenger)
        status = server_status(url)
        life.ingest(deliveries, ("flights", "weather"), LIVE_MONTHS[-1].end, None)
    if not changes:
        raise InternalError("a trigger must fire in time for a promotion", where="demo",
                            got=[report.to_dict()["triggers"] for report in reports],
                            remedy="Look at the drift of the first month: the data or the monitor changed")  # fmt: skip
    with life.chapter("parity"):
        life.report["parity"] = chapters.check_parity(life.project)
    life.report["serving"] = chapters.describe_serving(life.project, life.traffic, status)
    life.report["outcomes"], life.report["drift"] = chapters.describe_watching(reports, champion)
    life.report["ingest"] |= chapters.describe_ingest(life.ingested, deliveries)


def _retrain(life: Life, service: Project) -> ModelVersion | None:
    """Train a challenger by the same recipe on one month more, as somebody who is not the approver."""
    split = service.definitions.get(Model, MODEL).recipe.split.moved_to_end(life.clock.now()).describe()
    return service.train(MODEL, train=split["train"]).version


def _compare(life: Life, challenger: ModelVersion) -> dict[str, Any]:
    """Judge the challenger on October's decisions, which neither model was trained on, and let ben approve it."""
    month = LIVE_MONTHS[1]
    comparison = life.project.compare(POLICY, challenger.ref, start=month.start, end=month.end)
    decisions = f"the same {comparison.outcomes['known']} decisions of {month.name}"
    life.approve(challenger, f"{comparison.verdict} on {decisions}: {comparison.reason}")
    return {"comparison": comparison.to_dict()}


def _look_back(life: Life, champion: ModelVersion) -> None:
    with life.chapter("look back"):
        decision = chapters.highest_scored(life.traffic)
        life.report["lineage"] = life.project.lineage(decision).to_dict()
        life.report["replay_decision"] = chapters.replay_decisions(life.project, life.traffic, decision)
    with life.chapter("replay run"):
        life.report["replay_run"] = life.project.replay_run(f"run:{champion.run}").to_dict()
    with life.chapter("audit"):
        life.report["audit"] = chapters.audit(life.project)
