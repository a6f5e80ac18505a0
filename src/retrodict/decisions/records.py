"""The decision record: everything needed to explain one answer and to compute it again, in one self-describing blob.

MessagePack by msgspec with field names: a reader needs no schema file, a new field does not break an old reader, and a
record of an unknown newer schema is refused by its number instead of being misread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import structs

from retrodict.core.errors import IntegrityError, InternalError
from retrodict.core.identity import is_ulid, ulid_number
from retrodict.models.artifact import Score

__all__ = ["SCHEMA", "DecisionRecord", "Value", "decode_record", "encode_record", "named_outputs",
           "session_values"]  # fmt: skip

SCHEMA = 3
"""Newest form that is read. A record is of form 1 unless values of it are masked (2), or there is no decision (3)."""

Value = bool | int | float | str | None


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision.

    Attributes
    ----------
    id : str
        ULID; ``decision:<id>`` in references.
    time : int
        Moment of the decision, microseconds since 1970-01-01 UTC: no feature saw anything from then on. A caller may
        have given it: :attr:`made` is of the clock.
    policy, revision, policy_version, code : str, int, str, str
        Policy, revision in force, hash of its definition, SHA-256 of the code it came from.
    model, artifact, model_code : str
        What scored: ``name@version``, SHA-256 of its manifest, SHA-256 of the code it was trained with.
    entities, context : dict
        What the caller sent.
    key : str
        Key of the decided thing in the label's table, if the caller sent it; outcomes join on it.
    features : dict
        Every feature value the model and the rules saw, by full name; null where there was none.
    raw, score : float
        Before and after calibration; None when a fallback decided without a model, and where the model gives no score.
    outputs : dict
        What a model of another task gives, by name: ``value``, ``q90``, ``p["late"]``; empty where it is the score.
    decision : str
        Empty where a model was asked without a policy: what it gave is the answer.
    reasons : list of str
    rule, fallback, error : str
        The rule that decided; the fallback step that answered and why it had to.
    explained : bool
        Whether reasons were asked for, or are always given.
    views : dict
        Views whose features were not simply read: ``status`` (``no_state``, ``behind`` its table, ``stale`` for what
        the policy requires, ``beyond_horizon``, ``null_key``, ``unseen`` for a key without events, or ``not_read``
        where the read failed), and ``age_s``, the seconds since the newest event in the state became visible, None
        where there is none.
    reads : dict
        Per view, what its state contained: a version of its table (None: nothing of it), how many of that version's
        rows, and how many records of its stream (None: it follows none). Empty in records from before this was noted.
    request_id, request_hash : str
        The caller's id of the request, and the hash of what was asked: the same id never answers anything else.
    cached : str
        Id of the decision whose score this one has, if the row had been scored before; None if the model was asked.
    share : float
        Share of the policy's decisions that are recorded; 1 unless it samples. Each stands for ``1 / share``.
    left_out : int
        Decisions of the policy that the same process left out of the log since the record before.
    caller : str
        Whose key or token the request came with; None where none is asked for.
    masked : tuple of str
        Values of the context and features in whose place the log has keyed digests: personal ones, by the policy.
    arm : str
        Of a rollout under way: ``canary`` for the share that the new version decides, ``control`` for the share of the
        old one that it is compared with; empty for all others.
    variants : dict
        Experiment to variant, of those that run for the policy and take the unit in.
    session : dict
        ``count``, ``last`` and ``age_s`` of the session that it was decided in, as they were before; or its ``status``:
        ``no_unit`` where a part of the unit is null, ``unavailable`` where the store was.
    stages : dict
        Microseconds per stage, by the host's monotonic clock.
    schema : int
    """

    id: str
    time: int
    policy: str
    revision: int
    policy_version: str
    code: str
    model: str
    artifact: str
    model_code: str
    entities: dict[str, Value]
    context: dict[str, Value]
    features: dict[str, Value]
    decision: str = ""
    raw: float | None = None
    score: float | None = None
    outputs: dict[str, float] = {}
    key: str | None = None
    reasons: list[str] = []
    rule: str | None = None
    fallback: str | None = None
    error: str | None = None
    explained: bool = False
    views: dict[str, dict[str, Any]] = {}
    reads: dict[str, tuple[int | None, int, int | None]] = {}
    request_id: str | None = None
    request_hash: str | None = None
    cached: str | None = None
    share: float = 1.0
    left_out: int = 0
    caller: str | None = None
    masked: tuple[str, ...] = ()
    arm: str = ""
    variants: dict[str, str] = {}
    session: dict[str, Value] = {}
    stages: dict[str, int] = {}
    schema: int = 1

    @property
    def made(self) -> int:
        """When it was made by the clock, in whole milliseconds: the time of its id, which no caller can give."""
        return (ulid_number(self.id) >> 80) * 1_000 if is_ulid(self.id) else self.time

    def answer(self) -> dict[str, Any]:
        """What the caller gets."""
        body: dict[str, Any] = {
            "decision_id": self.id, "decision": self.decision, "score": self.score,
            "model": self.model, "policy": f"{self.policy}#{self.revision}",
        }  # fmt: skip
        if not self.decision:
            del body["decision"]
        if self.outputs:
            del body["score"]
            body["outputs"] = self.outputs
        if self.reasons:
            body["reasons"] = self.reasons
        if self.fallback is not None:
            body["fallback"] = self.fallback
        if self.views:
            body["views"] = self.views
        if self.variants:
            body["variants"] = self.variants
        return body


def session_values(session: Mapping[str, Value]) -> dict[str, Value]:
    """Values that rules read, of the ``session`` of a record: null where it has a status, none where it is empty."""
    return {f"session_{name}": session.get(name) for name in ("count", "last", "age_s")} if session else {}


class _Header(msgspec.Struct):
    schema: int = 1


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DecisionRecord)
_header = msgspec.msgpack.Decoder(_Header)


def named_outputs(scored: Score) -> dict[str, float]:
    """Outputs of a model as a record has them: none beside the score."""
    return {} if scored.score is not None else dict(scored.outputs)


def encode_record(record: DecisionRecord, mask: Callable[[Value], Value] | None = None) -> bytes:
    """Bytes for the log, in which ``mask`` has hidden what is personal."""
    if record.masked:
        if mask is None:
            raise InternalError("what is personal must be masked", where=f"decision:{record.id}", got="no mask")

        def hidden(values: dict[str, Value]) -> dict[str, Value]:
            return {name: mask(value) if name in record.masked else value for name, value in values.items()}

        context, features = hidden(record.context), hidden(record.features)
        record = structs.replace(record, context=context, features=features, schema=2)
    if not record.decision:
        record = structs.replace(record, schema=3)
    return _encoder.encode(record)


def decode_record(data: bytes) -> DecisionRecord:
    """Record of logged bytes; IntegrityError if they are not one, or of a newer schema."""
    try:
        record = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        _refuse_newer(data)
        raise IntegrityError(
            "a log record must be a decision",
            where="decision log",
            got=type(error).__name__,
            remedy="Run 'retrodict audit verify'",
        ) from error
    if record.schema > SCHEMA:
        _refuse_newer(data)
    return record


def _refuse_newer(data: bytes) -> None:
    """Raise if the record says that it is of a schema that this version does not know."""
    try:
        schema = _header.decode(data).schema
    except msgspec.MsgspecError:
        return
    if schema > SCHEMA:
        raise IntegrityError(
            "the record's schema must be known to this version",
            where="decision log",
            got=schema,
            remedy="Read it with the version of Retrodict that wrote it, or a newer one",
        )
