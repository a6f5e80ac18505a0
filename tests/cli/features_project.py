"""A small shop for the feature commands: orders of customers, a model that is trained, approved and deployed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
from pathlib import Path
from typing import Any

from retrodict.cli.main import run
from retrodict.core.clock import format_time, parse_time
from retrodict.core.durations import DAY, HOUR

__all__ = ["DEFINITIONS", "START", "call", "deploy", "fill", "parse_time", "rows", "write_csv"]

DEFINITIONS = """
from retrodict import *

orders = Table("orders", key="id", columns={"placed": "time", "paid": "time", "amount": "float", "late": "bool",
                                            "items": "int"})
placed = Source("placed", orders, event_time="placed", known_at="paid", sequence="id")
customer = Entity("customer")
spending = FeatureView("spending", customer, placed, [
    agg.mean("amount", over=["20d", "30d"]), agg.count(over="30d", where="amount > 50"), latest("shop", max_age="60d")],
    description="What a customer spends", owner="ana", tags=["money"])
shops = FeatureView("shops", Entity("shop"), placed, [agg.share("late", over="30d")], owner="ops")


@derived
def basket(amount, spending__mean_amount_30d):
    return {"over_mean": amount - spending__mean_amount_30d}


late = Label("late", orders, "late", known_at="paid", matures="20d")
late_order = Model("late_order", label=late, decide_at="placed", features=[spending, shops, basket],
    recipe=Recipe("logistic", TimeSplit("2024-01-01/2024-03-01", validate="14d", test="14d")))
ask = Policy("ask", late_order, decide={"ask": "score >= 0.5", "go": "otherwise"}, fallback=["go"], deadline="60s")
"""

START = parse_time("2024-01-01T00:00Z")


def rows(days: int = 100, seed: int = 3) -> list[dict[str, Any]]:
    """Six orders a day by twenty customers with numbers as text (``007``), a tenth of them not paid yet."""
    random_ = random.Random(seed)
    found = []
    for number in range(days * 6):
        at = START + number * DAY // 6
        amount = round(random_.uniform(5, 120), 2)
        paid = None if random_.random() < 0.1 else format_time(at + random_.randrange(1, 300) * HOUR)
        found.append({"id": f"o{number:05d}", "customer": f"{random_.randrange(20):03d}", "shop": random_.choice("NSE"),
                      "placed": format_time(at), "paid": paid, "amount": amount, "items": random_.randrange(1, 9),
                      "late": str(random_.random() < 0.2 + amount / 300).lower()})  # fmt: skip
    return found


def write_csv(path: Path, listed: list[dict[str, Any]]) -> Path:
    """Write rows as CSV, null as nothing."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    return path


def call(*arguments: str | Path) -> dict[str, Any]:
    """Run a command with ``--json`` that has to work; for fixtures, where capsys is not at hand."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run([*map(str, arguments), "--json"])
    assert code == 0, out.getvalue()
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def fill(root: Path) -> Path:
    """Make the project in a new folder and ingest its orders."""
    root.mkdir(parents=True)
    (root / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (root / "definitions.py").write_text(DEFINITIONS)
    call("ingest", "orders", write_csv(root / "orders.csv", rows()), "--project", root)
    return root


def deploy(root: Path) -> Path:
    """Build, verify, train, approve, deploy."""
    call("features", "build", "--project", root)
    call("features", "verify", "--samples", "10", "--project", root)
    call("train", "late_order", "--actor", "ana", "--project", root)
    call("models", "approve", "late_order@1", "--reason", "fine", "--actor", "ben", "--project", root)
    call("deploy", "ask", "--project", root)
    return root
