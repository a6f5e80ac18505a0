"""A trained, approved and deployed project, copied for each test that changes it."""

import shutil
from pathlib import Path

import pytest
from tests.serving.project import make_project

from retrodict import Project


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Folder of a project that decides about parcels; nobody changes it."""
    folder = tmp_path_factory.mktemp("original") / "parcels"
    folder.mkdir()
    make_project(folder).close()
    return folder


@pytest.fixture
def p(original: Path, tmp_path: Path):
    """A copy of it, opened."""
    with Project(shutil.copytree(original, tmp_path / "parcels"), actor="ana") as project:
        yield project
