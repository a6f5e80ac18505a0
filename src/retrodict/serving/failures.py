"""Requests that got no decision, with what was sent, masked: to be found again when a caller asks why.

They are no facts that anything rests on, so they are neither synced nor sealed: one line of JSON each in a file of the
process, which begins anew at 4 MiB and keeps the one before. Values never come in: a number or text is its kind and a
digest that is keyed with a secret of the project, the same for the same value. Names that the policy does not know are
digests, too. In a flood a hundred a second are noted, and the next one says how many were not.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Grid, Shown
from retrodict.core.errors import ConfigurationError, RetrodictError
from retrodict.decisions.masks import Masks
from retrodict.stores._durable import make_folder
from retrodict.workspace import Workspace

__all__ = ["FailureLog", "FailuresReport", "read_failures"]

_log = logging.getLogger(__name__)
_SAY_S = 60.0
_BYTES = 4 << 20
_PER_SECOND = 100
_NAMES = {"entities", "context", "key", "explain", "requests", "request_id"}
_LONGEST, _MOST = 8_192, 100  # bytes of a line's input, names of an object


class Failure(TypedDict):
    """One failed request, as a line of the file."""

    time: int
    policy: str
    status: int
    error: str
    message: str
    request: str
    bytes: int
    input: Any
    trace: NotRequired[list[str]]
    left_out: NotRequired[int]


_notes = msgspec.json.Decoder(Failure)


class _Notes(RotatingFileHandler):
    """A file whose disk may be full: the log says so once in a while, and what was to be noted is lost."""

    _warned_at = -math.inf

    def handleError(self, record: LogRecord) -> None:  # noqa: N802  # a name of logging
        del record
        if time.monotonic() - self._warned_at >= _SAY_S:
            self._warned_at = time.monotonic()
            _log.warning("failed requests cannot be noted in %s: %s", self.baseFilename, sys.exc_info()[1])


class FailureLog:
    """Notes the failed requests of one process, which writes a decision stream of its own."""

    def __init__(self, workspace: Workspace, stream: str) -> None:
        folder = _folder(workspace)
        try:
            make_folder(folder)
        except OSError as error:
            raise ConfigurationError(
                "the folder of failed requests must be one that can be made", where=str(folder), got=error.strerror,
                remedy="Make room on its disk, let this user write there, or remove what stands in its place",
            ) from error  # fmt: skip
        self._clock, self._digest = workspace.clock, Masks(workspace).digest
        path = folder / f"{stream.rpartition('/')[2]}.jsonl"
        self._handler = _Notes(path, maxBytes=_BYTES, backupCount=1, delay=True, encoding="utf-8")
        self._second, self._count, self._left_out = 0, 0, 0

    def note(
        self, policy: str, status: int, error: str, message: str, body: bytes, *, names: Collection[str] = (),
        cause: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Note one; ``names`` are those that its policy knows, ``cause`` is what the server did not expect."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > _PER_SECOND:
            self._left_out += 1
            return
        try:
            line = self._line(policy, status, error, message, body, names, cause)
        except (OSError, RetrodictError):  # the secret of the digests may be made or read at the first of them
            self._handler.handleError(makeLogRecord({}))
            return
        if self._left_out:
            line["left_out"], self._left_out = self._left_out, 0
        self._handler.emit(makeLogRecord({"msg": msgspec.json.encode(line).decode()}))

    def _line(
        self, policy: str, status: int, error: str, message: str, body: bytes, names: Collection[str],
        cause: BaseException | None,
    ) -> dict[str, Any]:  # fmt: skip
        line: dict[str, Any] = {
            "time": self._clock.now(), "policy": policy, "status": status, "error": error, "message": message,
            "request": self._digest(body), "bytes": len(body), "input": self._input(body, {*names, *_NAMES}),
        }  # fmt: skip
        if cause is not None:  # places in the code: the text of an error may hold a value
            frames = traceback.extract_tb(cause.__traceback__)[-8:]
            line["trace"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        return line

    def _input(self, body: bytes, names: Collection[str]) -> Any:
        try:
            masked = self._masked(json.loads(body), names)
        except (ValueError, RecursionError):
            return "not JSON"
        return masked if len(msgspec.json.encode(masked)) <= _LONGEST else "too long"

    def _masked(self, value: Any, names: Collection[str]) -> Any:
        match value:
            case None:
                return None
            case bool():
                return "true or false"
            case dict():
                pairs = list(value.items())[:_MOST]
                return {n if n in names else self._digest(n.encode()): self._masked(v, names) for n, v in pairs}
            case list():
                return [self._masked(one, names) for one in value[:_MOST]]
            case _:
                kind = "text" if isinstance(value, str) else "number"
                return f"{kind} {self._digest(json.dumps(value).encode())}"

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "state" / "failures"


@dataclass(frozen=True, slots=True, repr=False)
class FailuresReport(Shown):
    """Failed requests, newest first; ``failures`` are as they were noted."""

    failures: Sequence[Failure]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"failures": [{**one, "time": format_time(one["time"])} for one in self.failures]}

    def blocks(self) -> Sequence[Block | None]:
        """When, what and why."""
        rows = [(format_time(one["time"]), one["policy"], f"{one['status']}", one["message"], one["request"])
                for one in self.failures]  # fmt: skip
        return [
            Grid(("time", "policy", "status>", "error", "request"), rows) if rows else "No failed request is noted."
        ]


def read_failures(
    workspace: Workspace, policy: str | None = None, *, start: int | None = None, limit: int = 100
) -> FailuresReport:
    """Newest failed requests of all servers of a project, of one policy or all, from a time on."""
    failures: list[Failure] = []
    for path in _folder(workspace).glob("*.jsonl*") if _folder(workspace).is_dir() else ():
        for line in path.read_bytes().split(b"\n") if path.is_file() else ():
            with suppress(msgspec.MsgspecError):  # the last line may be half written; these notes are no proof
                failure = _notes.decode(line)
                if policy in (None, failure["policy"]) and (start is None or failure["time"] >= start):
                    failures.append(failure)
    return FailuresReport(sorted(failures, key=lambda one: one["time"], reverse=True)[:limit])
