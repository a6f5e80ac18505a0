"""Everything the product does is a method of one object: what each gives, against the rooms and what is stored."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import types
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest

from retrodict import Project
from retrodict.core.clock import format_time, from_micros, parse_time
from retrodict.core.display import text_of
from retrodict.core.durations import HOUR
from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.data.versions.refs import tags
from retrodict.decisions import find_decision
from retrodict.registry import current, get_version
from retrodict.registry.deployments import deployments
from retrodict.registry.versions import approvals, versions

SENT = "2024-02-20T10:00Z"
PARCEL = {"depot": "north", "weight": 12.5, "express": False, "sent": SENT}


def decide(p: Project, **more):
    return p.decide("promise", at=SENT, **{**PARCEL, **more})


@pytest.mark.parametrize(
    ("matures", "warned"), [("10d", []), ("10d 1us", ["validation"]), ("40d", ["training", "validation"])]
)
def test_the_plan_tells_outcomes_that_mature_after_their_part(p, matures, warned):
    """Nothing may be known before the next part begins: told by part, and only where the part is too short."""
    path = p.folder / "definitions.py"
    path.write_text(path.read_text().replace('matures="10d"', f'matures="{matures}"'))
    with Project(p.folder) as changed:
        plan = changed.plan()
        (model,) = plan.models
        lines = [line for line in model.warnings if line.startswith("outcomes mature")]
        assert [part for part in ("training", "validation") if any(f", and {part} lasts" in x for x in lines)] == warned
        assert (str(plan).count("Warning: late_parcel@1: outcomes mature") == len(lines) == len(warned)) is True


def test_a_decision_is_durable_and_leads_back(p: Project) -> None:
    """The answer is in the log when it returns; its lineage names the rows, and it replays exactly."""
    d = decide(p, explain=True, key="p1")
    logged = find_decision(p.workspace, d.ref).record
    assert (d.decision, d.score, d.reasons, logged.key) == (logged.decision, logged.score, logged.reasons, "p1")
    assert d.score == pytest.approx(logged.score)
    assert d.lineage().facts["model"]["model"] == "model:late_parcel@1"
    assert d.replay().ok
    assert p.decisions.get(d.ref).to_dict() == d.to_dict()
    shown = p.decisions.show(d.ref)
    assert {key: value for key, value in shown.to_dict().items() if key != "record"} == d.to_dict()
    assert shown.to_dict()["record"]["features"] == dict(d.features)
    lines = [line.split() for line in str(shown).splitlines()]
    assert all(
        any(line[:1] == [name] for line in lines) for name in [*d.features, *d.record.entities, *d.record.context]
    )
    assert p.decisions.table("promise").column("id").to_pylist() == [logged.id]


def test_a_moment_that_a_caller_gave_is_told_from_that_of_the_clock(p: Project) -> None:
    """The decision is of its moment, and counts by it; when it was made stands in its id."""
    past = decide(p)
    assert format_time(past.record.time).startswith("2024-02-20")
    assert abs(past.record.made - p.workspace.clock.now()) < HOUR
    shown = p.decisions.show(past.ref)
    assert shown.to_dict()["record"]["made"] == format_time(past.record.made)
    assert "made at" in str(shown)
    present = p.decide("promise", depot="north", weight=12.5, express=False, sent=SENT)
    assert 0 <= present.record.made // 1000 - present.record.time // 1000 < 60_000
    assert "made at" not in str(p.decisions.show(present.ref))


def test_deciding_works_inside_a_running_event_loop(p: Project) -> None:
    """As in a notebook, whose cells run inside one."""

    async def cell():
        return decide(p)

    assert asyncio.run(cell()).decision in ("ok", "warn")


def test_a_heavy_parcel_is_decided_by_its_rule(p: Project) -> None:
    """The path is the one that HTTP takes: rules first, in words."""
    d = decide(p, weight=95)
    assert (d.decision, d.reasons) == ("warn", ["Over 90 kg"])
    assert "because  Over 90 kg" in str(d)


def test_a_missing_value_is_named(p: Project) -> None:
    """What the model reads must be there, or null."""
    with pytest.raises(InputError, match="'weight'"):
        p.decide("promise", depot="north", express=False, sent=SENT)


def test_an_unknown_policy_has_near_names(p: Project) -> None:
    """A typo is told."""
    with pytest.raises(NotFoundError, match="'promise'"):
        p.decide("promis", **PARCEL)


def test_a_library_that_was_loaded_meanwhile_does_not_make_it_another_training(p: Project) -> None:
    """Of one that the recipe does not use: libraries import all others, to look at them."""
    first = p.train("late_parcel", again=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", types.ModuleType("torch"))
        second = p.train("late_parcel")
    assert (second.ref, second.reused) == (first.ref, True)


def test_a_training_has_metrics_pictures_and_a_version(p: Project) -> None:
    """What train returns is what the store has of the run."""
    run = p.train("late_parcel", again=True)
    stored = p.runs.get(run.ref)
    assert run.version is not None
    assert run.version.ref == "late_parcel@2"
    assert run.metrics["auc"] == stored.metrics["auc"] == get_version(p.workspace, "late_parcel@2").metrics["auc"]
    assert str(run.plot("calibration")).startswith("<")
    assert "<svg" in run.plot("calibration")._repr_svg_()
    with pytest.raises(NotFoundError, match="'calibration'"):
        run.plot("calibratoin")
    assert run.replay().ok
    assert p.runs.list(model="late_parcel")[0].ref == run.ref


def test_files_go_into_folders_that_are_made(p: Project, tmp_path: Path) -> None:
    """A picture and an environment are written wherever they are asked for; another format is told by name."""
    run, folder = p.runs.list()[0], tmp_path / "not" / "there"
    run.plot("calibration").save(folder / "curve.svg")
    written = p.runs.environment(run.ref, output=folder / "again" / "requirements.txt")
    assert (folder / "curve.svg").read_text() == str(run.plot("calibration"))
    assert (folder / "again" / "requirements.txt").read_text() == written.text
    with pytest.raises(NotFoundError, match=r"known format; got 'pip'"):
        p.runs.environment(run.ref, format="pip")  # type: ignore[arg-type]


def test_runs_are_compared(p: Project) -> None:
    """Side by side: metrics, and everything in which they differ."""
    first = p.runs.list()[0]
    second = p.train("late_parcel", train="2024-01-03/2024-02-01")
    comparison = second.compare(first)
    assert comparison.runs == [second.ref, first.ref]
    assert comparison.metrics["auc"] == [second.metrics["auc"], first.metrics["auc"]]
    assert any("split" in name for name in comparison.differs)
    assert p.runs.compare(second.ref, first.ref).to_dict() == comparison.to_dict()
    shown = text_of(comparison.blocks(), width=80)
    assert re.search(r"test metric +\[1\] +\[2\]\n", shown), "both stand beside each other in a terminal"
    assert all(run in shown for run in comparison.runs)


def test_nobody_approves_their_own(p: Project) -> None:
    """Approving and rejecting are judgements of somebody else, on record."""
    run = p.train("late_parcel", again=True)
    with pytest.raises(RefusedError):
        p.models.approve(run.version.ref, reason="mine")
    with Project(p.folder, actor="ben") as other:
        assert other.models.approve(run.version.ref, reason="pilot").approved
        assert not other.models.reject(run.version.ref, reason="no").approved
    assert p.models.get(run.version.ref).approvals[-1].reason == "no"
    assert [version.ref for version in p.models.list("late_parcel")] == ["late_parcel@1", "late_parcel@2"]


def test_what_decides_changes_and_goes_back(p: Project) -> None:
    """Promote and rollback are revisions; what was in force at a time can be asked."""
    run = p.train("late_parcel", again=True)
    Project(p.folder, actor="ben").models.approve(run.version.ref, reason="pilot")
    before = p.workspace.clock.now()
    assert p.promote("promise", "late_parcel@2", reason="better").deployment.model == "late_parcel@2"
    assert decide(p).to_dict()["model"] == "late_parcel@2"
    assert p.rollback("promise", reason="worse").deployment.model == "late_parcel@1"
    assert decide(p).to_dict()["model"] == "late_parcel@1"
    assert p.deploy("promise", model="late_parcel@2", reason="again").action == "deploy"
    assert [r.deployment.model for r in p.policies.deployments("promise", at=before)] == ["late_parcel@1"]
    assert [r.action for r in p.policies.deployments()] == ["deploy", "promote", "rollback", "deploy"]
    assert current(p.workspace)["promise"].deployment.model == "late_parcel@2"


def test_outcomes_come_from_a_frame(p: Project) -> None:
    """Outcomes of decisions by their ids, from pandas; counted as of a time."""
    d = decide(p)
    known = pd.Timestamp(from_micros(parse_time("2024-03-01T00:00Z")))
    p.outcomes.ingest("promise", pd.DataFrame({"decision_id": [d.record.id], "label": [1], "known_at": [known]}))
    counts = p.outcomes.show("promise", now="2024-03-02T00:00Z").to_dict()
    assert (counts["decisions"], counts["known"], counts["newest"][0]["label"]) == (1, 1, True)
    assert p.outcomes.show("promise", now="2024-02-28T00:00Z").to_dict()["known"] == 0


def test_the_monitor_reports_and_writes_a_page(p: Project, tmp_path) -> None:
    """The only monitor needs no name; the page is written beside."""
    decide(p)
    report = p.monitor(now="2024-04-01T00:00Z", html=tmp_path / "report.html")
    assert report.counts["decisions"] == 1
    assert report.to_dict()["report"].split(":")[1] in (tmp_path / "report.html").read_text()
    with pytest.raises(NotFoundError, match="'promise'"):
        p.monitor("promis")


def test_a_challenger_is_compared_on_the_log(p: Project) -> None:
    """One decision without outcome: inconclusive, never a number."""
    p.train("late_parcel", again=True)
    decide(p)
    comparison = p.compare("promise", "late_parcel@2")
    assert (comparison.verdict, comparison.decisions) == ("inconclusive", 1)


def test_the_ledger_is_verified_sealed_and_proves(p: Project) -> None:
    """A decision of this process is proved once its stream is closed, and so sealed; an altered byte is found."""
    d = decide(p)
    assert p.ledger.seal().to_dict()["held"]
    p.close()
    assert p.ledger.seal().to_dict() == {"sealed": [], "held": []}
    assert p.ledger.proof(d.ref).ok
    assert p.audit().ok
    assert p.ledger.log(object="model:late_parcel@1")[0].actor == "ana"
    assert len(p.ledger.log(limit=0)) == len(p.data.history("parcels", limit=0)) == 0
    objects = sorted((p.folder / "state" / "objects").rglob("*"))
    victim = next(path for path in reversed(objects) if path.is_file())
    victim.chmod(0o644)
    victim.write_bytes(b"?" + victim.read_bytes()[1:])
    assert not p.audit().ok


def test_lineage_of_anything(p: Project) -> None:
    """A model leads to its rows, and an unknown object has near names."""
    sources = {source for _, _, source in p.lineage("model:late_parcel").made_from}
    assert "dataset:parcels@0" in sources
    with pytest.raises(NotFoundError, match="parcels"):
        p.lineage("dataset:parcel@0")


def test_the_plan_says_what_differs(p: Project) -> None:
    """As deployed: nothing to do; after a change of the policy: deploy."""
    assert p.plan().next() == []
    module = p.folder / "definitions.py"
    module.write_text(module.read_text().replace("score >= 0.5", "score >= 0.6"))
    with Project(p.folder) as again:
        assert again.plan().next() == ["retrodict deploy promise    # changed"]


def test_results_show_themselves(p: Project) -> None:
    """print gives text that fits, a notebook gets HTML with everything escaped, to_dict is JSON."""
    results = [p.plan(), p.runs.list(), p.runs.list()[0], p.models.list(), p.models.get("late_parcel@1"),
               p.policies.deployments(), p.ledger.log(), decide(p), p.lineage("model:late_parcel@1")]  # fmt: skip
    for result in results:
        assert str(result)
        assert result._repr_html_().startswith("<div>")
        json.dumps(result.to_dict(), default=str)
    assert {"train", "runs", "decide", "plan"} <= set(dir(p))
    assert repr(p).startswith("Project('parcels'")


def test_an_open_project_costs_no_engine(original) -> None:
    """Opening and planning load neither LightGBM nor scikit-learn, DuckDB, pandas or matplotlib."""
    script = (
        "import sys; from retrodict import Project; Project(sys.argv[1]).plan().to_dict(); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} "
        "& {'lightgbm', 'sklearn', 'duckdb', 'pandas', 'polars', 'matplotlib', 'scipy', 'uvicorn'}))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(original)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_plan_names_what_decides_undefined(p: Project) -> None:
    """A policy that is in force and no longer defined is no harmony."""
    module = p.folder / "definitions.py"
    module.write_text(module.read_text().partition("promise = Policy")[0])
    with Project(p.folder) as again:
        assert again.plan().undefined == ("promise",)
        assert "In force, and not defined any more: promise." in str(again.plan())


def test_a_gate_that_failed_is_a_next_step(p: Project) -> None:
    """A version that may not be approved means another training."""
    module = p.folder / "definitions.py"
    module.write_text(module.read_text().replace("auc >= 0.5", "auc >= 0.999"))
    with Project(p.folder, actor="ana") as again:
        again.train("late_parcel")
        assert (
            again.plan().next()[0].startswith("retrodict train late_parcel    # a gate of late_parcel@2 did not pass")
        )


def test_an_edited_view_asks_for_a_training(p: Project) -> None:
    """Verifying the view as it is now would not help a model that was trained with another."""
    run = p.train("late_parcel", again=True)
    Project(p.folder, actor="ben").models.approve(run.version.ref, reason="pilot")
    module = p.folder / "definitions.py"
    module.write_text(module.read_text().replace('over=["24h", "7d"]', 'over=["24h", "3d"]'))
    with Project(p.folder, actor="ana") as again:
        again.train("late_parcel")
        Project(p.folder, actor="ben").models.approve("late_parcel@3", reason="pilot")
        module.write_text(module.read_text().replace('over=["24h", "3d"]', 'over=["24h", "5d"]'))
    with Project(p.folder, actor="ana") as edited, pytest.raises(RefusedError) as caught:
        edited.deploy("promise", model="late_parcel@3")
    assert caught.value.remedy.startswith("Edited since: depot_delays. Run: retrodict train late_parcel")


@pytest.mark.parametrize("at", [True, 1.5, 2**63, -(10**18), [1], "2024-02-20T10:00"])
def test_a_time_that_is_none_is_refused_before_anything_is_written(p: Project, at: object) -> None:
    """A record that nobody could read again must not come into the log."""
    with pytest.raises(InputError):
        p.decide("promise", **{**PARCEL, "at": at})
    assert p.decisions.table("promise").num_rows == 0


@pytest.mark.parametrize("value", [b"north", Decimal("1.5"), timedelta(hours=1), ["north"]])
def test_values_that_are_no_scalars_are_refused(p: Project, value: object) -> None:
    """Nothing is converted silently: bytes would decide about another subject."""
    with pytest.raises(InputError, match="a value must be text, a number, a bool, a time or None"):
        decide(p, depot=value)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_are_refused(p: Project, value: float) -> None:
    """On both sides."""
    with pytest.raises(InputError, match="finite"):
        decide(p, weight=value)


def test_closing_while_others_decide_lets_the_model_decide(p: Project) -> None:
    """A decision comes before or after a close, never from stores that were closed under it."""
    answers: list[str | None] = []

    def work() -> None:
        answers.extend(decide(p).record.fallback for _ in range(25))

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        p.close()
    for thread in threads:
        thread.join()
    assert answers == [None] * 50
    p.close()
    assert p.decisions.table("promise").num_rows == 50
    assert len(p.workspace.streams.names("decisions/")) == 1


def test_nobody_forges_a_line_of_the_ledger(p: Project) -> None:
    """Control characters and line ends of names and reasons are written out, however they came in."""
    run = p.train("late_parcel", again=True)
    with Project(p.folder, actor="ben") as other:
        other.workspace.actor = "ben\x1b[2J\n99 forged\u202e"
        other.models.approve(run.version.ref, reason="\x1b]0;title\x07")
    for text in (str(p.ledger.log()), str(p.models.get(run.version.ref)), p.ledger.log()._repr_html_()):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "ben\\x1b[2J\\n99 forged\\u202e" in p.ledger.log()._repr_html_()


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.train(["late_parcel"]), lambda p: p.deploy(5), lambda p: p.lineage(None), lambda p: p.replay([1]),
        lambda p: p.decisions.get(5), lambda p: p.models.get(None), lambda p: p.ledger.proof(5), lambda p: p.monitor(5),
        lambda p: p.models.approve("late_parcel@1", reason=None), lambda p: p.deploy("promise", reason=5),
        lambda p: Project(None), lambda p: Project(p.folder, actor=5),
    ],
)  # fmt: skip
def test_what_is_no_text_is_told(p: Project, call) -> None:
    """A wrong type is an error of ours that names it, not one of Python's."""
    with pytest.raises(InputError, match=r"must be text; got '(int|list|NoneType)'"):
        call(p)


@pytest.mark.parametrize("table", [deployments, approvals, versions, tags], ids=lambda table: table.name)
def test_a_first_row_that_no_entry_vouches_for(tmp_path, table):
    """Inserted by hand into a table that no entry names yet: the audit looks into every such table."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "fresh"\n')
    (tmp_path / "definitions.py").write_text("")
    with Project(tmp_path) as p:
        p.workspace.records.ensure(table.metadata)
        assert p.audit().ok
        row = {column.name: 1 if column.type.python_type is int else "x" for column in table.columns}
        with p.workspace.records.write() as connection:
            connection.execute(table.insert().values(**row))
        assert [(finding.kind, finding.where) for finding in p.audit().findings] == [("altered", f"table {table.name}")]


def test_a_second_identical_training_is_the_first(p: Project) -> None:
    """Nothing is fitted twice for nothing; new rows, another definition or ``again`` train anew."""
    run = p.train("late_parcel", again=True)
    same = p.train("late_parcel")
    assert (same.ref, same.version.ref) == (run.ref, run.version.ref)
    assert len(p.models.list("late_parcel")) == 2
    assert p.train("late_parcel", again=True).version.ref == "late_parcel@3"
    module = p.folder / "definitions.py"
    module.write_text(module.read_text().replace("auc >= 0.5", "auc >= 0.51"))
    with Project(p.folder, actor="ana") as other:
        assert other.train("late_parcel").version.ref == "late_parcel@4"
