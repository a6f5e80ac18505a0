"""Training replay: a past run executed again from the ledger alone and compared, number by number."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retrodict.core.display import Block, Facts, Grid, Shown, excerpt, seconds
from retrodict.core.errors import IntegrityError, NotFoundError, RetrodictError
from retrodict.learning.environment import describe_environment, environment_differences, machine_kind
from retrodict.learning.execution import execute
from retrodict.learning.recipes import Progress
from retrodict.learning.runs import Run, get_run
from retrodict.learning.study import SearchResult
from retrodict.learning.warmstart import start_of
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.splits import split_from_dict
from retrodict.workspace import Workspace, definitions_of

__all__ = ["RunReplay", "definition_of", "replay_run"]

# Differences of the environment in a text; the plain form has all.
_SHOWN = 8

Verdict = Literal["exact", "different", "not replayable"]


@dataclass(frozen=True, slots=True, repr=False)
class RunReplay(Shown):
    """What came of executing a run again.

    Attributes
    ----------
    run : str
    verdict : {"exact", "different", "not replayable"}
        Exact: same training rows, same trees, same metrics, bit for bit.
    same_machine_kind : bool
        Whether bit-identical results were to be expected.
    compared : dict
        For each fact what the ledger and the model say, the replayed value and whether they are equal; and whether the
        run's row in the records says what the ledger does.
    reason : str
        In words, where the verdict is not exact.
    seconds : float
    differences : tuple of str
        What of the environment differs from the run's: packages, versions, files, modules, machine.
    """

    run: str
    verdict: Verdict
    same_machine_kind: bool
    compared: dict[str, dict[str, Any]]
    reason: str
    seconds: float
    differences: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every fact is equal."""
        return self.verdict == "exact"

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "run": self.run, "verdict": self.verdict, "exact": self.exact, "same_machine_kind": self.same_machine_kind,
            "compared": self.compared, "reason": self.reason, "seconds": self.seconds,
            "differences": list(self.differences),
        }  # fmt: skip

    @property
    def ok(self) -> bool:
        """Whether every fact is equal."""
        return self.exact

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, and every fact that was compared."""
        about = {"run": self.run, "verdict": self.verdict, "reason": self.reason or None, "took": seconds(self.seconds),
                 "same kind of machine": self.same_machine_kind}  # fmt: skip
        rows = [
            (name, fact["equal"], excerpt(fact["recorded"]), excerpt(fact["replayed"]))
            for name, fact in self.compared.items()
        ]
        sentences = [(sentence,) for sentence in self.differences[:_SHOWN]]
        return [
            Facts(about),
            Grid(("compared", "equal", "recorded", "replayed"), rows) if rows else None,
            Grid(("the environment differs",), sentences) if sentences else None,
        ]


def replay_run(workspace: Workspace, ref: str, *, progress: Progress | None = None) -> RunReplay:
    """Execute a finished run again: its code, its table versions, its split and seed, in this environment.

    Nothing of the project's present definitions is used, and nothing is written but one ledger entry with the verdict.

    Raises
    ------
    NotFoundError
        If there is no such run.
    """
    run = get_run(workspace, ref)
    then = json.loads(workspace.objects.get(run.environment))
    began = time.perf_counter()
    compared: dict[str, dict[str, Any]] = {}
    try:
        again = _again(workspace, run, progress)
        recorded = _recorded(workspace, run)
        # A version that measures more than the one that trained compares what both did.
        again["metrics"] = {name: again["metrics"].get(name) for name in recorded["metrics"]}
        compared = _compare(recorded, again)
        row = {"frame": run.data["frame"], "rows": run.data["rows"], "trees": run.summary["trees"],
               "metrics": run.metrics, **_choice_in(run.params), **_start_in(run.params)}  # fmt: skip
        compared["row in the records"] = {
            "recorded": recorded, "replayed": row, "equal": _sorted(recorded) == _sorted(row)
        }  # fmt: skip
    except RetrodictError as error:
        verdict: Verdict = "not replayable"
        reason = _losses(workspace, run) or str(error)
    else:
        unequal = [name for name, fact in compared.items() if not fact["equal"]]
        verdict, reason = ("different", f"differs in {', '.join(unequal)}") if unequal else ("exact", "")
        if unequal and (losses := _losses(workspace, run)):
            verdict, reason = "not replayable", f"{reason}; {losses}"
    took = time.perf_counter() - began
    # Looked at only now: the run's own modules are loaded by executing it.
    now = describe_environment(project=workspace.root)
    differences = tuple(environment_differences(then, now))
    if verdict == "different" and differences:
        reason += f"; {'; '.join(differences[:_SHOWN])}"
    same = machine_kind(then) == machine_kind(now)
    replay = RunReplay(run.ref, verdict, same, compared, reason, took, differences)
    with workspace.ledger.transaction() as tx:
        tx.append("run.replay", run.ref, {"verdict": replay.verdict, "reason": replay.reason})
    return replay


def _losses(workspace: Workspace, run: Run) -> str:
    """What the table versions of a run do not hold any more, and why."""
    from retrodict.data.versions import loss_of  # loads what compares versions

    versions = run.data.get("versions", {})
    return "; ".join(filter(None, (loss_of(workspace, table, version) for table, version in versions.items())))


def definition_of(workspace: Workspace, run: Run) -> Model:
    """Model as a run trained it: its code of then, with the split and the search that it was told."""
    definition = definitions_of(workspace, run.code).get(Model, run.model)
    definition = definition.with_split(split_from_dict(run.params["split"]))
    return definition.with_tune(run.params["tune"]) if "tune" in run.params else definition


def _again(workspace: Workspace, run: Run, progress: Progress | None) -> dict[str, Any]:
    if run.status != "finished":
        raise NotFoundError("a run to replay must be finished", where=run.ref, got=run.status,
                            remedy="Train anew instead")  # fmt: skip
    definition, versions, now = definition_of(workspace, run), run.data["versions"], run.data["now"]
    begun = workspace.ledger.entries(object_id=run.ref, action="run.start")
    start = begun[0].payload["params"].get("start_from") if begun else None
    if start is not None:
        definition = definition.with_start(start_of(start))
    derived = begun[0].payload["params"].get("optimise") if begun else None
    entries = workspace.ledger.entries(object_id=run.ref, action="run.finish")
    # What was chosen is what the ledger says: the row in the records proves nothing.
    search = SearchResult((entries[0].payload if entries else {}).get("choice", run.params.get("choice", {})))
    again = execute(workspace, definition, versions, now=now, ladder=False, indexed=False, progress=progress,
                    searched=lambda *_: search, start=start, derived=derived)  # fmt: skip
    return again.facts()


def _recorded(workspace: Workspace, run: Run) -> dict[str, Any]:
    """What the ledger and the model itself say of a run: its row in the records proves nothing."""
    entries = workspace.ledger.entries(object_id=run.ref, action="run.finish")
    facts = entries[0].payload if entries else {}
    artifact = run.summary.get("artifact")
    if artifact is None or artifact not in facts.get("objects", ()):
        raise IntegrityError("the entry of a finished run must name the model that it made", where=run.ref,
                             got="another model" if entries else "no entry",
                             remedy="Run 'retrodict audit verify'")  # fmt: skip
    trees = ModelArtifact.load(workspace.objects, artifact).engine.fingerprint()
    begun = workspace.ledger.entries(object_id=run.ref, action="run.start")
    return {"frame": facts["frame"], "rows": facts["rows"], "trees": trees, "metrics": facts["test"],
            **_choice_in(facts), **_start_in(begun[0].payload["params"] if begun else {})}  # fmt: skip


def _choice_in(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a search chose, where there was one."""
    return {name: facts[name] for name in ("choice",) if name in facts}


def _start_in(params: Mapping[str, Any]) -> dict[str, Any]:
    """Fingerprint of the version that a fit went on from, where there was one."""
    return {"start": params["start_from"]["fingerprint"]} if "start_from" in params else {}


def _compare(recorded: dict[str, Any], again: dict[str, Any]) -> dict[str, dict[str, Any]]:
    # Through JSON once: the recorded side went the same way, and JSON keeps every bit of a float64.
    replayed = json.loads(json.dumps(again))
    return {
        name: {"recorded": value, "replayed": replayed[name], "equal": _sorted(value) == _sorted(replayed[name])}
        for name, value in recorded.items()
        if name in replayed
    }


def _sorted(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
