"""Steps that are nouns of the project: what each reads, whether its effect stands, and what it does.

``python -m retrodict.project.pipeline_steps`` is the process of one step, which the runner begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from retrodict import registry
from retrodict.core.display import plain
from retrodict.core.errors import RefusedError
from retrodict.core.identity import canonical_json, digest
from retrodict.data.definitions import Table
from retrodict.data.versions import live_batches
from retrodict.decisions.definitions import find_policy
from retrodict.features.verify import verdicts
from retrodict.learning.frame import tables_of
from retrodict.learning.pipeline.child import load_inputs, serve_step
from retrodict.learning.pipeline.definitions import Pipeline, PipelineStep
from retrodict.learning.pipeline.outputs import store_output
from retrodict.learning.pipeline.runner import Effect
from retrodict.models import readers
from retrodict.models.definitions import Model
from retrodict.models.warmstart import WarmStart
from retrodict.monitoring.definitions import Monitor
from retrodict.project.plan import read_lags

if TYPE_CHECKING:
    from retrodict.project.project import Project
    from retrodict.workspace import Workspace

__all__ = ["bind_effect", "noun_reads"]


def noun_reads(workspace: Workspace, part: PipelineStep) -> frozenset[str]:
    """What a noun reads beside its inputs; NotFoundError with the near names if nothing is called like that.

    A model is trained after the proof of its features, where the pipeline has one.
    """
    params, get = dict(part.params), workspace.definitions.get
    match part.noun:
        case "ingest":
            get(Table, params["table"])
            return frozenset()
        case "build" | "verify":
            return frozenset([*(f"table:{name}" for name in _feature_state(workspace, part.noun)[0]),
                              *(["state:"] if part.noun == "verify" else [])])  # fmt: skip
        case "train":
            tables = tables_of(get(Model, params["model"]))
            return frozenset([*(f"table:{name}" for name in tables), "proof:"])
        case "replay" | "score":
            model = get(Model, params["model"]).name
            return frozenset([f"model:{model}"])
        case "deploy":
            model = find_policy(workspace.definitions, params["policy"]).model.name
            return frozenset([f"model:{model}", "state:", "proof:"])
        case "monitor":
            return frozenset([f"policy:{get(Monitor, params['monitor']).policy.name}"])
    return frozenset()


def _feature_state(workspace: Workspace, noun: str) -> tuple[dict[str, str], str]:
    """Newest version of every table that features read, and one hash over all features.

    A proof also reads the rows that models learn from: their labels' tables, and when each is decided.
    """
    sets = {**readers.feature_sets(workspace), **readers.service_sets(workspace)}
    tables = {source.table.name for features in sets.values() for source in features.sources.values()}
    versions = {name: features.version for name, features in sorted(sets.items())}
    if noun == "verify":
        for model in workspace.definitions.of(Model):
            tables.update(tables_of(model))
            versions[model.name] += f" {model.label.version} {model.decide_at}"
    return _versions(workspace, tables), digest(canonical_json(versions))


def _versions(workspace: Workspace, tables: Any) -> dict[str, str]:
    histories = {name: workspace.tables.history(name) for name in sorted(tables)}
    return {name: f"@{history[-1].version}" if history else "empty" for name, history in histories.items()}


def _newest(workspace: Workspace, model: str) -> str:
    versions = registry.list_versions(workspace, model)
    return versions[-1].ref if versions else "none"


def _deployable(workspace: Workspace, policy: str, trained: Mapping[str, str]) -> str:
    """Newest version that may be deployed; of a pipeline that trains the model, the one that it trained, or none."""
    definition = find_policy(workspace.definitions, policy)
    model = definition.model.name
    versions = registry.deployable(workspace, policy, definition.version, registry.list_versions(workspace, model))
    refs = [version.ref for version in versions if version.ref == trained.get(model, version.ref)]
    return refs[-1] if refs else "none approved"


def _source(workspace: Workspace, part: PipelineStep, partition: str) -> str:
    """Where an ingest reads from; a path is one from the project's folder."""
    pattern = str(dict(part.params).get("source", "")).replace("{partition}", partition)
    return pattern if "://" in pattern else str(workspace.root / pattern)


def bind_effect(workspace: Workspace, part: PipelineStep) -> Effect:
    """What a noun depends on, and whether its effect stands."""
    params = dict(part.params)

    def state(_partition: str, trained: Mapping[str, str]) -> Mapping[str, str]:
        match part.noun:
            case "ingest":
                return {"table": workspace.definitions.get(Table, params["table"]).version}
            case "build" | "verify":
                tables, features = _feature_state(workspace, part.noun)
                return {**tables, "features": features}
            case "train":
                model = workspace.definitions.get(Model, params["model"])
                return {**_versions(workspace, tables_of(model)), "definition": model.version}
            case "replay" | "score":
                return {"version": trained.get(params["model"]) or _newest(workspace, params["model"])}
            case "deploy":
                policy = find_policy(workspace.definitions, params["policy"])
                newest = trained.get(policy.model.name) or _newest(workspace, policy.model.name)
                version = _deployable(workspace, policy.name, trained)
                return {"definition": policy.version, "model": version, "newest": newest}
        return {}

    return Effect(state, lambda output: _fault(workspace, part, output))


def _fault(workspace: Workspace, part: PipelineStep, output: Mapping[str, Any]) -> str:
    """Why what a noun did does no longer stand; empty where it does."""
    params, effect = dict(part.params), output.get("effect", {})
    sets = [*readers.feature_sets(workspace).values(), *readers.service_sets(workspace).values()]
    match part.noun:
        case "ingest":
            live = list(live_batches(workspace.tables, params["table"]).values())  # newest first
            live = live[:1] if params["replace"] or params["update"] else live
            return "" if effect["version"] in live else f"rows of {params['table']}@{effect['version']} are gone"
        case "build":
            behind = [lag for features in sets for lag in read_lags(workspace, features)[0]]
            return behind[0] if behind else ""
        case "verify":
            unverified = [view.name for features in sets for view in verdicts.unverified_views(workspace, features)]
            return f"view {unverified[0]} has not passed" if unverified else ""
        case "train":
            versions = {version.ref: version for version in registry.list_versions(workspace, params["model"])}
            version = versions.get(effect["model"])
            missing = version is None or not workspace.objects.exists(version.artifact)
            return f"{effect['model']} is gone" if missing else ""
        case "deploy":
            return "" if _in_force(workspace, params["policy"]) == effect["model"] else "another version is in force"
    return ""


def _in_force(workspace: Workspace, policy: str) -> str:
    """Version that decides by the policy as it is defined; empty where another definition does, or none."""
    revision = registry.current(workspace).get(policy)
    definition = find_policy(workspace.definitions, policy)
    same = revision is not None and revision.deployment.policy_version == definition.version
    return revision.deployment.model if same and revision is not None else ""


# in the process of the step -------------------------------------------------------------------------------------------


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Do what the project does by the noun of a step."""
    from retrodict.project.project import Project

    with Project(job["folder"], actor=job["actor"], progress=lambda *_: None) as project:
        workspace = project.workspace
        part = workspace.definitions.get(Pipeline, job["pipeline"]).step(job["step"])
        facts, more = _NOUNS[part.noun](project, part, job)
        value = more.pop("value", facts)
        return {
            "output": {**store_output(workspace.objects, value, where=f"step {part.name}"), "effect": facts},
            **more,
        }


Facts = tuple[dict[str, Any], dict[str, Any]]


def _judged(part: PipelineStep, result: Any, facts: Mapping[str, Any], **more: Any) -> Facts:
    """Facts of a result that says yes; RefusedError for one that says no."""
    if not result.ok:
        raise RefusedError("a gate of a pipeline must pass", where=f"step {part.name}", got="a verdict of no",
                           remedy=f"See what it says: retrodict {part.noun}, or the step's log")  # fmt: skip
    return dict(facts), more


def _ingest(project: Project, part: PipelineStep, job: Mapping[str, Any]) -> Facts:
    params, rows = dict(part.params), _source(project.workspace, part, job["partition"])
    elsewhere = "://" in rows  # a URL: nothing says whether it has changed
    if part.inputs:
        (rows,) = load_inputs(project.workspace, job["inputs"]).values()
    report = project.data.ingest(
        params["table"], rows, **{name: params[name] for name in ("replace", "update", "fill_missing")}
    )
    checks = [{"check": check.check, "status": check.status, "failed": check.failed} for check in report.checks]
    facts = {"table": report.table, "version": report.version, "rows": report.rows_in, "accepted": report.accepted,
             "quarantined": report.quarantined, "checks": checks}  # fmt: skip
    if report.quarantined:
        worst = max(report.checks, key=lambda check: check.failed)
        facts["note"] = f"{report.quarantined} of {report.rows_in} rows in quarantine, most by {worst.check}"
    return facts, {"volatile": elsewhere}


def _build(project: Project, _part: PipelineStep, _job: Mapping[str, Any]) -> Facts:
    return {"sources": len(project.features.build().sources)}, {}


def _verify(project: Project, part: PipelineStep, _job: Mapping[str, Any]) -> Facts:
    result = project.features.verify(samples=dict(part.params)["samples"], seed=dict(part.params)["seed"])
    return _judged(part, result, {"ok": result.ok})


def _train(project: Project, part: PipelineStep, _job: Mapping[str, Any]) -> Facts:
    params = dict(part.params)
    start = WarmStart(**dict(params["start_from"])) if "start_from" in params else None
    run = project.train(params["model"], start_from=start, again=False)
    version = run.version
    assert version is not None
    if version.failed_gates:
        gates = ", ".join(f"{gate} ({status})" for gate, status in version.failed_gates.items())
        raise RefusedError("every gate of a version must pass", where=f"step {part.name}, {version.ref}", got=gates,
                           remedy=f"See: retrodict models show {version.ref}")  # fmt: skip
    facts = {"model": version.ref, "run": run.ref, "metrics": plain(run.metrics), "gates": plain(version.gates)}
    # Outcomes that were not known yet will be: the same rows then teach something else.
    return facts, {"volatile": run.record.data.get("left_out", {}).get("pending", 1) > 0}


def _deploy(project: Project, part: PipelineStep, job: Mapping[str, Any]) -> Facts:
    params, workspace = dict(part.params), project.workspace
    version = _deployable(workspace, params["policy"], job["trained"])
    model = find_policy(project.definitions, params["policy"]).model.name
    candidate = job["trained"].get(model) or _newest(workspace, model)
    newest = None if candidate == "none" else registry.get_version(workspace, candidate)
    if newest is not None and newest.gates_passed and not newest.approvals:  # an older one would decide on, unnoticed
        raise RefusedError("the newest version must have been judged by somebody", where=f"step {part.name}",
                           got=newest.ref, remedy=f"Run: retrodict models approve {newest.ref} --reason …")  # fmt: skip
    if model in job["trained"] and version != candidate:  # no other one is put in its place
        raise RefusedError("the version that the pipeline trained must be approved, and not be rolled back",
                           where=f"step {part.name}", got=candidate,
                           remedy=f"See: retrodict models show {candidate}")  # fmt: skip
    if _in_force(workspace, params["policy"]) != version:  # a run that was killed may have done so
        choice = version if model in job["trained"] else None
        project.deploy(params["policy"], model=choice, reason=params["reason"])
    revision = registry.current(workspace)[params["policy"]]
    return {"policy": params["policy"], "revision": revision.revision, "model": revision.deployment.model}, {}


def _score(project: Project, part: PipelineStep, job: Mapping[str, Any]) -> Facts:
    model = dict(part.params)["model"]
    version = job["trained"].get(model) or _newest(project.workspace, model)
    (rows,) = load_inputs(project.workspace, job["inputs"]).values()
    frame = project.models.score(version, rows)
    return {"model": version}, {"value": frame}


def _monitor(project: Project, part: PipelineStep, _job: Mapping[str, Any]) -> Facts:
    report = project.monitor(dict(part.params)["monitor"])
    return _judged(part, report, {"ok": report.ok}, value=plain(report.to_dict()), volatile=True)


def _replay(project: Project, part: PipelineStep, job: Mapping[str, Any]) -> Facts:
    model = dict(part.params)["model"]
    version = registry.get_version(project.workspace, job["trained"].get(model, model))
    result = project.replay_run(f"run:{version.run}")
    return _judged(part, result, {"model": version.ref, "exact": result.ok})


def _audit(project: Project, part: PipelineStep, _job: Mapping[str, Any]) -> Facts:
    report = project.audit()
    return _judged(part, report, {"ok": report.ok}, volatile=True)


_NOUNS: Mapping[str, Callable[[Project, PipelineStep, Mapping[str, Any]], Facts]] = {
    "audit": _audit, "build": _build, "deploy": _deploy, "ingest": _ingest, "monitor": _monitor,
    "replay": _replay, "score": _score, "train": _train, "verify": _verify,
}  # fmt: skip

if __name__ == "__main__":
    serve_step(perform)
