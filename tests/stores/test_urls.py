"""Which store a URL opens, and that no message ever repeats what a URL may hide."""

import pytest

from retrodict.core.errors import ConfigurationError
from retrodict.stores import urls
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.objects.folder import FolderObjects
from retrodict.stores.records.sqlite import SqliteRecords
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.stores.tables.bucket import BucketTables
from retrodict.stores.tables.delta import DeltaTables

OPENERS = {
    "tables": (urls.open_tables, DeltaTables),
    "records": (urls.open_records, SqliteRecords),
    "keys": (urls.open_keys, LmdbKeys),
    "objects": (urls.open_objects, FolderObjects),
    "streams": (urls.open_streams, SegmentStreams),
}


def where_it_is(store):
    return getattr(store, "_root", None) or store._path


@pytest.mark.parametrize("contract", OPENERS)
@pytest.mark.parametrize(
    "form",
    ["state/x", "file:state/x", "FILE:state/x", "{root}/state/x", "file:{root}/state/x", "file://{root}/state/x"],
)
def test_a_path_opens_the_embedded_twin(tmp_path, contract, form):
    """Relative to the project or absolute, with and without scheme: the same place."""
    opener, kind = OPENERS[contract]
    store = opener(form.format(root=tmp_path), tmp_path)
    assert type(store) is kind
    assert where_it_is(store) == tmp_path / "state" / "x"
    if hasattr(store, "close"):
        store.close()


@pytest.mark.parametrize("url", ["sqlite:state/r.db", "sqlite:///state/r.db", "sqlite:///{root}/state/r.db"])
def test_sqlite_urls_are_those_of_sqlalchemy(tmp_path, url):
    """Three slashes are relative, four are absolute."""
    store = urls.open_records(url.format(root=tmp_path), tmp_path)
    assert where_it_is(store) == tmp_path / "state" / "r.db"
    store.close()


def test_lmdb_urls_open_keys(tmp_path):
    """The scheme of the library is a scheme of the contract."""
    store = urls.open_keys("lmdb:keys", tmp_path)
    assert where_it_is(store) == tmp_path / "keys"
    store.close()


@pytest.mark.parametrize(
    ("contract", "url", "server"),
    [
        ("objects", "postgresql+psycopg://ann:hunter2@db.example/x?password=hunter2", "PostgreSQL"),
        ("records", "redis://:hunter2@cache.example:6379/0", "Redis"),
        ("streams", "valkeys://ann:hunter2@cache.example", "Valkey"),
        ("objects", "gs://ann:hunter2@bucket/x", "GCS"),
        ("tables", "s3a://ann:hunter2@bucket/x", "S3"),
        ("tables", "gs://bucket/hunter2?secret=hunter2", "GCS"),
    ],
)
def test_a_server_is_refused_by_name_and_without_its_secrets(tmp_path, contract, url, server):
    """The message says what is not there and what is, and holds no part of the address."""
    with pytest.raises(ConfigurationError, match=rf"stores.{contract}: .*their {server} twin.*'file:'") as caught:
        OPENERS[contract][0](url, tmp_path)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "ann", "example", "bucket"))


@pytest.mark.parametrize(
    ("contract", "url", "near"),
    [
        ("records", "sqllite:x.db", "'sqlite'"),
        ("keys", "lmbd:x", "'lmdb'"),
        ("tables", "fil:x", "'file'"),
        ("keys", "sqlite:x", "Known: 'file', 'lmdb'"),
    ],
)
def test_an_unknown_scheme_names_near_ones(tmp_path, contract, url, near):
    """Also when the scheme belongs to another contract."""
    with pytest.raises(ConfigurationError, match=near):
        OPENERS[contract][0](url, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "ann:hunter2@db.example/x",
        "mysql://ann:hunter2@db.example/x",
        "file://ann:hunter2@db.example/x",
        "file:x?key=hunter2",
        "lmdb://hunter2/x",
    ],
)
def test_no_refusal_repeats_a_secret(tmp_path, url):
    """Whatever is wrong with a URL, its parts stay out of the message."""
    with pytest.raises(ConfigurationError) as caught:
        urls.open_keys(url, tmp_path)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "ann", "example"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://data", "data/t/f"),
        ("s3://data/", "data/t/f"),
        ("S3://data/a/b/?region=eu-central-1", "data/a/b/t/f"),
        ("s3://data/a?endpoint=https://store.example:9000/&region=eu-1", "data/a/t/f"),
    ],
)
def test_an_s3_url_opens_tables_in_a_bucket(tmp_path, url, place):
    """Bucket and prefix come from the path; nothing is asked of the server yet."""
    pytest.importorskip("obstore")
    store = urls.open_tables(url, tmp_path)
    assert type(store) is BucketTables
    assert store._versions.place.path("t", "f") == place


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("s3://ann:hunter2@bucket/x", "no user and no password"),
        ("s3://hunter2@bucket", "no user and no password"),
        ("s3://bucket/x?endpoint=http://ann:hunter2@store.example", "no user and no password"),
        ("s3://bucket/x?secret_access_key=hunter2", "'endpoint' and 'region' only; got '1 other'"),
        ("s3://bucket/x?region=eu-1&hunter2", "'endpoint' and 'region' only; got '1 other'"),
        ("s3://bucket/x?endpoint=store.example", "http://host:port"),
        ("s3://bucket/x?endpoint=ftp://store.example", "http://host:port"),
        ("s3://bucket/x?endpoint=http://store.example/hunter2", "http://host:port"),
        ("s3://bucket:9000/x", "no port"),
        ("s3://bucket:hunter2/x", "must be readable"),
        ("s3:///x", "must name one"),
        ("s3:bucket/x", "must name one"),
    ],
)
def test_an_s3_url_that_holds_too_much_is_refused(tmp_path, url, rule):
    """Credentials have no place in it, and no part of it comes back in the message."""
    with pytest.raises(ConfigurationError, match=rf"stores.tables: .*{rule}") as caught:
        urls.open_tables(url, tmp_path)
    told = str(caught.value).replace("s3://bucket/prefix", "")
    assert not any(secret in told for secret in ("hunter2", "ann", "example/", "store.", "bucket/x"))


@pytest.mark.parametrize("url", ["", "  ", "file:", "lmdb://"])
def test_nothing_is_no_store(tmp_path, url):
    """An empty path would be the project's folder itself."""
    with pytest.raises(ConfigurationError, match="a path"):
        urls.open_keys(url, tmp_path)


def test_a_drive_letter_is_no_scheme(tmp_path):
    """One letter before the colon is part of a path."""
    assert where_it_is(urls.open_objects("c:x", tmp_path)) == tmp_path / "c:x"


@pytest.mark.parametrize(
    ("opener", "url", "name"),
    [
        (urls.open_keys, "redsi:host", "'redis'"),
        (urls.open_streams, "kafak:host", "'kafka'"),
        (urls.open_records, "sqlit:records.db", "'sqlite'"),
        (urls.open_streams, "nats://host:4222?prefx=shop", "'prefix'"),
        (urls.open_tables, "s3://bucket?regoin=eu", "'region'"),
        (urls.open_keys, "redis://host/0?durabilty=server", "'durability'"),
    ],
)
def test_a_misspelled_scheme_or_option_has_a_near_name(tmp_path, opener, url, name):
    """What was meant is in the message; the URL is not."""
    with pytest.raises(ConfigurationError, match=rf"Did you mean the (scheme|option) {name}"):
        opener(url, tmp_path)
