"""Online state: reads of one and of a hundred entities, a hot key, and a stream into durable state.

Everything is in one process on LMDB. CPU time is what counts: a stream is measured on one core, disk included as wall
time beside it. The last line, one JSON object, has the numbers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict import Entity, FeatureView, Source, Table, agg, latest
from retrodict.features import FeatureSet
from retrodict.features.facts.keys import encode_key
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, encode_event
from retrodict.features.online.state.entries import StateKeys
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.segments import SegmentStreams

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_377_986_400_000_000
TIME = pa.timestamp("us", "UTC")
EVENTS = Table("events", key="id", columns={"id": "int", "t": "time", "x": "float", "y": "float", "kind": "string"})


def source(name: str) -> Source:
    return Source(name, EVENTS, event_time="t", sequence="id")


def view(name: str, windows: list[str], per_window: int, newest: int) -> FeatureView:
    """Ten or twenty-five features: aggregates of two columns over windows, and latest values."""
    some = [
        agg.count(over=windows),
        agg.mean("x", over=windows),
        agg.sum("y", over=windows),
        agg.max("x", over=windows),
        agg.sum("x", over=windows),
        agg.share("x > 12", over=windows),
        agg.mean("y", over=windows),
    ][:per_window]
    return FeatureView(name, Entity("key"), source(name), [*some, latest(*["x", "kind", "y", "t"][:newest])])


def events(count: int, keys: int, span: int, seed: int = 0, start: int = START) -> pa.Table:
    """Events in the order they happen; a few keys are busy and most are not."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(start, start + span, count))
    return pa.table(
        {
            "id": np.arange(count),
            "key": (keys * rng.random(count) ** 2).astype(np.int64),
            "t": pa.array(times, TIME),
            "x": np.round(rng.gamma(2.0, 5.0, count), 2),
            "y": rng.gamma(2.0, 5.0, count),
            "kind": np.array(["card", "cash", "wire"])[rng.integers(0, 3, count)],
        }
    )


def quantiles(seconds: list[float]) -> dict[str, float]:
    found = np.quantile(np.array(seconds) * 1e6, [0.5, 0.9, 0.99])
    return {name: round(float(value), 1) for name, value in zip(("p50_us", "p90_us", "p99_us"), found, strict=True)}


def timed_reads(online: OnlineFeatures, keys: np.ndarray, at: int) -> dict[str, float]:
    for key in keys[:200].tolist():
        online.read({"key": key}, {}, at)
    gc.collect()
    gc.disable()
    spent = []
    for key in keys.tolist():
        request = {"key": key}
        before = time.thread_time_ns()
        online.read(request, {}, at)
        spent.append((time.thread_time_ns() - before) / 1e9)
    gc.enable()
    return quantiles(spent)


def floor_of(store: LmdbKeys, features: FeatureSet, keys: np.ndarray) -> dict[str, Any]:
    """What the store alone takes to hand out the same entries, for one entity and for a hundred."""
    names = [StateKeys(plan) for plan in features.views]
    entries = [
        [entry for n in names for entry in (n.meta, n.blocks + encode_key([key], where=""))] for key in keys.tolist()
    ]
    found = {}
    for several, some in ((1, entries), (100, [list(chain(*entries[i : i + 100])) for i in range(0, 10_000, 100)])):
        spent = []
        for wanted in some:
            before = time.thread_time_ns()
            store.get_many(wanted)
            spent.append((time.thread_time_ns() - before) / 1e9)
        found[str(several)] = quantiles(spent)
    return found


def bench_reads(root: Path, count: int, keys: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    table = events(count, keys, 90 * DAY)
    at = START + 90 * DAY
    sets = {
        "1 view x 10": [view("a0", ["24h", "30d"], 4, 2)],
        "5 views x 10": [view(f"a{i}", ["24h", "30d"], 4, 2) for i in range(5)],
        "2 views x 25": [view(f"b{i}", ["1h", "24h", "30d"], 7, 4) for i in range(2)],
        "1 view x 50": [view("c0", ["1h", "6h", "24h", "3d", "7d", "14d", "30d"], 7, 1)],
    }
    for name, views in sets.items():
        features = FeatureSet(views)
        store = LmdbKeys(root / name.replace(" ", "_"))
        state = OnlineState(features, store, durable=False)
        before = time.process_time()
        for each in features.sources:
            state.apply(table, each)
        filled = (time.process_time() - before) / len(views)
        online = OnlineFeatures(features, store)
        asked = np.random.default_rng(1).choice(np.unique(table.column("key").to_numpy()), 20_000)
        found[name] = timed_reads(online, asked, at) | {"features": len(features.columns)}
        found[name]["backfill_events_per_s"] = round(count / filled)
        if hasattr(online, "read_many"):
            spent = []
            for first in range(0, 10_000, 100):
                requests = [{"key": key} for key in asked[first : first + 100].tolist()]
                before_ns = time.thread_time_ns()
                online.read_many(requests, at)
                spent.append((time.thread_time_ns() - before_ns) / 1e9)
            found[name]["read_many_100"] = quantiles(spent)
        found[name]["floor"] = floor_of(store, features, asked)
        size = state.meta(features.views[0])
        found[name]["bytes_per_key"] = round(size.total_size / max(size.entities, 1))
        store.close()
        print(name, found[name])
    return found


def bench_hot(root: Path, count: int) -> dict[str, Any]:
    """One key with all events inside a 30-day window; then the same stream goes on in small batches."""
    table = events(count, 1, 30 * DAY)
    features = FeatureSet([view("hot", ["1h", "24h", "30d"], 4, 2)])
    store = LmdbKeys(root / "hot")
    state = OnlineState(features, store, durable=False)
    before = time.process_time()
    state.apply(table, "hot")
    found: dict[str, Any] = {"backfill_events_per_s": round(count / (time.process_time() - before))}
    at = START + 30 * DAY
    online = OnlineFeatures(features, store)
    found |= timed_reads(online, np.zeros(3_000, dtype=np.int64), at)
    row = online.read({"key": 0}, {}, at)
    assert row.values["hot__count_30d"] == count, row.values
    written = _Counting(store)
    more = events(20_000, 1, DAY // 100, seed=2, start=at)
    more = more.set_column(0, "id", pa.array(np.arange(count, count + 20_000)))
    fed = OnlineState(features, written, durable=False)
    for first in range(0, 20_000, 200):
        if first == 2_000:  # by then the layout holds the new values' digits, too
            written.bytes = 0
        fed.apply(more.slice(first, 200), "hot")
    size = state.meta(features.views[0])
    found |= {"events": count, "state_bytes": size.total_size, "bytes_written_per_event": round(written.bytes / 18_000)}
    found["bytes_per_event_held"] = round(size.total_size / count)
    store.close()
    print("hot", found)
    return found


class _Counting:
    """A key store that counts what is written to it."""

    def __init__(self, keys: LmdbKeys) -> None:
        self._keys, self.bytes = keys, 0
        self.get_many, self.put_many, self.scan = keys.get_many, keys.put_many, keys.scan

    def update(self, keys: Any, change: Any, *, durable: bool = True) -> None:
        def counted(values: Any) -> Any:
            found = change(values)
            self.bytes += sum(len(name) + len(value or b"") for name, value in found.items())
            return found

        self._keys.update(keys, counted, durable=durable)


STREAMED = Source("s", EVENTS, event_time="t", sequence="id")
WINDOWS = ["1h", "24h", "7d"]
STREAM = FeatureSet(
    [
        FeatureView(
            "v",
            Entity("key"),
            STREAMED,
            [agg.count(over=WINDOWS), agg.sum("x", over=WINDOWS), agg.mean("x", over=WINDOWS)],
        )
    ]
)


def bench_stream(root: Path, count: int, keys: int) -> dict[str, Any]:
    """From the embedded log into durable state: count, sum and mean over three windows, keys drawn evenly."""
    rng = np.random.default_rng(3)
    span = int(count / 10_000_000 * 90 * DAY)
    times, chosen = np.sort(rng.integers(START, START + span, count)).tolist(), rng.integers(0, keys, count).tolist()
    values = np.round(rng.gamma(2.0, 5.0, count), 2).tolist()
    streams, store = SegmentStreams(root / "streams"), LmdbKeys(root / "state")
    with streams.open_writer("events/s") as writer:
        for first in range(0, count, 100_000):
            part = range(first, min(first + 100_000, count))
            writer.append([encode_event({"id": i, "key": chosen[i], "t": times[i], "x": values[i]}) for i in part])
    begun = time.process_time()
    read = sum(1 for _ in streams.read("events/s"))
    found: dict[str, Any] = {"log_read_events_per_s": round(read / (time.process_time() - begun))}
    warm = LmdbKeys(root / "warm")
    StreamFeeder(OnlineState(STREAM, warm), streams, "events/s", "s", batch=2_000).catch_up(
        stop=iter([False, True]).__next__
    )
    written = _Counting(store)
    feeder = StreamFeeder(OnlineState(STREAM, written), streams, "events/s", "s")
    wall, begun = time.perf_counter(), time.process_time()
    feeder.catch_up()
    found["events_per_cpu_s"] = round(count / (time.process_time() - begun))
    found["events_per_wall_s"] = round(count / (time.perf_counter() - wall))
    found["bytes_written_per_event"] = round(written.bytes / count)
    online, spent = OnlineFeatures(STREAM, store), []
    at = START + span
    for i in range(200):  # event to visible: appended, fed, read
        before = time.perf_counter()
        with streams.open_writer("events/s") as writer:
            writer.append([encode_event({"id": count + i, "key": i, "t": at + i, "x": 1.0})])
        feeder.catch_up()
        online.read({"key": i}, {}, at + i + 1)
        spent.append(time.perf_counter() - before)
    found["event_to_visible"] = quantiles(spent)
    size = OnlineState(STREAM, store).meta(STREAM.views[0])
    found |= {"events": count, "bytes_per_key": round(size.total_size / max(size.entities, 1)), "offset": size.offset}
    store.close()
    warm.close()
    found["recovery_s"] = bench_recovery(root, count)
    print("stream", found)
    return found


def bench_recovery(root: Path, count: int) -> float:
    """Seconds from the start of a feeder, after one was killed in the middle, until it is up to date again."""
    command = [sys.executable, __file__, "--feed", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    spent = time.perf_counter() - before
    store = LmdbKeys(root / "again")
    assert (OnlineState(STREAM, store).meta(STREAM.views[0]).offset or 0) >= count
    store.close()
    return round(spent, 2)


def feed(root: Path) -> None:
    store, streams = LmdbKeys(root / "again"), SegmentStreams(root / "streams")
    print("ready", flush=True)
    StreamFeeder(OnlineState(STREAM, store), streams, "events/s", "s").catch_up()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--streamed", type=int, default=1_000_000)
    parser.add_argument("--hot", type=int, default=1_000_000)
    parser.add_argument("--feed", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed is not None:
        feed(options.feed)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = {
            "hot": bench_hot(root, options.hot),
            "stream": bench_stream(root, options.streamed, options.keys),
            "reads": bench_reads(root, options.events, options.keys),
        }
    print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), **found}))


if __name__ == "__main__":
    main()
