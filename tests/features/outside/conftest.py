"""Every outside case is asked of each engine: the naive oracle, the training frame, online state, a stream."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView
from retrodict.features.offline import training_frame
from retrodict.features.online import OnlineFeatures, OnlineState
from retrodict.features.plan import FeatureSet
from retrodict.features.verify.oracle import Oracle, plain
from retrodict.features.verify.rehearsal import rehearsed
from retrodict.stores.keys.lmdb import LmdbKeys

Answer = dict[str, list[Any]]


def _micros(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            whole = table.column(place).cast(pa.timestamp("us", field.type.tz), safe=False)
            table = table.set_column(place, field.name, whole.cast(pa.int64()))
    return table


def _by_oracle(features: FeatureSet, tables: Mapping[str, pa.Table], spine: pa.Table, at: str) -> Answer:
    found: Answer = {name: [] for name in features.columns}
    for plan in features.views:
        oracle = Oracle(plan.view, _micros(tables[plan.source.name]).to_pylist())
        for row in _micros(spine).to_pylist():
            for name, value in oracle.values(row, row[at]).items():
                found[f"{plan.name}__{name}"].append(value)
    return found


def _read(online: OnlineFeatures, spine: pa.Table, at: str) -> Answer:
    rows = [online.read(row, {}, row[at]).values for row in _micros(spine).to_pylist()]
    return {name: [plain(row[name]) for row in rows] for name in online.features.columns}


@pytest.fixture(params=["oracle", "offline", "online", "stream"])
def answer(request: pytest.FixtureRequest, tmp_path) -> Callable[..., Answer]:
    """Ask one engine: ``answer(views, tables, spine)`` gives the values of every feature, row by row of the spine."""

    def ask(views: Any, tables: Mapping[str, pa.Table], spine: pa.Table, at: str = "at") -> Answer:
        features = FeatureSet(views if isinstance(views, Sequence) else [views])
        if request.param == "oracle":
            return _by_oracle(features, tables, spine, at)
        if request.param == "offline":
            frame = training_frame(spine, at, features, tables)
            assert frame.select(spine.column_names) == spine
            return {name: [plain(v) for v in _micros(frame).column(name).to_pylist()] for name in features.columns}
        moments = [row[at] for row in _micros(spine).to_pylist()]
        if request.param == "stream":
            rows = {name: _micros(tables[name]) for name in features.sources}
            with rehearsed(features, rows, min(moments, default=0), np.random.default_rng(7)) as online:
                return _read(online, spine, at)
        keys = LmdbKeys(tmp_path / f"keys{len(list(tmp_path.iterdir()))}")
        try:
            state = OnlineState(features, keys, horizon="36500d", durable=False)
            for name in features.sources:
                state.apply(tables[name], name, now=min(moments, default=0))
            return _read(OnlineFeatures(features, keys), spine, at)
        finally:
            keys.close()

    ask.engine = request.param
    return ask


@pytest.fixture
def view() -> Callable[..., FeatureView]:
    """One view ``v`` of a source ``s``: ``view(keys, features, event_time="at", ...)``."""

    def make(keys: Sequence[str] | str, features: Any, *, name: str = "v", source: str = "s", **clocks: Any):
        facts = Source(source, SimpleNamespace(name=source), **clocks)
        return FeatureView(name, Entity("thing", keys=[keys] if isinstance(keys, str) else keys), facts, features)

    return make
