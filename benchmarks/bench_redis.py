"""Keys in Redis against the plain client in the same run: the same bytes, the same server, the same settings.

A server of its own is started (append-only file, synced at every write, as the store asks for by default) and reached
through TCP. Calls take turns, so that what else the machine does meets both alike; times are medians. Reads are
compared with ``redis.Redis.mget``; writes with the same items as one ``MSET``, which keeps no order of keys. The last
line, one JSON object, has ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import redis

from retrodict.stores.keys.redis import RedisKeys


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """Port of a fresh server."""
    if shutil.which("redis-server") is None:
        sys.exit("bench_redis needs redis-server: make servers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", folder]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", *settings]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(redis.ConnectionError):
                    redis.Redis(port=port).ping()
                    break
                time.sleep(0.05)
            yield port
        finally:
            server.kill()
            server.wait()


def medians(jobs: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Seconds per call of each job, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeat + repeat // 10):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn >= repeat // 10:  # what comes before warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2_000)
    parser.add_argument("--bytes", type=int, default=400)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with running_server() as port:
        keys = RedisKeys(f"redis://127.0.0.1:{port}/0")
        client = redis.Redis(port=port, protocol=2, socket_timeout=5, socket_connect_timeout=5)
        many = {b"origin:%04d" % i: os.urandom(given.bytes) for i in range(100)}
        one = dict(list(many.items())[:1])
        keys.put_many(many)
        client.mset(many)
        assert client.mget(list(many)) == keys.get_many(list(many)) == list(many.values())
        name = next(iter(one))
        found = medians(
            {
                "get_many of 100": lambda: keys.get_many(list(many)),
                "mget of 100": lambda: client.mget(list(many)),
                "get_many of 1": lambda: keys.get_many([name]),
                "mget of 1": lambda: client.mget([name]),
            },
            given.repeat,
        ) | medians(
            {
                "put_many of 100": lambda: keys.put_many(many),
                "mset of 100": lambda: client.mset(many),
                "update of 1": lambda: keys.update([name], lambda values: {name: values[0]}),
                "mset of 1": lambda: client.mset(one),
            },
            given.repeat // 4,
        )
        keys.put_many({b"scan:%06d" % i: bytes(given.bytes) for i in range(100_000)})
        start = time.perf_counter()
        assert sum(1 for _ in keys.scan(b"scan:")) == 100_000
        found["scan of 100,000"] = time.perf_counter() - start
        keys.close()
        client.close()
    for job, seconds in found.items():
        print(f"  {job:<20}{seconds * 1e6:12.1f} us")
    ratios = {
        "get_many_100_over_mget": found["get_many of 100"] / found["mget of 100"],
        "get_many_1_over_mget": found["get_many of 1"] / found["mget of 1"],
        "put_many_100_over_mset": found["put_many of 100"] / found["mset of 100"],
        "update_1_over_mset": found["update of 1"] / found["mset of 1"],
    }
    answer = {
        "benchmark": "redis",
        "size": {"keys": 100, "bytes": given.bytes, "repeat": given.repeat},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "machine": {"cores": os.cpu_count(), "load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
