"""The artifact: whole, verified, and the same answer before and after it was kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetrodictError
from retrodict.core.identity import digest
from retrodict.models import ConstantEngine, InputSpec, ModelArtifact, fit_isotonic, fit_lightgbm
from retrodict.models.artifact import ExampleRows
from retrodict.models.calibration import NoCalibrator
from retrodict.stores.objects.folder import FolderObjects

from .conftest import SMALL, make_rows


class MemoryObjects:
    """The contract of object stores in a dict, except that ``get`` trusts its bytes: the artifact must not."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        self.kept[digest(data)] = data
        return digest(data)

    def get(self, wanted: str) -> bytes:
        if wanted not in self.kept:
            raise NotFoundError("an object was put", where="objects", got=wanted)
        return self.kept[wanted]

    def exists(self, wanted: str) -> bool:
        return wanted in self.kept

    def digests(self) -> Iterator[str]:
        return iter(sorted(self.kept))


@pytest.fixture
def model(spec, engine, valid) -> ModelArtifact:
    calibrator = fit_isotonic(engine.scores(valid.matrix), valid.labels)
    return ModelArtifact("late_arrival", spec, engine, calibrator, {"run": "run:01J", "auc": 0.75})


@pytest.fixture
def served(spec, trees, valid) -> ModelArtifact:
    return ModelArtifact("late_arrival", spec, trees, fit_isotonic(trees.scores(valid.matrix), valid.labels))


def as_rows(columns: dict) -> list[dict]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]


def test_rows_score_one_by_one_as_in_a_batch(model):
    """From raw values to calibrated probability, bit for bit."""
    columns, _ = make_rows(300, seed=9)
    columns["origin"][:3] = "unseen"
    batch = model.score_rows(columns)
    single = [model.score_row(row) for row in as_rows(columns)]
    assert batch.raw.tobytes() == np.array([s.raw for s in single]).tobytes()
    assert batch.score.tobytes() == np.array([s.score for s in single]).tobytes()


@given(
    rows=arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)),
                elements=st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))),
)  # fmt: skip
def test_example_rows_are_of_values_that_were_there_drawn_for_each_column(rows):
    engine = ConstantEngine(0.25, features=3)
    examples = ExampleRows.of(engine, NoCalibrator(), rows)
    assert examples.rows.shape == (32, 3)
    assert examples.answers.tolist() == [0.25] * 32
    for at in range(3):
        given_values, column = rows[:, at], examples.rows[:, at]
        assert set(column[~np.isnan(column)]) <= set(given_values[~np.isnan(given_values)])
        assert np.isnan(given_values).any() or not np.isnan(column).any()
    again = ExampleRows.from_json(examples.to_json())
    assert again.rows.tobytes() == examples.rows.tobytes()
    assert again.answers.tobytes() == examples.answers.tobytes()


def test_a_model_that_answers_otherwise_than_when_it_was_made_is_refused(served, valid):
    """Another answer of the engine, by a library say, or one of a row alone; rounding of another processor is not."""
    drawn = replace(served, examples=ExampleRows.of(served.engine, served.calibrator, valid.matrix))
    objects = MemoryObjects()
    read = ModelArtifact.load(objects, drawn.save(objects))
    read.check()
    assert read.fingerprint() == served.fingerprint()
    served.check()  # one from before there were any

    class Otherwise:
        exact_rows = True

        def __init__(self, apart, alone):
            self.apart, self.alone = apart, alone

        def __getattr__(self, name):
            return getattr(served.engine, name)

        def scores(self, matrix):
            return served.engine.scores(matrix) * (1 + self.apart)

        def score_row(self, row):
            return self.scores(row[None, :])[0].item() + self.alone

    for apart, alone in ((1e-3, 0.0), (0.0, 1e-8)):
        other = replace(drawn, engine=Otherwise(apart, alone), calibrator=NoCalibrator())
        other = replace(other, examples=ExampleRows.of(served.engine, NoCalibrator(), valid.matrix))
        with pytest.raises(IntegrityError, match=r"must answer as it did when it was made.*up to"):
            other.check()
    close = replace(drawn, engine=Otherwise(1e-9, 1e-15), calibrator=NoCalibrator(),
                    examples=ExampleRows.of(served.engine, NoCalibrator(), valid.matrix))  # fmt: skip
    close.check()


@pytest.mark.parametrize("exact", [True, False])
def test_rows_score_together_only_where_that_gives_the_same_bits(model, monkeypatch, exact):
    """``score_each`` is ``score_row`` of each: by one call of an engine that says so, else one by one."""
    columns, _ = make_rows(40, seed=5)
    rows = as_rows(columns)
    expected, calls = [model.score_row(row) for row in rows], []
    kind, scores = type(model.engine), type(model.engine).scores
    monkeypatch.setattr(kind, "exact_rows", exact)
    monkeypatch.setattr(kind, "scores", lambda self, matrix: calls.append(len(matrix)) or scores(self, matrix))
    assert replace(model).score_each(rows) == expected
    assert calls == ([40] if exact else [])


def test_a_kept_model_answers_as_before(model):
    """Save, load: same scores, same digest, same metadata, same fingerprint."""
    objects, (columns, _) = MemoryObjects(), make_rows(200, seed=9)
    saved = model.save(objects)
    again = ModelArtifact.load(objects, saved)
    assert again.score_rows(columns).score.tobytes() == model.score_rows(columns).score.tobytes()
    assert again.save(MemoryObjects()) == saved
    assert (again.metadata, again.fingerprint()) == (model.metadata, model.fingerprint())


def test_another_process_answers_the_same(served, tmp_path):
    """Nothing that scoring needs lives outside of the stored objects."""
    columns, _ = make_rows(20, seed=9)
    columns["wind"] = np.nan_to_num(columns["wind"])
    saved = served.save(FolderObjects(tmp_path / "objects"))
    (tmp_path / "rows.json").write_text(json.dumps(as_rows(columns)))
    code = (
        "import json, pathlib, sys\n"
        "from retrodict.models import ModelArtifact\n"
        "from retrodict.stores.objects.folder import FolderObjects\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "model = ModelArtifact.load(FolderObjects(root / 'objects'), sys.argv[2])\n"
        "print(json.dumps([model.score_row(r) for r in json.loads((root / 'rows.json').read_text())]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path, saved], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [list(served.score_row(row)) for row in as_rows(columns)]


def test_any_altered_object_is_refused_before_it_is_read(served):
    """Each part and the manifest in turn, one bit off; LightGBM's C parser would not survive all of them."""
    objects = MemoryObjects()
    saved = served.save(objects)
    for name, data in list(objects.kept.items()):
        objects.kept[name] = bytes([data[0] ^ 1]) + data[1:]
        with pytest.raises(IntegrityError, match="bytes must be those that were stored"):
            ModelArtifact.load(objects, saved)
        objects.kept[name] = data
    assert ModelArtifact.load(objects, saved).name == "late_arrival"


def test_a_folder_store_with_an_altered_file_is_refused(served, tmp_path):
    """The real store, a real file, one bit."""
    objects = FolderObjects(tmp_path)
    saved = served.save(objects)
    trees = json.loads(objects.get(saved))["parts"]["engine/trees.txt"]
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file() and digest(p.read_bytes()) == trees]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        ModelArtifact.load(objects, saved)


def test_any_missing_part_is_an_integrity_error(served):
    """A manifest promises its parts; one that is gone is damage, and the message says which."""
    objects = MemoryObjects()
    saved = served.save(objects)
    for part, name in json.loads(objects.kept[saved])["parts"].items():
        data = objects.kept.pop(name)
        with pytest.raises(IntegrityError, match=f"part '{part}'"):
            ModelArtifact.load(objects, saved)
        objects.kept[name] = data


def test_the_manifest_is_put_last(served):
    """A death while saving leaves parts without a manifest, never a manifest without parts."""
    objects = MemoryObjects()
    assert served.save(objects) == list(objects.kept)[-1]


def test_an_unknown_artifact_is_not_found():
    """A digest nobody stored is the caller's mistake."""
    with pytest.raises(NotFoundError):
        ModelArtifact.load(MemoryObjects(), "0" * 64)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"tree\n", "must be the manifest"),
        (b"[]", "must be the manifest"),
        (b'{"format":99,"kind":"retrodict.model"}', "the format must be 1"),
    ],
)
def test_objects_that_are_no_model_are_refused(data, rule):
    """The digest of something else says so."""
    objects = MemoryObjects()
    with pytest.raises(InputError, match=rule):
        ModelArtifact.load(objects, objects.put(data))


def test_nothing_kept_is_a_pickle(served):
    """Every stored object is text."""
    objects = MemoryObjects()
    served.save(objects)
    assert all(data.decode("utf-8") for data in objects.kept.values())


def test_threads_of_training_do_not_change_the_artifact(spec, train, valid):
    """One digest for one and for two threads; metadata moves the digest and not the fingerprint."""
    digests, fingerprints = set(), set()
    for threads in (1, 2):
        engine = fit_lightgbm(spec, train, valid, seed=7, params={**SMALL, "num_threads": threads}).engine
        model = ModelArtifact("late_arrival", spec, engine)
        digests.add(model.save(MemoryObjects()))
        noted = ModelArtifact("late_arrival", spec, engine, metadata={"threads": threads})
        fingerprints |= {model.fingerprint(), noted.fingerprint()}
        assert noted.save(MemoryObjects()) not in digests
    assert (len(digests), len(fingerprints)) == (1, 1)


def test_the_fingerprint_is_of_all_that_was_learned(served, rows):
    """Another calibration or vocabulary answers otherwise, so it is another model; trees alone do not tell."""
    before = served.fingerprint()
    assert replace(served, calibrator=NoCalibrator()).fingerprint() != before
    fewer = InputSpec.learn(rows[0], {"month": "category"}, max_categories=2)
    assert replace(served, inputs=fewer).fingerprint() != before
    assert replace(served, name="early_arrival").fingerprint() == before


def test_parts_that_do_not_fit_together_are_refused(spec):
    """Width, name and metadata are checked when the model is made."""
    with pytest.raises(InputError, match="the engine must read the 4 features"):
        ModelArtifact("late_arrival", spec, ConstantEngine(0.5, features=3))
    with pytest.raises(InputError, match="metadata must be plain JSON"):
        ModelArtifact("late_arrival", spec, ConstantEngine(0.5, features=4), metadata={"x": object()})
    with pytest.raises(RetrodictError, match="a name must be"):
        ModelArtifact("Late Arrival", spec, ConstantEngine(0.5, features=4))


def test_importing_the_room_loads_no_heavy_library():
    """Definitions live here too; a definitions module must import in a blink."""
    code = (
        "import sys, retrodict.models as m; names = set(sys.modules)\n"
        "assert not names & {'numpy', 'lightgbm', 'sklearn', 'pyarrow'}\n"
        "assert all(getattr(m, name) for name in m.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
