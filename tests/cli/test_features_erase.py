"""``features erase``: one subject is gone from tables and online state, and what remains is said."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from tests.cli import features_project as shop

from retrodict.data.versions import loss_of, rewrite
from retrodict.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled, with online state and one pushed event of customer 007."""
    root = shop.fill(tmp_path_factory.mktemp("shop") / "original")
    shop.call("features", "build", "--project", root)
    event = {
        **shop.rows()[0],
        "id": "new",
        "customer": "007",
        "placed": "2024-04-22T10:00Z",
        "paid": "2024-04-22T11:00Z",
    }
    shop.call("features", "push", "placed", "--events", shop.write_csv(root / "e.csv", [event]), "--project", root)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy to work in, and a file that names customer 007."""
    copy = Path(shutil.copytree(original, tmp_path / "shop"))
    (copy / "who.csv").write_text("customer\n007\n")
    return copy


def erase(run: Run, root: Path, *options: str) -> Any:
    return run("features", "erase", "--entity", "customer", "--keys", root / "who.csv", *options, "--project", root,
               "--json")  # fmt: skip


def owners(root: Path) -> list[str]:
    with Workspace(root) as project:
        return list(project.tables.read("orders").column("customer").to_pylist())


OWN = sum(row["customer"] == "007" for row in shop.rows())


def test_without_yes_nothing_changes(run: Run, root: Path) -> None:
    """The rows are counted, and they are still there."""
    shown = erase(run, root).json
    assert (shown["done"], shown["tables"][0]["rows"], shown["states"]) == (False, OWN, {"spending": 0})
    assert owners(root).count("007") == OWN
    assert "Do it with --yes" in run("features", "erase", "--entity", "customer", "--keys", root / "who.csv",
                                     "--project", root).out  # fmt: skip


def known(root: Path) -> list[bool]:
    """Of each row that was written, whether any feature has a value other than 0."""
    rows = csv.DictReader((root / "on.csv").read_text().splitlines())
    return [any(value not in ("", "0") for name, value in row.items() if "__" in name) for row in rows]


def test_an_erased_subject_is_in_no_newest_table_and_no_state(run: Run, root: Path) -> None:
    """Others stay row for row in their order; a build does not bring it back; older versions and streams are named."""
    before = owners(root)
    shown = erase(run, root, "--yes").json
    assert owners(root) == [each for each in before if each != "007"]
    assert shown["states"] == {"spending": 1}
    assert (shown["tables"][0]["version"], shown["tables"][0]["older"]) == (1, 1)
    assert shown["remaining"] == {"stream events/orders": 1}
    assert shown["counted_in"] == ["shops"]
    assert shown["freed_pages"] == "state/keys"
    shop.call("features", "build", "--project", root)
    (root / "keys.csv").write_text("customer,amount\n007,1\n008,1\n")
    online = run("features", "online", "--keys", root / "keys.csv", "--at", "2024-04-23T00:00Z", "--features",
                 "spending", "--output", root / "on.csv", "--project", root, "--json").json  # fmt: skip
    assert online["statuses"] == {"spending": {"behind": 2}}  # an event of the stream is not in
    assert known(root) == [False, True]
    assert run("audit", "verify", "--project", root).code == 0


def test_views_with_more_keys_forget_the_subject_too(run: Run, root: Path) -> None:
    """Customer and shop: every pair of the customer is gone, those of others stay."""
    text = (root / "definitions.py").read_text()
    pair = 'FeatureView("pairs", Entity("pair", keys=["shop", "customer"]), placed, [agg.count(over="90d")])'
    text = text.replace("@derived", f"pairs = {pair}\n\n\n@derived").replace(
        "[spending, shops", "[spending, pairs, shops"
    )
    (root / "definitions.py").write_text(text)
    shop.call("features", "build", "--project", root)
    (root / "keys.csv").write_text("shop,customer\nN,007\nS,007\nN,008\n")
    asked = ("features", "online", "--keys", root / "keys.csv", "--at", "2024-04-23T00:00Z", "--features", "pairs",
             "--output", root / "on.csv", "--project", root, "--json")  # fmt: skip
    assert run(*asked).json["statuses"] == {"pairs": {"behind": 3}}  # an event of the stream is not in
    assert known(root) == [True, True, True]
    assert erase(run, root, "--yes").json["states"]["pairs"] == len(
        {row["shop"] for row in shop.rows() if row["customer"] == "007"}
    )
    assert run(*asked).json["statuses"] == {"pairs": {"behind": 3}}
    assert known(root) == [False, False, True]


def test_the_batch_that_brought_the_subject_does_not_bring_it_back(run: Run, root: Path) -> None:
    """Ingesting the same file again is known to be done."""
    erase(run, root, "--yes")
    assert shop.call("ingest", "orders", root / "orders.csv", "--project", root)["already"] is True
    assert "007" not in owners(root)


def test_vacuum_ends_the_older_versions(run: Run, root: Path) -> None:
    """What nothing refers to can no longer be read."""
    shown = erase(run, root, "--yes", "--vacuum").json
    assert shown["vacuum"]["orders"]["deleted"] == [0]
    assert run("data", "show", "orders@0", "--project", root).code == 2


def test_the_ledger_never_holds_the_key(run: Run, root: Path) -> None:
    """A digest that needs the project's secret stands for it, the same each time."""
    (root / "who.csv").write_text("customer\nSECRET-7\n")
    erase(run, root, "--yes", "--reason", "asked on paper")
    erase(run, root, "--yes")
    listed = run("audit", "log", "--project", root, "--json")
    assert "SECRET-7" not in listed.out
    first, second = [e["payload"] for e in listed.json["entries"] if e["action"] == "features.erase"]
    assert first["subjects"] == second["subjects"]
    assert (len(first["subjects"][0]), first["reason"]) == (64, "asked on paper")
    assert (root / "state" / "erasure.key").stat().st_mode & 0o077 == 0


def test_decisions_about_the_subject_are_counted(run: Run, root: Path) -> None:
    """The log is not rewritten here, so it is named."""
    from retrodict.decisions.recorder import LogWriter
    from retrodict.decisions.records import DecisionRecord, encode_record

    plain = dict.fromkeys(("policy_version", "code", "model", "artifact", "model_code"), "0" * 64)
    with Workspace(root) as project, LogWriter(project) as writer:
        writer.append([
            encode_record(DecisionRecord(id=f"{i:026d}", time=i, policy="ask", revision=1, entities={"customer": who},
                                         context={}, features={}, decision="go", **plain))
            for i, who in enumerate(["007", "008", "007"])
        ])  # fmt: skip
    assert erase(run, root).json["remaining"]["decision log"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--entity", "custmer", "--key", "x"), "Did you mean the entity 'customer'"),
        (("--entity", "customer"), "--keys FILE"),
        (("--entity", "customer", "--key", "a", "--key", "b"), "has 1 key columns: customer"),
        (("--entity", "customer", "--keys", "wrong.csv"), "got 'customer'"),
        (("--entity", "customer", "--keys", "null.csv"), "2 nulls"),
    ],
)
def test_wrong_use_changes_nothing(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    """Unknown entity, no key, too many keys, a file without the column, a null: exit code 2."""
    monkeypatch.chdir(root)
    (root / "wrong.csv").write_text("client\n007\n")
    (root / "null.csv").write_text('customer,x\n"",1\n,2\n007,3\n')
    shown = run("features", "erase", *options, "--yes")
    assert shown.code == 2, json.dumps(shown.out)
    assert said in shown.err
    assert owners(root).count("007") == OWN


def test_a_kept_frame_loses_the_subject_and_is_made_anew_to_go_on(run: Run, root: Path) -> None:
    """The newest version of the frame has the other rows; extending it is refused with the remedy, which works."""
    keep = ["features", "offline", "--spine", "orders", "--at", "placed", "--features", "spending", "--keep", "seen"]
    assert run(*keep, "--project", root).code == 0
    shown = erase(run, root, "--yes").json
    assert {each["table"]: each["rows"] for each in shown["tables"]} == {"orders": OWN, "seen": OWN}
    with Workspace(root) as project:
        assert "007" not in project.tables.read("seen").column("customer").to_pylist()
    refused = run(*keep, "--project", root)
    assert refused.code == 2
    assert "--anew" in refused.err
    assert run(*keep, "--anew", "--project", root).code == 0
    with Workspace(root) as project:
        assert project.tables.read("seen").num_rows == project.tables.read("orders").num_rows
    assert run("audit", "verify", "--project", root).code == 0


def tables(shown: Any) -> dict[str, int]:
    return {table["table"]: table["rows"] for table in shown["tables"]}


def test_rows_in_quarantine_go_too(run: Run, root: Path) -> None:
    """Whoever wrote the key otherwise; what names the subject in another column stays, and is counted."""
    wrong = [{**shop.rows()[0], "id": f"q{n}", "customer": customer, "amount": "many"} for n, customer in
             enumerate(["007", " 007 ", "008", "0070"])]  # fmt: skip
    right = [{**shop.rows()[0], "id": f"r{n}", "customer": "009"} for n in range(20)]
    shown = run("ingest", "orders", shop.write_csv(root / "wrong.csv", right + wrong), "--project", root, "--json").json
    assert shown["quarantined"] == 4
    assert tables(erase(run, root).json) == {"orders": OWN, "orders__quarantine": 2}
    assert tables(erase(run, root, "--yes").json) == {"orders": OWN, "orders__quarantine": 2}
    with Workspace(root) as project:
        originals = [
            json.loads(text) for text in project.tables.read("orders__quarantine").column("original").to_pylist()
        ]
    assert [row["customer"] for row in originals] == ["008", "0070"]
    assert tables(erase(run, root, "--yes").json) == {"orders": 0, "orders__quarantine": 0}
    assert run("audit", "verify", "--project", root).code == 0


@pytest.mark.parametrize("subject", ["cust-0001", 'Müller "x"'])
def test_the_same_value_in_other_columns_is_named(run: Run, root: Path, subject: str) -> None:
    """Of a column of the table, and inside a row in quarantine: what it means there only a person can tell."""
    row = {**shop.rows()[0], "customer": "008", "shop": subject}
    rows = [{**row, "id": "a", "customer": subject, "shop": "N"}, {**row, "id": "b"}, {**row, "id": "c"},
            {**row, "id": "d", "amount": "many"}]  # fmt: skip
    shop.call("ingest", "orders", shop.write_csv(root / "more.csv", rows), "--project", root)
    shop.write_csv(root / "who.csv", [{"customer": subject}])
    shown = erase(run, root, "--yes").json
    assert tables(shown) == {"orders": 1, "orders__quarantine": 0}
    assert shown["remaining"] == {"table orders, column shop": 2, "table orders__quarantine, column original": 1}


def test_pinned_versions_lose_the_subject_for_a_reason(run: Run, root: Path) -> None:
    """What a tag holds is rewritten, others row for row; the ledger names old and new file; a legal hold stays."""
    shop.call("data", "tag", "orders@0", "golden", "--project", root)
    shown = erase(run, root, "--yes", "--vacuum").json
    assert shown["vacuum"]["orders"]["deleted"] == []
    assert (shown["tables"][0]["older"], shown["tables"][0]["kept_for"]) == (1, ["tag golden"])
    with Workspace(root) as project:
        before = project.tables.read("orders", 0)
        copy = project.tables.write("orders", before.slice(1), mode="overwrite")
        project.tables.write("orders", before.filter(pc.field("customer") != "007"), mode="overwrite")
        (file,) = [f"orders/{file.path}" for file in project.tables.files("orders", 0)]
        digest = project.tables.file_digest(file)
    shop.call("data", "tag", f"orders@{copy}", "case", "--hold", "--project", root)
    shown = erase(run, root, "--yes", "--pinned", "--reason", "article 17").json
    assert shown["rewritten"]["orders"] | {"table": ""} == {"table": "", "versions": [0], "rows": OWN, "holds": [copy]}
    assert (shown["tables"][0]["older"], shown["tables"][0]["kept_for"]) == (1, ["legal hold case"])
    with Workspace(root, actor="ann") as project:
        assert project.tables.read("orders", 0).equals(before.filter(pc.field("customer") != "007"))
        (entry,) = project.ledger.entries(action="dataset.rewrite")
        rewritten = entry.payload["rewritten"][file]
        new = project.tables.file_digest(rewritten["file"])
        assert rewritten == {"file": rewritten["file"], "was": digest, "is": new,
                             "rows": [len(before), len(before) - OWN]}  # fmt: skip
        assert (entry.payload["reason"], entry.payload["versions"]) == ("article 17", [0])
        assert entry.actor
        assert not list(root.rglob(file))
        assert loss_of(project, "orders", 0).endswith(f"because: article 17 (entry {entry.sequence}, {entry.actor})")
    assert run("audit", "verify", "--project", root).code == 0


@pytest.mark.parametrize("step", ["commit", "transaction", "remove"])
def test_a_rewrite_that_is_killed_is_completed_by_the_next_call(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the new version is there, before its entry, before the old files go: each time all can be read."""
    shop.call("data", "tag", "orders@0", "golden", "--project", root)
    shown = erase(run, root, "--yes").json
    (file,) = root.rglob("orders/00000000000000000000-*.parquet")

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    with Workspace(root) as project:
        tables, before = project.tables, project.tables.read("orders", 0)
        where: tuple[Any, str] = {
            "commit": (tables._versions, "commit"),
            "transaction": (sys.modules["retrodict.data.versions.rollback"], "_replaced_files"),
            "remove": (tables._versions.place, "remove"),
        }[step]
        monkeypatch.setattr(*where, kill)
        with pytest.raises(Killed):
            rewrite(project, "orders", lambda b: b.column("customer").to_numpy(zero_copy_only=False) == "007",
                    columns=["customer"], reason="asked")  # fmt: skip
        monkeypatch.undo()
        assert len(tables.read("orders", 0)) == len(before) - OWN * (step != "commit")
        assert file.exists()
    assert run("audit", "verify", "--project", root).code == 0
    shown = erase(run, root, "--yes", "--pinned", "--reason", "asked").json
    assert (shown["tables"][0]["older"], shown["tables"][0]["rows"]) == (0, 0)
    assert not file.exists()
    with Workspace(root) as project:
        assert "007" not in project.tables.read("orders", 0).column("customer").to_pylist()
        assert len(project.ledger.entries(action="dataset.rewrite")) == 1
    assert run("audit", "verify", "--project", root).code == 0
