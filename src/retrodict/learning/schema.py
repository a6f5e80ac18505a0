"""Tables of the evaluation store in the record store: runs, their tags, metrics by step and artifacts.

A column that came later has a default of the server: a store of a former version gets it when it is next opened.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, text

__all__ = ["artifacts", "heartbeats", "metadata", "metrics", "runs", "tags"]

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
    Column("step", Integer, primary_key=True),
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
