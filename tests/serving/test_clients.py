"""The clients of the Open Inference Protocol, each in its own process and environment: every call that it offers."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.serving.process import Server
from tests.serving.project import make_project

ROOT = Path(__file__).parents[2]
CLIENTS = {"triton": 68, "kserve": 12, "generated": 8, "openapi": 20}  # and how many checks each has

pytestmark = pytest.mark.slow


def python(client):
    """Python of a client's environment; skips the test where there is none."""
    path = ROOT / ".venv-clients" / client / "bin" / "python"
    if not path.exists():
        pytest.skip("make clients installs it")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    make_project(folder).close()
    server = Server(folder, "--no-consume", "--grpc-port", "0")
    yield server
    server.kill()


@pytest.mark.parametrize("client", CLIENTS)
def test_every_call_of_a_client_is_answered(served, client):
    """As many checks as docs/serving.md says, and each of them is right."""
    script = Path(__file__).with_name("clients") / f"{client}.py"
    command = [python(client), script, f"127.0.0.1:{served.port}", served.grpc]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout.splitlines()[-1])
    assert {name: problem for name, problem in checks.items() if problem} == {}
    assert len(checks) == CLIENTS[client]
    assert f"| {CLIENTS[client]} of {CLIENTS[client]} |" in (ROOT / "docs" / "serving.md").read_text()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_messages_of_triton_in_the_same_process_do_not_clash(order):
    """Whichever is loaded first."""
    steps = ["import tritonclient.grpc", "import retrodict.serving.grpc.messages as own; list(own.methods())"]
    script = (
        "; ".join(steps[place] for place in order) + "; print(tritonclient.grpc.service_pb2.ModelInferRequest(id='a'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [python("triton"), "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, 'id: "a"'), done.stderr
