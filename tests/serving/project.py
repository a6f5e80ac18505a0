"""A small real project: parcels that arrive late or not, trained, approved and deployed in a second."""

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa

from retrodict.core.clock import from_micros, parse_time
from retrodict.core.durations import HOUR
from retrodict.data.ingest import ingest
from retrodict.features.online import build_online
from retrodict.features.plan import FeatureSet
from retrodict.features.verify import verify
from retrodict.features.verify.verdicts import record_verification
from retrodict.learning import train
from retrodict.models.definitions import Model
from retrodict.registry import approve
from retrodict.rollout import deploy
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import *

parcels = Table("parcels", key="id")
arrived = Source("arrived", parcels, event_time="sent", known_at="arrived", sequence="id")
depot_delays = FeatureView("depot_delays", Entity("depot"), arrived, [
    agg.mean("delay", over=["24h", "7d"]), agg.count(over="24h"), latest("delay", max_age="48h")])


@derived
def size(weight: float, express: bool):
    return {"weight": weight, "express": express}


@derived
def moment(sent):
    return {"hour": sent.hour}


late = Label("late", parcels, "delay > 3", known_at="arrived", matures="10d")
late_parcel = Model("late_parcel", label=late, decide_at="sent", features=[depot_delays, size, moment],
    recipe=Recipe("logistic", calibrate="sigmoid",
        split=TimeSplit(train="2024-01-01/2024-02-01", validate="10d", test="10d")),
    gates=["auc >= 0.5"])
promise = Policy("promise", late_parcel, decide={"warn": "score >= 0.5", "ok": "otherwise"},
    rules=[Rule("heavy", when="weight > 90", then="warn", reason="Over 90 kg")],
    fallback=["rules", "ok"], deadline="5s")
watch = Monitor(promise)
"""

START = parse_time("2024-01-01T00:00Z")
DAYS = 48  # the last parcel arrives before the requests of the tests are made, on the 20th of February


def parcels(days=DAYS, seed=1):
    """Rows of the table: delays depend on the depot, the weight and chance."""
    rng = random.Random(seed)
    rows = []
    for number in range(days * 40):
        sent = START + number * (24 * HOUR // 40)
        depot = rng.choice(["north", "south", "east"])
        weight = rng.uniform(1, 80)
        delay = rng.gauss({"north": 1, "south": 3, "east": 5}[depot] + weight / 40, 2)
        rows.append(
            {"id": f"p{number:05d}", "depot": depot, "weight": weight, "express": rng.random() < 0.2,
             "sent": from_micros(sent), "arrived": from_micros(sent + int((30 + delay) * HOUR)), "delay": delay}
        )  # fmt: skip
    return pa.Table.from_pylist(rows)


@cache
def built(make: Callable[[Path], None], definitions: str) -> Path:
    """Folder of a project that is made once for all tests of this process; whoever changes it, changes a copy."""
    assert definitions == DEFINITIONS  # which a test may replace
    folder = Path(tempfile.mkdtemp(prefix="retrodict-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make(folder)
    return folder


def make_project(folder: Path, settings: str = "") -> Workspace:
    """Project with one deployed policy, and more settings; without any it is a copy of one."""
    if not settings:
        shutil.copytree(built(_make, DEFINITIONS), folder, dirs_exist_ok=True)
    else:
        _make(folder, settings)
    return Workspace(folder, actor="ana")


def _make(folder: Path, settings: str = "") -> None:
    (folder / "retrodict.toml").write_text(f'[project]\nname = "parcels"\n{settings}')
    (folder / "definitions.py").write_text(DEFINITIONS)
    with Workspace(folder, actor="ana") as project, Workspace(folder, actor="ben") as other:
        ingest(project, "parcels", parcels())
        _, version = train(project, "late_parcel")
        approve(other, version.ref, reason="test")
        build_online(project, [FeatureSet(project.definitions.get(Model, "late_parcel").features)])
        prove(project)
        deploy(project, "promise", reason="test")


def prove(project: Workspace) -> None:
    """Let the views pass verification, as ``retrodict features verify`` does: without, nothing is deployed."""
    features = FeatureSet(project.definitions.get(Model, "late_parcel").features)
    rows = project.tables.read("parcels")
    report = verify(features, {"arrived": rows}, rows, "sent", samples=5)
    record_verification(project, features, report, {"parcels": 0})


REQUEST = {
    "key": "p1",
    "entities": {"depot": "north"},
    "context": {"weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"},
}
AT = {"Retrodict-Time": "2024-02-20T10:00:00Z"}
