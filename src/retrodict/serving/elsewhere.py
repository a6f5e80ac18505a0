"""Features and models that servers of their own have: what a server of decisions alone reads and scores with.

They stand in the place of the reader of online state and of an engine, with the same methods, so that a decision goes
one way wherever its parts are. Rows go over in MessagePack: JSON has no NaN, and a score must be the same bits. Called
in threads; calls that failed to reach a server are made again, within the deadline, since none of them changes
anything. What comes back is looked at before it is used, as far as one can see what it should be: an answer that does
not fit the question is no answer, and the policy falls back.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from retrodict.client import KEY_VARIABLE
from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    InternalError,
    RefusedError,
    RetryableError,
    ServerAwayError,
)  # fmt: skip
from retrodict.core.retries import TELLING_S, left_s, waited_for, waiting_until
from retrodict.core.tasks import Target
from retrodict.core.timed_http import TimedTransport
from retrodict.decisions.loader import Loader
from retrodict.decisions.records import Value
from retrodict.features.online import FeatureHealth, FeatureRow, OnlineFeatures, Place
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import ModelArtifact, Score, Speed
from retrodict.models.explain import Explanation
from retrodict.stores.objects.base import ObjectStore
from retrodict.workspace import Workspace

__all__ = ["FeatureAnswer", "FeatureQuestion", "Origin", "ReadRow", "RemoteLoader", "RemoteModel", "ScoreAnswer",
           "ScoreQuestion", "Words", "asked_for"]  # fmt: skip

_MOST_BYTES = 16 * 2**20  # of an answer
_STRAINED = {429: "a server that has no place now", 504: "an answer that came too late"}
_AWAY = (502, 503)
_PROBES = {"features": "/v1/features/-:read", "models": "/v1/models/-:rows"}
_PROBE_NS = 1_000_000_000

Origin = tuple[str, str]
"""Request id of a request, and the ``traceparent`` of its span, or nothing: what it is made for elsewhere."""

_origins: ContextVar[Sequence[Origin]] = ContextVar("origins", default=())
T = TypeVar("T")


@contextmanager
def asked_for(origins: Sequence[Origin]) -> Iterator[None]:
    """Say which requests calls in the block are made for."""
    token = _origins.set(origins)
    try:
        yield
    finally:
        _origins.reset(token)


_Status = Literal["ok", "null_key", "no_state", "unseen", "beyond_horizon", "not_read", "behind"]


class ReadRow(msgspec.Struct, array_like=True):
    """Values, statuses and places of a :class:`FeatureRow`; a view that is behind its table has that for its status."""

    values: dict[str, Value]
    statuses: dict[str, _Status]
    places: dict[str, Place]


class FeatureQuestion(msgspec.Struct):
    """Body of ``POST /v1/features/{model}:read``: values of requests for the features of a model, by its artifact."""

    artifact: str
    code: str
    at: int
    rows: list[dict[str, Any]]
    origins: list[Origin] = []


class FeatureAnswer(msgspec.Struct):
    """Rows in the order of the requests, and when the newest event of each view became visible; of whose features."""

    artifact: str
    rows: list[ReadRow]
    newest: dict[str, int | None]


class Words(msgspec.Struct):
    """How a policy words the reasons for the one row that is asked for."""

    top: int
    words: dict[str, str] | None
    output: str | None


class ScoreQuestion(msgspec.Struct):
    """Body of ``POST /v1/models/{model}:rows``: feature values to score, or one row to explain."""

    artifact: str
    rows: list[dict[str, Any]]
    explain: Words | None = None
    origins: list[Origin] = []


class ScoreAnswer(msgspec.Struct):
    """Scores in the order of the rows, how long the engine takes, and the explanation that was asked for; by whom."""

    artifact: str
    scores: list[Score]
    speed: Speed
    explanation: Explanation | None = None


class _Server:
    """A server of features or of models alone; threads share it, and its connections are kept."""

    def __init__(self, workspace: Workspace, part: str) -> None:
        self._part, self._url = part, workspace.config[f"serving.{part}_url"]
        self._guard = workspace.guard(part, url=self._url)
        self._most_s = parse_duration(workspace.config["servers.read_timeout"]) / SECOND
        token = os.environ.get(KEY_VARIABLE)
        headers = {"content-type": "application/msgpack", "accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        context = ssl.create_default_context() if self._url.startswith("https:") else None
        self._http = httpx.Client(base_url=self._url, trust_env=False, headers=headers,
                                  transport=TimedTransport(context))  # fmt: skip

    def ask(self, path: str, question: msgspec.Struct, form: type[T]) -> T:
        """Answer to a question.

        Raises
        ------
        RetryableError
            If no server answers, or none in time; OpenBreakerError without a call where that was so again and again.
        InputError
            If the server refuses the values, in its words.
        """
        content = msgspec.msgpack.encode(question)
        answer = self._guard.read(lambda: self._attempt(path, content), f"server of {self._part}")
        try:
            return msgspec.msgpack.decode(answer, type=form)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self.unfit(type(error).__name__) from error

    def answers(self) -> bool:
        """Whether a server answers at the address that is asked: a question that none takes, so that it costs little.

        The breaker knows nothing of it, and it counts for no rate of a key.
        """
        try:
            with waited_for(perf_counter_ns() + _PROBE_NS), self._http.stream("GET", _PROBES[self._part]) as response:
                return response.status_code not in (*_AWAY, *_STRAINED)
        except httpx.TransportError:
            return False

    def unfit(self, got: str) -> IntegrityError:
        """What to raise for an answer that does not fit its question."""
        return IntegrityError(f"an answer of the server of {self._part} must fit the question",
                              where=f"serving.{self._part}_url", got=got,
                              remedy="Run the same version of Retrodict on both")  # fmt: skip

    def _attempt(self, path: str, content: bytes) -> bytes:
        left, began = left_s(waiting_until()), perf_counter_ns()
        if left <= 0:
            raise TimeoutError(f"deadline passed before {self._part}")
        wait, body = min(left, self._most_s), bytearray()
        with self._guard.breaker.attempt(), waited_for(began + int(wait * 1e9)):
            try:
                with self._http.stream("POST", path, content=content, timeout=wait,
                                       headers={"retrodict-deadline": f"{wait * 1e3:.3f}"}) as response:  # fmt: skip
                    for chunk in response.iter_raw():
                        body += chunk
                        if len(body) > _MOST_BYTES:
                            raise self.unfit(f"more than {_MOST_BYTES >> 20} MB")
            except httpx.TransportError as error:
                if isinstance(error, httpx.TimeoutException) and perf_counter_ns() - began < TELLING_S * 1e9:
                    raise TimeoutError(f"deadline passed before {self._part}") from error
                raise self._away(type(error).__name__) from error
            if response.status_code in _AWAY:
                raise self._away(f"status {response.status_code}")
        if response.status_code != 200:
            raise self._refusal(response.status_code, body)
        return bytes(body)

    def _away(self, got: str) -> ServerAwayError:
        return ServerAwayError(f"the server of {self._part} must answer", where=f"serving.{self._part}_url", got=got,
                               remedy=f"Start one with: retrodict serve --only {self._part}")  # fmt: skip

    def _refusal(self, status: int, body: bytearray) -> Exception:
        """What the server says, as an error of this process."""
        try:
            text = msgspec.json.decode(body, type=dict[str, str])["error"].rstrip(".")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
            return self.unfit(f"status {status} without a text of Retrodict")
        where = f"serving.{self._part}_url"
        if status == 400:
            return InputError(text)  # where it says what, and of whose values
        if status in (401, 403):
            return RefusedError(text, where=where, got=status, remedy=f"Set {KEY_VARIABLE}")
        if status == 404 or status in _STRAINED:
            return RetryableError(text, where=where, got=_STRAINED.get(status, "a server that does not have it"))
        return InternalError(text, where=where, got=status, remedy="See its log")


class RemoteFeatures(OnlineFeatures):
    """Reads the features of a model where they are served."""

    def __init__(self, features: FeatureSet, server: _Server, model: str, artifact: str, code: str) -> None:
        self.features = features
        self._server, self._path = server, f"/v1/features/{quote(model, safe='')}:read"
        self._name = artifact, code

    @property
    def on_server(self) -> bool:
        """It is."""
        return True

    def read(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> FeatureRow:
        """Features of one request."""
        return self.read_many([{**entities, **context}], at)[0]

    def read_many(self, requests: Sequence[Mapping[str, Any]], at: int) -> list[FeatureRow]:
        """Features of many requests, by one call."""
        answer, columns = self._ask(requests, at), self.features.columns
        return [FeatureRow({name: row.values[name] for name in columns}, dict(row.statuses), places=row.places,
                           newest=answer.newest) for row in answer.rows]  # fmt: skip

    def watermarks(self, views: Collection[str]) -> dict[str, int | None]:
        """When the newest event of each of these views became visible."""
        newest = self._ask([], 0).newest
        return {view: newest[view] for view in views}

    def unread(self) -> FeatureRow:
        """What is known of a request whose read failed."""
        return FeatureRow(dict.fromkeys(self.features.columns), {plan.name: "not_read" for plan in self.features.views})

    def _ask(self, requests: Sequence[Mapping[str, Any]], at: int) -> FeatureAnswer:
        question = FeatureQuestion(*self._name, at, [dict(one) for one in requests], list(_origins.get()))
        answer = self._server.ask(self._path, question, FeatureAnswer)
        columns, views = set(self.features.columns), {plan.name for plan in self.features.views}
        if answer.artifact != question.artifact or answer.newest.keys() != views:
            raise self._server.unfit("features of another model")
        if len(answer.rows) != len(requests):
            raise self._server.unfit(f"{len(answer.rows)} rows for {len(requests)}")
        for row in answer.rows:
            if row.values.keys() != columns or row.statuses.keys() != views:
                raise self._server.unfit("other features, or views without a status")
            if any(status != "null_key" and view not in row.places for view, status in row.statuses.items()):
                raise self._server.unfit("a view that does not say what was read of it")
        return answer


class _NoEngine:
    """What is known here of an engine that is elsewhere: what it predicts."""

    kind, exact_rows, explains, width = "elsewhere", True, True, 0

    def __init__(self, target: Target) -> None:
        self.target = target


@dataclass(frozen=True)
class RemoteModel(ModelArtifact):
    """A model whose engine is where models are served: it knows its inputs and outputs, and asks for its scores."""

    digest: str = ""
    server: _Server | None = field(default=None, compare=False)

    on_server = True

    def __post_init__(self) -> None:
        """Check nothing: the engine is elsewhere."""

    @classmethod
    def known(cls, objects: ObjectStore, artifact: str, server: _Server | None = None) -> RemoteModel:
        """Model of an artifact, of which the engine is not read; without a server it only says what it reads."""
        engine: Any = _NoEngine(cls.target_of(objects, artifact))
        model = cls.load(objects, artifact, engine=engine)
        object.__setattr__(model, "digest", artifact)
        object.__setattr__(model, "server", server)
        return model

    def score_row(self, values: Mapping[str, Any]) -> Score:
        """Score one row."""
        return self.score_each([values])[0]

    def score_each(self, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Score rows, by one call."""
        return self._ask(rows).scores

    def explain_row(
        self, values: Mapping[str, Any], *, top: int = 4, words: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> Explanation:  # fmt: skip
        """Reasons for the score of one row."""
        explanation = self._ask([values], Words(top, None if words is None else dict(words), output)).explanation
        if explanation is None:
            assert self.server is not None
            raise self.server.unfit("no explanation")
        return explanation

    def measure(self) -> Speed:
        """Microseconds of one row with the way there and back, and of one among 32."""
        self._ask([])
        began = perf_counter_ns()
        speed = self._ask([]).speed
        trip = (perf_counter_ns() - began) / 1e3
        return Speed(trip + speed.alone_us, trip / 32 + (speed.together_us or speed.alone_us))

    def _ask(self, rows: Sequence[Mapping[str, Any]], explain: Words | None = None) -> ScoreAnswer:
        question = ScoreQuestion(self.digest, [dict(row) for row in rows], explain, list(_origins.get()))
        assert self.server is not None
        answer = self.server.ask(f"/v1/models/{quote(self.name, safe='')}:rows", question, ScoreAnswer)
        if answer.artifact != self.digest or not all(0 <= us < math.inf for us in answer.speed if us is not None):
            raise self.server.unfit("scores of another model, or a time that is none")
        if len(answer.scores) != len(rows):
            raise self.server.unfit(f"{len(answer.scores)} scores for {len(rows)}")
        for score in answer.scores:
            if score.outputs.keys() != set(self.outputs) or score.score != score.outputs.get("score"):
                raise self.server.unfit("other outputs")
        return answer


class RemoteLoader(Loader):
    """Builds servants whose features or models, or both, are elsewhere, by the settings.

    Attributes
    ----------
    servers : dict
        By part, who is asked.

    Raises
    ------
    ConfigurationError
        If neither is.
    """

    def __init__(self, workspace: Workspace, *, health: FeatureHealth | None = None) -> None:
        # What is read elsewhere is counted there, and marked there if it is behind.
        super().__init__(workspace, health=None if workspace.config["serving.features_url"] else health)
        self.servers = {part: _Server(workspace, part) for part in ("features", "models")
                         if workspace.config[f"serving.{part}_url"]}  # fmt: skip
        if not self.servers:
            raise ConfigurationError(
                "a server of decisions alone must know a server of features or of models",
                where=workspace.config.place("serving.features_url"), got="neither serving.features_url nor models_url",
                remedy="Set both, or serve without --only",
            )  # fmt: skip

    def _load_model(self, digest: str) -> ModelArtifact:
        if "models" not in self.servers:
            return super()._load_model(digest)
        return RemoteModel.known(self._workspace.objects, digest, self.servers["models"])

    def _read_features(self, features: FeatureSet, code: str, model: str, digest: str) -> OnlineFeatures:
        if "features" not in self.servers:
            return super()._read_features(features, code, model, digest)
        return RemoteFeatures(features, self.servers["features"], model, digest, code)
