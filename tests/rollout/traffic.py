"""Parcels with challengers: a champion in force, other versions, and requests whose outcomes are known."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.serving import project as parcels

from retrodict import Project
from retrodict.features.online import build_online
from retrodict.features.plan import FeatureSet
from retrodict.learning import train
from retrodict.models.definitions import Model
from retrodict.registry import approve
from retrodict.workspace import Workspace

MORE = """
express_delays = FeatureView("express_delays", Entity("depot"), arrived, [agg.count(over="3d")])
wide = Model("wide", label=late, decide_at="sent", features=[depot_delays, express_delays, size, moment],
    recipe=Recipe("logistic", split=TimeSplit(train="2024-01-01/2024-02-01", validate="10d", test="10d")))


@derived
def serial(id: str):
    return {"serial": (id == "p00001") * 1.0}


strange = Model("strange", label=late, decide_at="sent", features=[size, serial],
    recipe=Recipe("logistic", split=TimeSplit(train="2024-01-01/2024-02-01", validate="10d", test="10d")))
strict = Policy("strict", late_parcel, decide={"warn": "score >= 0.3", "ok": "otherwise"},
    rules=[Rule("express", when="express = true", then="warn", reason="Express")])
"""


def make_world(root: Path) -> None:
    """Champion ``late_parcel@1`` in force by ``promise``; ``late_parcel@2``, ``wide@1`` and ``strange@1`` beside it."""
    shutil.copytree(parcels.built(_make_world, parcels.DEFINITIONS), root, dirs_exist_ok=True)


def _make_world(root: Path) -> None:
    parcels.make_project(root, '[features]\nhorizon = "10000d"\n').close()
    text = parcels.DEFINITIONS.replace('calibrate="sigmoid"', 'calibrate="isotonic"') + MORE
    (root / "definitions.py").write_text(text)
    with Workspace(root, actor="ana") as project, Workspace(root, actor="ben") as other:
        for model in ("late_parcel", "wide", "strange"):
            _, version = train(project, model)
            approve(other, version.ref, reason="test")
        build_online(project, [FeatureSet(project.definitions.get(Model, "wide").features)])


def ask_past(root: Path, count: int, *, every: int = 3) -> list[dict[str, object]]:
    """Decide past parcels as of the moment each was sent, and return their rows."""
    rows = parcels.parcels().slice(40 * 30).to_pylist()[::every][:count]
    with Project(root, actor="ana") as project:
        for row in rows:
            project.decide("promise", key=row["id"], at=row["sent"], sent=row["sent"].isoformat(),
                           **{name: row[name] for name in ("depot", "weight", "express")})  # fmt: skip
    return rows
