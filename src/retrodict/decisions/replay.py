"""Decision replay: one past answer computed again from what was kept, and compared bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from retrodict.core.display import Block, Facts, Grid, Shown, count, excerpt
from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.decisions.compiled import CompiledPolicy
from retrodict.decisions.facts import ReadRows, read_facts, recompute, same_value
from retrodict.decisions.loader import load_policy
from retrodict.decisions.log import find_decision
from retrodict.decisions.masks import Masks
from retrodict.decisions.records import DecisionRecord, Value, named_outputs, session_values
from retrodict.features.facts.evaluation import derive_row
from retrodict.features.online import stream_of
from retrodict.features.plan import FeatureSet
from retrodict.ledger import prove
from retrodict.models.artifact import ModelArtifact
from retrodict.models.explain import reason_texts
from retrodict.registry import Deployment, get_version
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace

__all__ = ["DecisionReplay", "replay_decision", "replay_values"]

_NOT_ALL_READ = frozenset({"no_state", "behind", "stale", "beyond_horizon", "not_read"})
_ABSENT = frozenset({"no_state", "beyond_horizon", "not_read"})


@dataclass(frozen=True, slots=True, repr=False)
class DecisionReplay(Shown):
    """What came of deciding again.

    Attributes
    ----------
    decision : str
    verdict : {"exact", "different", "not replayable"}
        Exact: the features read again from the tables, the score, the decision and the words are the same bits.
    features : int
        Feature values compared.
    feature_mismatches : list of dict
        Name, logged and recomputed value of those that differ.
    logged, replayed : dict
        The two answers.
    versions : dict
        Table versions the features were read from: those that the decision itself read, while they exist.
    records : dict
        Records of the streams of these tables that were read as well.
    reason : str
        Why the verdict is not exact, versions that are missing, views that the answer said it could not read.
    """

    decision: str
    verdict: str
    features: int
    feature_mismatches: list[dict[str, Any]]
    logged: dict[str, Any]
    replayed: dict[str, Any]
    versions: dict[str, int]
    records: dict[str, int]
    reason: str

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return self.verdict == "exact"

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__} | {"exact": self.exact}

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return self.exact

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, both answers, and the features that differ."""
        about = {"decision": self.decision, "verdict": self.verdict, "reason": self.reason or None,
                 "feature values compared": self.features,
                 "tables": [f"{name}@{version}" for name, version in self.versions.items()],
                 "streams": [f"{count(n)} of {stream_of(name)}" for name, n in self.records.items()]}  # fmt: skip
        names = dict.fromkeys([*self.logged, *self.replayed]) if self.replayed else {}
        answers = [
            (name, self.logged.get(name) == self.replayed.get(name), excerpt(self.logged.get(name)),
             excerpt(self.replayed.get(name)))
            for name in names
        ]  # fmt: skip
        features = [
            (row["feature"], excerpt(row["logged"]), excerpt(row["replayed"])) for row in self.feature_mismatches
        ]
        return [
            Facts(about),
            Grid(("compared", "equal", "recorded", "replayed"), answers) if answers else None,
            Grid(("feature that differs", "logged", "replayed"), features) if features else None,
        ]


def replay_decision(workspace: Workspace, ref: str) -> DecisionReplay:
    """Decide again: same code, same artifact, features recomputed from the tables as of the moment of the decision.

    Nothing of the present definitions, deployments or online state is used.

    Raises
    ------
    NotFoundError
        If there is no such decision.
    """
    logged = find_decision(workspace, ref)
    record = logged.record
    name = f"decision:{record.id}"
    if record.fallback is not None and record.fallback != "previous_version":
        reason = f"the fallback {record.fallback!r} answered ({record.error}); there was no score to compute again"
        return DecisionReplay(name, "not replayable", 0, [], record.answer(), {}, {}, {}, reason)
    try:
        with suppress(NotFoundError):  # not sealed yet
            prove(workspace.ledger, workspace.streams, logged.stream, logged.offset)
        return _again(workspace, record, name)
    except RetrodictError as error:
        return DecisionReplay(name, "not replayable", 0, [], record.answer(), {}, {}, {}, str(error))


def _again(workspace: Workspace, record: DecisionRecord, name: str) -> DecisionReplay:
    model = ModelArtifact.load(workspace.objects, record.artifact)
    features = feature_set_of(workspace, record.model_code, model.name, model.inputs.names)
    if masked := [name for name in record.masked if name in record.context]:
        reason = (
            f"not kept of the request, being personal: {', '.join(masked)}; features and rules that read it cannot be"
        )
        return DecisionReplay(name, "not replayable", 0, [], record.answer(), {}, {}, {}, f"{reason} computed again")
    facts, masks = read_facts(workspace, features, record), Masks(workspace)
    values = replay_values(record, features, facts, model)
    untold = [name for name in record.masked if name in values and not masks.can_tell(record.features.get(name))]
    compared = {n: masks.value(v) if n in record.masked else v for n, v in values.items() if n not in untold}
    mismatches = [
        {"feature": feature, "logged": record.features.get(feature), "replayed": value}
        for feature, value in compared.items()
        if not same_value(record.features.get(feature), value)
    ]
    replayed = _decide(workspace, record, model, features.columns, values)
    logged = record.answer()
    equal = msgspec.json.encode(logged) == msgspec.json.encode(replayed)
    unequal = ["answer"] * (not equal) + ["features"] * bool(mismatches)
    versions, records, missing, rewritten = (
        {table: number for one in facts for table, number in getattr(one, name).items()}
        for name in ("versions", "records", "missing", "rewritten")
    )
    reasons = [f"differs in {' and '.join(unequal)}"] * bool(unequal)
    if missing or rewritten:
        from retrodict.data.versions import loss_of  # loads what compares versions
    for table, version in missing.items():
        reasons.append(f"{loss_of(workspace, table, version)}; read was {table}@{versions[table]} instead")
    reasons += [loss_of(workspace, table, version) for table, version in rewritten.items()]
    doubts = [f"{view} ({doubt['status']})" for view, doubt in record.views.items() if doubt["status"] in _NOT_ALL_READ]
    if doubts:
        reasons.append(f"the answer said so: not all was read of {', '.join(doubts)}")
    if unequal and not record.reads and features.views:
        reasons.append("the record is from before it was noted which versions were read; the newest were now")
    if untold:
        reasons.append(f"masked with a secret that is gone, and not compared: {', '.join(untold)}")
    verdict = "exact" if not unequal else "not replayable" if missing or rewritten else "different"
    reason = "; ".join(reasons)
    return DecisionReplay(name, verdict, len(compared), mismatches, logged, replayed, versions, records, reason)


def replay_values(
    record: DecisionRecord, features: FeatureSet, facts: Sequence[ReadRows], model: ModelArtifact
) -> dict[str, Value]:
    """Features from the facts; null where the record says that there was no state to read."""
    kinds = model.metadata["request"]
    kinds = {**kinds["entities"], **kinds["context"]}
    first, *others = [recompute(record, features, one.rows, kinds) for one in facts]
    absent = {view for view, doubt in record.views.items() if doubt["status"] in _ABSENT}
    if not others and not absent:
        return first
    values = dict(first)
    for view in features.views:
        frame = next(frame for frame, one in zip([first, *others], facts, strict=True) if view.name in one.views)
        values |= {
            o.column: None if view.name in absent else frame[o.column] for o in view.outputs if o.column in frame
        }
    derive_row(features, {**record.context, **record.entities}, values)
    return values


def _decide(
    workspace: Workspace,
    record: DecisionRecord,
    model: ModelArtifact,
    columns: tuple[str, ...],
    values: dict[str, Value],
) -> dict[str, Any]:
    """Answer that the recomputed values give, by the policy and the model of then."""
    code = get_version(workspace, record.model).code
    deployed = Deployment(record.policy, record.policy_version, record.code, record.model, record.artifact, code)
    session = session_values(record.session)  # which stands above what the caller may have sent by its names
    others = [name for name in (*record.entities, *record.context) if name not in session]
    policy = CompiledPolicy(load_policy(workspace, deployed), columns, others, model.outputs)
    names = {**record.context, **record.entities, **values, **session}
    scored = model.score_row(values)
    decision = policy.decide(names, scored.outputs)
    reasons = [decision.reason] if decision.reason is not None else []
    if record.explained:
        reasons += reason_texts(policy.explain(model, names))
    again = msgspec.structs.replace(
        record,
        raw=scored.raw,
        score=scored.score,
        outputs=named_outputs(scored),
        decision=decision.decision,
        rule=decision.rule,
        reasons=reasons,
    )
    return again.answer()
