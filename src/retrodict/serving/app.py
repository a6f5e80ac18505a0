"""The HTTP face of deciding and of feature services, as a bare ASGI application.

A web framework was rejected for this one path: its routing alone would cost more than rules and record together.
Nothing on the way to an answer waits for the control plane: the watcher swaps servants beside it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns, process_time
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import structs

from retrodict.core.clock import Clock, check_has_been, parse_time
from retrodict.core.errors import InputError, InternalError, RefusedError, RetrodictError, RetryableError
from retrodict.core.identity import UlidFactory
from retrodict.core.log_lines import REQUEST
from retrodict.core.retries import left_s
from retrodict.decisions.recorder import Recorder
from retrodict.decisions.records import DecisionRecord
from retrodict.decisions.requests import FIRST, LAST, DecisionRequest, decode_request
from retrodict.decisions.servant import Servant
from retrodict.features.online import FeatureHealth
from retrodict.serving.batch import BatchItem, claim_all, decode_batch, pieces_of
from retrodict.serving.cache_advice import cache_reports
from retrodict.serving.callers import Callers
from retrodict.serving.connection import ARRIVED, COMPLETE, DrainingState
from retrodict.serving.deadlines import late, within
from retrodict.serving.engine_queue import EngineQueues
from retrodict.serving.events import EventInlet
from retrodict.serving.failures import FailureLog
from retrodict.serving.http_answer import REPLAYED, RETRY, HttpAnswer, RefusedRequestError, status_of
from retrodict.serving.http_request import ID_HEADER, TIME_HEADER, HttpRequest, Receive, Scope, Send, read_header
from retrodict.serving.idempotency import Claim, RequestUnderWayError, check_request_id, request_hash
from retrodict.serving.record_modes import Sampling, check_takes_ids, describe_mode, record_decisions
from retrodict.serving.routes import DECIDING, Part, check_serves, check_written, find_route, route
from retrodict.serving.services import ServedFeatures
from retrodict.serving.shared_requests import open_index
from retrodict.serving.telemetry import Telemetry, revision_label
from retrodict.serving.traces import Traces
from retrodict.serving.turns import RequestHead, Turns, full
from retrodict.serving.versions import asked_servant, decide_by, keep_warm, servant_named, warnings_of

if TYPE_CHECKING:
    from retrodict.serving.apart import Parts
    from retrodict.serving.elsewhere import Origin
    from retrodict.serving.worker import Colleagues

__all__ = ["PREPARE", "DecisionApp", "Limits"]

PREPARE = "retrodict.prepare"
"""In a request's scope, what makes its body out of another protocol's message, once its caller may ask."""

_EVERY = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

_DECISIONS = re.compile(rb"/v1/(?:decisions|models)/([^/:?]+)").match
_FULL = full()

_STATUS_NS = 2_000_000_000  # that a status waits for the stores
_STORES = {"failures": "store_failures_total", "opened": "store_breaker_opened_total",
           "refused": "store_refused_total", "retried": "store_retries_total"}  # fmt: skip

_log = logging.getLogger(__name__)
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the app refuses.

    Attributes
    ----------
    body, events_body : int
        Bytes of a body.
    in_flight : int
        Requests that wait or are worked on at once. Those of priority ``batch`` may take half of the places.
    batch, batch_body : int
        Requests of a batch, and bytes of its body.
    wait : int
        Microseconds that a request may have waited for its turn. Those of priority ``batch`` may have a quarter of it.
    """

    body: int
    in_flight: int
    wait: int = 250_000
    events_body: int = 4 << 20
    batch: int = 1_000
    batch_body: int = 4 << 20


class DecisionApp:
    """ASGI application over the servants and feature services of one process.

    Parameters
    ----------
    clock : Clock
        Where the moment of a decision comes from.
    recorder : Recorder
    inlet : EventInlet
        Takes pushed events.
    limits : Limits
    simulated_time : bool, default False
        Accept the header ``Retrodict-Time``: only for replays, a server for real callers refuses it.

    Attributes
    ----------
    servants : dict
        Policy name to servant; replaced as a whole by the watcher, never changed in place.
    earlier : dict
        Policy name to the servants before, newest first, that read nothing that those in force do not: for who asks
        for their revision.
    services : dict
        Name to feature service, as the process started with them.
    services_problem : str, optional
        Why there are none, if the definitions module cannot be read.
    problem, not_followed : str, optional
        Why a new revision cannot be loaded, and why nobody knows if there is one: the records are away.
    not_loaded : dict
        By name, why versions of models cannot be loaded that are asked beside the one that decides.
    telemetry : Telemetry
    turns : Turns
        Whose request is worked on.
    requests : RequestIndex
        Answers by request id; whoever made the app closes it after the recorder.
    failures : FailureLog
        Requests that got no decision.
    health : FeatureHealth
        Of the features that are served; its gauges are refreshed from outside.
    traces : Traces, optional
        Makes spans; None: nobody asks for them.
    callers : Callers, optional
        Admits who calls; None: anybody may.
    colleagues : Colleagues, optional
        The workers of this server, if it has several: what is told of it is told of all of them.
    connected : DrainingState, optional
        The connections of this process.
    part : str, optional
        What it serves alone; None: everything.
    parts : Parts, optional
        What servers of decisions ask of it.
    reached : dict of str to bool or None
        Whether each part that is elsewhere answered, as somebody beside the requests has seen last; None: not yet.
    """

    def __init__(
        self, clock: Clock, recorder: Recorder, inlet: EventInlet, limits: Limits, *, simulated_time: bool = False,
        part: Part | None = None,
    ) -> None:  # fmt: skip
        self.servants: dict[str, Servant] = {}
        self.earlier: dict[str, tuple[Servant, ...]] = {}
        self.services: dict[str, ServedFeatures] = {}
        self.services_problem: str | None = None
        self.telemetry, self.health = Telemetry(), FeatureHealth()
        self.problem: str | None = None
        self.not_followed: str | None = None
        self.not_loaded: dict[str, str] = {}
        self.colleagues: Colleagues | None = None
        self.callers: Callers | None = None
        self.traces: Traces | None = None
        self.connected: DrainingState | None = None
        self.part, self.parts = part, cast("Parts | None", None)
        self.reached: dict[str, bool | None] = {}
        self._clock, self._recorder, self._inlet, self.limits = clock, recorder, inlet, limits
        self.workspace, self.log = recorder.workspace, recorder.log
        self._simulated_time = simulated_time
        self._new_id = UlidFactory(clock)
        self.records = part in (None, "decisions")
        self.requests = open_index(self.workspace, self.log) if self.records else None
        self._counted = dict[tuple[str, str], int]()
        self.failures = FailureLog(self.workspace, self.log.stream)
        self.turns, self._sampling = Turns(limits.in_flight, limits.wait), Sampling()
        self.engines = EngineQueues(clock, self.telemetry)

    def follow(self, servants: dict[str, Servant]) -> None:
        """Decide by these servants from here on; requests under way finish with theirs."""
        self._count_caches()  # of those that go
        self.earlier = keep_warm(self, servants)
        self.servants = servants
        self.engines.follow(servants)

    def _description(self, name: str, servant: Servant) -> dict[str, Any]:
        scoring, mode = self.engines.describe(name, servant), describe_mode(servant.policy.policy)
        return {**servant.describe(), "scoring": scoring, "record": mode}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived = scope.get(ARRIVED) or perf_counter_ns()
        failure: Exception | None = None
        request = HttpRequest(scope, receive, arrived, "")
        REQUEST.set(request.name)
        try:
            handler, needed, request.route, request.parameter = find_route(scope["method"], scope["path"])
            if needed is not None and self.callers is not None:
                request.caller = self.callers.admit(scope["headers"], needed)
            check_serves(self.part, request.route)
            check_written(request.route, request.parameter, scope.get("raw_path", b""))
            if PREPARE in scope:
                scope[PREPARE]()
            answer = await handler(self, request)
        except RefusedRequestError as refused:
            answer, failure = refused.answer, refused
        except (InputError, RefusedError, RetryableError) as error:
            status, failure = status_of(error), error
            again = RETRY if isinstance(error, RetryableError) else ()
            answer = HttpAnswer(_json.encode({"error": str(error)}), status, again)
        except Exception as error:  # noqa: BLE001  # the last resort: the server lives on, its log says why
            request.origin = request.name() or self._new_id(), ""  # the caller learns by which name the log has it
            _log.exception("request failed")
            failure = error
            answer = HttpAnswer(_json.encode({"error": "the server failed to answer; its log says why"}), 500)
        self.telemetry.count("requests_total", f'status="{answer.status}"')
        decides = bool(request.parameter) and needed == "score" and scope["path"].startswith(DECIDING)
        if failure is not None and decides:
            self._note_failure(request.parameter, answer.status, failure, request.body, request.servant)
        length = str(len(answer.body)).encode()
        start = [(b"content-type", answer.kind), (b"content-length", length), *_EVERY, *answer.headers]
        if decides:
            start.append((b"server-timing", b"total;dur=%.3f" % ((perf_counter_ns() - arrived) / 1e6)))
            start.append((b"retrodict-served-by", self.log.stream.encode()))
        if request.origin is not None:
            start.append((b"x-request-id", request.origin[0].encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": start})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
        if self.traces is not None:
            self.traces.end(request, answer.status, failure)

    @route("POST", "/v1/models/{model}:score", "score")
    @route("POST", "/v1/decisions/{policy}", "score")
    async def _decide(self, request: HttpRequest) -> HttpAnswer:
        # A caller who sends slowly holds no place among the requests that are worked on.
        body = await request.read_body(self.limits.body)
        servant = self.servants.get(request.parameter)
        # Whose deadline passed in the queue is told to come back: nothing was tried that a fallback could stand for.
        async with self.turn(request, None if servant is None else servant.deadline(0)):
            servant = self.servants.get(request.parameter)
            try:
                question = decode_request(body, None if servant is None else servant.schema)
            except InputError:
                asked_servant(self, request)  # a wrong name is said first
                raise
            request_id = read_header(request.scope, ID_HEADER, "Idempotency-Key")
            # Of a policy that is gone an id is still known: it is not looked for here.
            pinned_servant = servant if servant is None else asked_servant(self, request)
            if pinned_servant is not None and pinned_servant is not servant:
                return await decide_by(self, request, pinned_servant, BatchItem(question, request_id, body=body))
            if request_id is not None:
                return await self._decide_once(request, question, request_id)
            record = await self._judge(request, question)
            (recorded,) = await self._record(request, [record])
        return HttpAnswer(_json.encode(self._body(record, recorded)))

    async def _judge(self, request: HttpRequest, question: DecisionRequest) -> DecisionRecord:
        queue = self.engines.by_policy.get(request.parameter)
        if queue is not None:
            return await queue.decide(
                question, new_id=self._new_id, simulated=self._simulated(request.scope), arrived_ns=request.arrived,
                limit_ns=request.limit_ns(), has_left=request.has_left, batch=request.is_batch(),
                origin=self._origin(request, queue.servant),
            )  # fmt: skip
        at = self.moment(request.scope)
        servant = servant_named(self, request.parameter, alone=request.route.startswith("/v1/models/"))
        limit = request.limit_ns()
        return servant.decide(question, decision_id=self._new_id(), at=at, arrived_ns=request.arrived, limit_ns=limit)

    def _origin(self, request: HttpRequest, servant: Servant) -> Origin | None:
        """What a request is called where its servant asks other servers; None where it asks none."""
        if self.part != "decisions" or not servant.on_server:
            return None
        if request.origin is None:
            span = request.header(b"traceparent") if self.traces is None else self.traces.begin(request)
            request.origin = request.name() or self._new_id(), span or ""
        return request.origin

    async def _decide_once(self, request: HttpRequest, question: DecisionRequest, request_id: str) -> HttpAnswer:
        """Decide by a request id, or answer again what it was answered before."""
        request_id = check_request_id(request_id, where="header Idempotency-Key")
        if (
            servant := self.servants.get(request.parameter)
        ) is not None:  # what was answered is, also of one that is gone
            check_takes_ids(servant.policy.policy, where="header Idempotency-Key")
        assert self.requests is not None
        content = request_hash(request.parameter, question, self._simulated(request.scope))
        until = request.until_ns()
        try:
            claim = await self.requests.hold(request_id, content, left_s(until))
        except RequestUnderWayError:
            request.limit_ns()  # the caller waits no longer, which says more
            raise
        try:
            record = None
            if claim.place is not None:
                reading = asyncio.to_thread(claim.recorded, request.caller)
                record = await within(reading, until, late("a log that could not be read"))
            if record is not None:
                claim.release()
                self.telemetry.count("decisions_replayed_total", f'policy="{request.parameter}"')
                request.decided = [([record], 0, 0)]
                return HttpAnswer(_json.encode(self._body(record, None)), headers=REPLAYED)
            record = await self._judge(request, question)
        except BaseException:
            claim.release()
            raise
        record = structs.replace(record, request_id=request_id, request_hash=content)
        await self._record(request, [record], claims=[claim])  # which lets go of the claim
        return HttpAnswer(_json.encode(self._body(record, None)))

    @route("POST", "/v1/decisions/{policy}:batch", "score")
    async def _decide_many(self, request: HttpRequest) -> HttpAnswer:
        body = await request.read_body(self.limits.batch_body)
        async with self.turn(request, many=True):
            if read_header(request.scope, ID_HEADER, "Idempotency-Key") is not None:
                raise InputError("each request of a batch must have its own id", where="header Idempotency-Key",
                                 got="one for all", remedy="Send 'request_id' within the requests")  # fmt: skip
            servant = asked_servant(self, request)
            entries = decode_batch(body, self.limits.batch, self.limits.body, servant.schema)
            answers = await self.decide_items(request, servant, entries)
        return HttpAnswer(_json.encode({"answers": answers}))

    async def decide_items(
        self, request: HttpRequest, servant: Servant, entries: Sequence[BatchItem]
    ) -> list[dict[str, Any]]:
        """Answers to several requests, of which ``request`` is the one that brought them, each with its status."""
        simulated = self._simulated(request.scope)
        at = self._clock.now() if simulated is None else simulated
        limit = request.limit_ns()
        try:
            for entry in entries:
                try:
                    if entry.request_id is not None:
                        check_takes_ids(servant.policy.policy, where="field 'request_id'")
                except InputError as error:
                    entry.error, entry.request_id = entry.error or error, None
            if any(entry.request_id is not None for entry in entries) and self.requests is not None:
                await self.requests.opened()
                claiming = partial(claim_all, self.requests, entries, request.parameter, simulated, request.caller)
                await asyncio.get_running_loop().run_in_executor(None, claiming)
                request.limit_ns()
            await self._record_all(servant, entries, at, request, limit)
            for entry in entries:
                if entry.waits:
                    await self._wait_for(entry, request, limit)
                    if entry.open and limit is not None and perf_counter_ns() - request.arrived >= limit:
                        entry.error = late("another call with its id")  # others are in the log by now
                    await self._record_all(servant, [entry], at, request, limit)
        finally:
            for entry in entries:
                entry.release()
        return [self._item(entry, request.parameter, servant) for entry in entries]

    async def _wait_for(self, entry: BatchItem, request: HttpRequest, limit: int | None) -> None:
        arrived = request.arrived
        left = left_s(None if limit is None else limit + arrived)
        assert self.requests is not None
        try:
            claim = await self.requests.hold(entry.request_id or "", entry.content, left)
            await asyncio.get_running_loop().run_in_executor(None, entry.take, claim, request.caller)
        except RetryableError as error:
            passed = limit is not None and perf_counter_ns() - arrived >= limit
            entry.error, entry.waits = late("another call with its id") if passed else error, False

    async def _record_all(
        self, servant: Servant, entries: Sequence[BatchItem], at: int, request: HttpRequest, limit: int | None
    ) -> None:
        """Decide what is open, and make it durable in one group."""
        fresh = [entry for entry in entries if entry.open]
        times: dict[str, Any] = {"at": at, "arrived_ns": request.arrived, "limit_ns": limit}
        deadline = servant.deadline(request.arrived, limit)
        for piece in pieces_of(fresh, self.engines.piece(servant)):
            questions = [question for _, question in piece]
            origin = self._origin(request, servant)
            ready = await self.engines.prepare(servant, questions, at=at, deadline=deadline, origin=origin)
            await self.engines.judge(servant, piece, ready, deadline, origin, new_id=self._new_id, **times)
            await asyncio.sleep(0)
        written = [(entry.record, entry) for entry in fresh if entry.record is not None]
        if written:
            claims = [entry.claim for _, entry in written]
            for _, entry in written:
                entry.claim = None  # the recorder lets go of it
            marks = await self._record(request, [record for record, _ in written], claims=claims)
            for (_, entry), recorded in zip(written, marks, strict=True):
                entry.recorded = recorded

    def _item(self, entry: BatchItem, policy: str, servant: Servant) -> dict[str, Any]:
        if entry.error is not None or entry.record is None:
            error = entry.error or InternalError("a request of a batch must have an answer", where="batch", got="none")
            self._note_failure(policy, status_of(error), error, entry.body, servant)
            return {"status": status_of(error), "error": str(error)}
        if entry.replayed:
            self.telemetry.count("decisions_replayed_total", f'policy="{entry.record.policy}"')
        return {
            "status": 200,
            **self._body(entry.record, entry.recorded),
            **({"replayed": True} if entry.replayed else {}),
        }

    def _note_failure(
        self, policy: str, status: int, error: Exception, body: bytes, servant: Servant | None = None
    ) -> None:
        """Count and note a request that got no decision, of that in force where nobody was asked; no made-up names."""
        refused = isinstance(error, RefusedRequestError)
        servant, kind = servant or self.servants.get(policy), "Refused" if refused else type(error).__name__
        name = "_other" if servant is None else policy
        self.telemetry.count("decisions_failed_total", f'policy="{name}",status="{status}",error="{kind}"')
        names, text = [], "what is asked must be deployed"
        if servant is not None:
            self.telemetry.count("revision_failures_total", revision_label(name, servant.revision.revision))
            names = [*servant.schema.entities, *servant.schema.context]
            text = str(error) if status < 500 or isinstance(error, RetrodictError) else kind
        self.failures.note(name, status, kind, text, body, names=names, cause=error if status == 500 else None)

    async def _record(
        self, request: HttpRequest, records: Sequence[DecisionRecord], claims: Sequence[Claim | None] = ()
    ) -> list[str | None]:
        """Record decisions as their policy says, and count them; what their answers say of that."""
        servant, before = self.servants.get(records[0].policy), perf_counter_ns()
        if request.caller is not None:
            records = [structs.replace(record, caller=request.caller) for record in records]
        policy, marks = None if servant is None else servant.policy.policy, list[str | None]()
        if self.records:
            marks = await record_decisions(
                self._recorder, self._sampling, policy, records, claims=claims, durable=self._keep_score
            )
        if self.traces is not None:
            self.traces.note(request, records, before)
        marks = marks or ["no"] * len(records)
        for record, recorded in zip(records, marks, strict=True):
            if recorded is not None and self.records:
                self.telemetry.count("decisions_recorded_total", f'policy="{record.policy}",recorded="{recorded}"')
            self._observe(record, request.arrived, before)
        self.telemetry.count_request(records, (perf_counter_ns() - request.arrived) // 1_000)
        return marks

    def _keep_score(self, record: DecisionRecord) -> None:
        servant = self.servants.get(record.policy)
        if servant is not None and servant.cache is not None:
            servant.cache.keep(record)

    def _observe(self, record: DecisionRecord, arrived: int, before: int) -> None:
        ended, observe = perf_counter_ns(), self.telemetry.observe
        decided = f'policy="{record.policy}",decision="{record.decision}",fallback="{record.fallback or ""}"'
        self.telemetry.count("decisions_total", decided)
        servant = self.servants.get(record.policy)
        if servant is not None and servant.unread(record.context):
            self.telemetry.count("decisions_unread_total", f'policy="{record.policy}"')
        for condition in () if servant is None else servant.conditions:
            if condition.fault({**record.context, **record.entities}) is not None:
                label = f'policy="{record.policy}",condition="{condition.label}"'
                self.telemetry.count("conditions_failed_total", label)
        if servant is not None and servant.cache is not None and record.fallback is None:
            result = "miss" if record.cached is None else "hit"
            self.telemetry.count("score_cache_total", f'policy="{record.policy}",result="{result}"')
            saved = servant.cache.saved_us(record)
            self.telemetry.count("score_cache_saved_microseconds_total", f'policy="{record.policy}"', saved)
        if record.session:
            status = record.session.get("status", "ok")
            self.telemetry.count("sessions_total", f'policy="{record.policy}",status="{status}"')
        for stage, micros in record.stages.items():
            observe(stage, micros)
        observe("record", (ended - before) // 1_000)
        observe("total", (ended - arrived) // 1_000)

    def turn(
        self, request: HttpRequest, limit_ns: int | None = None, *, many: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Wait for the turn of a request; 429 if all places are taken, or it has come too late."""
        since = request.scope.get(COMPLETE, request.arrived)
        return self.turns.turn(since, batch=request.is_batch(), many=many, limit_ns=limit_ns)

    def turn_away(self, head: RequestHead) -> bytes | None:
        """Body of a refusal for which the head of a request is enough; None where the request may go on."""
        if not self.turns.is_full(batch=head.batch, many=head.path.endswith(b":batch")):
            return None
        self.telemetry.count("requests_total", 'status="429"')
        policy = _DECISIONS(head.path)
        if policy is not None:
            self._note_failure(policy[1].decode("latin-1"), 429, _FULL, b"")
        return _FULL.answer.body

    @route("POST", "/v1/events/{table}", "operate")
    async def _push_events(self, request: HttpRequest) -> HttpAnswer:
        body = await request.read_body(self.limits.events_body)
        if self._inlet.waiting >= max(1, self.limits.in_flight // 4):  # decisions keep their places
            raise RefusedRequestError(429, "too many bodies of events wait for their stream; try again", RETRY)
        async with self.turn(request):
            doubt = late("a stream that takes nothing", doubt="whether its events were stored is not known")
            accepted = await within(self._inlet.push(request.parameter, body), request.until_ns(), doubt)
            return HttpAnswer(_json.encode(accepted), 202)

    @route("GET", "/v1/policies")
    async def _policies(self, _: HttpRequest) -> HttpAnswer:
        policies = {name: self._description(name, servant) for name, servant in self.servants.items()}
        return HttpAnswer(_json.encode(policies))

    @route("GET", "/v1/policies/{policy}")
    async def _policy(self, request: HttpRequest) -> HttpAnswer:
        servant = servant_named(self, request.parameter)
        return HttpAnswer(_json.encode(self._description(request.parameter, servant)))

    @route("GET", "/v1/status")
    async def _status(self, _: HttpRequest) -> HttpAnswer:
        status = {
            **self.facts(),
            "services": sorted(self.services),
            "problem": self.problem or self.services_problem,
            "callers": self.callers and self.callers.problem,
            "score_caches": cache_reports(self.telemetry.counters, self.servants),
            "counters": self.telemetry.named(),
            "latency": self.telemetry.latencies(),
        }
        try:
            until = perf_counter_ns() + _STATUS_NS
            status["sources"] = await within(asyncio.to_thread(self._inlet.lags), until, late("stores that are away"))
        except RetrodictError as error:  # what is known without the stores is said all the same
            status |= {"sources": {}, "sources_problem": str(error)}
        if self.colleagues is not None:
            status |= self.colleagues.status()
        return HttpAnswer(_json.encode(status))

    def facts(self) -> dict[str, Any]:
        """What this process says of itself, beside what it counts."""
        self._count_stores()
        self._count_caches()
        return {
            "stores": {name: guard.state for name, guard in self._recorder.workspace.breakers.items()},
            "not_followed": self.not_followed,
            "policies": {name: servant.describe()["policy"] for name, servant in self.servants.items()},
            "scoring": {name: self.engines.describe(name, servant) for name, servant in self.servants.items()},
            "revisions": {name: servant.revision.revision for name, servant in self.servants.items()},
            "problem": self.problem,
            "not_loaded": self.not_loaded,
            "requests": sum(n for (name, _), n in self.telemetry.counters.items() if name == "requests_total"),
            "in_flight": self.turns.taken,
            "queued": self.turns.queued,
            "load": round(max(self.turns.load, self.engines.load), 3),
            "cpu_s": round(process_time(), 3),
            "decision_stream": self.log.stream,
            "recovered": [{"offset": torn.offset, "bytes": torn.size} for torn in self.log.recovered],
        }

    def _count_stores(self) -> None:
        """Take over what the breakers, which other threads use, have counted since the last time."""
        for store, guard in self._recorder.workspace.breakers.items():
            for what, count in guard.counts.items():
                before, self._counted[store, what] = self._counted.get((store, what), 0), count
                self.telemetry.count(_STORES[what], f'store="{store}"', count - before)

    def _count_caches(self) -> None:
        for policy, servant in self.servants.items():
            counts = {} if servant.cache is None else servant.cache.take_counts()
            for (name, label), count in counts.items():
                self.telemetry.count(name, f'policy="{policy}"' + (f",{label}" if label else ""), count)

    def _body(self, record: DecisionRecord, recorded: str | None) -> dict[str, Any]:
        """What the caller gets, and whether its record is durable where it is not."""
        body = record.answer()
        if not self.records:
            del body["decision_id"], body["policy"]
        elif recorded is not None:
            body["recorded"] = recorded
        if warnings := warnings_of(self, record):
            body["warnings"] = warnings
        return body

    def moment(self, scope: Scope) -> int:
        """Time of a request: now, or what its caller says to a server that replays."""
        simulated = self._simulated(scope)
        return self._clock.now() if simulated is None else simulated

    def _simulated(self, scope: Scope) -> int | None:
        value = read_header(scope, TIME_HEADER, "Retrodict-Time")
        if value is None:
            return None
        if not self._simulated_time:
            raise InputError("simulated time must be for a server started for replays", where="header Retrodict-Time",
                             got="a server for real callers",
                             remedy="Leave the header out, or start with: retrodict serve --replay")  # fmt: skip
        moment = parse_time(value, where="header Retrodict-Time")
        if not FIRST <= moment < LAST:
            raise InputError("a time must be in the years 1900 to 2199", where="header Retrodict-Time",
                             got="one outside of them", remedy="Correct the caller's clock")  # fmt: skip
        check_has_been(moment, self._clock.now(), where="header Retrodict-Time")
        return moment


# Its addresses stand behind ours in every list of them.
from retrodict.serving import about, apart, jobs, open_inference, oversight  # noqa: E402, F401
