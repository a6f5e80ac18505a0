"""Many requests at once: each is answered on its own, in order, and all records are durable before the answer.

What is shared is the work: one read of the store and one call of the model for some hundred requests, one group commit
for all. A wrong one fails alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import structs

from retrodict.core.errors import InputError, RetrodictError, RetryableError
from retrodict.decisions.records import DecisionRecord
from retrodict.decisions.requests import DecisionRequest, RequestSchema, check_unique, decode_body, decode_form
from retrodict.decisions.servant import ReadyCase, Servant
from retrodict.serving.idempotency import Claim, RequestIndex, check_request_id, request_hash

__all__ = ["BatchItem", "Piece", "claim_all", "decode_batch", "judge", "pieces_of"]

_SHELL = re.compile(rb"""\s*\{\s*"requests"\s*:\s*(\[.*\])\s*\}\s*""", re.DOTALL)
_TOGETHER = 100  # read and scored together, before other requests have their turn


class BatchedRequest(DecisionRequest, forbid_unknown_fields=True):
    """A request within a batch: as one alone, and its ``request_id`` in the place of the header."""

    request_id: str | None = None


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/decisions/{policy}:batch``."""

    requests: list[msgspec.Raw]


@dataclass(slots=True)
class BatchItem:
    """One request of a batch, and what has become of it so far.

    ``waits`` is for an id that another call holds, or an earlier request of the same batch; ``recorded`` is what the
    answer says of its record where that is not durable.
    """

    question: DecisionRequest | None = None
    request_id: str | None = None
    error: RetrodictError | None = None
    content: str = ""
    claim: Claim | None = None
    waits: bool = False
    record: DecisionRecord | None = None
    replayed: bool = False
    recorded: str | None = None
    body: bytes = b""

    @property
    def open(self) -> bool:
        """Whether it is to be decided now."""
        return self.record is None and self.error is None and not self.waits

    def take(self, claim: Claim, caller: str | None = None) -> None:
        """Decide by an id that is held, or take the answer that it has got before and let go of it."""
        self.claim, self.waits = claim, False
        try:
            self.record = claim.recorded(caller)
        except RetrodictError as error:
            self.error = error
        if not self.open:
            self.replayed = self.record is not None
            self.release()

    def release(self) -> None:
        """Let go of the id."""
        if self.claim is not None:
            self.claim.release()


def decode_batch(body: bytes, longest: int, largest: int, schema: RequestSchema | None = None) -> list[BatchItem]:
    """Requests of a body, each with its own error: also one of more than ``largest`` bytes.

    With a schema the first hundred whose form is wrong are told what is wrong with their values, too.

    Raises
    ------
    InputError
        If the body is not ``{"requests": [...]}``, or has more than ``longest`` of them, or none.
    """
    requests = decode_body(body, BatchRequest, see="GET /v1/policies/{policy}", unique=False).requests
    if not 0 < len(requests) <= longest:
        raise InputError(f"a batch must have 1 to {longest} requests", where="body, field 'requests'",
                         got=f"{len(requests)}", remedy="Send several batches")  # fmt: skip
    _check_alone(body)
    large = InputError(f"a request must have at most {largest} bytes", where="body, field 'requests'", got="more",
                       remedy="Send less, or raise serving.max_body_bytes")  # fmt: skip
    entries, wrong = list[BatchItem](), 0
    for raw in map(bytes, requests):
        if wrong == _TOGETHER:
            schema = None  # a thousand wrong ones would hold up all others for seconds
        entries.append(_entry(raw, schema) if len(raw) <= largest else BatchItem(error=large, body=raw))
        wrong += entries[-1].error is not None
    return entries


def _check_alone(body: bytes) -> None:
    """Refuse a body that has 'requests' twice: the decoder has taken the last one."""
    shell = _SHELL.fullmatch(body)
    try:
        msgspec.json.decode(b"" if shell is None else shell[1], type=list[msgspec.Raw])
    except msgspec.DecodeError:  # a second list follows, or the name is written with escapes
        check_unique(body)


def _entry(raw: bytes, schema: RequestSchema | None) -> BatchItem:
    try:
        request = decode_form(raw, BatchedRequest, schema)
        request_id = request.request_id
        if request_id is not None:
            request_id = check_request_id(request_id, where="body, field 'request_id'")
    except InputError as error:
        return BatchItem(error=error, body=raw)
    return BatchItem(request, request_id, body=raw)


def claim_all(
    index: RequestIndex, entries: Iterable[BatchItem], policy: str, simulated: int | None, caller: str | None = None
) -> None:
    """Hold the ids that nobody holds, without waiting, and read the answers that were given before.

    Who waited here while holding ids could wait for somebody who waits for one of those.
    """
    for entry in entries:
        if entry.request_id is None or entry.question is None or not entry.open:
            continue
        entry.content = request_hash(policy, entry.question, simulated)
        claim = index.claim(entry.request_id, entry.content)
        if claim is None:
            entry.waits = True
        else:
            entry.take(claim, caller)


Piece = list[tuple[BatchItem, DecisionRequest]]


def pieces_of(entries: Iterable[BatchItem], size: int = _TOGETHER) -> Iterator[Piece]:
    """What is open, in pieces after each of which others may have their turn."""
    waiting = [(entry, entry.question) for entry in entries if entry.open and entry.question is not None]
    return (waiting[first : first + size] for first in range(0, len(waiting), size))


def judge(
    servant: Servant,
    piece: Piece,
    ready: Sequence[ReadyCase],
    *,
    at: int,
    new_id: Callable[[], str],
    arrived_ns: int,
    limit_ns: int | None = None,
    reasons: bool = True,
) -> None:
    """Decide a piece from what :meth:`Servant.prepare` gave for it; the deadline counts from ``arrived_ns``."""
    for (entry, question), case in zip(piece, ready, strict=True):
        try:
            record = servant.decide(question, decision_id=new_id(), at=at, arrived_ns=arrived_ns, limit_ns=limit_ns,
                                    ready=case, reasons=reasons)  # fmt: skip
        except (InputError, RetryableError) as error:  # the latter where a model without a policy gave nothing
            entry.error = error
            entry.release()  # a later one with its id need not wait for the end of the batch
            continue
        if entry.request_id is not None:
            record = structs.replace(record, request_id=entry.request_id, request_hash=entry.content)
        entry.record = record
