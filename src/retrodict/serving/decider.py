"""Deciding in the process that asks: the same checks, servants, fallbacks and durable records as over HTTP.

For a notebook, a batch or a program that embeds the platform. Nothing here waits for an event loop, so it also works
inside a running one; an HTTP client against a server of the same process was rejected for that reason.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from threading import Lock
from time import perf_counter_ns
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import msgspec
import numpy as np

from retrodict.core.clock import check_has_been
from retrodict.core.errors import InputError, RetrodictError, RetryableError
from retrodict.decisions.loader import Loader, find_servant
from retrodict.decisions.recorder import LogWriter, noting
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.decisions.requests import DecisionRequest, RequestSchema, decode_request, unread_warnings
from retrodict.decisions.servant import ReadyCase, Servant
from retrodict.features.online import FeatureHealth, Upkeep
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.serving.batch import BatchItem, claim_all, judge, pieces_of
from retrodict.serving.idempotency import RequestIndex, check_request_id
from retrodict.serving.record_modes import Sampling, check_takes_ids
from retrodict.serving.shared_requests import open_index
from retrodict.workspace import Workspace

__all__ = ["Decider", "GivenAnswer"]

_PATIENCE_S = 60.0  # for another process that reads a table into the state

_log = logging.getLogger(__name__)


class GivenAnswer(NamedTuple):
    """Record of a decision, whether an earlier call with its request id made it, and whether it is in the log.

    Only a policy that samples leaves decisions out.
    """

    record: DecisionRecord
    replayed: bool
    in_log: bool = True


class Decider:
    """Decides by the policies in force. Threads may share it; a context manager.

    Promises: a decision that was returned is in the log and survives ``kill -9`` and a loss of power, unless its policy
    samples and left it out; ``record="async"`` is for servers, and waits for the disk here. A change of a
    deployment counts from the next decision on; where a new revision cannot be loaded the earlier one goes on deciding,
    and the error is logged. Online state is brought up to its tables and streams before a decision. The decision stream
    is opened by the first one and held until :meth:`close`; other writers of the project take other streams.

    Parameters
    ----------
    workspace : Workspace

    Attributes
    ----------
    failures : Counter
        Cases that got no decision, by policy and kind of the error, as a server counts them.

    Examples
    --------
    >>> with Decider(workspace) as decider:  # doctest: +SKIP
    ...     record = decider.decide("warn_early", {"origin": "JFK", "sched_dep": "2013-09-01T18:00-04:00"})
    >>> record.decision  # doctest: +SKIP
    'ok'
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._health = FeatureHealth()
        self._loader = Loader(workspace, health=self._health)
        self._upkeep = Upkeep(workspace, served_feature_sets)
        self._writer: LogWriter | None = None
        self._requests: RequestIndex | None = None
        self._problems: dict[str, str | None] = {}
        self._unread: dict[str, tuple[str, ...]] = {}
        self._lock, self._sampling = Lock(), Sampling()
        self.failures: Counter[tuple[str, str]] = Counter()

    def decide(
        self,
        policy: str,
        values: Mapping[str, Any],
        *,
        key: str | None = None,
        explain: bool = False,
        at: int | None = None,
        request_id: str | None = None,
    ) -> DecisionRecord:
        """Decide one case; the record is durable when this returns. Parameters and errors are as in :meth:`answer`."""
        return self.answer(policy, values, key=key, explain=explain, at=at, request_id=request_id).record

    def answer(
        self,
        policy: str,
        values: Mapping[str, Any],
        *,
        key: str | None = None,
        explain: bool = False,
        at: int | None = None,
        request_id: str | None = None,
    ) -> GivenAnswer:
        """Decide one case, or give the answer that its request id has got before.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        values : mapping of str to value
            Entities and context by name: text, numbers, bools, or None; NumPy scalars are taken as numbers, NaN and
            pandas' missing values as None. Times are ISO 8601 text, ``datetime`` or pandas timestamps, each with its
            zone, or ``numpy.datetime64``, which is read as UTC; days are ``date`` or text.
        key : str, optional
            Key of the decided thing in the label's table; outcomes join on it.
        explain : bool, default False
            Add reasons to the record.
        at : int, optional
            Simulated moment of the decision, microseconds since 1970-01-01 UTC; now by default.
        request_id : str, optional
            1 to 200 printable ASCII characters. The first call with it decides; all others, here or over HTTP, get its
            record for ``serving.request_ids_kept``.

        Raises
        ------
        NotFoundError
            If no policy of this name is deployed.
        InputError
            If a value is missing or has the wrong kind.
        RefusedError
            If the request id was used with another policy or other values.
        RetryableError
            If the log cannot be written, or another call with the same request id goes on for more than 5 s; then there
            is no decision.
        """
        (answer,) = self.decide_many(policy, [values], keys=[key], explain=explain, at=at, request_ids=[request_id])
        if isinstance(answer, RetrodictError):
            raise answer
        return answer

    def decide_many(
        self,
        policy: str,
        cases: Iterable[Mapping[str, Any]],
        *,
        keys: Sequence[str | None] | None = None,
        explain: bool = False,
        at: int | None = None,
        request_ids: Sequence[str | None] | None = None,
    ) -> list[GivenAnswer | RetrodictError]:
        """Decide many cases at one moment; their records are durable, by one sync, when this returns.

        Features are read and scores computed together, a hundred at a time, and the deadline counts for each hundred. A
        case that is wrong has its error in the place of its answer, and the others are decided.

        Parameters
        ----------
        policy : str
        cases : iterable of mapping
            Values of each case, as for :meth:`answer`.
        keys, request_ids : sequence of str or None, optional
            One for each case. The second case with one request id gets the answer of the first.
        explain, at
            As for :meth:`answer`, for all cases.

        Raises
        ------
        NotFoundError, RetryableError
            As :meth:`answer` does; then nothing was decided.
        """
        cases = list(cases)
        try:
            answers = self._decide_many(policy, cases, keys, explain, at, request_ids)
        except RetrodictError as error:
            self._count(policy, error, len(cases))
            raise
        for answer in answers:
            if isinstance(answer, RetrodictError):
                self._count(policy, answer)
        return answers

    def _count(self, policy: str, error: RetrodictError, cases: int = 1) -> None:
        with self._lock:
            self.failures[policy, type(error).__name__] += cases

    def _decide_many(
        self,
        policy: str,
        cases: Sequence[Mapping[str, Any]],
        keys: Sequence[str | None] | None,
        explain: bool,
        at: int | None,
        request_ids: Sequence[str | None] | None,
    ) -> list[GivenAnswer | RetrodictError]:
        with self._lock:
            servant = find_servant(self._servants(policy), policy, where="decide")
            self._feed()
        now = self._workspace.clock.now()
        moment = now if at is None else at
        check_has_been(moment, now, where="at")
        none = [None] * len(cases)
        entries = [
            _entry(values, servant.schema, key, explain, request_id)
            for values, key, request_id in zip(cases, keys or none, request_ids or none, strict=True)
        ]
        self._tell_unread(servant, policy, entries)
        try:
            if any(entry.request_id is not None for entry in entries):
                check_takes_ids(servant.policy.policy, where="request_id")
                claim_all(self._index(), entries, policy, at)
            self._record(servant, entries, moment)
            for entry in entries:
                if entry.waits and entry.request_id is not None:
                    try:
                        entry.take(self._index().wait(entry.request_id, entry.content))
                    except RetryableError as error:
                        entry.error, entry.waits = error, False
                    self._record(servant, [entry], moment)
        finally:
            for entry in entries:
                entry.release()
        return [
            entry.error or GivenAnswer(cast("DecisionRecord", entry.record), entry.replayed, entry.recorded is None)
            for entry in entries
        ]

    def _tell_unread(self, servant: Servant, policy: str, entries: Sequence[BatchItem]) -> None:
        """Log what is sent and read by nothing, when it is other than with the decisions before."""
        contexts = [entry.question.context for entry in entries if entry.question is not None]
        unread = tuple(dict.fromkeys(name for context in contexts for name in servant.unread(context)))
        if unread and self._unread.get(policy) != unread:
            _log.warning("policy %s: %s", policy, "; ".join(unread_warnings(unread, servant.reads)))
        self._unread[policy] = unread

    def _record(self, servant: Servant, entries: Sequence[BatchItem], at: int) -> None:
        """Decide what is open, and make it durable."""
        fresh = [entry for entry in entries if entry.open]
        for piece in pieces_of(fresh):
            begun, ready = perf_counter_ns(), [ReadyCase()]
            if len(piece) > 1 or servant.asks_redis:
                questions = [question for _, question in piece]
                ready = servant.prepare_each(questions, at=at, deadlines=[servant.deadline(begun)] * len(questions))
            judge(servant, piece, ready, at=at, new_id=self._workspace.new_id, arrived_ns=begun)
        records: list[tuple[DecisionRecord, Any]] = []
        for entry in fresh:
            if entry.record is not None:
                sampled = self._sampling.choose(servant.policy.policy, entry.record)
                entry.record, entry.recorded = sampled or entry.record, None if sampled else "no"
                records += [(sampled, entry.claim)] if sampled else []
        if records:
            with self._lock:  # also keeps close() from taking the writer away under an append
                writer = self._opened()
                data = [encode_record(record, writer.masks.value) for record, _ in records]
                writer.append(data, noting([claim for _, claim in records]))
            for entry in fresh:
                entry.release()
                if servant.cache is not None and entry.record is not None and entry.recorded is None:
                    servant.cache.keep(entry.record)

    def _opened(self) -> LogWriter:
        if self._writer is None:
            self._writer = LogWriter(self._workspace)
        return self._writer

    def _index(self) -> RequestIndex:
        with self._lock:
            if self._requests is None:
                self._requests = open_index(self._workspace, self._opened())
            return self._requests

    def _servants(self, policy: str) -> Mapping[str, Servant]:
        try:
            servants = self._loader.load_current()
            self._log_once("a new revision cannot be loaded", None)
        except RetrodictError as error:
            if policy not in self._loader.servants:
                raise
            self._log_once("a new revision cannot be loaded", error)
            return self._loader.servants
        return servants

    def _feed(self) -> None:
        """Bring online state up to its tables and streams; where that fails, decisions say what is behind."""
        try:
            self._upkeep.catch_up(wait_s=_PATIENCE_S)
            self._log_once("online features cannot be brought up to date", None)
        except RetrodictError as error:
            self._log_once("online features cannot be brought up to date", error)
        self._health.behind = self._upkeep.behind

    def _log_once(self, what: str, error: RetrodictError | None) -> None:
        """Log what is wrong when it begins or changes, not with every decision; None: nothing is."""
        problem = None if error is None else str(error)
        if problem is not None and self._problems.get(what) != problem:
            _log.error("%s: %s", what, problem)
        self._problems[what] = problem

    def close(self) -> None:
        """Close and seal the log's segment; the next decision opens the log again."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._requests is not None:
                self._requests.close()
                self._requests = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _entry(
    values: Mapping[str, Any], schema: RequestSchema, key: str | None, explain: bool, request_id: str | None
) -> BatchItem:
    try:
        if request_id is not None:
            request_id = check_request_id(request_id, where="request_id")
        return BatchItem(_request(values, schema, key, explain), request_id)
    except InputError as error:
        return BatchItem(error=error)


def _request(values: Mapping[str, Any], schema: RequestSchema, key: str | None, explain: bool) -> DecisionRequest:
    """Request as its JSON body would be read: what HTTP refuses is refused here in the same words."""
    body: dict[str, Any] = {"entities": {}, "context": {}, "key": key, "explain": explain}
    for name, value in values.items():
        if isinstance(value, float | np.floating) and math.isinf(value):
            raise InputError(
                "a number must be finite", where=f"value {name!r}", got="an infinity", remedy="Pass a number or None"
            )
        if not _is_value(value):
            raise InputError(
                "a value must be text, a number, a bool, a time or None", where=f"value {name!r}",
                got=type(value).__name__, remedy="Convert it to one of these",
            )  # fmt: skip
        body["entities" if name in schema.entities else "context"][name] = value
    try:
        text = msgspec.json.encode(body, enc_hook=_to_json)
    except (TypeError, ValueError) as error:
        raise InputError(
            "values must be text, numbers, bools, times or None, by name",
            where="decide",
            got=sorted({type(value).__name__ for value in values.values()}),
            remedy="Convert what is of another type",
        ) from error
    return decode_request(text)


def _is_value(value: Any) -> bool:
    missing = type(value).__name__ in ("NaTType", "NAType")
    return value is None or missing or isinstance(value, str | bool | int | float | date | np.generic)


def _to_json(value: Any) -> Any:
    """JSON form of scalars that are not Python's; NaN becomes null by the encoder."""
    if isinstance(value, np.datetime64):
        moment = value.astype("datetime64[us]").item()
        return None if moment is None else moment.replace(tzinfo=UTC)
    if isinstance(value, np.generic):
        return value.item()
    name = type(value).__name__
    if name in ("NaTType", "NAType"):
        return None
    if isinstance(value, datetime):  # pandas', which has nanoseconds
        return value.isoformat(timespec="microseconds")
    raise TypeError(name)
