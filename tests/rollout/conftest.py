"""A project with a trained, approved version that nobody has deployed yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.serving import project as parcels

from retrodict.data.ingest import ingest
from retrodict.features.online import build_online
from retrodict.features.plan import FeatureSet
from retrodict.learning import train
from retrodict.models.definitions import Model
from retrodict.registry import approve
from retrodict.rollout import deploy
from retrodict.workspace import Workspace


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and approved version that was never verified."""
    root = tmp_path_factory.mktemp("parcels") / "original"
    root.mkdir()
    (root / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (root / "definitions.py").write_text(parcels.DEFINITIONS)
    with Workspace(root, actor="ana") as project:
        ingest(project, "parcels", parcels.parcels())
    learn(root)
    return root


def learn(root: Path) -> str:
    """Train, approve and build one more version, by the definitions as they are now."""
    with Workspace(root, actor="ana") as project, Workspace(root, actor="ben") as other:
        _, version = train(project, "late_parcel")
        approve(other, version.ref, reason="test")
        build_online(project, [features(project)])
        return version.ref


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "parcels"))


@pytest.fixture
def project(root: Path):
    with Workspace(root, actor="ana") as opened:
        yield opened


def features(project: Workspace) -> FeatureSet:
    return FeatureSet(project.definitions.get(Model, "late_parcel").features)


@pytest.fixture(scope="session")
def original_pair(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a second version by another recipe, verified views, and the first version deployed."""
    root = Path(shutil.copytree(original, tmp_path_factory.mktemp("pair") / "parcels"))
    with Workspace(root, actor="ana") as project:
        parcels.prove(project)
        deploy(project, "promise", model="late_parcel@1", reason="first")
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('calibrate="sigmoid"', 'calibrate="isotonic"'))
    assert learn(root) == "late_parcel@2"
    return root


@pytest.fixture
def pair(original_pair: Path, tmp_path: Path):
    """Champion late_parcel@1 in force, challenger late_parcel@2 approved."""
    with Workspace(shutil.copytree(original_pair, tmp_path / "pair"), actor="ana") as opened:
        yield opened
