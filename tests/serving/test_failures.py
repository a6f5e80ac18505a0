"""Failed requests are found again, and nothing that was sent is in what is kept of them."""

import asyncio
import contextlib
import io
import json
import logging
import os
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.project import REQUEST
from tests.serving.test_app import DECIDE, SIMULATED, Client

from retrodict.core.errors import ConfigurationError, IntegrityError
from retrodict.core.log_lines import REQUEST as REQUEST_NAME
from retrodict.core.log_lines import LineFormatter, written_aside
from retrodict.decisions import masks as masks_module
from retrodict.decisions.masks import Masks
from retrodict.decisions.servant import Servant
from retrodict.serving import failures as failures_module
from retrodict.serving.failures import FailureLog, read_failures
from retrodict.workspace import Workspace

SECRET = "Mustermann"


@pytest.fixture
def workspace(deployed):
    with Workspace(deployed, actor="ana") as opened:
        yield opened


def send(workspace, *requests, **limits):
    async def run():
        client = Client(workspace, **limits)
        try:
            return [await client.send("POST", path, body, SIMULATED) for path, body in requests]
        finally:
            await client.close()

    return asyncio.run(run())


@contextlib.contextmanager
def log_lines(monkeypatch, form="json"):
    """What a server writes of what the block logs."""
    monkeypatch.setenv("RETRODICT_LOG", form)
    stream, root = io.StringIO(), logging.getLogger()
    handlers, root.handlers = root.handlers, [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(LineFormatter(3))
    lines = []
    try:
        with written_aside():
            yield lines
    finally:
        root.handlers = handlers
        lines += stream.getvalue().splitlines()


def files(workspace):
    return "".join(p.read_text() for p in (workspace.root / "state" / "failures").glob("*.jsonl*"))


def test_a_failed_request_is_found_with_its_masked_input(workspace):
    """Equal values have equal digests; names that nobody knows and values are not there."""
    context = {**REQUEST["context"], "weight": SECRET, SECRET: 4711.5}
    body = json.dumps({**REQUEST, "key": SECRET, "context": context}).encode()
    assert [status for status, _, _ in send(workspace, (DECIDE, body), (DECIDE, body))] == [400, 400]
    last, before = read_failures(workspace, "promise").failures[:2]
    assert (last["status"], last["error"], last["bytes"]) == (400, "InputError", len(body))
    assert "'weight'" in last["message"]
    assert last["input"]["key"] == last["input"]["context"]["weight"] != last["input"]["entities"]["depot"]
    assert last["input"]["context"]["express"] == "true or false"
    assert (last["request"], last["input"]) == (before["request"], before["input"])
    assert SECRET not in files(workspace)
    assert "4711" not in files(workspace)


def test_each_of_a_batch_is_noted_alone(workspace):
    """With its own input."""
    body = json.dumps({"requests": [REQUEST, {**REQUEST, "entities": {}}, {"entities": 3}]}).encode()
    before = len(read_failures(workspace, limit=10_000).failures)
    send(workspace, (DECIDE + ":batch", body))
    failures = read_failures(workspace, limit=10_000).failures
    assert len(failures) == before + 2
    assert sorted(json.dumps(one["input"]["entities"])[:7] for one in failures[:2]) == ['"number', "{}"]


def test_what_the_server_did_not_expect_has_its_places(workspace, monkeypatch):
    """Files and lines, and no text of the error, which may hold a value."""

    def fail(*args, **kwargs):
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(Servant, "decide", fail)
    with log_lines(monkeypatch) as lines:
        status, headers, _ = send(workspace, (DECIDE, json.dumps(REQUEST).encode()))[0]
    assert status == 500
    line = next(json.loads(one) for one in lines if "request failed" in one)
    assert (line["level"], line["request"]) == ("ERROR", dict(headers)[b"x-request-id"].decode())
    assert "ZeroDivisionError" in line["message"]
    assert "servant.py" in line["message"] or "app.py" in line["message"]
    assert SECRET not in "".join(lines)
    (last,) = read_failures(workspace, limit=1).failures
    assert last["error"] == last["message"] == "ZeroDivisionError"
    assert last["trace"][-1].startswith("test_failures.py:")
    assert SECRET not in files(workspace)


def test_a_line_of_the_log_names_its_request(monkeypatch):
    """As text and as JSON; a line of no request has none, and an error of ours keeps its text."""
    log = logging.getLogger("retrodict.test")
    for form, expected in (("text", "WARNING worker 3 retrodict.test: request a-1: slow"), ("json", None)):
        with log_lines(monkeypatch, form) as lines:
            token = REQUEST_NAME.set(lambda: "a-1")
            log.warning("slow")
            REQUEST_NAME.reset(token)
            try:
                raise IntegrityError("the file must be whole", where="x")  # noqa: TRY301
            except IntegrityError:
                log.exception("two\nlines %s", 1)
        if expected is not None:
            assert lines[0].endswith(expected)
        else:
            one, two = map(json.loads, lines)
            assert {**one, "time": ""} == {"time": "", "level": "WARNING", "logger": "retrodict.test", "worker": 3,
                                           "request": "a-1", "message": "slow"}  # fmt: skip
            assert "request" not in two
            assert two["message"].startswith("two\nlines 1\n")
            assert two["message"].endswith("IntegrityError: x: the file must be whole.")
        assert lines


def test_an_address_and_a_body_of_anything_are_not_repeated(workspace):
    """An unknown policy, no JSON, a body that is too long."""
    requests = [
        (f"/v1/decisions/{SECRET}", json.dumps(REQUEST).encode()),
        (DECIDE, SECRET.encode()),
        (DECIDE, b" " * 5_000),
    ]
    assert [status for status, _, _ in send(workspace, *requests)] == [404, 400, 413]
    newest = read_failures(workspace, limit=3).failures
    assert {(one["policy"], one["status"]) for one in newest} == {("_other", 404), ("promise", 400), ("promise", 413)}
    assert SECRET not in files(workspace)


def test_a_flood_is_counted_and_the_files_stay_small(workspace, monkeypatch, tmp_path):
    """A hundred a second; the next line says how many were left out."""
    monkeypatch.setattr(failures_module, "_folder", lambda workspace: tmp_path / "failures")
    monkeypatch.setattr(failures_module, "_BYTES", 5_000)
    seconds = iter([5.0] * 250 + [6.0] * 90)
    monkeypatch.setattr(failures_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    log = FailureLog(workspace, "decisions/0")
    for _ in range(340):
        log.note("promise", 400, "InputError", "no", b"{}")
    log.close()
    failures = read_failures(workspace, limit=1_000).failures
    assert len(failures) < 100
    sizes = [path.stat().st_size for path in (tmp_path / "failures").glob("*.jsonl*")]
    assert len(sizes) == 2
    assert max(sizes) <= 5_000


def test_the_next_line_says_what_was_left_out(workspace, monkeypatch, tmp_path):
    """150 of 250 in one second."""
    monkeypatch.setattr(failures_module, "_folder", lambda workspace: tmp_path / "failures")
    seconds = iter([5.0] * 250 + [6.0] * 2)
    monkeypatch.setattr(failures_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    log = FailureLog(workspace, "decisions/0")
    for _ in range(252):
        log.note("promise", 400, "InputError", "no", b"{}")
    log.close()
    failures = read_failures(workspace, limit=1_000).failures
    assert len(failures) == 102
    assert [one["left_out"] for one in failures if "left_out" in one] == [150]  # and no line after it again


def test_failures_are_told_by_policy_and_from_a_time_on(workspace):
    """What a caller did wrong has no places in the code."""
    bodies = [(f"/v1/decisions/{SECRET}", b"{}"), (DECIDE, b"{}"), (DECIDE, b"{}")]
    send(workspace, *bodies)
    every = read_failures(workspace, limit=3).failures
    assert [one["policy"] for one in every] == ["promise", "promise", "_other"]
    assert not any("trace" in one for one in every)
    (other,) = read_failures(workspace, "_other", limit=1).failures
    assert other == every[2]
    assert [one["policy"] for one in read_failures(workspace, "promise", limit=2).failures] == ["promise"] * 2
    assert read_failures(workspace, start=every[1]["time"]).failures == every[:2]
    assert read_failures(workspace, "_other", start=every[1]["time"]).failures == []


values = st.recursive(
    st.none() | st.booleans() | st.integers(10**6) | st.floats(10**6) | st.text("äöüß", min_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("äöüß", min_size=3), inner),
)


@settings(max_examples=60, deadline=None)
@given(body=st.dictionaries(st.sampled_from(["entities", "context", "ß€ß"]), values))
def test_no_value_and_no_unknown_name_comes_through(tmp_path_factory, body):
    """Whatever the shape of what was sent."""
    log, masks = FailureLog.__new__(FailureLog), Masks.__new__(Masks)
    masks._key = b"k" * 32
    log._digest = masks.digest
    masked = json.dumps(log._input(json.dumps(body).encode(), {"entities", "context"}), ensure_ascii=False)
    assert not set("äöüß€") & set(masked)
    for number in st_numbers(body):
        assert str(number) not in masked


def st_numbers(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from st_numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_lines_that_are_none_of_ours_are_passed_over(workspace):
    """Cut, of other bytes or of other fields, or no file at all: the others are shown, and nobody waits."""
    send(workspace, (DECIDE, b"{}"))
    folder, before = workspace.root / "state" / "failures", len(read_failures(workspace, limit=10_000).failures)
    assert before
    (folder / "odd.jsonl").write_bytes(b'{"time":"x"}\n\xff\xfe\n{"time":\x01}\n[]\n{"time":1,"policy"')
    os.mkfifo(folder / "pipe.jsonl")
    try:
        assert len(read_failures(workspace, limit=10_000).failures) == before
    finally:
        for name in ("odd.jsonl", "pipe.jsonl"):
            (folder / name).unlink()


def test_a_full_disk_is_said_once(workspace, monkeypatch, caplog, capfd):
    """Each note that is lost would be a traceback on standard error, and the log as long as the flood."""
    log = FailureLog(workspace, "decisions/0")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._handler, "shouldRollover", refuse)
    for _ in range(50):
        log.note("promise", 503, "RetryableError", "no", b"{}")
    log.close()
    assert [record.getMessage().partition("jsonl")[2] for record in caplog.records] == [
        ": [Errno 28] No space left on device"
    ]
    assert capfd.readouterr().err.count("Traceback") == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), IntegrityError("must", where="key", got=3)])
def test_a_secret_that_cannot_be_made_costs_the_note_alone(workspace, monkeypatch, caplog, error):
    """The first digest makes or reads it: a caller got 500 for what was wrong in its request."""

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(masks_module, "read_file", refuse)
    (answer, other) = send(workspace, (DECIDE, b"{"), (DECIDE, b"{"))
    assert (answer[0], other[0]) == (400, 400)
    assert [record.getMessage().partition("jsonl: ")[2] for record in caplog.records] == [str(error)]


def test_a_file_in_place_of_the_folder_is_refused_at_the_start(workspace, monkeypatch, tmp_path):
    """With the place and what to do."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(failures_module, "_folder", lambda workspace: tmp_path / "file" / "failures")
    with pytest.raises(ConfigurationError, match=r"file/failures.*File exists.*Make room"):
        FailureLog(workspace, "decisions/0")
