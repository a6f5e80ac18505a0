"""The data room against floors and peers: validation, one row, ingest, and the difference of two versions.

Floors are queries written by hand for these columns in the same libraries; peers are Pandera, Pointblank and Great
Expectations with equivalent checks, in an environment of their own (``make bench-data`` makes it). Everything measured
runs in a fresh process, three times, and the median counts; results are compared before times are printed. Times
include importing the tool and exclude starting Python. They depend on the machine and its load; the last line, one JSON
object, has ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_data"))
import world  # noqa: E402  (beside this file, and not part of a package)

PEERS = ("pandera", "pointblank", "great_expectations")


@dataclass(frozen=True)
class Measured:
    """Median seconds and largest peak of several processes, and what they answered."""

    seconds: float
    peak: int
    answer: Any


class Bench:
    """Runs jobs in fresh processes and keeps what they took."""

    def __init__(self, repeat: int, peers: Path) -> None:
        self.repeat, self.peers = repeat, peers / "bin" / "python"
        self.found: dict[str, Measured] = {}

    @property
    def has_peers(self) -> bool:
        return self.peers.exists()

    def once(self, module: str, job: str, /, **given: Any) -> dict[str, Any]:
        """One run in a process of its own."""
        python = str(self.peers) if module == "peers" else sys.executable
        done = subprocess.run(
            [python, str(HERE / "_data" / "worker.py"), module, job, json.dumps(given)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{module}.{job} failed:\n{done.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def run(self, name: str, module: str, job: str, /, *, fresh: Path | None = None, **given: Any) -> None:
        """Measure a job; ``fresh`` is a folder that must not exist before."""
        runs = []
        for _ in range(self.repeat):
            if fresh is not None:
                shutil.rmtree(fresh, ignore_errors=True)
                given["folder"] = str(fresh)
            runs.append(self.once(module, job, **given))
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
        seconds = statistics.median(run["seconds"] for run in runs)
        self.found[name] = Measured(seconds, max(run["peak"] for run in runs), runs[-1]["answer"])
        print(f"  {name:<34}{seconds:9.2f} s {self.found[name].peak / 2**20:9.0f} MB", flush=True)

    def ratio(self, one: str, other: str) -> float | None:
        """Seconds of one by seconds of the other; None if one of them was left out."""
        if one not in self.found or other not in self.found:
            return None
        return round(self.found[one].seconds / self.found[other].seconds, 3)


def validation(bench: Bench, data: Path, rows: int) -> None:
    """Forty checks: ours, two floors, three peers, and ours on a tenth and on twice the rows."""
    print(f"validation of {rows:,} rows x {len(world.TYPES)} columns x {world.CHECKS} checks")
    path = str(parquet(data, rows))
    bench.run("validate", "ours", "validate", path=path)
    bench.run("validate floor polars", "floors", "polars", path=path)
    bench.run("validate floor duckdb", "floors", "duckdb", path=path)
    if bench.has_peers:
        for name in PEERS:
            bench.run(f"validate {name}", "peers", name, path=path)
    wanted = bench.found["validate floor polars"].answer
    assert len(wanted) == len(world.labels())
    assert min(wanted.values()) > 0, "every check of values has failures to count"
    for name, measured in bench.found.items():
        assert measured.answer == wanted, f"{name} counts other rows: {differing(measured.answer, wanted)}"
    for count in (rows // 10, rows * 2):
        bench.run(f"validate {count:,} rows", "ours", "validate", path=str(parquet(data, count)))


def differing(found: dict[str, int], wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Counts that are not the same: (found, wanted)."""
    return {label: (found[label], wanted[label]) for label in wanted if found.get(label) != wanted[label]}


def one_row(bench: Bench, calls: int) -> None:
    """One row against the same checks; peers get a frame of one row, made in the call."""
    print("one row")
    bench.run("row", "ours", "one_row", calls=calls)
    if bench.has_peers:
        bench.run("row pandera", "peers", "pandera_row", calls=max(20, calls // 400))
        bench.run("row great_expectations", "peers", "great_expectations_row", calls=max(5, calls // 2000))
    for name, measured in bench.found.items():
        if name.startswith("row"):
            assert measured.answer["failing"] == 3, f"{name}: {measured.answer}"
            print(f"  {name:<34}{measured.answer['us']:9.1f} us a call")


def ingest(bench: Bench, data: Path, rows: int) -> None:
    """A file into a new table of a new project, with and without a key, and into a bare Delta table."""
    print(f"ingest of {rows:,} rows")
    path = str(parquet(data, rows))
    bench.run("ingest", "ours", "ingest", fresh=data / "project", path=path, name="plain")
    bench.run("ingest with a key", "ours", "ingest", fresh=data / "project", path=path, name="keyed")
    bench.run("ingest floor deltalake", "floors", "delta", fresh=data / "delta", path=path)
    for name in ("ingest", "ingest with a key", "ingest floor deltalake"):
        assert bench.found[name].answer == {"rows": rows}, f"{name}: {bench.found[name].answer}"


def difference(bench: Bench, data: Path, rows: int) -> None:
    """Two versions, 1 % changed and 0.1 % gone and new, against one full outer join over the same files."""
    print(f"difference of two versions of {rows:,} rows")
    first, second, project = parquet(data, rows), data / f"{rows}-second.parquet", data / "versions"
    if not second.exists():
        world.write_second(second, first, rows)
    shutil.rmtree(project, ignore_errors=True)
    for path in (first, second):
        bench.once("ours", "ingest", path=str(path), folder=str(project), name="keyed", mode="overwrite")
    files = bench.once("ours", "files", folder=str(project), name="keyed")["answer"]
    given = {"folder": str(project), "name": "keyed"}
    bench.run("diff", "ours", "diff", **given, statistics=True)
    bench.run("diff without statistics", "ours", "diff", **given, statistics=False)
    bench.run(
        "diff floor duckdb", "floors", "full_join", before=files["0"], after=files["1"], folder=str(data / "spill")
    )
    shutil.rmtree(project, ignore_errors=True)
    for name in ("diff", "diff without statistics", "diff floor duckdb"):
        assert bench.found[name].answer == world.differences(rows), f"{name}: {bench.found[name].answer}"


def parquet(data: Path, rows: int) -> Path:
    """The file with so many rows, written if it is not there."""
    path = data / f"{rows}.parquet"
    if not path.exists():
        partial = path.with_suffix(".partial")
        world.write(partial, rows)
        partial.rename(path)
    return path


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name, memory = platform.processor() or platform.machine(), None
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {"cores": os.cpu_count(), "cpu": name, "memory_gb": memory}


def versions(bench: Bench) -> dict[str, str]:
    """What was measured; ours first, then that of the peers' environment."""
    from importlib.metadata import version

    names = ("retrodict", "polars", "duckdb", "pyarrow", "deltalake")
    found = {name: version(name) for name in names}
    if bench.has_peers:
        peers = bench.once("peers", "versions")["answer"]
        found |= {name if name in PEERS else f"{name} of peers": number for name, number in peers.items()}
    return found


def ratios(bench: Bench, rows: int) -> dict[str, float | None]:
    """Ours by theirs: below one is faster, or less memory."""
    found = {
        "validate_over_polars": bench.ratio("validate", "validate floor polars"),
        "validate_over_duckdb": bench.ratio("validate", "validate floor duckdb"),
        **{f"validate_over_{name}": bench.ratio("validate", f"validate {name}") for name in PEERS},
        "ingest_over_deltalake": bench.ratio("ingest", "ingest floor deltalake"),
        "keyed_ingest_over_deltalake": bench.ratio("ingest with a key", "ingest floor deltalake"),
        "diff_over_duckdb": bench.ratio("diff", "diff floor duckdb"),
        "diff_without_statistics_over_duckdb": bench.ratio("diff without statistics", "diff floor duckdb"),
    }
    small, large = f"validate {rows // 10:,} rows", f"validate {rows * 2:,} rows"
    if small in bench.found:
        found["validate_memory_of_20x_rows"] = round(bench.found[large].peak / bench.found[small].peak, 3)
    for name in PEERS:
        if f"row {name}" in bench.found:
            found[f"row_over_{name}"] = round(
                bench.found["row"].answer["us"] / bench.found[f"row {name}"].answer["us"], 6
            )
    return found


def main() -> None:
    """Measure each job, check that all agree, print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of one row")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("validation", "row", "ingest", "diff"), action="append")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="environment of the peers")
    parser.add_argument("--keep", type=Path, help="folder whose data are used again, and stay")
    given = parser.parse_args()
    bench, load = Bench(given.repeat, given.peers), os.getloadavg()[0]
    if not bench.has_peers:
        print(f"no peers: {given.peers} does not exist; make bench-data makes it")
    found = versions(bench)
    chosen = given.only or ["validation", "row", "ingest", "diff"]
    with tempfile.TemporaryDirectory() as temporary:
        data = given.keep or Path(temporary)
        data.mkdir(parents=True, exist_ok=True)
        if "validation" in chosen:
            validation(bench, data, given.rows)
        if "row" in chosen:
            one_row(bench, given.calls)
        if "ingest" in chosen:
            ingest(bench, data, given.rows)
        if "diff" in chosen:
            difference(bench, data, given.rows)
    report(bench, given, found, load)


def report(bench: Bench, given: argparse.Namespace, found: dict[str, str], load: float) -> None:
    """Print the table, the machine and the last line."""
    print(f"\n{'job':<34}{'seconds':>10}{'peak MB':>10}   median of {given.repeat}")
    for name, measured in bench.found.items():
        print(f"{name:<34}{measured.seconds:10.2f}{measured.peak / 2**20:10.0f}")
    print("  ".join(f"{name} {number}" for name, number in found.items()))
    on = {**machine(), "load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)}
    print("  ".join(f"{name} {value}" for name, value in on.items()))
    answer = {
        "benchmark": "data",
        "size": {"rows": given.rows, "columns": len(world.TYPES), "checks": world.CHECKS, "repeat": given.repeat},
        "ratios": {name: ratio for name, ratio in ratios(bench, given.rows).items() if ratio is not None},
        "seconds": {
            name: round(measured.seconds, 3) for name, measured in bench.found.items() if not name.startswith("row")
        },
        "peak_mb": {name: round(measured.peak / 2**20) for name, measured in bench.found.items()},
        "row_us": {name: round(each.answer["us"], 1) for name, each in bench.found.items() if name.startswith("row")},
        "versions": found,
        "machine": on,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
