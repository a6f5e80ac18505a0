"""One stream into one state by one process and by two, each with a partition of its own.

Both processes read the whole stream and pass over what is not theirs, so two are less than twice as fast. Wall time
needs as many free cores as processes; the CPU time of the busier process does not, and is the floor of the wall time.
The last line, one JSON object, has the numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retrodict import Entity, FeatureView, Source, Table, agg, latest
from retrodict.core.clock import SimulatedClock
from retrodict.features import FeatureSet
from retrodict.features.online import OnlineState, StreamFeeder, encode_event
from retrodict.stores.keys.base import KeyStore
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.keys.redis import RedisKeys
from retrodict.stores.streams.segments import SegmentStreams

START = 1_377_986_400_000_000
EVENTS = Table("events", key="id", columns={"id": "int", "t": "time", "x": "float", "y": "float", "kind": "string"})
WINDOWS = ["1h", "24h", "30d"]
VIEW = FeatureView(
    "v",
    Entity("key"),
    Source("s", EVENTS, event_time="t", sequence="id"),
    [agg.count(over=WINDOWS), agg.mean("x", over=WINDOWS), agg.max("x", over=WINDOWS), latest("x", "kind")],
)


def write_stream(folder: Path, count: int, keys: int) -> None:
    rng = np.random.default_rng(0)
    columns = zip(
        (keys * rng.random(count) ** 2).astype(int).tolist(),
        np.sort(rng.integers(START, START + 30 * 86_400_000_000, count)).tolist(),
        np.round(rng.gamma(2.0, 5.0, count), 2).tolist(),
        strict=True,
    )
    rows = (
        encode_event({"id": i, "key": key, "t": t, "x": x, "y": x / 2, "kind": "card"})
        for i, (key, t, x) in enumerate(columns)
    )
    with SegmentStreams(folder).open_writer("events/s") as writer:
        writer.append(list(rows))


def feed(address: str, streams: str, partitions: int, own: int) -> None:
    """What a process does: wait for the word, feed, tell what it took."""
    keys: KeyStore = RedisKeys(address) if address.startswith("redis") else LmdbKeys(Path(address))
    state = OnlineState(FeatureSet([VIEW]), keys, durable=False, partitions=partitions, assigned=[own])
    clock = SimulatedClock(START + 10**13)
    feeder = StreamFeeder(state, SegmentStreams(Path(streams)), "events/s", "s", clock=clock, batch=20_000)
    with tempfile.TemporaryDirectory() as folder:  # what is loaded on first use is loaded before the clock runs
        warm = LmdbKeys(Path(folder))
        first = OnlineState(FeatureSet([VIEW]), warm, partitions=partitions)
        once = iter([False, True])
        StreamFeeder(first, SegmentStreams(Path(streams)), "events/s", "s", batch=2_000).catch_up(stop=once.__next__)
        warm.close()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, wall = time.process_time(), time.perf_counter()
    offset = feeder.catch_up().offset
    print(
        json.dumps({"offset": offset, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}),
        flush=True,
    )
    keys.close()


def measure(address: str, streams: Path, partitions: int, count: int) -> dict[str, Any]:
    started = []
    for own in range(partitions):
        command = [sys.executable, __file__, "--feed", address, str(streams), str(partitions), str(own)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate()[0]) for process in started]
    assert all(each["offset"] == count for each in told)
    busiest, slowest = max(each["cpu_s"] for each in told), max(each["wall_s"] for each in told)
    return {
        "processes": partitions,
        "cpu_s_of_the_busiest": round(busiest, 3),
        "cpu_s_of_all": round(sum(each["cpu_s"] for each in told), 3),
        "events_per_cpu_s_of_the_busiest": round(count / busiest),
        "events_per_wall_s": round(count / slowest),
    }


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0?durability=server"
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--feed", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.feed:
        address, streams, partitions, own = given.feed
        feed(address, streams, int(partitions), int(own))
        return
    found: dict[str, Any] = {"events": given.events, "keys": given.keys}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_stream(root / "streams", given.events, given.keys)
        found["lmdb"] = [measure(str(root / f"keys{n}"), root / "streams", n, given.events) for n in (1, 2)]
        if shutil.which("redis-server"):
            with redis_server(root) as url:
                found["redis"] = [measure(f"{url}&prefix=p{n}", root / "streams", n, given.events) for n in (1, 2)]
    for store in ("lmdb", "redis"):
        if store in found:
            one, two = found[store]
            for unit in ("events_per_cpu_s_of_the_busiest", "events_per_wall_s"):
                found[f"{store}_ratio_{unit}"] = round(two[unit] / one[unit], 2)
            print(store, found[store])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
