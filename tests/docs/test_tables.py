"""Three real tables without a history: every command of the page, then decisions, replays and outcomes."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrodict import Policy, Project
from retrodict.learning.frame import build_frame, parts_of

OUTPUTS = {
    "lend": ["score"],
    "sort": [f'{word}["{name}"]' for word in ("p", "set") for name in ("barbera", "barolo", "grignolino")],
    "offer": ["value", "low", "high"],
}
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8").partition("## Tables without a history")[2]


@pytest.mark.slow
def test_three_tables_go_from_file_to_replayed_decision(tmp_path, monkeypatch, capsys):
    """What is typed works, gates pass, and decisions of each task are replayed exactly."""
    from retrodict.cli.main import run

    folder = shutil.copytree(ROOT / "examples" / "tables", tmp_path / "tables")
    monkeypatch.chdir(folder)
    for line in re.findall(r"^\$ retrodict (.*)$", PAGE.partition("## Time")[0], flags=re.MULTILINE):
        code = run(shlex.split(line))
        output = capsys.readouterr()
        assert code == 0, f"{line}\n{output.out}\n{output.err}"
    with Project(folder, actor="ana") as p:
        for policy, table in (("lend", "credit"), ("sort", "wine"), ("offer", "diamonds")):
            with (folder / f"{table}.csv").open(encoding="utf-8") as stream:
                row = next(csv.DictReader(stream))
            label = p.definitions.get(Policy, policy).model.label
            values = {
                name: _value(text) for name, text in row.items() if name not in ("id", label.expression, "outcome")
            }
            decision = p.decide(policy, key=row["id"], explain=True, **values)
            assert decision.record.fallback is None, decision.record.error
            assert OUTPUTS[policy] == list(decision.record.outputs or ["score"])
            assert decision.replay().exact


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


FLIGHTS = (ROOT / "docs" / "flight-delays.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_flight_delays_go_from_file_to_a_decision_on_quantiles(tmp_path, monkeypatch, capsys):
    """What flight-delays.md types works, its figures are those of the run, and the decision is replayed exactly."""
    from retrodict.cli.main import run

    monkeypatch.chdir(tmp_path)
    first, *lines = re.findall(r"^\$ retrodict (.*)$", FLIGHTS, flags=re.MULTILINE)
    assert run(shlex.split(first)) == 0
    folder = tmp_path / "flights"
    monkeypatch.chdir(folder)
    with (folder / "definitions.py").open("a", encoding="utf-8") as file:
        file.write("\n" + re.findall(r"```python\n(.*?)```", FLIGHTS, flags=re.DOTALL)[0])
    for line in lines:
        code = run(shlex.split(line))
        output = capsys.readouterr()
        assert code == 0, f"{line}\n{output.out}\n{output.err}"
    with Project(folder, actor="ana") as p:
        trained = p.runs.get(p.models.get("delay@1").run)
        for split, name in (("test", "lightgbm"), ("test/constant", "constant"), ("test/heuristic", "heuristic")):
            values = trained.record.values(split)
            pattern = (
                rf"`{name}`.*\| {values['pinball']:.2f} \| {values['interval_coverage']:.2f} "
                rf"\| {values['interval_width']:.0f} min"
            )
            assert re.search(pattern, FLIGHTS), pattern
        assert f"{trained.record.data['rows']['test']:,} flights in August" in FLIGHTS
        assert str(trained.plot("coverage")).startswith("<svg")
        assert 0.7 < trained.metrics["span_coverage"] < 0.9
        decision = p.decide("rebook", at="2013-09-01T17:50Z", key="2013-09-01:MQ3588:LGA:1450", explain=True,
                            origin="LGA", carrier="MQ", tailnum="N500MQ", sched_dep="2013-09-01T18:50Z", dest="MSP",
                            distance=1020)  # fmt: skip
        assert decision.record.fallback is None, decision.record.error
        outputs = decision.record.outputs
        assert list(outputs) == ["q10", "q50", "q90", "low", "high"]
        assert outputs["low"] <= outputs["q10"] <= outputs["q50"] <= outputs["q90"] <= outputs["high"]
        assert any("q50" in reason for reason in decision.reasons)
        assert decision.replay().exact


EVENTS = (ROOT / "docs" / "time-to-event.md").read_text(encoding="utf-8")


def test_subscriptions_go_from_file_to_a_decision_by_horizons(tmp_path, monkeypatch, capsys):
    """What time-to-event.md prints is the example, its commands work, and its figures are those of the run."""
    from retrodict.cli.main import run

    folder = shutil.copytree(ROOT / "examples" / "subscriptions", tmp_path / "subscriptions")
    assert re.findall(r"```python\n(.*?)```", EVENTS, flags=re.DOTALL)[0] == (folder / "definitions.py").read_text()
    monkeypatch.chdir(folder)
    script, *lines = re.findall(r"^\$ (?:retrodict|python) (.*)$", EVENTS, flags=re.MULTILINE)
    runpy.run_path(str(folder / script))
    for line in lines:
        code = run(shlex.split(line))
        output = capsys.readouterr()
        assert code == 0, f"{line}\n{output.out}\n{output.err}"
    with Project(folder, actor="ana") as p:
        trained = p.runs.get(p.models.get("churn@1").run)
        for split, name in (("test", "cox"), ("test/group_rate", "group_rate"), ("test/constant", "constant")):
            values = trained.record.values(split)
            figures = [f"{values[name]:.3f}" for name in ("c_index", "brier_90d", "brier_180d")]
            assert re.search(rf"`{name}`.*\| {' . '.join(map(re.escape, figures))} \|", EVENTS), (name, figures)
        assert f"Of {trained.record.data['rows']['test']:,} subscriptions" in EVENTS
        assert str(trained.plot("calibration 90d")).startswith("<svg")
        row = {"plan": "monthly", "seats": 3, "tickets": 6}
        decision = p.decide("keep", started="2025-07-01T09:00:00Z", explain=True, **row)
        assert decision.record.fallback is None, decision.record.error
        outputs = decision.record.outputs
        hazard = 0.004 * np.exp(0.6 * 1.5 + 0.5 + 0.5)  # as the script says
        for days, value in zip((30, 90, 180), outputs.values(), strict=True):
            assert value == pytest.approx(1 - np.exp(-hazard * days), abs=0.1)
        assert decision.reasons[0] == 'tickets = 6 raises event_by["90d"]'
        assert decision.replay().exact


def test_heart_transplants_are_judged_for_what_they_are(tmp_path, monkeypatch, capsys):
    """The snippet on real days runs, its hazard ratio is that of statsmodels, and its sentences are what is printed."""
    from statsmodels.duration.hazard_regression import PHReg

    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", EVENTS, flags=re.DOTALL)[1], names)  # the page itself
    printed = " ".join(capsys.readouterr().out.split())
    run, heart = names["run"], names["heart"]
    assert run.record.data["rows"] == {"train": 41, "test": 14, "validate": 14}
    with names["project"] as p:
        frame = build_frame(p.workspace.tables, names["model"], {"patients": 0})
        part = heart.iloc[parts_of(frame, names["recipe"].split, now=run.record.data["now"])[1]["train"]]
    (row,) = run.record.summary["notes"]["hazard_ratios"]
    days = part.survival.astype(int).clip(lower=1)
    oracle = PHReg(days, part[["age"]], status=part.censors, ties="efron").fit(tol=1e-12)
    assert row["hazard_ratio"] == pytest.approx(np.exp(oracle.params[0]), rel=1e-4)
    assert row["standard_error"] == pytest.approx(oracle.bse[0], rel=1e-3)
    assert f"factor {row['hazard_ratio']:.3f}" in EVENTS
    assert "brier_365d" not in {name for name, value in run.metrics.items() if value is not None}
    for text in ("Only 14 rows judge the model", "(4 of 14 rows were followed for 365d", "Prefer a constant"):
        assert text in printed, printed
