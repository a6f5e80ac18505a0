"""The whole way by hand, through real processes: every command of the template's README, in its order."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.stores.conftest import bucket, postgres, s3_server  # noqa: F401  (fixtures)
from tests.stores.postgres_server import PASSWORD

README = Path(__file__).parents[2] / "src" / "retrodict" / "project" / "template" / "README.md"
BEFORE, SERVED = "retrodict serve --replay", "retrodict audit proof"


def lines() -> list[str]:
    """Every line of the README that is to be typed."""
    return re.findall(r"^\$ (retrodict .*)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)


@contextmanager
def serving(root: Path, command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """A server on a free port; ended by SIGINT, as Ctrl-C does."""
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield ready["url"]
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, ""), (root / "server.log").read_text()


class Walker:
    """Types the README's lines and keeps what they answered."""

    def __init__(self, root: Path, spawn: Callable[..., Any]) -> None:
        self.spawn = spawn
        self.root, self.url, self.decision = root, "", ""
        self.runs: list[str] = []
        self.answers: dict[str, dict[str, Any]] = {}

    def type(self, line: str) -> None:
        """Run one line with --json, ids filled in; it has to work."""
        arguments = shlex.split(line.replace("decision:ID", self.decision))[1:]
        runs = iter(self.runs)
        arguments = [next(runs) if argument == "run:ID" else argument for argument in arguments]
        if arguments[0] == "decide":
            arguments += ["--url", self.url]
        done = self.spawn(*arguments, "--json", cwd=self.root)
        assert done.code == 0, f"{line}\n{done.out}\n{done.err}"
        self.answers[line] = done.json
        if arguments[0] == "decide":
            self.decision = f"decision:{done.json['decision_id']}"
        if arguments[0] == "train":
            self.runs = [done.json["run"]["run"], *self.runs]

    def answer(self, start: str) -> dict[str, Any]:
        """Answer of the last line that begins so."""
        return [found for line, found in self.answers.items() if line.startswith(f"retrodict {start}")][-1]


def on_servers(request: pytest.FixtureRequest, environment: dict[str, str]) -> str:
    """Settings for records in a real PostgreSQL server, tables and objects in a bucket; secrets in the environment."""
    server, place = request.getfixturevalue("postgres"), request.getfixturevalue("bucket")
    environment["PG_TEST_PASSWORD"] = PASSWORD
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        environment[name] = os.environ[name]
    records, tables, objects = server.url(server.database()), place, place.replace("/place?", "/objects?")
    return f'\n[stores]\nrecords = "{records}"\ntables = "{tables}"\nobjects = "{objects}"\n'


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stores", ["embedded", "servers"])
def test_every_line_of_the_readme_works(
    tmp_path: Path,
    spawn: Callable[..., Any],
    command_line: Callable[..., list[str]],
    environment: dict[str, str],
    stores: str,
    request: pytest.FixtureRequest,
) -> None:
    """A new project goes from raw files to a decision and back by the README alone, wherever the stores are."""
    root = tmp_path / "flights"
    assert spawn("init", root).code == 0
    if stores == "servers":
        with (root / "retrodict.toml").open("a") as settings:
            settings.write(on_servers(request, environment))
    typed, walker = lines(), Walker(root, spawn)
    for line in typed[: typed.index(BEFORE)]:
        walker.type(line)
    late_event = {"flight_id": "2013-09-01:MQ3349:LGA:1930", "carrier": "MQ", "origin": "LGA", "dest": "BNA",
                  "tailnum": "N534MQ", "sched_dep": "2013-09-01T23:30Z", "dep_time": "2013-09-01T23:24Z",
                  "arr_time": "2013-09-02T02:10Z", "arr_delay": -3}  # fmt: skip
    with serving(root, command_line("serve", "--replay", "--port", "0", "--json"), environment) as walker.url:
        push = Request(f"{walker.url}/v1/events/flights", json.dumps([late_event]).encode(), method="POST")
        with urlopen(push, timeout=60) as pushed:
            assert json.load(pushed)["accepted"] == 1
        for line in typed[typed.index(BEFORE) + 1 :]:
            if not line.startswith(SERVED):
                walker.type(line)
        with urlopen(f"{walker.url}/v1/status", timeout=60) as status:
            # The consumer beside the server has taken the event in by itself, minutes ago.
            flow = json.load(status)["sources"]["flown"]
            assert (flow["offset"], flow["lag"]) == (1, 0)
    for line in typed:
        if line.startswith(SERVED):
            walker.type(line)

    assert walker.answer("ingest planes")["quarantined"] == 0
    assert walker.answer("features verify")["models"]["late_arrival"]["verdict"] == "equal"
    assert walker.answer("decide")["decision"] in ("warn", "ok")
    assert walker.answer("outcomes show")["known"] == 1
    assert walker.answer("replay decision")["exact"] is True
    assert walker.answer("replay run")["exact"] is True
    assert walker.answer("lineage")["model"]["model"] == "model:late_arrival@1"
    assert [each["action"] for each in walker.answer("deployments")["deployments"]] == ["deploy", "promote", "rollback"]
    assert walker.answer("audit verify")["verified"] is True
    assert walker.answer("audit proof")["holds"] is True
    plan = spawn("plan", "--json", cwd=root).json
    assert plan["policies"][0] | {"version": "", "deployed_version": ""} == {
        "name": "warn_early", "version": "", "status": "as deployed", "revision": 3, "model": "late_arrival@1",
        "deployed_version": "", "deployable": "late_arrival@1", "unverified": False, "behind": [],
        "streamed": [],
    }  # fmt: skip


@pytest.mark.slow
def test_the_consumer_ends_with_its_parent(
    tmp_path: Path, spawn: Callable[..., Any], command_line: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    """``features stream --parent`` does not outlive the process it belongs to, however that one ends."""
    root = tmp_path / "flights"
    assert spawn("init", root).code == 0
    parent = subprocess.Popen(["sleep", "600"])
    consumer = subprocess.Popen(
        command_line("features", "stream", "--parent", str(parent.pid), "--project", str(root), "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert consumer.stderr is not None
    assert "keeping online features current" in consumer.stderr.readline()
    parent.kill()
    parent.wait()
    out, err = consumer.communicate(timeout=60)
    assert consumer.returncode == 0
    assert json.loads(out) == {"sources": {}, "lag": 0}
    assert "has ended" in err
