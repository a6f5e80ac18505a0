"""A view over another view's features, through a kept frame: judged by sums in plain Python over the orders alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest
from tests.cli import features_project as shop

from retrodict.core.durations import DAY

Run = Callable[..., Any]
MORE = """
enriched = Table("enriched", key="id")
scored = Source("scored", enriched, event_time="placed", known_at="paid", sequence="id")
company = FeatureView("company", customer, scored, [
    agg.mean("shops__share_late_30d", over="30d", name="risk"),
    agg.max("shops__share_late_30d", over="20d", name="worst")])
"""
Rows = list[dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A shop whose model also asks for the risk of the shops at which a customer ordered."""
    found = shop.fill(tmp_path / "shop")
    path = found / "definitions.py"
    text = path.read_text().replace("late = Label(", MORE + "late = Label(")
    path.write_text(text.replace("[spending, shops, basket]", "[company, shops]"))
    extend(found, "offline", "--spine", "orders", "--at", "placed", "--features", "shops", "--keep", "enriched")
    return found


def extend(root: Path, *words: str) -> dict[str, Any]:
    return shop.call("features", *words, "--project", root)


def seen(rows: Rows, column: str, value: str, moment: int, days: int) -> Rows:
    """Orders of a customer or shop that were placed within days before a moment, and paid before it."""
    return [
        row for row in rows if row[column] == value and row["paid"] and shop.parse_time(row["paid"]) < moment
        and moment - days * DAY <= shop.parse_time(row["placed"]) < moment
    ]  # fmt: skip


def risk(rows: Rows, order: dict[str, Any]) -> float | None:
    """Share of late orders of the order's shop, as it was when the order was placed."""
    before = seen(rows, "shop", order["shop"], shop.parse_time(order["placed"]), 30)
    return sum(each["late"] == "true" for each in before) / len(before) if before else None


def expected(rows: Rows, customer: str, at: str) -> tuple[float | None, float | None]:
    """Mean over 30 days and maximum over 20 of the risk of each of a customer's orders at its own time."""
    moment = shop.parse_time(at)
    months, weeks = ([r for o in seen(rows, "customer", customer, moment, days) if (r := risk(rows, o)) is not None]
                     for days in (30, 20))  # fmt: skip
    return sum(months) / len(months) if months else None, max(weeks, default=None)


def check(path: Path, rows: Rows, asked: list[tuple[str, str]]) -> int:
    """Compare every value of a file with the plain sums; how many of them are no null."""
    told = 0
    with path.open(newline="") as stream:
        for found, (customer, at) in zip(csv.DictReader(stream), asked, strict=True):
            for name, wanted in zip(("risk", "worst"), expected(rows, customer, at), strict=True):
                column = next(key for key in found if key.startswith(f"company__{name}"))
                assert (found[column] == "") == (wanted is None)
                told += wanted is not None
                assert wanted is None or float(found[column]) == pytest.approx(wanted, rel=1e-12)
    return told


def asked_of(rows: Rows) -> list[tuple[str, str]]:
    """Every fifth order asks about its own customer at its own time."""
    return [(row["customer"], row["placed"]) for row in rows[::5]]


def test_offline_values_are_those_of_plain_sums(run: Run, root: Path) -> None:
    """Each order with its shop's risk as of its own time, each mean of what was known at the request."""
    asked = asked_of(shop.rows())
    spine = shop.write_csv(root / "asked.csv", [{"customer": c, "when": at} for c, at in asked])
    shown = run("features", "offline", "--spine", spine, "--at", "when", "--features", "company", "--output",
                root / "out.csv", "--project", root)  # fmt: skip
    assert shown.code == 0, shown.err
    assert check(root / "out.csv", shop.rows(), asked) > 150


def test_growth_reaches_online_values(run: Run, root: Path) -> None:
    """More orders: the frame is extended, `build` brings the online state up, and values are those of plain sums."""
    extend(root, "build")
    rows = shop.rows(110)
    shop.call("ingest", "orders", shop.write_csv(root / "more.csv", rows[600:]), "--project", root)
    assert extend(root, "extend")["frames"] == [
        {"dataset": "dataset:enriched@1", "rows": 660, "new": 60, "there": 600}
    ]  # fmt: skip
    assert extend(root, "build")["sources"]["scored"]["stored"] == sum(bool(row["paid"]) for row in rows[600:])
    at = "2024-05-03T00:00Z"
    asked = [(f"{number:03d}", at) for number in range(20)]
    keys = shop.write_csv(root / "keys.csv", [{"customer": customer} for customer, _ in asked])
    shown = run("features", "online", "--keys", keys, "--at", at, "--features", "company", "--output",
                root / "on.csv", "--project", root, "--json")  # fmt: skip
    assert shown.json["statuses"] == {"company": {"ok": 20}}
    assert check(root / "on.csv", rows, asked) > 30
    assert run("features", "verify", "--samples", "10", "--project", root, "--json").code == 0


def test_a_frame_that_reads_another_is_extended_after_it(run: Run, root: Path) -> None:
    """Whatever their names: its new rows see what the other one got, and every value is that of plain sums."""
    extend(root, "offline", "--spine", "orders", "--at", "placed", "--features", "company", "--keep", "asked")
    rows = shop.rows(110)
    shop.call("ingest", "orders", shop.write_csv(root / "more.csv", rows[600:]), "--project", root)
    grown = extend(root, "extend")["frames"]
    assert [(each["dataset"], each["new"]) for each in grown] == [("dataset:enriched@1", 60), ("dataset:asked@1", 60)]
    run("features", "offline", "--spine", "orders", "--at", "placed", "--features", "company", "--keep", "asked",
        "--output", root / "out.csv", "--project", root)  # fmt: skip
    assert check(root / "out.csv", rows, [(row["customer"], row["placed"]) for row in rows]) > 900
    assert [each["new"] for each in extend(root, "extend")["frames"]] == [0, 0]


@pytest.mark.slow
def test_a_decision_that_rests_on_it_is_traced(run: Run, root: Path) -> None:
    """Trained, approved, deployed, decided: its value is that of plain sums, its lineage leads to the kept frame."""
    from retrodict.decisions.loader import Loader
    from retrodict.decisions.recorder import LogWriter
    from retrodict.decisions.records import encode_record
    from retrodict.decisions.requests import DecisionRequest
    from retrodict.registry import current
    from retrodict.workspace import Workspace

    shop.deploy(root)
    at = "2024-04-23T00:00Z"
    with Workspace(root) as project:
        servant = Loader(project).load(current(project)["ask"])
        request = DecisionRequest(entities={"customer": "007", "shop": "N"}, context={})
        record = servant.decide(request, decision_id="a" * 26, at=shop.parse_time(at), arrived_ns=perf_counter_ns())
        with LogWriter(project) as writer:
            writer.append([encode_record(record)])
    assert record.features["company__risk"] == pytest.approx(expected(shop.rows(), "007", at)[0], rel=1e-12)
    traced = run("lineage", f"decision:{'a' * 26}", "--project", root, "--json").json
    assert "dataset:enriched@0" in json.dumps(traced)
    assert run("features", "parity", "ask", "--project", root).code == 0
