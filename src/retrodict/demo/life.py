"""One whole life on real data, from ingest to audit.

Every number in the report was computed in this run.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import ConfigurationError, InternalError
from retrodict.data.ingest import IngestReport, ingest
from retrodict.demo import chapters, nycflights
from retrodict.demo.deliveries import LIVE_MONTHS, Deliveries
from retrodict.demo.live import POLICY, LiveServer, RolloutTimes, run_month
from retrodict.demo.report import write_report
from retrodict.demo.traffic import Traffic
from retrodict.features.online import build_online
from retrodict.features.plan import FeatureSet
from retrodict.learning import measure_leakage, train
from retrodict.models.definitions import Model
from retrodict.monitoring import monitor
from retrodict.monitoring.compare import compare_on_log
from retrodict.registry import ModelVersion, approve
from retrodict.rollout import deploy
from retrodict.workspace import Workspace

__all__ = ["Life", "run"]

AUTHOR, APPROVER, SERVICE = "ana", "ben", "retrainer"
MODEL = "late_arrival"

# (what is being done, steps done, steps at most)
Progress = Callable[[str, int, int], None]


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
        self.project = Workspace(folder, clock=self.clock, actor=AUTHOR)
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

    def acting(self, actor: str) -> Workspace:
        """Return the same project as somebody else acts in it."""
        return Workspace(self.folder, clock=self.clock, actor=actor)


def run(project: Path, report: Path, *, share: float = 0.26, progress: Progress | None = None) -> dict[str, Any]:
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
    dict
        What ``report.json`` holds.
    """
    began = time.perf_counter()
    life = Life(project, share=share, progress=progress or (lambda _what, _done, _most: None))
    with life.project:
        deliveries = _history(life)
        champion = _learn(life)
        _live(life, deliveries, champion)
        _look_back(life, champion)
    life.report["timings"] = {**life.timings, "total": round(time.perf_counter() - began, 2)}
    write_report(report, life.report)
    return life.report


def _make_project(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / ".retrodict-demo").exists():
            raise ConfigurationError(
                "the demo writes into a new folder or over an earlier demo",
                where=str(folder),
                remedy="Name another folder with --project",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".retrodict-demo").touch()
    template = resources.files("retrodict.demo") / "flights"
    for name in ("retrodict.toml", "definitions.py"):
        (folder / name).write_text((template / name).read_text(encoding="utf-8"), encoding="utf-8")


def _history(life: Life) -> Deliveries:
    """Ingest what was there on the first of September."""
    with life.chapter("ingest"):
        files = nycflights.read_files()
        tables = nycflights.prepare(files)
        deliveries = Deliveries(tables)
        for table in ("flights", "weather", "planes"):
            life.ingested.append(ingest(life.project, table, deliveries.rows(table, None, life.clock.now())))
        life.report["ingest"] = {"flaws": nycflights.flaws(files), "labels": nycflights.label_counts(tables["flights"])}
    return deliveries


def _learn(life: Life) -> ModelVersion:
    """Prove the features, show the leak, train, judge, approve, deploy, and fill the online state."""
    project, model = life.project, life.project.definitions.get(Model, MODEL)
    with life.chapter("features"):
        life.report["features"] = chapters.prove_features(project, model)
    with life.chapter("training"):
        run_, version = train(project, MODEL, progress=life.progress)
    with life.chapter("leakage"):
        life.report["leakage"] = measure_leakage(project, model, run_, progress=life.progress).to_dict()
    with life.chapter("deploy"):
        approve(life.acting(APPROVER), version.ref, reason="beats the ladder on August; pilot from September on")
        deploy(project, POLICY, model=version.ref, reason="pilot")
        built = build_online(
            project, [FeatureSet(model.features) for model in project.definitions.of(Model)], progress=life.progress
        )
        life.report["features"]["materialised"] = {name: applied.stored for name, applied in built.items()}
    life.report["training"] = chapters.describe_training(project, run_, version)
    return version


def _live(life: Life, deliveries: Deliveries, champion: ModelVersion) -> None:
    """Three months of traffic; watched, retrained after the first, promoted and rolled back in the third."""
    reports = []
    times: RolloutTimes | None = None
    challenger: ModelVersion | None = None
    with LiveServer(life.folder, life.folder / "server.log") as server:
        for number, month in enumerate(LIVE_MONTHS):
            rollout = (life.acting(SERVICE), challenger.ref) if challenger is not None and number == 2 else None
            with life.chapter(f"live {month.name}"):
                done = run_month(
                    server.url,
                    deliveries,
                    month,
                    life.traffic,
                    clock=life.clock,
                    share=life.share,
                    progress=life.progress,
                    rollout=rollout,
                )
                times = asyncio.run(done) or times
                life.clock.move_to(month.end)
                for table in ("flights", "weather"):
                    life.ingested.append(ingest(life.project, table, deliveries.rows(table, month.start, month.end)))
            with life.chapter(f"watch {month.name}"):
                # A day more, so that the flights of the last evening have landed and matured.
                reports.append(monitor(life.project, "warn_early", now=month.end + DAY))
            if challenger is None and reports[-1].fired:
                with life.chapter("retrain"):
                    challenger = _retrain(life)
            elif challenger is not None and "rollout" not in life.report:
                with life.chapter("compare"):
                    life.report["rollout"] = _compare(life, challenger)
        status = chapters.server_status(server.url)
        for table in ("flights", "weather"):
            life.ingested.append(ingest(life.project, table, deliveries.rows(table, LIVE_MONTHS[-1].end, None)))
    if times is None:
        raise InternalError("a trigger fires in time for a promotion", where="demo", got=[r.to_dict() for r in reports])
    with life.chapter("parity"):
        life.report["parity"] = chapters.check_parity_of_all(life.project)
    life.report["serving"] = chapters.describe_serving(life.project, life.traffic, status)
    life.report["outcomes"], life.report["drift"] = chapters.describe_watching(reports, champion)
    life.report["rollout"] |= chapters.describe_rollout(times)
    life.report["ingest"] |= chapters.describe_ingest(life.ingested, deliveries)


def _retrain(life: Life) -> ModelVersion:
    """Train a challenger by the same recipe on one month more, as somebody who is not the approver."""
    model = life.project.definitions.get(Model, MODEL)
    split = model.recipe.split.moved_to_end(life.clock.now())
    _, version = train(life.acting(SERVICE), MODEL, split=split, progress=life.progress)
    return version


def _compare(life: Life, challenger: ModelVersion) -> dict[str, Any]:
    """Judge the challenger on October's decisions, which neither model was trained on, and let ben approve it."""
    month = LIVE_MONTHS[1]
    compared = compare_on_log(
        life.project, POLICY, challenger.ref, start=month.start, end=month.end, now=life.clock.now()
    )
    reason = f"{compared.verdict} on the same {compared.labelled} decisions of {month.name}: {compared.reason}"
    approve(life.acting(APPROVER), challenger.ref, reason=reason)
    return {"comparison": compared.to_dict()}


def _look_back(life: Life, champion: ModelVersion) -> None:
    with life.chapter("look back"):
        chosen = chapters.choose_decision(life.traffic)
        life.report["lineage"] = chapters.trace(life.project, chosen)
        life.report["replay_decision"] = chapters.replay_decisions(life.project, life.traffic, chosen)
    with life.chapter("replay run"):
        life.report["replay_run"] = chapters.replay_training(life.project, champion, progress=life.progress)
    with life.chapter("audit"):
        life.report["audit"] = chapters.audit(life.project)
