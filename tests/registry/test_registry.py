"""Model versions, approvals and what is in force, on real stores and with real processes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.ledger import verify
from retrodict.registry import (
    Deployment,
    ModelVersion,
    Revision,
    approve,
    change,
    current,
    get_version,
    history,
    in_force,
    list_versions,
    register,
    rolled_back,
    standing,
)
from retrodict.workspace import Workspace

START = parse_time("2024-03-01T08:00:00Z")
PASSED = [{"gate": "auc >= 0.7", "status": "pass", "value": 0.8}]
FAILED = [
    *PASSED,
    {"gate": "beats_ladder", "status": "fail", "reason": "no"},
    {"gate": "x > 1", "status": "not evaluable"},
]


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


@pytest.fixture
def project(make_project: Callable[..., Workspace], clock: SimulatedClock) -> Workspace:
    return make_project(actor="ann", clock=clock)


@pytest.fixture
def acting(
    make_project: Callable[..., Workspace], clock: SimulatedClock, project: Workspace
) -> Callable[[str], Workspace]:
    """The same project, opened by somebody else."""
    return lambda actor: make_project(actor=actor, clock=clock)


def make(project: Workspace, name: str = "late", run: str = "r1", gates: list[dict[str, Any]] = PASSED) -> ModelVersion:
    artifact, code = project.objects.put(f"{name} {run}".encode()), project.objects.put(b"code")
    return register(project, name, run=run, artifact=artifact, code=code, gates=gates, metrics={"auc": 0.8})


def deployment(project: Workspace, policy: str = "warn", model: str = "late@1") -> Deployment:
    artifact, code = project.objects.put(b"artifact"), project.objects.put(b"code")
    return Deployment(policy, "v" * 64, code, model, artifact, code)


def findings(project: Workspace) -> list[tuple[str, str]]:
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    return [(finding.kind, finding.where) for finding in report.findings]


# versions -----------------------------------------------------------------------------------------------------


def test_versions_count_per_model(project: Workspace) -> None:
    """From one; another model counts for itself."""
    made = [make(project, name, run).ref for name, run in [("late", "r1"), ("late", "r2"), ("early", "r3")]]
    assert made == ["late@1", "late@2", "early@1"]
    assert [version.ref for version in list_versions(project)] == ["early@1", "late@1", "late@2"]
    assert (get_version(project, "late").version, get_version(project, "model:late@1").version) == (2, 1)
    assert (get_version(project, "late@1").metrics, get_version(project, "late@1").gates) == ({"auc": 0.8}, PASSED)
    assert project.ledger.upstream("model:late@2") == [("model:late@2", "trained by", "run:r2")]


def test_a_run_makes_one_version(project: Workspace) -> None:
    """The same again is the same, with one entry; anything else of that run is refused."""
    first = make(project)
    assert make(project) == first
    assert len(project.ledger.entries(action="model.register")) == 1
    with pytest.raises(InputError, match=r"run:r1: a run must make one version; got 'model:late@1'"):
        make(project, "early")
    with pytest.raises(InputError, match="a run must make one version"):
        register(project, "late", run="r1", artifact="0" * 64, code="0" * 64, gates=[], metrics={})


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("lat", "Did you mean the model 'late'"),
        ("late@7", "Known versions: 1 to 2"),
        ("late@01", "Known versions: 1 to 2"),
        ("run:late@1", "kind 'model'"),
    ],
)
def test_a_version_that_is_not_there(ref: str, said: str, project: Workspace) -> None:
    """Names what there is."""
    make(project)
    make(project, run="r2")
    with pytest.raises(InputError, match=said):
        get_version(project, ref)


def test_a_version_is_plain_data(project: Workspace) -> None:
    """For --json."""
    found = json.loads(json.dumps(make(project).to_dict()))
    assert (found["model"], found["author"], found["gates_passed"], found["approved"]) == ("late@1", "ann", True, False)


# approvals ----------------------------------------------------------------------------------------------------


def test_somebody_else_approves(project: Workspace, acting: Callable[[str], Workspace]) -> None:
    """The author may not; the entry has approver, reason and the run as evidence."""
    make(project)
    with pytest.raises(RefusedError, match=r"somebody else than its author; got 'ann'"):
        approve(project, "late@1", reason="mine")
    assert not get_version(project, "late@1").approved
    version = approve(acting("bob"), "late@1", reason="pilot")
    assert version.approved
    (entry,) = project.ledger.entries(action="model.approve")
    assert (entry.actor, entry.payload["reason"], entry.payload["inputs"]) == ("bob", "pilot", [["run:r1", "evidence"]])


def test_blanks_around_a_name_do_not_make_somebody_else(project: Workspace, acting: Callable[[str], Workspace]) -> None:
    """Nor does an empty name."""
    make(project)
    with pytest.raises(RefusedError, match="author"):
        approve(acting(" ann "), "late@1", reason="mine")


def test_the_latest_judgement_counts(project: Workspace, acting: Callable[[str], Workspace]) -> None:
    """A refusal takes an approval back, also by the author; all of them stay readable."""
    make(project)
    approve(acting("bob"), "late@1", reason="pilot")
    assert not approve(project, "late@1", reason="found a leak", granted=False).approved
    version = approve(acting("eve"), "late@1", reason="no leak after all")
    assert [(a.approver, a.granted) for a in version.approvals] == [("bob", True), ("ann", False), ("eve", True)]
    assert [e.action for e in project.ledger.entries(object_id="model:late@1")] == [
        "model.register", "model.approve", "model.reject", "model.approve",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["Ann", "ann.", "\u0251nn", " a-n-n ", "\u00e0nn", "a\u0301nn", "\uff41nn"])
def test_nobody_who_looks_like_the_author_approves(
    project: Workspace, acting: Callable[[str], Workspace], name: str
) -> None:
    """In another case, with a sign, an accent or another letter's form: to an eye it is the author."""
    make(project)
    with pytest.raises(RefusedError, match="somebody else than its author"):
        approve(acting(name), "late@1", reason="mine")


def test_a_version_whose_gates_did_not_pass_is_not_approved(
    project: Workspace, acting: Callable[[str], Workspace]
) -> None:
    """Not evaluable is not passed; all of them are named, and refusing is still possible."""
    version = make(project, gates=FAILED)
    assert not version.gates_passed
    with pytest.raises(
        RefusedError, match=r"every gate must have passed; got {'beats_ladder': 'fail', 'x > 1': 'not evaluable'}"
    ):
        approve(acting("bob"), "late@1", reason="please")
    assert not approve(acting("bob"), "late@1", reason="gates", granted=False).approved


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_judgement_has_a_reason(reason: str, project: Workspace, acting: Callable[[str], Workspace]) -> None:
    """So has a deployment."""
    make(project)
    with pytest.raises(InputError, match="must have a reason"):
        approve(acting("bob"), "late@1", reason=reason)
    with pytest.raises(InputError, match="must have a reason"):
        change(project, deployment(project), action="deploy", reason=reason)
    assert history(project) == []


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("INSERT INTO model_approvals VALUES ('late', 1, 1, 0, 'bob', 1, 'forged')", "table model_approvals"),
        ("UPDATE model_approvals SET granted = 1", "model:late@1 (entry 3)"),
        ("DELETE FROM model_approvals", "model:late@1 (entry 3)"),
        ("UPDATE model_versions SET gates = '[]'", "model:late@1 (entry 2)"),
        ("UPDATE deployments SET content = replace(content, 'late@1', 'late@2')", "policy:warn#1 (entry 4)"),
        (
            "INSERT INTO deployments SELECT 2, policy, time, recorded, actor, action, content, reason FROM deployments",
            "table deployments",
        ),
    ],
)
def test_a_forged_row_is_found(
    statement: str, where: str, project: Workspace, acting: Callable[[str], Workspace]
) -> None:
    """The chain vouches for every version, judgement and deployment."""
    make(project)
    approve(acting("bob"), "late@1", reason="leak", granted=False)
    change(project, deployment(project), action="deploy", reason="pilot")
    assert findings(project) == []
    with closing(sqlite3.connect(project.root / "state" / "records.db")) as connection:
        connection.execute(statement)
        connection.commit()
    assert where in {place for _, place in findings(project)}


# what is in force ---------------------------------------------------------------------------------------------


def test_what_was_in_force_at_a_time(project: Workspace, clock: SimulatedClock) -> None:
    """From its instant on, up to the next one's; before the first there is nothing."""
    for model in ("late@1", "late@2"):
        change(project, deployment(project, model=model), action="deploy", reason=model)
        clock.move_to(clock.now() + 100)
    change(project, deployment(project, "other"), action="deploy", reason="another policy")
    found = {at: in_force(project, "warn", START + at).deployment.model for at in (0, 99, 100, 10**9)}
    assert found == {0: "late@1", 99: "late@1", 100: "late@2", 10**9: "late@2"}
    for policy, at in (("warn", START - 1), ("other", START + 199), ("wrn", START)):
        with pytest.raises(NotFoundError, match="deployed at that time"):
            in_force(project, policy, at)
    assert {name: revision.revision for name, revision in current(project).items()} == {"warn": 2, "other": 3}


def test_a_revision_keeps_what_decided_before_and_names_what_it_is_made_of(project: Workspace) -> None:
    """The way back is read as it was written; lineage leads from the policy to the model."""
    make(project)
    artifact, code, model_code = (project.objects.put(text) for text in (b"trees", b"policy code", b"model code"))
    before = {"policy_version": "u" * 64, "code": code, "model": "late@1", "artifact": artifact, "model_code": code}
    deployed = Deployment("warn", "v" * 64, code, "late@1", artifact, model_code, previous=before)
    change(project, deployed, action="promote", reason="better")
    assert current(project)["warn"].deployment == in_force(project, "warn", START).deployment == deployed
    assert project.ledger.upstream("policy:warn#1")[0] == ("policy:warn#1", "decides", "model:late@1")
    (entry,) = project.ledger.entries(action="policy.promote")
    assert set(entry.payload["objects"]) == {artifact, code, model_code}


def test_an_object_that_is_gone_is_found_by_what_rests_on_it(project: Workspace) -> None:
    """The artifact of a version, and the code that a policy was deployed with."""
    version = make(project)
    deployed = replace(deployment(project), code=project.objects.put(b"policy code"))
    change(project, deployed, action="deploy", reason="pilot")
    for sha in (version.artifact, deployed.code):
        (project.root / "state" / "objects" / sha[:2] / sha[2:4] / sha).unlink()
    assert findings(project) == [("removed", "model:late@1 (entry 2)"), ("removed", "policy:warn#1 (entry 3)")]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=8),
    times=st.lists(st.integers(-1, 18), max_size=5),
)
def test_in_force_is_the_last_change_by_then(
    steps: list[tuple[str, int]], times: list[int], make_project: Callable[..., Workspace], tmp_path_factory: Any
) -> None:
    """Against a list in plain Python; several at one instant: the last one counts."""
    clock, told = SimulatedClock(START), []
    with make_project(folder=tmp_path_factory.mktemp("x").name, clock=clock) as project:
        for policy, wait in steps:
            clock.move_to(clock.now() + wait)
            revision = change(project, deployment(project, policy), action="promote", reason="step")
            told.append((clock.now(), policy, revision.revision))
        assert [revision for *_, revision in told] == list(range(1, len(steps) + 1))
        assert history(project) == [r for r in history(project) if r.to_dict()["reason"] == "step"]
        for policy in "ab":
            assert [r.revision for r in history(project, policy)] == [n for _, p, n in told if p == policy]
            for at in times:
                by_then = [n for time, p, n in told if p == policy and time <= START + at]
                if by_then:
                    assert in_force(project, policy, START + at).revision == by_then[-1]
                else:
                    with pytest.raises(NotFoundError):
                        in_force(project, policy, START + at)


CHANGE = """
import sys
from retrodict.workspace import Workspace
from retrodict.registry import Deployment, change, history, register
project, me = Workspace(sys.argv[1]), sys.argv[2]
history(project)
blob = project.objects.put(b"blob")
print("ready", flush=True)
sys.stdin.readline()
for i in range(6):
    change(project, Deployment(me, "v", blob, "late@1", blob, blob), action="deploy", reason="r")
    register(project, "late", run=f"{me}-{i}", artifact=blob, code=blob, gates=[], metrics={})
"""


def test_revisions_and_versions_of_two_processes_never_collide(project: Workspace, python: Callable[..., Any]) -> None:
    """Every number once, without a gap, each with its entry."""
    children = [python(CHANGE, project.root, name) for name in ("one", "two")]
    for child in children:
        assert child.line() == "ready", child.end()
    for child in children:
        child.go()
    ends = [child.end() for child in children]
    assert [code for code, *_ in ends] == [0, 0], [said for *_, said in ends]
    assert [revision.revision for revision in history(project)] == list(range(1, 13))
    assert [version.version for version in list_versions(project, "late")] == list(range(1, 13))
    assert len(project.ledger.entries()) == 25
    assert findings(project) == []


def _revisions(*changes: tuple[str, str, int | None]) -> list[Revision]:
    """Revisions 1, 2, ... by action, model and the revision that a rollback restores."""
    return [
        Revision(number, number, "ann", action, "", Deployment("p", "", "", model, "", "", restores=restores))
        for number, (action, model, restores) in enumerate(changes, start=1)
    ]


THREE = [("deploy", "m@1", None), ("promote", "m@2", None), ("promote", "m@3", None)]


@pytest.mark.parametrize(("changes", "stands", "marked"), [
    (THREE, [1, 2, 3], {}),
    ([*THREE, ("rollback", "m@2", 2)], [1, 2], {"m@3": 4}),
    ([*THREE, ("rollback", "m@2", 2), ("rollback", "m@1", 1)], [1], {"m@3": 4, "m@2": 5}),
    # By name forward to what was rolled back from: that stands again, on what it was rolled back to.
    ([*THREE, ("rollback", "m@1", 1), ("rollback", "m@3", 3)], [1, 3], {"m@1": 5}),
    ([*THREE, ("rollback", "m@1", 1), ("deploy", "m@3", None)], [1, 5], {}),
    ([THREE[0], ("deploy", "m@1", None), ("rollback", "m@1", 1)], [1], {}),  # of the policy, not of the version
    # From before a rollback named what it restores: one step back, and never to nothing.
    ([*THREE, ("rollback", "m@2", None), ("rollback", "m@1", None)], [1], {"m@3": 4, "m@2": 5}),
    ([THREE[0], ("rollback", "m@1", None)], [1], {}),
])  # fmt: skip
def test_what_stands_is_what_no_rollback_took_back(changes, stands, marked) -> None:
    """And what was rolled back from is marked, until somebody names it."""
    revisions = _revisions(*changes)
    assert [revision.revision for revision in standing(revisions)] == stands
    assert rolled_back(revisions) == {("", model): number for model, number in marked.items()}


A, B = {"policy_version": "a", "model": "m@1"}, {"policy_version": "b", "model": "m@1"}
OTHER = {"policy_version": "b", "model": "m@2"}


@pytest.mark.parametrize(("changes", "marked"), [
    ([("deploy", A, None), ("deploy", B, None), ("rollback", A, None)], {("b", "m@1"): 3}),
    ([("deploy", A, None), ("rollout", A, B), ("rollback", A, None)], {("b", "m@1"): 3}),
    ([("deploy", A, None), ("rollout", A, B), ("abort", A, None)], {}),
    ([("deploy", A, None), ("rollout", A, B), ("rollback", A, None), ("deploy", B, None)], {}),  # by name
    ([("deploy", A, None), ("rollout", A, OTHER), ("rollback", A, None)], {("", "m@2"): 3}),  # under every policy
    ([("deploy", A, None), ("rollout", A, {**A, "code": "of a comment"}), ("rollback", A, None)], {}),
    ([("deploy", OTHER, None), ("rollout", OTHER, {**A, "back": 1}), ("rollback", OTHER, None)], {}),
])  # fmt: skip
def test_the_mark_is_on_what_was_left(changes, marked) -> None:
    """A policy that was left with the model that goes on deciding marks the pair; what decides has no mark."""
    revisions = []
    for number, (action, target, candidate) in enumerate(changes, start=1):
        deployment = Deployment("p", target["policy_version"], "", target["model"], "", "")
        back = {name: candidate[name] for name in ("back",) if name in candidate} if candidate else {}
        split = candidate and {"candidate": {**deployment.target, **candidate}, **back, "from": number - 1}
        revisions.append(Revision(number, number, "ann", action, "", replace(deployment, split=split)))
    assert rolled_back(revisions) == marked
