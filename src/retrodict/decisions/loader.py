"""From a revision to a servant: code and artifact by hash, verified before use, kept while they may be needed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from time import monotonic
from typing import Any, cast

from retrodict.core.errors import DefinitionError, NotFoundError, RetrodictError, foreign, near
from retrodict.core.identity import content_hash, short
from retrodict.decisions.compiled import CompiledPolicy
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.decisions.log import recent_decisions
from retrodict.decisions.requests import RequestSchema
from retrodict.decisions.score_cache import ScoreCache
from retrodict.decisions.score_drops import newest_drop, read_drops
from retrodict.decisions.servant import Servant
from retrodict.decisions.sessions import Sessions
from retrodict.decisions.split import SplitServant, TrafficSplit
from retrodict.features.online import FeatureHealth, OnlineFeatures, online_features
from retrodict.features.plan import FeatureSet
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import Deployment, Revision, current
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Definitions, Workspace, definitions_of

__all__ = ["Loader", "find_servant", "load_policy"]

_CACHE_SIZE = 8
_LONGEST_PAUSE_S = 5.0


def load_policy(workspace: Workspace, deployment: Deployment, definitions: Definitions | None = None) -> Policy:
    """Policy as deployed, checked against the version the revision names; ``definitions``: of its code, if loaded."""
    policy = find_policy(definitions or definitions_of(workspace, deployment.code), deployment.policy)
    if content_hash(policy) != deployment.policy_version:
        raise DefinitionError(
            "the code of a revision must define the policy it was made for",
            where=f"policy:{deployment.policy}",
            got=short(content_hash(policy)),
            remedy="Deploy the policy again",
        )
    return policy


def find_servant(servants: Mapping[str, Servant], policy: str, *, where: str, what: str = "policy") -> Servant:
    """Servant of a policy, or of a model by itself; NotFoundError with near names if it is not deployed."""
    servant = servants.get(policy)
    if servant is None:
        raise NotFoundError(
            f"the {what} must be deployed", where=where, got=policy, remedy=near(policy, servants, what=what)
        )
    return servant


class Loader:
    """Builds servants and keeps the parts of the last few, so that going back costs nothing.

    For one thread at a time.

    Parameters
    ----------
    workspace : Workspace
    health : FeatureHealth, optional
        Counts what the servants' reads of features give.

    Attributes
    ----------
    servants : dict
        Policy name to servant, as of the last :meth:`load_current`; replaced as a whole, never changed in place.
    problems : dict of str to RetrodictError
        By name, why those that are in force cannot be loaded.
    """

    def __init__(self, workspace: Workspace, *, health: FeatureHealth | None = None) -> None:
        self._workspace, self._health = workspace, health
        self.servants: dict[str, Servant] = {}
        self._parts: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._loaded: tuple[object, int] | None = None
        self.problems: dict[str, RetrodictError] = {}
        self._failed: tuple[object, int] | None = None  # when something could not be loaded, and that was the state
        self._pause, self._until = 0.0, 0.0

    def load_current(self) -> dict[str, Servant]:
        """Servants of the revisions in force now; one whose revision did not change stays.

        When it raises, for the reasons of :meth:`load`, the earlier servant of that policy stays, halted where its
        newest revision is; :attr:`servants` has it and those of all the others. A later call tries again: at once
        after a change of the records, else after pauses up to five seconds.
        """
        records = self._workspace.records  # a counter means something for one opened store only
        counter = records.change_counter()
        if self._loaded != (records, counter):
            if self._failed == (records, counter) and monotonic() < self._until:
                self._refuse()
            servants, drops, problems = {}, read_drops(self._workspace), dict[str, RetrodictError]()
            for name, servant in self.servants.items():
                if servant.cache is not None:
                    servant.cache.drop(newest_drop(drops, name, servant.inputs)[0])
            in_force = self._in_force()
            for name, revision in in_force.items():
                if name in self.servants and revision.deployment.halted is not None:
                    self.servants[name].halt(revision.deployment.halted)  # which waits for nothing that is loaded
            for name, revision in in_force.items():
                before = self.servants.get(name)
                try:
                    same = before is not None and before.revision.revision == revision.revision
                    servants[name] = before if before is not None and same else self.load(revision)
                except RetrodictError as error:
                    problems[name] = error
                    if before is not None:
                        servants[name] = before
            if servants != self.servants:
                self.servants = servants
            self.problems = problems
            if problems:
                again = self._failed == (records, counter)
                self._pause = min(2 * self._pause or 0.05, _LONGEST_PAUSE_S) if again else 0.0
                self._failed, self._until = (records, counter), monotonic() + self._pause
                self._refuse()
            self._loaded = records, counter
        return self.servants

    def _refuse(self) -> None:
        """Raise why something is not loaded; each time anew, or its traceback would grow with every look."""
        raise next(iter(self.problems.values())).with_traceback(None)

    def _in_force(self) -> Mapping[str, Revision]:
        return current(self._workspace)

    def _policy(self, deployed: Deployment) -> tuple[Policy, frozenset[str]]:
        """The policy, and names of requests by which a monitor of it groups."""
        definitions = definitions_of(self._workspace, deployed.code)
        monitors = [one for one in cast("Iterable[Any]", definitions) if one.kind == "monitor"]
        return load_policy(self._workspace, deployed, definitions), frozenset(
            name for one in monitors if one.policy.name == deployed.policy for name in one.by)  # fmt: skip

    def _request(self, model: ModelArtifact) -> Mapping[str, Mapping[str, str]]:
        """Kinds of what a request has to bring."""
        kinds: Mapping[str, Mapping[str, str]] = model.metadata.get("request", {"entities": {}, "context": {}})
        return kinds

    def load(self, revision: Revision) -> Servant:
        """Servant of a revision.

        Raises
        ------
        IntegrityError
            If the artifact or the code is not what was stored, or the model answers otherwise than when it was made.
        DefinitionError
            If policy, features and model do not fit together.
        """
        deployed = revision.deployment
        name = deployed.model.partition("@")[0]
        model = self.artifact(deployed.artifact)
        features = self.features(deployed.model_code, name, model, deployed.artifact)
        _check_fit(features.features, model, deployed)
        kinds, (definition, monitored) = self._request(model), self._policy(deployed)
        schema = RequestSchema(kinds["entities"], kinds["context"], explains=definition.explain != "never")
        policy = CompiledPolicy(
            definition,
            features.features.columns,
            [*schema.entities, *schema.context],
            model.outputs,
        )
        previous = None
        if deployed.previous is not None and deployed.previous["artifact"] != deployed.artifact:
            earlier = self.artifact(deployed.previous["artifact"])
            # A fallback scores with the values at hand: it must ask for nothing else.
            fits = set(earlier.inputs.names) <= set(features.features.columns) and earlier.outputs == model.outputs
            previous = earlier if fits else None
        cache = self._cache(policy.policy, model, deployed.artifact, features.features.version)
        kind = Servant if deployed.split is None or deployed.halted is not None else SplitServant
        servant = kind(revision, policy, features, model, schema, previous=previous, health=self._health,
                       cache=cache)  # fmt: skip
        servant.reads |= monitored
        if definition.session is not None:
            servant.join(Sessions(self._workspace, definition.name, definition.session))
        if isinstance(servant, SplitServant) and deployed.split is not None:
            servant.lead(self._candidate(revision, deployed.split), TrafficSplit(deployed.split))
        if cache is not None and self._workspace.config["stores.scores"]:
            servant.measure()  # Redis is asked by it
        return servant

    def _candidate(self, revision: Revision, split: Mapping[str, Any]) -> Servant:
        """Servant of the version that a rollout brings in: what decides now is what it falls back to.

        It has no score cache: what its share of the units takes shall be seen as it is.
        """
        deployed = Deployment(revision.deployment.policy, **split["candidate"], previous=revision.deployment.target,
                              experiments=revision.deployment.experiments)  # fmt: skip
        candidate = self.load(replace(revision, deployment=deployed))
        candidate.cache = None
        return candidate

    def _cache(self, policy: Policy, model: ModelArtifact, artifact: str, features: str) -> ScoreCache | None:
        """Cache of a policy that asks for one, with the newest scores of the log where the configuration says so."""
        if policy.cache is None:
            return None
        config = self._workspace.config
        personal = not set(policy.personal).isdisjoint(model.inputs.names)
        reason = "the model reads personal features" if personal else "the model is elsewhere" * model.on_server
        shared = reason or self._workspace.scores or "stores.scores is not set"
        cache = ScoreCache(model, artifact, features=features, clock=self._workspace.clock, max_age=policy.cache,
                           size=config["serving.cached_scores"], shared=shared)  # fmt: skip
        mark, since = newest_drop(read_drops(self._workspace), policy.name, model.inputs.names)
        cache.drop(mark)
        if config["serving.warm_cache"]:
            cache.warm(record for record in recent_decisions(self._workspace) if record.time >= since)
        return cache

    def artifact(self, digest: str) -> ModelArtifact:
        """Model of an artifact, checked."""
        artifact: ModelArtifact = self._cached(("artifact", digest), lambda: self._load_model(digest))
        return artifact

    def _load_model(self, digest: str) -> ModelArtifact:
        with foreign("a model must load and answer", f"model artifact {short(digest)}"):
            artifact = ModelArtifact.load(self._workspace.objects, digest)
            artifact.check()
        return artifact

    def features(self, code: str, model: str, artifact: ModelArtifact, digest: str) -> OnlineFeatures:
        """Reader of what a model reads, as a code object defines it."""
        inputs = artifact.inputs.names

        def load() -> OnlineFeatures:
            return self._read_features(feature_set_of(self._workspace, code, model, inputs), code, model, digest)

        features: OnlineFeatures = self._cached(("features", code, model, *inputs), load)
        return features

    def _read_features(self, features: FeatureSet, code: str, model: str, digest: str) -> OnlineFeatures:  # noqa: ARG002
        """Reader of a feature set; code, model and artifact are its name elsewhere."""
        return online_features(self._workspace, features)

    def _cached(self, key: tuple[str, ...], make: Any) -> Any:
        if key not in self._parts:
            self._parts[key] = make()
        self._parts.move_to_end(key)
        while len(self._parts) > _CACHE_SIZE:
            self._parts.popitem(last=False)
        return self._parts[key]


def _check_fit(features: FeatureSet, model: ModelArtifact, deployed: Deployment) -> None:
    missing = [name for name in model.inputs.names if name not in features.columns]
    if missing or model.metadata.get("features") != features.version:
        raise DefinitionError(
            "a model must be served with the features it was trained on",
            where=f"policy:{deployed.policy}, {deployed.model}",
            got={"missing": missing[:5], **{k: v for k, v in asdict(deployed).items() if k == "model_code"}},
            remedy="Deploy the model version again",
        )
