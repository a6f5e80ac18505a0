"""The autumn of flight-rollouts.md: its lines are typed, and what came of them is what the page says."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from retrodict import Project
from retrodict.core.clock import parse_time
from retrodict.decisions.log import read_decisions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "flight-rollouts.md").read_text(encoding="utf-8")
NOW = "2013-10-05T00:00Z"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_an_autumn_of_rollouts_and_experiments(tmp_path):
    """Nothing is lost or decided twice, whatever is killed; what is wrong goes, what is good stays."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0] in (
        tmp_path / "examples" / "flights_live" / "more.py"
    ).read_text(encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RETRODICT_ACTOR": "ana",
    }
    folder = tmp_path
    for line in re.findall(r"^\$ (.*)$", PAGE, flags=re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        print("$", line, done.stdout, sep="\n")
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        folder = tmp_path / "flights"
    killed = json.loads((folder / "live.json").read_text())["killed"]
    assert killed["server"] >= 10
    assert killed["controller"] >= 2
    with Project(folder, actor="ana") as p:
        records = [logged.record for logged in read_decisions(p.workspace)]
        assert set(Counter(record.key for record in records).values()) == {1}
        september = sum(record.time < parse_time("2013-10-01T00:00Z") for record in records)
        report = p.challengers.shadow_report("warn_early")
        assert {one.report.challenger.name for one in report.shadows} == {"newer", "brief", "calm"}
        for one in report.shadows:
            assert (one.waiting, one.dropped) == (0, 0)
            assert one.report.decisions >= september
        assert p.experiments.report("twice", now=NOW).verdict == "inconclusive"
        phone = p.experiments.report("phone", now=NOW)
        assert phone.verdict == "success"
        assert phone.effects[0].contrast.high < 0
        rounds = [one.deployment.split for one in p.policies.deployments("warn_early") if one.deployment.split]
        wrong, good = (
            [one["share"] for one in rounds if one["candidate"]["model"] == f"late_arrival@{version}"]
            for version in (3, 2)
        )
        assert wrong == [0.2]  # it never came further
        assert good == [0.2, 0.5]
        changes = [(one.action, one.deployment.model) for one in p.policies.deployments("warn_early")]
        assert ("rollback", "late_arrival@1") in changes
        assert changes[-1] == ("promote", "late_arrival@2")
        assert p.ledger.verify().ok
