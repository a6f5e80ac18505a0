"""Single requests to a model that takes about two milliseconds a row: called on the loop, against batches in a thread.

The same server process and project, once with the threshold of the engine queue out of reach: every request then calls
the model by itself, on the event loop. Trees in a bag of scikit-learn have no function for one row, so a row costs
what a hundred cost. Cases take turns; of the turns the median is given. The last line, one JSON object, has ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from bench_serving import free_port, load, post, running  # noqa: E402
from tests.serving import project  # noqa: E402

BAGGED = """
from dataclasses import replace
from retrodict.models import get_estimator, register_estimator
_forest = get_estimator("random_forest")
register_estimator(replace(_forest, name="bagged_trees", defaults={"n_estimators": 15}, minimum={}, space={},
    fixed={**_forest.fixed, "classifier": "sklearn.ensemble.BaggingClassifier"}, warm_start=""))
"""
LAUNCH = """
import sys
from retrodict.serving import engine_queue
if sys.argv.pop(1) == "loop":
    engine_queue.THREAD_US = float("inf")
from retrodict.cli.main import main
sys.exit(main())
"""


def make_world(folder: Path) -> Path:
    """Project with a slow model, and requests of many different rows."""
    project.DEFINITIONS = BAGGED + project.DEFINITIONS.replace(
        'Recipe("logistic", calibrate="sigmoid",', 'Recipe("bagged_trees",'
    )
    project.make_project(folder).close()
    config = folder / "retrodict.toml"
    config.write_text(config.read_text() + '[serving]\nmax_wait = "10s"\n')
    context = project.REQUEST["context"]
    bodies = [
        {**project.REQUEST, "entities": {"depot": depot}, "context": {**context, "weight": weight / 4}}
        for weight in range(1, 320) for depot in ("north", "south", "east", "nobody")
    ]  # fmt: skip
    requests = folder / "requests.hex"
    moment = project.AT["Retrodict-Time"]
    requests.write_text("\n".join(post("/v1/decisions/promise", body, retrodict_time=moment).hex() for body in bodies))
    return requests


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    print("load of the machine:", os.getloadavg(), "cores:", os.cpu_count())
    with TemporaryDirectory() as name:
        folder = Path(name)
        requests = make_world(folder)
        ports = {case: free_port() for case in ("loop", "batches")}
        commands = {
            case: [sys.executable, "-c", LAUNCH, case, "serve", "--project", folder, "--replay", "--no-consume",
                   "--port", port]
            for case, port in ports.items()
        }  # fmt: skip
        with ExitStack() as stack:
            servers = {
                case: stack.enter_context(running(commands[case], {}, port, "/readyz")) for case, port in ports.items()
            }
            for turn in range(options.turns + 1):
                for connections in (1, 8, 64):
                    for case, port in ports.items():
                        run = load(port, requests, connections, options.seconds, servers[case])
                        if turn:  # the first one warms up
                            runs.setdefault((case, connections), []).append(run)
            for case, port in ports.items():
                with urlopen(f"http://127.0.0.1:{port}/v1/status") as response:
                    print(case, json.load(response)["scoring"])
    rates = {}
    for (case, connections), turns in runs.items():
        middle = {
            what: statistics.median(turn[what] for turn in turns) for what in ("rate", "p50_ms", "p99_ms", "cpu_us")
        }
        rates[case, connections] = middle["rate"]
        print(f"{case:8} {connections:3} connections", {what: round(value, 2) for what, value in middle.items()})
    print("load of the machine:", os.getloadavg())
    ratios = {str(n): round(rates["batches", n] / rates["loop", n], 2) for n in (1, 8, 64)}
    print(json.dumps({"rate_batches_over_loop": ratios}))


if __name__ == "__main__":
    main()
