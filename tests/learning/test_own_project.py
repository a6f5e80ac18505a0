"""A project of its own on real flights: trained on outcomes, served, watched, all through the command line."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from tests.cli.features_project import call

from retrodict.core.clock import format_time, parse_time
from retrodict.core.durations import HOUR

DATA = Path(__file__).parents[2] / "src" / "retrodict" / "project" / "template" / "data"
DEFINITIONS = '''
"""Will more than a quarter of what leaves within three hours be late? Asked on the hour, of the weather's hours."""
from retrodict import *
from retrodict.features.labels import Outcome

flights = Table("flights", key="flight_id",
    columns={**dict.fromkeys(["sched_dep", "dep_time", "arr_time"], "time"), "arr_delay": "int"})
weather = Table("weather", key=["origin", "hour"], columns={"hour": "time", "wind_speed": "float", "visib": "float"})
flown = Source("flown", flights, event_time="dep_time", known_at="arr_time", sequence="flight_id")
sky = Source("sky", weather, event_time="hour", delay="80m")
origin = Entity("origin")
delays = FeatureView("delays", origin, flown, [agg.mean("arr_delay", over=["6h", "24h"]),
    agg.share("arr_delay > 15", over="6h")])
air = FeatureView("air", origin, sky, [latest("wind_speed", "visib", max_age="6h")])
late_share = agg.share("arr_delay > 15", over="3h", name="late_share")
bad_hours = Outcome("bad_hours", origin, flown, late_share, wait="12h", table=weather, expression="late_share > 0.25")
trouble = Model("trouble", label=bad_hours, decide_at="hour", features=[delays, air],
    recipe=Recipe("logistic", TimeSplit("2013-01-02/2013-07-01", validate="1 month", test="1 month")))
warn = Policy("warn", trouble, decide={"warn": "score >= 0.5", "ok": "otherwise"}, fallback=["ok"], deadline="30s")
watch = Monitor(warn, name="watch")
'''
FIRST, LAST = parse_time("2013-09-01T17:00Z"), parse_time("2013-09-10T20:00Z")
NOW = parse_time("2013-09-10T12:00Z")


def flights():
    """Departure, arrival and delay of every flight of the files that has all three."""
    found = []
    for name in ("flights.csv.gz", "september_flights.csv.gz"):
        with gzip.open(DATA / name, "rt") as lines:
            found += [
                (parse_time(row["dep_time"]), parse_time(row["arr_time"]), int(row["arr_delay"]))
                for row in csv.DictReader(lines)
                if row["dep_time"] and row["arr_time"] and row["arr_delay"]
            ]
    return found


def late(hour, flown):
    """Whether more than a quarter of what left in the three hours was late, of what had landed twelve hours later."""
    delays = [delay for left, landed, delay in flown if hour <= left < hour + 3 * HOUR and landed < hour + 15 * HOUR]
    return sum(delay > 15 for delay in delays) / len(delays) > 0.25 if delays else None


def decide(root, hours):
    """Ask a real server for a decision on each hour."""
    process = subprocess.Popen(
        [sys.executable, "-m", "retrodict", "serve", "--replay", "--port", "0", "--project", str(root), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        url = json.loads(process.stdout.readline())["url"]
        for hour in hours:
            said = format_time(hour)
            body = {"entities": {"origin": "LGA"}, "key": f"3:LGA{len(said)}:{said}"}
            headers = {"content-type": "application/json", "retrodict-time": said}
            with urlopen(Request(f"{url}/v1/decisions/warn", json.dumps(body).encode(), headers), timeout=60) as answer:
                assert json.load(answer)["model"] == "trouble@1"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.slow
def test_a_project_learns_and_is_watched_on_outcomes_alone(tmp_path):
    """No table holds the label: training, decisions and their performance follow from flights and a definition."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "delays"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    for file in DATA.glob("*.gz"):
        shutil.copy(file, tmp_path)

    def do(*arguments):
        return call(*arguments, "--project", tmp_path)

    do("ingest", "weather", tmp_path / "weather.csv.gz")
    do("ingest", "flights", tmp_path / "flights.csv.gz")
    do("features", "build")
    do("features", "verify", "--samples", "5")
    trained = do("train", "trouble", "--actor", "ana")
    assert do("replay", "run", trained["run"]["run"])["exact"] is True
    assert trained["metrics"]["auc"] > 0.6
    do("models", "approve", "trouble@1", "--reason", "fine", "--actor", "ben")
    do("deploy", "warn")
    hours = list(range(FIRST, LAST, HOUR))
    decide(tmp_path, hours)
    do("ingest", "weather", tmp_path / "september_weather.csv.gz")
    do("ingest", "flights", tmp_path / "september_flights.csv.gz")

    flown = flights()
    seen = [hour for hour in hours if hour < NOW]
    truth = {hour: late(hour, flown) for hour in seen if hour + 15 * HOUR < NOW}
    shown = do("outcomes", "show", "warn", "--now", format_time(NOW), "--limit", "500")
    labels = {parse_time(each["time"]): each["label"] for each in shown["newest"] if each["status"] == "known"}
    assert labels == {hour: value for hour, value in truth.items() if value is not None}
    assert {True, False} == set(labels.values())
    assert (shown["known"], shown["pending"]) == (len(labels), sum(hour + 15 * HOUR >= NOW for hour in seen))
    report = do("monitor", "watch", "--now", format_time(NOW))
    whole = next(each for each in report["performance"] if each["by"] is None)
    assert whole["metrics"]["label_rate"]["value"] == pytest.approx(sum(labels.values()) / len(labels))
    assert report["counts"]["known"] == len(labels)
