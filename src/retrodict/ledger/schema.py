"""Tables of the ledger in the record store."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

__all__ = ["edges", "ends", "entries", "metadata", "nodes", "seals", "versions"]

metadata = MetaData()

entries = Table(
    "ledger_entries",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(100), nullable=False),
    Column("object_id", String(300), nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ledger_entries_object", "object_id"),
    Index("ledger_entries_action", "action"),
)

# Lineage: "target was made from source, in this role". An index over the ``inputs`` of the entries' payloads, which the
# chain covers: verification compares the two, so an edge cannot be added or dropped afterwards.
edges = Table(
    "ledger_edges",
    metadata,
    Column("sequence", BigInteger, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("source", String(300), nullable=False),
    Column("role", String(60), nullable=False),
    Column("target", String(300), nullable=False),
    Index("ledger_edges_source", "source"),
    Index("ledger_edges_target", "target"),
)

# The end of the chain as it was signed last, written in the transaction that made it: one row. What a death kept out of
# the file of checkpoints is told by it from what somebody without the key appended.
ends = Table(
    "ledger_signed_ends",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("root", String(64), nullable=False),
    Column("log", String(64), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
    Column("after", BigInteger, nullable=False, server_default="0"),
)

# Roots of the complete parts of the Merkle tree over the entries: an index, like the edges.
nodes = Table(
    "ledger_nodes",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("hash", String(64), nullable=False),
)

# Versions of tables that a process of this project was about to write, each signed: what a death kept out of the chain
# is told by it from what somebody without the key put into the log of a table.
versions = Table(
    "ledger_versions",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)

seals = Table(
    "ledger_seals",
    metadata,
    Column("stream", String(200), primary_key=True),
    Column("segment", String(200), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("root", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
)
