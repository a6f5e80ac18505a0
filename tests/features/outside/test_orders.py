"""What must not matter: the order of rows, the seed of Python's hash, which other keys there are.

Origin: composite keys that collided and results that moved with the order of input are frequent reports about feature
stores; the cases here are our own.
"""

import json
import os
import random
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from retrodict.features.definitions import Window, agg, latest

T0 = datetime(2024, 2, 28, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _world(rows=200, seed=3):
    draw = random.Random(seed)
    events = []
    for i in range(rows):
        happened = T0 + draw.randrange(600) * MINUTE
        events.append(
            {
                "name": draw.choice(["ann", "ann|", "bob", "b", ""]),
                "number": draw.choice([1, 12, 23, 3, 123]),
                "id": i,
                "e": happened,
                "k": happened + draw.choice([0, 0, 3, 40]) * MINUTE,
                "x": draw.choice([0.1, 0.2, 0.3, 1e15, -1e15, None]),
                "tag": draw.choice(["p", "q", None]),
            }
        )
    spine = [
        {"name": e["name"], "number": e["number"], "at": e["e"] + 60 * MINUTE, "row": i}
        for i, e in enumerate(events[:60])
    ]
    return events, spine


FEATURES = [
    agg.count(over=["1h", Window("3h", hop="1h")]),
    agg.sum("x", over="2h"),
    agg.mean("x", over="2h"),
    agg.std("x", over="2h"),
    agg.max("x", over="2h"),
    agg.last("tag", over="2h"),
    agg.last_k("id", 3, over="2h"),
    agg.histogram("tag", over="2h"),
    latest("x", "tag", max_age="1h"),
]


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_events_does_not_matter(answer, view, seed):
    """Events carry their ids: any order of the table gives the same bits, sums of 1e15 and 0.1 included."""
    events, spine = _world()
    made = view(["name", "number"], FEATURES, event_time="e", known_at="k", sequence="id")
    requests = pa.Table.from_pylist(spine)
    before = answer(made, {"s": pa.Table.from_pylist(events)}, requests)
    random.Random(seed).shuffle(events)
    assert answer(made, {"s": pa.Table.from_pylist(events)}, requests) == before


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_the_spine_moves_with_its_rows(answer, view, seed):
    """A row of the spine has its values wherever it stands, and none of its neighbours'."""
    events, spine = _world()
    made = view(["name", "number"], FEATURES, event_time="e", known_at="k", sequence="id")
    table = pa.Table.from_pylist(events)
    before = answer(made, {"s": table}, pa.Table.from_pylist(spine))
    random.Random(seed).shuffle(spine)
    after = answer(made, {"s": table}, pa.Table.from_pylist(spine))
    assert after == {name: [column[row["row"]] for row in spine] for name, column in before.items()}


def test_other_keys_do_not_matter(answer, view):
    """A key alone in its table has the values it has among all others."""
    events, spine = _world()
    made = view(["name", "number"], FEATURES, event_time="e", known_at="k", sequence="id")
    everything = answer(made, {"s": pa.Table.from_pylist(events)}, pa.Table.from_pylist(spine))
    for name, number in {(row["name"], row["number"]) for row in spine[:5]}:
        own = [event for event in events if (event["name"], event["number"]) == (name, number)]
        rows = [i for i, row in enumerate(spine) if (row["name"], row["number"]) == (name, number)]
        alone = answer(made, {"s": pa.Table.from_pylist(own)}, pa.Table.from_pylist([spine[i] for i in rows]))
        assert alone == {feature: [column[i] for i in rows] for feature, column in everything.items()}


_SCRIPT = textwrap.dedent("""
    import hashlib, json, sys, tempfile
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from types import SimpleNamespace
    import pyarrow as pa
    from retrodict.data.sources import Source
    from retrodict.features.definitions import Entity, FeatureView, agg, latest
    from retrodict.features.offline import training_frame
    from retrodict.features.online import OnlineFeatures
    from retrodict.features.plan import FeatureSet
    from retrodict.features.online import OnlineState
    from retrodict.stores.keys.lmdb import LmdbKeys

    zero = datetime(2024, 1, 1, tzinfo=UTC)
    keys = [("a", 1, 23), ("a", 12, 3), ("ab", 1, 3), ("", 0, 0), ("é", -1, 7), ("b", 1, 23)]
    rows = [dict(zip("kij", key)) | dict(id=n, e=zero + timedelta(minutes=n), x=n / 8, tag="pqr"[n % 3])
            for n, key in enumerate(keys * 5)]
    table = pa.Table.from_pylist(rows)
    spine = pa.Table.from_pylist([dict(zip("kij", key)) | dict(at=zero + timedelta(minutes=40)) for key in keys])
    facts = Source("s", SimpleNamespace(name="s"), event_time="e", sequence="id")
    view = FeatureView("v", Entity("thing", keys=["k", "i", "j"]), facts,
                       [agg.count(over="1h"), agg.sum("x", over="30m"), agg.max("x", over="1h"), latest("tag", "x")])
    features = FeatureSet([view])
    frame = training_frame(spine, "at", features, {"s": table}).select(features.columns).to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbKeys(Path(folder))
        OnlineState(features, store).apply(table, "s")
        at = 1704067200000000 + 40 * 60_000_000
        online = [OnlineFeatures(features, store).read(dict(zip("kij", key)), {}, at).values for key in keys]
        kept = hashlib.sha256(repr(sorted(store.scan(b""))).encode()).hexdigest()
        store.close()
    print(json.dumps([features.version, features.views[0].state_id, kept, frame, online]))
""")


def test_the_seed_of_the_hash_does_not_matter():
    """Versions, stored bytes and values of composite keys are the same in processes of different PYTHONHASHSEED."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "424242")
    ]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert said[0] == said[1] == said[2]
    _, _, _, frame, online = json.loads(said[0])
    assert frame == online
    assert [row["v__count_1h"] for row in frame] == [5] * 6
