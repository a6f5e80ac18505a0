"""One deployed policy for the tests that decide in this process."""

import pytest
from tests.serving.project import make_project

from retrodict.workspace import Workspace


@pytest.fixture(scope="session")
def deployed(tmp_path_factory):
    """Folder of a project that decides about parcels."""
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    return folder


@pytest.fixture
def project(deployed):
    """The opened project."""
    with Workspace(deployed, actor="ana") as opened:
        yield opened
