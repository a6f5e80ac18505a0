"""What tables in a bucket do beyond their contract: writers that meet, answers that get lost, servers that refuse."""

import json

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from retrodict.core.errors import BusyError, ConfigurationError, InputError, IntegrityError, RetryableError
from retrodict.stores.tables import _compaction
from retrodict.stores.tables.bucket import BucketTables
from retrodict.stores.urls import open_tables

APPEND = """
import os, sys
from pathlib import Path
import pyarrow as pa
from retrodict.stores.urls import open_tables
os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_EC2_METADATA_DISABLED="true")
tables, writer = open_tables(sys.argv[1], Path()), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for batch in range(int(sys.argv[3])):
    rows = pa.table({"writer": [writer] * 3, "i": range(3 * batch, 3 * batch + 3)})
    print(tables.write("t", rows, metadata={"from": f"{writer}:{batch}"}), flush=True)
"""


def numbers(*values):
    return pa.table({"i": pa.array(values, pa.int64())})


@pytest.fixture
def tables(bucket, tmp_path):
    return open_tables(bucket, tmp_path)


@pytest.fixture
def other(bucket, tmp_path):
    return open_tables(bucket, tmp_path)


def stream(*batches, between):
    """Batches of a reader, with something that happens before the last one."""
    tables = [numbers(*values) for values in batches]

    def parts():
        for place, table in enumerate(tables):
            if place == len(tables) - 1:
                between()
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(tables[0].schema, parts())


def test_writers_in_processes_lose_and_double_nothing(start, bucket, tables):
    """Without a lock too, each batch is one version, whole, and where its number says."""
    writers = [start(APPEND, bucket, writer, 8) for writer in range(4)]
    assert [writer.line() for writer in writers] == ["ready"] * 4
    for writer in writers:
        writer.tell()
    told = {number: [int(line) for line in writer.rest()] for number, writer in enumerate(writers)}
    assert sorted(version for found in told.values() for version in found) == list(range(32))
    rows = tables.read("t").to_pylist()
    for version in tables.history("t"):
        writer, batch = map(int, version.metadata["from"].split(":"))
        assert told[writer][batch] == version.version
        place = slice(3 * version.version, 3 * version.version + 3)
        assert rows[place] == [{"writer": writer, "i": 3 * batch + i} for i in range(3)]
    assert len(rows) == 96


def test_a_writer_that_comes_second_follows(tables, other):
    """Its rows come after those that were committed meanwhile, though its files were named before."""
    tables.write("t", numbers(1))
    assert tables.write("t", stream([4], [5], between=lambda: other.write("t", numbers(2, 3)))) == 2
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3, 4, 5]
    assert other.read("t", 1)["i"].to_pylist() == [1, 2, 3]
    tables.compact("t")
    assert other.read("t")["i"].to_pylist() == [1, 2, 3, 4, 5]


def test_a_writer_that_comes_second_is_judged_by_what_is_there(tables, other):
    """Columns that were added meanwhile are missing in its rows: it is refused, and leaves no file."""
    tables.write("t", numbers(1))
    wider = pa.table({"i": [2], "s": ["x"]})
    with pytest.raises(InputError, match="missing: s"):
        tables.write("t", stream([3], [4], between=lambda: other.write("t", wider, evolve=True)))
    with pytest.raises(InputError, match="must not exist yet"):
        tables.write("new", stream([3], [4], between=lambda: other.write("new", numbers(1))), create_only=True)
    assert [stored.path for stored in tables._versions.place.stored("t")] == [file.path for file in tables.files("t")]
    assert len(tables._versions.place.stored("new")) == 1


def test_an_overwrite_that_comes_second_replaces_all(tables, other):
    """Also the rows that were committed while it was written."""
    tables.write("t", numbers(1))
    rows = stream([3], [4], between=lambda: other.write("t", numbers(2)))
    assert tables.write("t", rows, mode="overwrite") == 2
    assert tables.read("t")["i"].to_pylist() == [3, 4]


@pytest.mark.parametrize(("mode", "told"), [("append", None), ("overwrite", "stay in the table")])
def test_a_compaction_that_comes_second(tables, other, monkeypatch, mode, told):
    """Appends in between do no harm; if its files were replaced it gives up and leaves none."""
    for value in (1, 2):
        tables.write("t", numbers(value))
    joined = _compaction.joined

    def slow(*arguments):
        new = joined(*arguments)
        other.write("t", numbers(3), mode=mode)
        return new

    monkeypatch.setattr(_compaction, "joined", slow)
    if told is None:
        assert tables.compact("t") == 3
        assert tables.read("t")["i"].to_pylist() == [1, 2, 3]
        assert len(tables.files("t")) == 2
    else:
        with pytest.raises(RetryableError, match=told):
            tables.compact("t")
        assert tables.read("t")["i"].to_pylist() == [3]
        assert len(tables._versions.place.stored("t")) == 3


@pytest.mark.parametrize("answer", ["taken", "none"])
def test_a_commit_whose_answer_got_lost_counts_once(tables, monkeypatch, answer):
    """The entry is there and is ours: the library's second try meets the first, or the line broke after it."""
    place = tables._versions.place
    commit = place.commit

    def lossy(*arguments):
        assert commit(*arguments)
        if answer == "none":
            raise OSError(5, "the line broke")
        return False

    monkeypatch.setattr(place, "commit", lossy)
    assert tables.write("t", numbers(1)) == 0
    assert tables.write("t", numbers(2)) == 1
    assert tables.read("t")["i"].to_pylist() == [1, 2]


def test_a_commit_that_failed_leaves_nothing(tables, monkeypatch):
    """No entry, no files, and an error that says to try again."""
    tables.write("t", numbers(1))
    place = tables._versions.place

    def broken(*arguments):
        raise OSError(5, "the line broke")

    monkeypatch.setattr(place, "commit", broken)
    with pytest.raises(RetryableError, match="table t: the place of the tables must answer"):
        tables.write("t", numbers(2))
    assert len(place.stored("t")) == 1


def test_a_crowd_is_told_of_in_time(bucket, tmp_path, monkeypatch):
    """A writer that always comes second gives up after its time limit, and leaves no file."""
    tables, other = open_tables(bucket, tmp_path), open_tables(bucket, tmp_path)
    tables.write("t", numbers(1))
    tables._versions._timeout_s = 0.2
    place = tables._versions.place
    commit = place.commit

    def late(*arguments):
        other.write("t", numbers(0))
        return commit(*arguments)

    monkeypatch.setattr(place, "commit", late)
    with pytest.raises(BusyError, match=r"table t: .*'\d+ commits of others'"):
        tables.write("t", numbers(2))
    assert 2 not in tables.read("t")["i"].to_pylist()
    assert len(place.stored("t")) == len(tables.files("t"))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_object_is_named(tables, damage):
    """Missing and shortened files are found by dataset and read, never fewer rows."""
    tables.write("t", numbers(1))
    tables.write("t", numbers(2))
    place, path = tables._versions.place, tables.files("t")[1].path
    with place.filesystem.open_input_file(place.path("t", path)) as source:
        content = source.read()
    place.remove("t", [path])
    if damage == "cut":
        with place.filesystem.open_output_stream(place.path("t", path)) as sink:
            sink.write(content[:-1])
    for call in (tables.read, tables.dataset):
        with pytest.raises(IntegrityError, match=rf"table t, file {path}"):
            call("t")
    assert tables.read("t", 0)["i"].to_pylist() == [1]


def test_other_delta_readers_understand_the_bucket(tables, s3_server):
    """The library reads the table there, also by the checkpoint that is written now and then."""
    tables.write("t", numbers(1, 2), metadata={"batch": "b1"})
    tables.write("t", pa.table({"i": [3], "s": ["x"]}), evolve=True)
    place = tables._versions.place
    place.checkpoint("t")
    assert any("checkpoint" in file for file in place.log("t"))
    options = {"endpoint": s3_server, "region": "us-east-1", "allow_http": "true"}
    found = DeltaTable(f"s3://{place.path('t', '')}", storage_options=options)
    assert found.to_pyarrow_table().sort_by("i").equals(tables.read("t"))
    assert json.loads(found.history()[-1]["userMetadata"]) == {"batch": "b1"}
    assert tables.read("t", 0)["i"].to_pylist() == [1, 2]


def test_the_digest_of_an_entry_is_that_of_its_bytes(tables):
    """The ledger names entries of the log like data files."""
    tables.write("t", numbers(1))
    assert len(tables.file_digest(f"t/_delta_log/{0:020d}.json")) == 64


def test_a_bucket_that_is_not_there_is_a_matter_of_configuration(s3_server, bucket):
    """The message names the table, and neither the address nor what the environment holds."""
    tables = BucketTables("no-such-bucket", endpoint=s3_server, region="us-east-1")
    with pytest.raises(ConfigurationError, match=r"table t: .*permission") as caught:
        tables.write("t", numbers(1))
    assert not any(word in str(caught.value) for word in ("testing", "127.0.0.1"))


def test_a_server_that_is_not_there_is_worth_another_try(bucket):
    """Nothing listens: RetryableError, in seconds."""
    tables = BucketTables("data", endpoint="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(RetryableError, match="table t: the place of the tables must answer"):
        tables.write("t", numbers(1))


def test_plain_http_is_for_plain_http_endpoints(bucket):
    """Without an endpoint, or with a secure one, nothing goes unencrypted."""
    for endpoint in (None, "https://store.example"):
        place = BucketTables("data", endpoint=endpoint, region="us-east-1")._versions.place
        assert str(place._objects.client_options.get("allow_http", False)).lower() == "false"
