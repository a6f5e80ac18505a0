"""``features offline, online, push``: files in and out, judged by sums over the rows in plain Python."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli import features_project as shop

from retrodict.core.durations import DAY

Run = Callable[..., Any]
LATE = "2024-04-23T00:00Z"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled, and with online state."""
    root = shop.fill(tmp_path_factory.mktemp("shop") / "original")
    shop.call("features", "build", "--project", root)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy to work in."""
    return Path(shutil.copytree(original, tmp_path / "shop"))


def mean(customer: str, at: str, days: int) -> float | None:
    """Mean amount of a customer's orders that were placed and paid before a time."""
    moment = shop.parse_time(at)
    amounts = [
        row["amount"]
        for row in shop.rows()
        if row["customer"] == customer and row["paid"] and shop.parse_time(row["paid"]) < moment
        and moment - days * DAY <= shop.parse_time(row["placed"]) < moment
    ]  # fmt: skip
    return sum(amounts) / len(amounts) if amounts else None


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


SPINE = [
    ("007", "2024-02-10T12:00Z", 10.0),
    ("013", "2024-03-01T02:00+02:00", 20.0),
    ("nobody", "2024-03-01T00:00Z", 1),
]


def write_spine(root: Path, name: str = "spine.csv") -> Path:
    rows = [{"note": f"n{i}", "customer": c, "when": at, "amount": a} for i, (c, at, a) in enumerate(SPINE)]
    return shop.write_csv(root / name, rows)


def test_offline_adds_what_was_known_at_each_row(run: Run, root: Path) -> None:
    """Keys like 007 stay text, other columns come through, and the means are those of plain sums."""
    out = root / "frame.csv"
    shown = run("features", "offline", "--spine", write_spine(root), "--at", "when", "--features",
                "spending.mean_amount_30d,basket", "--output", out, "--project", root, "--json")  # fmt: skip
    assert shown.code == 0, shown.out
    assert shown.json["features"] == ["spending__mean_amount_30d", "basket__over_mean"]
    assert shown.json["tables"] == {"orders": 0}
    written = read_csv(out)
    assert [(row["note"], row["customer"]) for row in written] == [("n0", "007"), ("n1", "013"), ("n2", "nobody")]
    for row, (customer, at, amount) in zip(written, SPINE, strict=True):
        wanted = mean(customer, at, 30)
        assert (float(row["spending__mean_amount_30d"]) if wanted else row["spending__mean_amount_30d"]) == (
            pytest.approx(wanted, rel=1e-12) if wanted else ""
        )
        assert (float(row["basket__over_mean"]) == pytest.approx(amount - wanted)) if wanted else True


def test_offline_takes_and_gives_parquet(run: Run, root: Path) -> None:
    """The same values as from CSV, in their own types."""
    spine = pa.table({"customer": ["007"], "when": pa.array([shop.parse_time(LATE)]).cast(pa.timestamp("us", "UTC"))})
    pq.write_table(spine, root / "spine.parquet")
    assert run("features", "offline", "--spine", root / "spine.parquet", "--at", "when", "--features", "spending",
               "--output", root / "out.parquet", "--project", root).code == 0  # fmt: skip
    (row,) = pq.read_table(root / "out.parquet").to_pylist()
    assert row["spending__mean_amount_30d"] == pytest.approx(mean("007", LATE, 30), rel=1e-12)
    assert isinstance(row["spending__count_where_amount_gt_50_30d"], int)


def test_online_gives_what_offline_gives_at_that_time(run: Run, root: Path) -> None:
    """Value for value, text keys and derived features included; and the statuses are counted."""
    keys = shop.write_csv(root / "keys.csv", [{"customer": c, "amount": a} for c, _, a in SPINE])
    spine = shop.write_csv(root / "spine.csv", [{"customer": c, "amount": a, "when": LATE} for c, _, a in SPINE])
    wanted = "spending,basket"
    shown = run("features", "online", "--keys", keys, "--at", LATE, "--features", wanted, "--output",
                root / "on.parquet", "--project", root, "--json")  # fmt: skip
    assert shown.code == 0, shown.out
    assert shown.json["statuses"] == {"spending": {"ok": 2, "unseen": 1}}
    run("features", "offline", "--spine", spine, "--at", "when", "--features", wanted, "--output",
        root / "off.parquet", "--project", root)  # fmt: skip
    names = shown.json["features"]
    assert pq.read_table(root / "on.parquet", columns=names).equals(pq.read_table(root / "off.parquet", columns=names))
    assert pq.read_table(root / "on.parquet")["spending__mean_amount_30d"].null_count == 1


def test_online_of_a_time_that_state_does_not_reach(run: Run, root: Path) -> None:
    """Null values, and the reason is counted; nothing is guessed."""
    keys = shop.write_csv(root / "keys.csv", [{"customer": "007"}])
    shown = run("features", "online", "--keys", keys, "--at", "2024-02-01T00:00Z", "--features", "spending",
                "--output", root / "on.csv", "--project", root, "--json").json  # fmt: skip
    assert shown["statuses"] == {"spending": {"beyond_horizon": 1}}
    assert set(shown["nulls"].values()) == {1}


OFFLINE = ("features", "offline", "--at", "when", "--features")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("spendin", "--output", "out.csv"), "Did you mean the view 'spending'"),
        (("spending.mean_amount_3d", "--output", "out.csv"), "Did you mean the feature 'mean_amount_3"),
        ((",", "--output", "out.csv"), "at least one feature must be named"),
        (("spending", "--output", "out.txt"), ".csv or .parquet file"),
        (("spending", "--output", "no/out.csv"), "folder that exists"),
        (("shops", "--output", "out.csv"), "got 'shop'"),
    ],
)
def test_offline_refuses_before_it_works(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    """Unknown names with near ones, a place that cannot be written, a key that is missing: exit code 2, no file."""
    monkeypatch.chdir(root)
    write_spine(root)
    shown = run(*OFFLINE, *arguments, "--spine", "spine.csv")
    assert shown.code == 2
    assert said in shown.err
    assert not (root / "out.csv").exists()


@pytest.mark.parametrize(("at", "said"), [("2024-02-10T12:00", "zone"), ("soon", "row 1"), ("", "1 nulls")])
def test_a_time_without_zone_is_refused(run: Run, root: Path, at: str, said: str) -> None:
    """Never guessed; the message names row and column, and not the value."""
    spine = shop.write_csv(root / "spine.csv", [{"customer": "SECRET", "when": at}])
    shown = run(*OFFLINE, "spending", "--spine", spine, "--output", root / "out.csv", "--project", root)
    assert shown.code == 2
    assert said in shown.err
    assert "SECRET" not in shown.err


def test_offline_of_a_table_that_lacks_a_column(run: Run, root: Path) -> None:
    """The message names view, feature, column and the nearest one."""
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('latest("shop"', 'latest("shopp"'))
    shown = run(*OFFLINE, "spending", "--spine", write_spine(root), "--output", root / "out.csv", "--project", root)
    assert shown.code == 2
    assert "view 'spending', feature 'latest_shopp'" in shown.err
    assert "Did you mean the column 'shop'" in shown.err


EVENT = {"id": "new1", "customer": "007", "shop": "N", "placed": "2024-04-22T10:00Z", "paid": "2024-04-22T11:00Z",
         "amount": "1000", "items": "3", "late": "true"}  # fmt: skip


def push(run: Run, root: Path, *events: dict[str, str]) -> Any:
    path = shop.write_csv(root / "events.csv", list(events))
    return run("features", "push", "placed", "--events", path, "--project", root, "--json")


def test_pushed_events_reach_online_values_once(run: Run, root: Path) -> None:
    """The same file twice is one event; the mean is what plain sums with it give."""
    assert push(run, root, EVENT).json["accepted"] == 1
    assert push(run, root, EVENT, EVENT).json | {"reasons": []} == {
        "source": "placed", "stream": "events/orders", "events": 2, "accepted": 0, "known_before": 2, "refused": 0,
        "reasons": [], "end": 1,
    }  # fmt: skip
    feed(root)
    keys = shop.write_csv(root / "keys.csv", [{"customer": "007"}])
    wanted = "spending.latest_shop,spending.mean_amount_20d"
    run("features", "online", "--keys", keys, "--at", LATE, "--features", wanted, "--output", root / "on.csv",
        "--project", root)  # fmt: skip
    moment = shop.parse_time(LATE)
    amounts = [1000.0] + [
        row["amount"] for row in shop.rows()
        if row["customer"] == "007" and row["paid"] and shop.parse_time(row["paid"]) < moment
        and moment - 20 * DAY <= shop.parse_time(row["placed"])
    ]  # fmt: skip
    (found,) = read_csv(root / "on.csv")
    assert float(found["spending__mean_amount_20d"]) == pytest.approx(sum(amounts) / len(amounts), rel=1e-12)
    assert found["spending__latest_shop"] == "N"


def feed(root: Path) -> None:
    """Apply the stream as the consumer does, for what is defined: nothing is deployed here."""
    from retrodict.features.definitions import FeatureView
    from retrodict.features.online import StreamFeeder, online_state
    from retrodict.features.plan import FeatureSet
    from retrodict.workspace import Workspace

    with Workspace(root) as project:
        features = FeatureSet(project.definitions.of(FeatureView))
        StreamFeeder(online_state(project, features), project.events, "events/orders", "placed").catch_up()


def test_wrong_events_are_refused_one_by_one(run: Run, root: Path) -> None:
    """The right ones are taken; each reason with its first row; exit code 1; no value is repeated."""
    shown = push(run, root, EVENT, {**EVENT, "id": ""}, {**EVENT, "placed": "2024-04-22"},
                 {**EVENT, "amount": "SECRET"}, {**EVENT, "id": "new2"},
                 {**EVENT, "amount": "SECRET", "id": "new3"})  # fmt: skip
    assert shown.code == 1
    assert (shown.json["accepted"], shown.json["refused"]) == (2, 4)
    assert {each["reason"]: (each["events"], each["first_row"]) for each in shown.json["reasons"]} == {
        "id is null": (1, 2), "placed is not a time in ISO 8601 with its zone": (1, 3),
        "amount is not a number": (2, 4),
    }  # fmt: skip
    assert "SECRET" not in shown.out


@pytest.mark.parametrize(
    ("change", "said"), [({"amout": "1"}, "Did you mean the column 'amount'"), ({"placed": None}, "got 'placed'")]
)
def test_a_file_with_other_columns_is_refused_whole(run: Run, root: Path, change: dict[str, Any], said: str) -> None:
    """Unknown columns, and clocks that are missing: exit code 2, and nothing is appended."""
    event = {name: value for name, value in {**EVENT, **change}.items() if value is not None}
    shown = push(run, root, event)
    assert shown.code == 2
    assert said in shown.json["error"]["message"]


def test_push_to_an_unknown_source_names_the_nearest(run: Run, root: Path) -> None:
    """Sources that a view reads."""
    shown = run("features", "push", "placd", "--events", shop.write_csv(root / "e.csv", [EVENT]), "--project", root)
    assert shown.code == 2
    assert "Did you mean the source 'placed'" in shown.err
