"""Versions that begin from others: trained, replayed and decided, told honestly, or refused with numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.learning.test_resume import killed
from tests.project.test_tasks import LATE, rows, write
from tests.serving.project import DAYS, START

from retrodict import GroupSplit, HashSplit, Project, WarmStart
from retrodict.core.clock import SimulatedClock, from_micros
from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, InputError, IntegrityError, NotFoundError, RefusedError
from retrodict.learning.frame import Frame, build_frame
from retrodict.learning.warmstart import Predecessor
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model

DECIDE = '{"call": "score > 0.5", "ok": "otherwise"}'
EARLY = 'TimeSplit(train="2024-01-01/2024-01-20", validate="6d", test="6d")'
LATER = {"train": "2024-01-01/2024-02-01", "validate": "6d", "test": "6d"}
# Estimator, parameters, and whether its continuation is repeated exactly.
ABLE = {
    "lightgbm": {"num_iterations": 30},
    "xgboost": {"num_boost_round": 30},
    "catboost": {"iterations": 30},
    "histogram_boosting": {"max_iter": 20},
    "gradient_boosting": {"n_estimators": 20},
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "logistic": {},
    "mlp": {"max_iter": 10},
    "network": {"epochs": 3},
}


def opened(root: Path, actor: str = "ana", **more: Any) -> Project:
    return Project(root, actor=actor, clock=SimulatedClock(START + DAYS * DAY), **more)


def define(root: Path, estimator: str = '"lightgbm"', more: str = "", split: str = EARLY, label: str = LATE) -> None:
    write(root, label, f"recipe=Recipe({estimator}, split={split}{more})", DECIDE)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return rows()


@pytest.fixture
def root(tmp_path: Path, table: pa.Table) -> Path:
    """A project with one version, of the first weeks."""
    define(tmp_path, more=', params={"num_iterations": 40}')
    with opened(tmp_path) as project:
        project.data.ingest("parcels", table)
        project.train("parcel")
    return tmp_path


@pytest.mark.parametrize("estimator", ABLE)
def test_a_version_that_began_from_another_decides_and_is_repeated(
    estimator: str, tmp_path: Path, table: pa.Table
) -> None:
    """From rows to replayed decisions; the source is what it was, and is named in record, lineage and report."""
    pytest.importorskip(
        {"network": "torch", **dict.fromkeys(("xgboost", "catboost"), estimator)}.get(estimator, "sklearn")
    )
    define(tmp_path, f'"{estimator}"', f", params={ABLE[estimator]}")
    with opened(tmp_path) as project:
        project.data.ingest("parcels", table)
        project.features.build()
        first = project.train("parcel")
        source = project.models.get("parcel@1")
        before = ModelArtifact.load(project.workspace.objects, source.artifact).fingerprint()
        run = project.train("parcel", start_from="parcel@1", **LATER)
        begun = run.params["start_from"]
        assert (begun["version"], begun["artifact"]) == ("parcel@1", source.artifact)
        assert begun["run"] == first.record.id
        assert ModelArtifact.load(project.workspace.objects, source.artifact).fingerprint() == before
        assert run.record.summary["fingerprint"] != before
        replay = run.replay()
        assert replay.exact, replay.reason
        assert replay.compared["start"]["recorded"] == begun["fingerprint"] == before
        body = run.record.summary["notes"]["warm_start"]
        assert set(body["seconds"]) == set(body["iterations"]) == {"warm", "cold"}
        assert [(line["rows"], line["against"]) for line in body["compared"]] == [
            ("validate", "cold"), ("validate", "source"), ("test", "cold"), ("test", "source"), ("old test", "source")
        ]  # fmt: skip
        assert "warm start from parcel@1" in str(project.runs.get(run.ref))
        assert "Warm start" in project.models.card("parcel@2").markdown()
    with opened(tmp_path, "ben") as project:
        project.models.approve("parcel@2", reason="test")
        project.deploy("promise", force="test")
        at = from_micros(START + 40 * DAY).isoformat()
        decision = project.decide("promise", depot="east", weight=70.0, express=False, sent=at, key="p01700", at=at)
        assert decision.record.fallback is None
        assert decision.replay().exact
        assert "parcel@1" in json.dumps(project.lineage("model:parcel@2").to_dict())


def test_the_report_is_of_the_same_rows(root: Path) -> None:
    """Losses and differences against plain computations on the test rows, by the three artifacts."""
    with opened(root) as project:
        run = project.train("parcel", start_from="parcel@1", **LATER)
        workspace = project.workspace
        model = workspace.definitions.get(Model, "parcel").with_split(project._split("parcel", *LATER.values()))
        frame = build_frame(workspace.tables, model, run.record.data["versions"])
        test = model.recipe.split.assign(frame, now=run.record.data["now"])["test"]
        lines = {
            (line["rows"], line["against"]): line for line in run.record.summary["notes"]["warm_start"]["compared"]
        }
        labels, columns = frame.labels[test], frame.columns(test)
        for name, ref in (("warm", "parcel@2"), ("other", "parcel@1")):
            artifact = ModelArtifact.load(workspace.objects, project.models.get(ref).artifact)
            scores = artifact.score_rows(columns).score
            loss = -np.log(np.where(labels == 1, scores, 1 - scores)).mean()
            assert lines["test", "source"][name] == pytest.approx(loss)
        assert lines["test", "source"]["n"] == len(test)
        cold = project.train("parcel", again=True, **LATER)
        loss = cold.metrics["log_loss"]
        assert lines["test", "cold"]["other"] == pytest.approx(loss)
        # What is old and held out still: the test rows of the source that are no training rows now.
        old = {p.name: p for p in run.record.points if p.split == "warm_start"}
        assert {"seconds_warm", "seconds_cold", "iterations_warm", "iterations_cold"} <= set(old)
        assert old["test_cold_auc_difference"].low < old["test_cold_auc_difference"].high
        uncompared = project.train("parcel", start_from=WarmStart("parcel@1", compare=False), **LATER)
        assert "not compared" in str(uncompared)
        assert "cold" not in uncompared.record.summary["notes"]["warm_start"]["seconds"]
        assert uncompared.record.summary["trees"] == run.record.summary["trees"]


def test_a_version_that_has_seen_what_judges_is_refused_with_counts(root: Path) -> None:
    """In time: outcomes known after the validation rows begin; also those of the version before the source."""
    with opened(root) as project:
        with pytest.raises(
            RefusedError, match=r"parcel@1: .*before the validate rows begin; got '\d+ of its \d+ train"
        ):
            project.train("parcel", start_from="parcel@1", train="2024-01-01/2024-01-10", validate="6d", test="6d")
        # The source stopped by rows up to the 26th: they may stop again, and must not judge.
        with pytest.raises(RefusedError, match="before the test rows begin"):
            project.train("parcel", start_from="parcel@1", train="2024-01-01/2024-01-20", validate="3d", test="3d")
        again = project.train("parcel", start_from="parcel@1", train="2024-01-01/2024-01-22", validate="6d", test="6d")
        assert again.status == "finished"
        project.train("parcel", start_from="parcel@1", **LATER)
        # Only rows of the first days are in the training rows of this one: but parcel@2 knows those up to February.
        only = project.train("parcel", start_from="parcel@3", train="2024-02-07/2024-02-09", validate="3d", test="3d")
        assert only.params["start_from"]["version"] == "parcel@3"
        with pytest.raises(RefusedError, match=r"parcel@4: .*must have learned before"):
            project.train("parcel", start_from="parcel@4", train="2024-01-01/2024-01-15", validate="3d", test="3d")


TIMELESS = """
from retrodict import *

loans = Table("loans", key="id")
bad = Label("bad", loans, "bad = 1")
credit = Model("credit", label=bad, features=[columns("x", "z", "place")],
    recipe=Recipe("lightgbm", SPLIT, params={"num_iterations": 20}MORE))
"""


def loans(count: int, seed: int = 1, shift: float = 0.0, first: int = 0, place: str = "abc") -> pa.Table:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=count) + shift, rng.normal(size=count)
    words = rng.choice(list(place), count)
    bad = (x + z + (words == "b") + rng.normal(size=count) > 0).astype(int)
    return pa.table({"id": np.arange(first, first + count), "x": x, "z": z, "place": words.tolist(), "bad": bad,
                     "owner": rng.integers(0, 200, count)})  # fmt: skip


def timeless(root: Path, split: str, more: str = "") -> None:
    (root / "retrodict.toml").write_text('[project]\nname = "loans"\n')
    (root / "definitions.py").write_text(TIMELESS.replace("SPLIT", split).replace("MORE", more))


def test_rows_drawn_anew_are_told_by_their_key(tmp_path: Path) -> None:
    """RandomSplit over more rows puts learned rows among those that judge; counted against a plain computation."""
    timeless(tmp_path, "RandomSplit()")
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(1_000))
        first = project.train("credit")
        same = project.train("credit", start_from="credit@1")  # the same rows on the same sides
        assert same.status == "finished"
        project.data.ingest("loans", loans(500, seed=2, first=1_000))
        workspace, model = project.workspace, project.workspace.definitions.get(Model, "credit")
        parts = {}
        before = first.record.data["versions"]["loans"]
        for version in (before, before + 1):
            frame = build_frame(workspace.tables, model, {"loans": version})
            ids = frame.column("id").to_numpy()
            parts[version] = {name: set(ids[at].tolist()) for name, at in
                              model.recipe.split.assign(frame, now=first.record.data["now"] * 2).items()}  # fmt: skip
        old, new = parts.values()
        seen = len(old["train"] & new["validate"]), len((old["train"] | old["validate"]) & new["test"])
        assert min(seen) > 50
        expected = (
            f"{seen[0]} of the {len(new['validate'])} validate rows, {seen[1]} of the {len(new['test'])} test rows"
        )
        with pytest.raises(RefusedError, match=expected):
            project.train("credit", start_from="credit@1")
        assert all(run.status == "failed" for run in project.runs.list() if run.ref not in (first.ref, same.ref))


def test_rows_split_by_hash_never_change_side(tmp_path: Path) -> None:
    """So a version may begin from one of fewer rows; a source that was split otherwise is refused."""
    timeless(tmp_path, 'HashSplit(by="id")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(1_000))
        project.train("credit")
        project.data.ingest("loans", loans(500, seed=2, first=1_000))
        assert project.train("credit", start_from="credit@1").replay().exact
    timeless(tmp_path, 'HashSplit(by="id", salt="another")')
    with (
        Project(tmp_path, actor="ana") as project,
        pytest.raises(RefusedError, match="must not have learned from rows"),
    ):
        project.train("credit", start_from="credit@1")
    # Rows of one owner are tied together: of new rows alone some have owners that the source learned from.
    timeless(tmp_path, 'HashSplit(by="owner")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(1_000, seed=3, first=5_000), replace=True)
        with pytest.raises(RefusedError, match=r"must not have learned from rows.*test rows"):
            project.train("credit", start_from="credit@1")


def replaced(rows: pa.Table, **columns: Any) -> pa.Table:
    """Rows with some columns written anew; None drops one."""
    return pa.table({**{name: rows.column(name) for name in rows.column_names if name not in columns},
                     **{name: values for name, values in columns.items() if values is not None}})  # fmt: skip


def start_again(root: Path, before: tuple[str, pa.Table], now: tuple[str, pa.Table], table: str = "loans") -> Any:
    """Train on rows, write others in their place and begin from that; of both a definition (key, split, features)."""
    for number, (change, body) in enumerate((before, now)):
        root.mkdir(exist_ok=True)
        (root / "retrodict.toml").write_text('[project]\nname = "loans"\n')
        key, split, *features = change.split(" | ")
        name = ("loans", table)[number]
        text = TIMELESS.replace('Table("loans", key="id")', f'Table("{name}", key="{key}")').replace("SPLIT", split)
        text = text.replace('"x", "z", "place"', ", ".join(features) or '"x", "z", "place"').replace("MORE", "")
        (root / "definitions.py").write_text(text)
        with Project(root, actor="ana") as project:
            project.data.ingest(name, body, replace=True)
            run = project.train("credit", start_from=WarmStart("credit@1", compare=False) if number else None)
    return run


def sides(split: HashSplit | GroupSplit, rows: pa.Table) -> dict[str, set[int]]:
    """Keys of the rows of each part, by the split alone."""
    labels = rows.column("bad").to_numpy().astype(float)
    none = np.zeros(len(labels), dtype=np.int64)
    parts = split.assign(Frame(rows, (), none, labels, none, timed=False), now=1)
    return {name: set(rows.column("id").to_numpy()[at].tolist()) for name, at in parts.items()}


@pytest.mark.parametrize("split", [HashSplit(by="owner"), GroupSplit(by="owner")])
def test_rows_whose_group_is_written_anew_are_told_by_their_key(split: HashSplit | GroupSplit, tmp_path: Path) -> None:
    """A merge of customers puts learned rows among those that judge; counted against the splits of plain rows."""
    rows = loans(1_000)
    merged = replaced(rows, owner=np.random.default_rng(4).integers(1_000, 1_200, 1_000))
    old, new = sides(split, rows), sides(split, merged)
    seen = len(old["train"] & new["validate"]), len((old["train"] | old["validate"]) & new["test"])
    expected = f"{seen[0]} of the {len(new['validate'])} validate rows, {seen[1]} of the {len(new['test'])} test rows"
    with pytest.raises(RefusedError, match=f"{expected}, by key id'"):
        start_again(tmp_path, (f"id | {split!r}", rows), (f"id | {split!r}", merged))


@pytest.mark.parametrize(("then", "now"), [("owner", "id"), ("id", "owner")])
def test_rows_of_groups_that_a_split_kept_together_are_seen(then: str, now: str, tmp_path: Path) -> None:
    """Other rows of the same customers: by the columns of the split of then as of now."""
    with pytest.raises(RefusedError, match="test rows, by equal owner'"):
        start_again(tmp_path, (f'id | HashSplit(by="{then}")', loans(800)),
                    (f'id | HashSplit(by="{now}")', loans(800, seed=2, first=800)))  # fmt: skip


ALT = replaced(loans(800), alt=np.arange(800))
HASHED, OTHER = 'id | HashSplit(by="id")', 'alt | HashSplit(by="alt")'


@pytest.mark.parametrize(
    ("now", "rows_now", "table", "way"),
    [
        (OTHER, replaced(ALT, alt=np.arange(9_000, 9_800), x=loans(800, seed=7).column("x")), "loans", "key id"),
        (OTHER, replaced(ALT, alt=np.arange(9_000, 9_800), id=None), "loans", "equal features"),
        ('id | HashSplit(by="id")', replaced(ALT, id=[f"r{n}" for n in range(800)]), "loans", "equal features"),
        (
            'id | HashSplit(by="id", salt="q")',
            replaced(ALT, id=[str(n) for n in range(799)] + ["r"]),
            "loans",
            "key id",
        ),
        ('alt | HashSplit(by="alt", salt="q")', replaced(ALT, id=None), "renamed", "equal features"),
        ('id | HashSplit(by="id", salt="q")', loans(800, seed=7), "renamed", "key id"),
    ],
    ids=["key of then", "content", "rewritten", "text", "renamed", "same keys"],
)
def test_rows_under_another_key_or_table_name_are_seen(
    now: str, rows_now: pa.Table, table: str, way: str, tmp_path: Path
) -> None:
    """By a key of then that is still there, whatever its type, or by content."""
    rows_then = ALT if table == "loans" else loans(800)
    with pytest.raises(RefusedError, match=f"test rows, by .*{way}"):
        start_again(tmp_path, (HASHED, rows_then), (now, rows_now), table)


def test_other_rows_under_another_key_or_table_name_are_begun_from(tmp_path: Path) -> None:
    """Few equal numbers of rows mean nothing between tables, and coarse features are equal by chance."""
    few = loans(800, seed=7, first=600)
    run = start_again(tmp_path, (HASHED, loans(800)), ('id | HashSplit(by="id", salt="q")', few), "renamed")
    assert any("learned from rows of 'loans'" in sentence for sentence in run.warnings)
    coarse = [
        replaced(loans(800, seed), id=ids, alt=ids, x=np.random.default_rng(seed).integers(0, 9, 800))
        for seed, ids in ((1, np.arange(800)), (2, np.arange(900, 1_700)))
    ]
    one = ' | "x", "place"'
    assert start_again(tmp_path / "coarse", (HASHED + one, coarse[0]), (OTHER + one, coarse[1])).status == "finished"


def test_rows_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    """No key of both versions, and features of a few values: it says why."""
    one = ' | "place"'
    with pytest.raises(RefusedError, match=r"features that tell them apart.*key \['id'\] then, \['alt'\] now"):
        start_again(tmp_path, (HASHED + one, loans(800)), (OTHER + one, replaced(ALT, id=None)))


def test_what_a_version_before_the_source_has_seen_counts(tmp_path: Path) -> None:
    """The source learned from other rows, but began from a version of rows that judge now."""
    timeless(tmp_path, 'HashSplit(by="id")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(600))
        project.train("credit")
    timeless(tmp_path, 'HashSplit(by="id", salt="another")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(900, seed=2, first=600), replace=True)
        project.train("credit", start_from="credit@1")
        assert project.train("credit", start_from="credit@2", again=True).status == "finished"
        project.data.ingest("loans", loans(600))
        with pytest.raises(RefusedError, match=r"credit@2: .*rows that choose or judge; got '\d+ of the \d+ validate"):
            project.train("credit", start_from="credit@2")


def test_shifted_features_are_refused_unless_told_why(tmp_path: Path) -> None:
    """With the index by feature; the reason stands in the record."""
    timeless(tmp_path, 'HashSplit(by="id")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(800))
        project.train("credit")
        project.data.ingest("loans", loans(4_000, seed=2, first=800, shift=2.0))
        with pytest.raises(RefusedError, match=r"index of stability below 0.25; got {'x': \d\.\d+}"):
            project.train("credit", start_from="credit@1")
        run = project.train("credit", start_from=WarmStart("credit@1", force="the branch moved"))
        assert run.params["start_from"]["force"] == "the branch moved"
        assert any("accepted because: the branch moved" in sentence for sentence in run.warnings)


def test_new_categories_are_told_and_codes_stay_those_of_the_source(tmp_path: Path) -> None:
    timeless(tmp_path, 'HashSplit(by="id")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(1_500, place="bcd"))
        project.train("credit")
        project.data.ingest("loans", loans(30, seed=2, first=1_500, place="a"))  # sorts before all others
        run = project.train("credit", start_from="credit@1")
        assert any("'place' has categories that credit@1 has no code for, in " in line for line in run.warnings)
        inputs = [ModelArtifact.load(project.workspace.objects, project.models.get(f"credit@{n}").artifact).inputs
                  for n in (1, 2)]  # fmt: skip
        assert inputs[0] == inputs[1]


TIMED = """
from retrodict import *

loans = Table("loans", key="id")
other = Table("other", key="id")
known = dict(known_at="at + 1h", matures="2h")
bad = Label("bad", loans, "bad = 1", **known)
recipe = Recipe("lightgbm", TimeSplit("2024-01-01/2024-01-21", validate="5d", test="5d"), params={"num_iterations": 40})
credit = Model("credit", label=bad, decide_at="at", features=[columns("x", "z")], recipe=recipe)
again = Model("again", label=bad, decide_at="at", features=[columns("x", "z")], recipe=recipe)
elsewhere = Model("elsewhere", label=Label("bad", other, "bad = 1", **known), decide_at="at",
    features=[columns("x", "z")], recipe=recipe)
"""
TURNED = {"train": "2024-02-01/2024-02-21", "validate": "5d", "test": "5d"}


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """Loans of two months, in the second of which what was bad is good."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "loans"\n')
    (tmp_path / "definitions.py").write_text(TIMED)
    count, columns = 6_000, loans(6_000).drop_columns(["bad"])
    x, noise = columns.column("x").to_numpy(), np.random.default_rng(9).normal(size=count)
    bad = (np.where(np.arange(count) < count / 2, x, -x) + noise > 0).astype(int)
    at = [from_micros(START + number * 10 * 60_000_000 * 144 * 60 // count) for number in range(count)]
    table = columns.append_column("bad", pa.array(bad)).append_column("at", pa.array(at))
    with Project(tmp_path, actor="ana", clock=SimulatedClock(START + 90 * DAY)) as project:
        project.data.ingest("loans", table)
        project.data.ingest("other", table)
        project.train("credit")
    return tmp_path


def test_what_is_forgotten_is_told(turned: Path) -> None:
    """Trained on in a world turned round, the model is worse on the old rows: on held-out ones, by an interval."""
    with Project(turned, actor="ana", clock=SimulatedClock(START + 90 * DAY)) as project:
        run = project.train("credit", start_from=WarmStart("credit@1", learning_rate_scale=3, compare=False), **TURNED)
        (line,) = [c for c in run.record.summary["notes"]["warm_start"]["compared"] if c["rows"] == "old test"]
        assert line["n"] == first_rows(project)
        assert line["verdict"] == "worse"
        assert line["high"] < -0.1
        assert any("worse than credit@1" in sentence and "it has forgotten" in sentence for sentence in run.warnings)


def first_rows(project: Project) -> int:
    return int(project.runs.get(project.models.get("credit@1").run).record.data["rows"]["test"])


def test_a_version_of_another_model_is_begun_from(turned: Path) -> None:
    """Of the same table its rows are found; of another one that is said. Time is looked at in any case."""
    with Project(turned, actor="ana", clock=SimulatedClock(START + 90 * DAY)) as project:
        run = project.train("again", start_from="credit@1", train="2024-01-01/2024-01-22", validate="5d", test="5d")
        assert run.params["start_from"]["version"] == "credit@1"
        assert run.replay().exact
        run = project.train("elsewhere", start_from="credit@1", **TURNED)
        assert any("learned from rows of 'loans'" in sentence for sentence in run.warnings)
        (line,) = [c for c in run.record.summary["notes"]["warm_start"]["compared"] if c["rows"] == "old test"]
        assert (line["verdict"], line["n"]) == ("not evaluable", 0)
        with pytest.raises(RefusedError, match="must have learned before the validate rows begin"):
            project.train("elsewhere", start_from="credit@1", train="2024-01-01/2024-01-08", validate="3d", test="3d")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (('"x", "z", "place"', '"x", "z"'), "same features, in order and kind; got .*'place'"),
        (('"x", "z", "place"', '"z", "x", "place"'), "same features, in order and kind; got 'another order'"),
        (('"bad = 1"', '"bad * 2.5"'), "same: task, classes and levels"),
        (('"num_iterations": 20', '"monotone": {"x": 1}'), "must keep what monotone says"),
        (("}MORE", '}, prepare=[Impute("median")]'), "must have the steps of the recipe"),
        (("}MORE", '}, balance=Balance("over")'), "must have the steps of the recipe, and be balanced as it"),
        (('"lightgbm", SPLIT, params={"num_iterations": 20}', '"xgboost", SPLIT'), "of the estimator 'xgboost'"),
        (("}MORE", '}, types={"z": "category"}'), "same features, in order and kind"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: tuple[str, str], match: str) -> None:
    timeless(tmp_path, 'HashSplit(by="id")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(600))
        project.train("credit")
    text = TIMELESS.replace(*change).replace("SPLIT", 'HashSplit(by="id")').replace("MORE", "")
    (tmp_path / "definitions.py").write_text(text)
    with Project(tmp_path, actor="ana") as project, pytest.raises(InputError, match=match):
        project.train("credit", start_from="credit@1")


def test_steps_are_those_of_the_source(tmp_path: Path) -> None:
    """Fitted ones are taken over; other settings, and steps that read outcomes, are refused."""
    timeless(tmp_path, 'HashSplit(by="id")', ', prepare=[Impute("median"), Scale("standard")], balance=Balance("over")')
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("loans", loans(600))
        project.train("credit")
        project.data.ingest("loans", loans(400, seed=2, first=600, shift=0.1))
        assert project.train("credit", start_from="credit@1").replay().exact
        engines = [ModelArtifact.load(project.workspace.objects, project.models.get(f"credit@{n}").artifact).engine
                   for n in (1, 2)]  # fmt: skip
        assert [step.to_dict() for step in engines[0].steps] == [step.to_dict() for step in engines[1].steps]
    timeless(tmp_path, 'HashSplit(by="id")', ', prepare=[Impute("mean"), Scale("standard")], balance=Balance("over")')
    with Project(tmp_path, actor="ana") as project, pytest.raises(InputError, match="prepared by the steps"):
        project.train("credit", start_from="credit@1")
    timeless(tmp_path, 'HashSplit(by="id")', ', prepare=[Encode("target", ["place"])]')
    with Project(tmp_path, actor="ana") as project:
        ref = project.train("credit").version.ref
        with pytest.raises(InputError, match="must not read outcomes"):
            project.train("credit", start_from=ref)


def test_a_source_that_is_gone_or_altered_is_named(root: Path) -> None:
    """By a training and by a replay; nothing is fitted."""
    with opened(root) as project:
        run = project.train("parcel", start_from="parcel@1", **LATER)
        objects, artifact = project.workspace.objects, project.models.get("parcel@1").artifact
        digest = json.loads(objects.get(artifact))["parts"]["engine/trees.txt"]
        (path,) = [path for path in root.rglob(f"*{digest[4:]}*") if path.is_file()]
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"leaf_value=", b"leaf_value=1", 1))
        replay = run.replay()
        assert (replay.verdict, "parcel@1" in replay.reason) == ("not replayable", True)
        path.unlink()
        assert "parcel@1" in run.replay().reason
        with pytest.raises(IntegrityError, match=r"parcel@1: the version that a training begins from must be stored"):
            project.train("parcel", start_from="parcel@1", again=True, **LATER)
        with pytest.raises(NotFoundError, match="version must be one of the model"):
            project.train("parcel", start_from="parcel@9")


def test_the_champion_is_the_version_in_force(root: Path) -> None:
    with opened(root) as project, pytest.raises(NotFoundError, match=r"must be in force"):
        project.train("parcel", start_from="champion", **LATER)
    with opened(root, "ben") as project:
        project.features.build()
        assert project.features.verify().ok
        project.models.approve("parcel@1", reason="test")
        project.deploy("promise", force="test")
    define(
        root, more=', params={"num_iterations": 40}, start_from=WarmStart("champion", add=7, learning_rate_scale=0.5)'
    )
    with opened(root) as project:
        project.train("parcel", start_from=WarmStart("parcel@1"), **LATER)
        run = project.train("parcel", **LATER)
        assert run.params["start_from"]["version"] == "parcel@1"
        assert (run.params["num_iterations"], run.params["learning_rate"]) == (7, 0.025)
        assert run.replay().exact
        assert run.params["started_at"] < run.params["best_iteration"] <= run.params["started_at"] + 7
        steps = [point.step for point in run.record.points if point.split == "validate/history"]
        assert min(steps) == run.params["started_at"] + 1


def test_a_killed_training_goes_on_from_source_and_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(root, more=', checkpoint=5, params={"num_iterations": 30, "early_stopping_round": 0}')
    with opened(root) as project:
        project.train("parcel", again=True)
    later = LATER["train"], LATER["validate"], LATER["test"]
    split = f'TimeSplit(train="{later[0]}", validate="{later[1]}", test="{later[2]}")'
    more = ', checkpoint=5, params={"num_iterations": 30, "early_stopping_round": 0}, start_from="parcel@1"'
    define(root, more=more, split=split)
    with opened(root) as project:
        whole = project.train("parcel")
        run = killed(project, monkeypatch)
        resumed = project.train("parcel", resume=run.ref)
        assert resumed.record.summary["trees"] == whole.record.summary["trees"]
        assert resumed.replay().exact


def test_nothing_is_fitted_before_a_refusal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks come before any fit, and a replay repeats none of them."""
    with opened(root) as project:
        run = project.train("parcel", start_from="parcel@1", **LATER)
        monkeypatch.setattr("retrodict.learning.execution.run_recipe", lambda *_, **__: pytest.fail("it was fitted"))
        with pytest.raises(RefusedError):
            project.train("parcel", start_from="parcel@1", train="2024-01-01/2024-01-10", validate="6d", test="6d")
        monkeypatch.undo()
        monkeypatch.setattr(Predecessor, "check", lambda *_: pytest.fail("it was checked"))
        assert run.replay().exact
        with pytest.raises(DefinitionError, match="search nothing"):
            project.workspace.definitions.get(Model, "parcel").with_start("parcel@1").with_tune({"trials": 2})
