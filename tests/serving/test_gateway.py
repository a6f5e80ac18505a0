"""Two servers behind HAProxy with the shipped settings: whichever of them is killed or ended, no caller sees it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from tests.serving.project import AT, REQUEST
from tests.serving.test_replicas import findings_of, machines, nats, postgres, serve  # noqa: F401  (fixtures)

from retrodict.client import Client
from retrodict.core.clock import parse_time
from retrodict.decisions.log import read_decisions
from retrodict.decisions.masks import Masks
from retrodict.workspace import Workspace

DEPLOY = Path(__file__).parents[2] / "deploy"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def gateway():
    """Starts HAProxy before two servers; gives its port."""
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    with contextlib.ExitStack() as stack:

        def start(*servers):
            port = free_port()
            places = [f"127.0.0.1:{server.port}" for server in servers]
            settings = {"RETRODICT_BIND": f"127.0.0.1:{port}", "RETRODICT_ONE": places[0], "RETRODICT_TWO": places[1]}
            process = subprocess.Popen(
                [program, "-db", "-f", str(DEPLOY / "haproxy.cfg")], env=os.environ | settings, stderr=subprocess.PIPE
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return port

        yield start


class Callers:
    """Threads that ask through the gateway, each request with an id, by the client as it is shipped."""

    def __init__(self, port, number=4):
        self.answers, self.errors, self._stop = [], [], threading.Event()
        self._port = port
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        with Client(f"http://127.0.0.1:{self._port}", ids=True, retries=10) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(
                        client.decide("promise", REQUEST["entities"], REQUEST["context"],
                                      at=parse_time(AT["Retrodict-Time"]))
                    )  # fmt: skip
                except Exception as error:  # noqa: BLE001
                    self.errors.append(error)

    def wait_for(self, more):
        count, until = len(self.answers), time.monotonic() + 60
        while len(self.answers) < count + more:
            assert time.monotonic() < until, self.errors[:3]
            time.sleep(0.02)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


@pytest.mark.timeout(240)
def test_servers_that_are_killed_and_ended_are_seen_by_no_caller(machines, serve, gateway):  # noqa: F811
    """Every request has its answer, and each id one record; whichever server answers, the score is the same."""
    servers = [serve(root) for root in machines]
    scores = {server.decide()[1]["score"] for server in servers}
    assert len(scores) == 1
    callers = Callers(gateway(*servers))
    try:
        callers.wait_for(40)
        servers[0].kill()
        callers.wait_for(40)
        servers[0] = serve(machines[0], "--port", str(servers[0].port))
        callers.wait_for(40)
        servers[1].stop()
        callers.wait_for(40)
    finally:
        callers.stop()
    assert callers.errors == []
    assert {answer.score for answer in callers.answers} == scores
    servers[0].stop()
    with Workspace(machines[1], actor="ana") as workspace:
        records = [one.record for one in read_decisions(workspace)]
    ids = [record.request_id for record in records if record.request_id]
    assert len(ids) == len(set(ids))
    assert {answer.decision_id for answer in callers.answers} <= {record.id for record in records}


def test_the_manifests_name_what_the_server_has():
    """Paths of probes, ports and settings are those of the package; what runs has no rights it does not need."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    kinds = [document["kind"] for document in documents]
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["initContainers"] + pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (server,) = documents[0]["spec"]["template"]["spec"]["containers"]
    probes = [server[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert probes == ["/readyz", "/readyz", "/healthz"]
    assert documents[kinds.index("HorizontalPodAutoscaler")]["spec"]["minReplicas"] == 2


def test_every_variable_has_a_place_in_the_steps_before_the_first_start():
    """What settings and compose files name is in the README's ``.env``, or set by the compose file itself."""
    steps = (DEPLOY / "README.md").read_text()
    named = "".join((DEPLOY / name).read_text() for name in ("retrodict.toml", "compose.yaml", "apart.yaml"))
    assert set(re.findall(r"\$\{(\w+)", named)) <= set(re.findall(r"^ *(\w+)=", steps, re.MULTILINE))
    for name in ("haproxy.cfg", "apart.cfg"):
        services = yaml.safe_load((DEPLOY / ("compose.yaml" if name == "haproxy.cfg" else "apart.yaml")).read_text())
        given = services["services"]["gateway"]["environment"]
        assert set(re.findall(r"\$\{(\w+)", (DEPLOY / name).read_text())) == set(given)


def test_an_image_holds_no_state_and_no_secret():
    """Keys and ``.env`` stay out by name; the package of the online state, named as that folder is, stays in."""
    lines = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert {"**/.*", "**/*.key", "**/state"} <= set(lines)
    source = DEPLOY.parent / "src"
    packages = {str(one.relative_to(source.parent)) for one in source.rglob("state") if one.is_dir()}
    assert packages == {line[1:] for line in lines if line.startswith("!src")}


def test_keys_of_random_bytes_are_those_of_a_new_project(tmp_path):
    """As the steps make them before anything has run."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text("")
    (tmp_path / "state" / "failures").mkdir(parents=True)
    keys = [tmp_path / "state" / "ledger.key", tmp_path / "state" / "failures" / "key"]
    for key in keys:
        key.write_bytes(os.urandom(32))
        key.chmod(0o400)
    before = [key.read_bytes() for key in keys]
    with Workspace(tmp_path, actor="ana") as workspace:
        with workspace.ledger.transaction() as tx:
            tx.append("test.note", "test:1", {})
        assert Masks(workspace).value("ana") == Masks(workspace).value("ana")
        assert findings_of(workspace) == []
    assert [key.read_bytes() for key in keys] == before


def test_the_settings_of_several_machines_are_settings(tmp_path, monkeypatch):
    """They are read, and every store is on a server."""
    shutil.copy(DEPLOY / "retrodict.toml", tmp_path)
    (tmp_path / "definitions.py").write_text("")
    with Workspace(tmp_path, actor="ana") as workspace:
        stores = {
            name: workspace.config[f"stores.{name}"] for name in ("records", "keys", "tables", "objects", "streams")
        }
    assert all("://" in url for url in stores.values())
