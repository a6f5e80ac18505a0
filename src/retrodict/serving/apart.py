"""Servers that serve a part alone: features, models, or decisions that ask the two others for what they need.

A model of such a server is asked with feature values, on the way that decisions go: checks, places, queues, deadlines,
the Open Inference Protocol. Nothing is decided, so nothing is recorded, and no log is opened that could be away.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from retrodict.core.errors import NotFoundError, RetrodictError, check_known, foreign, tried
from retrodict.decisions.definitions import Policy
from retrodict.decisions.loader import Loader
from retrodict.decisions.recorder import Recorder
from retrodict.features.online import FeatureHealth, FeatureRow, OnlineFeatures
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import THREAD_US, ModelArtifact, Speed
from retrodict.models.definitions import Model
from retrodict.models.explain import explain_row
from retrodict.registry import Deployment, Revision, current, history
from retrodict.serving.deadlines import late, within
from retrodict.serving.elsewhere import (
    FeatureAnswer,
    FeatureQuestion,
    ReadRow,
    RemoteLoader,
    RemoteModel,
    ScoreAnswer,
    ScoreQuestion,
)  # fmt: skip
from retrodict.serving.http_answer import HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest
from retrodict.serving.routes import Part, route
from retrodict.serving.threads import BoundedThreads
from retrodict.workspace import Workspace, definitions_of

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["NoRecorder", "Parts", "loader_of"]

_MOST = 64  # parts that are kept
_TOGETHER = 100
_PATIENCE_NS = 5_000_000_000  # with a call of a model, whatever the deadline of the policies that ask for it
_MSGPACK = b"application/msgpack"

_log = logging.getLogger(__name__)
Q = TypeVar("Q", FeatureQuestion, ScoreQuestion)
T = TypeVar("T")


class NoRecorder(Recorder):
    """In the place of a recorder where nothing is decided: it opens no log."""

    def __init__(self, workspace: Workspace, part: str) -> None:
        self.workspace = workspace
        self.log = cast("Any", SimpleNamespace(stream=f"{part}-{os.getpid()}", recovered=[]))

    async def close(self) -> None:
        """Nothing is open."""


class _GivenFeatures(OnlineFeatures):
    """In the place of a reader where feature values come with the request."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features

    @property
    def on_server(self) -> bool:
        """There is nothing to wait for."""
        return False

    def read(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> FeatureRow:
        """Values as they came."""
        return self.read_many([{**entities, **context}], at)[0]

    def read_many(self, requests: Sequence[Mapping[str, Any]], at: int) -> list[FeatureRow]:
        """Values of several requests as they came."""
        del at
        return [FeatureRow({name: one.get(name) for name in self.features.columns}) for one in requests]

    def watermarks(self, views: Collection[str]) -> dict[str, int | None]:
        """Nobody knows."""
        return dict.fromkeys(views)

    def unread(self) -> FeatureRow:
        """No value."""
        return FeatureRow(dict.fromkeys(self.features.columns))


class _ModelLoader(Loader):
    """Loads the models in force, each to be asked by itself with feature values; its version is the revision."""

    def _in_force(self) -> Mapping[str, Revision]:
        """NAME@VERSION of each that decides, decided before or is brought in; NAME is the highest that decides."""
        models: dict[str, Revision] = {}
        ranks: dict[str, tuple[bool, int]] = {}
        for revision in current(self._workspace).values():
            for place, parts in enumerate(_targets(revision.deployment)):
                name, _, version = parts["model"].partition("@")
                target: dict[str, Any] = dict(parts)
                one = replace(revision, revision=int(version), deployment=Deployment(name, **target))
                models[parts["model"]], rank = one, (place == 0, int(version))
                if rank > ranks.get(name, (False, 0)):
                    models[name], ranks[name] = one, rank
        return models

    def _policy(self, deployed: Deployment) -> tuple[Policy, frozenset[str]]:
        # Of the share that is recorded nothing is: it keeps the policy from taking request ids.
        model = definitions_of(self._workspace, deployed.model_code).get(Model, deployed.policy)
        return Policy(deployed.policy, model, record="sample 0.0001%"), frozenset()

    def _request(self, model: ModelArtifact) -> Mapping[str, Mapping[str, str]]:
        kinds = {one.name: "text" if any(isinstance(word, str) for word in one.vocabulary) else "number"
                 for one in model.inputs.features}  # fmt: skip
        return {"entities": {}, "context": kinds}

    def _read_features(self, features: FeatureSet, code: str, model: str, digest: str) -> OnlineFeatures:
        del code, model, digest
        return _GivenFeatures(features)


class _FeatureLoader(Loader):
    """Loads no servants: what is read is asked for by the artifact that reads it."""

    def _in_force(self) -> Mapping[str, Revision]:
        return {}

    def _load_model(self, digest: str) -> ModelArtifact:
        return RemoteModel.known(self._workspace.objects, digest)


def loader_of(part: Part | None, workspace: Workspace, health: FeatureHealth) -> Loader:
    """What loads servants for a server of everything or of a part."""
    kinds = {"features": _FeatureLoader, "models": _ModelLoader, "decisions": RemoteLoader}
    return (kinds[part] if part else Loader)(workspace, health=health)


class Parts:
    """What other servers ask of this one by artifact: any that a deployment names, loaded when it is first asked for.

    Parameters
    ----------
    workspace : Workspace
    loader : Loader
        Used in the thread of ``pool`` alone.
    pool : Executor
    """

    def __init__(self, workspace: Workspace, loader: Loader, pool: Executor) -> None:
        self._workspace, self._loader, self._pool = workspace, loader, pool
        self._kept: dict[tuple[str, ...], Any] = {}

    @property
    def loaded(self) -> int:
        """How many there are by now."""
        return len(self._kept)

    async def features(self, model: str, artifact: str, code: str) -> OnlineFeatures:
        """Reader of what a model reads."""
        reader: OnlineFeatures = await self._part(("features", artifact, code, model), self._features)
        return reader

    async def model(self, model: str, artifact: str) -> tuple[ModelArtifact, Speed, BoundedThreads]:
        """Model, how long its engine takes, and the threads that are its own."""
        parts: tuple[ModelArtifact, Speed, BoundedThreads] = await self._part(("model", artifact, model), self._model)
        return parts

    async def load_current(self) -> None:
        """Load the features of what is in force, and read them once; what cannot be now is left to who asks for it."""
        for revision in (await asyncio.to_thread(current, self._workspace)).values():
            for one in _targets(revision.deployment):
                try:
                    reader = await self.features(one["model"].partition("@")[0], one["artifact"], one["model_code"])
                except RetrodictError as error:
                    _log.error("features of a model in force cannot be served: %s", error)
                    continue
                warm = partial(_read_nobody, reader, self._workspace.clock.now())
                await asyncio.to_thread(warm) if reader.on_server else warm()

    async def _part(self, key: tuple[str, ...], load: Any) -> Any:
        if key not in self._kept:
            loaded = await asyncio.get_running_loop().run_in_executor(self._pool, load, *key[1:])
            self._kept = {**dict(list(self._kept.items())[1 - _MOST :]), key: loaded}
        return self._kept[key]

    def _features(self, artifact: str, code: str, model: str) -> OnlineFeatures:
        self._check(artifact, model, code)
        return self._loader.features(code, model, self._loader.artifact(artifact), artifact)

    def _model(self, artifact: str, model: str) -> tuple[ModelArtifact, Speed, BoundedThreads]:
        self._check(artifact, model)
        loaded = self._loader.artifact(artifact)
        return loaded, loaded.measure(), BoundedThreads(_PATIENCE_NS)

    def _check(self, artifact: str, model: str, code: str | None = None) -> None:
        """Refuse what no deployment has ever named: a caller may not have any object loaded."""
        for one in (target for revision in history(self._workspace) for target in _targets(revision.deployment)):
            identity = one["model"].partition("@")[0], one["artifact"]
            if identity == (model, artifact) and code in (None, one["model_code"]):
                return
        raise NotFoundError("the artifact must be of a model that is or was deployed", where="body", got="another one",
                            remedy="Ask for one that 'retrodict deployments' names")  # fmt: skip


def _read_nobody(reader: OnlineFeatures, at: int) -> None:
    """What is made at first use is made now, in the thread that will read: the first caller would wait for it."""
    with tried():
        reader.watermarks({plan.name: plan.view.version for plan in reader.features.views})
    with tried():  # a derived function may not take nulls
        reader.read_many([dict.fromkeys([*reader.features.request_keys, *reader.features.request_columns])], at)


def _targets(deployment: Deployment) -> list[dict[str, str]]:
    """What decides, what decided before, and what a rollout brings in."""
    split = deployment.split
    return [deployment.target, *filter(None, (deployment.previous, split and split["candidate"]))]


async def _question(app: DecisionApp, request: HttpRequest, form: type[Q]) -> Q:
    body = await request.read_body(app.limits.batch_body)
    try:
        question = msgspec.msgpack.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = "the body must be MessagePack of what a server of decisions of the same version asks"
        raise RefusedRequestError(415, text) from error  # no 400, which is of a caller's values
    count = len(question.rows)
    if count > app.limits.batch:
        raise RefusedRequestError(413, f"a call must be about {app.limits.batch} rows at most; got {count}")
    request.origins = question.origins[:count]
    return question


@route("POST", "/v1/features/{model}:read", "score")
async def _read(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """Features of a model for requests, as the server reads them that decides."""
    question = await _question(app, request, FeatureQuestion)
    assert app.parts is not None
    reader = await app.parts.features(request.parameter, question.artifact, question.code)
    views = {plan.name: plan.view.version for plan in reader.features.views}
    async with app.turn(request):
        rows = list[FeatureRow]()
        for first in range(0, len(question.rows), _TOGETHER):
            read = partial(reader.read_many, question.rows[first : first + _TOGETHER], question.at)
            rows += await _wait(read, request, aside=reader.on_server)
            await asyncio.sleep(0)
        newest = await _wait(partial(reader.watermarks, views), request, aside=reader.on_server)
    for row in rows:
        app.health.count(row)
        for view, version in views.items():
            if version in app.health.behind and row.statuses.get(view, "ok") in ("ok", "unseen"):
                row.statuses[view] = "behind"
    app.telemetry.observe("features", (perf_counter_ns() - request.arrived) // 1_000)
    answer = FeatureAnswer(
        question.artifact, [ReadRow(row.values, cast("Any", row.statuses), row.places) for row in rows], newest
    )
    return HttpAnswer(msgspec.msgpack.encode(answer), kind=_MSGPACK)


@route("POST", "/v1/models/{model}:rows", "score")
async def _score(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """Scores of feature values, as the server reads them that decides."""
    question = await _question(app, request, ScoreQuestion)
    assert app.parts is not None
    model, speed, threads = await app.parts.model(request.parameter, question.artifact)
    slow = question.explain is not None or speed.alone_us * len(question.rows) > THREAD_US
    async with app.turn(request):
        scoring = partial(model.score_each, question.rows)
        if slow:
            scores = await _compute(scoring, request, threads)
        else:
            with foreign("a model must answer", f"model {request.parameter!r}"):
                scores = scoring()
        explanation = None
        if (words := question.explain) is not None and question.rows:
            explain = partial(explain_row, model, question.rows[0], top=words.top, words=words.words,
                              output=words.output)  # fmt: skip
            explanation = await _compute(explain, request, threads)
    app.telemetry.observe("score", (perf_counter_ns() - request.arrived) // 1_000)
    return HttpAnswer(msgspec.msgpack.encode(ScoreAnswer(question.artifact, scores, speed, explanation)), kind=_MSGPACK)


async def _wait(work: Any, request: HttpRequest, *, aside: bool) -> Any:
    """Result of a piece of work: on the loop, or in a thread as long as the caller waits."""
    until = request.until_ns()
    return await within(asyncio.to_thread(work), until, late("work that takes longer")) if aside else work()


async def _compute(work: Callable[[], T], request: HttpRequest, threads: BoundedThreads) -> T:
    """What a model gives, as long as the caller waits."""
    try:
        return await threads.run(work, request.until_ns())
    except TimeoutError as error:
        raise late("a model that takes longer") from error


@route("POST", "/v1/features/{service}", "score")
async def _service(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """Features of a service for some entities."""
    body = await request.read_body(app.limits.body)
    name, rule = request.parameter, "the feature service must be defined"
    if name not in app.services and app.services_problem is not None:
        raise RefusedRequestError(503, app.services_problem)
    check_known(name, app.services, rule, where="address", what="service")
    async with app.turn(request):
        answer = await app.services[name].answer(body, app.moment(request.scope), request.until_ns())
    app.telemetry.observe("service", (perf_counter_ns() - request.arrived) // 1_000)
    return HttpAnswer(msgspec.json.encode(answer))


@route("GET", "/v1/features")
async def _services(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return HttpAnswer(msgspec.json.encode({name: service.describe() for name, service in app.services.items()}))
