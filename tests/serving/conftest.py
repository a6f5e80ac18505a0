"""A small real model definition for the tests of serving."""

import pytest
from tests.serving.project import make_project
from tests.stores.conftest import bucket, s3_server  # noqa: F401  (fixtures)

from retrodict import Entity, FeatureView, Label, Model, Recipe, Source, Table, TimeSplit, agg
from retrodict.workspace import Workspace

_FLIGHTS = Table("flights", key="id")
_SOURCE = Source("landed", _FLIGHTS, event_time="arr_time", sequence="id")
MODEL = Model(
    "late_arrival",
    label=Label("late", _FLIGHTS, "arr_delay > 15", known_at="arr_time"),
    decide_at="sched_dep - 1h",
    features=[FeatureView("origin_delays", Entity("origin"), _SOURCE, [agg.count(over="2h")])],
    recipe=Recipe("logistic", split=TimeSplit(train="2013-01-01/2013-02-01", validate="7d", test="7d")),
)


@pytest.fixture(scope="session")
def deployed(tmp_path_factory):
    """Folder of a project that decides about parcels."""
    folder = tmp_path_factory.mktemp("deployed")
    make_project(folder).close()
    return folder


@pytest.fixture
def project(deployed):
    """The opened project."""
    with Workspace(deployed, actor="ana") as opened:
        yield opened
