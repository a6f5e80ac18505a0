"""One policy at one revision, ready to decide: features, model, rules, fallbacks, composed and immutable.

A new revision is a new servant; requests in flight finish on the one they started with. Nothing here waits, locks or
writes: the app around it does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any, NamedTuple

from msgspec import structs

from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError, RetrodictError, RetryableError, is_interrupt, tried
from retrodict.core.log_lines import OnceASecond
from retrodict.core.retries import waited_for
from retrodict.decisions.compiled import CompiledPolicy, PolicyDecision
from retrodict.decisions.doubts import HaltedError, NoScoreError, StaleStateError, check_number, is_no_number
from retrodict.decisions.records import DecisionRecord, Value, named_outputs, session_values
from retrodict.decisions.requests import DecisionRequest, RequestSchema
from retrodict.decisions.score_cache import ScoreCache
from retrodict.decisions.sessions import Choice, Sessions
from retrodict.decisions.variants import VariantAssigner, names_of_units
from retrodict.features.online import FeatureHealth, FeatureRow, OnlineFeatures, Place, age_of
from retrodict.models.artifact import THREAD_US, ModelArtifact, Score, Speed
from retrodict.models.explain import reason_texts
from retrodict.registry import Revision

__all__ = ["NO_REASONS", "ReadyCase", "Servant"]

NO_REASONS = "The reasons could not be computed"


_log = logging.getLogger(__name__)
_log.addFilter(OnceASecond())


CheckedValues = tuple[dict[str, Value], dict[str, Value]]


class ReadyCase(NamedTuple):
    """What was read and computed for one request of several, and its share of the microseconds.

    ``views`` and ``error`` are of stores on a server, which is not asked again: what is doubted of the row, and why
    there is none, or no score. ``previous`` is what the previous version gave then, or why nothing.
    """

    row: FeatureRow | None = None
    scored: Score | None = None
    cached: str | None = None
    stages: Mapping[str, int] = {}
    views: dict[str, dict[str, Any]] | None = None
    error: BaseException | None = None
    previous: Score | BaseException | None = None


Note = Callable[[int, ReadyCase], None]


@dataclass(slots=True)
class _Case:
    """What is known of one request so far; filled stage by stage."""

    entities: dict[str, Value]
    context: dict[str, Value]
    at: int
    deadline: int
    stages: dict[str, int] = field(default_factory=dict)
    features: dict[str, Value] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    reads: dict[str, Place] = field(default_factory=dict)
    raw: float | None = None
    score: float | None = None
    cached: str | None = None
    outputs: dict[str, float] = field(default_factory=dict)
    model: str = ""
    artifact: str = ""
    fallback: str | None = None
    error: str | None = None
    reasons: list[str] = field(default_factory=list)
    session: dict[str, Value] = field(default_factory=dict)
    previous: Score | BaseException | None = None
    stage: str = ""
    began: int = 0

    def begin(self, stage: str) -> None:
        """Measure a stage from here on, and the one before it up to here."""
        now = perf_counter_ns()
        if self.stage:
            self.stages[self.stage] = (now - self.began) // 1_000
        self.stage, self.began = stage, now

    def scored(self, scored: Score, model: str, artifact: str, cached: str | None = None) -> None:
        """Keep what a model gave, now or for an earlier decision; nothing where none did."""
        self.cached = cached
        self.raw, self.score, self.outputs = scored.raw, scored.score, named_outputs(scored)
        self.model, self.artifact = model, artifact

    def values(self) -> dict[str, Value]:
        """Every name a rule or a template may use."""
        return _values(self)


def _values(case: _Case | DecisionRecord) -> dict[str, Value]:
    values = {**case.context, **case.entities, **case.features}
    return {**values, **session_values(case.session)} if case.session else values


_NOTHING = ReadyCase()


class Servant:
    """Decides for one policy.

    Parameters
    ----------
    revision : Revision
        What is in force.
    policy : CompiledPolicy
    features : OnlineFeatures
        Of the model's feature set.
    model : ModelArtifact
    schema : RequestSchema
    previous : ModelArtifact, optional
        What decided before, with the same features: for the fallback ``previous_version``.
    health : FeatureHealth, optional
        Counts what reads of features give, and knows which views are behind their tables.
    cache : ScoreCache, optional
        Scores that the model has given; whoever makes a record durable has it kept there.

    Promises: :meth:`decide` either returns a record with a decision or raises InputError for a request that is wrong;
    whatever else fails inside ends in the policy's fallback, and the record says so. A policy without decisions has no
    answer but the model's: where there is none, NoScoreError is raised.
    """

    def __init__(
        self,
        revision: Revision,
        policy: CompiledPolicy,
        features: OnlineFeatures,
        model: ModelArtifact,
        schema: RequestSchema,
        *,
        previous: ModelArtifact | None = None,
        health: FeatureHealth | None = None,
        cache: ScoreCache | None = None,
    ) -> None:
        self.revision, self.policy, self.schema, self.cache = revision, policy, schema, cache
        self._features, self._model, self._previous, self._health = features, model, previous, health
        self._versions = {plan.name: plan.view.version for plan in features.features.views}
        self.views = frozenset(self._versions.values())  # versions of what it reads
        self._max_ages, self.asks_model = policy.policy.max_ages, model.on_server
        self.on_server, self.waits = features.on_server or model.on_server, model.on_server
        self._sessions: Sessions | None = None
        self.speed: Speed | None = None
        self._deadline_ns = parse_duration(policy.policy.deadline) * 1_000
        self._variants = VariantAssigner(revision.deployment.experiments)
        self.conditions = self._variants.conditions  # of units in experiments, and in a rollout
        self.halted: str | None = revision.deployment.halted
        experiments = revision.deployment.experiments
        self.reads = frozenset(schema.context).union(*map(names_of_units, experiments))  # values of the context

    def halt(self, reason: str | None) -> None:
        """Score no more, for a halt of the policy that came after its revision; again where there is none."""
        self.halted = reason

    def unread(self, context: Mapping[str, Value]) -> list[str]:
        """Names of a context that no feature, rule, rollout or experiment reads: its caller may have meant others."""
        reads = self.reads
        return [] if context.keys() <= reads else [name for name in context if name not in reads]

    def join(self, sessions: Sessions) -> None:
        """Take decisions into sessions from here on."""
        self._sessions = sessions
        self.waits = self.waits or sessions.on_server
        self.on_server = self.on_server or sessions.on_server

    def prepare(
        self, requests: Sequence[DecisionRequest], *, at: int, deadline: int, note: Note | None = None
    ) -> list[ReadyCase]:
        """Read the features of several requests with one read of the store, and score them together.

        What cannot be prepared, because it is wrong or late, say, is left to :meth:`decide`. ``deadline`` is of
        :meth:`deadline`. ``note`` is called with what was read: who asks may not wait until the model is back.
        """
        prepared, started = [_NOTHING] * len(requests), perf_counter_ns()
        if self.halted is not None:
            return prepared
        columns = {place: values for place, values in enumerate(map(self._columns, requests)) if values is not None}
        views: list[dict[str, dict[str, Any]] | None] = [None] * len(columns)
        rows: Sequence[FeatureRow | None] = [None] * len(columns)
        try:
            _check_time(deadline, "features")
            with waited_for(deadline):
                read_rows = self._features.read_many(list(columns.values()), at)
                rows = complete = [row for _, row in zip(columns, read_rows, strict=True)]
                if self.on_server:
                    views = self._all_doubts(complete, at)
                begun = perf_counter_ns()
                if note is not None:
                    of_each = {"features": (begun - started) // 1_000 // max(1, len(complete))}
                    for place, one, doubts in zip(columns, complete, views, strict=True):
                        note(place, ReadyCase(one, stages=of_each, views=doubts))
                _check_time(deadline, "score")
                hits = self._find_all([row.values for row in complete], deadline)
                fresh = [row.values for row, hit in zip(complete, hits, strict=True) if hit is None]
                computed = iter(self._model.score_each(fresh) if fresh else ())
            scores = [(next(computed), None) if hit is None else hit for hit in hits]
        except BaseException as error:  # each says its fault
            if is_interrupt(error):
                raise
            for place, row, doubts in zip(columns, rows, views, strict=True):
                usable = row if doubts is not None or not self.on_server else None
                previous = self._step_back(usable, deadline)
                prepared[place] = ReadyCase(usable, views=doubts, error=error, previous=previous)
            return prepared
        count = 1_000 * max(1, len(rows))
        stages = {"features": (begun - started) // count, "score": (perf_counter_ns() - begun) // count}
        for place, row, (score, cached), doubts in zip(columns, complete, scores, views, strict=True):
            doubted = self._steps_back and (is_no_number(score) or self._lacks(row, at, doubts))
            previous = self._step_back(row, deadline) if doubted else None
            prepared[place] = ReadyCase(row, score, cached, stages, doubts, previous=previous)
        return prepared

    def prepare_each(
        self, requests: Sequence[DecisionRequest], *, at: int, deadlines: Sequence[int],
        note: Note | None = None,
    ) -> list[ReadyCase]:  # fmt: skip
        """As :meth:`prepare`, one by one where one of them has failed all; each has its own deadline.

        Not after the last deadline, nor while a server is away, which would fail each in turn.
        """
        cases = self.prepare(requests, at=at, deadline=max(deadlines), note=note)
        away = self.on_server and any(isinstance(case.error, RetryableError) for case in cases)
        away = away or perf_counter_ns() > max(deadlines)
        if len(requests) > 1 and not away and all(case.scored is None for case in cases):
            single = zip(requests, deadlines, strict=True)
            return [self.prepare([request], at=at, deadline=until)[0] for request, until in single]
        return cases

    @property
    def _steps_back(self) -> bool:
        return self._previous is not None and "previous_version" in self.policy.policy.fallback

    def _lacks(self, row: FeatureRow, at: int, doubts: Mapping[str, Any] | None) -> bool:
        """Whether a view that the policy requires may not be current."""
        required = self.policy.policy.require
        return bool(required) and not required.keys().isdisjoint(self._doubts(row, at) if doubts is None else doubts)

    def _step_back(self, row: FeatureRow | None, deadline: int) -> Score | BaseException | None:
        """What the previous version gives for the fallback of that name."""
        if row is None or self._previous is None or not self._steps_back:
            return None
        try:
            _check_time(deadline, "previous_version")
            with waited_for(deadline):
                return self._previous.score_row(row.values)
        except BaseException as error:  # the step says so
            if is_interrupt(error):
                raise
            return error

    def _all_doubts(self, rows: Sequence[FeatureRow], at: int) -> list[dict[str, dict[str, Any]] | None]:
        """What is doubted of several rows, with at most one more read of the store."""
        behind = self._health is not None and self._health.behind
        doubted = behind or self._max_ages or any(status != "ok" for row in rows for status in row.statuses.values())
        newest = (rows[0].newest or self._features.watermarks(self._versions)) if doubted else {}
        return [self._doubts(row, at, newest) for row in rows]

    def _find_all(self, rows: Sequence[Mapping[str, Value]], deadline: int) -> Sequence[tuple[Score, str] | None]:
        cache = self.cache  # which another thread may take away
        if cache is None:
            return [None] * len(rows)
        return cache.find_many([self._model.row_of(values) for values in rows], deadline)

    def _find(self, values: Mapping[str, Value]) -> tuple[Score, str] | None:
        cache = self.cache
        return None if cache is None else cache.find(self._model.row_of(values))

    def _columns(self, request: DecisionRequest) -> dict[str, Value] | None:
        try:
            entities, context = self.schema.check(request)
        except InputError:
            return None
        return {**entities, **context}

    def deadline(self, arrived_ns: int, limit_ns: int | None = None) -> int:
        """``time.perf_counter_ns()`` by which a request must be decided that came then, and waits so long."""
        return arrived_ns + (self._deadline_ns if limit_ns is None else min(limit_ns, self._deadline_ns))

    def decide(  # noqa: PLR0913  # with what others have looked at, and left to do
        self,
        request: DecisionRequest,
        *,
        decision_id: str,
        at: int,
        arrived_ns: int,
        limit_ns: int | None = None,
        ready: ReadyCase = _NOTHING,
        arm: str = "",
        checked: CheckedValues | None = None,
        reasons: bool = True,
    ) -> DecisionRecord:
        """Go through the stages: check, features, score, rules, reasons.

        Parameters
        ----------
        request : DecisionRequest
        decision_id : str
            ULID of the record.
        at : int
            Moment of the decision, microseconds since 1970-01-01 UTC.
        arrived_ns : int
            ``time.perf_counter_ns()`` at the arrival of the request; the deadline counts from there.
        limit_ns : int, optional
            Nanoseconds that the caller waits; the smaller of it and the policy's deadline counts.
        ready : ReadyCase, optional
            What :meth:`prepare` gave for this request at this moment.
        arm : str
            Of a rollout under way, for the record.
        checked : pair of dict, optional
            Entities and context of the request, where its schema has looked at them already.
        reasons : bool, default True
            Whether the reasons of the model are computed here; else :meth:`explain` is left to whoever asks.
        """
        started = perf_counter_ns()
        entities, context = checked or self.schema.check(request)
        case = _Case(entities, context, at, self.deadline(arrived_ns, limit_ns), stage="check", began=started)
        case.previous = ready.previous
        decision = self._judge(case, ready)
        case.begin("")
        if decision.reason is not None:
            case.reasons.append(decision.reason)
        explained = request.explain or self.policy.policy.explains(decision.decision)
        if explained and not case.model:
            case.reasons.append("No model scored this request; the policy's fallback decided")
        deployed = self.revision.deployment
        record = DecisionRecord(
            id=decision_id,
            time=at,
            policy=deployed.policy,
            revision=self.revision.revision,
            policy_version=deployed.policy_version,
            code=deployed.code,
            model=case.model,
            artifact=case.artifact,
            model_code=deployed.model_code,
            entities=entities,
            context=context,
            key=request.key,
            features=case.features,
            views=case.views,
            reads=case.reads,
            raw=case.raw,
            score=case.score,
            outputs=case.outputs,
            decision=decision.decision,
            reasons=case.reasons,
            rule=decision.rule,
            fallback=case.fallback,
            error=case.error,
            explained=explained,
            cached=case.cached,
            masked=self.policy.policy.personal,  # type: ignore[arg-type]  # a tuple by now
            arm=arm,
            variants=self._variants.assign({**context, **entities}),
            session=case.session,
            stages=case.stages,
        )
        return self.explain(record) if explained and case.model and reasons else record

    def _judge(self, case: _Case, ready: ReadyCase) -> PolicyDecision:
        deployed, at, deadline = self.revision.deployment, case.at, case.deadline
        try:
            self._check_halted()
            if ready.row is None:  # else it was looked at before the row was read
                _check_error(ready, case)
                _check_time(deadline, "features")
            case.begin("features")
            row = ready.row or self._read(case, at, deadline)
            case.begin("")
            case.features, case.reads = row.values, row.places
            if self._health is not None:
                self._health.count(row)
            case.views = self._doubts(row, at) if ready.views is None else ready.views
            self._check_required(case)
            _check_error(ready, case)
            if ready.scored is None:
                _check_time(deadline, "score")
            case.begin("score")
            scored, cached = ready.scored, ready.cached
            if scored is None:
                scored, cached = self._find(case.features) or (self._model.score_row(case.features), None)
            check_number(scored, deployed.model)
            case.begin("rules")
            case.stages |= ready.stages
            case.scored(scored, deployed.model, deployed.artifact, cached)
            return self._in_session(case, partial(self.policy.decide, outputs=scored.outputs))
        except BaseException as error:  # the promise: all but a wrong request ends in the fallback, on record
            if is_interrupt(error):
                raise
            if isinstance(error, InputError) and not case.features:  # the request's values do not make features
                raise
            case.begin("")
            case.error = type(error).__name__
            if not case.features:
                statuses = self._features.unread().statuses
                case.views = {view: {"status": status, "age_s": None} for view, status in statuses.items()}
            text = str(error) if isinstance(error, RetrodictError) else case.error
            if isinstance(error, TimeoutError) and case.stages:
                text += f"; the longest stage was {max(case.stages, key=lambda stage: case.stages[stage])}"
            _log.warning("policy %s falls back: %s", deployed.policy, text)
            return self._fall_back(case)

    def _in_session(self, case: _Case, choose: Callable[[dict[str, Value]], Choice]) -> Choice:
        """What is chosen by the values, those of the session among them, which it goes into; without one at all."""
        sessions = self._sessions
        if sessions is None or "status" in case.session:
            return choose(case.values())
        values = case.values()
        if (name := sessions.name(values)) is None:
            case.session = {"status": "no_unit"}
            return choose(case.values())
        try:
            with waited_for(case.deadline if sessions.on_server else None):
                decision, case.session = sessions.decide(
                    name, case.at, lambda session: choose({**values, **session_values(session)})
                )
        except RetrodictError as error:  # of the store: what is chosen by no session is told by the record
            _log.warning("policy %s: the session is not known: %s", self.policy.policy.name, str(error))
            case.session = {"status": "unavailable"}
            return choose(case.values())
        return decision

    def _read(self, case: _Case, at: int, deadline: int) -> FeatureRow:
        if not self.on_server:
            return self._features.read(case.entities, case.context, at=at)
        with waited_for(deadline):
            return self._features.read(case.entities, case.context, at=at)

    def _doubts(
        self, row: FeatureRow, at: int, newest: Mapping[str, int | None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Status and age of every view that was not simply read, or that is not what the policy requires."""
        behind = self._health.behind if self._health is not None else {}
        statuses = {view: status for view, status in row.statuses.items() if status != "ok"}
        for view in self._versions if behind else ():
            if self._versions[view] in behind and statuses.get(view, "unseen") == "unseen":
                statuses[view] = "behind"
        limits = self._max_ages
        if not statuses and not limits:
            return {}
        if newest is None:
            newest = row.newest or self._features.watermarks({*statuses, *limits})
        for view, limit in limits.items():
            moment = newest[view]
            if statuses.get(view, "unseen") == "unseen" and (moment is None or at - moment > limit):
                statuses[view] = "stale"
        return {view: {"status": status, "age_s": age_of(newest[view], at)} for view, status in statuses.items()}

    def _check_halted(self) -> None:
        name, reason = self.revision.deployment.policy, self.halted
        if reason is not None:
            raise HaltedError("nothing scores while a policy is halted", where=f"policy:{name}", got=reason,
                              remedy=f"End it with: retrodict release {name} --reason WHY")  # fmt: skip

    def _check_required(self, case: _Case) -> None:
        missing = {view: case.views[view]["status"] for view in self.policy.policy.require if view in case.views}
        stale = {view: status for view, status in missing.items() if status not in {"unseen", "null_key"}}
        if stale:
            raise StaleStateError(
                "the state of a required view must be current",
                where=f"policy:{self.policy.policy.name}",
                got=stale,
                remedy="See 'retrodict features status'",
            )

    def _fall_back(self, case: _Case) -> PolicyDecision:
        case.scored(Score(None, None, {}), "", "")
        for step in self.policy.policy.fallback:
            case.fallback = step
            try:
                decision = self._try_step(step, case)
            except BaseException as error:  # the next step answers; the log says why
                if is_interrupt(error):
                    raise
                _log.warning("policy %s: the fallback %s fails too", self.policy.policy.name, step, exc_info=True)
                continue
            if decision is not None:
                return decision
        if not self.policy.policy.decide:
            raise NoScoreError("the model must score the request in time", where=f"model:{self.policy.policy.name}",
                               got=case.error, remedy="Ask again; the log of the server says why")  # fmt: skip
        case.fallback = self.policy.policy.otherwise
        return self._in_session(case, lambda _: PolicyDecision(self.policy.policy.otherwise))

    def _try_step(self, step: str, case: _Case) -> PolicyDecision | None:
        """Decision of one fallback step; None if it has none to give."""
        if step == "rules":
            return self._in_session(case, partial(self.policy.by_rules, outputs={}))
        if step != "previous_version":
            return self._in_session(case, lambda _: PolicyDecision(step))
        before = self.revision.deployment.previous
        if self._previous is None or before is None or not case.features:
            return None
        scored = case.previous or self._previous.score_row(case.features)
        if isinstance(scored, BaseException):
            raise scored
        check_number(scored, before["model"])
        decision = self._in_session(case, partial(self.policy.decide, outputs=scored.outputs))
        case.scored(scored, before["model"], before["artifact"])
        return decision

    def explain(self, record: DecisionRecord) -> DecisionRecord:
        """Record of a decision by a model with the reasons of that; it says so where they cannot be computed."""
        model = self._model if record.fallback is None else self._previous
        if model is None:
            return record
        begun = perf_counter_ns()
        try:
            texts = reason_texts(self.policy.explain(model, _values(record)))
        except BaseException as error:  # the decision stands without its reasons; the log says why
            if is_interrupt(error):
                raise
            _log.warning("policy %s: the reasons cannot be computed", self.policy.policy.name, exc_info=True)
            texts = [NO_REASONS]
        stages = {**record.stages, "explain": (perf_counter_ns() - begun) // 1_000}
        return structs.replace(record, reasons=[*record.reasons, *texts], stages=stages)

    def measure(self) -> None:
        """Time the engine, beside the requests; one that fails is left to the first request."""
        with tried():
            self.speed = self._model.measure()
            if self.cache is not None:
                self.cache.row_us = self.speed.alone_us

    def warm(self, at: int) -> None:
        """Go through the stages once for nobody, in the thread that will decide: what is made at first use is made now.

        Nothing is recorded or counted. What fails is left to the first request, whose fallback says so.
        """
        nobody = dict.fromkeys([*self.schema.entities, *self.schema.context])
        with tried():
            outputs = self._model.score_row(self._features.unread().values).outputs
            self.policy.decide({**nobody, **self._features.unread().values}, outputs)
            self._features.watermarks(self._versions)
            self._features.read(nobody, {}, at=at)  # a derived function may not take nulls

    @property
    def in_thread(self) -> bool:
        """Whether it is called in a thread: its model takes long, a server is waited for, or the policy batches."""
        slow = self.speed is not None and self.speed.alone_us > THREAD_US
        return slow or self.on_server or self.policy.policy.batch is not None

    @property
    def asks_redis(self) -> bool:
        """Whether :meth:`prepare` asks a server for scores."""
        cache = self.cache
        return cache is not None and cache.asks_redis

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the features that its model reads."""
        return self._model.inputs.names

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what its model gives, as answers have them."""
        return ("score",) if "score" in self._model.outputs else self._model.outputs

    def describe(self) -> dict[str, Any]:
        """What a caller needs to know to ask, for ``GET /v1/policies/{policy}``."""
        deployed = self.revision.deployment
        return {
            "policy": f"{deployed.policy}#{self.revision.revision}",
            "model": deployed.model,
            "decisions": list(self.policy.policy.decide),
            "stages": self.policy.policy.stages,
            "request": self.schema.to_dict(),
        }


def _check_error(ready: ReadyCase, case: _Case) -> None:
    if ready.error is not None:
        case.stages |= ready.stages
        raise ready.error


def _check_time(deadline: int, stage: str) -> None:
    if perf_counter_ns() > deadline:
        raise TimeoutError(f"deadline passed before {stage}")
