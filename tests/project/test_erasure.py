"""An erasure names every place that still holds the identifier: whoever searches the whole folder finds no other."""

from __future__ import annotations

import gzip
import random
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.decisions.test_replay import AT, DEFINITIONS
from tests.serving.project import parcels

from retrodict import Project
from retrodict.features.operations import remains as module
from retrodict.features.operations.remains import find_remains
from retrodict.workspace import Workspace

WHO = "depot-7731"
READS = "features=[depot_delays, yard, everywhere, load"


def holding(root: Path) -> set[str]:
    """Files whose bytes, or rows in DuckDB, hold the identifier; on paths and formats we know nothing of ours."""
    paths = set()
    for path in (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if path.suffix == ".parquet":
            data += repr(duckdb.sql(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM '{path}'").fetchall()).encode()
        if WHO.encode() in data:
            paths.add(str(path.relative_to(root)))
    return paths


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the identifier as a key, as a category, in another column, in logs, and in files beside it."""
    root = tmp_path_factory.mktemp("parcels")
    (root / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    text = DEFINITIONS.replace(READS, f'{READS}, columns("depot", "driver")')
    (root / "definitions.py").write_text(text.replace('"delay": "float"', '"driver": "string", "delay": "float"'))
    rows = parcels().select(["id", "depot", "delay", "sent", "arrived"])
    depots = [WHO if depot == "south" else depot for depot in rows["depot"].to_pylist()]
    drivers = [WHO if place % 7 == 0 else f"driver-{place % 5}" for place in range(len(depots))]
    rows = rows.set_column(1, "depot", pa.array(depots)).append_column("driver", pa.array(drivers))
    with Project(root, actor="ana") as project:
        project.data.ingest("parcels", rows)
        project.data.ingest("depots", pa.table({"depot": ["north", WHO, "east"], "docks": [4, 5, 6]}))
        project.features.build()
        project.features.verify("late_parcel")
        project.train("late_parcel")
    with Project(root, actor="ben") as project:
        project.models.approve("late_parcel@1", reason="test")
        project.deploy("promise", reason="test")
        project.features.frame(spine="parcels", at="sent", features=["depot_delays"], keep="seen")
        pushed = {"id": ["z"], "depot": [WHO], "driver": ["x"], "delay": [9.0], "sent": [AT - timedelta(days=2)],
                  "arrived": [AT - timedelta(days=1)]}  # fmt: skip
        project.features.push("arrived", pa.table(pushed))
        for depot in ("north", WHO, WHO):
            project.decide("promise", depot=depot, driver="driver-1", at=AT)
    (root / "notes").mkdir()
    (root / "notes" / "asked.csv.gz").write_bytes(gzip.compress(f"who\n{WHO}\n".encode()))
    (root / "notes" / "mail.txt").write_text(f"erase {WHO}, please")
    return root


def test_what_still_holds_the_identifier_is_named(root: Path) -> None:
    """Also inside Parquet, packed files, parts of models and free pages; its own rows are in no table any more."""
    with Project(root, actor="ana") as project:
        report = project.features.erase("depot", key=[WHO], reason="asked", vacuum=True, pinned=True, yes=True)
        assert project.ledger.verify().ok
    run = Project(root).runs.list()[0].ref
    places = {one.place.replace(run, "run"): (one.files, one.hits) for one in report.remains}
    files = holding(root)
    prefixes = {"table parcels": "state/tables/parcels/", "table seen": "state/tables/seen/",
                "decision log": "state/streams/decisions/", "stream events/parcels": "state/streams/events/parcels/",
                "online state": "state/keys/", "file notes/asked.csv.gz": "notes/asked.csv.gz",
                "file notes/mail.txt": "notes/mail.txt",
                "object run": "state/objects/",
                "object model:late_parcel@1, inputs.json": "state/objects/"}  # fmt: skip
    assert places.keys() == prefixes.keys()
    assert {file for file in files if not file.startswith(tuple(prefixes.values()))} == set()
    for place, prefix in prefixes.items():
        files_there = [file for file in files if file.startswith(prefix)]
        assert len(files_there) == sum(places[other][0] for other in places if prefixes[other] == prefix), place
    with Workspace(root) as workspace:
        assert WHO not in str(workspace.ledger.entries())
        for table in ("parcels", "seen", "depots"):
            for version in (one for one in workspace.tables.history(table) if not one.vacuumed):
                assert WHO not in workspace.tables.read(table, version.version).column("depot").to_pylist()
    assert report.remaining["decision log"] == 2
    assert (places["file notes/mail.txt"], places["decision log"][0]) == ((1, 1), 1)
    text = str(report)
    assert all(one.place.split()[0] in text and one.remedy.split()[0] in text for one in report.remains)


def test_what_is_not_looked_through_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short keys, too many of them, stores at a URL."""
    with Workspace(root) as workspace:
        remains, unseen = find_remains(workspace, ["abc", 99])
        assert remains == []
        assert unseen == ["keys of fewer than 4 letters or below 10000: they stand anywhere by chance"]
        _, unseen = find_remains(workspace, [f"key-{n}" for n in range(module.MOST_VALUES + 1)])
        assert unseen == ["files: there are more than 1000 subjects"]
        monkeypatch.setitem(workspace.config.values, "stores.keys", "redis://nowhere")
        assert find_remains(workspace, [WHO])[1] == ["keys at a URL"]


def test_values_are_found_wherever_a_piece_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted as often as they stand there, whatever the size of what is read at once; numbers and escapes too."""
    values = ['Müller "x"', "abcabc", 123456]
    spellings = ['Müller "x"', 'M\\u00fcller \\"x\\"', "abcabc", "123456"]
    draw = random.Random(7)
    words = [draw.choice([*spellings, "abca", "Mül", "12345", "-"]) for _ in range(300)]
    path = root / "notes" / "words"
    path.write_text(".".join(words))
    expected = sum(words.count(text) for text in spellings)
    with Workspace(root) as workspace:
        for size in (1, 7, 16 << 20):
            monkeypatch.setattr(module, "_PIECE", size)
            remains, _ = find_remains(workspace, values)
            assert [one.hits for one in remains if one.place == "file notes/words"] == [expected]
    path.unlink()
