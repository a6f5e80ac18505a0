"""``features list, show, plan, status, verify, parity`` and the gate of ``deploy``, as they are typed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.cli import features_project as shop

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A filled and a deployed project, made once."""
    filled = shop.fill(tmp_path_factory.mktemp("shop") / "filled")
    deployed = filled.with_name("deployed")
    shutil.copytree(filled, deployed)
    return {"filled": filled, "deployed": shop.deploy(deployed)}


@pytest.fixture
def filled(originals: dict[str, Path], tmp_path: Path) -> Path:
    """Rows are there, nothing is verified or trained."""
    return Path(shutil.copytree(originals["filled"], tmp_path / "shop"))


@pytest.fixture
def deployed(originals: dict[str, Path], tmp_path: Path) -> Path:
    """A policy is in force."""
    return Path(shutil.copytree(originals["deployed"], tmp_path / "shop"))


def edit(root: Path, old: str, new: str) -> None:
    """Change the definitions."""
    text = (root / "definitions.py").read_text()
    assert old in text
    (root / "definitions.py").write_text(text.replace(old, new))


def decide(servant: Any) -> Any:
    """Record of a decision about customer 007 on the 23rd of April."""
    from retrodict.decisions.requests import DecisionRequest

    request = DecisionRequest(entities={"customer": "007", "shop": "N"}, context={"amount": 10.0})
    at = shop.parse_time("2024-04-23T00:00Z")
    return servant.decide(request, decision_id="a" * 26, at=at, arrived_ns=time.perf_counter_ns())


def names(run: Run, root: Path, *options: str) -> list[str]:
    return [each["name"] for each in run("features", "list", *options, "--project", root, "--json").json["features"]]


def test_list_finds_by_words_owner_and_tag(run: Run, filled: Path) -> None:
    """Every word has to occur, wherever; owner and tag are whole."""
    assert names(run, filled) == ["shops", "spending", "basket"]
    assert names(run, filled, "--search", "SPENDS customer") == ["spending"]
    assert names(run, filled, "--search", "orders SHARE") == ["shops"]
    assert names(run, filled, "--owner", "ops") == ["shops"]
    assert names(run, filled, "--tag", "money", "--owner", "ops") == []
    assert "Nothing fits" in run("features", "list", "--tag", "nothing", "--project", filled).out


def test_show_traces_a_feature_to_its_columns(run: Run, filled: Path) -> None:
    """Key, both clocks, sequence, and what the condition reads."""
    shown = run("features", "show", "spending.count_where_amount_gt_50_30d", "--project", filled, "--json").json
    assert shown["features"][0] | {"column": ""} == {
        "name": "count_where_amount_gt_50_30d", "column": "", "aggregate": "count", "window": "30d",
        "where": "amount > 50",
    }  # fmt: skip
    assert {each["column"]: each["roles"] for each in shown["columns"]} == {
        "orders.customer": ["key"], "orders.placed": ["event time"], "orders.paid": ["known at"],
        "orders.id": ["sequence"], "orders.amount": ["condition"],
    }  # fmt: skip
    assert (shown["models"], shown["verified"], shown["owner"]) == (["late_order"], None, "ana")


def test_show_follows_a_derived_input_to_the_columns_behind_it(run: Run, filled: Path) -> None:
    """A feature it reads is traced, the rest comes with the request."""
    shown = run("features", "show", "basket", "--project", filled, "--json").json
    amount, mean = shown["inputs"]
    assert (amount["from"], mean["from"]) == ("request", "spending")
    assert "orders.amount" in mean["columns"]


@pytest.mark.parametrize(
    ("name", "near"), [("spendin", "'spending'"), ("spending.mean_amount_20", "'mean_amount_20d'"), ("x", "Known")]
)
def test_show_of_the_unknown_names_the_nearest(run: Run, filled: Path, name: str, near: str) -> None:
    """View or feature; exit code 2."""
    shown = run("features", "show", name, "--project", filled)
    assert shown.code == 2
    assert near in shown.err


def test_plan_before_anything_is_deployed_counts_the_rows_to_read(run: Run, filled: Path) -> None:
    """New views have to be filled from every row of their table; nothing is refused."""
    shown = run("features", "plan", "--project", filled, "--json")
    assert shown.code == 0
    changes = {each["name"]: each for each in shown.json["changes"]}
    assert (changes["spending"]["status"], changes["spending"]["rebuild"], changes["spending"]["rows"]) == (
        "added", True, 600,
    )  # fmt: skip
    assert (changes["basket"]["rebuild"], changes["basket"]["rows"]) == (False, None)


def test_plan_of_what_is_deployed_finds_nothing(run: Run, deployed: Path) -> None:
    """The definitions as they were trained."""
    shown = run("features", "plan", "--project", deployed)
    assert shown.code == 0
    assert "as it is defined" in shown.out


def test_plan_refuses_a_changed_view_that_a_model_in_force_reads(run: Run, deployed: Path) -> None:
    """Exit code 1, the fields that differ, and the model; under a new name it is an addition."""
    edit(deployed, 'where="amount > 50"', 'where="amount > 60"')
    shown = run("features", "plan", "--project", deployed, "--json")
    assert (shown.code, shown.json["refused"]) == (1, ["spending"])
    change = next(each for each in shown.json["changes"] if each["name"] == "spending")
    assert change["readers"] == ["late_order@1"]
    assert [each["field"] for each in change["differences"]] == [
        "feature count_where_amount_gt_50_30d", "feature count_where_amount_gt_60_30d",
    ]  # fmt: skip
    assert "late_order@1 reads it" in run("features", "plan", "--project", deployed).out
    edit(deployed, 'FeatureView("spending"', 'FeatureView("spending_60"')
    edit(deployed, "spending__mean", "spending_60__mean")
    shown = run("features", "plan", "--project", deployed, "--json")
    assert (shown.code, shown.json["refused"]) == (1, ["basket"])  # the function reads another view now


def test_an_owner_is_no_change(run: Run, deployed: Path) -> None:
    """What is for people only leaves the version alone."""
    edit(deployed, 'owner="ops"', 'owner="ben", description="Shops that deliver late"')
    assert "as it is defined" in run("features", "plan", "--project", deployed).out


def test_plan_names_a_column_that_a_table_lacks(run: Run, filled: Path) -> None:
    """View, feature, column, nearest name; exit code 1."""
    edit(filled, 'agg.share("late"', 'agg.share("latte"')
    shown = run("features", "plan", "--project", filled, "--json")
    assert shown.code == 1
    (problem,) = shown.json["problems"]
    assert "view 'shops', feature 'share_latte_30d'" in problem
    assert "Did you mean the column 'late'" in problem


def test_old_and_new_versions_serve_side_by_side(run: Run, deployed: Path) -> None:
    """The model in force reads its own version by its own code, whatever the definitions say meanwhile."""
    from retrodict.decisions.loader import Loader
    from retrodict.registry import current
    from retrodict.workspace import Workspace

    edit(deployed, 'over=["20d", "30d"]', 'over=["21d", "30d"]')
    shop.call("features", "build", "--project", deployed)
    with Workspace(deployed) as project:
        servant = Loader(project).load(current(project)["ask"])
        old = decide(servant).features
    (deployed / "who.csv").write_text("customer,shop,amount\n007,N,10\n")
    shop.call("features", "online", "--keys", deployed / "who.csv", "--at", "2024-04-23T00:00Z", "--features",
              "spending", "--output", deployed / "new.parquet", "--project", deployed)  # fmt: skip
    import pyarrow.parquet as pq

    (new,) = pq.read_table(deployed / "new.parquet").to_pylist()
    assert new["spending__mean_amount_30d"] == old["spending__mean_amount_30d"] is not None
    assert new["spending__mean_amount_21d"] is not None
    assert old["spending__mean_amount_20d"] is not None


def test_status_says_how_each_view_serves(run: Run, deployed: Path) -> None:
    """Verified, read by whom, what state there is; and that nothing lags."""
    shown = run("features", "status", "--project", deployed, "--json").json["views"]
    spending = next(each for each in shown if each["view"] == "spending")
    assert spending["read_by"] == ["late_order@1", "late_order"]
    assert (spending["verified"], spending["lag"], spending["offset"]) == (True, 0, 0)
    assert spending["staleness_s"] > 0
    assert spending["entities"] == 20
    assert spending["bytes"] > 0


def test_status_of_an_edited_view_lists_both_versions(run: Run, deployed: Path) -> None:
    """The one in force passed, the edited one never did."""
    edit(deployed, 'where="amount > 50"', 'where="amount > 60"')
    shown = run("features", "status", "--project", deployed, "--json").json["views"]
    assert {tuple(each["read_by"]): each["verified"] for each in shown if each["view"] == "spending"} == {
        ("late_order@1",): True, ("late_order",): None,
    }  # fmt: skip


def test_verify_records_the_verdict_on_each_view(run: Run, filled: Path) -> None:
    """With the content hash that passed; show and the ledger say so."""
    shop.call("features", "build", "--project", filled)
    shown = run("features", "verify", "--samples", "10", "--project", filled, "--json")
    assert (shown.code, shown.json["models"]["late_order"]["views"]) == (0, {"spending": True, "shops": True})
    assert shown.json["models"]["late_order"]["verdict"] == "equal"
    about = run("features", "show", "spending", "--project", filled, "--json").json
    assert (about["verified"]["passed"], about["verified"]["mismatches"]) == (True, 0)
    entries = run("audit", "log", "--project", filled, "--json").json["entries"]
    verified = [each for each in entries if each["action"] == "features.verified"]
    assert f"view:spending@{about['version']}" in [each["object"] for each in verified]


def test_verify_before_a_build_compares_the_rest(run: Run, filled: Path) -> None:
    """A state that was never filled gives no wrong answers; the command says that it was not asked."""
    shown = run("features", "verify", "--samples", "10", "--project", filled, "--json")
    assert shown.code == 0
    assert sorted(shown.json["models"]["late_order"]["by_engine"]) == ["oracle", "stream"]
    assert shown.json["models"]["late_order"]["verdict"] == "equal, online state not compared"
    table = run("features", "verify", "--samples", "5", "--project", filled).out
    assert "Online state was not compared" in table
    assert "equal, " in table  # the rest of the cell is on the lines below


def test_a_state_that_no_request_reaches_is_not_called_equal(run: Run, filled: Path, monkeypatch) -> None:
    """Filled, and every request is after what it has."""
    import retrodict.features.online.read.features as module

    shop.call("features", "build", "--project", filled)
    reach = module.OnlineFeatures.reach
    monkeypatch.setattr(module.OnlineFeatures, "reach", lambda self: dict.fromkeys(reach(self), (0, -1)))
    report = run("features", "verify", "--samples", "10", "--project", filled, "--json").json["models"]["late_order"]
    assert report["skipped"] == report["requests"]
    assert report["verdict"] == "equal, online state not compared"


def test_a_state_that_was_tampered_with_fails_and_is_explained(run: Run, filled: Path) -> None:
    """Exit code 1, the feature, the values, the events; and the view may not serve."""
    import retrodict.features.verify.verification as module

    shop.call("features", "build", "--project", filled)
    real = module.training_frame

    def wrong(*arguments: Any, **named: Any) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        frame = real(*arguments, **named)
        place = frame.column_names.index("shops__share_late_30d")
        return frame.set_column(place, "shops__share_late_30d", pc.add(frame.column(place), pa.scalar(1.0)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "training_frame", wrong)
        shown = run("features", "verify", "--samples", "10", "--project", filled, "--json")
        told = run("features", "verify", "--samples", "10", "--project", filled).out
    assert (shown.code, shown.json["models"]["late_order"]["views"]) == (1, {"spending": True, "shops": False})
    mismatch = next(m for m in shown.json["models"]["late_order"]["mismatches"] if m["events"])
    assert mismatch["feature"] == "shops__share_late_30d"
    assert mismatch["values"]["offline"] == mismatch["values"]["oracle"] + 1
    assert mismatch["events"][0]["known_at"].startswith("2024-")
    assert f"key {mismatch['key']}" in told
    assert "event of 2024-" in told
    assert run("features", "show", "shops", "--project", filled, "--json").json["verified"]["passed"] is False


def test_deploy_refuses_views_that_never_passed(run: Run, filled: Path) -> None:
    """With the command that helps; a reason overrides it, and the ledger keeps the reason."""
    shop.call("features", "build", "--project", filled)
    shop.call("train", "late_order", "--actor", "ana", "--project", filled)
    shop.call("models", "approve", "late_order@1", "--reason", "fine", "--actor", "ben", "--project", filled)
    refused = run("deploy", "ask", "--project", filled, "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (1, "RefusedError")
    assert "retrodict features verify late_order" in refused.json["error"]["remedy"]
    assert run("deploy", "ask", "--force", " ", "--project", filled).code == 1
    assert run("deploy", "ask", "--force", "a drill", "--project", filled).code == 0
    entries = run("audit", "log", "--project", filled, "--json").json["entries"]
    overridden = [each for each in entries if each["action"] == "features.unverified"]
    assert [each["payload"]["reason"] for each in overridden] == ["a drill", "a drill"]


def test_parity_without_a_decision_is_not_evaluable(run: Run, deployed: Path) -> None:
    """Nothing compared is no success; an unknown policy has near names."""
    shown = run("features", "parity", "ask", "--project", deployed, "--json")
    assert (shown.code, shown.json["verdict"]) == (1, "not evaluable")
    wrong = run("features", "parity", "asq", "--project", deployed)
    assert wrong.code == 2
    assert "'ask'" in wrong.err


def test_parity_of_logged_decisions(run: Run, deployed: Path) -> None:
    """What a servant decided is recomputed value by value; a log that was altered is found."""
    from retrodict.decisions.loader import Loader
    from retrodict.decisions.recorder import LogWriter
    from retrodict.decisions.records import encode_record
    from retrodict.registry import current
    from retrodict.workspace import Workspace

    with Workspace(deployed) as project:
        record = decide(Loader(project).load(current(project)["ask"]))
        altered = replace(record, id="b" * 26, features={**record.features, "shops__share_late_30d": 2.0})
        with LogWriter(project) as writer:
            writer.append([encode_record(record), encode_record(altered)])
    shown = run("features", "parity", "ask", "--project", deployed, "--json")
    assert (shown.code, shown.json["mismatches"], shown.json["by_feature"]) == (1, 1, {"shops__share_late_30d": 1})
    assert (
        run("features", "parity", "ask", "--end", "2024-04-23T00:00Z", "--project", deployed, "--json").json["values"]
        == 0
    )
    status = run("features", "status", "--project", deployed, "--json").json["views"]
    assert next(each for each in status if each["view"] == "shops")["decisions"] == 2


def test_parity_leaves_out_what_no_table_can_say(run: Run, deployed: Path) -> None:
    """A view beyond its horizon, and a key with an event of the stream: each counted, with what to do about it."""
    from retrodict.decisions.loader import Loader
    from retrodict.decisions.recorder import LogWriter
    from retrodict.decisions.records import encode_record
    from retrodict.registry import current
    from retrodict.workspace import Workspace

    def parity() -> dict[str, Any]:
        return run("features", "parity", "ask", "--project", deployed, "--json").json

    event = {**shop.rows()[0], "id": "new", "customer": "007", "shop": "X", "amount": 500.0, "late": "true",
             "placed": "2024-04-20T00:00:00Z", "paid": "2024-04-20T01:00:00Z"}  # fmt: skip
    events = shop.write_csv(deployed / "more.csv", [event])
    assert run("features", "push", "placed", "--events", events, "--project", deployed).code == 0
    run("features", "stream", "--once", "--project", deployed)
    with Workspace(deployed) as project:
        record = decide(Loader(project).load(current(project)["ask"]))
        beyond = replace(record, id="b" * 26, views={"spending": {"status": "beyond_horizon"}},
                         features={name: None if "spending" in name else value
                                   for name, value in record.features.items()})  # fmt: skip
        with LogWriter(project) as writer:
            writer.append([encode_record(record), encode_record(beyond)])
    report = parity()
    assert (report["mismatches"], report["beyond_horizon"], report["streamed"]) == (0, 1, {"orders": 1})
    assert 0 < report["values"] < 2 * len(record.features)
    text = run("features", "parity", "ask", "--project", deployed).out
    assert "Decisions that used events of 'orders' that are only in its stream" in text
    assert "retrodict ingest orders FILE" in text
    run("ingest", "orders", events, "--project", deployed)
    assert (parity()["mismatches"], parity()["streamed"]) == (0, {})


def test_status_counts_the_keys_of_decisions_that_the_state_does_not_know(deployed: Path, run: Run) -> None:
    """Each key once, by what online state holds now; null where there was no decision."""
    from retrodict.decisions.loader import Loader
    from retrodict.decisions.recorder import LogWriter
    from retrodict.decisions.records import encode_record
    from retrodict.registry import current
    from retrodict.workspace import Workspace

    status = run("features", "status", "--project", deployed, "--json").json["views"]
    assert {each["unseen_keys"] for each in status} == {None}
    with Workspace(deployed) as project:
        record = decide(Loader(project).load(current(project)["ask"]))
        strangers = [{**record.entities, "customer": name} for name in ("nobody", "nobody", "no one", "never")]
        several = [replace(record, id=f"{place:026}", entities=each) for place, each in enumerate(strangers)]
        with LogWriter(project) as writer:
            writer.append([encode_record(each) for each in (record, *several)])
    status = run("features", "status", "--project", deployed, "--json").json["views"]
    assert {each["view"]: each["unseen_keys"] for each in status} == {"spending": 0.75, "shops": 0.0}


def test_the_tab_key_offers_features() -> None:
    """Views and their features, by what is typed so far."""
    from retrodict.cli._root import every_command

    option = next(p for p in every_command()["retrodict features show"].params if p.name == "name")
    assert option._custom_shell_complete is not None


def test_a_model_without_views_is_verified_and_has_no_state(run: Run, filled: Path) -> None:
    """Its derived functions are compared; no command says that there is no model."""
    edit(filled, "[spending, shops, basket]", "[size]")
    edit(filled, "late = Label", '@derived\ndef size(items: int):\n    return {"large": items > 5}\n\n\nlate = Label')
    model = run("features", "verify", "--project", filled, "--json").json["models"]["late_order"]
    assert (model["verdict"], model["views"]) == ("equal", {})
    for command in ("build", "status"):
        answer = run("features", command, "--project", filled)
        assert answer.code == 0
        assert answer.out.startswith("No model reads a view")
