"""Two server processes with a model of about five milliseconds a row: scores shared in Redis, against each by itself.

Both answer the same mix of rows (a few of them often), asked one after another over some connections each; a third
process that is started then has the scores of the others, or none. Needs ``redis-server`` and the extra ``redis``. The
last line, one JSON object, has hit ratios and the ratio of the rates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from bench_batching import BAGGED  # noqa: E402
from tests.serving import project  # noqa: E402
from tests.serving.process import Server  # noqa: E402
from tests.stores.redis_server import RedisServer  # noqa: E402

CONNECTIONS = 4  # to each server


def bodies(count: int, distinct: int, seed: int) -> list[dict[str, Any]]:
    """Requests out of so many rows, the first of them more often: Pareto with exponent 0.5."""
    rng = random.Random(seed)
    context = project.REQUEST["context"]
    ranks = (min(int(rng.paretovariate(0.5)), distinct) for _ in range(count))
    return [{**project.REQUEST, "context": {**context, "weight": 1 + rank / 64}} for rank in ranks]


def ask(server: Server, requests: list[dict[str, Any]]) -> None:
    """Ask all of them over one connection."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    for body in requests:
        connection.request("POST", "/v1/decisions/promise", json.dumps(body), project.AT)
        answer = connection.getresponse()
        if answer.status != 200 or b"fallback" in answer.read():
            sys.exit(f"an answer was no score: {answer.status}")


def run(servers: list[Server], count: int, distinct: int, seed: int) -> dict[str, Any]:
    """Rate of all servers together, and what their caches say."""
    threads = [
        threading.Thread(target=ask, args=(server, bodies(count // CONNECTIONS, distinct, seed + place * 10 + number)))
        for place, server in enumerate(servers) for number in range(CONNECTIONS)
    ]  # fmt: skip
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    caches = [server.send("GET", "/v1/status")[1]["score_caches"]["promise"] for server in servers]
    return {
        "rate": round(len(servers) * count / seconds, 1),
        "hit_ratio": [cache["hit_ratio"] for cache in caches],
        "saved_s": [round(cache["saved_us"] / 1e6, 1) for cache in caches],
        "redis": [cache["redis_results"] for cache in caches],
        "said": caches[0]["redis"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--trees", type=int, default=50)
    options = parser.parse_args()
    print("load of the machine:", os.getloadavg(), "cores:", os.cpu_count())
    runs = {}
    with TemporaryDirectory() as name, ExitStack() as stack:
        redis = RedisServer()
        stack.callback(redis.close)
        folder = Path(name)
        project.DEFINITIONS = BAGGED.replace('"n_estimators": 15', f'"n_estimators": {options.trees}') + (
            project.DEFINITIONS.replace('Recipe("logistic", calibrate="sigmoid",', 'Recipe("bagged_trees",')
            .replace('deadline="5s"', 'deadline="5s", cache="1h"')
        )  # fmt: skip
        project.make_project(folder).close()
        text = (folder / "retrodict.toml").read_text()
        for case in ("alone", "shared"):
            stores = f'[stores]\nscores = "{redis.url("bench")}"\n' if case == "shared" else ""
            (folder / "retrodict.toml").write_text(text + stores)
            with ExitStack() as running:
                servers = [Server(folder, "--replay", "--no-consume") for _ in range(3)]
                for server in servers:
                    running.callback(server.kill)
                runs[case] = run(servers[:2], options.requests, options.rows, 1)
                runs[f"{case}, a third process"] = run(servers[2:], options.requests, options.rows, 100)
    for case, answer in runs.items():
        print(case, json.dumps(answer))
    print("load of the machine:", os.getloadavg())
    rates = [runs[case]["rate"] for case in ("shared", "alone", "shared, a third process", "alone, a third process")]
    print(json.dumps({"rate_shared_over_alone": round(rates[0] / rates[1], 2),
                      "rate_third_shared_over_alone": round(rates[2] / rates[3], 2)}))  # fmt: skip


if __name__ == "__main__":
    main()
