"""What differs between the definitions and what stands: read from tables, registry and deployments; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from retrodict import learning
from retrodict.core.display import Block, Grid, Shown, count, short_hash
from retrodict.core.durations import format_duration
from retrodict.core.identity import content_hash
from retrodict.core.lazy import lazy_modules
from retrodict.core.names import find_faults
from retrodict.data.columns import table_columns
from retrodict.data.definitions import Table, quarantine_name
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.features.definitions import FeatureService
from retrodict.features.labels import Outcome
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.models.splits import TimeSplit, split_from_dict

if TYPE_CHECKING:
    from retrodict import registry
    from retrodict.features import online
    from retrodict.features.verify import verdicts
    from retrodict.models import readers
    from retrodict.registry import ModelVersion, Revision
    from retrodict.workspace import Definitions, Workspace
else:
    (registry,) = lazy_modules("retrodict", "registry")
    (online,) = lazy_modules("retrodict.features", "online")
    (verdicts,) = lazy_modules("retrodict.features.verify", "verdicts")
    (readers,) = lazy_modules("retrodict.models", "readers")

__all__ = ["ModelPlan", "Plan", "PolicyPlan", "ServicePlan", "TablePlan", "read_lags", "read_plan"]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A defined table: its newest version (None: empty) and how many rows it and its quarantine hold."""

    name: str
    version: int | None
    rows: int | None
    quarantined: int


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A defined model against its newest version.

    Attributes
    ----------
    newest : str or None
        ``name@version``.
    status : str
        ``"not trained"``, ``"as trained"``, ``"as trained, other split"`` (retrained on other days),
        ``"as trained, other arguments"`` (tuned, or trained on from a version) or ``"changed"``.
    gates_passed, approved : bool or None
    approved_newest : str or None
        Newest version that may be deployed.
    stale : list of str
        Tables that have a newer version than the run read.
    author : str or None
    warnings : tuple of str
        Of the newest version's run and of the definition, each a sentence.
    otherwise : str
        What another training must do otherwise where a gate did not pass.
    """

    name: str
    newest: str | None
    status: str
    gates_passed: bool | None = None
    approved: bool | None = None
    approved_newest: str | None = None
    stale: tuple[str, ...] = ()
    author: str | None = None
    warnings: tuple[str, ...] = ()
    otherwise: str = ""


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """A defined policy, or a model in force without one, against its deployment.

    ``status`` is ``not deployed``, ``as deployed`` or ``changed``; ``halted`` is why nothing scores for it.
    """

    name: str
    version: str
    status: str
    revision: int | None = None
    model: str | None = None
    deployed_version: str | None = None
    deployable: str | None = None
    unverified: bool = False
    behind: tuple[str, ...] = ()
    streamed: tuple[str, ...] = ()
    halted: str | None = None

    @property
    def building(self) -> list[str]:
        """Command that brings online state up to the tables."""
        return [f"retrodict features build    # {'; '.join(self.behind)}"] if self.behind else []

    @property
    def deploying(self) -> list[str]:
        """Commands that deploy the policy as it is."""
        proof = [f"retrodict features verify {(self.deployable or '').partition('@')[0]}    # before it may serve"]
        return [*self.building, *(proof if self.unverified else []), f"retrodict deploy {self.name}    # {self.status}"]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A defined feature service: whether its views passed verification as they are, and what its state lacks."""

    name: str
    version: str
    verified: bool
    behind: tuple[str, ...]
    streamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Plan(Shown):
    """What is defined, what stands, what cannot hold, and what to do next.

    ``findings`` are names in definitions that no table with rows has: with one, ``ok`` is False. ``notes`` are guards
    that nothing sets off, and versions that are passed over since they were rolled back from. ``experiments`` are
    commands for those of policies in force that were not started as they are defined.
    """

    project: str
    tables: tuple[TablePlan, ...]
    models: tuple[ModelPlan, ...]
    policies: tuple[PolicyPlan, ...]
    services: tuple[ServicePlan, ...] = ()
    undefined: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every name that a definition uses exists."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**asdict(self), "next": self.next()}

    def blocks(self) -> Sequence[Block | None]:
        """Tables, models, policies, what cannot hold, and the commands to run next."""
        tables = [
            (t.name, "empty" if t.version is None else f"@{t.version}", count(t.rows), t.quarantined or None)
            for t in self.tables
        ]
        models = [
            (m.name, m.newest or "not trained", m.status, m.gates_passed, m.approved, m.stale) for m in self.models
        ]
        policies = [
            (p.name, f"#{p.revision}" if p.revision else "not deployed", p.model, p.status,
             short_hash(p.deployed_version))
            for p in self.policies
        ]  # fmt: skip
        services = [(s.name, short_hash(s.version), s.verified, list(s.behind) or None) for s in self.services]
        steps = self.next()
        grids = [
            Grid(("table", "version", "rows>", "quarantined>"), tables),
            Grid(("service", "version", "verified", "lacks"), services),
            Grid(("model", "newest", "definition", "gates passed", "approved", "data since?"), models),
            Grid(("policy", "revision", "decides with", "definition", "deployed hash?"), policies),
        ]
        next_steps = "\n".join(["Next:", *(f"  {step}" for step in steps)]) if steps else self._rest()
        warnings = [f"Warning: {m.newest or m.name}: {sentence}" for m in self.models for sentence in m.warnings]
        streamed = [s for p in self.policies for s in p.streamed] + [s for x in self.services for s in x.streamed]
        warnings += [f"Warning: {sentence}" for sentence in dict.fromkeys(streamed)]
        warnings += [f"Warning: {p.name} is halted ({p.halted}): nothing scores, and rules or fallback answer until: "
                     f"retrodict release {p.name} --reason WHY" for p in self.policies if p.halted]  # fmt: skip
        warnings += [f"Warning: {note}" for note in self.notes]
        findings = "\n".join(["\nDefinitions that cannot hold:", *(f"  {finding}" for finding in self.findings)])
        notes = [*warnings, findings if self.findings else None]
        return [*(grid for grid in grids if grid.rows), *notes, "", next_steps]

    def _rest(self) -> str:
        if self.findings:
            return "Next: correct these definitions. What reads them is refused until then."
        if self.undefined:
            return (
                f"In force, and not defined any more: {', '.join(self.undefined)}. They decide as they were deployed."
            )
        return "Nothing differs: what is defined is what stands."

    def next(self) -> list[str]:
        """Commands to run next, each with why; empty when nothing differs, or definitions are to be corrected first."""
        if self.findings:
            return []
        steps = [f"retrodict ingest {table.name} FILE" for table in self.tables if table.version is None]
        if steps:  # nothing can be trained before its tables hold rows
            return steps
        for model in self.models:
            steps += _model_steps(model)
        for policy in self.policies:
            if policy.status != "as deployed" and policy.deployable:
                steps += policy.deploying
                continue
            steps += policy.building if policy.model else []
            if policy.deployable and policy.model and _number(policy.deployable) > _number(policy.model):
                steps.append(
                    f"retrodict promote {policy.name} {policy.deployable} --reason '…'    # {policy.model} decides"
                )
        for service in self.services:
            steps += [f"retrodict features build    # {'; '.join(service.behind)}"] if service.behind else []
            steps += [] if service.verified else [f"retrodict features verify {service.name}"]
        return [*steps, *self.experiments]


def _model_steps(model: ModelPlan) -> list[str]:
    if model.newest is None or model.status == "changed":
        return [f"retrodict train {model.name}    # {model.status}"]
    if not model.gates_passed:
        return [f"retrodict train {model.name}    # a gate of {model.newest} did not pass: {model.otherwise}"]
    if not model.approved:
        command = f"retrodict models approve {model.newest} --reason '…' --actor NAME"
        return [f"{command}    # by somebody else than {model.author}"]
    return []


def _number(ref: str) -> int:
    return int(ref.partition("@")[2])


def read_plan(workspace: Workspace) -> Plan:
    """Compare the definitions of a project with what stands."""
    definitions = workspace.definitions
    versions: dict[str, list[ModelVersion]] = {}
    for version in registry.list_versions(workspace):
        versions.setdefault(version.name, []).append(version)
    models = tuple(_model(workspace, model, versions.get(model.name, [])) for model in definitions.of(Model))
    deployed, policies = registry.current(workspace), definitions.of(Policy)
    alone = {*deployed} & {model.name for model in definitions.of(Model)} - {policy.name for policy in policies}
    policies += [find_policy(definitions, name) for name in sorted(alone)]
    return Plan(
        workspace.name,
        tuple(_table(workspace, table.name) for table in definitions.of(Table)),
        models,
        tuple(
            _policy(
                workspace,
                policy,
                deployed.get(policy.name),
                registry.deployable(workspace, policy.name, policy.version, versions.get(policy.model.name, [])),
            )
            for policy in policies
        ),
        tuple(_service(workspace, name, features) for name, features in readers.service_sets(workspace).items()),
        tuple(sorted(set(deployed) - {policy.name for policy in policies})),
        tuple(str(fault) for fault in find_faults(definitions, table_columns(workspace))),
        (
            *_idle_guards(definitions),
            *(
                f"{policy.name}: {sentence}; {deployed[policy.name].deployment.model} decides. Name it to take it again"
                for policy in policies
                for sentence in registry.passed_over(
                    workspace, policy.name, policy.version, versions.get(policy.model.name, [])
                )
            ),
        ),
        tuple(_idle_experiments(workspace, deployed)),
    )


def _idle_experiments(workspace: Workspace, deployed: Mapping[str, Revision]) -> Iterator[str]:
    """What begins experiments that are defined, and neither run nor ran like that."""
    from retrodict.rollout.experiments import Experiment, find_runs
    from retrodict.rollout.experiments.runs import last_plan

    for one in workspace.definitions.of(Experiment):
        runs = find_runs(workspace, one.name)
        if one.policy.name in deployed and all(run.until and run.version != content_hash(one) for run in runs):
            planned = last_plan(workspace, one) is not None
            yield (f"retrodict experiment start {one.name} --reason '…'    # planned, and not started" if planned else
                   f"retrodict experiment plan {one.name}    # defined, and not started")  # fmt: skip


def _idle_guards(definitions: Definitions) -> Iterator[str]:
    """Guards on drift that no monitor of their policy tells them of."""
    from retrodict.monitoring.definitions import Monitor
    from retrodict.rollout.definitions import Guard

    monitored = {one.policy.name for one in definitions.of(Monitor) if any("psi" in part.on for part in one.triggers)}
    for guard in definitions.of(Guard):
        if "drift" in guard.when and guard.policy is not None and guard.policy.name not in monitored:
            yield (f"{guard.name} acts on drift, and no Monitor of {guard.policy.name} has a trigger on psi: it never "
                   "will. Define one, or leave drift out")  # fmt: skip


def _service(workspace: Workspace, name: str, features: FeatureSet) -> ServicePlan:
    version = workspace.definitions.get(FeatureService, name).version
    verified = not verdicts.unverified_views(workspace, features)
    return ServicePlan(name, version, verified, *read_lags(workspace, features))


def read_lags(workspace: Workspace, features: FeatureSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the online state of each source lacks of its table, in words: what a build brings, and of what to warn."""
    behind, streamed = [], []
    # Without a row there is no state to look at, and nothing to load for it.
    filled = any(workspace.tables.history(source.table.name) for source in features.sources.values())
    for source, lag in online.table_lags(workspace, features).items() if filled else ():
        if lag.shortfall:
            streamed.append(lag.shortfall)
        if lag.behind and lag.rows and lag.streamed:
            streamed.append(
                f"{source}: {count(lag.rows)} rows of {lag.table}@{lag.newest} stay out of online state, as a stream "
                "feeds it: a lifetime, or a source without a sequence, cannot tell rows from events. Push them as "
                "events, or give the lifetime a view of its own"
            )
        elif lag.behind and lag.rows:
            state = "no state" if lag.version is None else f"{count(lag.rows)} rows behind"
            behind.append(f"{source}: {state}, {lag.table}@{lag.newest}")
    return tuple(behind), tuple(streamed)


def _table(workspace: Workspace, name: str) -> TablePlan:
    history = workspace.tables.history(name)
    version, rows = (history[-1].version, _rows(workspace, name)) if history else (None, None)
    return TablePlan(name, version, rows, _rows(workspace, quarantine_name(name)))


def _rows(workspace: Workspace, name: str) -> int:
    return sum(file.rows for file in workspace.tables.files(name)) if workspace.tables.history(name) else 0


def _model(workspace: Workspace, model: Model, versions: list[ModelVersion]) -> ModelPlan:
    warnings = tuple(_slow_outcomes(model))
    if not versions:
        return ModelPlan(model.name, None, "not trained", warnings=warnings)
    newest = versions[-1]
    run = learning.get_run(workspace, f"run:{newest.run}")
    approved = [version for version in versions if version.approved and version.gates_passed]
    stale = tuple(
        f"{name}@{history[-1].version}"
        for name, version in sorted(run.data["versions"].items())
        if (history := workspace.tables.history(name)) and history[-1].version > version
    )
    return ModelPlan(
        model.name, newest.ref, _status(model, run.params), newest.gates_passed, newest.approved,
        approved[-1].ref if approved else None, stale, newest.author,
        (*run.summary.get("warnings", ()), *warnings), newest.next_training,
    )  # fmt: skip


def _slow_outcomes(model: Model) -> Iterator[str]:
    """Warnings of parts of the split that are over before an outcome of theirs has matured."""
    if not isinstance(model.recipe.split, TimeSplit):
        return
    split, maturity = model.recipe.split.resolve(), model.label.maturity
    surely = isinstance(model.label, Outcome)  # a label may be known before it matures
    parts = {"training": (split.train_start, split.train_end, "validation"),
             "validation": (split.train_end, split.validate_end, "the test")}  # fmt: skip
    for part, (start, end, following) in parts.items():
        if end - start < maturity + surely:
            yield (
                f"outcomes mature {format_duration(maturity)} after the decision, and {part} lasts "
                f"{format_duration(end - start)}: what is known only after {following} has begun is left out, which "
                f"{'is all of it' if surely else 'may be all of it'}. Make the part longer"
            )


def _status(model: Model, params: dict[str, Any]) -> str:
    if params["definition"] == model.version:
        return "as trained"
    # A retraining on other days is the same definition but for its split.
    moved = model.with_split(split_from_dict(params["split"]))
    if params["definition"] == moved.version:
        return "as trained, other split"
    # A search, a start or the like was asked for beside it: tune, or train --start-from.
    return "as trained, other arguments" if params.get("as_written") == model.version else "changed"


def _policy(
    workspace: Workspace, policy: Policy, revision: Revision | None, candidates: Sequence[ModelVersion]
) -> PolicyPlan:
    deployable = candidates[-1].ref if candidates else None
    features = FeatureSet(policy.model.features)
    unverified = bool(verdicts.unverified_views(workspace, features))
    behind, streamed = read_lags(workspace, features)
    plan = PolicyPlan(
        policy.name, policy.version, "not deployed", deployable=deployable, unverified=unverified, behind=behind,
        streamed=streamed,
    )  # fmt: skip
    if revision is None:
        return plan
    deployed = revision.deployment
    status = "as deployed" if deployed.policy_version == policy.version else "changed"
    return replace(
        plan, status=status, revision=revision.revision, model=deployed.model, deployed_version=deployed.policy_version,
        halted=deployed.halted,
    )  # fmt: skip
