"""One engine that decides past requests with something else: another version, another model, another policy.

A shadow behind live traffic and the replay of a window are both this. What the log has of a feature is used as it is,
bit for bit; only what the challenger reads and the champion did not is read again, as of the moment of the decision. A
feature of the same name is the same only if its definition is: a view that was changed since is read again too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter_ns
from typing import Any, Literal

from retrodict.core.definition import check_name
from retrodict.core.display import Record
from retrodict.core.errors import NotFoundError, RefusedError, RetrodictError, RetryableError, check_known
from retrodict.data.columns import check_names
from retrodict.decisions.compiled import CompiledPolicy, check_clear
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.decisions.facts import newest_rows, recompute_many
from retrodict.decisions.loader import load_policy
from retrodict.decisions.records import DecisionRecord, Value, named_outputs, session_values
from retrodict.features.facts.evaluation import derive_row
from retrodict.features.online import online_features
from retrodict.models.artifact import ModelArtifact, Score
from retrodict.registry import Deployment, current, get_version, version_to_use
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace, capture_code, definitions_of

__all__ = ["Challenger", "Rescore", "Rescorer", "champion_of", "check_features", "compared_policy", "make_challenger"]

_READ = frozenset({"ok", "unseen", "null_key"})


@dataclass(frozen=True, slots=True)
class Challenger(Record):
    """What decides instead: a version and a policy, each by hash.

    Attributes
    ----------
    name : str
        What reports call it.
    model, artifact, model_code : str
        ``name@version``, SHA-256 of its manifest, SHA-256 of the code it was trained with.
    policy, policy_version, code : str
        Policy whose rules and thresholds decide, hash of its definition, SHA-256 of the code that has it.
    """

    name: str
    model: str
    artifact: str
    model_code: str
    policy: str
    policy_version: str
    code: str

    @classmethod
    def of_record(cls, workspace: Workspace, record: DecisionRecord) -> Challenger:
        """What decided a record itself."""
        code = get_version(workspace, record.model).code  # a fallback scores with another version than is in force
        return cls("original", record.model, record.artifact, code, record.policy, record.policy_version, record.code)

    def to_dict(self) -> dict[str, Any]:
        """Plain form, as deployments keep it."""
        return asdict(self)


def make_challenger(
    workspace: Workspace, policy: str, *, model: str | None = None, other: str | None = None, name: str | None = None
) -> Challenger:
    """Challenger of a deployed policy.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of a deployed policy.
    model : str, optional
        Version that scores, of any model. None: the one in force, or of another model the newest one to use.
    other : str, optional
        Defined policy whose rules and thresholds decide, as it is now. None: those in force.
    name : str, optional
        By default what it is made of.

    Raises
    ------
    NotFoundError
        If the policy is not deployed, or there is no such version or policy.
    DefinitionError
        If policy and model do not fit together.
    """
    deployed = champion_of(workspace, policy)
    champion = deployed.model
    if other is None:
        definition, version, code = load_policy(workspace, deployed), deployed.policy_version, deployed.code
    else:
        definition = find_policy(workspace.definitions, other)
        check_names(workspace, definition)
        version, code = definition.version, capture_code(workspace)
    if model is None:
        same = definition.model.name == champion.partition("@")[0]
        model = champion if same else version_to_use(workspace, definition.model.name).ref
    scored = get_version(workspace, model)
    if name is not None:
        check_name(name, what="challenger")
    label = name or " ".join([scored.ref, *([f"by {other}"] if other else [])])
    challenger = Challenger(label, scored.ref, scored.artifact, scored.code, definition.name, version, code)
    Rescorer(workspace, challenger)  # what does not fit is refused now
    return challenger


def champion_of(workspace: Workspace, policy: str) -> Deployment:
    """What decides for a policy now; NotFoundError if it is not deployed."""
    revisions = current(workspace)
    check_known(
        policy, revisions, "the policy must be deployed", where="challenger", what="policy", error=NotFoundError
    )
    return revisions[policy].deployment


def compared_policy(workspace: Workspace, policy: str) -> Policy:
    """Policy in force, with the costs and the limit of disagreement that the definitions have now."""
    deployed = load_policy(workspace, champion_of(workspace, policy))
    defined = {one.name: one for one in workspace.definitions.of(Policy)}.get(policy, deployed)
    return replace(deployed, costs=defined.costs, max_disagreement=defined.max_disagreement)


def check_features(workspace: Workspace, policy: str, challenger: Challenger) -> None:
    """Refuse a challenger that asks for what requests of a policy do not bring, or whose tables have no rows yet.

    Raises
    ------
    RefusedError
    """
    champion = champion_of(workspace, policy)
    brings = _request_kinds(ModelArtifact.metadata_of(workspace.objects, champion.artifact))
    rescorer = Rescorer(workspace, challenger)
    unknown = sorted(name for name in rescorer.request_names if name not in brings)
    if unknown:
        raise RefusedError("a challenger must read what requests of the policy bring", got=unknown,
                           where=f"model:{challenger.model}",
                           remedy=f"Train it without, or deploy {policy} first with a model that asks for it"
                           )  # fmt: skip
    others = {name: (brings[name], kind) for name, kind in rescorer.kinds.items() if brings.get(name, kind) != kind}
    if others:
        raise RefusedError("a challenger must read values of the kinds that requests bring", got=others,
                           where=f"model:{challenger.model}", remedy="Train it on columns of these types")  # fmt: skip
    empty = [name for name in rescorer.features.tables if not workspace.tables.history(name)]
    if empty:
        raise RefusedError("the tables of a challenger's features must have rows", where=f"model:{challenger.model}",
                           got=empty, remedy=f"Run: retrodict ingest {empty[0]} FILE")  # fmt: skip


def _request_kinds(metadata: Mapping[str, Any]) -> dict[str, str]:
    kinds = metadata.get("request", {"entities": {}, "context": {}})
    return {**kinds["entities"], **kinds["context"]}


@dataclass(slots=True)
class Rescore:
    """What a challenger makes of one past request.

    Attributes
    ----------
    decision : str
        Empty where ``error`` says why there is none.
    raw, score, outputs
        As in a record.
    features : str
        ``logged``, or ``read again``: not every value was in the log.
    micros : float
        Microseconds it took: features that had to be read, score, rules.
    error : str, optional
    """

    decision: str = ""
    raw: float | None = None
    score: float | None = None
    outputs: dict[str, float] = field(default_factory=dict)
    features: str = "logged"
    micros: float = 0.0
    error: str | None = None


class Rescorer:
    """Decides past requests with a challenger; for one thread.

    Parameters
    ----------
    workspace : Workspace
    challenger : Challenger
    values : {"same definition", "logged"}
        Which logged values count: those of features that are defined alike, or all, as for what decided itself.
    online : bool, default False
        Read what is not logged from the online state, as of the moment of each decision, where that has it exactly;
        everything else is computed from the newest tables and streams by the engine of training frames.
    """

    def __init__(
        self,
        workspace: Workspace,
        challenger: Challenger,
        *,
        values: Literal["same definition", "logged"] = "same definition",
        online: bool = False,
    ) -> None:
        self._workspace, self.challenger = workspace, challenger
        self.artifact = ModelArtifact.load(workspace.objects, challenger.artifact)
        self.kinds = _request_kinds(self.artifact.metadata)
        inputs, name = self.artifact.inputs.names, challenger.model.partition("@")[0]
        self.features = feature_set_of(workspace, challenger.model_code, name, inputs)
        facts = asdict(challenger)
        definition = load_policy(workspace, Deployment(**{n: facts[n] for n in facts if n != "name"}))
        columns = self.features.columns
        check_clear(definition, columns, self.artifact.outputs)
        self.policy = CompiledPolicy(definition, columns, [*self.kinds], self.artifact.outputs)
        self._needed = ({*inputs} | self.policy.reads).intersection(columns)
        self._rules = self.policy.reads
        session = definition.session
        self._reads_session = session is not None and not self._rules.isdisjoint(session.values)
        self._sessions: dict[tuple[str, str], bool] = {}
        self._online = online_features(workspace, self.features) if online else None
        self._inner = {output.column for view in self.features.views for output in view.outputs}
        self._all_logged = values == "logged"
        self._same: dict[tuple[str, str], frozenset[str]] = {}
        self._sources: tuple[Any, dict[str, Any]] | None = None

    @property
    def request_names(self) -> list[str]:
        """Entities and context that features and rules read."""
        names = [*self.features.request_keys, *self.features.request_columns]
        return list(dict.fromkeys([*names, *(name for name in self._rules if name in self.kinds)]))

    def rescore(self, records: Sequence[DecisionRecord]) -> list[Rescore]:
        """Decide each request again, in order; an error of one stays with it."""
        results = [Rescore() for _ in records]
        values = self._values(records, results)
        places = [place for place, result in enumerate(results) if result.error is None]
        if not places:
            return results
        began = perf_counter_ns()
        scores = self._score([values[place] for place in places])
        for place, scored in zip(places, scores, strict=True):
            result, record = results[place], records[place]
            if isinstance(scored, Exception):
                result.error = _words(scored)
                continue
            try:
                session = session_values(record.session)
                names = {**record.context, **record.entities, **values[place], **session}
                result.decision = self.policy.decide(names, scored.outputs).decision
                result.raw, result.score, result.outputs = scored.raw, scored.score, named_outputs(scored)
            except Exception as error:  # noqa: BLE001  # whatever a challenger does is its result, and stops nothing
                result.error = _words(error)
        share = (perf_counter_ns() - began) / 1_000 / len(places)
        for place in places:
            results[place].micros += share
        return results

    def _score(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Score | Exception]:
        try:
            return self.artifact.score_each(rows)
        except Exception:  # noqa: BLE001  # then each by itself: one row may be wrong
            results: list[Score | Exception] = []
            for row in rows:
                try:
                    results.append(self.artifact.score_row(row))
                except Exception as error:  # noqa: BLE001  # the result of this row
                    results.append(error)
            return results

    def _values(self, records: Sequence[DecisionRecord], results: Sequence[Rescore]) -> list[dict[str, Value]]:
        """Features of each record; what cannot be had is noted in its result."""
        values: list[dict[str, Value]] = []
        again = []
        for place, record in enumerate(records):
            logged = {name: record.features[name] for name in self._logged(record) if name in record.features}
            values.append(logged)
            if self._reads_session and not self._same_session(record):
                results[place].error = "not in the log: the session that its rules read"
                continue
            if self._needed <= logged.keys() and not self._rules.intersection(record.masked):
                continue
            masked = (self._needed | self._rules | {*self.request_names}).intersection(record.masked)
            lacking = [name for name in self.features.request_keys if name not in record.entities]
            if masked:
                results[place].error = f"masked in the log: {', '.join(sorted(masked))}"
            elif lacking:
                results[place].error = f"not in the request: {', '.join(lacking)}"
            else:
                again.append(place)
                results[place].features = "read again"
        if again:
            began = perf_counter_ns()
            self._read_again(records, values, again, results)
            for place in again:
                results[place].micros = (perf_counter_ns() - began) / 1_000 / len(again)
        return values

    def _same_session(self, record: DecisionRecord) -> bool:
        """Whether what decided a record had sessions by the same names, which live as long."""
        key = record.code, record.policy
        if key not in self._sessions:
            theirs = find_policy(definitions_of(self._workspace, record.code), record.policy).session
            self._sessions[key] = theirs == self.policy.policy.session
        return self._sessions[key] and bool(record.session)

    def _logged(self, record: DecisionRecord) -> Iterable[str]:
        """Features that mean to the challenger what they meant to the one that decided, and are not masked."""
        key = record.model_code, record.code
        if self._all_logged:
            return record.features
        if key not in self._same:
            code = definitions_of(self._workspace, record.code)
            model = record.model.partition("@")[0] or find_policy(code, record.policy).model.name
            theirs = feature_set_of(self._workspace, record.model_code, model)
            versions = {one.name: one.version for one in theirs.features}
            same = {one.name for one in self.features.features if versions.get(one.name) == one.version}
            columns = [*self.features.columns, *self._inner]
            self._same[key] = frozenset(n for n in columns if n in self.features.own or n.partition("__")[0] in same)
        names = self._same[key]
        return names.difference(record.masked) if record.masked else names

    def _read_again(
        self,
        records: Sequence[DecisionRecord],
        values: list[dict[str, Value]],
        places: Sequence[int],
        results: Sequence[Rescore],
    ) -> None:
        """Fill in what is not logged; functions are computed from what is logged where they read it."""
        from_tables = []
        for place in places:
            record, row = records[place], values[place]
            if not self._inner <= row.keys() and not self._read_online(record, row):
                from_tables.append(place)
        if from_tables:
            try:
                part = [records[place] for place in from_tables]
                rows = recompute_many(part, self.features, self._facts(), self.kinds)
            except RetryableError:  # of a server that is away: no result of anybody
                raise
            except Exception as error:  # noqa: BLE001  # the result of these requests
                for place in from_tables:
                    results[place].error = _words(error)
            else:
                for place, row in zip(from_tables, rows, strict=True):
                    values[place] = {**row, **values[place]}
        for place in places:
            if results[place].error is None:
                self._derive(records[place], values[place], results[place])

    def _derive(self, record: DecisionRecord, row: dict[str, Value], result: Rescore) -> None:
        request = {**record.context, **record.entities}
        row.update({name: request[name] for name in self.features.own if name not in row and name in request})
        logged = {name: record.features[name] for name in self._logged(record) if name in record.features}
        try:
            derive_row(self.features, request, row)
        except Exception as error:  # noqa: BLE001  # the result of this request
            result.error = _words(error)
        row.update(logged)

    def _read_online(self, record: DecisionRecord, row: dict[str, Value]) -> bool:
        """Take the features that are not logged from the online state; False where it does not have them exactly."""
        if self._online is None:
            return False
        try:
            read = self._online.read(record.entities, record.context, at=record.time)
        except RetrodictError:
            return False
        if not _READ.issuperset(read.statuses.values()):
            return False
        row.update({name: value for name, value in read.values.items() if name not in row})
        return True

    def _facts(self) -> Mapping[str, Any]:
        """Rows of the challenger's tables; read once for each version of them."""
        tables = self._workspace.tables
        state = [(name, len(tables.history(name))) for name in self.features.tables]
        state += [(name, self._workspace.events.end(f"events/{name}")) for name in self.features.tables]
        if self._sources is None or self._sources[0] != state:
            self._sources = state, newest_rows(self._workspace, self.features)
        return self._sources[1]


def _words(error: Exception) -> str:
    """Name of an error; its text only where it is one of ours, which hold no values of a request."""
    return f"{type(error).__name__}: {error.rule}" if isinstance(error, RetrodictError) else type(error).__name__
