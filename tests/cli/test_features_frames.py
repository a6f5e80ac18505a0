"""``features offline --keep, --outcomes, --engine`` and ``features extend, frames``: judged by plain sums over rows."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.cli import features_project as shop

from retrodict.core.durations import DAY
from retrodict.testing.spark import spark_missing

Run = Callable[..., Any]
MORE = """
from retrodict.features.labels import Outcome
carts = FeatureView("carts", customer, placed, [agg.histogram("shop", over="30d")])
loyal = Outcome("loyal", customer, placed, agg.count(over="7d"), wait="2d")
settled = Outcome("settled", customer, placed, agg.sum("amount", over="7d"), table=orders,
                  expression="sum_amount_7d >= 100")
"""
AT = ("--at", "placed", "--features", "spending,carts,basket")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of a hundred days, with a view of maps and two outcomes."""
    root = shop.fill(tmp_path_factory.mktemp("shop") / "original")
    with (root / "definitions.py").open("a") as stream:
        stream.write(MORE)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy to work in."""
    return Path(shutil.copytree(original, tmp_path / "shop"))


def more_orders(root: Path, days: int = 110) -> list[dict[str, Any]]:
    """Ingest what is ordered until a later day."""
    rows = shop.rows(days)
    shop.call("ingest", "orders", shop.write_csv(root / "more.csv", rows[600:]), "--project", root)
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def keep(run: Run, root: Path, *more: str | Path, spine: str | Path = "orders") -> Any:
    return run("features", "offline", "--spine", spine, *AT, "--keep", "enriched", *more, "--project", root, "--json")


def test_a_kept_frame_and_a_file_are_the_same(run: Run, root: Path) -> None:
    """Value for value and type for type, maps too, from a table and from a file of it."""
    shown = keep(run, root, "--output", root / "kept.parquet")
    assert shown.code == 0, shown.out
    assert shown.json["frame"] == {"dataset": "dataset:enriched@0", "rows": 600, "new": 600, "there": 0}
    run("features", "offline", "--spine", "orders", *AT, "--output", root / "made.parquet", "--project", root)
    kept, made = (pq.read_table(root / f"{name}.parquet") for name in ("kept", "made"))
    assert kept.schema == made.schema
    assert kept == made
    keep(run, root, "--output", root / "kept.csv")
    run("features", "offline", "--spine", root / "orders.csv", *AT, "--output", root / "made.csv", "--project", root)
    columns = shown.json["features"]
    kept_csv, made_csv = read_csv(root / "kept.csv"), read_csv(root / "made.csv")
    assert [[row[c] for c in columns] for row in kept_csv] == [[row[c] for c in columns] for row in made_csv]
    assert json.loads(kept_csv[-1]["carts__histogram_shop_30d"])


def mean(rows: list[dict[str, Any]], customer: str, at: str) -> float | None:
    """Mean amount of the orders of thirty days that were placed and paid before a time."""
    moment = shop.parse_time(at)
    amounts = [
        row["amount"] for row in rows
        if row["customer"] == customer and row["paid"] and shop.parse_time(row["paid"]) < moment
        and moment - 30 * DAY <= shop.parse_time(row["placed"]) < moment
    ]  # fmt: skip
    return sum(amounts) / len(amounts) if amounts else None


def test_extend_computes_the_new_rows_of_the_table(run: Run, root: Path) -> None:
    """By name or all; says what was there; every value is that of plain sums; once more changes nothing."""
    keep(run, root)
    rows = more_orders(root)
    shown = run("features", "extend", "--project", root, "--json")
    assert shown.json == {"frames": [{"dataset": "dataset:enriched@1", "rows": 660, "new": 60, "there": 600}]}
    keep(run, root, "--output", root / "kept.csv")
    for row, found in zip(rows, read_csv(root / "kept.csv"), strict=True):
        wanted = mean(rows, row["customer"], row["placed"])
        value = found["spending__mean_amount_30d"]
        assert (float(value) == pytest.approx(wanted, rel=1e-12)) if wanted is not None else value == ""
    again = run("features", "extend", "enriched", "--project", root)
    assert again.out == "enriched@1: 660 rows = 660 there before + 0 new\n"


def test_a_longer_file_extends_a_frame_of_a_file(run: Run, root: Path) -> None:
    """The same command with the grown file computes the rest; `extend` says that it cannot, and how to."""
    lines = (root / "orders.csv").read_text().splitlines(keepends=True)
    part = root / "part.csv"
    part.write_text("".join(lines[:301]))
    assert keep(run, root, spine=part).json["frame"]["new"] == 300
    part.write_text("".join(lines))
    assert keep(run, root, spine=part).json["frame"] == {
        "dataset": "dataset:enriched@1", "rows": 600, "new": 300, "there": 300}  # fmt: skip
    assert run("features", "extend", "--project", root, "--json").json == {"frames": []}
    refused = run("features", "extend", "enriched", "--project", root)
    assert refused.code == 2
    assert "with the longer file and --keep" in refused.err


def test_a_changed_view_is_refused_until_anew_is_said(run: Run, root: Path) -> None:
    """The message names the view and the way out; the new version is whole, the old one stays readable."""
    keep(run, root)
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('max_age="60d"', 'max_age="59d"'))
    for refused in (keep(run, root), run("features", "extend", "--project", root, "--json")):
        assert refused.code == 2
        assert refused.json["error"]["message"].startswith(
            "frame enriched: a kept frame must be made of the same features"
        )
        assert "features: changed spending" in refused.json["error"]["message"]
        assert "--anew" in refused.json["error"]["remedy"]
    assert keep(run, root, "--anew").json["frame"] == {
        "dataset": "dataset:enriched@1", "rows": 600, "new": 600, "there": 0}  # fmt: skip
    assert run("data", "show", "enriched@0", "--project", root).code == 0


def test_frames_shows_where_a_frame_comes_from(run: Run, root: Path) -> None:
    """All frames with their rows; one with hashes, table versions and what changed since; near names."""
    assert "No frame is kept yet" in run("features", "frames", "--project", root).out
    keep(run, root)
    more_orders(root)
    (listed,) = run("features", "frames", "--project", root, "--json").json["frames"]
    shown = run("features", "frames", "enriched", "--project", root, "--json").json
    assert (listed["rows"], listed["spine"]["origin"], listed["complete"]) == (600, "orders@0", True)
    assert shown["sources"]["placed"]["version"] == 0
    assert shown["newest"] == {"orders": 1}
    assert {name: shown["defined"][name] for name in shown["features"]} == shown["features"]
    assert sum(rows for rows, _ in shown["spine"]["parts"]) == 600
    assert "orders@0" in run("features", "frames", "enriched", "--project", root).out
    assert "Did you mean the frame 'enriched'" in run("features", "frames", "enrichd", "--project", root).err
    assert run("audit", "verify", "--project", root).code == 0
    assert "dataset:orders@0 (spine)" in run("lineage", "dataset:enriched@0", "--project", root).out


def test_outcomes_are_added_where_they_matured(run: Run, root: Path) -> None:
    """Value, or yes and no, by plain sums over what was known then; null beyond the newest fact."""
    out = root / "set.csv"
    shown = run("features", "offline", "--spine", "orders", "--at", "placed", "--features", "spending", "--outcomes",
                "loyal, settled", "--output", out, "--project", root, "--json")  # fmt: skip
    assert shown.code == 0, shown.out
    rows, moments = shop.rows(), shop.parse_time
    until = max(moments(row["paid"]) for row in rows if row["paid"])
    assert moments(shown.json["as_of"]) == until
    for row, found in zip(rows, read_csv(out), strict=True):
        start = moments(row["placed"])
        seen = [
            other for other in rows if other["customer"] == row["customer"] and other["paid"]
            and start <= moments(other["placed"]) < start + 7 * DAY
        ]  # fmt: skip
        later = [other for other in seen if moments(other["paid"]) < start + 9 * DAY]
        assert found["loyal"] == (str(len(later)) if start + 9 * DAY <= until else "")
        soon = [other["amount"] for other in seen if moments(other["paid"]) < start + 7 * DAY]
        settled = str(sum(soon) >= 100).lower() if soon and start + 7 * DAY <= until else ""
        assert found["settled"] == settled


def test_outcomes_of_a_time_that_is_given(run: Run, root: Path) -> None:
    """--as-of leaves out what matured later, also of a kept frame, whose table holds no outcome."""
    args = ("--outcomes", "loyal", "--as-of", "2024-02-01T00:00Z", "--output", root / "set.csv")
    assert keep(run, root, *args).json["as_of"] == "2024-02-01T00:00:00Z"
    known = [bool(row["loyal"]) for row in read_csv(root / "set.csv")]
    assert known == [True] * (22 * 6 + 1) + [False] * (600 - 22 * 6 - 1)
    assert "loyal" not in run("data", "show", "enriched", "--project", root, "--json").out


WRONG = [
    ((), "Say where the rows go"),
    (("--output", "out.csv", "--anew"), "--keep NAME"),
    (("--keep", "enriched", "--outcomes", "loyal"), "--output FILE"),
    (("--output", "out.csv", "--as-of", "2024-02-01T00:00Z"), "--outcomes NAMES"),
    (("--output", "out.csv", "--outcomes", "loyl"), "Did you mean the outcome 'loyal'"),
    (("--output", "out.csv", "--master", "yarn"), "--engine spark"),
    (("--output", "out.csv", "--spine", "ordrs"), "Did you mean the table 'orders'"),
    (("--keep", "orders",), "must hold nothing else"),
    (("--keep", "En riched",), "lower-case letters"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_does_not_go_together_is_refused(run: Run, root: Path, arguments: tuple[str, ...], said: str) -> None:
    """Before anything is computed or written: exit code 2, and the way out."""
    shown = run("features", "offline", "--spine", "orders", *AT, *arguments, "--project", root)
    assert shown.code == 2
    assert said in shown.err
    assert not (root / "out.csv").exists()


@pytest.mark.parametrize("lacking", ["pyspark", "java"])
def test_spark_that_is_not_there_is_said(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """One sentence with what to install, exit code 2."""
    from retrodict.features.spark import run as spark_run
    from retrodict.features.spark import work

    monkeypatch.setattr(spark_run, "find_spec", lambda name: None if name == lacking else "there")
    monkeypatch.setattr(work.shutil, "which", lambda _: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    shown = run("features", "offline", "--spine", "orders", *AT, "--engine", "spark", "--output", root / "out.csv",
                "--project", root)  # fmt: skip
    assert shown.code == 2
    assert ("pip install 'retrodict[spark]'" if lacking == "pyspark" else "Java 17 or later must be there") in shown.err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(spark_missing() is not None, reason=spark_missing() or "")
def test_spark_computes_the_same_values(spawn: Run, run: Run, root: Path) -> None:
    """To a file and kept: equal to the local result, maps, texts and derived features too; a local run extends it."""
    more_orders(root)
    done = spawn("features", "offline", "--spine", "orders@0", *AT, "--engine", "spark", "--master", "local[2]",
                 "--keep", "enriched", "--output", root / "spark.parquet", "--project", root, "--json")  # fmt: skip
    assert done.code == 0, done.err
    run("features", "offline", "--spine", "orders@0", *AT, "--output", root / "here.parquet", "--project", root)
    far, near = (pq.read_table(root / f"{name}.parquet") for name in ("spark", "here"))
    assert far.schema == near.schema
    assert repr(far.to_pylist()) == repr(near.to_pylist())
    assert keep(run, root).json["frame"] == {"dataset": "dataset:enriched@1", "rows": 660, "new": 60, "there": 600}


SMALL = """
import sys
from retrodict.features.offline import batches, kept_writer
batches._PIECE, kept_writer._COMMIT = 10, 10
from retrodict.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_killed_command_goes_on(run: Run, root: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """`kill -9` in the middle: the same command computes the rest, and the frame is as if nothing had happened."""
    import sys

    (tmp_path / "small.py").write_text(SMALL)  # versions of ten rows: there is a middle
    words = [sys.executable, tmp_path / "small.py", "features", "offline", "--spine", "orders", *AT, "--keep",
             "enriched", "--project", root]  # fmt: skip
    with subprocess.Popen([str(word) for word in words], env=environment, stderr=subprocess.PIPE) as process:
        log = root / "state" / "tables" / "enriched" / "_delta_log"
        while process.poll() is None and len(list(log.glob("*.json"))) < 3:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    listed = run("features", "frames", "--project", root, "--json").json["frames"]
    assert not listed[0]["complete"]
    assert "interrupted" in run("features", "frames", "--project", root).out
    done = keep(run, root, "--output", root / "kept.parquet").json["frame"]
    assert (done["rows"], done["there"]) == (600, listed[0]["rows"])
    assert 0 < done["new"] < 600
    run("features", "offline", "--spine", "orders", *AT, "--output", root / "made.parquet", "--project", root)
    assert pq.read_table(root / "kept.parquet") == pq.read_table(root / "made.parquet")
    assert run("audit", "verify", "--project", root).code == 0
