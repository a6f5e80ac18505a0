"""Contracts and streams are light: what is not used is not loaded."""

SCRIPT = """
import sys
import retrodict.stores.urls, retrodict.stores.streams.segments, retrodict.stores.objects.folder
import retrodict.stores.keys.base
heavy = {"pyarrow", "numpy", "deltalake", "sqlalchemy", "lmdb", "duckdb", "pytest"}
heavy = (heavy | {"redis", "hiredis", "nats", "confluent_kafka", "psycopg"}) & set(sys.modules)
print(sorted(heavy), flush=True)
"""


def test_choosing_a_store_loads_no_library_of_another(start):
    """URLs, streams and objects need none of the libraries of tables, records and keys; and never pytest."""
    assert start(SCRIPT).line() == "[]"
