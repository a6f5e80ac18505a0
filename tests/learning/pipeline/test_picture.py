"""The graph for people and other programs, and the manifest that a cluster takes."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import pytest
import yaml
from tests.learning.pipeline.project import FIVE, write

from retrodict.cli.main import run as command
from retrodict.core.errors import InputError

EDGES = {("numbers", "doubled"), ("doubled", "frame"), ("frame", "report"), ("doubled", "report"), ("numbers", "aside")}


def test_every_picture_has_every_step_and_edge(tmp_path) -> None:
    """Mermaid, Graphviz, SVG and the plain form say the same."""
    with write(tmp_path, FIVE) as project:
        shown = project.pipelines.show("five")
        assert {(need, step["step"]) for step in shown.to_dict()["steps"] for need in step["needs"]} == EDGES
        mermaid = str(project.pipelines.show("five", mermaid=True))
        assert set(re.findall(r"(\w+) --> (\w+)", mermaid)) == EDGES
        dot = str(project.pipelines.show("five", dot=True))
        assert set(re.findall(r'"(\w+)" -> "(\w+)"', dot)) == EDGES
        svg = ET.fromstring(str(shown.plot()))
        names = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
        assert sorted(names) == sorted({name for edge in EDGES for name in edge})
        assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) == len(EDGES)
        corners = {(box.get("x"), box.get("y")) for box in svg.iter("{http://www.w3.org/2000/svg}rect")}
        assert len(corners) == 5


def test_the_manifest_is_one_that_kubernetes_takes(tmp_path, capsys, monkeypatch) -> None:
    """Names with dashes, one run at a time, limits of the largest step; quotes in an image stay text."""
    limited = FIVE.replace("@step\ndef frame", '@step(memory="2GB", cpus=2)\ndef frame')
    write(tmp_path, limited.replace("frame, aside])", 'frame, aside], timezone="Europe/Berlin")')).close()
    monkeypatch.chdir(tmp_path)
    image = 'reg/flights:7"\n  x: y'
    assert (
        command(["pipelines", "manifest", "five", "--schedule", "0 3 * * *", "--image", image, "--actor", "ana"]) == 0
    )
    job = yaml.safe_load(capsys.readouterr().out)
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("batch/v1", "CronJob", "steps-five")
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 3 * * *", "Europe/Berlin", "Forbid")
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:4] == ["retrodict", "pipelines", "run", "five"]
    assert container["env"] == [{"name": "RETRODICT_ACTOR", "value": "ana"}]
    assert container["resources"] == {"limits": {"memory": "3000000000", "cpu": "2"}}
    assert container["image"] == image
    assert pod["restartPolicy"] == "Never"
    assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    assert command(["pipelines", "manifest", "five", "--json"]) == 2
    assert "a CronJob must have a schedule" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert command(["pipelines", "show", "five", "--dot"]) == 0
    assert capsys.readouterr().out.startswith("digraph")


def test_a_schedule_says_when_it_comes_next(tmp_path) -> None:
    """In the list and in the status, beside a run that never was."""
    from datetime import UTC, datetime

    with write(tmp_path, FIVE.replace("frame, aside])", 'frame, aside], schedule="30 4 * * *")')) as project:
        summary = project.pipelines.list()[0].to_dict()
        following = datetime.fromisoformat(summary["next"])
        assert (following.hour, following.minute, following > datetime.now(UTC)) == (4, 30, True)
        assert (summary["last"], summary["runs"]) == (None, 0)
        assert "next run" in str(project.pipelines.status("five"))


def test_a_schedule_that_is_none_is_refused_in_a_manifest(tmp_path) -> None:
    """As where it is defined."""
    with write(tmp_path, FIVE) as project, pytest.raises((InputError, ValueError), match="five fields of cron"):
        project.pipelines.manifest("five", schedule="every day")
