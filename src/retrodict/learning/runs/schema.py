"""Tables of the evaluation store in the record store: runs, their tags, metrics by step and artifacts.

A column that came later has a default of the server: a store of a former version gets it when it is next opened.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, text

__all__ = ["artifacts", "heartbeats", "journal", "metadata", "metrics", "runs", "tags", "values"]

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("status", String(20), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Column("seconds", Float),
    Column("seed", BigInteger, nullable=False),
    Column("code", String(64), nullable=False),
    Column("environment", String(64), nullable=False),
    Column("data", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("kind", String(20), nullable=False, server_default="train"),
    Column("name", String(200), nullable=False, server_default=""),
    Column("parent", String(26), server_default=text("NULL")),
    Column("note", Text, nullable=False, server_default=""),
    Index("runs_parent", "parent"),
    Index("runs_status", "status"),
)

tags = Table(
    "run_tags",
    metadata,
    Column("run", String(26), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

heartbeats = Table(
    "run_heartbeats",
    metadata,
    Column("run", String(26), primary_key=True),
    Column("machine", String(120), nullable=False),
    Column("process", BigInteger, nullable=False),
    Column("began", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
)

metrics = Table(
    "run_metrics",
    metadata,
    Column("run", String(26), primary_key=True),
    Column("split", String(250), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("value", Float),
    Column("low", Float),
    Column("high", Float),
)

artifacts = Table(
    "run_artifacts",
    metadata,
    Column("run", String(26), primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("media", String(120), nullable=False),
    Index("run_artifacts_digest", "digest"),
)

# What a run recorded by hand says while it goes on: its beginning, then what was logged, in groups. Its rows are
# entered in the ledger together with its end, and leave this table then.
journal = Table(
    "run_journal",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run", String(26), nullable=False, index=True),
    Column("body", Text, nullable=False),
)

# What searches read: parameters by dotted name and the last value of each metric. An index over ``runs.params`` and
# ``run_metrics``, written anew from these where it is missing. ``scope``: "run" (one row, so that a run without any
# counts as indexed), "param", or "metric:" and the split.
values = Table(
    "run_values",
    metadata,
    Column("run", String(26), primary_key=True),
    Column("scope", String(260), primary_key=True),
    Column("name", String(500), primary_key=True),
    Column("number", Float),
    Column("text", Text),
    Index("run_values_name", "scope", "name", "number"),
    sqlite_with_rowid=False,  # found by its key at once
)
