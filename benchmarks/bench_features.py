"""Training frames against floors and peers in the same run: newest values, and windows.

The events lie in a table that the project's own store wrote. "First" is the first frame over it: no index is there, and
one is written in the background afterwards (until when, and its size, are shown apart). "Later" goes through the index,
and opening and checking it is part of the time. DuckDB and Polars read the same Parquet files with two threads; Feast
runs in an environment of its own (``make peers``). Everything runs in a fresh process with imports left out, and the
best of some repetitions in it counts; what is run once in a process (first times, windows of DuckDB and of Polars) is
run in as many processes. Results are compared before ratios are printed. Times depend on the machine and its load; the
last line, one JSON object, has ratios, each named by what is over what.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODULES = HERE / "_features"
sys.path.insert(0, str(MODULES))
import features_world  # noqa: E402  (beside this file, and not part of a package)


@dataclass(frozen=True)
class Measured:
    """Seconds, CPU seconds and peak bytes of a job, and what it answered."""

    seconds: float
    cpu: float
    peak: int
    answer: dict[str, Any]


class Bench:
    """Runs jobs in fresh processes and keeps what they took."""

    def __init__(self, folder: Path, peers: Path) -> None:
        self.folder, self.peers = folder, peers / "bin" / "python"
        self.found: dict[str, Measured] = {}

    def once(self, module: str, job: str, /, **given: Any) -> dict[str, Any]:
        """One run in a process of its own."""
        python = str(self.peers) if module == "features_feast" else sys.executable
        done = subprocess.run(
            [python, str(HERE / "_data" / "worker.py"), module, job, json.dumps({"folder": str(self.folder), **given})],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(MODULES)},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{module}.{job} failed:\n{done.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def run(self, name: str, module: str, job: str, /, *, processes: int = 1, **given: Any) -> Measured:
        """Measure a job: the best of some processes."""
        told = min((self.once(module, job, **given) for _ in range(processes)), key=lambda t: t["answer"]["seconds"])
        answer = told["answer"]
        found = self.found[name] = Measured(answer["seconds"], answer["cpu"], told["peak"], answer)
        print(f"  {name:<34}{found.seconds:9.2f} s {found.cpu:9.2f} s CPU {found.peak / 2**20:9.0f} MB", flush=True)
        return found

    def ratio(self, one: str, other: str) -> float | None:
        """Seconds of one by seconds of the other; None if one of them was left out."""
        if one not in self.found or other not in self.found:
            return None
        return round(self.found[one].seconds / self.found[other].seconds, 2)

    def same(self, *names: str) -> None:
        """Check that all gave as many values per column with the same sums, as far as float sums reach."""
        first, *others = names
        wanted = self.found[first].answer["columns"]
        for name in others:
            for column, (count, total) in self.found[name].answer["columns"].items():
                assert count == wanted[column][0], f"{name}, {column}: {count} values instead of {wanted[column][0]}"
                assert math.isclose(total, wanted[column][1], rel_tol=1e-9), f"{name}, {column}: another sum"


def first(bench: Bench, kind: str, key: str, rows: int, repeat: int) -> None:
    """The first frame over the table."""
    name = f"{kind} {key} first"
    answer = bench.run(name, "features_ours", "first", processes=repeat, kind=kind, key=key, rows=rows).answer
    print(
        f"  (index there after {answer['until_written']:.2f} s, {answer['index_over_table']} times the table's bytes)"
    )


def appended(bench: Bench, kind: str, key: str, rows: int, repeat: int) -> None:
    """Frames after small appends."""
    name = f"{kind} {key} appended"
    answer = bench.run(name, "features_ours", "appended", kind=kind, key=key, rows=rows, repeat=repeat).answer
    print(f"  (after 1,000 rows more; {answer['anew']:.2f} s CPU where the index is made anew)")


def latest(bench: Bench, rows: int, repeat: int) -> None:
    """Newest values of five columns, by whole-number keys and by text keys."""
    for key in ("key", "name"):
        print(f"newest values, {'whole-number' if key == 'key' else 'text'} keys")
        first(bench, "latest", key, rows, repeat)
        bench.run(f"latest {key} later", "features_ours", "frame", kind="latest", key=key, rows=rows, repeat=repeat)
        appended(bench, "latest", key, rows, repeat)
        bench.run(f"latest {key} duckdb", "features_peers", "duckdb_latest", key=key, rows=rows, repeat=repeat)
        bench.run(f"latest {key} polars", "features_peers", "polars_latest", key=key, rows=rows, repeat=repeat)
        bench.same(*(f"latest {key} {side}" for side in ("first", "later", "duckdb", "polars")))
    if bench.peers.exists():
        feast = bench.run("latest key feast", "features_feast", "latest", rows=rows)
        print(f"  (of {rows:,} rows Feast returned {feast.answer['rows']:,})")


def windows(bench: Bench, rows: int, repeat: int) -> None:
    """Count, sum, mean and maximum over four windows."""
    print("count, sum, mean, max over 1 h, 24 h, 7 d, 30 d")
    first(bench, "windows", "key", rows, repeat)
    bench.run("windows key later", "features_ours", "frame", kind="windows", key="key", rows=rows, repeat=repeat)
    appended(bench, "windows", "key", rows, repeat)
    bench.run("windows numpy", "features_peers", "numpy_windows", rows=rows, repeat=repeat)
    for peer in ("duckdb", "polars"):
        bench.run(f"windows {peer}", "features_peers", f"{peer}_windows", processes=repeat, rows=rows, repeat=1)
    bench.same("windows key first", "windows key later", "windows numpy", "windows duckdb", "windows polars")


def flat(bench: Bench, lengths: list[int]) -> None:
    """Time per row of spines that are streamed, from short to long."""
    print("spines that are read, answered and let go piece by piece")
    for rows in lengths:
        found = bench.run(f"stream {rows:,} rows", "features_ours", "stream", kind="latest", key="name", rows=rows)
        print(f"  {'':<34}{1e6 * found.seconds / rows:9.2f} us a row {1e6 * found.cpu / rows:9.2f} us CPU")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        name = next((line.split(":", 1)[1].strip() for line in lines), name)
    return {"cores": os.cpu_count(), "cpu": name, "load": round(os.getloadavg()[0], 2)}


def ratios(bench: Bench, lengths: list[int]) -> dict[str, float | None]:
    """What the goals are about: of first times ours over theirs, of later ones theirs over ours."""
    result = {}
    for kind, ours in (("latest", "latest key"), ("latest", "latest name"), ("windows", "windows key")):
        for peer in ("duckdb", "polars"):
            other = f"{ours if kind == 'latest' else kind} {peer}"
            result[f"{ours} first over {peer}".replace(" ", "_")] = bench.ratio(f"{ours} first", other)
            result[f"{peer} over {ours} later".replace(" ", "_")] = bench.ratio(other, f"{ours} later")
    for ours in ("latest key", "latest name", "windows key"):
        result[f"{ours} appended over later".replace(" ", "_")] = bench.ratio(f"{ours} appended", f"{ours} later")
    result["feast_over_latest_key_later"] = bench.ratio("latest key feast", "latest key later")
    result["windows_key_later_over_numpy"] = bench.ratio("windows key later", "windows numpy")
    growth = bench.ratio(*(f"stream {rows:,} rows" for rows in (lengths[-1], lengths[0])))
    result["time_per_row_long_over_short"] = None if growth is None else round(growth * lengths[0] / lengths[-1], 3)
    return result


def measure(rows: int, given: argparse.Namespace, lengths: list[int]) -> dict[str, Any]:
    """All sides of one size, and spines of several lengths where they are given."""
    folder = (given.folder / f"features-{rows}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, given.peers.absolute())
    bench.once("features_world", "make", count=10 * rows, spines=[rows, *lengths])
    print(f"{rows:,} rows x {10 * rows:,} events x 5 columns, {features_world.KEYS:,} keys")
    latest(bench, rows, given.repeat)
    windows(bench, rows, given.repeat)
    if lengths:
        bench.once("features_ours", "first", kind="latest", key="name", rows=rows)
        flat(bench, lengths)
    return {
        "size": {"rows": rows, "events": 10 * rows, "keys": features_world.KEYS, "repeat": given.repeat},
        "ratios": ratios(bench, lengths or [rows]),
        "peak_mb": {name: round(found.peak / 2**20) for name, found in bench.found.items()},
    }


def main() -> None:
    """Measure every side and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the spine; ten times as many events")
    parser.add_argument("--small", type=int, nargs="*", default=[100_000, 200_000], help="further, smaller sizes")
    parser.add_argument("--frames", action="store_true", help="no streamed spines")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where generated data stays")
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="environment that has Feast")
    given = parser.parse_args()
    sizes = [measure(rows, given, []) for rows in given.small]
    sizes.append(measure(given.rows, given, [] if given.frames else [given.rows // 10, given.rows, given.rows * 10]))
    print(json.dumps({"benchmark": "features", "sizes": sizes, "machine": machine()}))


if __name__ == "__main__":
    main()
