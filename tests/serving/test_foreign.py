"""Code of models and definitions that ends with what is no ``Exception``: it is said, and the server lives on."""

import asyncio
import json
import signal
import threading
import time

import pytest
from tests.serving.process import Server
from tests.serving.project import DEFINITIONS, make_project
from tests.serving.test_app import DECIDE, Client
from tests.serving.test_engine_queue import request, slow

from retrodict.core.errors import DefinitionError, is_interrupt
from retrodict.decisions.loader import Loader
from retrodict.learning import train
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import approve
from retrodict.rollout import deploy
from retrodict.serving import watcher
from retrodict.serving.threads import BoundedThreads, DaemonThreads
from retrodict.workspace import Workspace

ENDS = [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit]
LAUNCH = """
import asyncio, sys
from retrodict.models.artifact import ModelArtifact
real = ModelArtifact.{call}

def ends(model, *values):
    if {when}:
        raise {error}("out of the model")
    return real(model, *values)

ModelArtifact.{call} = ends
from retrodict.cli.main import main
sys.exit(main())
"""


def launch(call, when, error):
    name = "asyncio.CancelledError" if error is asyncio.CancelledError else error.__name__
    return "-c", LAUNCH.format(call=call, when=when, error=name)


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path) as workspace:
        yield workspace


def deploy_next(root):
    """Another model for the policy."""
    (root / "definitions.py").write_text(DEFINITIONS.replace('"logistic", ', '"logistic", params={"penalty": 3.0}, '))
    with Workspace(root, actor="ana") as workspace, Workspace(root, actor="ben") as other:
        _, version = train(workspace, "late_parcel")
        approve(other, version.ref, reason="test")
        deploy(workspace, "promise", reason="test")


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("call", ["check", "measure"])
def test_a_new_model_whose_code_ends_the_loading_leaves_the_server_alive(tmp_path, call, error):
    """What decided goes on, and status says why; one that only cannot be measured decides."""
    with make_project(tmp_path) as workspace:
        model = Loader(workspace).load_current()["promise"]._model
    server = Server(tmp_path, "--replay", "--no-consume",
                    launch=launch(call, f"model.fingerprint() != {model.fingerprint()!r}", error))  # fmt: skip
    try:
        first = server.decide()
        deploy_next(tmp_path)
        for _ in range(400):
            status = server.send("GET", "/v1/status")[1]
            if status["problem"] or status["revisions"]["promise"] == 2:
                break
            time.sleep(0.05)
        second = server.decide()
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert (first[0], second[0]) == (200, 200)
    if call == "check":
        assert f"must load and answer; got '{error.__name__}'" in status["problem"]
        assert second[1]["policy"] == "promise#1"
        assert second[1]["score"] == first[1]["score"]
    else:
        assert (status["problem"], second[1]["policy"]) == (None, "promise#2")


@pytest.mark.parametrize("error", ["SystemExit(0)", "KeyboardInterrupt()", "__import__('asyncio').CancelledError()"])
def test_definitions_that_end_their_import_leave_a_server_what_is_deployed(tmp_path, error):
    """It decides by the code of its revision, and its log says what is wrong with the file, as with any other."""
    make_project(tmp_path).close()
    (tmp_path / "definitions.py").write_text(f"raise {error}\n")
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    server = Server(tmp_path, "--replay", "--no-consume",
                    launch=("-c", code + "from retrodict.cli.main import main; sys.exit(main())"))  # fmt: skip
    try:
        status, answer = server.decide()
    finally:
        log = server.stop()
    assert (status, answer["score"] is None, server.process.returncode) == (200, False, 0)
    assert "definitions.py:1: the module must run without an error" in log


def test_only_the_main_thread_has_a_ctrl_c():
    """What a model raises in a thread of its own is a fault of it, also in a program that takes the signal."""
    answers = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a job of the background
    try:
        answers.append(is_interrupt(KeyboardInterrupt()))
        thread = threading.Thread(target=lambda: answers.append(is_interrupt(KeyboardInterrupt())))
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert answers == [True, False]


@pytest.mark.parametrize("error", ENDS)
def test_a_batch_that_ends_otherwise_is_the_fallback_of_everybody_in_it(project, monkeypatch, error):
    """A mistake of ours in the thread: nobody waits for ever, and the next ones have their turn."""

    async def run():
        async with slow(project) as client:
            servant, body = client.app.servants["promise"], json.dumps(request()).encode()

            def leave(*_, **__):
                raise error

            monkeypatch.setattr(servant, "prepare_each", leave)
            async with asyncio.timeout(30):
                failed = await asyncio.gather(*(client.send("POST", DECIDE, body) for _ in range(3)))
                monkeypatch.undo()
                return failed, await client.send("POST", DECIDE, body), client.app.turns.taken

    failed, after, taken = asyncio.run(run())
    assert [(status, json.loads(body)["fallback"]) for status, _, body in failed] == [(200, "ok")] * 3
    assert (after[0], "fallback" in json.loads(after[2]), taken) == (200, False, 0)


@pytest.mark.parametrize("error", ENDS)
def test_what_ends_a_call_in_a_thread_ends_nobody_who_waits_for_it(error):
    """It is an error of that call."""

    def leave():
        raise error

    async def run():
        with pytest.raises(DefinitionError, match=f"got '{error.__name__}'"):
            await BoundedThreads(10**9).run(leave, None)

    asyncio.run(run())


@pytest.mark.parametrize("error", ENDS)
def test_what_is_wrong_with_a_model_is_left_to_the_first_request(project, monkeypatch, error):
    """Neither to measure nor to warm it ends whoever does."""

    def leave(*_):
        raise error

    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # as under a server
    servant = Client(project).app.servants["promise"]
    monkeypatch.setattr(ModelArtifact, "measure", leave)
    monkeypatch.setattr(ModelArtifact, "score_row", leave)
    servant.measure()
    servant.warm(0)
    assert servant.speed is None


def test_a_model_that_hangs_while_it_is_loaded_is_said(project, monkeypatch):
    """What is in force goes on; the status has it until the load ends."""
    monkeypatch.setattr(watcher, "_LONG_S", 0.01)
    opened = threading.Event()

    async def run():
        client, pool = Client(project), DaemonThreads(1, "load")
        loader = Loader(project)
        monkeypatch.setattr(loader, "load_current", lambda: opened.wait(30))
        looking = asyncio.create_task(watcher.Watcher(project, client.app, loader, pool).look())
        while client.app.not_followed is None:  # noqa: ASYNC110  # an attribute, not an event
            await asyncio.sleep(0.01)
        during = client.app.not_followed
        opened.set()
        await looking
        await client.close()
        pool.close()
        return during, client.app.not_followed

    assert asyncio.run(run()) == ("a revision has been loading for 0.01 s", None)
