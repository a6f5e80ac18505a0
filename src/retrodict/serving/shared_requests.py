"""Request ids over several machines, whose decision log is on NATS JetStream: one of them decides, all give its answer.

The log is the truth here too. Before a case is decided its id is taken on the server, for the stream that the record
will stand in and from its end on: so the record of an id is found by reading on from there, and is found whenever it is
durable. An id whose record is not there is free once its writer says so, or can write no more.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.errors import BusyError
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, decode_record
from retrodict.serving.idempotency import (
    NEEDLE,
    TAIL_S,
    WAIT_S,
    Claim,
    RequestIndex,
    name_of,
    under_way,
)
from retrodict.stores.streams.jetstream_log import JetStreamLog
from retrodict.stores.streams.jetstream_names import JetStreamNames
from retrodict.workspace import Workspace

__all__ = ["SharedRequestIndex", "open_index"]


def open_index(workspace: Workspace, log: LogWriter) -> RequestIndex:
    """Index of request ids: of this machine, or of all that share a log on a server."""
    if isinstance(workspace.streams, JetStreamLog):
        return SharedRequestIndex(workspace, log, workspace.streams)
    return RequestIndex(workspace, log.stream)


@dataclass(slots=True, eq=False)
class _SharedClaim(Claim):
    """``sequence`` is that of what says that the id is ours; 0 where it has its record already."""

    name: str = ""
    sequence: int = 0
    stream: str = ""
    recording: bool = False

    def release(self) -> None:
        """Let go of the id; a second call does nothing."""
        if self._open:
            self._open = False
            assert isinstance(self.index, SharedRequestIndex)
            self.index.give_back(self)


class SharedRequestIndex(RequestIndex):
    """Where the records of request ids are, for all machines; promises as those of :class:`RequestIndex`.

    But for one: an append that fails may have stored its record, so an id may have two records, of which the second
    is the one that every repetition is answered from.
    """

    def __init__(self, workspace: Workspace, log: LogWriter, streams: JetStreamLog) -> None:
        super().__init__(workspace, log.stream)
        self._log, self._server = log, streams
        self._names, self._is_open = JetStreamNames(streams, self._kept), False

    async def opened(self, limit_s: float = WAIT_S) -> None:
        """Nothing is to be waited for: the first claim opens it."""

    async def hold(self, request_id: str, content: str, limit_s: float = WAIT_S) -> Claim:
        """Hold an id as soon as no other call does; errors as on one machine."""
        end, pause = time.monotonic() + min(WAIT_S, limit_s), 0.005
        while True:
            claiming = asyncio.get_running_loop().run_in_executor(None, self.claim, request_id, content)
            try:
                claim = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                claiming.add_done_callback(_let_go)
                raise
            if claim is not None:
                return claim
            if time.monotonic() > end:
                raise under_way()
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    def claim(self, request_id: str, content: str) -> Claim | None:
        """Hold an id, if no other call holds it, on whatever machine."""
        name = name_of(request_id).hex()
        with self._mutex:
            if not self._is_open:
                self._names.open()
                self._is_open = True
            if name in self._server.working_on:
                return None
            self._server.working_on.add(name)
        claim = None
        try:
            claim = self._claim(request_id, content, name)
        finally:
            if claim is None:
                self._server.working_on.discard(name)
        return claim

    def _claim(self, request_id: str, content: str, name: str) -> Claim | None:
        stream, after = self._log.stream, 0
        mine = self._value(stream)
        while True:
            if sequence := self._names.put(name, mine, after):
                return _SharedClaim(self, request_id, content, 0, None, None, True, name, sequence, stream)
            if (entry := self._names.get(name)) is None:
                after = 0
                continue
            after, value = entry
            if value == mine:  # the answer to putting it was lost
                return _SharedClaim(self, request_id, content, 0, None, None, True, name, after, stream)
            if not value:
                continue
            facts = json.loads(value)
            place = self._place_of(request_id, facts)
            if place is None:
                if self._is_under_way(facts, name):
                    return None
                place = self._place_of(request_id, facts)  # it may have come while its writer was asked
            if place is not None:
                return _SharedClaim(self, request_id, content, 0, place, None, True, name)

    def _value(self, stream: str) -> bytes:
        """What takes an id: whose record stands for it, and from where on in which stream."""
        writer, first = self._server.position(stream)
        return json.dumps({"stream": stream, "writer": writer, "from": first, "call": uuid.uuid4().hex}).encode()

    def _place_of(self, request_id: str, facts: dict[str, Any]) -> tuple[str, int] | None:
        for offset, data in self._streams.read(facts["stream"], facts["from"]):
            if NEEDLE in data and decode_record(data).request_id == request_id:
                return facts["stream"], offset
        return None

    def _is_under_way(self, facts: dict[str, Any], name: str) -> bool:
        """Whether a record may still come; when this is false, none can."""
        stream = facts["stream"]
        if stream == self._log.stream and facts["writer"] == self._server.position(stream)[0]:
            return False  # a call of this process, which has ended
        answer = self._names.is_held(stream, name)
        if answer is None:
            try:
                self._server.open_writer(stream, timeout_s=TAIL_S).close()  # which puts the other one out
            except BusyError:
                return True
        return bool(answer)

    def note(self, stream: str, first: int, claims: Sequence[Claim | None]) -> None:
        """Take ids again whose records go into another stream than was said."""
        del first  # a little before it is enough
        for claim in claims:
            if isinstance(claim, _SharedClaim):
                claim.recording = True
                if claim.stream != stream and claim.sequence:
                    sequence = self._names.put(claim.name, self._value(stream), claim.sequence)
                    if not sequence:
                        raise under_way("a call that came later, on another machine")
                    claim.stream, claim.sequence = stream, sequence

    def give_back(self, claim: _SharedClaim) -> None:
        """Let others take an id."""
        self._server.working_on.discard(claim.name)
        if claim.sequence and not claim.recording:
            self._names.give_back(claim.name, claim.sequence)

    def find(self, request_id: str, stream: str, offset: int) -> DecisionRecord | None:
        """Record at a place."""
        return self._at(request_id, stream, offset)

    def close(self) -> None:
        """Nothing is held open."""


def _let_go(claiming: asyncio.Future[Claim | None]) -> None:
    """Release what came when its caller was gone."""
    if not claiming.cancelled() and claiming.exception() is None and (claim := claiming.result()) is not None:
        claim.release()
