"""Tables of the registry in the record store: model versions, approvals, and what is in force since when."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

__all__ = ["approvals", "deployments", "metadata", "versions"]

metadata = MetaData()

versions = Table(
    "model_versions",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run", String(60), nullable=False, unique=True),
    Column("artifact", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("author", String(200), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("gates", Text, nullable=False),
    Column("metrics", Text, nullable=False),
)

approvals = Table(
    "model_approvals",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("approver", String(200), nullable=False),
    Column("granted", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)

# One revisioned record: every row is the whole state of one policy from then on. Rows are never updated, so what was
# in force at any time is a query. ``time`` is by the project's clock, ``recorded`` by the host's.
deployments = Table(
    "deployments",
    metadata,
    Column("revision", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("policy", String(63), nullable=False, index=True),
    Column("time", BigInteger, nullable=False),
    Column("recorded", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(20), nullable=False),
    Column("content", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
