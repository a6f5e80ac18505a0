"""A table without history, from file to watched decision: no moment of the decision, no time of the label."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.cli.features_project import call

from retrodict import Project
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, RetrodictError

DEFINITIONS = """
from retrodict import *

applications = Table("applications", key="id", columns=dict.fromkeys(["id", "amount", "months", "age"], "int"))
bad = Label("bad", applications, "risk = 'bad'")

@derived
def burden(amount, months):
    return {"rate": amount / months}

credit = Model("credit", label=bad, features=[columns("amount", "months", "purpose", "age"), burden],
    recipe=Recipe("logistic", SPLIT, baseline_group="purpose"), gates=["auc >= 0.6"])
lend = Policy("lend", credit, decide={"refuse": "score >= 0.5", "grant": "otherwise"}, deadline="60s")
watch = Monitor(lend, name="watch")
"""
PAST = """FeatureView("past", Entity("customer"), Source("asked", applications, event_time="at"),
    [agg.count(over="30d")])],"""
NOW = 4_000_000_000_000_000  # after the clock of the store, which says when a version was written


def rows(count: int = 1_000) -> list[dict[str, Any]]:
    """Applications as the German credit data have them: 30 % bad, by length, amount and purpose."""
    random_ = random.Random(11)
    listed = []
    for number in range(count):
        months, age = random_.choice([6, 12, 24, 36, 48]), random_.randrange(19, 75)
        amount = round(random_.lognormvariate(7.8, 0.8))
        purpose = random_.choice(["car", "radio", "education", "business"])
        odds = 0.05 * (months - 24) + 0.0001 * (amount - 3_000) - 0.02 * (age - 40) + (purpose == "education") - 1.1
        listed.append(
            {"id": number, "customer": f"c{number // 2}", "amount": amount, "months": months, "purpose": purpose,
             "age": age, "risk": "bad" if random_.random() < 1 / (1 + np.exp(-odds)) else "good"}
        )  # fmt: skip
    return listed


def written(folder: Path, split: str) -> None:
    (folder / "retrodict.toml").write_text('[project]\nname = "credit"\n')
    (folder / "definitions.py").write_text(DEFINITIONS.replace("SPLIT", split))
    with (folder / "applications.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows(1)[0]))
        writer.writeheader()
        writer.writerows(rows())


@pytest.mark.parametrize("split", ["RandomSplit(seed=3)", 'GroupSplit(by="customer")', 'HashSplit(by="id")'])
def test_from_file_to_watched_decision(tmp_path: Path, split: str) -> None:
    """Ingest, plan, train, replay of the run, approve, deploy, decide, replay of the decision, parity, outcomes."""
    written(tmp_path, split)
    clock = SimulatedClock(NOW)
    with Project(tmp_path, actor="ana", clock=clock) as project:
        project.data.ingest("applications", tmp_path / "applications.csv")
        assert project.plan().ok
        run = project.train("credit")
        assert sum(run.record.data["rows"].values()) == 1_000
        assert run.record.data["left_out"] == {"pending": 0, "void": 0}
        assert run.record.params["split"]["kind"] == split.partition("(")[0]
        assert run.metrics["auc"] > 0.65
        assert run.replay().exact
        with Project(tmp_path, actor="ben", clock=clock) as second:
            second.models.approve("credit@1", reason="test")
        project.features.verify()
        project.deploy("lend", reason="test")
        assert project.plan().next() == []
        values = {name: rows()[7][name] for name in ("amount", "months", "purpose", "age")}
        decision = project.decide("lend", key="7", **values)
        unknown = project.decide("lend", key="2000", **values)
        assert decision.features["burden__rate"] == values["amount"] / values["months"]
        assert decision.replay().ok
        assert project.features.parity("lend").verdict == "equal"
        clock.move_to(NOW + DAY)
        outcomes = project.outcomes.show("lend")
        states = {row["key"]: (row["status"], row["label"]) for row in outcomes.to_dict()["newest"]}
        assert states["7"] == ("known", rows()[7]["risk"] == "bad")
        assert states["2000"][0] != "known"
        assert unknown.score == decision.score
        assert project.monitor("watch").to_dict()["counts"]["known"] == 1


def test_the_command_line_goes_the_same_way(tmp_path: Path) -> None:
    """And a second training on the same rows learns the same trees."""
    written(tmp_path, 'HashSplit(by="id")')

    def do(*arguments: Any) -> Any:
        return call(*arguments, "--project", tmp_path)

    do("ingest", "applications", tmp_path / "applications.csv")
    assert json.loads(json.dumps(do("plan")))
    first, second = (do("train", "credit", "--actor", "ana") for _ in range(2))
    assert first["metrics"] == second["metrics"]
    assert do("replay", "run", first["run"]["run"])["exact"] is True


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SPLIT", 'TimeSplit("2024-01-01/2024-02-01")', "in time must have a moment .*got 'TimeSplit'.*HashSplit"),
        ("burden],", PAST, r"must know before which moment they count; got \['past'\]"),
        ("label=bad,", "label=bad, decide_at='asked_at',", "must say when it is known; got None"),
        ("SPLIT", 'GroupSplit(by="custmer")', "a split must read columns.*Did you mean the column 'customer'"),
    ],
)  # fmt: skip
def test_what_would_need_a_moment_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """With the reason, and how to say it."""
    written(tmp_path, new if old == "SPLIT" else "RandomSplit()")
    path = tmp_path / "definitions.py"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RetrodictError, match=message), Project(tmp_path, actor="ana") as project:  # noqa: PT012
        project.data.ingest("applications", tmp_path / "applications.csv")
        project.train("credit")


def test_a_retraining_on_other_days_is_refused(tmp_path: Path) -> None:
    """Days mean nothing to rows without a time."""
    written(tmp_path, "RandomSplit()")
    with Project(tmp_path, actor="ana") as project, pytest.raises(RetrodictError, match="of a split in time"):
        project.train("credit", train="2024-01-01/2024-02-01")


def test_a_retraining_that_draws_anew_says_so_and_has_no_champion_to_beat(tmp_path: Path) -> None:
    """At random the version in force may have learned from the rows that judge; by hash it has not."""
    for split in ("RandomSplit()", 'HashSplit(by="id")'):
        folder = tmp_path / split[:4]
        folder.mkdir()
        written(folder, split)
        path = folder / "definitions.py"
        path.write_text(path.read_text().replace('["auc >= 0.6"]', '["auc >= 0.6", "better_than_champion"]'))
        clock = SimulatedClock(NOW)
        with Project(folder, actor="ana", clock=clock) as project:
            project.data.ingest("applications", folder / "applications.csv")
            first = project.train("credit")
            with Project(folder, actor="ben", clock=clock) as second:
                second.models.approve("credit@1", reason="test")
            project.features.verify()
            project.deploy("lend", reason="test")
            assert not any("draws anew" in line for line in first.record.summary["warnings"])
            same = project.train("credit", again=True).version.gates[1]
            assert same["status"] == "fail", "the same rows judge both versions: neither learned from them"
            project.data.ingest(
                "applications", pa.Table.from_pylist([{**row, "id": row["id"] + 5_000} for row in rows(200)])
            )
            later = project.train("credit")
            gate, warned = later.version.gates[1], [w for w in later.record.summary["warnings"] if "draws anew" in w]
            if split == "RandomSplit()":
                assert (gate["status"], len(warned)) == ("not evaluable", 1)
                assert "may have learned from the rows that judge" in gate["reason"]
            else:
                assert (gate["status"], warned) == ("fail", [])


def test_an_outcome_needs_a_moment(tmp_path: Path) -> None:
    """It is what happened after it."""
    from retrodict import Entity, Model, Outcome, RandomSplit, Recipe, Source, Table, agg, columns

    paid = Source("paid", Table("payments"), event_time="at")
    label = Outcome("paid_back", Entity("customer"), paid, agg.count(over="30d"), table=Table("a", key="id"),
                    expression="count_30d > 0")  # fmt: skip
    with pytest.raises(DefinitionError, match="what happened from then on"):
        Model("m", label=label, features=[columns("x")], recipe=Recipe("constant", RandomSplit()))
