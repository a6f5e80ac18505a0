"""Reads of a damaged record end in an error of the house that names the damage, whatever was written where."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.test_replay import decided, original

from retrodict import Project
from retrodict.core.errors import IntegrityError, RetrodictError

__all__ = ["original"]

GARBAGE = ["{", 10**18, -1, "", b"\xff\xfe", "[]", '{"a": 1}', "null", "[" * 5000, 1.5, "x"]


@pytest.fixture(scope="module")
def finished(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a model in force, a tag, and decisions."""
    root = Path(shutil.copytree(original, tmp_path_factory.mktemp("damage") / "parcels"))
    with Project(root, actor="ana") as project:
        decided(project)
        project.data.tag("parcels@0", "golden")
    return root


@pytest.fixture(scope="module")
def refs(finished: Path) -> tuple[str, str]:
    """A decision and a run."""
    with Project(finished) as project:
        return f"decision:{project.decisions.table('promise').column('id')[0]}", project.runs.list()[0].ref


def reads(project: Project, decision: str, run: str) -> Iterator[Callable[[], Any]]:
    yield lambda: project.lineage(decision)
    yield lambda: project.lineage("model:late_parcel@1")
    yield lambda: project.lineage("dataset:parcels@0")
    yield lambda: project.replay(decision)
    yield lambda: project.decisions.get(decision)
    yield lambda: project.decisions.show(decision)
    yield lambda: project.decisions.table("promise")
    yield project.policies.deployments
    yield lambda: project.runs.get(run)
    yield project.runs.list
    yield lambda: project.models.get("late_parcel@1")
    yield project.models.list
    yield lambda: project.data.history("parcels")
    yield project.data.tags
    yield project.ledger.log


def read_all(root: Path, refs: tuple[str, str]) -> list[RetrodictError]:
    """Errors of all reads, each shown; anything but an error of the house goes through."""
    errors = []
    with Project(root) as project:
        for read in reads(project, *refs):
            try:
                str(read())
            except RetrodictError as error:
                errors.append(error)
    return errors


def altered(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one place of it changed or gone."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(sorted(value))
        rest = {key: value[key] for key in value if key != name}
        return {**rest, name: altered(value[name], draw)} if draw.random() < 0.85 else rest
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], altered(value[place], draw), *value[place + 1 :]]
    return draw.choice([None, 10**18, -1, "", "x", [], {}, {"a": 1}, True, 1.5])


def damage_records(root: Path, draw: random.Random) -> None:
    with sqlite3.connect(root / "state" / "records.db") as records:
        names = [name for (name,) in records.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(name, row[1]) for name in names for row in records.execute(f"PRAGMA table_info({name})")]
        name, column = draw.choice([c for c in columns if c[0] not in ("ledger_nodes", "run_heartbeats")])
        full = records.execute(f"SELECT * FROM {name}")
        names = [part[0] for part in full.description]
        row = draw.choice(full.fetchall() or [None])
        if row is None:
            return
        old, same = row[names.index(column)], " AND ".join(f"{part} IS ?" for part in names)
        if draw.random() < 0.15:
            records.execute(f"DELETE FROM {name} WHERE {same}", row)
            return
        value = draw.choice(GARBAGE)
        if isinstance(old, str) and old.startswith(("{", "[")) and draw.random() < 0.7:
            value = json.dumps(altered(json.loads(old), draw))
        with suppress(sqlite3.IntegrityError):  # of a number that is the row's place the database takes no word
            records.execute(f"UPDATE {name} SET {column} = ? WHERE {same}", (value, *row))
    records.close()


def damage_file(root: Path, draw: random.Random) -> None:
    places = ("_delta_log", "/streams/", "/objects/", "checkpoints", ".parquet")
    files = sorted(f for f in root.rglob("*") if f.is_file() and f.stat().st_size and any(p in str(f) for p in places))
    file = draw.choice(files)
    data = file.read_bytes()
    if file.parent.name == "_delta_log" and draw.random() < 0.6:
        lines = [json.loads(line) for line in data.splitlines()]
        place = draw.randrange(len(lines))
        lines[place] = altered(lines[place], draw) if draw.random() < 0.8 else {"add": {"path": "[" * 10}}
        file.write_text("\n".join(map(json.dumps, lines)) + "[" * draw.choice([0, 100_000]))
    elif draw.random() < 0.5:
        file.write_bytes(data[: draw.randrange(len(data))])
    else:
        place = draw.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])


@pytest.mark.parametrize("seed", [*range(24), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(24, 200))])
def test_no_damage_gets_past_the_errors_of_the_house(
    finished: Path, refs: tuple[str, str], tmp_path: Path, seed: int
) -> None:
    """One place of the records or of a file altered: every read answers, or says that something was altered."""
    root = Path(shutil.copytree(finished, tmp_path / "parcels"))
    draw = random.Random(seed)
    (damage_records if draw.random() < 0.7 else damage_file)(root, draw)
    try:
        errors = read_all(root, refs)
    except IntegrityError as error:  # the project itself says so when it is opened
        errors = [error]
    assert all(str(error) for error in errors)


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("DELETE FROM deployments", "deployments"),
        ("UPDATE runs SET data = '{\"versions\": 3}'", "run"),
        ("UPDATE runs SET started = 'x'", "run:"),
        ("UPDATE ledger_entries SET payload = '[' WHERE sequence = 4", "entry 4"),
        ("UPDATE ledger_entries SET time = 'x' WHERE sequence = 4", "entry 4"),
    ],
)
def test_the_record_is_named_with_the_audit(
    finished: Path, refs: tuple[str, str], tmp_path: Path, statement: str, where: str
) -> None:
    """A row that is gone, JSON of another shape, a number that is none."""
    root = Path(shutil.copytree(finished, tmp_path / "parcels"))
    with sqlite3.connect(root / "state" / "records.db") as records:
        records.execute(statement)
    records.close()
    errors = read_all(root, refs)
    assert errors
    assert any(where in str(error) and "retrodict audit verify" in str(error) for error in errors)


def test_a_failure_of_ours_is_raised_as_it_is(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the audit finds nothing, and for wrong arguments, which need none."""
    from retrodict.project import models

    def fail(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(models.registry, "describe_version", fail)
    with Project(finished) as project:
        with pytest.raises(KeyError, match="ours"):
            project.models.get("late_parcel@1")
        with pytest.raises(TypeError, match="unexpected keyword"):
            project.models.get("late_parcel@1", deep=True)
