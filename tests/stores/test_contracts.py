"""The twins pass the contract suites that ship with the package."""

import os

import pytest

from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.objects.folder import FolderObjects
from retrodict.stores.records.sqlite import SqliteRecords
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.stores.tables.delta import DeltaTables
from retrodict.stores.urls import open_bucket, open_objects, open_tables
from retrodict.testing.contracts_keys import KeysContract
from retrodict.testing.contracts_objects import ObjectsContract
from retrodict.testing.contracts_records import RecordsContract
from retrodict.testing.contracts_streams import StreamsContract
from retrodict.testing.contracts_tables import TablesContract


class TestDeltaTables(TablesContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: DeltaTables(tmp_path / "tables")


class TestBucketTables(TablesContract):
    @pytest.fixture
    def reopen(self, bucket, tmp_path):
        return lambda: open_tables(bucket, tmp_path)


class TestSqliteRecords(RecordsContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: SqliteRecords(tmp_path / "state" / "records.db", timeout_s=1.0)


class TestPostgresRecords(RecordsContract):
    @pytest.fixture
    def reopen(self, postgres):
        from retrodict.stores.records.postgres import PostgresRecords

        url = postgres.url(postgres.database())
        return lambda: PostgresRecords(url, timeout_s=1.0)


class TestLmdbKeys(KeysContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: LmdbKeys(tmp_path / "keys", map_size=1 << 30)


class TestFolderObjects(ObjectsContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: FolderObjects(tmp_path / "objects")

    @pytest.fixture
    def alter(self, tmp_path):
        def replace(digest, data):
            (path,) = tmp_path.rglob(digest)
            os.chmod(path, 0o644)
            path.write_bytes(data)

        return replace


class TestBucketObjects(ObjectsContract):
    @pytest.fixture
    def reopen(self, bucket, tmp_path):
        return lambda: open_objects(bucket, tmp_path)

    @pytest.fixture
    def alter(self, bucket):
        def replace(digest, data):
            place, asking = open_bucket(bucket, "test")
            with asking():
                place.put(f"{digest[:2]}/{digest[2:4]}/{digest}", data)

        return replace


class TestSegmentStreams(StreamsContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: SegmentStreams(tmp_path / "streams")


class TestSmallSegments(StreamsContract):
    """The same promises when nearly every append begins a segment of its own."""

    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: SegmentStreams(tmp_path / "streams", segment_bytes=64)

    # How the stream is cut into pieces is what differs here.
    test_segments_cover_the_stream = None
