"""The process of a step: begun for one execution, limited in time, memory and threads, and ended with all it began.

``python -m retrodict.learning.pipeline.child`` is that of a function; the project brings its own for its nouns.

A process of its own keeps what a step breaks to itself: a crash, a leak, a global it changed. It does nothing before it
is told to, ends itself when the one that began it is gone, and hands over its result as one whole file. Threads were
rejected: they cannot be ended, nor limited.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import RefusedError, RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.learning.isolation import THREADS
from retrodict.learning.pipeline.definitions import PARTITION, Pipeline, PipelineStep, parse_memory
from retrodict.learning.pipeline.outputs import read_output, store_output
from retrodict.stores._durable import make_folder, place_file
from retrodict.workspace import Workspace, definitions_of

__all__ = ["Child", "load_inputs", "serve_step"]

_NICE, _LOOK_S = 5, 0.2


class Child:
    """A process that executes a step, as the one that began it sees it.

    Parameters
    ----------
    command : sequence of str
        What to start; it ends in :func:`serve_step`.
    step : PipelineStep
        Its limits hold.
    folder : Path
        Where its result and what it prints go.
    name : str
        Of these files.
    root : Path
        Folder it works in.
    """

    def __init__(self, command: Sequence[str], step: PipelineStep, folder: Path, name: str, root: Path) -> None:
        make_folder(folder)
        self._step, self._result, self.log = step, folder / f"{name}.json", folder / f"{name}.log"
        self._result.unlink(missing_ok=True)
        threads = {} if step.cpus is None else dict.fromkeys(THREADS, str(step.cpus))
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **threads}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the interpreter that runs now
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=root,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._limit = None if step.memory is None else parse_memory(step.memory, where=step.name)
        self._end = time.monotonic() + parse_duration(step.timeout) / SECOND if step.timeout else None
        self._looked = 0.0

    def begin(self, job: Mapping[str, Any]) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already: poll says so
            line = {**job, "result": str(self._result), "memory": self._limit, "cpus": self._step.cpus}
            self._process.stdin.write(canonical_json(line) + b"\n")
            self._process.stdin.flush()

    def poll(self) -> dict[str, Any] | None:
        """Result of a process that has ended, or that is ended now as it is over a limit; None while it works."""
        # Looked at without being reaped: until what it left behind is ended, its number must stay its own.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            failure = self._over_limit()
            if failure is not None:
                self.kill()
            return failure
        code = self.kill()
        if self._result.is_file():
            result: dict[str, Any] = json.loads(self._result.read_bytes())
            return result
        what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        limit = f", with a memory limit of {self._step.memory}" if self._limit else ""
        return _failure("ProcessLost", f"its process ended by {what}{limit}")

    def _over_limit(self) -> dict[str, Any] | None:
        now = time.monotonic()
        if self._end is not None and now > self._end:
            return _failure("TimeoutError", f"it took longer than its timeout of {self._step.timeout}")
        if self._limit is not None and now - self._looked > _LOOK_S:
            self._looked = now
            if sum(pages for _, pages in _session(self.pid)) * resource.getpagesize() > self._limit:
                return _failure("MemoryError", f"it used more than its memory limit of {self._step.memory}")
        return None

    def kill(self) -> int:
        """End it, and every process of its session; return its exit code."""
        if self._process.returncode is None:
            for process in {self.pid, *(process for process, _ in _session(self.pid))}:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                with suppress(BrokenPipeError):
                    self._process.stdin.close()
        return self._process.wait()


def _session(leader: int) -> Iterator[tuple[int, int]]:
    """Processes of a session, with the pages that each has in memory."""
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                # The name, in brackets, may hold anything: fields count from its end (proc(5)).
                fields = (
                    Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                )
                if int(fields[3]) == leader:
                    yield int(entry.name), int(fields[21])


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"status": "failed", "error": kind, "message": message, "trace": []}


# in the process of the step -------------------------------------------------------------------------------------------


def serve_step(perform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Execute the one job that standard input names, and leave its result as a file.

    Parameters
    ----------
    perform : callable
        Takes the job, returns the facts of its result.
    """
    line = sys.stdin.buffer.readline()
    if not line:  # the one that began this process ended before it said what to do
        return
    job = json.loads(line)
    threading.Thread(target=_end_with_parent, name="retrodict-parent", daemon=True).start()
    if job["cpus"]:
        os.nice(_NICE)
    if job["memory"]:
        # Of data, not of addresses: libraries reserve many times what they use.
        resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
    try:
        result = {"status": "finished", **perform(job)}
    except BaseException as error:  # noqa: BLE001  # whatever ends a step is its result
        traceback.print_exc()
        result = _describe(error, job)
    place_file(Path(job["result"]), canonical_json(result))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _describe(error: BaseException, job: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of an error: its kind and places; its text only where that cannot hold anybody's data."""
    if isinstance(error, MemoryError) and job["memory"]:
        return _failure("MemoryError", f"it needed more than its memory limit of {job['memory'] / 1e9:g} GB")
    root, copies = Path(job["folder"]), Path(job["folder"]) / "state" / "code"
    trace = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(copies):
            path = Path(*path.relative_to(copies).parts[1:])
        elif path.is_relative_to(root) and "site-packages" not in path.parts:
            path = path.relative_to(root)
        else:
            continue
        trace.append(f"{path.as_posix()}:{frame.lineno} in {frame.name}")
    message = str(error) if isinstance(error, RetrodictError) else ""
    status = "refused" if isinstance(error, RefusedError) else "failed"
    return {"status": status, "error": type(error).__name__, "message": message, "trace": trace}


def load_inputs(workspace: Workspace, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a step's arguments: outputs of other steps, rows of tables."""
    folder, values = workspace.root / "state" / "pipelines" / "outputs", {}
    for name, entry in inputs.items():
        if "table" in entry:
            from retrodict.data.versions import read

            values[name] = read(workspace, entry["table"])
        else:
            values[name] = read_output(workspace.objects, entry, folder)
    return values


def call_function(job: Mapping[str, Any]) -> dict[str, Any]:
    """Call a step's function as the run captured it, and keep what it returns."""
    with Workspace(job["folder"], actor=job["actor"]) as workspace:
        return {"output": _call(workspace, job)}


def _call(workspace: Workspace, job: Mapping[str, Any]) -> dict[str, Any]:
    step = definitions_of(workspace, job["code"]).get(Pipeline, job["pipeline"]).step(job["step"])
    arguments = {**dict(step.params), **load_inputs(workspace, job["inputs"])}
    if PARTITION in step.inputs:
        arguments[PARTITION] = job["partition"]
    value = step(**arguments)
    return store_output(workspace.objects, value, where=f"step {step.name}")


if __name__ == "__main__":
    serve_step(call_function)
