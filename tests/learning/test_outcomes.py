"""Labels made of outcomes: aggregates of what came after the decision, from training to monitoring."""

import random

import pyarrow as pa
import pytest

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import DefinitionError, InputError
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.features.catalogue.tables import newest_versions
from retrodict.learning import get_run, measure_leakage, replay_run, train
from retrodict.learning.frame import build_frame, tables_of
from retrodict.models.definitions import Model
from retrodict.outcomes.status import outcomes
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import *
from retrodict.features.labels import Outcome

asked = Table("asked", key="id")
visits = Table("visits", key="visit")
customer = Entity("customer")
visited = Source("visited", visits, event_time="at", known_at="seen", sequence="visit")
habits = FeatureView("habits", customer, visited, [agg.count(over=["3d", "10d"]), agg.mean("spent", over="10d")])
good = agg.sum("spent", over="3d", name="spent")
returns = Outcome("returns", customer, visited, good, wait="1d", table=asked, expression="spent > 20")


@derived
def moment(channel: str):
    return {"channel": channel}


comes_back = Model("comes_back", label=returns, decide_at="asked_at - 1h", features=[habits, moment],
    recipe=Recipe("logistic", TimeSplit("2024-01-10/2024-02-20", validate="10d", test="10d"), calibrate="sigmoid"))
offer = Policy("offer", comes_back, decide={"offer": "score < 0.5", "none": "otherwise"}, fallback=["none"])
"""
START, NOW = parse_time("2024-01-01T00:00Z"), parse_time("2024-03-09T00:00Z")
TIME = pa.timestamp("us", "UTC")


def visit_rows(seed=7):
    """Visits on whole hours, so that edges are hit, some of them known days late, some without an amount."""
    rng = random.Random(seed)
    rows = []
    for number in range(900):
        at = START + rng.randrange(70 * 24) * HOUR
        rows.append({"visit": number, "customer": f"c{int(rng.paretovariate(1)) % 25}", "at": at,
                     "seen": at + rng.choice([0, 0, 1, 30, 60]) * HOUR,
                     "spent": None if rng.random() < 0.1 else rng.choice([5.0, 10.0, 30.0])})  # fmt: skip
    return rows


def asked_rows(seed=8):
    """Questions on whole hours, one of them decided exactly four days before now; of unknown customers and of none."""
    rng = random.Random(seed)
    times = [START + rng.randrange(70 * 24) * HOUR for _ in range(700)]
    times[0] = NOW - 4 * DAY + HOUR
    customers = [*(f"c{n}" for n in range(20)), "stranger", None]
    return [
        {"id": f"q{n}", "customer": rng.choice(customers), "asked_at": at, "channel": rng.choice(["shop", "web"])}
        for n, at in enumerate(times)
    ]


def table_of(rows, times):
    return pa.table({name: pa.array([r[name] for r in rows], TIME if name in times else None) for name in rows[0]})


def expected(question, visits):
    """Yes, no or nothing, by a loop over all visits."""
    begin = question["asked_at"] - HOUR
    spent = [
        each["spent"]
        for each in visits
        if each["customer"] == question["customer"] is not None
        and begin <= each["at"] < begin + 3 * DAY
        and each["seen"] < begin + 4 * DAY
        and each["spent"] is not None
    ]
    return (sum(spent) > 20) if spent else None


@pytest.fixture
def project(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(NOW)) as opened:
        opened.tables.write("visits", table_of(visit_rows(), {"at", "seen"}))
        opened.tables.write("asked", table_of(asked_rows(), {"asked_at"}))
        yield opened


def model_of(project):
    return project.definitions.get(Model, "comes_back")


def changed(project, old, new):
    """Open the project again with other definitions."""
    text = DEFINITIONS.replace(old, new)
    assert text != DEFINITIONS
    (project.root / "definitions.py").write_text(text)
    return Workspace(project.root, actor="ana", clock=SimulatedClock(NOW))


def frame_of(project):
    model = model_of(project)
    return build_frame(project.tables, model, newest_versions(project.tables, tables_of(model), where="model"))


def test_labels_are_those_of_a_loop_over_all_facts(project):
    """Both edges, both clocks, the wait, nulls and unknown keys, row by row; known when the wait is over."""
    frame, visits = frame_of(project), visit_rows()
    found = [None if label != label else label == 1 for label in frame.labels.tolist()]
    wanted = [expected(question, visits) for question in asked_rows()]
    assert found == wanted
    assert {True, False, None} == set(wanted)
    assert frame.known_at.tolist() == [each["asked_at"] - HOUR + 4 * DAY for each in asked_rows()]


def test_rows_that_have_not_matured_are_left_out_and_counted(project):
    """Rows of the test span whose outcome is not known now are pending, those without one void; together it is all."""
    run, _ = train(project, "comes_back")
    begins = [each["asked_at"] - HOUR for each in asked_rows()]
    inside = [parse_time("2024-01-10T00:00Z") <= begin < parse_time("2024-03-11T00:00Z") for begin in begins]
    pending = sum(known and begin + 4 * DAY >= NOW for begin, known in zip(begins, inside, strict=True))
    left_out = get_run(project, run.ref).data["left_out"]
    assert left_out["pending"] == pending > 0
    assert sum(run.data["rows"].values()) + sum(left_out.values()) == sum(inside)


def test_a_run_on_outcomes_names_both_tables_and_replays_exactly(project):
    """The facts behind the label are training data, and are read again from their version."""
    run, _ = train(project, "comes_back")
    edges = {source for _, role, source in project.ledger.upstream(run.ref) if role == "training data"}
    assert edges == {"dataset:asked@0", "dataset:visits@0"}
    project.tables.write("visits", table_of(visit_rows(seed=99)[:100], {"at", "seen"}))
    (project.root / "definitions.py").write_text("# gone\n")
    assert replay_run(Workspace(project.root, actor="zoe"), run.ref).exact


def test_leakage_leaves_the_outcome_as_it_is(project):
    """The naive join changes features; what happened afterwards is no feature."""
    run, _ = train(project, "comes_back")
    report = measure_leakage(project, model_of(project), run)
    assert report.auc_point_in_time == run.metrics["auc"]
    assert 0 < report.differing_values < report.values
    versions = run.data["versions"]
    naive = build_frame(project.tables, model_of(project), versions, ignore_known_at=True)
    assert repr(naive.labels) == repr(frame_of(project).labels)


def decided(question, number):
    return DecisionRecord(
        id=f"{number:026d}", time=question["asked_at"] - HOUR, policy="offer", revision=1, policy_version="0" * 64,
        code="0" * 64, model="comes_back@1", artifact="0" * 64, model_code="0" * 64, entities={}, context={},
        features={}, decision="offer", raw=0.25, score=0.25, key=question["id"],
    )  # fmt: skip


def test_decisions_are_judged_once_their_outcome_has_matured(project):
    """At any time a decision is known, pending or void as a loop over all facts says, with nothing from the future."""
    questions = [*asked_rows()[:200], {"id": "nobody", "asked_at": START}]
    with LogWriter(project) as writer:
        writer.append([encode_record(decided(question, n)) for n, question in enumerate(questions)])
    labels = {each["id"]: expected(each, visit_rows()) for each in asked_rows()}
    for now in (START + 20 * DAY, NOW - HOUR // 2, NOW, NOW + 90 * DAY):
        found = outcomes(project, "offer", now=now)
        for key, time, status, label in zip(
            *(found.column(name).tolist() for name in ("key", "time")), found.status, found.label, strict=True
        ):
            matured, truth = time + 4 * DAY < now, labels.get(key)
            assert status == ("pending" if not matured else "void" if truth is None else "known")
            assert (label == label) == (status == "known")
            assert status != "known" or bool(label) == truth
    assert found.inputs == (("dataset:asked@0", "labels"), ("dataset:visits@0", "labels"))


def test_nothing_is_known_without_facts(project):
    """Before the first row of the outcome's table nobody has stayed away: decisions are pending, then void."""
    later = changed(project, '"visits", key', '"calls", key')
    with LogWriter(later) as writer:
        writer.append([encode_record(decided(asked_rows()[0], 0))])
    assert outcomes(later, "offer", now=NOW + 90 * DAY).status.tolist() == ["void"]
    with pytest.raises(InputError, match=r"'calls'.*retrodict ingest calls"):
        train(later, "comes_back")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('agg.sum("spent"', 'agg.sum("spend"', "outcome 'returns', feature 'spent': .*'visits'.*'spend'.*'spent'"),
        (
            'agg.sum("spent"',
            'agg.sum("customer"',
            "outcome 'returns', feature 'spent'.*sum must take numbers; got 'string'",
        ),
        ('known_at="seen"', 'known_at="saw"', "source 'visited', known at: .*got 'saw'"),
        ('"asked_at - 1h"', '"aksed_at - 1h"', "decide_at: .*'asked' has; got 'aksed_at'.*'asked_at'"),
        ('"asked_at - 1h"', '"channel"', r"decide_at \(table 'asked'\): decide_at must be a time.*'string'"),
        ('customer = Entity("customer")', 'customer = Entity("visit")', "outcome 'returns': .*'asked'; got 'visit'"),
    ],
    ids=["unknown column", "text", "unknown clock", "unknown decide_at", "decide_at of text", "no key in the spine"],
)
def test_what_does_not_fit_is_named_before_anything_is_computed(project, old, new, said):
    """The error names label, feature and column, and how to mend it."""
    if "Entity" in old:
        new += '\nhabits_of = Entity("customer")'
        (project.root / "definitions.py").write_text(DEFINITIONS)
        text = DEFINITIONS.replace(old, new).replace('"habits", customer', '"habits", habits_of')
        (project.root / "definitions.py").write_text(text)
        opened = Workspace(project.root, actor="ana", clock=SimulatedClock(NOW))
    else:
        opened = changed(project, old, new)
    with pytest.raises(DefinitionError, match=said):
        train(opened, "comes_back")


def test_a_feature_that_reads_the_row_of_the_outcome_is_refused(project):
    """Where decisions and facts are one table, a request column that the outcome is made of is a leak."""
    text = DEFINITIONS.replace("table=asked", "table=visits").replace("asked_at - 1h", "at")
    text = text.replace("channel: str", "spent: float").replace('"channel": channel', '"spent": spent')
    (project.root / "definitions.py").write_text(text)
    with pytest.raises(
        DefinitionError, match=r"label 'returns': a feature must not read what the label is made of.*'spent'"
    ):
        train(Workspace(project.root, actor="ana", clock=SimulatedClock(NOW)), "comes_back")
    (project.root / "definitions.py").write_text(
        text.replace("spent: float", "at").replace('"spent": spent', '"h": at.hour')
    )
    with Workspace(project.root, actor="ana", clock=SimulatedClock(NOW)) as opened:
        assert train(opened, "comes_back")[0].status == "finished", "the moment of the decision is no leak"


def test_the_hash_of_a_model_follows_what_its_outcome_says(project):
    """Another horizon, wait or condition is another model; a check or a description is not."""
    before = model_of(project).version
    for old, new in (
        ('wait="1d"', 'wait="2d"'),
        ('over="3d", name', 'over="4d", name'),
        ("spent > 20", "spent > 21"),
        ("table=asked", "table=visits"),
    ):
        assert model_of(changed(project, old, new)).version != before, new
    for old, new in (("table=asked", 'table=asked, description="x"'), ("spent > 20", "spent  >  20")):
        assert model_of(changed(project, old, new)).version == before, new
