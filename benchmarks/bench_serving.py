"""Decisions over HTTP against floors and peers in the same run: one core for the server, the other one for the load.

Ours reads 36 features of the flights from LMDB, checks the request, scores, applies rules and syncs a record before it
answers. The floor, bare uvicorn with msgspec and LightGBM's prepared call for one row, reads nothing and keeps nothing:
the rows come with the requests. So does FastAPI with LightGBM. Load is a client of its own over raw sockets; the cases
take turns, and of the turns the median is given. ``cpu_us`` is what one answer costs the server's process, which
does not depend on what else the machine does. The last line, one JSON object, has ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.request import urlopen

HERE = Path(__file__).parent
PARTS = HERE / "_serving"
SERVER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1
CONNECTIONS = (1, 8, 64)
_QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def post(path: str, body: object, **headers: str) -> bytes:
    """Return a request of HTTP/1.1 as bytes."""
    data = json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{lines}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def free_port() -> int:
    """Port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[object], environment: dict[str, str], port: int, path: str, cores: object = SERVER_CORE
) -> Iterator[int]:
    """Run a server on its core until the block ends; yields its process id once it answers."""
    everything = ["taskset", "-c", str(cores), *map(str, command)]
    process = subprocess.Popen(everything, env={**os.environ, **_QUIET, **environment}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                if path:
                    urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                break
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def cpu_s(process: int) -> float:
    """Seconds of processor that a process has used, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    port: int, requests: Path, connections: int, seconds: float, process: int, cores: object = LOAD_CORE
) -> dict[str, Any]:
    """Ask for some seconds; rate, latencies, and processor time of the server for each answer."""
    before = cpu_s(process)
    command = [
        "taskset",
        "-c",
        cores,
        sys.executable,
        PARTS / "serving_load.py",
        port,
        requests,
        connections,
        seconds,
    ]
    answer: dict[str, Any] = json.loads(subprocess.check_output(list(map(str, command))))
    refused = answer["requests"] - answer["statuses"].get("200", 0)
    if refused > 0.01 * answer["requests"]:  # a server may turn away who waited too long while the machine was busy
        sys.exit(f"an answer was no 200: {answer['statuses']}")
    answer["rate"] *= 1 - refused / answer["requests"]
    return answer | {"refused": refused, "cpu_us": (cpu_s(process) - before) / answer["requests"] * 1e6}


def paced(
    port: int, requests: Path, connections: int, seconds: float, rate: float, cores: object = LOAD_CORE
) -> dict[str, Any]:
    """Ask at a rate, and give what answers took by status."""
    command = ["taskset", "-c", cores, sys.executable, PARTS / "serving_load.py", port, requests, connections,
               seconds, rate]  # fmt: skip
    answer: dict[str, Any] = json.loads(subprocess.check_output(list(map(str, command))))
    return answer


def memory_mb(process: int) -> float:
    """Resident memory of a process without the pages of files that it maps."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def stress(world: Path, seconds: float, soak_s: float) -> dict[str, Any]:
    """Ours alone: what it can at most, at 70 % of that for long, and asked three times as much as it can."""
    requests, port = write_requests(world)["ours"], free_port()
    command = [sys.executable, "-m", "retrodict", "serve", "--project", world, "--replay", "--port", port]
    with running(command, {}, port, "/readyz") as process:
        load(port, requests, 64, 2.0, process)
        most = load(port, requests, 64, seconds, process)
        memory = [memory_mb(process)]
        unloaded = paced(port, requests, 64, seconds, most["rate"] * 0.7)
        soaked = []
        for _ in range(max(int(soak_s / 60), 1)):
            soaked.append(paced(port, requests, 64, min(soak_s, 60.0), most["rate"] * 0.7)["answers"])
            memory.append(memory_mb(process))
        overload = paced(port, requests, 1000, seconds, most["rate"] * 3)
        memory.append(memory_mb(process))
        after = paced(port, requests, 64, seconds, most["rate"] * 0.7)
    return {"most": most, "at 70 %": unloaded, "soak": soaked, "memory_mb": memory, "at 300 %": overload,
            "at 70 % after": after}  # fmt: skip


def rollback_ms(world: Path, workers: int, turns: int) -> dict[str, Any]:
    """Milliseconds from the call of a rollback, under load, until every connection is answered by its revision."""
    from retrodict.rollout import deploy, rollback
    from retrodict.workspace import Workspace

    requests, port, policy = write_requests(world)["ours"], free_port(), "warn_early"
    one = bytes.fromhex(requests.read_text().split()[0])
    command = [sys.executable, "-m", "retrodict", "serve", "--project", world, "--replay", "--port", port,
               "--workers", workers]  # fmt: skip
    loading = [sys.executable, PARTS / "serving_load.py", port, requests, 16, 600]
    returned, reached = [], []
    with running(command, {}, port, "/readyz"), ExitStack() as stack:
        definitions = world / "definitions.py"
        text = definitions.read_text()
        stack.callback(definitions.write_text, text)
        load_process = subprocess.Popen(list(map(str, loading)), stdout=subprocess.DEVNULL)
        stack.callback(load_process.wait)
        stack.callback(load_process.kill)

        def ask(connection: socket.socket) -> bytes:
            connection.sendall(one)
            answer = connection.recv(65_536)
            return answer.partition(b'"policy":"')[2].partition(b'"')[0]

        def dial() -> list[socket.socket]:  # every caller stays with its worker, and an idle one five seconds
            return [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8 * workers)]

        def wait_for(revision: int, callers: list[socket.socket]) -> None:
            behind = callers
            while behind:
                behind = [caller for caller in behind if ask(caller) != f"{policy}#{revision}".encode()]

        for turn in range(turns):
            definitions.write_text(f"{text}# {time.time_ns()}, {turn}\n")  # a rollback passes over what is the same
            project = stack.enter_context(Workspace(world, actor="bench"))
            wait_for(deploy(project, policy, reason="benchmark").revision, dial())
            callers = dial()
            start = time.perf_counter()
            revision = rollback(project, policy, reason="benchmark").revision
            returned.append((time.perf_counter() - start) * 1e3)
            wait_for(revision, callers)
            reached.append((time.perf_counter() - start) * 1e3)
    return {"workers": workers, "turns": turns, "call_ms": statistics.median(returned),
            "all_workers_ms": statistics.median(reached), "worst_ms": max(reached)}  # fmt: skip


def two_workers(world: Path, turns: int, seconds: float) -> dict[str, Any]:
    """Decisions of two workers over those of one, in bodies of fifty: so little is left to do for who asks.

    And what a search beside them does to single ones, at a fifth of what one worker can.
    """
    requests, every = write_requests(world)["ours"], f"0-{(os.cpu_count() or 1) - 1}"
    asked = json.loads((world / "requests.json").read_text())
    many = world / "many.requests"
    bodies = [{"requests": [one["body"] for one in asked[place : place + 50]]} for place in range(0, 50, 5)]
    path = "/v1/decisions/warn_early:batch"
    many.write_text("\n".join(post(path, body, retrodict_time=asked[-1]["at"]).hex() for body in bodies))
    rates: dict[int, list[float]] = {1: [], 2: []}
    beside: dict[str, list[dict[str, Any]]] = {"alone": [], "beside a search": []}
    command = [sys.executable, "-m", "retrodict", "serve", "--project", world, "--replay"]
    for _ in range(turns):
        for workers, measured in rates.items():
            port = free_port()
            with running([*command, "--port", port, "--workers", workers], {}, port, "/readyz", every) as process:
                load(port, many, 8, 1.0, process, every)
                measured.append(50 * load(port, many, 8, seconds, process, every)["rate"])
    port = free_port()
    with running([*command, "--port", port], {}, port, "/readyz", every) as process:
        most = load(port, requests, 8, seconds, process, every)["rate"]
        for _ in range(turns):
            for case, measured in beside.items():
                search = [sys.executable, "-m", "retrodict", "tune", "late_arrival", "--trials", "10000", "--jobs", "2",
                          "--project", str(world)]  # fmt: skip
                running_search = subprocess.Popen(search, stdout=subprocess.DEVNULL) if case != "alone" else None
                time.sleep(15.0 if running_search else 1.0)  # it reads and prepares its rows first
                measured.append(paced(port, requests, 8, seconds, most / 5, every)["answers"]["200"])
                if running_search:
                    assert running_search.poll() is None, "the search ended before the load"
                    running_search.terminate()
                    running_search.wait()
    middle = {workers: statistics.median(each) for workers, each in rates.items()}
    return {"decisions_per_s": middle, "ratio": round(middle[2] / middle[1], 2), "offered": most / 5,
            **{case: {key: statistics.median(one[key] for one in each) for key in each[0]}
               for case, each in beside.items()}}  # fmt: skip


def ramp(world: Path) -> list[dict[str, Any]]:
    """Ten times as much is asked after a while, and then no longer: workers and latencies in pieces of five seconds."""
    requests, port, every = write_requests(world)["ours"], free_port(), f"0-{(os.cpu_count() or 1) - 1}"
    command = [
        sys.executable,
        "-m",
        "retrodict",
        "serve",
        "--project",
        world,
        "--replay",
        "--port",
        port,
        "--workers",
        "auto",
    ]
    pieces = []
    with running(command, {}, port, "/readyz", every) as process:
        load(port, requests, 8, 1.0, process, every)
        for rate in (*[300] * 3, *[3000] * 6, *[300] * 18):
            answers = paced(port, requests, 64, 5.0, rate, every)["answers"]
            with urlopen(f"http://127.0.0.1:{port}/v1/status") as response:
                workers = [worker["on_duty"] for worker in json.load(response)["workers"]]
            good = answers.get("200", {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0})
            refused = sum(one["count"] for status, one in answers.items() if status != "200")
            latencies = {key: round(good[key], 1) for key in ("p50_ms", "p99_ms")}
            pieces.append({"rate": rate, "workers": sum(workers), **latencies, "refused": refused})
            print("  ".join(f"{name} {value}" for name, value in pieces[-1].items()), flush=True)
    return pieces


@contextmanager
def collector() -> Iterator[str]:
    """Take spans as a collector of OpenTelemetry does, and throw them away; yields where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def traces(world: Path, turns: int, seconds: float) -> dict[str, Any]:
    """Decisions without traces, with one of every tenth and of each, by turns: processor time, latencies; medians."""
    requests, runs = write_requests(world)["ours"], dict[str, list[dict[str, Any]]]()
    command = [sys.executable, "-m", "retrodict", "serve", "--project", world, "--replay"]
    with ExitStack() as stack:
        url = stack.enter_context(collector())
        servers = {}
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        tenth = on | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
        for case, environment in {"off": {}, "tenth": tenth, "on": on}.items():
            port = free_port()
            process = stack.enter_context(running([*command, "--port", port], environment, port, "/readyz"))
            servers[case] = port, process
            load(port, requests, 8, 2.0, process)
        for _ in range(turns):
            for connections in CONNECTIONS[:2]:  # with more, a slow machine turns callers away
                for case, (port, process) in servers.items():
                    runs.setdefault(f"{case} at {connections}", []).append(
                        load(port, requests, connections, seconds, process)
                    )
    keys = ("rate", "p50_ms", "p99_ms", "cpu_us")
    medians = {case: {key: round(statistics.median(run[key] for run in measured), 3) for key in keys}
               for case, measured in runs.items()}  # fmt: skip
    more = {f"more_cpu_us_{case}_{n}": round(medians[f"{case} at {n}"]["cpu_us"] - medians[f"off at {n}"]["cpu_us"], 1)
            for n in CONNECTIONS[:2] for case in ("tenth", "on")}  # fmt: skip
    return {"turns": turns, "seconds": seconds, **more, "runs": medians}


ROUTING = """
from retrodict import Experiment, Metric, Rollout

calm = Policy("calm", late_arrival, decide={"warn": "score >= 0.5", "ok": "otherwise"}, fallback=["ok"])
eager = Policy("eager", late_arrival, decide={"warn": "score >= 0.3", "ok": "otherwise"}, fallback=["ok"])
half = Rollout("half", warn_early, steps=[50, 100], bake="30d", unit="tailnum", prove=["brier not worse by 0.02"])
phone = Experiment("phone", warn_early, {"control": 50, "phoned": 50}, unit="tailnum", mde=0.03,
                   primary=Metric.rate("landed late", "label = 1", better="lower"))
"""


def routed(world: Path, copy: Path, *, shadows: bool) -> None:
    """The same project with an experiment on all and a canary for half, and with three shadows."""
    from retrodict import Project
    from retrodict.core.clock import SimulatedClock, parse_time

    shutil.copytree(world, copy)
    with (copy / "definitions.py").open("a") as file:
        file.write(ROUTING)
    clock = SimulatedClock(parse_time("2013-09-05T17:00Z"))
    with Project(copy, clock=clock, actor="ana") as project, Project(copy, clock=clock, actor="ben") as other:
        second = project.train("late_arrival").version
        assert second is not None
        other.models.approve(second.ref, reason="for a measurement")
        project.experiments.plan("phone", baseline=0.2, units_per_day=900)
        project.experiments.start("phone", reason="for a measurement")
        for challenger in ({"model": second.ref}, {"other": "calm"}, {"other": "eager"}) if shadows else ():
            project.challengers.start_shadow("warn_early", reason="for a measurement", **challenger)
        project.rollouts.start("half", second.ref, reason="for a measurement")


def routes(world: Path, turns: int, seconds: float, rate: float = 200.0) -> dict[str, Any]:
    """Decisions without more, with an experiment and a canary, and with three shadows besides, at the same rate.

    One server at a time, by turns, and what follows shadows beside it, on all cores.
    """
    requests, every = write_requests(world)["ours"], f"0-{(os.cpu_count() or 1) - 1}"
    command = [sys.executable, "-m", "retrodict", "serve", "--replay", "--project"]
    with TemporaryDirectory() as folder:
        worlds = {"plain": world, "routed": Path(folder) / "routed", "shadows": Path(folder) / "shadows"}
        for case, copy in list(worlds.items())[1:]:
            routed(world, copy, shadows=case == "shadows")
        runs: dict[str, list[dict[str, Any]]] = {case: [] for case in worlds}
        for _ in range(turns):
            for case, copy in worlds.items():
                port = free_port()
                with running([*command, copy, "--port", port], {}, port, "/readyz", every) as process:
                    paced(port, requests, 8, 3.0, rate, every)
                    before = cpu_s(process)
                    answers = paced(port, requests, 8, seconds, rate, every)["answers"]["200"]
                    runs[case].append({**answers, "cpu_us": (cpu_s(process) - before) / answers["count"] * 1e6})
                    print(case, {key: round(value, 3) for key, value in runs[case][-1].items()}, flush=True)
    keys = ("p50_ms", "p99_ms", "cpu_us")
    medians = {case: {key: round(statistics.median(run[key] for run in measured), 3) for key in keys}
               for case, measured in runs.items()}  # fmt: skip
    more = {f"{key}_{case}": round(medians[case][key] / medians["plain"][key], 3)
            for case in ("routed", "shadows") for key in keys}  # fmt: skip
    return {"turns": turns, "seconds": seconds, "rate": round(rate), **more, "runs": medians}


def draw_ramp(pieces: Sequence[dict[str, Any]], path: Path) -> None:
    """What was asked and refused, the workers, and the latencies, over time."""
    from retrodict.evaluation.plots.canvas import ALERT, MAIN, QUIET, drawing

    seconds = [5 * place for place in range(len(pieces))]
    with drawing("Workers follow the load", height=3.4) as canvas:
        axes, others = canvas.axes, canvas.axes.twinx()
        for key, colour in (("p99_ms", MAIN), ("p50_ms", QUIET)):
            axes.plot(seconds, [one[key] for one in pieces], color=colour, label=key.replace("_", " in "))
        axes.set(xlabel="seconds", ylabel="milliseconds", yscale="log")
        others.step(seconds, [one["workers"] for one in pieces], where="post", color=ALERT, label="workers")
        others.set(ylabel="workers", ylim=(0, 1 + max(one["workers"] for one in pieces)))
        others.yaxis.get_major_locator().set_params(integer=True)
        for place, one in zip(seconds, pieces, strict=True):
            if one["rate"] > pieces[0]["rate"]:
                axes.axvspan(place, place + 5, color=QUIET, alpha=0.15, linewidth=0)
        axes.figure.legend(loc="outside lower center", ncols=3)
    path.write_text(canvas.svg)


def write_requests(world: Path) -> dict[str, Path]:
    """Write what is asked of ours and of the others, a request a line."""
    asked = json.loads((world / "requests.json").read_text())
    ours = [post("/v1/decisions/warn_early", one["body"], retrodict_time=one["at"]) for one in asked]
    rows = [post("/predict", {"values": row}) for row in json.loads((world / "rows.json").read_text())]
    paths = {"ours": world / "ours.requests", "rows": world / "rows.requests"}
    for path, requests in zip(paths.values(), (ours, rows), strict=True):
        path.write_text("\n".join(request.hex() for request in requests))
    return paths


def first_ms(port: int, requests: Path) -> float:
    """Milliseconds of the first request that a server gets."""
    data = bytes.fromhex(requests.read_text().split()[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        start = time.perf_counter()
        connection.sendall(data)
        connection.recv(65_536)
        return (time.perf_counter() - start) * 1e3


def stages(port: int) -> dict[str, float]:
    """Milliseconds that each stage of ours takes, the median."""
    with urlopen(f"http://127.0.0.1:{port}/v1/status") as response:
        return {stage: seen["p50_ms"] for stage, seen in json.load(response)["latency"].items()}


def measure(world: Path, peers: Path, turns: int, seconds: float, cases: Sequence[str]) -> dict[str, Any]:
    """Start every server, warm each up, and load them by turns."""
    requests = write_requests(world)
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        servers = {}
        for name in cases:
            port = free_port()
            if name == "ours":
                command = [sys.executable, "-m", "retrodict", "serve", "--project", world, "--replay", "--port", port]
                path = "/readyz"
            else:
                command, path = [peers, PARTS / "serving_peers.py", name, port], ""
            process = stack.enter_context(running(command, {"BENCH_MODEL": str(world / "model.txt")}, port, path))
            asked = requests["ours" if name == "ours" else "rows"]
            servers[name] = port, asked, process
        first = {name: first_ms(port, asked) for name, (port, asked, _) in servers.items()}
        for port, asked, process in servers.values():
            load(port, asked, 8, 1.0, process)
        for _ in range(turns):
            for connections in CONNECTIONS:
                for name, (port, asked, process) in servers.items():
                    runs.setdefault((name, connections), []).append(load(port, asked, connections, seconds, process))
        spent = stages(servers["ours"][0]) if "ours" in servers else {}
    measured = {
        f"{name} at {connections}": {key: statistics.median(one[key] for one in taken)
                                     for key in ("rate", "p50_ms", "p99_ms", "max_ms", "cpu_us", "refused")}
        for (name, connections), taken in runs.items()
    }  # fmt: skip
    return {"runs": measured, "first_ms": first, "stages": spent}


def ratios(runs: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over the others: of rates, and of what an answer costs the server."""
    found = {}
    for other in ("bare", "fastapi"):
        for connections in CONNECTIONS:
            ours, theirs = runs.get(f"ours at {connections}"), runs.get(f"{other} at {connections}")
            if ours and theirs:
                found[f"rate_over_{other}_{connections}"] = round(ours["rate"] / theirs["rate"], 3)
                found[f"cpu_over_{other}_{connections}"] = round(ours["cpu_us"] / theirs["cpu_us"], 3)
    return found


def versions(python: Path) -> dict[str, str]:
    """Versions of what is compared with."""
    names = ("fastapi", "uvicorn", "uvloop", "httptools", "msgspec", "lightgbm")
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    answer = subprocess.check_output([str(python), "-c", code, *names], text=True)
    return dict(zip(names, answer.split(), strict=True))


def processor() -> str:
    """Name of the processor, as Linux says it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load for each case and turn")
    parser.add_argument("--world", type=Path, help="folder of an earlier run's project; made if it is not there")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    parser.add_argument("--cases", nargs="+", default=["ours", "bare", "fastapi"])
    parser.add_argument("--stress", action="store_true", help="ours alone, at 70 %% for long and at 300 %%")
    parser.add_argument("--rollback", type=int, metavar="WORKERS", help="until a rollback reaches so many workers")
    parser.add_argument("--workers", action="store_true", help="two of ours against one, and one beside a search")
    parser.add_argument("--traces", action="store_true", help="ours with a span for each decision, and without")
    parser.add_argument("--routes", action="store_true", help="an experiment, a canary and three shadows, and without")
    parser.add_argument("--ramp", action="store_true", help="workers that come and go with the load")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw that as SVG")
    parser.add_argument("--soak", type=float, default=600.0, help="seconds of that at 70 %%")
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    with TemporaryDirectory() as temporary:
        world = given.world or Path(temporary) / "flights"
        if not (world / "rows.json").exists():
            make = [sys.executable, str(PARTS / "serving_world.py"), str(world)]
            subprocess.run(make, check=True, env={**os.environ, **_QUIET})
        if given.rollback:
            print(json.dumps(rollback_ms(world, given.rollback, given.turns)))
            return
        if given.traces:
            print(json.dumps(traces(world, given.turns, given.seconds)))
            return
        if given.routes:
            print(json.dumps(routes(world, given.turns, given.seconds)))
            return
        if given.ramp:
            pieces = ramp(world)
            if given.plot is not None:
                draw_ramp(pieces, given.plot)
            print(json.dumps(pieces))
            return
        if given.workers:
            print(json.dumps(two_workers(world, given.turns, given.seconds)))
            return
        if given.stress:
            print(json.dumps(stress(world, given.seconds, given.soak)))
            return
        measured = measure(world, given.peers, given.turns, given.seconds, given.cases)
    print(f"  {'case':<16}{'rate/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'CPU us':>9}")
    for name, run in measured["runs"].items():
        latencies = "".join(f"{run[key]:9.2f}" for key in ("p50_ms", "p99_ms", "max_ms"))
        print(f"  {name:<16}{run['rate']:9.0f}{latencies}{run['cpu_us']:9.0f}")
    print("  first request, ms: " + ", ".join(f"{name} {taken:.1f}" for name, taken in measured["first_ms"].items()))
    print("  stages of ours, p50 ms: " + ", ".join(f"{name} {taken:.3f}" for name, taken in measured["stages"].items()))
    answer = {
        "benchmark": "serving",
        "size": {"features": 36, "turns": given.turns, "seconds": given.seconds},
        "ratios": ratios(measured["runs"]),
        **measured,
        "versions": versions(given.peers),
        "machine": {"cores": os.cpu_count(), "processor": processor(), "kernel": platform.release(),
                    "python": platform.python_version(), "server_core": SERVER_CORE, "load_core": LOAD_CORE,
                    "load_before": round(load_before, 2), "load_after": round(os.getloadavg()[0], 2)},
    }  # fmt: skip
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
